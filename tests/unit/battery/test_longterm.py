"""The long-term simulator keeps its own books, and the statistics run on a few cars."""

from __future__ import annotations

import numpy as np
import polars as pl

from acceptance.battery_statistics import statistics_sections
from baas_dagster.simulator.longterm import draw_long_cars, live
from baas_dagster.simulator.packs import PACKS


def test_counters_follow_the_truth_within_gain_and_offset() -> None:
    rng = np.random.default_rng(1)
    cars = draw_long_cars(rng, PACKS["egmp_180"], 2, 3)
    history = live(cars, 3, rng)
    assert set(history.truth["measured_month"]) == {"2021-01", "2021-02", "2021-03"}
    for _, rows in history.periods.group_by("device_no"):
        assert (rows["from_at"].diff().drop_nulls().dt.total_seconds() > 0).all()
        assert (rows["charged_total_first_ah"].diff().drop_nulls() >= 0).all()
        assert rows["soc_last_pct"].is_between(0, 100).all()
        assert (rows["from_at"].shift(-1) >= rows["to_at"]).drop_nulls().all()


def test_the_same_seed_gives_the_same_history() -> None:
    def once() -> pl.DataFrame:
        rng = np.random.default_rng(5)
        return live(draw_long_cars(rng, PACKS["truck_90"], 2, 2), 2, rng).periods

    assert once().equals(once())


def test_a_car_fades_along_its_path() -> None:
    cars = draw_long_cars(np.random.default_rng(2), PACKS["egmp_180"], 1, 4, ("flat", "normal", "fast", "knee"))
    lost = cars.soh_pct(0.0) - cars.soh_pct(3.0)
    assert lost[0] == 0
    assert 1.5 <= lost[1] <= 12
    assert lost[2] == 18
    assert lost[3] > 4.5


def test_statistics_name_every_figure() -> None:
    sections = statistics_sections(3, cars=2, months=6, special=4, packs=("egmp_180", "lfp_108"))
    assert len(sections) == 4
    assert sections[3].figures
    names = [figure.name for figure in sections[0].figures]
    assert any("lfp_108" in name for name in names)
    assert len(names) == len(set(names))
