"""Each engine's page as it is, in older spellings, and broken."""

from decimal import Decimal
from pathlib import Path

import pytest

from enforcement.collectors.base import CollectorError, Reading
from enforcement.collectors.llamacpp import LlamaCpp
from enforcement.collectors.registry import read_page
from enforcement.collectors.vllm import Vllm

FIXTURES = Path(__file__).parent / "fixtures"


def read(name: str, headers: dict[str, str] | None = None) -> tuple[str, Reading]:
    collector, reading = read_page((FIXTURES / name).read_text(), headers)
    return collector.engine, reading


def test_llamacpp_tells_cached_prompt_tokens_apart() -> None:
    engine, reading = read("llamacpp.prom", {"process-start-time-unix": "12099056185"})
    assert engine == "llama.cpp"
    assert reading == Reading(
        prompt_tokens=56 + 23,
        cached_tokens=23,
        generation_tokens=24 + 16 + 8,
        life="12099056185",
        extra={
            "decodes": 52,
            "draft_tokens": 0,
            "accepted_draft_tokens": 0,
            "prefill_ms": 145,
            "decode_ms": 558,
        },
    )


def test_an_older_llamacpp_has_no_cached_tokens() -> None:
    text = "llamacpp:prompt_tokens_total 9\nllamacpp:tokens_predicted_total 1.23457e+06\n"
    _, reading = read_page(text)
    assert reading == Reading(
        prompt_tokens=9, cached_tokens=0, generation_tokens=1_234_570, resolution=10
    )


def test_vllm_sums_its_engines_and_counts_cached_in_prompts() -> None:
    engine, reading = read("vllm.prom")
    assert engine == "vllm"
    assert reading == Reading(
        prompt_tokens=1_234_567 + 33,
        cached_tokens=400,
        generation_tokens=977,
        requests_running=4,
        requests_waiting=2,
        life="1.79545525511e+09",
        started_at=Decimal("1795455255.11"),
        extra={"preemptions": 5},
    )


