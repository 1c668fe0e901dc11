"""Text and Parquet members -> typed Arrow chunks and rejected rows.

Belongs here: encodings, headers, delimiters, what is a row and what is decoration (dashes, footers, repeated headers),
and how a delivered text becomes a typed value or a reason. Does not belong here: containers (``archives``), what in a
list is no value (``cells``), where rows are stored (``delivery``).

One record is one physical line: a quoted line break is not supported, so a row's number is the line a person finds in
an editor, however the member is cut into blocks. ``blocks_of_text`` cuts (in order, one thread); ``parse_block`` and
``parse_batch`` are pure and run in parallel. Any cut gives the same rows, numbers and reasons.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from baas_dagster.telemetry import cells
from baas_dagster.telemetry.archives import ByteMeter, IntakeLimits, IntakeProblem, MemberStream
from baas_dagster.telemetry.columns import (
    BMS_COLUMNS,
    CELL_COLUMN,
    GPS_COLUMNS,
    MODULE_TEMP_COLUMN,
    ColumnKind,
    TableKind,
    canonical_name,
    lake_schema,
    normalised,
    numbered_position,
)

__all__ = [
    "MASTER_SCHEMA",
    "Block",
    "Layout",
    "MonthRange",
    "ParsedRows",
    "Rejects",
    "blocks_of_text",
    "parquet_batches",
    "parse_batch",
    "parse_block",
    "times_from_text",
]

MASTER_SCHEMA: Final = pa.schema(
    [("device_no", pa.string()), ("car_type", pa.string()), ("source_file", pa.string()), ("source_row", pa.int64())]
)
"""A vehicle master: one row per delivered line."""

HEADER_WITHIN_LINES: Final = 50
"""Lines looked at for a header: exports put a title or a query above it at most."""

TEXT_KEPT: Final = 500
"""Characters kept of a rejected row."""

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_DEVICE = re.compile(r"^[0-9]{11}$")
_FAMILIES = {"|": "psql", "\t": "tsv", ";": "scsv", ",": "csv"}
_TRUE, _FALSE = {"1", "true", "t", "y", "yes", "on", "1.0"}, {"0", "false", "f", "n", "no", "off", "0.0"}
_DASHES = re.compile(rb"^[-+ |=\t]*-{2,}[-+ |=\t]*$")
_FOOTER = re.compile(r"^\((\d+)(?: rows?|개 행)\)$")
_NULL_SPELLINGS = [
    *(" " * width for width in range(65)),
    *("NULL", "null", "Null", "NaN", "nan", "NAN", "None", "none", "NONE", "\\N", "-"),
]


# -- layout ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The delivered columns of a table and what they are. ``kind`` None: a vehicle master."""

    kind: TableKind | None
    family: str
    delimiter: str
    is_quoted: bool
    names: tuple[str, ...]
    sources: dict[str, tuple[int, ...]]
    """Canonical column -> delivered columns that carry it; the first that has a value wins."""
    numbered: dict[str, tuple[tuple[int, int], ...]]
    """List column -> (1-based position, delivered column)."""
    unknown: tuple[str, ...]
    layout_id: str
    loose: set[int] = field(default_factory=set, compare=False)
    """Columns in which a value did not read as a number: read as text from then on. A cache: it changes no result."""

    @staticmethod
    def of(names: Sequence[str], family: str, delimiter: str, is_quoted: bool, hint: str) -> Layout | None:
        """Layout of a header, or None where it is none: it takes a device and a time, or a device and a car type."""
        spelled = [normalised(n) for n in names]
        found = {n for n in spelled if n}
        if "deviceno" not in found:
            return None
        if not found & {"time", "msgtime", "messagetime", "timestamp"}:
            if "cartype" not in found:
                return None
            sources: dict[str, tuple[int, ...]] = {
                "device_no": (spelled.index("deviceno"),),
                "car_type": (spelled.index("cartype"),),
            }
            unknown = tuple(n.strip() for n, s in zip(names, spelled, strict=True) if s not in {"deviceno", "cartype"})
            return Layout(
                None, family, delimiter, is_quoted, tuple(names), sources, {}, unknown, _hash("master", family, spelled)
            )
        kind = _kind(names, hint)
        if kind is None:
            return None
        by_name: dict[str, list[int]] = {}
        by_number: dict[str, list[tuple[int, int]]] = {}
        left_out: list[str] = []
        for index, name in enumerate(names):
            column, position = canonical_name(kind, name), numbered_position(name)
            if column is not None:
                by_name.setdefault(column, []).append(index)
            elif position is not None and kind is TableKind.BMS:
                by_number.setdefault(position[0], []).append((position[1], index))
            elif spelled[index]:
                left_out.append(name.strip().strip("\ufeff\"'"))
        return Layout(
            kind,
            family,
            delimiter,
            is_quoted,
            tuple(names),
            {column: tuple(at) for column, at in by_name.items()},
            {column: tuple(sorted(at)) for column, at in by_number.items()},
            tuple(left_out),
            # by the names as they are spelled: two exports that differ in nothing else may still differ in sign
            _hash(kind.value, family, [name.strip().strip("\ufeff\"'").strip() for name in names]),
        )

    @property
    def columns(self) -> dict[str, ColumnKind]:
        """Canonical columns of this kind of table."""
        return BMS_COLUMNS if self.kind is TableKind.BMS else GPS_COLUMNS


