"""Fleets and real logs that went through the whole chain, each once, whatever parts look at them.

Belongs here: simulating, running the chain, releasing fleet versions, and reading what was published. Does not belong
here: comparing it with the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import polars as pl

from baas_dagster.definitions import build
from baas_dagster.runs import Asked, Chain, instance_of
from baas_dagster.settings import PROJECT_ROOT, Settings
from baas_dagster.simulator import STANDARD_FLEETS, simulate

__all__ = ["REAL_LOGS", "ChainFailed", "Ran", "Runs", "Snapshot"]

REAL_LOGS = PROJECT_ROOT.parent / "shared" / "data" / "landing"
"""Real logs of real cars, beside the project where they may be had; no part of it."""


class ChainFailed(RuntimeError):
    """The chain itself reported errors: there is nothing to compare."""


@dataclass(frozen=True)
class Snapshot:
    """What was published."""

    settings: Settings

    def rows(self, query: str) -> pl.DataFrame:
        """Result of a query on the snapshot."""
        with duckdb.connect(str(self.settings.publish / "fleet.duckdb"), read_only=True) as reader:
            found = pl.from_arrow(reader.sql(query).to_arrow_table())
        if not isinstance(found, pl.DataFrame):
            raise TypeError("a query gives a table")
        return found

    def one(self, query: str) -> float:
        """A single number; 0 where there is none."""
        return float(self.rows(query).item() or 0.0)


@dataclass(frozen=True)
class Ran:
    """A landing after the whole chain: what was published, and the truth behind it (empty for real logs)."""

    snapshot: Snapshot
    truth: Mapping[str, pl.DataFrame]
    truth_folder: Path | None = None


@dataclass
class Runs:
    """The runs of one acceptance, made when they are first asked for and kept."""

    seed: int
    base: Path
    real: Path = REAL_LOGS
    _done: dict[str, Ran] = field(default_factory=dict)

    def fleet(self, name: str) -> Ran:
        """A standard fleet."""
        if name not in self._done:
            landing, truth = self.base / name / "landing", self.base / name / "truth"
            print(f"fleet {name}: simulating", flush=True)
            simulate(landing, truth, STANDARD_FLEETS[name], self.seed)
            tables = {path.stem: pl.read_parquet(path) for path in truth.glob("*.parquet")}
            self._done[name] = Ran(self._run(name, landing), tables, truth)
        return self._done[name]

    def real_logs(self) -> Ran | None:
        """The real logs; None where they are not beside the project."""
        if not self.real.is_dir():
            return None
        if "real" not in self._done:
            self._done["real"] = Ran(self._run("real", self.real), {})
        return self._done["real"]

    def _run(self, name: str, landing: Path) -> Snapshot:
        """Run the chain, learn and activate fleet versions as a monthly close does, and run what they change."""
        print(f"{name}: running the chain", flush=True)
        settings = Settings(home=self.base / name / "home", landing=landing)
        with instance_of(settings) as instance:
            chain = Chain(settings, build(settings), instance)
            done = [chain.run(Asked()), chain.release(activate=True), chain.run(Asked())]
        if errors := [text for one in done for text in one.errors]:
            raise ChainFailed("\n".join(errors))
        return Snapshot(settings)
