"""Speed and memory of the chain, as ratios measured in one run: what ``make bench`` runs.

Belongs here: the ways the chain is compared with (one DuckDB pass, the pandas way), what is timed, and the targets of
the issue. Does not belong here: accuracy, and any figure that only makes sense on one machine: seconds are in the
result so that a ratio can be followed, the ratios are what is judged.

Five measurements, each on homes and deliveries of its own in a temporary folder (TMPDIR is honoured):

* whole: a new process `baas run` on a new BAAS_HOME, from ZIP to snapshot, and its memory;
* floor and pandas way: the same deliveries, outside the platform;
* partitions: a range run over many tiny partitions, less the same run over one;
* refresh: one corrected device-month in a home with a month of history, and in one with ten;
* stitch: marts of devices with five years of pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pandas as pd

from baas_dagster.partitions import DEVICES, device_range_tags
from baas_dagster.resources import dbt_manifest
from baas_dagster.schemas.outcome import Outcome
from baas_dagster.settings import Settings
from baas_dagster.simulator import FleetSpec, custom_fleet, simulate
from baas_dagster.telemetry.columns import BMS_COLUMNS, GPS_COLUMNS, ColumnKind, TableKind, canonical_name

if TYPE_CHECKING:
    from baas_dagster.runs import Chain

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Scale:
    """How much data each measurement uses."""

    device_months: int
    """Of 110,000 BMS rows and 180 cells each: `floor`, `whole`."""
    pandas_device_months: int
    """Of these; the pandas way has no step that grows faster than its rows, its seconds are scaled by them."""
    devices: int
    """Of the range run: x `months` partitions."""
    months: int
    rows_per_key: int
    history_devices: int
    history_months: int
    """Of the long history; the short one is its first month."""
    corrections: int
    repeats: int
    """Of the floor; the fastest counts, which is the hardest on the ratio."""
    stitch_months: int
    """Of each of the three devices that are stitched."""
    stitch_repeats: int


SCALES = {
    "full": Scale(10, 2, 5, 40, 20, 10, 10, 3, 2, 60, 5),
    "small": Scale(2, 1, 3, 4, 20, 3, 3, 1, 1, 3, 1),
}


@dataclass(frozen=True)
class Target:
    """A figure's limit."""

    figure: str
    limit: float
    unit: str
    meaning: str
    is_at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether the figure keeps the limit."""
        return value >= self.limit if self.is_at_least else value <= self.limit


TARGETS = (
    Target("ratio", 5.0, "x", "ZIP to snapshot, against the floor"),
    Target("detectors_ratio", 1.0, "x", "evidence, episodes and cells, against the floor"),
    Target("peak_rss_mb", 3 * 1024, "MB", "memory of all processes of that run"),
    Target("pandas_ratio", 8.0, "x", "ZIP to raw, faster than the pandas way", is_at_least=True),
    Target("pandas_whole_ratio", 5.0, "x", "whole chain, faster than the pandas way", is_at_least=True),
    Target("partition_overhead_ms", 20.0, "ms", "per asset and partition of a range run"),
    Target("check_ms", 15.0, "ms", "per check evaluation"),
    Target("stitch_device_s", 1.0, "s", "stitching one device more with 60 months of pieces"),
    Target("refresh_ratio", 1.2, "x", "one device-month with 10 x history, against 1 x, before publishing"),
)

DETECTOR_JOBS = ("evidence", "anomalies")
"""The stages of the detectors; that they run as stages counts as theirs."""

Figures = dict[str, Any]


# --- the floor: one DuckDB statement per file ------------------------------------------------------


def unpack(archives: Sequence[Path], folder: Path) -> list[Path]:
    """Unpack every archive below `folder`, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)  # two archives that both make it would be in each other's way

    def one(archive: Path) -> list[Path]:
        with zipfile.ZipFile(archive) as opened:
            return [Path(opened.extract(member, folder)) for member in opened.infolist()]

    with ThreadPoolExecutor(CORES) as pool:
        return [path for paths in pool.map(one, archives) for path in paths]