def _hash(kind: str, family: str, spelled: Sequence[str]) -> str:
    text = "\n".join((kind, family, *(s for s in spelled if s)))
    return f"{family}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _kind(names: Sequence[str], hint: str) -> TableKind | None:
    """By columns that only one kind has; the file's name breaks a tie."""
    score = dict.fromkeys(TableKind, 0)
    for name in names:
        bms, gps = canonical_name(TableKind.BMS, name), canonical_name(TableKind.GPS, name)
        score[TableKind.BMS] += (bms is not None and gps is None) or numbered_position(name) is not None
        score[TableKind.GPS] += gps is not None and bms is None
    if score[TableKind.BMS] != score[TableKind.GPS]:
        return max(score, key=lambda kind: score[kind])
    named = [kind for kind in TableKind if kind.value in hint.lower()]
    return named[0] if len(named) == 1 else None


def _header(line: str, hint: str) -> Layout | None:
    """Layout of a text line if it is a header."""
    line = line.lstrip("\ufeff").rstrip("\r\n")
    if "device" not in line.lower():
        return None
    delimiter = max(_FAMILIES, key=line.count)
    if delimiter not in line:
        return None
    is_quoted = delimiter != "|" or '"' in line
    names = next(csv.reader([line], delimiter=delimiter)) if is_quoted else line.split(delimiter)
    return Layout.of(names, _FAMILIES[delimiter], delimiter, is_quoted, hint)


# -- cutting a text member into blocks ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Whole lines of one table, UTF-8. ``lost``: (line, raw bytes, reason) of lines that could not be passed on."""

    data: bytes
    first_line: int
    lines: int
    layout: Layout
    starts_table: bool
    lost: tuple[tuple[int, bytes, str], ...] = ()


@dataclass
class TextFacts:
    """What is known about a text member as it is read."""

    encoding: str | None = None
    undecodable: int = 0
    layouts: list[Layout] = field(default_factory=list)


def blocks_of_text(stream: MemberStream, hint: str, limits: IntakeLimits, facts: TextFacts) -> Iterator[Block]:
    """Cut a member at line ends into blocks of about ``chunk_bytes``; a header in the middle starts a new block."""
    layout: Layout | None = None
    line, needle, starts = 1, b"", True
    preamble: list[tuple[int, bytes, str]] = []
    for raw in _whole_lines(stream, limits):
        data = raw
        if line == 1:
            if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise IntakeProblem("UTF-16 text: export it as UTF-8")
            if data.startswith(b"\xef\xbb\xbf"):
                data, facts.encoding = data[3:], "utf-8"
        first = line
        line += _line_count(data)  # of the first line behind the data from here on
        if layout is None:
            layout, used, used_lines = _find_header(data, first, hint, facts, preamble)
            if layout is None:
                continue
            facts.layouts.append(layout)
            needle = _needle(data[:used], layout)
            data, first = data[used:], first + used_lines
        data, lost = _decoded(data, first, facts)
        lost = (*preamble, *lost)
        preamble.clear()
        while True:
            at = _next_header(data, needle, hint)
            if at is None:
                if data or lost:
                    yield Block(data, first, line - first, layout, starts, lost)
                    starts = False
                break
            begin, end, found = at
            after = first + _line_count(data[:begin])
            if begin or lost:
                above = tuple(x for x in lost if x[0] < after)
                yield Block(data[:begin], first, after - first, layout, starts, above)
            lost = tuple(x for x in lost if x[0] > after)
            data, first, starts = data[end:], after + 1, True
            if [n.strip() for n in found.names] != [n.strip() for n in layout.names]:
                layout = found
                facts.layouts.append(layout)
    if layout is None:
        raise _no_header(preamble)


def _whole_lines(stream: MemberStream, limits: IntakeLimits) -> Iterator[bytes]:
    carried = b""
    while got := stream.read(limits.chunk_bytes):
        cut = got.rfind(b"\n") + 1
        if cut:
            yield carried + got[:cut]
            carried = got[cut:]
        else:
            carried += got
        if len(carried) > limits.max_line_bytes:
            raise IntakeProblem(f"a line longer than {limits.max_line_bytes} bytes: not a table of text")
    if carried:
        yield carried


def _line_count(data: bytes) -> int:
    return data.count(b"\n") + (1 if data and not data.endswith(b"\n") else 0)


def _find_header(
    data: bytes, first: int, hint: str, facts: TextFacts, preamble: list[tuple[int, bytes, str]]
) -> tuple[Layout | None, int, int]:
    """The header in these lines, the bytes and lines up to and with it. Lines above it are kept as rejects."""
    used = 0
    for number, raw in enumerate(io.BytesIO(data), start=first):
        if number > HEADER_WITHIN_LINES:
            break
        used += len(raw)
        if not raw.strip():
            continue
        text = _header_text(raw, facts, required=b"device" in raw.lower() or number == 1)
        layout = _header(text, hint)
        if layout is not None:
            return layout, used, number - first + 1
        if not _DASHES.match(raw.strip()):
            preamble.append((number, raw, "stands above the header"))
    if first + _line_count(data) > HEADER_WITHIN_LINES:
        raise _no_header(preamble)
    return None, used, 0


def _no_header(preamble: list[tuple[int, bytes, str]]) -> IntakeProblem:
    shown = preamble[0][1][:80].decode("utf-8", "replace").strip() if preamble else ""
    return IntakeProblem(
        "no usable header: it takes device_no and time (or msg_time), and columns that are BMS or GPS; "
        f"the member begins with {shown!r}"
    )


