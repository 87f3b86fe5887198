"""Where the real signed skills are, on machines that have them."""

import hashlib
import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "skills"
SAMPLES = Path(os.environ.get("COMPTROLLER_SKILL_SAMPLES", _DEFAULT))

needs_samples = pytest.mark.skipif(
    not (SAMPLES / "verified").is_dir(),
    reason=f"no signed skills at {SAMPLES}: set COMPTROLLER_SKILL_SAMPLES to a folder of them",
)


def folders(kind: str) -> list[Path]:
    """The skill folders of one kind: `verified`, `wrong-root`, `drifted`, `rollback/older`."""
    found = (path.parent for path in (SAMPLES / kind).glob("*/skill.oms.sig"))
    return sorted(found)


def hashes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
