"""Where clients that are no part of the lock are installed: once, outside of version control.

Both installs are pinned with hashes: `npm/package-lock.json` and `litellm.lock`.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".clients"


def npm_modules() -> Path | None:
    """The installed packages of npm; None where there is no Node."""
    if not (shutil.which("npm") and shutil.which("node")):
        return None
    folder = HOME / "npm"
    if _is_new(folder, HERE / "npm/package-lock.json"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "npm" / name, folder)
        command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        subprocess.run(command, cwd=folder, check=True)
        _done(folder, HERE / "npm/package-lock.json")
    shutil.copy(HERE / "drivers/openai_node.mjs", folder)
    return folder


def litellm_python() -> Path:
    """The Python of an environment that has LiteLLM."""
    folder, lock = HOME / "litellm", HERE / "litellm.lock"
    python = folder / "bin/python"
    if _is_new(folder, lock):
        subprocess.run((sys.executable, "-m", "venv", folder), check=True)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run((*pip, "--no-deps", "--require-hashes", "-r", lock), check=True)
        _done(folder, lock)
    return python


def _seal(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _is_new(folder: Path, lock: Path) -> bool:
    """Whether the lock was not installed yet; then the folder is empty afterwards."""
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == _seal(lock):
        return False
    print(f"installing {lock.relative_to(HERE.parents[1])} into {folder} ...", file=sys.stderr)  # noqa: T201 -- it takes a while
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return True


def _done(folder: Path, lock: Path) -> None:
    (folder / "installed").write_text(_seal(lock))
