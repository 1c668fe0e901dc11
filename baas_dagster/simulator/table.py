"""Rows as whole numbers, and their text in the layouts of the deliveries.

Belongs here: columns that hold what a unit would have written (``Number``, ``Choice``, ``Moment``, ``Lists``), and fast
rendering to psql dumps and CSV, or to a frame. Does not belong here: which values, which quirks.

Rendering: a column becomes a table of its distinct texts and an index into it; a chunk of rows is put together as one
byte matrix, padded with NUL, and the NULs are deleted at the end. No Python runs per value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = [
    "MISSING",
    "Choice",
    "Column",
    "Layout",
    "Lists",
    "Moment",
    "Number",
    "Table",
    "TextFaults",
    "concat",
    "render",
    "to_frame",
]

MISSING = -(2**31)
"""An empty field in a ``Number`` or ``Lists``."""

_CHUNK = 8_192
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Number:
    """Whole numbers in units of 10**-decimals."""

    values: NDArray[np.int64]
    decimals: int = 0

    def take(self, rows: Ints) -> Number:
        """These rows."""
        return Number(self.values[rows], self.decimals)


@dataclass(frozen=True)
class Choice:
    """One of a few texts per row."""

    codes: NDArray[np.int64]
    labels: tuple[str, ...]

    def take(self, rows: Ints) -> Choice:
        """These rows."""
        return Choice(self.codes[rows], self.labels)


@dataclass(frozen=True)
class Moment:
    """Seconds since 1970, naive KST."""

    seconds: NDArray[np.int64]

    def take(self, rows: Ints) -> Moment:
        """These rows."""
        return Moment(self.seconds[rows])


@dataclass(frozen=True)
class Lists:
    """A list per row: (rows, entries) whole numbers; ``milli`` means thousandths written with 2 or 3 decimals."""

    values: NDArray[np.int32]
    milli: bool
    decimals: int = 0

    def take(self, rows: Ints) -> Lists:
        """These rows."""
        return Lists(self.values[rows], self.milli, self.decimals)

    def text(self, value: int) -> str:
        """Text of one entry. A value finer than the decimals (66.535) is written in full."""
        if not self.milli:
            return str(value)
        return f"{value / 1000:.{self.decimals if value % 10 == 0 else 3}f}"


Column = Number | Choice | Moment | Lists


@dataclass(frozen=True)
class Table:
    """Columns of one length, in canonical names."""

    columns: dict[str, Column]

    def __len__(self) -> int:
        moment = self.columns["time"]
        assert isinstance(moment, Moment)
        return len(moment.seconds)

    def take(self, rows: Ints) -> Table:
        """These rows, in this order."""
        return Table({name: column.take(rows) for name, column in self.columns.items()})

    def with_column(self, name: str, column: Column) -> Table:
        """The same with one column replaced (or added at the end)."""
        return Table({**self.columns, name: column})

    def number(self, name: str) -> NDArray[np.int64]:
        """Values of a ``Number`` column (a copy)."""
        column = self.columns[name]
        assert isinstance(column, Number)
        return column.values.copy()

    def seconds(self) -> NDArray[np.int64]:
        """Values of ``time``."""
        column = self.columns["time"]
        assert isinstance(column, Moment)
        return column.seconds


def concat(tables: Sequence[Table]) -> Table:
    """Rows of several tables with the same columns, one after the other; shorter lists are padded."""
    joined: dict[str, Column] = {}
    for name, first in tables[0].columns.items():
        parts = [table.columns[name] for table in tables]
        if isinstance(first, Moment):
            joined[name] = Moment(np.concatenate([p.seconds for p in parts if isinstance(p, Moment)]))
        elif isinstance(first, Number):
            decimals = max(p.decimals for p in parts if isinstance(p, Number))
            joined[name] = Number(np.concatenate([_scaled(p, decimals) for p in parts]), decimals)
        elif isinstance(first, Choice):
            labels = tuple(dict.fromkeys(label for p in parts if isinstance(p, Choice) for label in p.labels))
            codes = [np.array([labels.index(x) for x in p.labels])[p.codes] for p in parts if isinstance(p, Choice)]
            joined[name] = Choice(np.concatenate(codes), labels)
        else:
            lists = [p for p in parts if isinstance(p, Lists)]
            width = max(p.values.shape[1] for p in lists)
            padded = [
                np.pad(p.values, ((0, 0), (0, width - p.values.shape[1])), constant_values=MISSING) for p in lists
            ]
            joined[name] = replace(lists[0], values=np.vstack(padded), decimals=max(p.decimals for p in lists))
    return Table(joined)


def _scaled(column: Column, decimals: int) -> NDArray[np.int64]:
    assert isinstance(column, Number)
    factor = 10 ** (decimals - column.decimals)
    return np.where(column.values == MISSING, MISSING, column.values * factor)


@dataclass(frozen=True)
class Layout:
    """How an export writes its rows."""

    name: str
    form: str  # psql, csv, csv_gz, parquet
    names: Mapping[str, str] = field(default_factory=dict)  # canonical -> delivered, where they differ
    long_dates: bool = False
    padded_dates: bool = False
    numbered: bool = False  # csv, parquet: one column per cell and module instead of the lists
    brackets: bool = False
    flags: tuple[str, str] = ("0", "1")
    encoding: str = "utf-8"
    bom: bool = False
    newest_first: bool = False
    current_sign: int = 1
    voltage_scale: float = 1.0
    month_in_name: str = "dash"  # 2023-01, or "short": _2301_
    korean: bool = False

    def delivered(self, canonical: str) -> str:
        """Header of a column."""
        return self.names.get(canonical, canonical)


@dataclass
class TextFaults:
    """Rows whose text is broken: other texts for single fields, too few or too many fields. Row -> what."""

    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    short_rows: list[int] = field(default_factory=list)
    long_rows: list[int] = field(default_factory=list)
    header_again_at: tuple[int, ...] = ()

    def rows(self) -> set[int]:
        """Every row that has a fault."""
        return {*self.short_rows, *self.long_rows, *(row for found in self.texts.values() for row in found)}

    def reversed(self, rows: int) -> TextFaults:
        """The same for the rows in opposite order."""
        return TextFaults(
            {name: {rows - 1 - row: text for row, text in found.items()} for name, found in self.texts.items()},
            [rows - 1 - row for row in self.short_rows],
            [rows - 1 - row for row in self.long_rows],
            self.header_again_at,
        )


_NUMBERED = {"cell_volt_list": ("cell_v_{:03d}", 192), "mod_temp_list": ("mod_temp_{:02d}", 18)}


@dataclass
class _Field:
    """A column ready to be put together: its texts, and which of them each row has, or the entries of a list.

    A list's texts are: nothing, every value from ``low`` on, and the same again with a comma in front.
    """

    header: str
    texts: NDArray[np.bytes_]
    index: NDArray[np.int64]
    entries: NDArray[np.int32] | None = None
    low: int = 0
    with_comma: int = 0  # how much further the text with the comma is
    numbered: int = 0  # columns, where every entry is its own

    def width(self) -> int:
        """Bytes the widest field may take."""
        size = int(self.texts.dtype.itemsize)
        return size * (self.numbered or self.entries.shape[1]) if self.entries is not None else size

    def picked(self, begin: int, end: int) -> NDArray[np.bytes_]:
        """Texts of the rows, (rows,) or (rows, entries)."""
        if self.entries is None:
            return self.texts[self.index[begin:end]]
        values = self.entries[begin:end]
        index = values.astype(np.intp) - (self.low - 1)
        index[values == MISSING] = 0
        if self.numbered > index.shape[1]:
            index = np.pad(index, ((0, 0), (0, self.numbered - index.shape[1])))
        later = index[:, 1:]
        later += self.with_comma if self.numbered else np.where(later > 0, self.with_comma, 0)
        return self.texts[index]


def _texts(values: list[str], encoding: str) -> NDArray[np.bytes_]:
    return np.array([v.encode(encoding) for v in values] or [b""], dtype=np.bytes_)


def _indexed(values: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
    """Distinct values, and where each row's stands among them."""
    known = values != MISSING
    if known.any():
        low, high = int(values[known].min()), int(values[known].max())
        if high - low < max(2 * len(values), 4_000):
            index = np.where(known, values - low + 1, 0)
            return [MISSING, *range(low, high + 1)], index
    distinct, index = np.unique(values, return_inverse=True)
    return distinct.tolist(), index


