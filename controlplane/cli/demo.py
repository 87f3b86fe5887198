"""The command `demo`: `up` with a real model, five real agents, and a table of what happened."""

import asyncio
from typing import Any

from controlplane.cli.output import Exit, Output, exit_code
from controlplane.cli.up import ASKED_TO_STOP, tell
from controlplane.launcher.errors import LauncherError
from controlplane.launcher.parts import Wishes
from controlplane.launcher.up import Running, run

AGREED = "every figure agrees"
DISAGREED = "figures disagree"


def play(wishes: Wishes, output: Output, *, check: bool) -> Exit:
    """Play it. With `check`, stop afterwards and let the exit code tell whether all agrees."""

    async def story(running: Running) -> str | None:
        reason = await _story(running, output)
        if check:
            return reason
        output.text(f"The dashboard stays at {running.installation.web_url} until Ctrl-C.")
        return None

    try:
        reason = asyncio.run(run(wishes, output, lambda running: tell(running, output), story))
    except LauncherError as error:
        output.error(str(error))
        return exit_code(error)
    if reason in (*ASKED_TO_STOP, AGREED):
        return Exit.OK
    output.error(reason)
    return Exit.FAILED if reason == DISAGREED else Exit.UNAVAILABLE


async def _story(running: Running, output: Output) -> str:
    from controlplane.demo.story import COLUMNS, perform

    def say(words: str) -> None:
        name, _, rest = words.partition(" ")
        output.step(name, rest.strip())

    acts = await perform(running, running.installation.environment(), say)
    output.text()
    output.table(COLUMNS, [act.row() for act in acts])
    output.text()
    wrong: list[Any] = [line for act in acts for line in act.disagreements()]
    for line in wrong:
        output.error(line)
    if not wrong:
        output.text(
            "Every figure agrees: agents, meter, engine, price and ledger. (A cut stream is"
        )
        output.text("charged one token more at most: the one that the engine may make unseen.)")
    return DISAGREED if wrong else AGREED
