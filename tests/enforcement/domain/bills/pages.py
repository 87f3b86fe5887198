"""Bills as the providers write them, by their documentation; nothing of them was seen live."""

import json
from datetime import UTC, datetime
from typing import Any

DAY = datetime(2026, 5, 13, tzinfo=UTC)
DAY_S = int(DAY.timestamp())


def openai_page(results: list[dict[str, Any]], *, hour: int = 10, hours: int = 1) -> bytes:
    start = DAY_S + 3_600 * hour
    bucket = {
        "object": "bucket",
        "start_time": start,
        "end_time": start + 3_600 * hours,
        "results": results,
    }
    page = {"object": "page", "data": [bucket], "has_more": False, "next_page": None}
    return json.dumps(page).encode()


def completions(model: str | None, prompt: int, generation: int, **more: Any) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": prompt,
        "output_tokens": generation,
        "input_cached_tokens": 0,
        "num_model_requests": 1,
        "project_id": None,
        "model": model,
        **more,
    }


def costs(value: Any, line_item: str | None = None, currency: str = "usd") -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": value, "currency": currency},
        "line_item": line_item,
        "project_id": None,
    }


def anthropic_page(results: list[dict[str, Any]], *, hour: str = "10") -> bytes:
    bucket = {
        "starting_at": f"2026-05-13T{hour}:00:00Z",
        "ending_at": f"2026-05-13T{int(hour) + 1:02d}:00:00Z",
        "results": results,
    }
    return json.dumps({"data": [bucket], "has_more": False, "next_page": None}).encode()


def messages(model: str, **more: Any) -> dict[str, Any]:
    return {
        "uncached_input_tokens": 1_500,
        "cache_creation": {"ephemeral_1h_input_tokens": 1_000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200,
        "output_tokens": 500,
        "server_tool_use": {"web_search_requests": 10},
        "model": model,
        "service_tier": "standard",
        **more,
    }
