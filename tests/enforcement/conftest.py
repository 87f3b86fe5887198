from collections.abc import Iterator

import pytest

from tests.enforcement.stack import Peer, Site, make_site, web


@pytest.fixture
def site(transactional_db: None) -> Site:
    return make_site()


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    with web() as address:
        yield address


@pytest.fixture
def peer(url: str, site: Site) -> Peer:
    peer = Peer(url, site.token)
    peer.hello()
    return peer