def _kind(path: Path) -> TableKind:
    return TableKind.BMS if "bms" in path.name else TableKind.GPS


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig") as handle:
        return [name.strip() for name in handle.readline().split("|")]


def floor_statement(path: Path, target: Path) -> str:
    """The fastest single statement we found that gives the columns of the lake, typed, the lists as lists.

    Numbers are typed by the CSV reader itself, which takes 10 % less than text and a cast. Row for row it keeps what
    the chain keeps on these deliveries; it has no lineage, rejected rows, sentinels, statistics of cells, nor checks.
    """
    columns = BMS_COLUMNS if _kind(path) is TableKind.BMS else GPS_COLUMNS
    read, made = [], []
    for delivered in _header(path):
        name = canonical_name(_kind(path), delivered) or delivered
        kind = columns.get(name, ColumnKind.TEXT)
        is_number = kind in (ColumnKind.NUMBER, ColumnKind.INTEGER)
        read.append(
            f"'{delivered}': '{'DOUBLE' if kind is ColumnKind.NUMBER else 'BIGINT' if is_number else 'VARCHAR'}'"
        )
        if is_number:
            value = delivered
        elif kind is ColumnKind.TIME:
            value = f"strptime(trim({delivered}), '%y-%m-%d %H:%M:%S')"
        elif kind is ColumnKind.CELLS:
            value = f"list_transform(string_split(trim({delivered}), ','), lambda x: (x::float * 1000)::smallint)"
        elif kind is ColumnKind.TEMPS:
            value = f"list_transform(string_split(trim({delivered}), ','), lambda x: (x::float * 10)::smallint)"
        elif kind is ColumnKind.FLAG:
            value = f"trim({delivered}) in ('1', 't', 'true', 'Y')"
        else:
            value = f"trim({delivered})"
        made.append(f"{value} as {name}")
    return f"""
        copy (
            select {", ".join(made)}
            from read_csv(
                '{path}', delim = '|', header = false, skip = 2, columns = {{{", ".join(read)}}}, auto_detect = false,
                quote = '', escape = '', ignore_errors = true
            )
        ) to '{target}' (format parquet, compression zstd)
    """


def floor(archives: Sequence[Path], folder: Path) -> tuple[float, float, dict[str, int]]:
    """Seconds to unpack, seconds to parse and write, rows per kind."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    texts = unpack(archives, folder)
    unpacked = time.perf_counter()
    with duckdb.connect(config={"threads": CORES}) as connection:
        for text in texts:
            connection.execute(floor_statement(text, text.with_suffix(".parquet")))
        ended = time.perf_counter()
        rows = dict.fromkeys(("bms", "gps"), 0)
        for text in texts:
            counted = connection.execute(f"select count(*) from '{text.with_suffix('.parquet')}'").fetchall()[0][0]
            rows[str(_kind(text))] += int(counted)
    shutil.rmtree(folder)
    return unpacked - started, ended - unpacked, rows


# --- the pandas way --------------------------------------------------------------------------------


def pandas_raw(path: Path) -> pd.DataFrame:
    """One dump into a typed frame, as notebooks and public pipelines do it: read, strip, split the lists, sort.

    pandas types the numbers while it reads, which is its fastest way.
    """
    names = _header(path)
    texts = {"device_no": str, "measured_month": str}
    frame = pd.read_csv(
        path, sep="|", skiprows=2, names=names, dtype=texts, skipinitialspace=True, encoding="utf-8", low_memory=False
    )
    frame = frame[frame["time"].notna()]  # the footer is a row of one field
    columns = BMS_COLUMNS if _kind(path) is TableKind.BMS else GPS_COLUMNS
    made: dict[str, Any] = {}
    for name in names:
        column, kind = frame[name], columns.get(name, ColumnKind.TEXT)
        if pd.api.types.is_string_dtype(column):
            column = column.str.strip()
        if kind in (ColumnKind.CELLS, ColumnKind.TEMPS):
            values = column.str.split(",", expand=True).astype(float)
            made |= {f"{name}_{i:03d}": values[one] for i, one in enumerate(values.columns, start=1)}
        elif kind is ColumnKind.TIME:
            made[name] = pd.to_datetime(column, format="%y-%m-%d %H:%M:%S", errors="coerce")
        else:
            made[name] = column
    return pd.DataFrame(made).drop_duplicates(["device_no", "time"]).sort_values("time")


def pandas_mileage(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Kilometres per day and per month: greatest odometer less the smallest."""
    valid = frame[frame["odometer"] > 0]
    time = valid["time"].dt
    found = []
    for name, period in (("service_date", time.date), ("measured_month", time.strftime("%Y-%m"))):
        sums = valid.groupby(["device_no", period.rename(name)])["odometer"].agg(["min", "max", "count"])
        found.append(sums.assign(distance_km=sums["max"] - sums["min"]).reset_index())
    return found


