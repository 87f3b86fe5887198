from http import HTTPStatus

from django.apps import AppConfig


class SkillsConfig(AppConfig):
    name = "skills"
    label = "skills"
    verbose_name = "Skill cards"

    def ready(self) -> None:
        from budgets.domain.checks import know  # noqa: PLC0415 -- needs loaded apps
        from controlplane.problems import register  # noqa: PLC0415 -- needs the loaded settings
        from skills import errors, queries  # noqa: PLC0415 -- beside its use

        know("skill", queries.skill_names)

        register(errors.SkillsError, HTTPStatus.UNPROCESSABLE_ENTITY)
        register(errors.CardConflictError, HTTPStatus.CONFLICT)
        register(errors.AlreadyGrantedError, HTTPStatus.CONFLICT)
        register(errors.AlreadyRevokedError, HTTPStatus.CONFLICT)
        register(errors.SigningKeyError, HTTPStatus.SERVICE_UNAVAILABLE)
