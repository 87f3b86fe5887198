from django.apps import AppConfig


class EnforcementConfig(AppConfig):
    name = "enforcement"
    label = "enforcement"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sidecars, nodes and orders"

    def ready(self) -> None:
        from budgets.domain.checks import know  # noqa: PLC0415 -- needs loaded apps
        from budgets.domain.incarnation import know_learning  # noqa: PLC0415 -- needs loaded apps
        from controlplane.problems import register  # noqa: PLC0415 -- needs loaded apps
        from enforcement import errors, queries  # noqa: PLC0415 -- needs loaded apps

        know_learning(queries.is_learning)
        know("node", queries.node_names)
        know("provider", queries.node_providers)
        know("model", queries.served_models)

        register(errors.SidecarNameTakenError, 409)
        register(errors.SpoolOfAnotherError, 403)
        register(errors.GroupKeyReusedError, 422)
        register(errors.MessageError, 422)
        register(errors.BusyError, 503)
        register(errors.UnsafeDatabaseError, 503)
        register(errors.NodeNameTakenError, 409)
        register(errors.NodeAddressError, 422)
        register(errors.NodeStateError, 409)
        register(errors.BillError, 422)
        register(errors.NodeLabelError, 422)
        register(errors.NodePatienceError, 422)
        register(errors.NodeCostError, 422)
        register(errors.SpoolNotFoundError, 404)
        register(errors.UnreadableReportError, 400)
        register(errors.ReportTooLargeError, 413)
        register(errors.ReportFormatError, 415)
        register(errors.TooManyReportsError, 429)
