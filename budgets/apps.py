from django.apps import AppConfig


class BudgetsConfig(AppConfig):
    name = "budgets"
    label = "budgets"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Budgets and ledger"

    def ready(self) -> None:
        import budgets.checks  # noqa: F401, PLC0415 -- registers the system checks
        from budgets import errors  # noqa: PLC0415 -- the registry is Django's to call
        from controlplane.problems import register  # noqa: PLC0415 -- needs loaded apps

        register(errors.BudgetError, 400)
        register(errors.BudgetNotFoundError, 404)
        register(errors.BudgetArchivedError, 409)
        register(errors.UsageEventArchivedError, 410)
        register(errors.OverrideNotFoundError, 404)
        register(errors.ChangeNotFoundError, 404)
        register(errors.PriceRuleNotFoundError, 404)
        register(errors.ChangeClosedError, 409)
        register(errors.FiringNotFoundError, 404)
        register(errors.ApprovalNotFoundError, 404)
        register(errors.ApprovalClosedError, 409)
        register(errors.NotificationNotFoundError, 404)
        register(errors.DelegationError, 422)
        register(errors.NotFreeError, 409)
        register(errors.StillLearningError, 503)
        register(errors.DelegationNotFoundError, 404)
        register(errors.LeaseNotFoundError, 404)
        register(errors.LeaseNotSuspendedError, 409)
