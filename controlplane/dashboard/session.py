"""Signing in and out: by password, or by a link that works once."""

from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib import auth, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from controlplane.dashboard.formats import span
from controlplane.identity.domain import sign_in_with_password, use_sign_in_link
from controlplane.identity.domain.signin import person_of_link
from controlplane.identity.errors import CredentialError, SignInError, TooManyAttemptsError
from controlplane.identity.models import Person

BACKEND = settings.AUTHENTICATION_BACKENDS[0]


class SignInForm(forms.Form):
    email = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs={"autocomplete": "username", "autofocus": True}),
    )
    password = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    form = SignInForm(request.POST if request.method == "POST" else None, label_suffix="")
    status = 200
    if request.method == "POST" and form.is_valid():
        try:
            person = sign_in_with_password(
                email=form.cleaned_data["email"],
                password=form.cleaned_data["password"],
                address=request.META.get("REMOTE_ADDR"),
                now=timezone.now(),
            )
        except SignInError as error:
            form.add_error(None, str(error))
            status = 422
        except TooManyAttemptsError as error:
            wait = span(timedelta(seconds=error.retry_after_s))
            form.add_error(None, f"Too many attempts. Try again in {wait}.")
            status = 429
        else:
            return _enter(request, person)
    return render(request, "identity/sign_in.html", {"form": form}, status=status)


@never_cache
@require_http_methods(["GET", "POST"])
def one_time(request: HttpRequest, secret: str) -> HttpResponse:
    """Opening the link only asks: a mail scanner that follows it must not use it up."""
    now = timezone.now()
    try:
        if request.method == "POST":
            return _enter(request, use_sign_in_link(secret, now=now))
        person = person_of_link(secret, now=now)
    except CredentialError as error:
        messages.error(request, str(error))
        return redirect("sign-in")
    return render(request, "identity/one_time.html", {"person": person})


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return redirect("sign-in")


def _enter(request: HttpRequest, person: Person) -> HttpResponse:
    auth.login(request, person, backend=BACKEND)
    wanted = request.GET.get("next", "")
    safe = url_has_allowed_host_and_scheme(wanted, allowed_hosts={request.get_host()})
    return HttpResponseRedirect(wanted if safe else resolve_url(settings.LOGIN_REDIRECT_URL))
