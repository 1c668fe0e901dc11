"""Walks a landing file: ZIPs in ZIPs, gzip and plain files become a sequence of members that can be read as streams.

Belongs here: containers, their faults and their limits, what a member is called, when it was delivered, and which
members are not data (DOMAIN 2). Does not belong here: what a member's text means (``formats``).

Nothing is unpacked to a named path, so no member can write outside; names that try to are refused all the same. Limits
count bytes as they are unpacked and never trust a header: a real dump compresses 45:1, so a ratio says nothing. A fault
of the data raises ``IntakeProblem`` with a reason that a person can act on; a fault of the machine (disk full, I/O
error) stays an ``OSError``.
"""

from __future__ import annotations

import gzip
import lzma
import re
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Final, cast

__all__ = [
    "ByteCounter",
    "ByteMeter",
    "Entry",
    "IntakeLimits",
    "IntakeProblem",
    "MemberStream",
    "delivery_stamp",
    "is_parquet",
    "logical_name",
    "spooled",
    "walk",
]

GIB: Final = 1 << 30
MIB: Final = 1 << 20


class IntakeProblem(Exception):
    """The delivered data cannot be read; the message says why and what to do about it."""


class RunLimitReached(IntakeProblem):
    """Not the file's fault: the run has unpacked all it may. The file can be read by the next run."""


@dataclass(frozen=True)
class IntakeLimits:
    """How much may be unpacked, and how a member is read. Bytes are unpacked bytes."""

    max_member_bytes: int = 16 * GIB
    """A month of one car at 1 s is about 1.5 GiB of padded dump; a fleet dump holds several cars."""
    max_file_bytes: int = 64 * GIB
    """All members of one landing file together, nested archives counted at every level."""
    max_run_bytes: int = 1024 * GIB
    """All landing files of one run together: the stop for many middle-sized bombs."""
    max_depth: int = 3
    """ZIP in ZIP in ZIP occurs; deeper is a mistake or an attack."""
    max_members: int = 20_000
    """Members of one landing file."""
    chunk_bytes: int = 16 * MIB
    """Text parsed at once. 8, 16 and 32 MiB cost the same time; three in flight peak at 400, 540 and 720 MB."""
    max_line_bytes: int = 4 * MIB
    """A row of 192 cells padded by psql is under 4 KB; a line this long is not a table."""
    chunks_in_flight: int = 3
    """Chunks parsed ahead of the one that is written."""
    max_undecodable_share: float = 0.05
    """More rows than this in another encoding than the member's: the member is unusable, not a few rows of it."""


class ByteCounter:
    """Bytes unpacked by a whole run; shared by the files of the run, safe to share between threads."""

    def __init__(self) -> None:
        self.used = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> int:
        """Add and return the new total."""
        with self._lock:
            self.used += count
            return self.used


@dataclass
class ByteMeter:
    """Counts what one landing file unpacks against its limits."""

    limits: IntakeLimits
    run: ByteCounter = field(default_factory=ByteCounter)
    on_bytes: Callable[[int], None] | None = None
    spool_folder: Path | None = None
    """Where archives inside archives are put while they are read; the system's folder if None."""
    used: int = 0

    def take(self, count: int) -> None:
        """Count unpacked bytes; IntakeProblem once a limit is passed."""
        self.used += count
        if self.on_bytes is not None:
            self.on_bytes(count)
        if self.used > self.limits.max_file_bytes:
            raise IntakeProblem(f"unpacks to more than {_size(self.limits.max_file_bytes)}, the limit for one file")
        if self.run.add(count) > self.limits.max_run_bytes:
            raise RunLimitReached(
                f"this run has unpacked {_size(self.limits.max_run_bytes)}, its limit: the file waits for the next run"
            )


