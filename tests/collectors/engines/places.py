"""Where engines are installed: once, outside of version control.

What has a `.lock` is installed by its hashes. vLLM and transformers need PyTorch for the processor
alone, which each installation finds elsewhere: they are pinned by version (`.in`).
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parents[2] / ".nodes"
# PyPI's own of these do not fit a PyTorch for the processor: vLLM's import breaks on them.
UNFIT = ("torchvision", "torchaudio", "torchcodec")


def python_of(name: str) -> Path:
    """The Python of the engine's environment, which is made if it is not there yet."""
    lock = next(path for path in (HERE / f"{name}.lock", HERE / f"{name}.in") if path.exists())
    folder = HOME / name
    python, stamp = folder / "bin/python", folder / "installed"
    seal = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != seal:
        print(f"installing {name} into {folder} ...", file=sys.stderr)  # noqa: T201 -- it takes a while
        _install(folder, python, lock)
        stamp.write_text(seal)
    return python


def _install(folder: Path, python: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run((sys.executable, "-m", "venv", folder), check=True)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    hashed = ("--no-deps", "--require-hashes") if lock.suffix == ".lock" else ()
    subprocess.run((*pip, "install", *hashed, "-r", lock), check=True)
    if not hashed:
        subprocess.run((*pip, "uninstall", "--yes", *UNFIT), check=True)