def pandas_way(archives: Sequence[Path], folder: Path) -> tuple[float, float, int]:
    """Seconds from ZIP to a typed Parquet file each, seconds of the mileage, BMS rows."""
    shutil.rmtree(folder, ignore_errors=True)
    raw_s = mileage_s = 0.0
    rows = 0
    for archive in archives:
        started = time.perf_counter()
        with zipfile.ZipFile(archive) as opened:
            text = Path(opened.extract(opened.infolist()[0], folder))
        frame = pandas_raw(text)
        frame.to_parquet(text.with_suffix(".parquet"))
        raw_s += time.perf_counter() - started
        if _kind(text) is TableKind.BMS:
            rows += len(frame)
            started = time.perf_counter()
            for number, sums in enumerate(pandas_mileage(frame)):
                sums.to_parquet(text.with_suffix(f".{number}.parquet"))
            mileage_s += time.perf_counter() - started
        text.unlink()
    shutil.rmtree(folder)
    return raw_s, mileage_s, rows


# --- the whole chain, as a process of its own ------------------------------------------------------


class Memory:
    """Samples the memory of a process and all that it started, every 50 ms, on a thread of its own.

    Proportional set sizes where the kernel tells them, so that pages which processes share count once; else resident
    set sizes.
    """

    def __init__(self, pid: int) -> None:
        self.peak_kb = 0
        self.kind = "pss" if Path("/proc/self/smaps_rollup").exists() else "rss"
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.05):
            self.peak_kb = max(self.peak_kb, sum(self._of(pid) for pid in self._tree()))

    def _tree(self) -> list[int]:
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    # the command's name stands in brackets and may hold anything
                    parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue  # it has just ended
        tree = [self._pid]
        for pid in tree:
            tree += [child for child, parent in parents.items() if parent == pid]
        return tree

    def _of(self, pid: int) -> int:
        file, field = ("smaps_rollup", "Pss:") if self.kind == "pss" else ("status", "VmRSS:")
        try:
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1])
        except OSError:
            pass  # it has just ended
        return 0


@dataclass(frozen=True)
class Span:
    """First to last event of one Dagster run."""

    job: str
    run_id: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length; planning of its partitions included, which comes before Dagster's own start time."""
        return self.end - self.start


def spans(instance: dg.DagsterInstance, after: float = 0.0) -> list[Span]:
    """Every run of the instance since `after` (seconds of the epoch), oldest first."""
    found = []
    for record in instance.get_run_records():
        run = record.dagster_run
        ends = [
            instance.get_records_for_run(run.run_id, limit=1, ascending=is_first).records[0].event_log_entry.timestamp
            for is_first in (True, False)
        ]
        found.append(Span(run.job_name, run.run_id, *ends))
    return sorted((s for s in found if s.start >= after), key=lambda s: s.start)


