"""The ledger of outcomes: what workshops report, an append-only input like the landing.

CSV files in ``outcomes/`` of ``BAAS_HOME``, written by ``baas outcome add``, by hand, or by a workshop's system.
Columns device_no (11 digits), inspected_on (YYYY-MM-DD), finding (confirmed, replaced, repaired, no_fault,
inconclusive), and optionally code, cell_no, note, in any order; UTF-8 or CP949; comma, semicolon or tab.

Belongs here: reading and writing these files, and fingerprints of what they say. Does not belong here: what follows
from an outcome (``anomaly.outcomes``).

File names, their number, the order of lines and repetitions decide nothing: an outcome is its content. A line that
cannot be used is kept aside with file, line number and reason; the rest goes on.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from baas_dagster.anomaly.codes import CODES
from baas_dagster.anomaly.outcomes import OUTCOME_SCHEMA, Finding
from baas_dagster.durable import make_folder, put_in_place
from baas_dagster.settings import FIRST_MONTH

__all__ = [
    "COLUMNS", "LEDGER_SCHEMA", "REJECTED_SCHEMA", "BadOutcome", "Fingerprints", "Ledger", "Outcome", "add",
    "outcome_of", "read",
]  # fmt: skip

COLUMNS = ("device_no", "inspected_on", "finding", "code", "cell_no", "note")
_REQUIRED = COLUMNS[:3]

LEDGER_SCHEMA: dict[str, Any] = {**OUTCOME_SCHEMA, "source_file": pl.String, "source_row": pl.Int64}
"""One row per outcome, with the first place it stands in (by file name and line)."""

REJECTED_SCHEMA: dict[str, Any] = {
    "file_name": pl.String,
    "source_row": pl.Int64,  # line of the file, 1-based, where the entry begins; NULL: the whole file
    "reason": pl.String,
    "text": pl.String,  # first 500 characters
}
"""One row per line that cannot be used, as in the published table rejected_row."""

_SHOWN_CHARACTERS = 500
_LARGEST_CELL = 999  # no pack has more cells; a larger number is a slip
_ENTRY_LINES = 50  # a note of more lines is a quotation mark that somebody forgot
_DELIMITERS = ",;\t|"
_DEVICE = re.compile(r"[0-9]{11}")
_DAY = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})\.?")
_ALSO = {
    "notconfirmed": Finding.NO_FAULT,
    "nofaultfound": Finding.NO_FAULT,
    "확인": Finding.CONFIRMED,
    "이상확인": Finding.CONFIRMED,
    "교체": Finding.REPLACED,
    "수리": Finding.REPAIRED,
    "이상없음": Finding.NO_FAULT,
    "판단불가": Finding.INCONCLUSIVE,
}
"""Other words for findings, without blanks."""
_HEADERS = {"device": "device_no", "date": "inspected_on", "cell": "cell_no"}
"""Other names of columns: those of the command's options."""


class BadOutcome(ValueError):
    """An outcome that cannot be used; `column` names what is wrong with it."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


@dataclass(frozen=True)
class Outcome:
    """What was found in one car on one day."""

    device_no: str
    inspected_on: date
    finding: Finding
    code: str | None = None
    cell_no: int | None = None
    note: str | None = None

    @property
    def cells(self) -> list[str]:
        """As the fields of a line, in the order of COLUMNS."""
        cell = "" if self.cell_no is None else str(self.cell_no)
        return [
            self.device_no,
            self.inspected_on.isoformat(),
            str(self.finding),
            self.code or "",
            cell,
            self.note or "",
        ]

    @property
    def outcome_id(self) -> str:
        """Hash of the content: the same finding reported twice is one."""
        return _hash(self.cells)


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of what the ledger says; the same for the same outcomes however they are spread over files."""

    by_device: Mapping[str, str]  # of the outcomes of each device that has some
    everything: str  # of all outcomes and of all lines that were rejected


@dataclass(frozen=True)
class Ledger:
    """What all files say."""

    outcomes: pl.DataFrame  # LEDGER_SCHEMA, by device, day and id
    rejected: pl.DataFrame  # REJECTED_SCHEMA, by file and line

    def fingerprints(self) -> Fingerprints:
        """Fingerprints of what is made with the ledger."""
        ids: dict[str, list[str]] = {}
        for device, outcome_id in self.outcomes.select("device_no", "outcome_id").iter_rows():
            ids.setdefault(device, []).append(outcome_id)
        by_device = {device: _hash(sorted(found)) for device, found in sorted(ids.items())}
        refused = [str(value) for row in self.rejected.iter_rows() for value in row]
        return Fingerprints(by_device, _hash([*by_device, *by_device.values(), "", *refused]))