def _number_text(value: int, decimals: int) -> str:
    if value == MISSING:
        return ""
    return f"{value / 10**decimals:.{decimals}f}" if decimals else str(value)


def moment_texts(seconds: NDArray[np.int64], layout: Layout) -> list[str]:
    """Texts of times, one per entry."""
    stamps = np.datetime_as_string(seconds.astype("datetime64[s]"), unit="s")
    texts = [stamp.replace("T", " ") for stamp in stamps.tolist()]
    return texts if layout.long_dates else [text[2:] for text in texts]


def _encode(name: str, column: Column, layout: Layout) -> _Field:
    header = layout.delivered(name)
    if isinstance(column, Number):
        distinct, index = _indexed(column.values)
        return _Field(header, _texts([_number_text(v, column.decimals) for v in distinct], "ascii"), index)
    if isinstance(column, Choice):
        labels = layout.flags if column.labels == ("0", "1") else column.labels
        quoted = [f'"{x}"' if "," in x and layout.form.startswith("csv") else x for x in labels]
        return _Field(header, _texts(quoted, layout.encoding), column.codes)
    if isinstance(column, Moment):
        seconds, index = np.unique(column.seconds, return_inverse=True)
        stamps = moment_texts(seconds, layout)
        if layout.padded_dates:
            stamps = [f" {stamp}  " for stamp in stamps]
        return _Field(header, _texts(stamps, "ascii"), index)
    return _encode_lists(name, header, column, layout)


