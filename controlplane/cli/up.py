"""The commands `up`, `down`, `status`: words around `controlplane.launcher`."""

import asyncio
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from controlplane.cli.output import Exit, Output, exit_code
from controlplane.launcher import probes, state
from controlplane.launcher.errors import LauncherError
from controlplane.launcher.parts import Wishes
from controlplane.launcher.places import Places
from controlplane.launcher.privileges import service_identity
from controlplane.launcher.supervisor import ALIVE_AT
from controlplane.launcher.up import Running, run

STOP_TIMEOUT_S = 60
ASKED_TO_STOP = ("SIGINT", "SIGTERM", "SIGHUP")


def run_in_foreground(wishes: Wishes, output: Output) -> Exit:
    """Start everything, tell how to use it, and stay until told to stop."""
    try:
        reason = asyncio.run(run(wishes, output, lambda running: tell(running, output)))
    except LauncherError as error:
        output.error(str(error))
        return exit_code(error)
    if reason in ASKED_TO_STOP:
        return Exit.OK
    output.error(reason)
    return Exit.UNAVAILABLE


def tell(running: Running, output: Output) -> None:
    """How to use what has just been started."""
    installation = running.installation
    key = installation.places.read_secret("agent-key") or ""
    facts = {
        "dashboard": installation.web_url,
        "sign_in_once": installation.web_url + running.facts["sign_in_path"],
        "sidecar": installation.sidecar_url,
        "agent_key": key,
        "data_dir": str(installation.places.data),
        "ready_after_s": f"{running.ready_after_s:.1f}",
    }
    output.text()
    output.result(facts)
    output.text()
    output.text("An agent's call through the sidecar:")
    output.text()
    output.text("  " + _curl(installation.sidecar_url, key))
    output.text()
    output.text("Stop with Ctrl-C.")


def _curl(sidecar_url: str, key: str) -> str:
    """A command that works right now: a model call if a node has answered, else the models."""
    authorization = f"-H 'Authorization: Bearer {key}'"
    model = _served_model(sidecar_url)
    if model is None:
        return f"curl {sidecar_url}/v1/models {authorization}"
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 32}
    return (
        f"curl {sidecar_url}/v1/chat/completions {authorization} \\\n"
        f"    -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def _served_model(sidecar_url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{sidecar_url}/readyz", timeout=2) as answer:  # noqa: S310
            upstreams = json.load(answer)["upstreams"]
    except OSError:
        return None
    models = [str(model) for upstream in upstreams for model in upstream["models"]]
    return models[0] if models else None


def stop(data_dir: Path, output: Output) -> Exit:
    """Stop the launcher of this data directory and wait for its end."""
    places = Places(data_dir, service_identity())
    state.stop_running(places, timeout_s=STOP_TIMEOUT_S)
    output.result({"stopped": str(places.data)})
    return Exit.OK


def show_status(data_dir: Path, output: Output) -> Exit:
    """Each part as it answers now. The exit code tells whether all of them do."""
    content = state.current(Places(data_dir, service_identity()))
    parts = [{**part, "state": _seen(part)} for part in content["parts"]]
    columns = ("part", "state", "pid", "restarts", "address")
    output.table(columns, [[part[column] for column in columns] for part in parts])
    output.text()
    output.text(f"dashboard {content['web_url']} · data {content['data_dir']}")
    ready = content["ready"] and all(part["state"] == "ready" for part in parts)
    return Exit.OK if ready else Exit.UNAVAILABLE


def environment_of(data_dir: Path) -> dict[str, str]:
    """What a management command needs to work on this installation."""
    environment = dict(os.environ)
    environment["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    places = Places(data_dir, service_identity())
    environment["COMPTROLLER_DATA_DIR"] = str(places.data)
    if not state.is_running(places):
        return environment
    content = state.current(places)
    return environment | {
        "DATABASE_URL": content["database_url"],
        "BROKER_URL": content["broker_url"],
        "COMPTROLLER_PUBLIC_URL": content["web_url"],
        "COMPTROLLER_SECRET_KEY": places.secret("secret-key"),
    }


def _seen(part: dict[str, Any]) -> str:
    """The state that the launcher wrote, corrected by a look at the part itself."""
    if part["state"] != "ready":
        return str(part["state"])
    if not Path(f"/proc/{part['pid']}").exists() and Path("/proc/self").exists():
        return "ended"
    address: str = part["address"]
    path: str = part.get("alive_at", ALIVE_AT)  # an older version may have started it
    if address.startswith("http://"):
        host, _, port = address.removeprefix("http://").rpartition(":")
        answered = asyncio.run(probes.http_ok(host, int(port), path)())
        return "ready" if answered else "silent"
    return "ready"
