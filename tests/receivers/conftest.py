from collections.abc import Iterator

import pytest
from django.utils import timezone

from controlplane.identity.domain import issue_api_token
from controlplane.identity.enums import Scope
from tests.enforcement.stack import ACTOR, Site, make_site, web_processes


@pytest.fixture
def site(transactional_db: None) -> Site:
    return make_site()


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    """A whole web process on the test database."""
    with web_processes(1) as (address,):
        yield address


@pytest.fixture
def key(site: Site) -> str:
    return key_of(site)


def key_of(site: Site, *scopes: Scope) -> str:
    """The secret of a token that may report, or of other scopes."""
    issued = issue_api_token(
        organization_id=site.organization.id,
        name="reports",
        actor=ACTOR,
        now=timezone.now(),
        scopes=[scope.value for scope in scopes or (Scope.USAGE_WRITE,)],
    )
    return issued.secret