def _header_text(raw: bytes, facts: TextFacts, *, required: bool) -> str:
    for encoding in ("utf-8", "cp949"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not raw.isascii() and facts.encoding is None:
            facts.encoding = encoding
        return text
    if required:
        raise IntakeProblem("mixed encodings: the header is neither UTF-8 nor CP949; export it as UTF-8")
    return ""


def _needle(header: bytes, layout: Layout) -> bytes:
    """The delivered spelling of device_no: a later line that holds it may be a header."""
    return layout.names[layout.sources["device_no"][0]].strip().strip("\ufeff\"'").encode()


def _next_header(data: bytes, needle: bytes, hint: str) -> tuple[int, int, Layout] | None:
    at = data.find(needle)
    while at >= 0:
        begin = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at) + 1 or len(data)
        layout = _header(data[begin:end].decode("utf-8", "replace"), hint)
        if layout is not None:
            return begin, end, layout
        at = data.find(needle, end)
    return None


def _decoded(data: bytes, first: int, facts: TextFacts) -> tuple[bytes, tuple[tuple[int, bytes, str], ...]]:
    """UTF-8 text of the lines; the first line that is not ASCII decides the member's encoding."""
    if data.isascii():
        return data, ()
    if facts.encoding in (None, "utf-8"):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            facts.encoding = "utf-8"
            return data, ()
    if facts.encoding == "cp949":
        try:
            return data.decode("cp949").encode(), ()
        except UnicodeDecodeError:
            pass
    lines, lost = data.split(b"\n"), []
    for index, raw in enumerate(lines):
        if raw.isascii():
            continue
        for encoding in (facts.encoding,) if facts.encoding else ("utf-8", "cp949"):
            try:
                lines[index] = raw.decode(encoding).encode()
            except UnicodeDecodeError:
                continue
            facts.encoding = encoding
            break
        else:
            spelled = {"utf-8": "UTF-8", "cp949": "CP949", None: "UTF-8 or CP949"}[facts.encoding]
            lost.append((first + index, raw, f"mixed encodings: this line is not {spelled}"))
            lines[index] = b"\r" if raw.endswith(b"\r") else b""
            facts.undecodable += 1
    return b"\n".join(lines), tuple(lost)


# -- parsing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MonthRange:
    """Months that are accepted, both ends included."""

    earliest: str
    latest: str

    def reason(self, month: int) -> str | None:
        """Why a month (months since year 0) is not accepted."""
        name = _month_name(month)
        if name < self.earliest:
            return f"time: month {name} is before {self.earliest}, the first month accepted"
        return f"time: month {name} is in the future" if name > self.latest else None


@dataclass
class Rejects:
    """Rejected rows of one chunk, in row order; device and month are None where the row does not say them."""

    rows: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    devices: list[str | None] = field(default_factory=list)
    months: list[str | None] = field(default_factory=list)
    is_month_certain: list[bool] = field(default_factory=list)
    """Whether the row's own time says the month (else only its measured_month column does)."""


@dataclass(frozen=True)
class ParsedRows:
    """Typed rows of one chunk in the member's order, and what was rejected.

    ``table`` has the columns of ``lake_schema`` (or MASTER_SCHEMA); ``device_codes`` and ``months`` (months since
    year 0) name each row's partition. ``footers``: (claimed rows, rows of this chunk above it).
    """

    layout: Layout
    starts_table: bool
    table: Any
    device_codes: npt.NDArray[np.int32]
    devices: list[str]
    months: I64
    rejects: Rejects
    footers: tuple[tuple[int, int], ...] = ()

    @property
    def rows_read(self) -> int:
        """Data rows: kept and rejected, decoration left out."""
        return int(self.table.num_rows) + len(self.rejects.rows)


def parse_block(block: Block, source_file: str, accepted: MonthRange) -> ParsedRows:
    """Type the rows of a text block."""
    data, lost = block.data, {line: (raw, why) for line, raw, why in block.lost}
    columns, count, skipped = _read_csv(data, block.layout)
    if count + len(skipped) != block.lines:  # a quote or a carriage return runs over line ends
        data, unquoted = _one_line_one_row(data, block.layout)
        lost.update({block.first_line + at: (raw, why) for at, raw, why in unquoted})
        columns, count, skipped = _read_csv(data, block.layout)
        if count + len(skipped) != block.lines:
            raise IntakeProblem(f"quotes out of step after line {block.first_line}: export it again")
    lines = np.arange(block.first_line, block.first_line + count + len(skipped), dtype=np.int64)
    if skipped:
        lines = np.delete(lines, [at - 1 for at, _ in skipped])
    typed = _type_rows(block.layout, columns, count, accepted)
    rejects, footers = Rejects(), []
    dropped: list[int] = []
    if typed.reasons or skipped or lost:
        raw_lines = _RawLines(data, block.first_line)
        width = len(block.layout.names)
        found: list[tuple[int, int | None, str]] = [(int(lines[at]), at, why) for at, why in typed.reasons.items()]
        found += [(block.first_line + at - 1, None, f"{n} columns instead of {width}") for at, n in skipped]
        found += [(line, None, why) for line, (_, why) in lost.items() if line < block.first_line]
        for line, at, why in sorted(found, key=lambda x: x[0]):
            text, reason = raw_lines[line], why
            if line in lost:
                raw, reason = lost[line]
                text = raw.decode("utf-8", "replace")
            elif (decoration := _decoration(text, block.layout)) is not None:
                if decoration >= 0:
                    footers.append((decoration, line))
                dropped.append(line)
                continue
            rejects.rows.append(line)
            rejects.reasons.append(reason)
            rejects.texts.append(text.strip()[:TEXT_KEPT])
            device, month, is_certain = (None, None, False) if at is None else typed.partition_of(at)
            rejects.devices.append(device)
            rejects.months.append(month)
            rejects.is_month_certain.append(is_certain)
    above = [(n, line - block.first_line - sum(d < line for d in dropped)) for n, line in footers]
    return _finished(block.layout, block.starts_table, typed, lines, source_file, rejects, tuple(above))


