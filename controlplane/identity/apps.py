from http import HTTPStatus

from django.apps import AppConfig


class IdentityConfig(AppConfig):
    name = "controlplane.identity"
    label = "identity"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Organizations, people, agents and keys"

    def ready(self) -> None:
        import controlplane.checks  # noqa: F401, PLC0415 -- registers the system checks
        from controlplane.identity import errors  # noqa: PLC0415 -- beside its use
        from controlplane.problems import register  # noqa: PLC0415 -- needs the loaded settings

        register(errors.IdentityValidationError, HTTPStatus.BAD_REQUEST)
        register(errors.NotFoundInOrganizationError, HTTPStatus.NOT_FOUND)
        register(errors.InvalidStateChangeError, HTTPStatus.CONFLICT)
        register(errors.AgentRetiredError, HTTPStatus.CONFLICT)
        register(errors.AlreadyMemberError, HTTPStatus.CONFLICT)
        register(errors.LastOwnerError, HTTPStatus.CONFLICT)
        register(errors.KeyRevokedError, HTTPStatus.CONFLICT)
        register(errors.OwnersOnlyError, HTTPStatus.FORBIDDEN)
        register(errors.ForeignPersonError, HTTPStatus.FORBIDDEN)
        register(errors.CredentialError, HTTPStatus.UNAUTHORIZED)
        register(errors.SignInError, HTTPStatus.UNAUTHORIZED)
        register(errors.TooManyAttemptsError, HTTPStatus.TOO_MANY_REQUESTS)
        register(errors.IdempotencyConflictError, HTTPStatus.UNPROCESSABLE_ENTITY)
