"""Forms whose instants are written in the organization's time zone."""

from datetime import UTC
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django import forms
from django.forms import BoundField


class InstantField(forms.DateTimeField):
    """A date and time of a clock on the wall; `LocalForm` says which clock."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


class LocalForm(forms.Form):
    """Its `InstantField`s are cleaned to instants; `layout` says how its fields stand."""

    layout: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, *args: Any, zone: ZoneInfo, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._zone = zone

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        """Each field with the class of its width."""
        return [(self[name], css) for name, css in self.layout if name in self.fields]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name, field in self.fields.items():
            if isinstance(field, InstantField) and cleaned.get(name):
                try:
                    cleaned[name] = cleaned[name].replace(tzinfo=self._zone).astimezone(UTC)
                except OverflowError:  # the first or last day that a calendar has
                    self.add_error(name, "No such time.")
        return cleaned

    def refuse(self, field: str, message: str) -> None:
        """Show a refusal of the domain at its field, as a sentence."""
        name = field if field in self.fields else None
        self.add_error(name, message[:1].upper() + message[1:] + ".")
