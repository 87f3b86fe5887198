"""A strict Content-Security-Policy with a nonce for each request."""

import secrets
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

INLINE_STYLES = frozenset({"/api/docs"})  # Swagger UI brings its own


class ContentSecurityPolicyMiddleware:
    """Sets `request.csp_nonce` and the header. No inline script or style runs without the nonce."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        nonce = secrets.token_urlsafe(16)
        request.csp_nonce = nonce  # type: ignore[attr-defined]
        response = self._get_response(request)
        style = "'self' 'unsafe-inline'" if request.path in INLINE_STYLES else "'self'"
        response.headers.setdefault(
            "Content-Security-Policy",
            f"default-src 'self'; script-src 'self' 'nonce-{nonce}'; style-src {style}; "
            "img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
            "form-action 'self'",
        )
        return response
