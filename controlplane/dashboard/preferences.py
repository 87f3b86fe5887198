"""What a person likes: light or dark, and which of their organizations to look at."""

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from controlplane.dashboard.context import THEMES
from controlplane.dashboard.web import ORGANIZATION_IN_SESSION, PageRequest, page

YEAR_S = 365 * 24 * 3600


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Keep the theme in a cookie; with JavaScript the page does so by itself."""
    response = _back(request)
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie("theme", chosen, max_age=YEAR_S, samesite="Lax")
    return response


@require_POST
@page
def organization(request: PageRequest) -> HttpResponse:
    """Look at another organization of one's own; `admit` checks the membership each time."""
    request.session[ORGANIZATION_IN_SESSION] = request.POST.get("organization", "")
    return HttpResponseRedirect("/")


def _back(request: HttpRequest) -> HttpResponse:
    address = request.POST.get("next", "/")
    safe = url_has_allowed_host_and_scheme(address, allowed_hosts={request.get_host()})
    return HttpResponseRedirect(address if safe else "/")