class _RawLines:
    """Text of single lines of a block; the line ends are found once."""

    def __init__(self, data: bytes, first_line: int) -> None:
        self._data, self._first = data, first_line
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        self._starts = np.concatenate(([0], ends + 1))
        self._ends = np.concatenate((ends, [len(data)]))

    def __getitem__(self, line: int) -> str:
        at = line - self._first
        if at < 0:
            return ""
        return self._data[self._starts[at] : self._ends[at]].decode("utf-8", "replace")


def _decoration(text: str, layout: Layout) -> int | None:
    """None for a row; -1 for blank lines, dashes, repeated headers and COPY's end mark; the count of a footer."""
    stripped = text.strip().strip("\ufeff")
    if not stripped or stripped == "\\." or _DASHES.match(stripped.encode()):
        return -1
    footer = _FOOTER.match(stripped)
    if footer is not None:
        return int(footer[1])
    if "device" not in stripped.lower():
        return None
    if layout.is_quoted:
        try:
            names = next(csv.reader([stripped], delimiter=layout.delimiter))
        except csv.Error:
            return None
    else:
        names = stripped.split(layout.delimiter)
    return -1 if [normalised(n) for n in names] == [normalised(n) for n in layout.names] else None


def _column_types(layout: Layout) -> dict[int, Any]:
    text, coded = pa.string(), pa.dictionary(pa.int32(), pa.string())
    types: dict[int, Any] = {}
    for column, sources in layout.sources.items():
        kind = layout.columns.get(column)
        for at in sources:
            if kind in (ColumnKind.TIME, ColumnKind.CELLS, ColumnKind.TEMPS) or at in layout.loose:
                types[at] = text
            elif kind in (ColumnKind.NUMBER, ColumnKind.INTEGER):
                types[at] = pa.float64()
            else:
                types[at] = coded
    for positions in layout.numbered.values():
        types.update({at: text if at in layout.loose else pa.float64() for _, at in positions})
    return types


_CONVERSION = re.compile(r"In CSV column #(\d+)")


def _read_csv(data: bytes, layout: Layout) -> tuple[dict[int, Any], int, list[tuple[int, int]]]:
    """Columns by delivered index, rows, and (1-based line, columns found) of lines with another number of columns."""
    skipped: list[tuple[int, int]] = []
    if not data:
        return {}, 0, skipped

    def skip(row: Any) -> str:
        skipped.append((row.number, row.actual_columns))
        return "skip"

    names = [str(at) for at in range(len(layout.names))]
    parse = pa_csv.ParseOptions(
        delimiter=layout.delimiter,
        quote_char='"' if layout.is_quoted else False,
        ignore_empty_lines=False,
        invalid_row_handler=skip,
    )
    read = pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1)
    for attempt in range(len(names) + 2):
        skipped.clear()
        types = _column_types(layout)
        if attempt > 3:  # several bad columns in one block: read the whole block as text
            types = {at: pa.string() if pa.types.is_floating(t) else t for at, t in types.items()}
        convert = pa_csv.ConvertOptions(
            column_types={str(at): t for at, t in types.items()},
            include_columns=[str(at) for at in types],
            null_values=_NULL_SPELLINGS,
            strings_can_be_null=True,
            check_utf8=False,  # blocks are UTF-8 already
        )
        try:
            table = pa_csv.read_csv(pa.BufferReader(data), read, parse, convert)
        except pa.ArrowInvalid as fault:
            column = _CONVERSION.search(str(fault))
            if column is None or attempt > len(names):
                raise IntakeProblem(f"not a table of text ({fault})") from fault
            layout.loose.add(int(column[1]))
            continue
        columns = {at: _whole(table.column(str(at))) for at in types}
        odd = [at for at, c in columns.items() if pa.types.is_floating(c.type) and not _is_finite(c)]
        if not odd:
            return columns, table.num_rows, skipped
        layout.loose.update(odd)  # "inf" reads as a number; as text it is refused
    raise IntakeProblem("not a table of text")


def _is_finite(column: Any) -> bool:
    return bool(pc.all(pc.is_finite(column), min_count=0).as_py() is not False)


def _whole(column: Any) -> Any:
    """One array from a chunked one, its dictionary unified."""
    if column.num_chunks == 1:
        return column.chunk(0)
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole


def _one_line_one_row(data: bytes, layout: Layout) -> tuple[bytes, list[tuple[int, bytes, str]]]:
    """Blank the lines whose quotes do not close, and carriage returns inside a line."""
    lines, lost = data.split(b"\n"), []
    for index, raw in enumerate(lines):
        if b"\r" in raw.rstrip(b"\r"):
            lines[index] = raw = raw.rstrip(b"\r").replace(b"\r", b" ")
        if not layout.is_quoted or b'"' not in raw:
            continue
        try:
            rows = list(csv.reader([raw.decode()], delimiter=layout.delimiter, strict=True))
        except csv.Error as fault:
            lost.append((index, raw, f"quotes do not close ({fault})"))
            lines[index] = b""
            continue
        if len(rows[0]) == len(layout.names):  # spell it so that no reader can differ
            text = io.StringIO()
            csv.writer(text, delimiter=layout.delimiter, lineterminator="").writerow(rows[0])
            lines[index] = text.getvalue().encode()
    return b"\n".join(lines), lost


