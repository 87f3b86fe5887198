"""What can go wrong with identities. None of them knows HTTP."""


class IdentityError(Exception):
    """Base of this app's errors."""


class NotFoundInOrganizationError(IdentityError):
    """An id that this organization does not have; said alike for foreign and unknown ids."""


class SlugTakenError(IdentityError):
    """Another object of this organization has the slug, or had it."""


class InvalidStateChangeError(IdentityError):
    """The state table has no such transition."""


class LastOwnerError(IdentityError):
    """An organization always keeps one owner."""


class CredentialError(IdentityError):
    """A bearer secret that is malformed, unknown, expired or revoked. The message says which."""


class ReasonRequiredError(IdentityError):
    """An intervention must say why."""