def _encode_lists(name: str, header: str, column: Lists, layout: Layout) -> _Field:
    values = column.values
    known = values if int(values.min(initial=0)) != MISSING else values[values != MISSING]
    low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
    plain = ["", *(column.text(v) for v in range(low, high + 1))]
    if layout.numbered:  # every entry but the first brings its comma, an empty one too
        pattern, count = _NUMBERED[name]
        count = max(count, values.shape[1])
        headers = ",".join(pattern.format(k + 1) for k in range(count))
        texts = _texts(plain + [f",{text}" for text in plain], "ascii")
        return _Field(headers, texts, np.zeros(0, dtype=np.int64), values, low, len(plain), count)
    texts = _texts([*plain, *(f",{text}" for text in plain[1:])], "ascii")
    return _Field(header, texts, np.zeros(0, dtype=np.int64), values, low, len(plain) - 1)


def _override(found: _Field, faults: Mapping[int, str], encoding: str) -> _Field:
    """The field with other texts in some rows."""
    texts = [text.encode(encoding) for text in faults.values()]
    index = found.index.copy()
    index[list(faults)] = len(found.texts) + np.arange(len(texts))
    return replace(found, texts=np.concatenate([found.texts, np.array(texts, dtype=np.bytes_)]), index=index)


def render(table: Table, layout: Layout, faults: TextFaults | None = None) -> Iterator[bytes]:
    """The file as the layout writes it, in pieces: header, rows in the order of the table, footer."""
    psql = layout.form == "psql"
    faults = faults or TextFaults()
    n = len(table)
    fields = []
    names = list(table.columns)
    for name, column in table.columns.items():
        encoded = _encode(name, column, layout)
        broken = dict(faults.texts.get(name, {}))
        if name == names[-1]:
            broken |= dict.fromkeys(faults.long_rows, " | 7 | 7" if psql else ",7,7")
        fields.append(_override(encoded, broken, layout.encoding) if broken and encoded.entries is None else encoded)
    between = b" | " if psql else b","
    opening, closing = (b"[", b"]") if layout.brackets else (b"", b"")
    if not psql:
        opening, closing = b'"' + opening, closing + b'"'
    widths = [max(f.width() + len(opening + closing) * _is_list(f), len(f.header) if psql else 0) for f in fields]
    header = between.join(
        f.header.encode(layout.encoding).ljust(w) if psql else f.header.encode(layout.encoding)
        for f, w in zip(fields, widths, strict=True)
    )
    head = (b" " + header if psql else header) + b"\n"
    if psql:
        head += b"+".join(b"-" * (w + 2) for w in widths) + b"\n"
    yield (b"\xef\xbb\xbf" if layout.bom else b"") + head
    short, again = set(faults.short_rows), set(faults.header_again_at)
    starts = sorted({*range(0, n, _CHUNK), *(row for row in again if 0 < row < n), n})
    for begin, end in pairwise(starts):
        if begin in again:
            yield head
        yield _rows(fields, widths, begin, end, psql, between, opening, closing, short)
    if psql:
        yield f"({n} rows)\n".encode()