# -- typing ---------------------------------------------------------------------------------------------------------


@dataclass
class _Typed:
    """Columns of all rows of a chunk, the reasons against some, and what each row says about its partition."""

    columns: dict[str, Any]
    count: int
    reasons: dict[int, str]
    device_codes: npt.NDArray[np.int32]
    devices: list[str]
    months: I64
    is_month_known: Mask
    delivered_month: Any
    accepted: MonthRange

    def partition_of(self, row: int) -> tuple[str | None, str | None, bool]:
        """Device and month of a rejected row, and whether its own time says the month."""
        code = int(self.device_codes[row])
        device = self.devices[code] if code >= 0 else None
        if self.is_month_known[row]:
            month = int(self.months[row])
            return device, (_month_name(month) if self.accepted.reason(month) is None else None), True
        if self.delivered_month is not None:
            text = str(self.delivered_month[row].as_py() or "").strip()
            if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) and self.accepted.earliest <= text <= self.accepted.latest:
                return device, text, False
        return device, None, False


class _Reasons:
    """Why rows of a chunk are rejected; the first thing said against a row stands."""

    def __init__(self, count: int) -> None:
        self.of_row: dict[int, str] = {}
        self.refused = np.zeros(count, np.bool_)

    def new(self, bad: Any) -> list[int]:
        """Rows of a mask that nothing has been said against; they count as refused from now on."""
        fresh = bad & ~self.refused
        self.refused |= fresh
        return [int(row) for row in np.flatnonzero(fresh)]

    def add(self, bad: Any, reason: str) -> None:
        """One reason for all rows of a mask."""
        self.of_row.update(dict.fromkeys(self.new(bad), reason))

    def add_one(self, row: int, reason: str) -> None:
        if not self.refused[row]:
            self.refused[row] = True
            self.of_row[row] = reason


@dataclass(frozen=True)
class _Column:
    """A typed array, rows that did not read (None: all did), and the text to show for them."""

    values: Any
    bad: Mask | None = None
    shown: Any = None

    def refuse(self, name: str, what: str, reasons: _Reasons) -> None:
        if self.bad is None:
            return
        rows = reasons.new(self.bad)
        for row, value in zip(rows, self.shown.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
            reasons.of_row[row] = f"{name}: {str(value).strip()[:60]!r} is not {what}"


def _type_rows(layout: Layout, columns: dict[int, Any], count: int, accepted: MonthRange) -> _Typed:
    """Typed columns and reasons; IntakeProblem where a column is of a type that cannot hold such values."""
    try:
        return _typed_columns(layout, columns, count, accepted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as fault:
        raise IntakeProblem(f"values of an unexpected type ({fault})") from fault


def _typed_columns(layout: Layout, columns: dict[int, Any], count: int, accepted: MonthRange) -> _Typed:
    reasons = _Reasons(count)
    delivered_month = None
    codes, devices = _devices(columns, layout, count, reasons)
    if layout.kind is None:
        car_type = _merged(
            [_text(columns[at]) for at in layout.sources["car_type"] if at in columns], count, pa.string()
        )
        zeros = np.zeros(count, np.int64)
        return _Typed({"car_type": car_type}, count, reasons.of_row, codes, devices, zeros, zeros > 0, None, accepted)
    times = {}
    for name in ("time", "msg_time"):
        found = [_time(columns[at]) for at in layout.sources.get(name, ()) if at in columns]
        for column in found:
            column.refuse(name, "a date", reasons)
        times[name] = _merged(found, count, pa.timestamp("us"))
    if "time" not in layout.sources or times["time"].null_count:
        times["time"] = pc.coalesce(times["time"], times["msg_time"])
    months = np.zeros(count, np.int64)
    known = np.asarray(times["time"].is_valid())
    if count:
        stamps = pc.fill_null(times["time"].cast(pa.int64()), 0).to_numpy().view("M8[us]")
        months = stamps.astype("M8[M]").astype(np.int64) + 1970 * 12
    reasons.add(~known, "time: no value")
    for month in np.unique(months[known]).tolist() if count else ():
        why = accepted.reason(month)
        if why is not None:
            reasons.add(known & (months == month), why)
    typed: dict[str, Any] = {**times}
    lists: dict[str, cells.NumberLists] = {}
    for name, kind in layout.columns.items():
        arrays = [columns[at] for at in layout.sources.get(name, ()) if at in columns]
        if kind in (ColumnKind.CELLS, ColumnKind.TEMPS):
            lists[name] = _lists(name, kind, arrays, layout, columns, count, reasons)
        elif kind is not ColumnKind.TIME:
            convert, what, arrow = _CONVERTERS[kind]
            found = [convert(a) for a in arrays]
            for column in found:
                column.refuse(name, what, reasons)
            typed[name] = _merged(found, count, arrow)
    if layout.kind is TableKind.BMS:
        pack_volt = typed["pack_volt"].to_numpy(zero_copy_only=False)
        typed.update(cells.cell_columns(lists[CELL_COLUMN], pack_volt))
        typed.update(cells.temp_columns(lists[MODULE_TEMP_COLUMN]))
    if reasons.of_row and "measured_month" in layout.sources:
        delivered_month = columns.get(layout.sources["measured_month"][0])
    return _Typed(typed, count, reasons.of_row, codes, devices, months, known, delivered_month, accepted)


def _lists(
    name: str,
    kind: ColumnKind,
    arrays: list[Any],
    layout: Layout,
    columns: dict[int, Any],
    count: int,
    reasons: _Reasons,
) -> cells.NumberLists:
    """The list column, and where it is empty the numbered columns."""
    is_cells = kind is ColumnKind.CELLS
    scale = cells.CELL_SCALE if is_cells else cells.TEMP_SCALE
    sentinel = cells.CELL_SENTINEL_MV if is_cells else None
    found = []
    for array in arrays:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
        if is_list or pa.types.is_fixed_size_list(array.type):
            found.append(cells.lists_from_arrow(array, scale, sentinel))
        else:
            found.append(cells.lists_from_text(array.cast(pa.string()), scale, sentinel))
    numbered = [(position, _number(columns[at])) for position, at in layout.numbered.get(name, ()) if at in columns]
    if numbered:
        matrix = np.full((count, numbered[-1][0]), np.nan)
        for position, column in numbered:
            column.refuse(f"{name} {position}", "a number", reasons)
            matrix[:, position - 1] = column.values.to_numpy(zero_copy_only=False)
        found.append(cells.lists_from_matrix(matrix, scale, sentinel))
    if not found:
        return cells.lists_from_text(pa.nulls(count, pa.string()), scale, sentinel)
    lists = found[0]
    for other in found[1:]:
        lists = cells.first_non_empty(lists, other)
    for row, token in lists.bad.items():
        reasons.add_one(row, f"{name}: {token.strip()[:60]!r} is not a number")
    return lists


def _merged(found: list[_Column], count: int, arrow: Any) -> Any:
    """The first value of each row; NULL where no column has one."""
    if not found:
        return pa.nulls(count, arrow)
    values = found[0].values
    for column in found[1:]:
        values = pc.coalesce(values, column.values)
    return values


def _devices(
    columns: dict[int, Any], layout: Layout, count: int, reasons: _Reasons
) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Code of each row's device (-1: none) and the devices. A number with a lost zero is not guessed back."""
    at = layout.sources["device_no"][0]
    if at not in columns:
        return np.full(count, -1, np.int32), []
    column = columns[at]
    coded = column if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()
    spelled = [str(s).strip() for s in coded.dictionary.cast(pa.string()).to_pylist()]
    devices = sorted({s for s in spelled if _DEVICE.match(s)})
    place = {device: code for code, device in enumerate(devices)}
    lut = np.array([*(place.get(s, -1) for s in spelled), -1], np.int32)
    index = pc.fill_null(coded.indices, len(spelled)).to_numpy(zero_copy_only=False)
    codes = lut[index]
    for row in reasons.new(codes < 0):
        text = spelled[index[row]] if index[row] < len(spelled) else ""
        is_null = text.lower() in cells.NULL_TOKENS
        reasons.of_row[row] = "device_no: no value" if is_null else f"device_no: {text[:60]!r} is not 11 digits"
    return codes, devices


def _bad_of(wrong: Any) -> Mask | None:
    mask = np.asarray(pc.fill_null(wrong, False))
    return mask if mask.any() else None


def _is_text(array: Any) -> bool:
    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type))


