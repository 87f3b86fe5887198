"""What `deploy/` tells supervisors to start can be started: every command, flag and file exists."""

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from controlplane.celery import app as celery
from controlplane.cli.main import app
from enforcement.sidecar.command import app as sidecar_app

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = (DEPLOY / "docker/Dockerfile").read_text().replace("\\\n", " ")
SIDECAR_ENTRY = ["comptroller", "sidecar", "run"]


def of_procfile() -> Iterator[list[str]]:
    for line in (DEPLOY / "Procfile").read_text().splitlines():
        yield shlex.split(line.partition(":")[2])


def of_units() -> Iterator[list[str]]:
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        found = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
        yield from (shlex.split(line.removeprefix("/opt/comptroller/bin/")) for line in found)


def of_images() -> Iterator[list[str]]:
    for instruction in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", DOCKERFILE, re.MULTILINE):
        yield json.loads(instruction)


def containers() -> Iterator[dict[str, Any]]:
    for manifest in MANIFESTS:
        for document in yaml.safe_load_all(manifest.read_text()):
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            yield from (*pod.get("initContainers", ()), *pod.get("containers", ()))


def of_manifests() -> Iterator[list[str]]:
    entry = next(command for command in of_images() if command[:3] == SIDECAR_ENTRY)
    for container in containers():
        if container["image"].startswith("comptroller-sidecar:"):
            yield [*entry, *container["args"]]
        elif container["image"].startswith("comptroller:") and "command" in container:
            yield container["command"]


# The sidecar's image lacks its upstream, which the manifests add.
COMPLETE_IMAGES = [command for command in of_images() if command[:3] != SIDECAR_ENTRY]
COMMANDS = [*of_procfile(), *of_units(), *COMPLETE_IMAGES, *of_manifests()]


def accepts(commands: typer.Typer, words: list[str]) -> None:
    """Parse without running; a flag that is unknown or missing raises."""
    group: Any = typer.main.get_command(commands)
    group.commands[words[0]].make_context(words[0], words[1:]).close()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_is_understood(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTROLLER_CONTROL_URL", "http://127.0.0.1:1")
    match command:
        case ["comptroller", "sidecar", *words]:
            accepts(sidecar_app, words)
        case ["comptroller", *words]:
            accepts(app, words)
        case ["python", "-m", "uvicorn", application, *_]:
            module, name = application.split(":")
            assert callable(getattr(import_module(module), name))
        case ["python", "-m", "celery", "-A", application, part, *flags]:
            module, name = application.split(":")
            assert part in ("worker", "beat")
            assert getattr(import_module(module), name).main == "comptroller"
            assert (part == "worker") == ("--queues" in flags)
        case _:
            pytest.fail(f"nobody knows {command}")


def test_each_way_of_deploying_starts_each_part() -> None:
    for commands in (list(of_procfile()), list(of_units())):
        started = {word for command in commands for word in command}
        assert {"uvicorn", "worker", "beat", "sidecar"} <= started


def test_each_queue_has_a_worker_and_the_reading_of_nodes_its_own() -> None:
    for commands in (of_procfile(), of_units(), of_manifests()):
        taken = [
            set(command[command.index("--queues") + 1].split(","))
            for command in commands
            if "--queues" in command
        ]
        assert {"scrape"} in taken
        assert set.union(*taken) == {queue.name for queue in celery.conf.task_queues}
        assert sum(map(len, taken)) == len(set.union(*taken))


def test_the_images_copy_files_that_exist() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)

    assert copied
    assert all((ROOT / name).exists() for line in copied for name in line.split())


def test_pods_drop_every_power_and_run_as_the_images_user() -> None:
    ours = [c for c in containers() if c["image"].startswith("comptroller")]

    (uid,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert len(ours) == 6
    for container in ours:
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(uid))
        assert context["allowPrivilegeEscalation"] is False


def test_the_sidecars_spool_outlives_its_pod() -> None:
    (claim,) = (
        claim
        for document in yaml.safe_load_all((DEPLOY / "kubernetes/serving-node.yaml").read_text())
        for claim in document.get("spec", {}).get("volumeClaimTemplates", ())
    )
    (sidecar,) = (c for c in containers() if c.get("restartPolicy") == "Always")
    mounted = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}

    assert mounted[claim["metadata"]["name"]] in " ".join(next(iter(of_images())))