def test_an_older_vllm_tells_hits_of_its_prefix_cache() -> None:
    assert read("vllm_older.prom") == (
        "vllm",
        Reading(prompt_tokens=40, cached_tokens=12, generation_tokens=8),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llamacpp:n_decode_total 4\n", "llama.cpp's page has no token counters"),
        (
            "vllm:prompt_tokens_total 4\n",
            "vLLM's page has no token counters: no vllm:generation_tokens",
        ),
        ("tabby:spend 4\nup 1\n", "metrics of no known engine: tabby"),
        ("sglang:num_running_reqs 4\n", "SGLang's page has no token counters"),
        ("tgi_queue_size 4\n", "TGI's page has no token counters: no tgi_request_input_length_sum"),
        ("litellm_spend_metric_total 4\n", "LiteLLM's page has no token counters"),
        ("up 1\n", "metrics of no known engine: no names"),
        ("", "the page is cut short"),
        ("llamacpp:prompt_tokens_total NaN\n", "llamacpp:prompt_tokens is 'NaN'"),
        ("<html>\n", "answered a document, not metrics"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(CollectorError, match=words):
        read_page(text)


def test_versions_are_taken_where_they_are_text() -> None:
    assert LlamaCpp().version(b'{"build_info":"b11434-6d2a3a1"}') == "b11434-6d2a3a1"
    assert Vllm().version(b'{"version":"0.32.0"}') == "0.32.0"
    for broken in (b"", b"[]", b"<html>", b'{"version":3,"build_info":{}}'):
        assert LlamaCpp().version(broken) == ""
        assert Vllm().version(broken) == ""


SGLANG = """sglang:prompt_tokens_total{{engine_type="{role}",model_name="m",tp_rank="0"}} 100.0
sglang:generation_tokens_total{{engine_type="{role}",model_name="m",tp_rank="0"}} 40.0
sglang:cached_tokens_total{{cache_source="device",engine_type="{role}",model_name="m"}} 20.0
sglang:cached_tokens_total{{cache_source="host",engine_type="{role}",model_name="m"}} 5.0
sglang:num_running_reqs{{engine_type="{role}",model_name="m"}} 3.0
sglang:num_queue_reqs{{engine_type="{role}",model_name="m"}} 2.0
sglang:num_aborted_requests_total{{model_name="m"}} 1.0
process_start_time_seconds 1.5e+09
"""


@pytest.mark.parametrize(
    ("role", "tokens"),
    [("unified", (100, 25, 40)), ("prefill", (100, 25, 0)), ("decode", (0, 0, 40))],
)
def test_a_disaggregated_sglang_counts_each_token_once(
    role: str, tokens: tuple[int, int, int]
) -> None:
    collector, reading = read_page(SGLANG.format(role=role))
    assert collector.engine == "sglang"
    assert (reading.prompt_tokens, reading.cached_tokens, reading.generation_tokens) == tokens
    assert (reading.requests_running, reading.requests_waiting) == (3, 2)
    assert reading.extra == {"aborted": 1}
    assert reading.started_at == 1_500_000_000


def test_sglang_spells_its_names_with_underscores_too() -> None:
    page = "sglang_prompt_tokens_total 7\nsglang_generation_tokens_total 2\n"
    assert read_page(page)[1] == Reading(prompt_tokens=7, cached_tokens=0, generation_tokens=2)


def test_dynamos_front_end_counts_what_passed_it() -> None:
    collector, reading = read_page(
        'dynamo_frontend_input_sequence_tokens_sum{model="a"} 71\n'
        'dynamo_frontend_input_sequence_tokens_sum{model="b"} 18\n'
        'dynamo_frontend_cached_tokens_sum{model="a"} 64\n'
        'dynamo_frontend_output_tokens_total{model="a"} 50\n'
        'dynamo_frontend_inflight_requests{model="a"} 1\n'
        'dynamo_frontend_queued_requests{model="a"} 4\n'
        'dynamo_frontend_model_cancellation_total{model="a",request_type="stream"} 1\n'
    )
    assert collector.engine == "dynamo"
    assert reading == Reading(
        prompt_tokens=89,
        cached_tokens=64,
        generation_tokens=50,
        requests_running=1,
        requests_waiting=4,
        extra={"aborted": 1},
    )


def test_a_worker_of_dynamo_counts_nothing_again() -> None:
    collector, reading = read_page(
        'dynamo_component_requests_total{dynamo_component="prefill",worker_id="41a9"} 4\n'
        'dynamo_component_inflight_requests{dynamo_component="prefill",worker_id="41a9"} 1\n'
        'dynamo_component_uptime_seconds{worker_id="41a9"} 3.5\n'
        'vllm:prompt_tokens_total{model_name="m"} 100\n'
        'vllm:generation_tokens_total{model_name="m"} 40\n'
    )
    assert collector.engine == "dynamo-worker"
    assert reading == Reading(
        prompt_tokens=0,
        cached_tokens=0,
        generation_tokens=0,
        requests_running=1,
        life="41a9",
        extra={"requests": 4},
    )


def test_tgi_tells_the_sums_of_its_histograms() -> None:
    collector, reading = read_page(
        "tgi_request_input_length_sum 71\ntgi_request_input_length_count 4\n"
        "tgi_request_generated_tokens_sum 50\ntgi_batch_current_size 2\ntgi_queue_size 1\n"
        'tgi_request_failure{err="overloaded"} 3\n'
    )
    assert collector.engine == "tgi"
    assert reading == Reading(
        prompt_tokens=71,
        cached_tokens=0,
        generation_tokens=50,
        requests_running=2,
        requests_waiting=1,
        extra={"failed": 3},
    )


def test_litellm_tells_tokens_of_all_its_keys_and_its_own_spend() -> None:
    collector, reading = read_page(
        'litellm_input_tokens_metric_total{model="a",user="x"} 60.0\n'
        'litellm_input_tokens_metric_total{model="b",user="y"} 11.0\n'
        'litellm_input_cached_tokens_metric_total{model="a"} 8.0\n'
        'litellm_output_tokens_metric_total{model="a"} 50.0\n'
        'litellm_spend_metric_total{model="a"} 0.000125\n'
        'litellm_spend_metric_total{model="b"} 2.5e-05\n'
        "process_start_time_seconds 1.79545631032e+09\n"
    )
    assert collector.engine == "litellm"
    assert reading == Reading(
        prompt_tokens=71,
        cached_tokens=8,
        generation_tokens=50,
        life="1.79545631032e+09",
        started_at=Decimal("1795456310.32"),
        extra={"spent_nanos": 150_000},
    )


# ------------------------------------------------------------------------------- real pages


def test_a_real_vllm() -> None:
    engine, reading = read("vllm_0_32.prom")
    assert engine == "vllm"
    assert reading == Reading(
        prompt_tokens=135,
        cached_tokens=0,
        generation_tokens=66,
        life="1.79545525511e+09",
        started_at=Decimal("1795455255.11"),
        extra={"preemptions": 0, "rejections": 0, "prefill_ms": 1_817, "decode_ms": 9_304},
    )


def test_a_real_llamacpp_while_a_request_runs() -> None:
    engine, reading = read("llamacpp_b11434.prom")
    assert engine == "llama.cpp"
    assert (reading.prompt_tokens, reading.cached_tokens) == (94 + 114, 114)
    assert (reading.generation_tokens, reading.requests_running) == (75, 1)


def test_a_real_dynamo_in_two_stages_counts_each_token_once() -> None:
    pages = [read(f"dynamo_{part}.prom") for part in ("frontend", "prefill", "decode")]
    assert [engine for engine, _ in pages] == ["dynamo", "dynamo-worker", "dynamo-worker"]
    assert sum(reading.prompt_tokens for _, reading in pages) == 51
    assert sum(reading.generation_tokens for _, reading in pages) == 16


def test_a_real_litellm() -> None:
    engine, reading = read("litellm.prom")
    assert engine == "litellm"
    assert (reading.prompt_tokens, reading.generation_tokens) == (30 + 27, 17 + 5)
    assert reading.requests_running == 0  # the one that it tells is the reading itself


def test_a_front_end_of_dynamo_that_served_nobody_is_no_worker() -> None:
    text = (
        "dynamo_frontend_disconnected_clients 0\n"
        'dynamo_component_uptime_seconds{worker_id="ee0ae9ff221fc18c"} 0.12\n'
    )
    collector, reading = read_page(text)
    assert collector.engine == "dynamo"
    assert reading == Reading(
        prompt_tokens=0, cached_tokens=0, generation_tokens=0, life="ee0ae9ff221fc18c"
    )


def test_a_litellm_that_served_nobody_counts_nothing_yet() -> None:
    collector, reading = read_page("litellm_in_flight_requests 0\n")
    assert collector.engine == "litellm"
    assert (reading.prompt_tokens, reading.generation_tokens) == (0, 0)


def test_a_litellm_with_spend_but_no_tokens_has_renamed_them() -> None:
    with pytest.raises(CollectorError, match="no litellm_input_tokens_metric"):
        read_page("litellm_in_flight_requests 0\nlitellm_spend_metric_total 0.1\n")


LOADED = """{"models": [
{"name": "a", "size": 6591830464, "size_vram": 5333539264, "digest": "b", "expires_at": "2026-11-29T14:38:31Z"},
{"name": "c", "size": 100, "size_vram": 0}]}"""


def test_ollama_tells_what_it_keeps_loaded() -> None:
    collector, reading = read_page(LOADED)
    assert collector.engine == "ollama"
    assert reading == Reading(
        prompt_tokens=0,
        cached_tokens=0,
        generation_tokens=0,
        extra={
            "loaded_models": 2,
            "loaded_bytes": 6_591_830_564,
            "accelerator_bytes": 5_333_539_264,
        },
    )
    assert collector.version(b'{"version": "0.30.1"}') == "0.30.1"
    _, idle = read_page('{"models":[]}')
    assert idle.extra == {"loaded_models": 0, "loaded_bytes": 0, "accelerator_bytes": 0}


@pytest.mark.parametrize("size", ["-1", "1e400", "null", '"7"', "true", str(10**30)])
def test_a_size_that_is_none_is_left_out(size: str) -> None:
    _, reading = read_page('{"models": [{"size_vram": 3, "size": ' + size + "}]}")
    assert reading.extra == {"loaded_models": 1, "loaded_bytes": 0, "accelerator_bytes": 3}
    assert reading.notes == ("a model's size is no count of bytes: left out",)


def test_transformers_tells_that_it_is_alive() -> None:
    collector, reading = read_page('{"status":"ok"}', {"server": "uvicorn"})
    assert collector.engine == "transformers"
    assert reading == Reading(prompt_tokens=0, cached_tokens=0, generation_tokens=0)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ('{"status":"ok"}', {"server": "llama.cpp"}),
        ('{"status":"ok","models":1}', {"server": "uvicorn"}),
        ('{"models": [{"name": "a"}]}', {}),  # /api/tags
        ('{"models": {}}', {}),
        ('{"models": [3]}', {}),
        ('{"models": [', {}),
        ("{" * 100_000, {}),
        ('{"models":' + "[" * 100_000, {}),
    ],
)
def test_another_document_is_told_in_words(text: str, headers: dict[str, str]) -> None:
    with pytest.raises(CollectorError, match="answered a document, not metrics"):
        read_page(text, headers)