def _null_tokens(trimmed: Any) -> Any:
    tokens = pa.array(sorted(cells.NULL_TOKENS), trimmed.type)
    return pc.or_(trimmed.is_null(), pc.is_in(pc.utf8_lower(trimmed), value_set=tokens))


def _number(array: Any) -> _Column:
    """float64; NaN is no value, infinity is no number."""
    if pa.types.is_null(array.type) or array.null_count == len(array):
        return _Column(pa.nulls(len(array), pa.float64()))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_text(array):
        trimmed = pc.utf8_trim_whitespace(array)
        null = _null_tokens(trimmed)
        good = pc.fill_null(pc.match_substring_regex(trimmed, cells.NUMBER_PATTERN), False)
        digits = pc.utf8_ltrim(pc.if_else(good, trimmed, "0"), characters="+")
        values = pc.if_else(good, digits.cast(pa.float64()), None)
        wrong = pc.or_(pc.invert(pc.or_(good, null)), pc.fill_null(pc.is_inf(values), False))
        return _Column(values, _bad_of(wrong), array)
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type) or pa.types.is_decimal(array.type):
        values = array.cast(pa.float64(), safe=False)
    elif pa.types.is_boolean(array.type):
        values = array.cast(pa.int8()).cast(pa.float64())
    else:
        return _Column(pa.nulls(len(array), pa.float64()), np.asarray(array.is_valid()), array)
    if not _is_finite(values):
        values = pc.if_else(pc.is_nan(values), None, values)
        return _Column(values, _bad_of(pc.is_inf(values)), array)
    return _Column(values)


_EXACT_TO = float(1 << 53)


def _integer(array: Any) -> _Column:
    """int64 by way of float64, which holds every whole number up to 2^53."""
    column = _number(array)
    values = column.values
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), _EXACT_TO))
    odd = _bad_of(pc.invert(whole))
    if odd is not None:
        values = pc.if_else(pa.array(odd), None, values)
    bad = column.bad if odd is None else odd if column.bad is None else odd | column.bad
    return _Column(values.cast(pa.int64()), bad, column.shown if column.shown is not None else array)


