"""`./run` on a clean clone, as an ordinary user and with nothing but Debian's Python.

Root's tests run it as `nobody`: neither the checkout nor its environment need be readable then.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.installation import ROOT, Installation, clean_environment

NOBODY = 65534


@pytest.fixture(scope="module")
def ordinary() -> dict[str, Any]:
    """Options of Popen that make a child an ordinary user."""
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture(scope="module")
def clone(ordinary: dict[str, Any]) -> Iterator[Path]:
    """What a clean clone would hold if all work were committed; the ordinary user owns it."""
    home = Path(tempfile.mkdtemp(prefix="comptroller-clone-"))
    home.chmod(0o755)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout
    for name in files.split(b"\0"):
        source = ROOT / os.fsdecode(name)
        if source.is_file():
            target = home / "clone" / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    if ordinary:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", home], check=True)
    yield home / "clone"
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def installation(clone: Path, ordinary: dict[str, Any]) -> Iterator[Installation]:
    environment = clean_environment(PATH="/usr/bin:/bin", HOME=str(clone.parent))
    made = Installation((str(clone / "run"),), environment, **ordinary)
    yield made
    made.close()


def test_a_clean_clone_comes_up_and_goes_down(installation: Installation) -> None:
    installation.up()

    assert installation.run("status").returncode == 0
    assert installation.run("down").returncode == 0
    assert installation.leftovers() == []


def test_the_second_start_installs_nothing(installation: Installation, clone: Path) -> None:
    before = (clone / ".venv/comptroller.installed").stat().st_mtime_ns

    answer = installation.run("status")

    assert (answer.returncode, "installing" in answer.stderr) == (3, False)
    assert (clone / ".venv/comptroller.installed").stat().st_mtime_ns == before


def test_a_command_on_nodes_needs_no_tools_of_developers(installation: Installation) -> None:
    answer = installation.run("nodes", "list")

    assert "installing" not in answer.stderr
    assert "nothing is running" in answer.stderr
