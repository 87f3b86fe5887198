"""The base install is a sidecar and a command line, and nothing of the control plane.

The wheel is built and installed with the base lock into an environment of its own, so that what
is tested is what users get, not the checkout.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE_DEPENDENCIES_MAX = 20


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it far away from the checkout, without the variables of this test run."""
    ours = ("COMPTROLLER_", "DATABASE_", "BROKER_", "DJANGO_", "PYTHON")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=check,
        cwd="/",
        env=environment,
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` directory of an environment that has the base install alone."""
    home = tmp_path_factory.mktemp("bare")
    build = f"import hatchling.build as b; print(b.build_wheel({str(home)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = home.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True, capture_output=True)
    pip = [home / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--no-deps", "--require-hashes", "-r", ROOT / "requirements/base.lock")
    run(*pip, "--no-deps", wheel)
    return home / "venv/bin"


def test_the_command_runs(bare: Path) -> None:
    assert "--upstream" in run(bare / "comptroller", "sidecar", "run", "--help").stdout


def test_django_is_not_there(bare: Path) -> None:
    answer = run(bare / "python", "-c", "import django", check=False)

    assert answer.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'django'"


@pytest.mark.parametrize(
    "package", ["enforcement.sidecar", "enforcement.inprocess", "enforcement.rules"]
)
def test_every_module_of_the_sidecar_imports(bare: Path, package: str) -> None:
    code = (
        f"import importlib, pkgutil, {package} as package\n"
        "names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + '.')]\n"
        "for name in names: name.endswith('__main__') or importlib.import_module(name)\n"
        "print(len(names) > 3)"
    )

    assert run(bare / "python", "-c", code).stdout == "True\n"


def test_the_base_install_stays_small(bare: Path) -> None:
    code = (
        "from importlib.metadata import distributions\n"
        "print(len({d.name for d in distributions()} - {'pip', 'setuptools', 'comptroller'}))"
    )

    assert int(run(bare / "python", "-c", code).stdout) <= BASE_DEPENDENCIES_MAX


def test_the_control_plane_names_the_missing_extra(bare: Path, tmp_path: Path) -> None:
    answer = run(bare / "comptroller", "up", "--data-dir", tmp_path / "data", check=False)

    assert answer.returncode == 6
    assert "install the extra 'embedded'" in answer.stderr


def test_the_sidecar_names_the_missing_extra(bare: Path, tmp_path: Path) -> None:
    flags = ["--upstream", "http://127.0.0.1:9", "--control-url", "http://127.0.0.1:9"]
    more = ["--spool-dir", tmp_path, "--token", "t", "--otlp-endpoint", "http://127.0.0.1:4318"]
    answer = run(bare / "comptroller", "sidecar", "run", *flags, *more, check=False)

    assert answer.returncode == 2
    assert "--otlp-endpoint: needs the extra: pip install 'comptroller[otel]'" in answer.stderr
