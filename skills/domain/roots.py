"""The trust roots of an organization, as pages list them and the verifier trusts them."""

from collections.abc import Sequence
from uuid import UUID

from enforcement.rules.certificates import OmsRoot
from skills.models import TrustRoot


def known_roots(*, organization_id: UUID) -> list[TrustRoot]:
    """The organization's own roots, and the shipped ones that it has not taken up."""
    own = list(TrustRoot.objects.filter(organization_id=organization_id))
    taken = {root.fingerprint for root in own}
    shipped = TrustRoot.objects.filter(organization__isnull=True).exclude(fingerprint__in=taken)
    return sorted([*own, *shipped], key=lambda root: (root.name, str(root.id)))


def enabled_roots(*, organization_id: UUID) -> Sequence[OmsRoot]:
    """What the verifier may trust now."""
    rows = TrustRoot.objects.filter(organization_id=organization_id, enabled=True)
    return [OmsRoot(pem=row.pem, required_subject=row.required_subject) for row in rows]
