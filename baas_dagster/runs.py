"""Running the chain in this process: intake, then every stage whose units the state names, through Dagster's jobs.

Belongs here: the order of stages, executing batches of work, and the summary of a run. Does not belong here: what needs
a run (``state``), how work becomes runs (``automation``), and how the summary looks (``cli``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from baas_dagster.automation import INTAKE, RELEASE, Batch, Stage, batches, free_dead_runs
from baas_dagster.definitions import Platform
from baas_dagster.partitions import DEVICES, PartitionId
from baas_dagster.resources import Warehouse
from baas_dagster.settings import PROJECT_ROOT, Settings
from baas_dagster.state import FLEET_KEY, State, Unit, WorkItem, load

__all__ = ["Asked", "Chain", "Done", "instance_of"]


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance: the user's own DAGSTER_HOME where it is set, else the one below BAAS_HOME."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT_ROOT / "dagster.yaml", settings.dagster_home / "dagster.yaml")
        home = str(settings.dagster_home)
    with dg.DagsterInstance.from_config(str(Path(home).absolute())) as instance:
        yield instance


@dataclass(frozen=True)
class Asked:
    """What a run was asked for: nothing named (what the state says), some partitions, or everything anew."""

    months: tuple[str, str] | None = None
    devices: tuple[str, ...] = ()
    everything: bool = False

    @property
    def is_named(self) -> bool:
        """True where partitions are named, which then run whatever the state says."""
        return self.everything or self.months is not None or bool(self.devices)

    def covers(self, part: PartitionId) -> bool:
        """True where the partition was asked for."""
        in_months = self.months is None or self.months[0] <= part.measured_month <= self.months[1]
        return in_months and (not self.devices or part.device_no in self.devices)


# the event log has everything; the console of a command shows progress and errors of its own
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Done:
    """What a run did: batches per stage, and what failed."""

    runs: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


class Chain:
    """The chain on one instance of Dagster."""

    def __init__(
        self,
        settings: Settings,
        platform: Platform,
        instance: dg.DagsterInstance,
    ) -> None:
        self.settings = settings
        self.definitions = platform.definitions
        self.stages = platform.stages
        self.instance = instance
        self.warehouse = Warehouse.of(settings)

    def run(self, asked: Asked) -> Done:
        """Intake, then stage after stage; each stage looks at the state anew, because the one before changed it."""
        done = Done()
        free_dead_runs(self.instance)
        self._execute(Batch(INTAKE, (), {}, "intake"), done)
        for stage in self.stages:
            state = self.state()
            registered = self._registered(state)
            for batch in batches(stage, self._work(stage, state, asked), registered, state.weight, self.settings):
                self._execute(batch, done)
        return done

    def publish(self) -> Done:
        """Write the snapshot anew."""
        done = Done()
        self._execute(Batch(self.stages[-1], (), {}, "publish"), done)
        return done

    def release(self, *, activate: bool) -> Done:
        """Learn fleet versions from what is up to date; activated ones make the devices they concern stale."""
        done = Done()
        config = {"ops": {RELEASE.assets[0]: {"config": {"activate": activate}}}}
        self._execute(Batch(RELEASE, (), {}, "release"), done, config)
        return done

    def state(self) -> State:
        """The state now."""
        with self.warehouse.open() as connection:
            return load(connection, self.settings)

    def _registered(self, state: State) -> list[str]:
        """Devices in the order of their registration; a lost registration (a new DAGSTER_HOME) is made good."""
        name = str(DEVICES.name)
        registered = list(self.instance.get_dynamic_partitions(name))
        missing = [device for device in state.devices if device not in set(registered)]
        if missing:
            self.instance.add_dynamic_partitions(name, missing)
            registered = list(self.instance.get_dynamic_partitions(name))
        return registered

    def _work(self, stage: Stage, state: State, asked: Asked) -> list[WorkItem]:
        """What the state names, and what was asked for whatever the state says.

        Asking for partitions leaves the others' raw rows and pieces alone, except where a decision of an asked device
        changed: then the run extends to all its months.
        """
        plan = state.plan()
        named = [item for unit in stage.units for item in plan[unit]]
        if not asked.is_named:
            return named
        parts = [p for p in state.partitions if asked.covers(p)]
        devices = {p.device_no for p in parts}
        found: list[WorkItem] = []
        for unit in stage.units:
            wanted = state.wanted[unit]
            if unit is Unit.FLEET:
                keys = [FLEET_KEY] if parts or named else []
            elif unit in (Unit.DECISION, Unit.DEVICE, Unit.HEALTH, Unit.ANOMALY):
                keys = sorted(devices)
            else:
                keys = [p.key for p in parts]
            found += [WorkItem(unit, key, wanted[key], "asked for") for key in keys if key in wanted]
            if unit in (Unit.LOCAL, Unit.EVIDENCE):
                asked_keys = set(keys)
                found += [
                    item
                    for item in named
                    if item.unit is unit
                    and item.key not in asked_keys
                    and PartitionId.parse(item.key).device_no in devices
                    and state.made[Unit.RAW_BMS].get(item.key) == state.held[Unit.RAW_BMS].get(item.key, ("",))[0]
                ]
        return found

    def _execute(self, batch: Batch, done: Done, config: dict[str, Any] | None = None) -> None:
        job = self.definitions.resolve_job_def(batch.stage.job)
        result = job.execute_in_process(
            instance=self.instance, tags=batch.tags, run_config=_QUIET | (config or {}), raise_on_error=False
        )
        done.runs += 1
        done.keys[batch.stage.job] = done.keys.get(batch.stage.job, 0) + len(batch.keys)
        if not result.success:
            for event in result.all_events:
                if event.is_step_failure:
                    error = event.step_failure_data.error
                    cause = error.cause if error and error.cause else error
                    text = (cause.message if cause else "unknown error").strip()
                    details = event.step_failure_data.user_failure_data
                    if details is not None and details.metadata.get("errors") is not None:
                        text += f" {details.metadata['errors'].value}"
                    done.errors.append(f"{batch.stage.job}: {text}")
            if not done.errors:
                done.errors.append(f"{batch.stage.job}: run {result.run_id} failed")
