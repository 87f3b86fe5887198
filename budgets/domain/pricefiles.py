"""Read price files that somebody has: genai-prices' JSON, LiteLLM's map, our CSV.

Numbers are read from their decimal text, never by a float. A file that says a thing twice, or that
is not what it is said to be, is refused as a whole. Nothing is fetched.
"""

import csv
import json
from collections import Counter
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from hashlib import sha256
from typing import Any

from budgets.domain.catalogue import providers_of, read_catalogue
from budgets.domain.pricecsv import read_csv
from budgets.domain.pricelist import PriceList
from budgets.domain.pricemap import read_map
from budgets.errors import PriceError
from controlplane.filetext import text_of

MOST_BYTES = 32 * 1024 * 1024
_DIGEST_CHARS = 16


class PriceFormat(StrEnum):
    GENAI_PRICES = "genai-prices"
    LITELLM = "litellm"
    CSV = "csv"


def read_prices(content: bytes, form: PriceFormat) -> PriceList:
    """What a file says.

    Raises:
        PriceError: it is not that format, too large, or contradicts itself.
    """
    if len(content) > MOST_BYTES:
        raise PriceError("content", f"a price file has up to {MOST_BYTES} bytes")
    left_out: list[str] = []
    try:
        text = text_of(content)
        if form is PriceFormat.CSV:
            prices = read_csv(text)
        elif form is PriceFormat.LITELLM:
            prices, left_out = read_map(_json(text))
        else:
            prices = read_catalogue(providers_of(_json(text)))
        for name in (*left_out, *(part for key in prices for part in key)):
            name.encode()  # JSON can say half a character, which nobody can be told
    except (ValueError, InvalidOperation, OverflowError, RecursionError, csv.Error) as error:
        said = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        said = said[:300].encode(errors="backslashreplace").decode()
        raise PriceError("content", f"not a {form} price file: {said}") from error
    if not prices:
        raise PriceError("content", f"no price of tokens in this {form} file")
    return PriceList(
        source=f"file {form}",
        version=sha256(content).hexdigest()[:_DIGEST_CHARS],
        prices=prices,
        left_out=left_out,
    )


def format_of(name: str, content: bytes) -> PriceFormat:
    """What a file is by its name, and its first character: a list, or an object."""
    if name.lower().endswith(".csv"):
        return PriceFormat.CSV
    first = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    json_formats = {b"[": PriceFormat.GENAI_PRICES, b"{": PriceFormat.LITELLM}
    return json_formats.get(first, PriceFormat.CSV)


def _json(text: str) -> Any:
    return json.loads(
        text, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_said_once
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no price")


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:100]!r} stands there twice")
    return found
