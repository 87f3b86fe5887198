"""What the workers know of their own work. It belongs to the installation, to no organization."""

from django.db import models
from django.db.models import Q

from controlplane.duties.enums import LetterState
from controlplane.identity.ids import new_id


class Duty(models.Model):
    """A task that is done again and again: one row for each, the truth about when it is due.

    The broker only wakes workers. What it loses or doubles changes nothing here.
    """

    name = models.CharField(primary_key=True, max_length=64)  # of the task
    due_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)  # a worker was woken for this turn
    started_at = models.DateTimeField(null=True)  # the last begin
    attempts = models.IntegerField(default=0)  # begun for this turn and not done
    runs = models.BigIntegerField(default=0)  # all that ended, well or not
    failures = models.BigIntegerField(default=0)  # of those
    busy_ms = models.BigIntegerField(default=0)  # all of them together
    last_ms = models.BigIntegerField(default=0)

    class Meta:
        verbose_name_plural = "duties"
        constraints = [
            models.CheckConstraint(condition=~Q(name=""), name="duty_is_named"),
            models.CheckConstraint(
                condition=Q(attempts__gte=0, failures__gte=0, busy_ms__gte=0, last_ms__gte=0),
                name="duty_counts_up",
            ),
            models.CheckConstraint(
                condition=Q(failures__lte=models.F("runs")), name="duty_fails_only_when_run"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class DeadLetter(models.Model):
    """A task that failed for good. Its arguments are ids and numbers only, its error has no text
    of anybody's: where it was raised, and what.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    task = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)  # SHA-256 of the arguments: the same ones, one letter
    arguments = models.JSONField(default=dict, blank=True)
    whole = models.BooleanField()  # whether `arguments` is all of them: only then it can be sent
    error = models.CharField(max_length=300)
    attempts = models.IntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    state = models.CharField(max_length=9, choices=LetterState.choices, default=LetterState.DEAD)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["-last_at", "-id"], name="letter_by_time")]
        constraints = [
            models.UniqueConstraint(
                fields=["task", "digest"],
                condition=Q(state=LetterState.DEAD),
                name="letter_once_while_dead",
            ),
            models.CheckConstraint(
                condition=Q(state__in=LetterState.values), name="letter_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state=LetterState.DEAD, settled_at__isnull=True)
                | (~Q(state=LetterState.DEAD) & Q(settled_at__isnull=False)),
                name="letter_settled_has_a_time",
            ),
            models.CheckConstraint(
                condition=~Q(task="") & ~Q(error="") & Q(attempts__gte=1),
                name="letter_says_what_failed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task}: {self.error}"