def outcome_of(fields: Mapping[str, str | None]) -> Outcome:
    """An outcome from texts by column; BadOutcome with the reason where it cannot be used."""
    texts = {name: _clean(fields.get(name)) for name in COLUMNS}
    return Outcome(
        _device(texts["device_no"]),
        _day(texts["inspected_on"]),
        _finding(texts["finding"]),
        _code(texts["code"]),
        _cell(texts["cell_no"]),
        texts["note"] or None,
    )


def _clean(text: str | None) -> str:
    """One spelling: composed Hangul, single blanks, no line breaks, no marks that make a spreadsheet keep text."""
    clean = " ".join(unicodedata.normalize("NFC", text or "").split())
    kept_as_text = re.fullmatch(r'="([^"]*)"|\'([0-9]+)', clean)
    return next(g for g in kept_as_text.groups() if g is not None) if kept_as_text else clean


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        hint = "; a spreadsheet has dropped the leading zero" if re.fullmatch(r"[1-9][0-9]{9}", text) else ""
        raise BadOutcome("device_no", f"device_no {text!r} is not 11 digits{hint}")
    return text


def _day(text: str) -> date:
    found = _DAY.fullmatch(text)
    try:
        day = date(*map(int, found.groups())) if found else None
    except ValueError:
        day = None
    if day is None:
        raise BadOutcome("inspected_on", f"inspected_on {text!r} is no date YYYY-MM-DD")
    if day < date.fromisoformat(f"{FIRST_MONTH}-01"):
        raise BadOutcome("inspected_on", f"inspected_on {text!r} is before {FIRST_MONTH}")
    return day


def _finding(text: str) -> Finding:
    squeezed = re.sub(r"[\s_-]+", "", text.lower())
    known = {finding.value.replace("_", ""): finding for finding in Finding} | _ALSO
    if squeezed not in known:
        raise BadOutcome("finding", f"finding {text!r} is none of {', '.join(Finding)}; put other words into note")
    return known[squeezed]


def _code(text: str) -> str | None:
    if text and text.upper() not in CODES:
        raise BadOutcome("code", f"code {text!r} is none of {', '.join(sorted(CODES))}")
    return text.upper() or None


