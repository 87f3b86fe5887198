"""Run seeds and say what they found."""

from collections.abc import Iterable

from enforcement.simulation.world import Report, World


def run_seed(seed: int, *, trace: bool = False) -> tuple[Report, list[str]]:
    """One seed; with `trace`, the log of the run beside its report."""
    world = World(seed, trace=trace)
    return world.run(), world.kernel.trace or []


def run_seeds(seeds: Iterable[int]) -> list[Report]:
    """Many seeds, one after another."""
    return [World(seed).run() for seed in seeds]
