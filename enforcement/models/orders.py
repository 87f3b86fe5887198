"""Orders to sidecars, sessions that are stopped, and the receipts of both."""

from django.db import models
from django.db.models import Func, Q, Value

from controlplane.identity.ids import new_id
from enforcement.models.nodes import Spool
from enforcement.rules.policy import AgentState, OrderKind, ScopeKind

_NEXT_CURSOR = Func(
    Value("enforcement_order_cursor"), function="nextval", output_field=models.BigIntegerField()
)


class Order(models.Model):
    """An intervention, pushed to sidecars. `cursor` rises in the order of commits."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    cursor = models.BigIntegerField(unique=True, editable=False, db_default=_NEXT_CURSOR)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=[(k.value, k.value) for k in OrderKind])
    scope_kind = models.CharField(max_length=12, choices=[(k.value, k.value) for k in ScopeKind])
    scope_id = models.UUIDField()  # of a session: its agent's
    scope_session = models.CharField(max_length=256, blank=True, default="", db_default="")
    drain = models.BooleanField(default=False, db_default=False)
    actor = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["organization", "cursor"], name="order_of_organization")]
        constraints = [
            models.CheckConstraint(
                condition=Q(scope_kind="session", scope_session__gt="")
                | (~Q(scope_kind="session") & Q(scope_session="")),
                name="order_names_its_session",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.scope_kind} {self.scope_id}"


class StoppedSession(models.Model):
    """A session that people have paused or killed, though its agent may call."""

    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    agent = models.ForeignKey("identity.Agent", models.PROTECT, related_name="+")
    session = models.CharField(max_length=256)
    state = models.CharField(
        max_length=9, choices=[(s.value, s.value) for s in (AgentState.PAUSED, AgentState.KILLED)]
    )
    drains = models.BooleanField(default=False)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["organization", "-at"], name="stopped_of_organization")]
        constraints = [
            models.UniqueConstraint(fields=["agent", "session"], name="stopped_once"),
            models.CheckConstraint(condition=~Q(session=""), name="stopped_session_named"),
            models.CheckConstraint(
                condition=Q(state__in=["paused", "killed"]), name="stopped_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.session}"


class OrderAcknowledgement(models.Model):
    """A book's receipt: what it cut, and how long its last byte took."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    order = models.ForeignKey(Order, models.PROTECT, related_name="acknowledgements")
    spool = models.ForeignKey(Spool, models.PROTECT, related_name="+")
    streams_cut = models.IntegerField()
    tokens_after = models.IntegerField()
    last_byte_ms = models.IntegerField()
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["order", "spool"], name="acknowledged_once"),
        ]

    def __str__(self) -> str:
        return f"{self.order_id} by {self.spool_id}"
