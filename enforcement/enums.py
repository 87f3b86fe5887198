"""Choices of the columns of this app."""

from django.db.models import TextChoices


class NodeState(TextChoices):
    ACTIVE = "active"
    DRAINING = "draining"
    GONE = "gone"
