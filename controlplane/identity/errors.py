"""What can go wrong with identities. None of these knows HTTP."""


class IdentityError(Exception):
    """Base of this app's errors."""


class NotFoundInOrganizationError(IdentityError):
    """An id that this organization does not have; said alike for foreign and unknown ids."""


class IdentityValidationError(IdentityError):
    """A wish that cannot be meant. `field` names the argument that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class SlugTakenError(IdentityValidationError):
    """Another object of this organization has the slug, or had it."""

    def __init__(self, slug: str) -> None:
        super().__init__("slug", f"the slug {slug!r} is taken")


class InvalidStateChangeError(IdentityError):
    """The state table has no such transition."""


class AgentRetiredError(IdentityError):
    """A retired agent is never changed again."""


class AlreadyMemberError(IdentityError):
    """The person is a member already, in another role."""


class LastOwnerError(IdentityError):
    """An organization always keeps one owner."""


class OwnersOnlyError(IdentityError):
    """Only an owner may make, change or sign in an owner."""


class ForeignPersonError(IdentityError):
    """The person also belongs to other organizations, so that this one cannot sign them in."""


class KeyRevokedError(IdentityError):
    """A revoked or expired secret cannot be rotated."""


class CredentialError(IdentityError):
    """A bearer secret that is malformed, unknown, expired or revoked. The message says which."""


class SignInError(IdentityError):
    """Address or password is wrong; which of them is not said."""


class TooManyAttemptsError(IdentityError):
    """Too many failed tries to sign in. Waiting helps."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many failed tries: wait {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class ReasonRequiredError(IdentityValidationError):
    """An intervention must say why."""

    def __init__(self, message: str) -> None:
        super().__init__("reason", message)


class IdempotencyConflictError(IdentityError):
    """The key was used for another request."""