def _flag(array: Any) -> _Column:
    if pa.types.is_boolean(array.type):
        return _Column(array)
    if pa.types.is_null(array.type) or array.null_count == len(array):
        return _Column(pa.nulls(len(array), pa.bool_()))
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    coded = array if pa.types.is_dictionary(array.type) else array.cast(pa.string()).dictionary_encode()
    spelled = [str(s).strip().lower() for s in coded.dictionary.cast(pa.string()).to_pylist()]
    meaning = pa.array([True if s in _TRUE else False if s in _FALSE else None for s in spelled], pa.bool_())
    wrong = [s not in _TRUE | _FALSE | cells.NULL_TOKENS for s in spelled]
    bad = _bad_of(pc.take(pa.array(wrong, pa.bool_()), coded.indices)) if any(wrong) else None
    return _Column(pc.take(meaning, coded.indices), bad, coded)


def _text(array: Any) -> _Column:
    if pa.types.is_null(array.type) or array.null_count == len(array):
        return _Column(pa.nulls(len(array), pa.string()))
    coded = array if pa.types.is_dictionary(array.type) else array.cast(pa.string()).dictionary_encode()
    trimmed = pc.utf8_trim_whitespace(coded.dictionary.cast(pa.string()))
    cleaned = pc.if_else(_null_tokens(trimmed), None, trimmed)
    return _Column(pc.take(cleaned, coded.indices))


_KST_OFFSET: Final = timedelta(hours=9)
"""Korea has no daylight saving time."""

_CONVERTERS: Final[dict[ColumnKind, tuple[Any, str, Any]]] = {
    ColumnKind.NUMBER: (_number, "a number", pa.float64()),
    ColumnKind.INTEGER: (_integer, "a whole number", pa.int64()),
    ColumnKind.FLAG: (_flag, "a flag", pa.bool_()),
    ColumnKind.TEXT: (_text, "text", pa.string()),
}


def _time(array: Any) -> _Column:
    if pa.types.is_null(array.type) or array.null_count == len(array):
        return _Column(pa.nulls(len(array), pa.timestamp("us")))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_timestamp(array.type):
        if array.type.tz is not None:
            utc = array.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.timestamp("us"))
            array = pc.add(utc, pa.scalar(_KST_OFFSET))
        return _Column(array.cast(pa.timestamp("us"), safe=False))
    if not _is_text(array):
        return _Column(pa.nulls(len(array), pa.timestamp("us")), np.asarray(array.is_valid()), array)
    return times_from_text(array)


_ZONE = re.compile(rb"^\+09(:?00)?$")
_LONGEST_TIME = 40


def times_from_text(array: Any) -> _Column:
    """Naive KST times from ``yy-mm-dd HH:MM:SS`` and ``yyyy-mm-dd HH:MM:SS``, mixed as they come.

    ``/`` or ``.`` between date parts, ``T``, a fraction of a second and the zone ``+09`` are understood; any other zone
    is not guessed. Rows of one spelling length are read together as a matrix of digits.
    """
    trimmed = pc.utf8_trim_whitespace(array)
    if pa.types.is_large_string(trimmed.type):
        trimmed = trimmed.cast(pa.string())
    count = len(trimmed)
    offsets = np.frombuffer(trimmed.buffers()[1], np.int32)[trimmed.offset : trimmed.offset + count + 1].astype(
        np.int64
    )
    text = np.zeros(int(offsets[-1]) + _LONGEST_TIME, np.uint8)
    text[: int(offsets[-1])] = np.frombuffer(trimmed.buffers()[2], np.uint8)[: int(offsets[-1])]
    starts, lengths = offsets[:-1], np.diff(offsets)
    null = np.asarray(_null_tokens(trimmed))
    stamps = np.zeros(count, np.int64)
    good = np.zeros(count, np.bool_)
    is_short_year = ~_is_digit(text[starts + 2])
    for is_short, length in (
        {*zip(is_short_year[~null].tolist(), lengths[~null].tolist(), strict=True)} if count else ()
    ):
        if not (17 if is_short else 19) <= length <= _LONGEST_TIME:
            continue
        rows = np.flatnonzero((lengths == length) & (is_short_year == is_short) & ~null)
        stamps[rows], good[rows] = _times_of_length(text[starts[rows, None] + np.arange(length)], is_short=is_short)
    bad = ~good & ~null
    return _Column(pa.array(stamps, mask=~good).cast(pa.timestamp("us")), bad if bad.any() else None, array)


def _is_digit(text: Any) -> Any:
    return (text >= ord("0")) & (text <= ord("9"))