def _is_list(found: _Field) -> bool:
    return found.entries is not None and not found.numbered


def _rows(
    fields: Sequence[_Field],
    widths: Sequence[int],
    begin: int,
    end: int,
    psql: bool,
    between: bytes,
    opening: bytes,
    closing: bytes,
    short: set[int],
) -> bytes:
    """The lines of rows ``begin`` to ``end``."""
    n = end - begin
    lead = b" " if psql else b""
    total = len(lead) + sum(widths) + len(between) * (len(fields) - 1) + 1
    matrix = np.zeros((n, total), dtype=np.uint8)
    matrix[:, : len(lead)] = np.frombuffer(lead, dtype=np.uint8)
    at = len(lead)
    separators = []
    for found, width in zip(fields, widths, strict=True):
        if psql:
            matrix[:, at : at + width] = 32
        inner = at
        if _is_list(found):
            matrix[:, at : at + len(opening)] = np.frombuffer(opening, dtype=np.uint8)
            inner += len(opening)
        size = found.width()
        block = np.ascontiguousarray(found.picked(begin, end)).view(np.uint8).reshape(n, size)
        if psql and found.entries is None:
            block = np.where(block == 0, np.uint8(32), block)
        matrix[:, inner : inner + size] = block
        if _is_list(found):
            matrix[:, inner + size : inner + size + len(closing)] = np.frombuffer(closing, dtype=np.uint8)
        at += width
        if found is not fields[-1]:
            separators.append(at)
            matrix[:, at : at + len(between)] = np.frombuffer(between, dtype=np.uint8)
            at += len(between)
    matrix[:, at] = 10
    for row in short:
        if begin <= row < end:  # two separators lost: two fields too few
            for position in separators[3:5]:
                matrix[row - begin, position : position + len(between)] = 32 if psql else 0
    return matrix.tobytes().translate(None, b"\0")


def to_frame(table: Table, layout: Layout) -> pl.DataFrame:
    """The table for a Parquet delivery: numbers as float64, times as timestamps, lists as text or numbered columns."""
    columns: dict[str, pl.Series] = {}
    for name, column in table.columns.items():
        header = layout.delivered(name)
        if isinstance(column, Number):
            columns[header] = _floats(column.values, column.values / 10**column.decimals)
        elif isinstance(column, Moment):
            columns[header] = pl.Series(column.seconds * 1_000_000).cast(pl.Datetime("us"))
        elif isinstance(column, Choice):
            columns[header] = pl.Series(column.labels).gather(column.codes)
        elif layout.numbered:
            pattern, count = _NUMBERED[name]
            values = column.values
            for k in range(max(count, values.shape[1])):
                entries = values[:, k] if k < values.shape[1] else np.full(len(values), MISSING, dtype=np.int32)
                columns[pattern.format(k + 1)] = _floats(entries, entries / (1000 if column.milli else 1))
        else:
            encoded = _encode(name, column, layout)
            joined = encoded.picked(0, len(table)).view(np.uint8).reshape(len(table), -1)
            columns[header] = pl.Series([bytes(row).replace(b"\0", b"").decode("ascii") for row in joined])
    return pl.DataFrame(columns)


def _floats(raw: NDArray[np.int64] | NDArray[np.int32], values: NDArray[np.float64]) -> pl.Series:
    return pl.Series(np.where(raw == MISSING, np.nan, values), nan_to_null=True)