def whole(landing: Path, home: Path) -> Figures:
    """A new process on a new home: nothing is warm but the file cache."""
    environment = {**os.environ, "BAAS_HOME": str(home), "BAAS_LANDING": str(landing)}
    command = [sys.executable, "-m", "baas_dagster.cli", "run"]
    log = home.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        began, started = time.time(), time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        with Memory(process.pid) as memory:
            code = process.wait()
        seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"`baas run` ended with {code}:\n{log.read_text()}")
    settings = Settings(home=home, landing=landing)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        runs = spans(instance)
    stages: dict[str, float] = {"start": runs[0].start - began}
    for run in runs:
        stages[run.job] = stages.get(run.job, 0.0) + run.seconds
    stages["between and end"] = seconds - sum(stages.values())
    with duckdb.connect(str(settings.publish / "fleet.duckdb"), read_only=True) as reader:
        rows = dict(reader.execute("select kind, sum(rows_kept) from delivery group by kind").fetchall())
    return {
        "whole_s": seconds,
        "zip_to_raw_s": max(r.end for r in runs if r.job == "raw") - began,
        "stages_s": stages,
        "peak_rss_mb": memory.peak_kb / 1024,
        "memory_measure": memory.kind,
        "rows": {kind: int(rows[kind]) for kind in ("bms", "gps")},
    }


# --- chains in this process ------------------------------------------------------------------------


