from http import HTTPStatus

from django.apps import AppConfig


class DutiesConfig(AppConfig):
    name = "controlplane.duties"
    label = "duties"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Background work"

    def ready(self) -> None:
        from controlplane.duties import errors  # noqa: PLC0415 -- beside its use
        from controlplane.problems import register  # noqa: PLC0415 -- needs the loaded settings

        register(errors.LetterNotFoundError, HTTPStatus.NOT_FOUND)
        register(errors.LetterSettledError, HTTPStatus.CONFLICT)
        register(errors.LetterIncompleteError, HTTPStatus.CONFLICT)
        register(errors.ReasonMissingError, HTTPStatus.BAD_REQUEST)
        register(errors.BrokerAwayError, HTTPStatus.SERVICE_UNAVAILABLE)
