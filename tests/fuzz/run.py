"""Runs a target: a bounded number of inputs from a seed, and the smallest one that fails."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

_SHRINKS = 2_000


@dataclass
class Report:
    """What became of the inputs of one target."""

    target: Target
    inputs: int = 0
    seconds: float = 0.0
    tally: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    failing: bytes = b""


def fuzz(target: Target, *, seed: int, inputs: int | None = None, seconds: float = 0) -> Report:
    """Try the seeds themselves, then damages of them: a number of inputs, or for a time."""
    dice = random.Random(f"{seed} {target.name}")
    report = Report(target)
    began = time.monotonic()
    while not report.failure:
        number = report.inputs
        if inputs is not None and number >= inputs:
            break
        if inputs is None and number % 256 == 0 and time.monotonic() - began >= seconds:
            break
        data = (
            target.seeds[number]
            if number < len(target.seeds)
            else mutated(target.seeds, target.words, dice)
        )
        _try(report, data, dice.random())
        report.inputs += 1
    report.seconds = time.monotonic() - began
    return report


def _try(report: Report, data: bytes, luck: float) -> None:
    problem, said = _verdict(report.target, data, luck)
    if problem:
        report.failing = _shrunk(report.target, data, luck)
        report.failure, _ = _verdict(report.target, report.failing, luck)
    else:
        report.tally[said] += 1


def _verdict(target: Target, data: bytes, luck: float) -> tuple[str, str]:
    """What is broken for an input, if anything; and what became of it."""
    try:
        return "", target.check(data, random.Random(luck))
    except Exception as error:  # noqa: BLE001 -- any exception that escapes is what is looked for
        return f"{type(error).__name__}: {error}", ""


def _shrunk(target: Target, data: bytes, luck: float) -> bytes:
    """Leave out pieces as long as it still fails."""
    size, tries = max(len(data) // 2, 1), 0
    while size and tries < _SHRINKS:
        at = 0
        while at < len(data) and tries < _SHRINKS:
            shorter = data[:at] + data[at + size :]
            tries += 1
            if _verdict(target, shorter, luck)[0]:
                data = shorter
            else:
                at += size
        size //= 2
    return data