class MemberStream:
    """A member's unpacked bytes, counted; damaged containers raise IntakeProblem."""

    def __init__(self, raw: IO[bytes], meter: ByteMeter) -> None:
        self._raw = raw
        self._meter = meter
        self._head = b""
        self.bytes_read = 0

    def peek(self, count: int) -> bytes:
        """The first bytes without consuming them."""
        while len(self._head) < count:
            got = self._take(count - len(self._head))
            if not got:
                break
            self._head += got
        return self._head[:count]

    def read(self, count: int = -1) -> bytes:
        """Read up to ``count`` bytes; fewer only at the end of the member."""
        parts, wanted = [self._head[:count] if count >= 0 else self._head], count
        self._head = self._head[len(parts[0]) :]
        wanted -= len(parts[0])
        while count < 0 or wanted > 0:
            got = self._take(min(wanted, MIB) if count >= 0 else MIB)
            if not got:
                break
            parts.append(got)
            wanted -= len(got)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, count: int) -> bytes:
        with data_faults():
            got = self._raw.read(count)
        self.bytes_read += len(got)
        self._meter.take(len(got))
        if self.bytes_read > self._meter.limits.max_member_bytes:
            limit = _size(self._meter.limits.max_member_bytes)
            raise IntakeProblem(f"unpacks to more than {limit}, the limit for one member")
        return got


@contextmanager
def data_faults() -> Iterator[None]:
    """Turn faults of compressed data into IntakeProblem and leave faults of the machine alone."""
    try:
        yield
    except zipfile.BadZipFile as fault:
        text = str(fault)
        if "CRC" in text:
            raise IntakeProblem("bad CRC: the content was damaged on its way; ask for it again") from fault
        raise IntakeProblem(f"damaged ZIP ({text}); ask for it again") from fault
    except gzip.BadGzipFile as fault:
        raise IntakeProblem(f"damaged gzip ({fault}); ask for it again") from fault
    except EOFError as fault:
        raise IntakeProblem("truncated: the compressed data ends early; ask for it again") from fault
    except (zlib.error, lzma.LZMAError) as fault:
        raise IntakeProblem(f"damaged compressed data ({fault}); ask for it again") from fault
    except NotImplementedError as fault:
        raise IntakeProblem(f"a compression this reader does not know ({fault}); pack it as an ordinary ZIP") from fault
    except RuntimeError as fault:
        if "password" in str(fault) or "encrypted" in str(fault):
            raise IntakeProblem("encrypted: deliver it without a password") from fault
        raise
    except OSError as fault:
        if fault.errno is not None:
            raise
        raise IntakeProblem(f"damaged compressed data ({fault}); ask for it again") from fault


@dataclass(frozen=True)
class Entry:
    """One member of a landing file. Exactly one of ``stream``, ``problem``, ``ignored`` says what to do with it.

    ``stream`` is valid until the next entry is asked for.
    """

    member: str
    """Path inside the landing file, containers joined by ``/``; the bare file name for a plain file."""
    delivered_at: datetime | None
    logical_name: str
    stream: MemberStream | None = None
    problem: str | None = None
    ignored: str | None = None
    is_deferred: bool = False


@dataclass(frozen=True)
class _Place:
    """Where the walk stands: the member's path and the delivery times of what contains it, nearest first."""

    member: str
    depth: int
    times: tuple[datetime | None, ...]

    @property
    def base(self) -> str:
        return re.split(r"[\\/]", self.member)[-1]

    def entry(
        self,
        stream: MemberStream | None = None,
        *,
        problem: str | None = None,
        ignored: str | None = None,
        is_deferred: bool = False,
    ) -> Entry:
        when = next((t for t in self.times if t is not None), None)
        return Entry(self.member, when, logical_name(self.base), stream, problem, ignored, is_deferred)


def walk(path: Path, meter: ByteMeter) -> Iterator[Entry]:
    """Entries of a landing file in the order in which they stand in it. Consume each stream before the next entry."""
    place = _Place(path.name, 0, (delivery_stamp(path.name),))
    with path.open("rb") as handle:
        yield from _visit(handle, place, meter, _Count())


@dataclass
class _Count:
    members: int = 0


