"""Rows of the audit log as a file: CSV for spreadsheets, Parquet for what reads columns."""

from __future__ import annotations

import csv
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from webhook.clock import rfc3339
from webhook.errors import NotConfigured, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from webhook.store.audit import AuditRow

_COLUMNS = (
    "number",
    "at",
    "actor",
    "actor_name",
    "role",
    "address",
    "request_id",
    "action",
    "object_id",
    "status",
    "details",
    "hash",
)
_GROUP = 10_000  # rows that are compressed together
# What a spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection), as a key's name may be
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # the last four are full-width


class NotWritten(ServiceError):
    """The file cannot be written; the message says why."""


def export(rows: Iterable[AuditRow], path: str, *, format: str) -> int:  # noqa: A002 - the option's word
    """Write rows to a file, which is there once it is whole; return how many there were.

    Args:
        path: `-` is standard output.
        format: `csv` or `parquet`.

    Raises:
        NotWritten: it cannot be written.
        NotConfigured: Parquet is wanted, and pyarrow is not installed.
    """
    write = _WRITERS[format]
    if path == "-":
        return write(rows, sys.stdout.buffer)
    try:
        with _whole(Path(path)) as file:
            return write(rows, file)
    except OSError as error:
        raise NotWritten(f"{path} cannot be written: {error.strerror}.") from error


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the wanted one, and put it in its place at the end."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _csv(rows: Iterable[AuditRow], file: IO[bytes]) -> int:
    """Write CSV after RFC 4180; before what could be a formula goes an apostrophe."""
    lines = csv.writer(_Encoded(file))
    lines.writerow(_COLUMNS)
    count = 0
    for row in rows:
        values = _values(row) | {"at": rfc3339(row.at)}
        lines.writerow([f"'{one}" if str(one).startswith(_FORMULA) else one for one in values.values()])
        count += 1
    return count


class _Encoded:
    """What the csv module writes to, over a file of bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _parquet(rows: Iterable[AuditRow], file: IO[bytes]) -> int:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise NotConfigured("Parquet needs pyarrow, the extra `webhook[parquet]`: pip install pyarrow.") from error
    kinds = {"number": pa.int64(), "at": pa.timestamp("us", tz="UTC"), "status": pa.int32()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in _COLUMNS])
    count = 0
    with ParquetWriter(file, schema) as writer:
        for group in _grouped(rows):
            writer.write_table(pa.Table.from_pylist([_values(row) for row in group], schema=schema))
            count += len(group)
    return count


def _grouped(rows: Iterable[AuditRow]) -> Iterator[list[AuditRow]]:
    group: list[AuditRow] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _values(row: AuditRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS} | {"hash": row.hash.hex()}


_WRITERS: dict[str, Callable[[Iterable[AuditRow], IO[bytes]], int]] = {"csv": _csv, "parquet": _parquet}
