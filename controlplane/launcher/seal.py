"""Have the migrations changed since the embedded database had them? A hash answers cheaply."""

import hashlib
from importlib.metadata import version
from pathlib import Path

APPS = ("budgets", "controlplane", "enforcement", "skills")


def seal_of_migrations(checkout: Path) -> str:
    """A hash over every migration file of ours, and Django's version for its own apps."""
    digest = hashlib.sha256(version("django").encode())
    for app in APPS:
        for file in sorted((checkout / app).rglob("migrations/*")):
            if file.suffix in (".py", ".sql"):
                digest.update(str(file.relative_to(checkout)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