class Bench:
    """The temporary folder of one benchmark, and homes in it."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self.figures: Figures = {}
        self.rows_used: dict[str, Any] = {}
        self._parsed: Path | None = None

    def home(self, name: str, landing: Path) -> Settings:
        """A new home that need not parse the dbt project again."""
        if self._parsed is None:
            parsed = Settings(home=self.folder / "parsed")
            dbt_manifest(parsed)
            self._parsed = parsed.root / "dbt"
        home = self.folder / "homes" / name
        shutil.copytree(self._parsed, home / "dbt")
        return Settings(home=home, landing=landing)

    @contextmanager
    def chain(self, settings: Settings) -> Iterator[Chain]:
        """The chain on a home."""
        from baas_dagster.definitions import build
        from baas_dagster.runs import Chain, instance_of

        with instance_of(settings) as instance:
            yield Chain(settings, build(settings), instance)

    def simulated(self, name: str, fleet: FleetSpec) -> Path:
        """Deliveries of a fleet."""
        landing = self.folder / name
        say(f"simulating {fleet.devices} x {fleet.months} device-months for {name}")
        simulate(landing, None, replace(fleet, name=name), seed=1)
        return landing

    # --- the measurements

    def measure_whole(self) -> None:
        """Floor, whole chain, pandas way."""
        # 0.914 h a day at 1 s: 100,000 rows a month
        fleet = custom_fleet(self.scale.device_months, 1, 1.0, 0.914, quirks=False, cell_count=180, plain_cars=True)
        landing = self.simulated("bench", fleet)
        archives = sorted(landing.rglob("*.zip"))
        floors = []
        for _ in range(self.scale.repeats):
            say(f"floor: DuckDB over {len(archives)} files")
            floors.append(floor(archives, self.folder / "floor"))
        say("whole: baas run")
        found = whole(landing, self.folder / "homes" / "whole")
        unpack_s, parse_s, rows = min(floors, key=lambda f: f[0] + f[1])
        if found["rows"] != rows:
            raise SystemExit(f"the chain kept {found['rows']} rows, the floor {rows}: they do not do the same work")
        some = {path.name.split("_")[1] for path in archives if path.name.startswith("bms_")}
        some = set(sorted(some)[: self.scale.pandas_device_months])
        mine = [path for path in archives if path.name.split("_")[1] in some]
        say(f"pandas way over {len(some)} device-months")
        raw_s, mileage_s, pandas_rows = pandas_way(mine, self.folder / "pandas")
        share = rows["bms"] / pandas_rows
        self.figures |= {
            "rows": rows["bms"],
            "floor_s": unpack_s + parse_s,
            "floor_unpack_s": unpack_s,
            "floors_s": [f[0] + f[1] for f in floors],
            **{name: found[name] for name in ("whole_s", "zip_to_raw_s", "stages_s", "peak_rss_mb", "memory_measure")},
            "ratio": found["whole_s"] / (unpack_s + parse_s),
            "detectors_ratio": sum(found["stages_s"][job] for job in DETECTOR_JOBS) / (unpack_s + parse_s),
            "pandas_s": raw_s * share,
            "pandas_whole_s": (raw_s + mileage_s) * share,
            "pandas_ratio": raw_s * share / found["zip_to_raw_s"],
            "pandas_whole_ratio": (raw_s + mileage_s) * share / found["whole_s"],
        }
        self.rows_used |= {
            "floor and whole": f"{rows['bms']} BMS, {rows['gps']} GPS",
            "pandas": f"{pandas_rows} BMS, and their GPS; seconds scaled by {share:.2f} to all rows",
        }
        shutil.rmtree(landing)

    def measure_partitions(self) -> None:
        """A range run over many tiny partitions, less the same run over one."""
        from baas_dagster.assets import raw

        devices = [f"0129000{i + 1:04d}" for i in range(self.scale.devices)]
        many = tiny_deliveries(self.folder / "many", devices, self.scale.months, self.scale.rows_per_key)
        one = tiny_deliveries(self.folder / "one", devices[:1], 1, self.scale.rows_per_key)
        keys = len(devices) * self.scale.months
        say(f"partitions: a range run over {keys} keys")
        single: dict[str, float] = {}
        for i in range(2):  # the first run of a process imports what the second has
            settings = self.home(f"one{i}", one)
            with self.chain(settings) as chain:
                update(chain)
                single = {s.job: s.seconds for s in spans(chain.instance)}
        settings = self.home("many", many)
        checking = Stopwatch()
        with self.chain(settings) as chain, checking.around(raw, "check_partitions"):
            update(chain)
            runs = spans(chain.instance)
            reported = sum(reporting_seconds(chain.instance, s) for s in runs if s.job == "raw")
            assets = {stage.job: len(stage.assets) for stage in chain.stages}
        overhead = {}
        for job in ("raw", "local"):
            seconds = sum(s.seconds for s in runs if s.job == job) - single[job]
            if job == "raw":  # checks have a budget of their own
                seconds -= checking.seconds + reported
            overhead[job] = 1000 * seconds / assets[job] / (keys - 1)
        evaluations = 2 * keys  # raw_bms and raw_gps
        self.figures |= {
            "partition_overhead_ms": max(overhead.values()),
            "partition_overhead_by_job_ms": overhead,
            "check_ms": 1000 * (checking.seconds + reported) / evaluations,
            "check_parts_ms": {
                "pandera": 1000 * checking.seconds / evaluations,
                "event": 1000 * reported / evaluations,
            },
            "one_key_s": {job: single[job] for job in ("raw", "local")},
        }
        self.rows_used["partitions"] = f"{keys} keys x {self.scale.rows_per_key} BMS and GPS rows"

    def measure_refresh(self) -> None:
        """One corrected device-month, with a short and with a long history; and publishing the long one."""
        scale = self.scale
        fleet = custom_fleet(
            scale.history_devices, scale.history_months, 30.0, 0.914, quirks=False, cell_count=180, plain_cars=True
        )
        long = self.simulated("long", fleet)
        first = min(path.name for path in long.iterdir() if path.is_dir())
        short = self.folder / "short"
        shutil.copytree(long / first, short / first)
        archives = sorted((long / first).glob("bms_*.zip"))
        before: dict[str, list[float]] = {}
        publishing: dict[str, list[float]] = {}
        for name, landing in (("1 x", short), ("10 x", long)):
            say(f"refresh: bringing {name} history up to date")
            with self.chain(self.home(f"refresh {name}", landing)) as chain:
                update(chain)
                for number, archive in enumerate(archives[: scale.corrections + 1]):
                    correct(archive, landing / "corrected" / archive.name)
                    started = time.time()
                    update(chain)
                    publish = next(s for s in spans(chain.instance, started) if s.job == "publish")
                    if number:  # the first refresh of a process imports and opens what the others have
                        before.setdefault(name, []).append(publish.start - started)
                        publishing.setdefault(name, []).append(publish.seconds)
        short_s, long_s = (statistics.median(before[name]) for name in ("1 x", "10 x"))
        self.figures |= {
            "refresh_ratio": long_s / short_s,
            "refresh_s": {"1 x": short_s, "10 x": long_s},
            "publish_s": statistics.median(publishing["10 x"]),
            "publish_1x_s": statistics.median(publishing["1 x"]),
        }
        self.rows_used["refresh"] = (
            f"{fleet.devices} device-months of history, and {fleet.devices * fleet.months}, "
            f"of {fleet.rows_per_device_month} BMS rows; median of {scale.corrections} corrected device-months"
        )

    def measure_stitch(self) -> None:
        """Runs of the stage `stitch` over one and over three devices with a long history of pieces."""
        scale = self.scale
        fleet = custom_fleet(3, scale.stitch_months, 60.0, 2.0, quirks=False, plain_cars=True, first_month="2020-01")
        landing = self.simulated("years", fleet)
        seconds: dict[int, list[float]] = {1: [], 3: []}
        with self.chain(self.home("years", landing)) as chain:
            say("stitch: bringing the history up to date")
            update(chain)
            devices = DEVICES.get_partition_keys(dynamic_partitions_store=chain.instance)
            job = chain.definitions.resolve_job_def("stitch")
            for _ in range(scale.stitch_repeats):
                for n, taken in seconds.items():
                    started = time.time()
                    done = job.execute_in_process(
                        instance=chain.instance,
                        tags=device_range_tags(devices[0], devices[n - 1]),
                        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    )
                    if not done.success:
                        raise SystemExit("a run of the stage `stitch` failed")
                    taken += [s.seconds for s in spans(chain.instance, started)]
            pieces = self._pieces(chain)
        one, three = (statistics.median(seconds[n]) for n in (1, 3))
        self.figures |= {"stitch_device_s": (three - one) / 2, "stitch_run_s": one}
        self.rows_used["stitch"] = (
            f"{len(devices)} devices of {scale.stitch_months} months, {pieces} pieces; "
            f"median of {scale.stitch_repeats} runs"
        )

    @staticmethod
    def _pieces(chain: Chain) -> int:
        """Rows of the local pieces of all devices."""
        with chain.warehouse.open() as connection:
            tables = connection.execute(
                "select table_name from duckdb_tables() where schema_name = 'intermediate'"
            ).fetchall()
            counted = [connection.execute(f"select count(*) from intermediate.{t}").fetchall()[0][0] for (t,) in tables]
        return sum(counted)


class Stopwatch:
    """Adds up the seconds of every call of one function, on whatever thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def around(self, module: Any, function: str) -> Iterator[None]:
        """Time the module's function while the context is open."""
        original: Callable[..., list[Outcome]] = getattr(module, function)

        def timed(*args: Any, **kwargs: Any) -> list[Outcome]:
            started = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                with self._lock:
                    self.seconds += time.perf_counter() - started

        setattr(module, function, timed)
        try:
            yield
        finally:
            setattr(module, function, original)


