"""What can be wrong with a wish about budgets. Blame is in the class, words are for people."""


class BudgetError(Exception):
    """Base of this app's errors."""


class BudgetNotFoundError(BudgetError):
    """No such budget in this organization."""


class BudgetValidationError(BudgetError):
    """A budget that cannot be meant. `field` names the argument that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class BudgetNameTakenError(BudgetValidationError):
    """Another live budget of the organization has this name."""

    def __init__(self, name: str) -> None:
        super().__init__("name", f"another budget is named {name!r}")


class ScopeNotFoundError(BudgetValidationError):
    """A budget that would match nothing: its scope is not in the organization."""

    def __init__(self, scope_kind: str, scope_id: object) -> None:
        super().__init__("scope_id", f"no {scope_kind} with id {scope_id} in this organization")


class UncoveredSessionBudgetError(BudgetValidationError):
    """A hard budget for each session, with nothing hard above that bounds their number (L15)."""

    def __init__(self, field: str = "per") -> None:
        super().__init__(
            field,
            "a hard budget for each session needs a hard budget of its agent, project, team or "
            "organization above it: else every new session would bring new money",
        )


class BudgetArchivedError(BudgetError):
    """An archived budget is never changed again."""


class PriceError(BudgetError):
    """A rate that cannot be taken. `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class CorrectionError(BudgetError):
    """A write-off or correction that the balance cannot bear, or that says no reason."""


class LeaseNotFoundError(BudgetError):
    """No such lease in this organization."""


class LeaseNotSuspendedError(BudgetError):
    """Only what is in suspense can be written off."""


class UsageEventError(BudgetError):
    """A usage event that cannot be true."""

    def __init__(self, event_id: str, message: str) -> None:
        super().__init__(f"usage event {event_id}: {message}")
        self.event_id = event_id