def _cell(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= _LARGEST_CELL:
        raise BadOutcome("cell_no", f"cell_no {text!r} is no number of a cell or module, 1 to {_LARGEST_CELL}")
    return int(text)


def read(folder: Path) -> Ledger:
    """The ledger of all ``*.csv`` in a folder, which need not exist; hidden files are none of it.

    OSError where the disk cannot be read; a file that may not be read is rejected as a whole.
    """
    outcomes: list[tuple[Outcome, str, int]] = []
    rejected: list[tuple[str, int | None, str, str]] = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.suffix.lower() != ".csv" or path.name.startswith(".") or not path.is_file():
            continue
        try:
            content = path.read_bytes()
        except PermissionError:
            rejected.append((path.name, None, "the file may not be read", ""))
            continue
        good, bad = _parse(content)
        outcomes += [(outcome, path.name, line) for line, outcome in good]
        rejected += [(path.name, line, reason, text[:_SHOWN_CHARACTERS]) for line, reason, text in bad]
    first: dict[str, tuple[Outcome, str, int]] = {}
    for found in outcomes:
        first.setdefault(found[0].outcome_id, found)
    rows = [
        (key, o.device_no, o.inspected_on, str(o.finding), o.code, o.cell_no, o.note, name, line)
        for key, (o, name, line) in first.items()
    ]
    return Ledger(
        pl.DataFrame(rows, schema=LEDGER_SCHEMA, orient="row").sort("device_no", "inspected_on", "outcome_id"),
        pl.DataFrame(rejected, schema=REJECTED_SCHEMA, orient="row"),
    )


def _parse(content: bytes) -> tuple[list[tuple[int, Outcome]], list[tuple[int, str, str]]]:
    """Outcomes of one file with their lines, and lines with the reason why they are none."""
    good: list[tuple[int, Outcome]] = []
    bad: list[tuple[int, str, str]] = []
    lines = _lines(content)
    start, header, delimiter = _header(lines)
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        if any(line.strip() for line in lines):
            text = lines[start] if start < len(lines) else ""
            bad.append((start + 1, f"the header has no {', '.join(missing)}; the rest of the file is not read", text))
        return good, bad
    for number, fields, text in _records(lines, start + 1, delimiter):
        if fields is None:
            bad.append((number, "a quotation mark is opened and not closed, or closed too early", text))
            continue
        if not any(field.strip() for field in fields) or _names(fields) == header:
            continue  # an empty line of a spreadsheet, a header again where files were joined
        while len(fields) > len(header) and not fields[-1].strip():
            fields.pop()
        if len(fields) > len(header) and header[-1] == "note":
            fields = [*fields[: len(header) - 1], delimiter.join(fields[len(header) - 1 :])]  # delimiters in a note
        if len(fields) > len(header):
            bad.append((number, f"{len(fields)} fields, the header has {len(header)}", text))
            continue
        try:
            good.append((number, outcome_of(dict(zip(header, fields, strict=False)))))
        except BadOutcome as problem:
            bad.append((number, str(problem), text))
    return good, bad


def _lines(content: bytes) -> list[str]:
    """Lines of a file, each by itself UTF-8 or CP949: an editor may have saved what another one began."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # "Unicode text" of spreadsheets
        content = content.decode("utf-16", "replace").encode()
    return [_text(line) for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]


def _text(line: bytes) -> str:
    for encoding in ("utf-8", "cp949"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    return line.decode("utf-8", "replace")


def _names(fields: Iterable[str]) -> list[str]:
    names = [re.sub(r"\s+", "_", field.strip().lower()) for field in fields]
    return [_HEADERS.get(name, name) for name in names]


def _header(lines: list[str]) -> tuple[int, list[str], str]:
    """Index of the header, its names, and the delimiter that makes most columns of it known."""
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.lower().startswith("sep=")), 0)
    if not lines:
        return start, [], ","
    candidates = [(_names(next(csv.reader([lines[start]], delimiter=d), [])), d) for d in _DELIMITERS]
    names, delimiter = max(candidates, key=lambda c: len(set(c[0]).intersection(COLUMNS)))
    while len(names) > 1 and not names[-1]:
        names.pop()
    return start, names, delimiter


def _records(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | None, str]]:
    """(line number, fields or None where the quotes do not add up, text) of every entry after the header."""
    begins = re.compile(rf"\s*\"?[0-9]{{11}}\"?\s*{re.escape(delimiter)}")
    at = start
    while at < len(lines):
        last = next((i for i in range(at + 1, len(lines)) if begins.match(lines[i])), len(lines))
        end, fields = at + 1, None
        # a quoted note may go over several lines; a quote that is never closed spoils its own line alone
        for end in range(at + 1, min(last, at + _ENTRY_LINES) + 1):
            fields = _fields("\n".join(lines[at:end]), delimiter)
            if fields is not None:
                break
        yield at + 1, fields, lines[at]
        at = at + 1 if fields is None else end


def _fields(text: str, delimiter: str) -> list[str] | None:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else [] if not rows else None


def add(folder: Path, outcome: Outcome) -> Path | None:
    """Append a line to ``outcomes-<year>.csv``; the file it went to, None where the ledger says so already.

    After a crash the line is there whole or not at all; who writes at the same time waits. A file of that name that
    somebody has changed so that the line could not be read back is left alone: the line goes to
    ``outcomes-<year>-2.csv`` and so on. OSError where the disk cannot take it.
    """
    make_folder(folder)
    with _alone(folder):
        if outcome.outcome_id in read(folder).outcomes["outcome_id"]:
            return None
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            path = (folder / f"outcomes-{outcome.inspected_on:%Y}{suffix}.csv").resolve()
            before = path.read_bytes() if path.exists() else b""
            content = _appended(before, outcome)
            if outcome.outcome_id in {found.outcome_id for _, found in _parse(content)[0]}:
                _replace(path, content)
                return path
            number += 1


def _appended(before: bytes, outcome: Outcome) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not before.strip():
        before = b""
        writer.writerow(COLUMNS)
    writer.writerow(outcome.cells)
    gap = b"" if not before or before.endswith(b"\n") else b"\n"
    return before + gap + text.getvalue().encode()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        if path.exists():
            shutil.copymode(path, temporary)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against others who add; a killed process lets go of it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
