from django.db import models


class Pulse(models.Model):
    """When a part of the program was last seen at work: one row for each part."""

    name = models.CharField(primary_key=True, max_length=32)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
