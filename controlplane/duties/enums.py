from django.db import models


class LetterState(models.TextChoices):
    """What became of a task that failed for good."""

    DEAD = "dead", "waits for somebody"
    RETRIED = "retried", "was sent again"
    DISMISSED = "dismissed", "was dismissed"
    RECOVERED = "recovered", "succeeded in a later turn"
