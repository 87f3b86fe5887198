"""A bundle is one text: no key stands twice, no base64 can be written in two ways."""

import base64
import json

import pytest

from tests.rules.test_oms import NAME, codes, judge
from tests.skills.publisher import FILES, Publisher, b64, make_publisher, statement_of


@pytest.fixture(scope="module")
def publisher() -> Publisher:
    return make_publisher()


@pytest.fixture(scope="module")
def bundle(publisher: Publisher) -> bytes:
    return publisher.sign(NAME, FILES)


def test_duplicate_keys(publisher: Publisher, bundle: bytes) -> None:
    doubled = bundle.replace(b'{"mediaType"', b'{"mediaType": "x", "mediaType"', 1)

    assert codes(judge(doubled, publisher)) == ["duplicate_key"]


def test_duplicate_keys_in_the_payload(publisher: Publisher) -> None:
    payload = json.dumps(statement_of(NAME, FILES)).encode()
    doubled = payload.replace(b'{"_type"', b'{"_type": "x", "_type"', 1)

    assert codes(judge(publisher.bundle(doubled), publisher)) == ["duplicate_key"]


def test_base64_has_one_text(publisher: Publisher, bundle: bytes) -> None:
    document = json.loads(bundle)
    signature = document["dsseEnvelope"]["signatures"][0]["sig"]
    raw = base64.b64decode(signature)
    document["dsseEnvelope"]["signatures"][0]["sig"] = b64(raw) + "\n"

    assert codes(judge(json.dumps(document).encode(), publisher)) == ["signature_invalid"]
