"""A small disk of its own that can be filled to the last byte. Needs root, for the mount."""

import os
import subprocess
from pathlib import Path


class SmallDisk:
    """A tmpfs at `place`, or a plain directory where mounting is not allowed."""

    def __init__(self, place: Path, *, megabytes: int) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self.mounted = os.geteuid() == 0 and self._mount(megabytes)
        self._ballast = place / "ballast"

    def _mount(self, megabytes: int) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.place)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError:
                pass

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.place)], check=False)
