"""Paths and tunable numbers of the platform, each with unit, reason and source.

Belongs here: where things live under ``BAAS_HOME``, and every number that Python uses and somebody may want to change
(override with an environment variable ``BAAS_<NAME>``). Numbers that SQL uses stand in ``dbt_project.yml`` under
``vars``; Python that needs the same number reads it from there (`sql_vars`), so that each stands once.
Does not belong here: constants of physics or of a format, and anything computed.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["DBT_PROJECT", "FIRST_MONTH", "PROJECT_ROOT", "Settings", "sql_vars"]

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DBT_PROJECT = PROJECT_ROOT / "dbt_project"
FIRST_MONTH = "2015-01"
"""The first month there are partitions of: no telematics of these cars existed before, a clock was wrong."""


@lru_cache(maxsize=1)
def sql_vars() -> dict[str, Any]:
    """The numbers that SQL uses: section ``vars`` of ``dbt_project.yml``."""
    project = yaml.safe_load((DBT_PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))
    return dict(project.get("vars") or {})


class Settings(BaseSettings):
    """Where things live, and the numbers. ``Settings()`` reads the environment; tests pass values."""

    model_config = SettingsConfigDict(env_prefix="BAAS_", frozen=True, extra="forbid")

    home: Path = Field(default=Path(".baas"), description="Everything the platform writes lives below this folder.")
    landing: Path | None = Field(default=None, description="Where deliveries arrive; default `landing` below home.")
    overrides_file: Path | None = Field(
        default=None,
        description="CSV device_no,decision,layout_id,value: made by hand; default decision_overrides.csv in home.",
    )

    # --- intake ---
    first_month: str = Field(
        default=FIRST_MONTH,
        pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
        description="Rows before this month are rejected; not before the first month there are partitions of.",
    )
    max_member_bytes: int = Field(
        default=32 * 2**30, description="Bytes unpacked per archive member: a fleet's month of 1 s rows is about 20 GB."
    )
    max_file_bytes: int = Field(default=128 * 2**30, description="Bytes unpacked per landing file.")
    max_run_bytes: int = Field(
        default=1024 * 2**30, description="Bytes unpacked per run: what one disk of this class can take in."
    )
    max_archive_depth: int = Field(default=3, description="ZIPs in ZIPs deeper than this are refused (DOMAIN 2).")
    worker_threads: int = Field(default=2, ge=1, description="Chunks parsed at the same time; one per core.")

    # --- structure checks that keep a partition out (DESIGN 1) ---
    max_rejected_share: float = Field(default=0.05, description="Share of rejected rows above which a month is gated.")
    max_conflicting_share: float = Field(
        default=0.20, description="Share of times delivered twice with different content above which a month is gated."
    )
    max_interleaved_share: float = Field(
        default=0.02,
        description="Share of rows at which the odometer falls by 1 km or more, or the cell count changes, above which "
        "two cars are interleaved. Real cars: 12 falls in 50,000 rows (0.02 %); two cars mixed row by row: 50 %.",
    )

    # --- decisions ---
    min_sign_evidence: int = Field(
        default=20, description="Row pairs with a current step before the sign of the current is believed."
    )
    min_sign_confidence: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of what speaks for a sign of the current less what speaks against it, below which there is "
        "none: at 0.5 a quarter speaks against. 633 simulated months at 2 to 30 s: 0.93 and more.",
    )

    # --- charging sites ---
    site_radius_m: float = Field(
        default=120.0, gt=0, description="Sessions this near to each other are one site: 100-150 m (DOMAIN 5)."
    )
    site_min_sessions: int = Field(default=3, ge=1, description="Sessions that make a place a site (DOMAIN 5).")

    # --- runs ---
    max_keys_per_run: int = Field(default=300, description="Partitions of one range run: events cost 16 ms a key.")
    max_rows_per_run: int = Field(
        default=2_000_000, description="BMS rows of one range run: bounds the memory of the window functions."
    )
    duckdb_memory: str = Field(default="1GB", description="DuckDB's memory limit; past it, it spills to disk.")
    duckdb_threads: int = Field(default=2, ge=1, description="DuckDB's threads.")
    lock_timeout_s: float = Field(default=600.0, description="How long to wait for another process's warehouse lock.")

    @field_validator("first_month")
    @classmethod
    def _has_partitions(cls, month: str) -> str:
        """An earlier month would let rows in that no partition can hold."""
        if month < FIRST_MONTH:
            raise ValueError(f"there are no partitions before {FIRST_MONTH}")
        return month

    # --- paths ---
    @cached_property
    def root(self) -> Path:
        """The absolute BAAS_HOME."""
        return self.home.expanduser().absolute()

    @cached_property
    def landing_dir(self) -> Path:
        """The folder of deliveries; never written to."""
        return (self.landing or self.root / "landing").expanduser().absolute()

    @cached_property
    def lake(self) -> Path:
        """Delivered slices, raw partitions and rejected rows."""
        return self.root / "lake"

    @cached_property
    def warehouse(self) -> Path:
        """The private DuckDB file."""
        return self.root / "warehouse.duckdb"

    @cached_property
    def publish(self) -> Path:
        """What BI tools read."""
        return self.root / "publish"

    @cached_property
    def released(self) -> Path:
        """Released versions (OCV curves) and the list of active ones."""
        return self.root / "released"

    @cached_property
    def outcomes(self) -> Path:
        """What workshops reported: an input, like the landing."""
        return self.root / "outcomes"

    @cached_property
    def dagster_home(self) -> Path:
        """Dagster's own storage, where the user has not set DAGSTER_HOME."""
        return self.root / "dagster"

    @cached_property
    def overrides(self) -> Path:
        """Decisions made by hand."""
        return (self.overrides_file or self.root / "decision_overrides.csv").expanduser().absolute()

    def numbers_hash(self) -> str:
        """Hash of every number that changes a figure; part of all fingerprints."""
        names = ["first_month", "max_rejected_share", "max_conflicting_share", "max_interleaved_share"]
        names += ["min_sign_evidence", "min_sign_confidence", "site_radius_m", "site_min_sessions"]
        text = json.dumps([{n: getattr(self, n) for n in names}, sql_vars()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