def _visit(raw: IO[bytes], place: _Place, meter: ByteMeter, seen: _Count, *, in_gzip: bool = False) -> Iterator[Entry]:
    """Entries of one file or member, whatever it is by its first bytes."""
    is_landing_file = place.depth == 0 and not in_gzip
    stream = MemberStream(raw, meter)
    try:
        head = stream.peek(8)
        lower = place.base.lower()
        if not head:
            yield place.entry(ignored="0 bytes")
        elif head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or lower.endswith(".zip"):
            if head[:2] != b"PK":
                raise IntakeProblem(f"not a ZIP: it begins with {head!r}; check what was copied here")
            if lower.endswith((".xlsx", ".xlsm", ".ods")):
                raise IntakeProblem("a spreadsheet: export it as CSV")
            if place.depth >= meter.limits.max_depth:
                raise IntakeProblem(
                    f"nested deeper than {meter.limits.max_depth} ZIPs: unpack it once and deliver again"
                )
            yield from _unzip(raw, stream, place, meter, seen, is_landing_file=is_landing_file)
        elif (reason := _not_data(place.base)) is not None:
            yield place.entry(ignored=reason)
        elif head[:2] == b"\x1f\x8b" or (lower.endswith(".gz") and not in_gzip):
            if head[:2] != b"\x1f\x8b":
                raise IntakeProblem(f"not gzip: it begins with {head!r}; check what was copied here")
            if in_gzip:
                raise IntakeProblem("gzip inside gzip: unpack it once and deliver again")
            inner = gzip.GzipFile(fileobj=cast(IO[bytes], stream), mode="rb")  # it needs read() alone
            yield from _visit(cast(IO[bytes], inner), place, meter, seen, in_gzip=True)
        else:
            yield place.entry(stream)
    except IntakeProblem as problem:
        yield place.entry(problem=str(problem), is_deferred=isinstance(problem, RunLimitReached))


def _unzip(
    raw: IO[bytes], stream: MemberStream, place: _Place, meter: ByteMeter, seen: _Count, *, is_landing_file: bool
) -> Iterator[Entry]:
    if is_landing_file:
        raw.seek(0)
        yield from _zip_members(raw, place, meter, seen)
        return
    with spooled(stream, meter.spool_folder) as handle:
        yield from _zip_members(handle, place, meter, seen)


def _zip_members(handle: IO[bytes], place: _Place, meter: ByteMeter, seen: _Count) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(handle)
    except zipfile.BadZipFile as fault:
        raise IntakeProblem(
            f"truncated or damaged ZIP, its list of members cannot be read ({fault}); ask for it again"
        ) from fault
    except (NotImplementedError, ValueError, UnicodeDecodeError) as fault:
        raise IntakeProblem(f"damaged ZIP ({fault}); ask for it again") from fault
    names: dict[str, int] = {}
    with archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            seen.members += 1
            if seen.members > meter.limits.max_members:
                raise IntakeProblem(f"more than {meter.limits.max_members} members: deliver it in several files")
            name = _member_name(info)
            names[name] = names.get(name, 0) + 1
            label = name if names[name] == 1 else f"{name}#{names[name]}"  # a ZIP may hold one name twice
            member = label if place.depth == 0 else f"{place.member}/{label}"
            times = (_dos_time(info), delivery_stamp(name), *place.times)
            inside = _Place(member, place.depth + 1, times)
            yield from _zip_member(archive, info, name, inside, meter, seen)


def _zip_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, place: _Place, meter: ByteMeter, seen: _Count
) -> Iterator[Entry]:
    base = re.split(r"[\\/]", name)[-1]
    if _escapes(name):
        yield place.entry(problem=f"its name escapes its folder: {name!r}; pack it with plain names")
    elif "__MACOSX" in re.split(r"[\\/]", name) or base.startswith("._"):
        yield place.entry(ignored="a macOS companion file")
    elif info.file_size == 0 and info.compress_size <= 2:  # an empty deflate stream is two bytes
        yield place.entry(ignored="0 bytes")
    elif info.flag_bits & 0x1:
        yield place.entry(problem="encrypted: deliver it without a password")
    else:
        try:
            with data_faults():
                opened = archive.open(info)
        except IntakeProblem as problem:
            yield place.entry(problem=str(problem))
            return
        with opened:
            yield from _visit(opened, place, meter, seen)