def reporting_seconds(instance: dg.DagsterInstance, run: Span) -> float:
    """Seconds that logging the check evaluations of a run took, per asset from its last materialization on."""
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    made: dict[dg.AssetKey, float] = {}
    checked: dict[dg.AssetKey, float] = {}
    for record in instance.get_records_for_run(run.run_id, of_type=kinds).records:
        event = record.event_log_entry.get_dagster_event()
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            checked[event.asset_check_evaluation_data.asset_key] = record.event_log_entry.timestamp
        elif event.asset_key is not None:
            made[event.asset_key] = record.event_log_entry.timestamp
    return sum(checked[asset] - made[asset] for asset in checked)


def update(chain: Chain) -> None:
    """Bring a home up to date; anything that fails ends the benchmark."""
    from baas_dagster.runs import Asked

    done = chain.run(Asked())
    if done.errors:
        raise SystemExit("\n".join(done.errors))


def tiny_deliveries(landing: Path, devices: Sequence[str], months: int, rows: int) -> Path:
    """One ZIP per month and kind with a few rows of every device."""
    from tests.deliveries import bms_rows, gps_rows, psql, put_zip

    for i in range(months):
        start = datetime(2020 + i // 12, i % 12 + 1, 10, 8)
        for kind, made in (("bms", bms_rows), ("gps", gps_rows)):
            content = psql([row for device in devices for row in made(device, start, rows)])
            put_zip(landing / f"{kind}_{start:%Y-%m}.zip", f"{kind}_{start:%Y-%m}.csv", content)
    return landing


def correct(archive: Path, target: Path) -> None:
    """The same dump delivered again a year later, with its last row taken out."""
    with zipfile.ZipFile(archive) as opened:
        member = opened.infolist()[0]
        lines = opened.read(member).decode("utf-8").splitlines(keepends=True)
    footer = next(i for i in range(len(lines) - 1, 0, -1) if lines[i].startswith("("))
    lines[footer] = f"({int(lines[footer].strip('()').split()[0]) - 1} rows)\n"
    del lines[footer - 1]
    target.parent.mkdir(parents=True, exist_ok=True)
    later = zipfile.ZipInfo(member.filename, (member.date_time[0] + 1, *member.date_time[1:]))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(later, "".join(lines))


# --- the result ------------------------------------------------------------------------------------


def say(text: str) -> None:
    """What is going on, with the time since the start."""
    print(f"[{time.perf_counter() - _STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


_STARTED = time.perf_counter()
_FIGURES = ("rows", "floor_s", "whole_s", "zip_to_raw_s", "pandas_s", "publish_s", "stitch_run_s")
_LIBRARIES = ("dagster", "dbt-core", "dbt-duckdb", "duckdb", "numpy", "pandas", "pandera", "polars", "pyarrow")


def rounded(value: Any) -> Any:
    """Three decimals are more than a clock is good for."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def result(bench: Bench, load_before: float) -> Figures:
    """Figures, targets and what they were measured with."""
    figures = bench.figures
    found: Figures = rounded(
        {
            **figures,
            "targets": {
                t.figure: {"limit": t.limit, "unit": t.unit, "is": ">=" if t.is_at_least else "<=", "what": t.meaning}
                | {"measured": figures[t.figure], "met": t.is_met(figures[t.figure])}
                for t in TARGETS
                if t.figure in figures
            },
            "rows_used": bench.rows_used,
            "scale": asdict(bench.scale),
            "cores": CORES,
            # processes that wanted a core when the benchmark began: above 0.5 the seconds are another's as well
            "load_before": load_before,
            "versions": {"python": sys.version.split()[0], **{name: version(name) for name in _LIBRARIES}},
        }
    )
    return found


def show(found: Figures) -> None:
    """The table."""
    for name in _FIGURES:
        if name in found:
            print(f"{name:<24}{found[name]:>14,.1f}" if name != "rows" else f"{name:<24}{found[name]:>14,}")
    for name, seconds in found.get("stages_s", {}).items():
        print(f"  {name:<22}{seconds:>14,.1f}")
    print()
    for name, t in found["targets"].items():
        verdict = "met" if t["met"] else "MISSED"
        print(f"{name:<24}{t['measured']:>10,.2f} {t['unit']:<3}{t['is']} {t['limit']:>8,.1f} {verdict:<7} {t['what']}")


def main() -> None:
    """Measure, write, show."""
    parts = ("whole", "partitions", "refresh", "stitch")
    arguments = argparse.ArgumentParser(description="Speed and memory of the chain.")
    arguments.add_argument("--rows-scale", choices=sorted(SCALES), default="full", help="small: a check of this script")
    arguments.add_argument("--only", choices=parts, action="append", help="these measurements alone")
    arguments.add_argument("--out", type=Path, help="where the result goes; default: latest.json of a full benchmark")
    asked = arguments.parse_args()
    sys.path.insert(0, str(ROOT))  # the helpers of the tests write the tiny deliveries
    os.environ |= {"DAGSTER_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    os.environ.pop("DAGSTER_HOME", None)  # every home below has an instance of its own
    warnings.simplefilter("ignore")  # beta warnings of Dagster
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="baas-bench-") as folder:
        bench = Bench(Path(folder), SCALES[asked.rows_scale])
        for part in asked.only or parts:
            getattr(bench, f"measure_{part}")()
    found = result(bench, load_before)
    is_full = asked.rows_scale == "full" and not asked.only
    out = asked.out or (ROOT / "benchmarks" / "latest.json" if is_full else None)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(found)
    say(f"written to {out}" if out else "not written: a part, or the small scale")


if __name__ == "__main__":
    main()
