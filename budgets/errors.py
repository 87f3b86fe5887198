"""What can be wrong with a wish about budgets. Blame is in the class, words are for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budgets.models import Budget


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


class UncoveredSplitError(BudgetValidationError):
    """A hard budget split by what callers name, with nothing hard above that bounds them (L15)."""

    def __init__(self, field: str = "per", *, per: str = "session") -> None:
        super().__init__(
            field,
            f"a hard budget for each {per} needs a hard budget of its agent, project, team or "
            f"organization above it: else every new {per} would bring new money",
        )


class UnknownFactError(BudgetValidationError):
    """A filter that would match nothing. `nearest` is the known value most like it, if any."""

    def __init__(self, fact: str, pattern: str, *, nearest: str | None) -> None:
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__("filters", f"no {fact} here fits {pattern!r}{hint}")
        self.nearest = nearest


class ChangeNotFoundError(BudgetError):
    """No such planned change in this organization."""


class ChangeClosedError(BudgetError):
    """A planned change that is done or cancelled cannot be cancelled."""


class FiringNotFoundError(BudgetError):
    """No threshold of this organization that was reached and still holds."""


class ApprovalNotFoundError(BudgetError):
    """No such question to people in this organization."""


class ApprovalClosedError(BudgetError):
    """What was decided, or is over, cannot be decided again."""


class NotificationNotFoundError(BudgetError):
    """No such notification in this organization."""


class DelegationError(BudgetError):
    """What a session cannot give to another."""


class NotFreeError(DelegationError):
    """A session has less free than it wants to give."""

    def __init__(self, budget: "Budget", *, free: int, held: int) -> None:
        super().__init__(f"{budget.name}: {free} is free, and {held} is out with sidecars")
        self.budget = budget
        self.held = held


class StillLearningError(BudgetError):
    """After a failover nobody knows what is free until sidecars have told what they leased."""

    def __init__(self) -> None:
        super().__init__("the ledger is learning what is out after a failover: try again soon")


class DelegationNotFoundError(BudgetError):
    """No such delegation in this organization, or it is of other agents."""


class OverrideNotFoundError(BudgetError):
    """The budget has no limit of its own for this split value."""


class BudgetArchivedError(BudgetError):
    """An archived budget is never changed again."""


class PriceError(BudgetError):
    """A rate that cannot be taken. `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class PriceRuleNotFoundError(BudgetError):
    """No such rule of prices in this organization, or it has ended."""


class RerateError(BudgetError):
    """Recorded calls that cannot be charged again as asked. `field` names what is wrong."""

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


class UsageQueryError(BudgetError):
    """A question about use that cannot be answered. `field` names the argument that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class ArchiveError(BudgetError):
    """A day of usage events that cannot be archived now. Nothing of it was lost or dropped."""


class ArchiveBusyError(ArchiveError):
    """Others use the table, or the rollups do not hold the day yet: a later run will do it."""


class UsageEventArchivedError(BudgetError):
    """The event was booked, and stands in an archive."""


class SeedError(BudgetError):
    """Made-up use cannot be made here."""


class ExportError(UsageQueryError):
    """An export that cannot be written here. `field` names the argument that is wrong."""
