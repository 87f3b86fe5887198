"""Real signed skills of a public catalogue, with the reference verifier as a second opinion."""

import statistics
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest

from enforcement.rules.certificates import OmsRoot
from enforcement.rules.oms import OmsResult, OmsState, verify_oms
from tests.skills.samples import SAMPLES, folders, hashes_of, needs_samples

pytestmark = needs_samples

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PIN = "CN=NVIDIA Agent Skills Signing *,O=NVIDIA Corporation"


def judge(folder: Path, *, now: datetime = NOW, newer: str | None = None) -> OmsResult:
    root = OmsRoot(pem=(SAMPLES / "nv-agent-root-cert.pem").read_text(), required_subject=PIN)
    return verify_oms(
        (folder / "skill.oms.sig").read_bytes(),
        directory=folder.name,
        front_matter_name=folder.name,
        files=hashes_of(folder),
        roots=[root],
        now=now,
        newer=newer,
    )


def reference_accepts(folder: Path) -> bool:
    """What the OpenSSF reference implementation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies warn at import
        from model_signing import hashing, verifying

        files = hashing.Config().use_file_serialization(hashing_algorithm="sha256")
        config = verifying.Config().use_certificate_verifier(
            certificate_chain=[SAMPLES / "nv-agent-root-cert.pem"]
        )
        config.set_hashing_config(
            files.set_ignored_paths(paths=["skill.oms.sig"], ignore_git_paths=True)
        )
        try:
            config.verify(folder, folder / "skill.oms.sig")
        except Exception:  # noqa: BLE001 -- it raises a dozen classes for "no"
            return False
    return True


def test_the_set_is_complete() -> None:
    counts = {kind: len(folders(kind)) for kind in ("verified", "wrong-root", "drifted")}

    assert counts == {"verified": 30, "wrong-root": 1, "drifted": 1}


@pytest.mark.parametrize("folder", folders("verified"), ids=lambda folder: folder.name)
def test_good_ones_are_verified(folder: Path) -> None:
    result = judge(folder)

    assert (result.state, result.reasons) == (OmsState.VERIFIED, ())
    assert reference_accepts(folder)


@pytest.mark.parametrize("folder", folders("wrong-root"), ids=lambda folder: folder.name)
def test_another_root_is_named(folder: Path) -> None:
    result = judge(folder)

    assert result.state == OmsState.WRONG_ROOT
    assert result.reasons[0].code == "untrusted_root"
    assert result.root_subject.startswith("CN=NVIDIA Internal Agent Capabilities CA")
    assert not reference_accepts(folder)


@pytest.mark.parametrize("folder", folders("drifted"), ids=lambda folder: folder.name)
def test_drift_names_the_files(folder: Path) -> None:
    result = judge(folder)

    assert (result.state, result.missing, result.extra) == (OmsState.DRIFTED, (), ())
    assert result.drifted == (
        "references/kafka_messaging.md",
        "references/nvinfer_config.md",
        "references/service_maker_api.md",
    )
    assert not reference_accepts(folder)


def test_rollback_is_seen_only_by_us() -> None:
    older, current = folders("rollback/older")[0], folders("rollback/current")[0]

    assert judge(current).state == OmsState.VERIFIED
    assert judge(older).state == OmsState.VERIFIED  # nothing in a bundle tells its age
    assert judge(older, newer="26.10.00").state == OmsState.ROLLED_BACK
    assert reference_accepts(older)


def test_expired_leaf_is_refused() -> None:
    result = judge(folders("verified")[0], now=datetime(2029, 1, 1, tzinfo=UTC))

    assert (result.state, result.reasons[0].code) == (OmsState.EXPIRED, "certificate_expired")


@pytest.mark.parametrize(
    ("vector", "state"),
    [
        ("valid/certificate", OmsState.WRONG_ROOT),
        ("valid/key", OmsState.UNSUPPORTED),
        ("valid/sigstore", OmsState.UNSUPPORTED),
        ("invalid/empty", OmsState.MALFORMED),
        ("invalid/missing-envelope", OmsState.MALFORMED),
        ("invalid/missing-tlog-entries", OmsState.UNSUPPORTED),
        ("invalid/missing-verification-material", OmsState.MALFORMED),
        ("invalid-payload/wrong-predicate", OmsState.UNSUPPORTED),
    ],
)
def test_vectors_of_the_specification(vector: str, state: OmsState) -> None:
    path = SAMPLES / "oms-spec" / "test-vectors" / "v1.0" / f"{vector}.bundle.json"
    result = verify_oms(
        path.read_bytes(),
        directory="model",
        front_matter_name="model",
        files={},
        roots=[OmsRoot(pem=(SAMPLES / "nv-agent-root-cert.pem").read_text(), required_subject=PIN)],
        now=NOW,
    )

    assert result.state == state


def test_verifying_takes_less_than_ten_milliseconds() -> None:
    times_ms = []
    for folder in folders("verified"):
        started_ns = time.perf_counter_ns()
        judge(folder)
        times_ms.append((time.perf_counter_ns() - started_ns) // 1_000_000)

    assert statistics.median(times_ms) <= 10