def _times_of_length(text: Any, *, is_short: bool) -> tuple[I64, Mask]:
    """Microseconds since 1970 and validity. ``text``: (rows, bytes), all with the same year width."""
    first = 2 if is_short else 4
    digits_at = [*range(first), *(first + k for k in (1, 2, 4, 5, 7, 8, 10, 11, 13, 14))]
    good = _is_digit(text[:, digits_at]).all(axis=1)
    for at, allowed in ((0, "-/."), (3, "-/."), (6, " T"), (9, ":"), (12, ":")):
        good &= np.isin(text[:, first + at], [ord(c) for c in allowed])
    number = text.astype(np.int64) - ord("0")

    def two(at: int) -> I64:
        found: I64 = number[:, at] * 10 + number[:, at + 1]
        return found

    year = 2000 + two(0) if is_short else two(0) * 100 + two(2)
    month, day, hour, minute, second = (two(first + at) for at in (1, 4, 7, 10, 13))
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (hour <= 23) & (minute <= 59) & (second <= 59)
    month = np.clip(month, 1, 12)
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[month] + (is_leap & (month == 2))
    good &= (day >= 1) & (day <= last)
    micros = np.zeros(len(text), np.int64)
    rest = text[:, first + 15 :]
    if rest.shape[1]:
        fraction, ok = _fractions(rest)
        micros, good = micros + fraction, good & ok
    year_start = ((year - 1970) * 12 + month - 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    days = year_start + day - 1
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros, good


def _fractions(rest: Any) -> tuple[I64, Mask]:
    """Microseconds behind the seconds, ``.123456`` and ``+09``; few distinct endings, so one by one."""
    raw = np.ascontiguousarray(rest).view(f"S{rest.shape[1]}").reshape(-1)
    endings, index = np.unique(raw, return_inverse=True)
    micros, good = np.zeros(len(endings), np.int64), np.zeros(len(endings), np.bool_)
    for at, ending in enumerate(endings.tolist()):
        match = re.match(rb"^(?:[.,](\d{1,9}))?(\+09(?::?00)?)?$", ending)
        if match is not None:
            good[at] = True
            micros[at] = int((match[1] or b"0")[:6].ljust(6, b"0"))
    return micros[index], good[index]


def _month_name(month: int) -> str:
    return f"{month // 12:04d}-{month % 12 + 1:02d}"


def _finished(
    layout: Layout,
    starts_table: bool,
    typed: _Typed,
    rows: I64,
    source_file: str,
    rejects: Rejects,
    footers: tuple[tuple[int, int], ...],
) -> ParsedRows:
    """The rows that no reason speaks against, in the lake's columns."""
    codes, months = typed.device_codes, typed.months
    arrays = dict(typed.columns)
    if layout.kind is None:
        devices = pa.array(typed.devices, pa.string())
        arrays["device_no"] = pc.take(devices, pa.array(codes, mask=codes < 0))
        arrays["source_file"] = pa.repeat(pa.scalar(source_file), typed.count)
        arrays["source_row"] = pa.array(rows)
        schema = MASTER_SCHEMA
    else:
        schema = lake_schema(layout.kind)
        arrays["layout_id"] = _constant(layout.layout_id, typed.count)
        arrays["source_file"] = _constant(source_file, typed.count)
        arrays["source_row"] = pa.array(rows)
        arrays["device_no"] = pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=codes < 0), pa.array(typed.devices, pa.string())
        )
        distinct, index = np.unique(months, return_inverse=True)
        names = [_month_name(int(m)) for m in distinct]
        arrays["measured_month"] = pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(names))
    table = pa.Table.from_arrays([arrays[f.name] for f in schema], schema=schema)
    if typed.reasons:
        good = np.ones(typed.count, np.bool_)
        good[list(typed.reasons)] = False
        table, codes, months = table.filter(pa.array(good)), codes[good], months[good]
    return ParsedRows(layout, starts_table, table, codes, typed.devices, months, rejects, footers)


def _constant(text: str, count: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))


# -- Parquet --------------------------------------------------------------------------------------------------------


def parquet_batches(
    handle: IO[bytes], hint: str, meter: ByteMeter, rows_per_batch: int = 20_000
) -> Iterator[tuple[Layout, int, Any]]:
    """(layout, 1-based number of the first row, record batch) of a Parquet member, unpacked bytes counted."""
    try:
        file = pq.ParquetFile(handle)
        names = file.schema_arrow.names
    except (pa.ArrowException, pa.ArrowInvalid) as fault:
        raise IntakeProblem(f"unreadable Parquet ({fault}); write it again") from fault
    layout = Layout.of(names, "parquet", "", False, hint)
    if layout is None:
        raise IntakeProblem(
            "no usable columns: it takes device_no and time (or msg_time), and BMS or GPS columns; "
            f"the file has {', '.join(names[:8])}"
        )
    wanted = sorted({at for where in layout.sources.values() for at in where})
    wanted += sorted({at for where in layout.numbered.values() for _, at in where})
    first = 1
    batches = file.iter_batches(rows_per_batch, columns=[names[at] for at in wanted], use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, pa.ArrowInvalid) as fault:
            raise IntakeProblem(f"unreadable Parquet ({fault}); write it again") from fault
        except OSError as fault:
            if fault.errno is not None:
                raise
            raise IntakeProblem(f"unreadable Parquet ({fault}); write it again") from fault
        if batch is None:
            if first == 1:
                yield layout, 1, None
            return
        meter.take(batch.nbytes)
        yield layout, first, batch
        first += batch.num_rows


def parse_batch(layout: Layout, first: int, batch: Any, source_file: str, accepted: MonthRange) -> ParsedRows:
    """Type the rows of a Parquet batch."""
    count = 0 if batch is None else batch.num_rows
    columns: dict[int, Any] = {}
    if batch is not None:
        position = {name: at for at, name in enumerate(layout.names)}
        for name in batch.schema.names:
            columns[position[name]] = batch.column(name)
    typed = _type_rows(layout, columns, count, accepted)
    rejects = Rejects()
    for at in sorted(typed.reasons):
        row = {name: value for name, value in batch.slice(at, 1).to_pylist()[0].items() if value is not None}
        device, month, is_certain = typed.partition_of(at)
        rejects.rows.append(first + at)
        rejects.reasons.append(typed.reasons[at])
        rejects.texts.append("|".join(f"{name}={value}" for name, value in row.items())[:TEXT_KEPT])
        rejects.devices.append(device)
        rejects.months.append(month)
        rejects.is_month_certain.append(is_certain)
    rows = np.arange(first, first + count, dtype=np.int64)
    return _finished(layout, first == 1, typed, rows, source_file, rejects, ())
