"""FOCUS rows as files: CSV, or Parquet where `pyarrow` is installed (extra `archive`)."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from budgets.errors import ExportError

Rows = list[tuple[object, ...]]
_DECIMALS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
_INTEGERS = "x_Calls", "Tokens"
GROUP_ROWS = 20_000  # of Parquet: 20 MB until they are written


class Output(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


MEDIA_TYPES = {
    Output.CSV: "text/csv; charset=utf-8",
    Output.PARQUET: "application/vnd.apache.parquet",
}


def written(columns: Sequence[str], batches: Iterable[Rows], output: Output) -> Iterator[bytes]:
    """A file, piece by piece, of a batch of rows (Parquet: of a row group) each.

    Raises:
        ExportError: nothing here can write Parquet.
    """
    if output is Output.PARQUET:
        return _parquet(columns, batches)
    return _csv(columns, batches)


def _csv(columns: Sequence[str], batches: Iterable[Rows]) -> Iterator[bytes]:
    """Null is an empty cell. Cells are as they are: FOCUS is read by programs."""
    yield _lines([tuple(columns)])
    for rows in batches:
        yield _lines(rows)


def _lines(rows: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _parquet(columns: Sequence[str], batches: Iterable[Rows]) -> Iterator[bytes]:
    try:
        import pyarrow as pa  # noqa: PLC0415 -- an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ExportError(
            "output", "no Parquet without pyarrow: install comptroller[archive]"
        ) from error
    types = {name: _type_of(name, pa) for name in columns}
    schema = pa.schema(list(types.items()))

    def table(rows: Rows) -> Any:
        arrays = [
            pa.array(column, type=None if pa.types.is_integer(kind) else pa.string()).cast(kind)
            for column, kind in zip(zip(*rows, strict=True), types.values(), strict=True)
        ]
        return pa.table(arrays, schema=schema)

    def pieces() -> Iterator[bytes]:
        sink = _Sink()
        with parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), schema) as writer:
            for tables in _groups(map(table, batches)):
                writer.write_table(pa.concat_tables(tables), row_group_size=GROUP_ROWS)
                yield sink.taken()
        yield sink.taken()

    return pieces()


def _groups(tables: Iterable[Any]) -> Iterator[list[Any]]:
    """Tables together as long as a row group: the file's end lists every group, and so grows."""
    waiting: list[Any] = []
    for one in tables:
        waiting.append(one)
        if sum(table.num_rows for table in waiting) >= GROUP_ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _type_of(name: str, pa: object) -> object:
    if name in _DECIMALS:
        return pa.decimal128(38, 9)  # type: ignore[attr-defined]
    if name.startswith("x_") and name.endswith(_INTEGERS):
        return pa.int64()  # type: ignore[attr-defined]
    return pa.string()  # type: ignore[attr-defined]


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data))  # type: ignore[arg-type]
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole
