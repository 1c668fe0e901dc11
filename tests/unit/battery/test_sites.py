"""Sites: the same sessions give the same sites, whatever their order; hours add up to sessions."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baas_dagster.battery.sites import SiteRules, site_usage, sites, sites_of_sessions

RULES = SiteRules(radius_m=120, min_sessions=3)
HOME, WORK = (37.5501, 127.0302), (37.4003, 127.1104)


def session(
    number: int, place: tuple[float, float] | None, shift_m: float = 0.0, hours: float = 2.5
) -> dict[str, object]:
    start = datetime(2023, 1, 1, 7, 40) + timedelta(hours=31 * number)
    return {
        "session_id": f"s{number:03d}",
        "device_no": f"0129000000{number % 3}",
        "mode": "DC" if number % 4 == 0 else "AC",
        "started_at": start,
        "ended_at": start + timedelta(hours=hours),
        "connected_at": start - timedelta(minutes=5),
        "disconnected_at": start + timedelta(hours=hours, minutes=40),
        "energy_kwh": 10.0 + number,
        "charging_min": 60 * hours,
        "connected_min": 60 * hours + 45,
        "power_max_kw": 7.0,
        "lat": None if place is None else place[0] + shift_m / 111_195,
        "lng": None if place is None else place[1],
    }


def fleet(count: int = 12) -> pl.DataFrame:
    rows = [session(i, HOME if i % 2 else WORK, shift_m=15.0 * (i % 3)) for i in range(count)]
    return pl.DataFrame([*rows, session(90, (36.0, 128.0)), session(91, None)])


def test_two_places_are_two_sites_and_a_lone_stop_is_none() -> None:
    at = sites_of_sessions(fleet(), RULES)
    assert at.height == 12
    assert at["site_id"].n_unique() == 2
    assert not set(at["session_id"]) & {"s090", "s091"}


@given(st.randoms(use_true_random=False))
def test_the_order_of_sessions_changes_no_site(order: random.Random) -> None:
    rows = fleet().to_dicts()
    order.shuffle(rows)
    shuffled = pl.DataFrame(rows, schema=fleet().schema)
    at, again = sites_of_sessions(fleet(), RULES), sites_of_sessions(shuffled, RULES)
    assert at.equals(again)
    assert sites(fleet(), at).equals(sites(shuffled, again))
    assert site_usage(fleet(), at).equals(site_usage(shuffled, again))


def test_a_site_keeps_its_name_when_sessions_come_to_it() -> None:
    before = sites_of_sessions(fleet(8), RULES)
    after = sites_of_sessions(fleet(12), RULES)
    kept = before.join(after, on="session_id", suffix="_after")
    assert kept.height == 8
    assert (kept["site_id"] == kept["site_id_after"]).all()


def test_two_sites_that_grow_together_keep_the_older_name() -> None:
    rows = [session(i, HOME, shift_m=0.0 if i % 2 else 300.0) for i in range(8)]
    apart = sites_of_sessions(pl.DataFrame(rows), RULES)
    bridge = [session(20 + i, HOME, shift_m=100.0 * (1 + i % 2)) for i in range(6)]
    together = sites_of_sessions(pl.DataFrame(rows + bridge), RULES)
    assert apart["site_id"].n_unique() == 2
    assert together["site_id"].n_unique() == 1
    first = apart.filter(pl.col("session_id") == "s000")["site_id"].item()
    assert together["site_id"].unique().item() == first


def test_hours_add_up_to_the_sessions_of_a_site() -> None:
    at = sites_of_sessions(fleet(), RULES)
    found, usage = sites(fleet(), at), site_usage(fleet(), at)
    sums = usage.group_by("site_id").agg(pl.col("sessions", "energy_kwh", "charging_min", "connected_min").sum())
    joined = found.join(sums, on="site_id", suffix="_hours")
    assert joined["sessions"].to_list() == joined["session_count"].to_list()
    for column in ("energy_kwh", "charging_min", "connected_min"):
        assert joined[f"{column}_hours"].to_list() == pytest.approx(joined[column].to_list(), abs=1e-4)
    assert usage["hour"].is_between(0, 23).all()
    assert usage["weekday"].is_between(1, 7).all()


def test_many_sessions_at_one_plug_are_one_site() -> None:
    rows = [session(i, HOME) for i in range(500)]
    at = sites_of_sessions(pl.DataFrame(rows), RULES)
    assert at.height == 500
    assert at["site_id"].n_unique() == 1


def test_no_session_with_a_place_gives_typed_empty_tables() -> None:
    nowhere = pl.DataFrame([session(1, HOME)]).with_columns(
        lat=pl.lit(None, dtype=pl.Float64), lng=pl.lit(None, dtype=pl.Float64)
    )
    at = sites_of_sessions(nowhere, RULES)
    assert at.is_empty()
    assert sites(nowhere, at).is_empty()
    assert site_usage(nowhere, at).is_empty()


def test_what_nobody_metered_at_a_site_is_not_zero() -> None:
    unmetered = fleet().with_columns(
        energy_kwh=pl.lit(None, dtype=pl.Float64), charging_min=pl.lit(None, dtype=pl.Float64)
    )
    at = sites_of_sessions(unmetered, RULES)
    for table in (sites(unmetered, at), site_usage(unmetered, at)):
        assert table["energy_kwh"].null_count() == table["charging_min"].null_count() == table.height
        assert table["connected_min"].sum() > 0
