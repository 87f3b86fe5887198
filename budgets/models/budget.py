from typing import Literal, cast

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from budgets.enums import BudgetState, Period, Rollover, WindowKind, choices_of
from controlplane.identity.ids import new_id
from enforcement.rules.policy import (
    BudgetPolicy,
    HoldMode,
    Mode,
    Overflow,
    Per,
    ScopeKind,
    Unit,
    WindowSpec,
)
from enforcement.rules.rolling import MIN_BUCKET_S, MOST_PARTS
from enforcement.rules.windows import MAX_ANCHOR_DAY

TAG_PATTERN = r"^tag:[A-Za-z0-9_.-]{1,64}$"  # a split by a tag of the call
KindOfWindow = Literal["lifetime", "calendar", "until", "rolling"]
CalendarPeriod = Literal["minute", "hour", "day", "week", "month", "quarter", "year"]


class Budget(models.Model):
    """A policy: whose use is counted, in which unit and window, up to which limit, and how hard.

    What names its balances (scope, per, unit, window) never changes; make a new budget instead.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    name = models.CharField(max_length=200)
    scope_kind = models.CharField(max_length=12, choices=choices_of(ScopeKind))
    scope_id = models.UUIDField()
    scope_session = models.CharField(max_length=128, blank=True, default="")
    filters = models.JSONField(default=dict, blank=True)
    per = models.CharField(max_length=72, blank=True, default="")
    unit = models.CharField(max_length=16, choices=choices_of(Unit))
    window_kind = models.CharField(max_length=8, choices=WindowKind.choices)
    period = models.CharField(max_length=8, blank=True, default="", choices=Period.choices)
    time_zone = models.CharField(max_length=64, default="UTC")
    anchor_day = models.SmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_ANCHOR_DAY)]
    )
    anchor_month = models.SmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(12)]
    )
    ends_at = models.DateTimeField(null=True, blank=True)  # of a window until a date
    rolling_s = models.IntegerField(null=True, blank=True)
    rolling_parts = models.SmallIntegerField(default=0)
    rollover = models.CharField(max_length=8, choices=Rollover.choices, default=Rollover.NONE)
    rollover_amount = models.BigIntegerField(null=True, blank=True)  # the most that is carried
    mode = models.CharField(max_length=8, choices=choices_of(Mode), default=Mode.HARD)
    hold_mode = models.CharField(
        max_length=8, choices=choices_of(HoldMode), default=HoldMode.STRICT
    )
    limit_amount = models.BigIntegerField()
    increase_amount = models.BigIntegerField(default=0)  # temporary increases that hold now
    thresholds = models.JSONField(default=list, blank=True)  # see enforcement.rules.thresholds
    max_values = models.IntegerField(default=10_000)
    overflow = models.CharField(max_length=8, choices=choices_of(Overflow), default=Overflow.REFUSE)
    state = models.CharField(max_length=8, choices=BudgetState.choices, default=BudgetState.ARMING)
    armed_at = models.DateTimeField(null=True, blank=True)
    policy_revision = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["organization", "scope_kind", "scope_id"], name="budget_by_scope"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "name"],
                condition=Q(archived_at__isnull=True),
                name="budget_name_unique_while_live",
            ),
            models.UniqueConstraint(fields=["id", "organization"], name="budget_with_organization"),
            models.CheckConstraint(condition=Q(limit_amount__gt=0), name="budget_limit_positive"),
            models.CheckConstraint(
                condition=Q(increase_amount__gte=0), name="budget_increase_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(max_values__gt=0), name="budget_max_values_positive"
            ),
            models.CheckConstraint(
                condition=Q(scope_kind__in=[kind.value for kind in ScopeKind]),
                name="budget_scope_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(unit__in=[unit.value for unit in Unit]), name="budget_unit_known"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=[mode.value for mode in Mode]), name="budget_mode_known"
            ),
            models.CheckConstraint(
                condition=Q(per__in=[per.value for per in Per]) | Q(per__regex=TAG_PATTERN),
                name="budget_per_known",
            ),
            models.CheckConstraint(
                condition=Q(overflow__in=[overflow.value for overflow in Overflow]),
                name="budget_overflow_known",
            ),
            models.CheckConstraint(
                condition=Q(scope_kind=ScopeKind.SESSION.value) ^ Q(scope_session=""),
                name="budget_session_scope_is_named",
            ),
            models.CheckConstraint(
                condition=~Q(unit=Unit.CONCURRENCY.value)
                | Q(mode=Mode.HARD.value, window_kind=WindowKind.LIFETIME.value),
                name="budget_permits_are_lent_for_good",
            ),
            models.CheckConstraint(
                condition=Q(hold_mode=HoldMode.STRICT.value)
                | Q(hold_mode=HoldMode.METERED.value, mode=Mode.HARD.value),
                name="budget_metered_only_if_hard",
            ),
            models.CheckConstraint(
                condition=Q(
                    window_kind=WindowKind.LIFETIME.value,
                    period="",
                    ends_at__isnull=True,
                    rolling_s__isnull=True,
                )
                | Q(
                    window_kind=WindowKind.CALENDAR.value,
                    period__in=Period.values,
                    ends_at__isnull=True,
                    rolling_s__isnull=True,
                )
                | Q(
                    window_kind=WindowKind.UNTIL.value,
                    period="",
                    ends_at__isnull=False,
                    rolling_s__isnull=True,
                )
                | Q(
                    window_kind=WindowKind.ROLLING.value,
                    period="",
                    ends_at__isnull=True,
                    rolling_s__isnull=False,
                    rolling_s__gte=MIN_BUCKET_S,
                    rolling_parts__gte=1,
                    rolling_parts__lte=MOST_PARTS,
                ),
                name="budget_window_complete",
            ),
            models.CheckConstraint(
                condition=Q(anchor_month__gte=1, anchor_month__lte=12),
                name="budget_anchor_month_in_every_year",
            ),
            models.CheckConstraint(
                condition=Q(rollover=Rollover.NONE.value, rollover_amount__isnull=True)
                | Q(
                    rollover=Rollover.CAPPED.value,
                    rollover_amount__isnull=False,
                    rollover_amount__gt=0,
                    window_kind=WindowKind.CALENDAR.value,
                )
                | Q(
                    rollover=Rollover.ALL.value,
                    rollover_amount__isnull=True,
                    window_kind=WindowKind.CALENDAR.value,
                ),
                name="budget_rollover_of_calendar_windows",
            ),
            models.CheckConstraint(
                condition=Q(anchor_day__gte=1, anchor_day__lte=MAX_ANCHOR_DAY),
                name="budget_anchor_day_in_every_month",
            ),
            models.CheckConstraint(
                condition=Q(state=BudgetState.ARMING.value, armed_at__isnull=True)
                | Q(state=BudgetState.ARMED.value, armed_at__isnull=False),
                name="budget_armed_has_instant",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def effective_limit(self) -> int:
        """The limit that holds now: its own, and the temporary increases."""
        return self.limit_amount + self.increase_amount

    @property
    def window(self) -> WindowSpec:
        return WindowSpec(
            kind=cast("KindOfWindow", self.window_kind),
            period=cast("CalendarPeriod", self.period) if self.period else None,
            time_zone=self.time_zone,
            anchor_day=self.anchor_day,
            anchor_month=self.anchor_month,
            ends_at_s=int(self.ends_at.timestamp()) if self.ends_at else None,
            length_s=self.rolling_s,
            parts=self.rolling_parts,
        )

    def to_policy(self) -> BudgetPolicy:
        """How sidecars and the matching rules see this budget."""
        return BudgetPolicy(
            id=str(self.id),
            name=self.name,
            scope_kind=ScopeKind(self.scope_kind),
            scope_id=str(self.scope_id),
            unit=Unit(self.unit),
            limit=self.effective_limit,
            mode=Mode(self.mode),
            hold_mode=HoldMode(self.hold_mode),
            per=self.per,
            window=self.window,
            max_values=self.max_values,
            overflow=Overflow(self.overflow),
            filters=self.filters,
            scope_session=self.scope_session,
        )


class BudgetOverride(models.Model):
    """The limit of one split value, where it differs from the limit of its budget."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    # The foreign key is composite, with the organization.
    budget = models.ForeignKey(
        Budget, models.PROTECT, db_constraint=False, related_name="overrides"
    )
    value = models.CharField(max_length=200)
    limit_amount = models.BigIntegerField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["budget", "value"], name="override_one_for_each_value"),
            models.CheckConstraint(condition=Q(limit_amount__gt=0), name="override_limit_positive"),
            models.CheckConstraint(condition=~Q(value=""), name="override_of_a_value"),
        ]

    def __str__(self) -> str:
        return f"{self.budget_id}/{self.value}"
