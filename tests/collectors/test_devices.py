"""Makers' units become ours; what a device cannot tell is not zero."""

from pathlib import Path

import pytest

from enforcement.collectors.base import CollectorError, Device
from enforcement.collectors.registry import read_page

FIXTURES = Path(__file__).parent / "fixtures"


def devices(name: str) -> tuple[str, tuple[Device, ...]]:
    collector, reading = read_page((FIXTURES / name).read_text())
    assert (reading.prompt_tokens, reading.generation_tokens) == (0, 0)
    return collector.engine, reading.devices


def test_nvidia_tells_percent_watts_millijoules_and_mebibytes() -> None:
    assert devices("dcgm_documented.prom") == (
        "dcgm",
        (
            Device(
                device="GPU-a",
                model="NVIDIA H100 80GB HBM3",
                busy_permille=870,
                power_milliwatts=512_250,
                energy_millijoules=7_340_032,
                memory_bytes=4 * 1024**3,
            ),
            Device(device="GPU-b", model="NVIDIA H100 80GB HBM3", busy_permille=0),
        ),
    )


def test_amd_tells_microjoules_and_the_largest_number_for_nothing() -> None:
    assert devices("amd_documented.prom") == (
        "amd-metrics",
        (
            Device(
                device="0/S1",
                model="MI300X",
                busy_permille=500,
                power_milliwatts=700_000,
                energy_millijoules=1_500,
            ),
        ),
    )


def test_intel_tells_ratios_and_joules_and_of_its_tiles_apart() -> None:
    assert devices("intel_documented.prom") == (
        "intel-xpum",
        (
            Device("U1", "Max 1550", power_milliwatts=310_500, energy_millijoules=12_250),
            Device("U1/0", "Max 1550", busy_permille=750, memory_bytes=1024**2),
        ),
    )


def test_nvidia_without_dcgm() -> None:
    figures = Device("df6e", "", 310, 28_070, 500_000, 715_128_832)
    assert devices("nvidia_smi_documented.prom") == ("nvidia-smi", (figures,))


def test_the_edge_names_its_devices_in_two_ways_and_counts_no_chassis() -> None:
    figures = Device("J1", "Orin", 425, 14_200, 8_430_000, 2 * 1024**3)
    assert devices("all_smi_documented.prom") == ("all-smi", (figures,))


def test_figures_without_a_device_are_refused_in_words() -> None:
    for text in ("gpu_gfx_activity 4\n", 'DCGM_FI_DEV_GPU_UTIL{UUID="a"} NaN\n'):
        with pytest.raises(CollectorError, match="page has no device with a figure"):
            read_page(text)
