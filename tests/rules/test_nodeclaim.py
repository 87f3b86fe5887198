"""Which sidecar speaks for a node."""

from typing import Any

import pytest

from enforcement.rules.nodeclaim import Claim, Known, judge

ADDRESS, OTHER = "http://gpu-a:8000", "http://evil:8000"


@pytest.mark.parametrize(
    ("known", "address", "claim"),
    [
        ({"owner": "a"}, ADDRESS, Claim.OWN),
        ({"owner": "a"}, OTHER, Claim.OWN),
        ({"owner": "a", "is_gone": True}, ADDRESS, Claim.OWN),
        ({"owner": ""}, OTHER, Claim.ADOPTED),
        ({"owner": "b", "owner_is_revoked": True}, OTHER, Claim.ADOPTED),
        ({"owner": "b", "is_gone": True}, OTHER, Claim.ADOPTED),
        ({"owner": "b"}, ADDRESS, Claim.SHARED),
        ({"owner": "b"}, OTHER, Claim.OF_ANOTHER),
        ({"owner": "a", "is_gone": True, "is_removed": True}, ADDRESS, Claim.REMOVED),
        ({"owner": "", "is_gone": True, "is_removed": True}, ADDRESS, Claim.REMOVED),
    ],
)
def test_what_becomes_of_a_name(known: dict[str, Any], address: str, claim: Claim) -> None:
    usual = {"owner_is_revoked": False, "is_gone": False, "is_removed": False}
    assert (
        judge(Known(address=ADDRESS, **{**usual, **known}), sidecar="a", address=address) is claim
    )