@contextmanager
def spooled(stream: MemberStream, folder: Path | None = None) -> Iterator[IO[bytes]]:
    """The rest of a stream as a seekable file: in memory while small, else in a file that dies with the process."""
    with tempfile.SpooledTemporaryFile(max_size=64 * MIB, dir=None if folder is None else str(folder)) as handle:
        while part := stream.read(MIB):
            handle.write(part)
        handle.seek(0)
        yield handle


def is_parquet(stream: MemberStream) -> bool:
    """Whether a member is Parquet, by its first bytes."""
    return stream.peek(4) == b"PAR1"


def _member_name(info: zipfile.ZipInfo) -> str:
    """Korean packers write CP949 names without saying so; Python then shows them as code page 437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        raw = info.orig_filename.split("\0")[0].encode("cp437")
    except UnicodeEncodeError:
        return info.filename
    if raw.isascii():
        return info.orig_filename.split("\0")[0]
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


def _escapes(name: str) -> bool:
    parts = re.split(r"[\\/]", name)
    return ".." in parts or name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name) is not None


_NOT_DATA = re.compile(r"(?<![a-z])(log|logs|empty)(?![a-z])", re.IGNORECASE)


def _not_data(base: str) -> str | None:
    """``import_log.txt``, ``2023-01.log`` and ``bms_empty.csv`` are not data; ``catalog_bms.csv`` is."""
    if base.startswith("._"):
        return "a macOS companion file"
    found = _NOT_DATA.search(base)
    return None if found is None else f"named {found[1]!r}: not a table of measurements"


def _dos_time(info: zipfile.ZipInfo) -> datetime | None:
    if info.date_time[:3] == (1980, 1, 1):  # what packers write when they know no time
        return None
    try:
        return datetime(*info.date_time)
    except ValueError:
        return None


# A day, optionally with a time of day: 20230205, 2023-02-05, 20230205T1010, 20230205_101000
_STAMP = re.compile(
    r"(?<![0-9])(20\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?:[T_\- ]?([01]\d|2[0-3])[-:]?([0-5]\d)(?:[-:]?([0-5]\d))?)?(?![0-9])",
    re.IGNORECASE,
)
_EXTENSIONS = re.compile(r"(\.(csv|tsv|txt|gz|zip|parquet|pq|dump|dat|out|psql|sql))+$", re.IGNORECASE)
_COPIES = re.compile(r"([ _\-.]*(\(\d+\)|(?<![a-z])(copy|복사본|v\d+)(?![a-z0-9])))+$", re.IGNORECASE)


def delivery_stamp(name: str) -> datetime | None:
    """The last day (and time of day) in a file name that exists, or None. A month alone is no delivery stamp."""
    found = None
    for match in _STAMP.finditer(re.split(r"[\\/]", name)[-1]):
        year, month, day = int(match[1]), int(match[3]), int(match[4])
        try:
            found = datetime(year, month, day, int(match[5] or 0), int(match[6] or 0), int(match[7] or 0))
        except ValueError:
            continue
    return found


def logical_name(base: str) -> str:
    """What a file is, across its deliveries: without extensions, delivery stamps and copy suffixes; months stay."""
    name = _EXTENSIONS.sub("", base.strip())
    before = None
    while before != name:
        before = name
        name = _COPIES.sub("", _STAMP.sub("", name)).strip(" _-.")
        name = re.sub(r"([_\-. ])[_\-. ]+", r"\1", name)
    return name.lower() or base.strip().lower()


def _size(count: int) -> str:
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} bytes"
