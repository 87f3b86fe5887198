"""Read a bill, whatever it is: the answer of a provider's API, its console's table, or our own."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from controlplane.filetext import text_of
from enforcement.domain.bills import anthropic, openai
from enforcement.domain.bills.lines import Line, in_usd, nanos, period, summed, text, tokens
from enforcement.errors import BillError

MOST_BYTES = 64 * 1024 * 1024
MOST_LINES = 200_000
OWN_COLUMNS = frozenset({"provider", "model", "starts_at", "ends_at"})
Reader = Callable[[Mapping[str, Any], str], Iterator[Line]]


def read_bill(content: bytes, *, provider: str = "") -> list[Line]:
    """Its lines, those of one key summed. `provider`: as calls name it, where that is not the
    bill's own name (a gateway, another account).

    Raises BillError: not a bill that can be understood, with the place in it.
    """
    if len(content) > MOST_BYTES:
        raise BillError(f"more than {MOST_BYTES >> 20} MiB: import it in parts")
    try:
        written = text_of(content)
    except ValueError as error:
        raise BillError(f"a bill is CSV or JSON in UTF-8: {error}") from None
    if written.lstrip()[:1] in ("{", "["):
        lines = _from_json(written, provider)
    else:
        lines = _from_csv(written, provider)
    found = []
    for line in lines:
        found.append(line)
        if len(found) > MOST_LINES:
            raise BillError(f"more than {MOST_LINES:,} lines: import it in parts")
    return summed(found)


# ------------------------------------------------------------------------------- JSON


def _from_json(written: str, provider: str) -> Iterator[Line]:
    try:
        document = json.loads(written, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BillError(f"not JSON: {str(error)[:100]}") from error
    for page_number, page in enumerate(document if isinstance(document, list) else [document]):
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            raise BillError("no page of a usage or cost API: there is no list named data")
        for number, bucket in enumerate(buckets):
            yield from _bucket(bucket, provider, f"page {page_number}, bucket {number}")


def _no_number(word: str) -> None:
    raise BillError(f"{word} is no amount")


def _bucket(bucket: Any, provider: str, place: str) -> Iterator[Line]:
    try:
        if "start_time" in bucket:
            yield from openai.from_api(bucket, provider or openai.PROVIDER)
        elif "starting_at" in bucket:
            yield from anthropic.from_api(bucket, provider or anthropic.PROVIDER)
        else:
            raise BillError("neither a bucket of OpenAI nor of Anthropic")
    except (TypeError, KeyError, AttributeError) as error:
        raise BillError(f"{place}: not as the provider writes it: {error!r}"[:200]) from error
    except BillError as error:
        raise BillError(f"{place}: {error}") from error


# ------------------------------------------------------------------------------- CSV


def _from_csv(written: str, provider: str) -> Iterator[Line]:
    rows = csv.DictReader(io.StringIO(written, newline=""), delimiter=_delimiter(written))
    try:
        reader, owner = _reader(frozenset(rows.fieldnames or ()))
        for row in rows:
            if None in row or None in row.values():
                raise BillError("more or fewer cells than columns")
            yield from reader(row, provider or owner)
    except csv.Error as error:
        raise BillError(f"line {rows.line_num}: {error}") from error
    except BillError as error:
        raise BillError(f"line {rows.line_num}: {error}") from error


def _delimiter(written: str) -> str:
    head = written.partition("\n")[0]
    return max(",;\t", key=head.count)


def _reader(columns: frozenset[str]) -> tuple[Reader, str]:
    if columns >= openai.CSV_COSTS or columns >= openai.CSV_USAGE:
        return openai.from_csv, openai.PROVIDER
    if columns >= anthropic.CSV:
        return anthropic.from_csv, anthropic.PROVIDER
    if columns >= OWN_COLUMNS:
        return own_lines, ""
    raise BillError(
        "not a table of OpenAI's or Anthropic's console; one of your own has the columns"
        " provider, model, starts_at, ends_at, and of prompt_tokens, cached_tokens,"
        " generation_tokens, calls, cost_usd those that are known"
    )


def own_lines(row: Mapping[str, str], provider: str) -> Iterator[Line]:
    """Lines of one row with columns of our own: it may tell tokens, money, or both.

    Raises BillError: it says too little, or something that cannot be.
    """
    line = Line(
        provider or text(row["provider"]),
        period(row["starts_at"], row["ends_at"]),
        model=text(row["model"]),
        item=text(row.get("item")),
    )
    if not line.provider or not (row.get("prompt_tokens") or row.get("cost_usd")):
        raise BillError("a row names a provider, and prompt_tokens or cost_usd")
    if row.get("prompt_tokens"):
        yield line._replace(
            prompt_tokens=tokens(row, "prompt_tokens"),
            cached_tokens=tokens(row, "cached_tokens"),
            generation_tokens=tokens(row, "generation_tokens"),
            calls=tokens(row, "calls") if row.get("calls") else None,
        )
    if row.get("cost_usd"):
        in_usd(row.get("currency") or "usd")
        yield line._replace(cost_nanos=nanos("cost_usd", row["cost_usd"]))
