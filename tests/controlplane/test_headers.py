"""Headers that every page carries."""

import re

import pytest
from django.conf import settings
from django.test import Client


def policy_of(path: str) -> dict[str, list[str]]:
    header = Client().get(path).headers["Content-Security-Policy"]
    parts = [part.split() for part in header.split(";")]
    return {name: values for name, *values in parts}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/sign-in/", "/", "/healthz", "/api/v1/agents"])
def test_nothing_inline_runs(path: str) -> None:
    policy = policy_of(path)
    nonces = [value for value in policy["script-src"] if value != "'self'"]
    assert len(nonces) == 1
    assert re.fullmatch(r"'nonce-[\w-]{20,}'", nonces[0])
    assert policy["style-src"] == ["'self'"]
    assert policy["default-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == ["'none'"]


@pytest.mark.django_db
def test_each_request_has_its_own_nonce() -> None:
    assert policy_of("/sign-in/")["script-src"] != policy_of("/sign-in/")["script-src"]


def test_only_the_api_docs_style_inline() -> None:
    assert policy_of("/api/docs")["style-src"] == ["'self'", "'unsafe-inline'"]


@pytest.mark.django_db
def test_a_page_cannot_be_framed_sniffed_or_followed() -> None:
    headers = Client().get("/sign-in/").headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_cookies_are_closed_to_scripts_and_other_sites() -> None:
    assert settings.SESSION_COOKIE_HTTPONLY
    assert settings.CSRF_COOKIE_HTTPONLY
    assert settings.SESSION_COOKIE_SAMESITE == settings.CSRF_COOKIE_SAMESITE == "Lax"


def test_another_host_is_refused() -> None:
    answer = Client(headers={"host": "evil.example"}, raise_request_exception=False).get(
        "/api/docs"
    )
    assert answer.status_code == 400
