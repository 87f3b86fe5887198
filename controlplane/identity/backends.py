"""Sign-in by password: the address in any case, and the same time for unknown people."""

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.hashers import make_password
from django.http import HttpRequest

from controlplane.identity.models import Person


class PasswordBackend(BaseBackend):
    def authenticate(
        self,
        request: HttpRequest | None,  # noqa: ARG002 -- Django names it
        username: str | None = None,
        password: str | None = None,
        **_others: Any,
    ) -> Person | None:
        if username is None or password is None:
            return None
        person = Person.objects.filter(email__iexact=username).first()
        if person is None:
            make_password(password)  # as much work as for somebody who exists
            return None
        return person if person.check_password(password) and person.is_active else None

    def get_user(self, user_id: Any) -> Person | None:
        return Person.objects.filter(pk=user_id, is_active=True).first()
