"""What the workers know of their own work. It belongs to the installation, to no organization."""

from django.db import models
from django.db.models import Q


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
