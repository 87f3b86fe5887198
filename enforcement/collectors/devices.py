"""Exporters of devices: what accelerators do and draw, beside the engines that use them.

A node may be such an exporter: it makes no tokens, and its readings carry a device each. Units
differ by the millionfold between makers, so all become whole milliwatts, millijoules and bytes.
What a device cannot tell is None, never zero: DCGM leaves it out, AMD writes the largest number of
its type. Names as their makers document them; no such device has been seen by us.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from enforcement.collectors.base import LARGEST, CollectorError, Device, Reading
from enforcement.collectors.prometheus import Page

MIB = 1024 * 1024
LARGEST_OF_AMD: Final = frozenset({2**16 - 1, 2**32 - 1, 2**64 - 1})  # "not supported"


@dataclass(frozen=True)
class Datum:
    """Where a figure comes from, and what makes it our unit."""

    field: str
    factor: Decimal


class DeviceExporter:
    """One maker's exporter. `data` tells its metrics, `device` and `model` the labels."""

    metrics_path = "/metrics"
    version_path = "/"

    def __init__(
        self, engine: str, *, device: tuple[str, ...], model: str, data: Mapping[str, Datum]
    ) -> None:
        self.engine = engine
        self._device, self._model, self._data = device, model, data
        self.names = frozenset(data)

    def recognises(self, page: Page) -> bool:
        return any(page.has(name) for name in self.names)

    def read(self, page: Page) -> Reading:
        """Raises CollectorError: no series names its device."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        models: dict[str, str] = {}
        for name, datum in self._data.items():
            for series in page.series.get(name, ()):
                parts = [series.labels[label] for label in self._device if series.labels.get(label)]
                if not parts or not series.is_finite or series.value in LARGEST_OF_AMD:
                    continue
                amount = int(series.value * datum.factor)
                if 0 <= amount <= LARGEST:
                    found["/".join(parts)].setdefault(datum.field, amount)
                    model = series.labels.get(self._model, "")
                    models["/".join(parts)] = model or models.get("/".join(parts), "")
        if not found:
            raise CollectorError(f"the {self.engine} page has no device with a figure")
        devices = tuple(
            Device(device=name[:100], model=models[name][:100], **figures)
            for name, figures in sorted(found.items())
        )
        return Reading(0, 0, 0, devices=devices, extra={"devices": len(devices)})

    def version(self, _body: bytes) -> str:
        """Exporters do not tell it."""
        return ""


PERCENT = Datum("busy_permille", Decimal(10))
RATIO = Datum("busy_permille", Decimal(1_000))
WATTS = Datum("power_milliwatts", Decimal(1_000))
JOULES = Datum("energy_millijoules", Decimal(1_000))
BYTES = Datum("memory_bytes", Decimal(1))

# https://github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv: percent, W, mJ, MiB
DCGM = DeviceExporter(
    "dcgm",
    device=("UUID", "GPU_I_ID"),
    model="modelName",
    data={
        "DCGM_FI_DEV_GPU_UTIL": PERCENT,
        "DCGM_FI_DEV_POWER_USAGE": WATTS,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Datum("energy_millijoules", Decimal(1)),
        "DCGM_FI_DEV_FB_USED": Datum("memory_bytes", Decimal(MIB)),
    },
)
# https://github.com/ROCm/device-metrics-exporter, its list of metrics: percent, W, µJ, MB
AMD = DeviceExporter(
    "amd-metrics",
    device=("gpu_id", "serial_number"),
    model="card_model",
    data={
        "gpu_gfx_activity": PERCENT,
        "gpu_package_power": WATTS,
        "gpu_average_package_power": WATTS,
        "gpu_energy_consumed": Datum("energy_millijoules", Decimal("0.001")),
        "gpu_used_vram": Datum("memory_bytes", Decimal(1_000_000)),
    },
)
# https://github.com/intel/xpumanager, rest/prometheus_exporter.py: ratio, W, J, bytes. Its tiles
# are devices of their own: they tell what is busy, the whole what is drawn.
INTEL = DeviceExporter(
    "intel-xpum",
    device=("uuid", "sub_dev"),
    model="dev_name",
    data={
        "xpum_engine_ratio": RATIO,
        "xpum_power_watts": WATTS,
        "xpum_energy_joules": JOULES,
        "xpum_memory_used_bytes": BYTES,
    },
)
# https://github.com/utkuozdemir/nvidia_gpu_exporter: NVIDIA where DCGM does not run
NVIDIA_SMI = DeviceExporter(
    "nvidia-smi",
    device=("uuid",),
    model="name",
    data={
        "nvidia_smi_utilization_gpu_ratio": RATIO,
        "nvidia_smi_power_draw_watts": WATTS,
        "nvidia_smi_energy_joules": JOULES,
        "nvidia_smi_memory_used_bytes": BYTES,
    },
)
# https://github.com/lablup/all-smi: Jetson, Apple, other edge; its energy names devices otherwise
ALL_SMI = DeviceExporter(
    "all-smi",
    device=("uuid", "gpu_uuid"),
    model="gpu",
    data={
        "all_smi_gpu_utilization": PERCENT,
        "all_smi_gpu_power_consumption_watts": WATTS,
        "all_smi_energy_consumed_joules": JOULES,
        "all_smi_gpu_memory_used_bytes": BYTES,
    },
)
