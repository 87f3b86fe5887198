"""Files that people give to a form: read whole into memory, so only up to a size."""

from typing import Any, NamedTuple

from django import forms
from django.core.files.uploadedfile import UploadedFile


class Upload(NamedTuple):
    """A file as it came."""

    name: str
    content: bytes


class SmallFile(forms.FileField):
    """A file that is cleaned to an `Upload`, or None. `most_bytes`: larger ones are not read."""

    def __init__(self, *, most_bytes: int, larger: str, accept: str, **options: Any) -> None:
        widget = forms.ClearableFileInput(attrs={"accept": accept})
        super().__init__(widget=widget, **options)
        self._most_bytes, self._larger = most_bytes, larger

    def clean(self, data: Any, initial: Any = None) -> Upload | None:
        file = super().clean(data, initial)
        if not isinstance(file, UploadedFile):
            return None
        if (file.size or 0) > self._most_bytes:
            most = self._most_bytes // 1_000_000
            raise forms.ValidationError(f"The file has more than {most} MB. {self._larger}")
        return Upload(str(file.name), file.read())
