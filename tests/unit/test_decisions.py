"""Sign, scale, cells and sensors from what the rows say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from baas_dagster.telemetry.decisions import DeviceDecisions, decide, evidence, read_overrides

T0 = datetime(2023, 1, 5, 8)


def drive(sign: int = 1, scale: float = 1.0, cells: int = 96, dt_s: int = 5, layout: str = "psql-1") -> pl.DataFrame:
    """40 minutes of stop and go, then 40 of charging: voltage 3.7 V a cell plus 60 mOhm x current (charge positive)."""
    n = 2 * 2400 // dt_s
    rng = np.random.default_rng(3)
    current = np.where(np.arange(n) < n // 2, rng.choice([-80.0, -20.0, 30.0, 0.0], n), 40.0)
    amp_h = np.cumsum(current) * dt_s / 3600
    volt = np.round(cells * 3.7 + 0.06 * current + 0.2 * amp_h, 1)
    return pl.DataFrame(
        {
            "time": [T0 + timedelta(seconds=dt_s * i) for i in range(n)],
            "pack_current": sign * current,
            "pack_volt": volt / scale,
            "soc": np.round(2 * (60 + amp_h / 1.8)) / 2,
            "emobility_spd": np.where(np.arange(n) < n // 2, 50.0, 0.0),
            "cumul_current_chrgd": np.round(1000 + np.cumsum(np.clip(current, 0, None)) * dt_s / 3600, 1),
            "cumul_current_dischrgd": np.round(900 + np.cumsum(np.clip(-current, 0, None)) * dt_s / 3600, 1),
            "cell_n": np.full(n, cells, dtype=np.int16),
            "cell_sum_mv": np.round(volt * 1000).astype(np.int32),
            "cell_max_mv": np.round(volt / cells * 1000).astype(np.int16),
            "mod_temp_dc": [[250, 260 + (i // 100) * 10, 2150, 0, -400] for i in range(n)],
            "insul_resistance": np.full(n, 3000.0),
            "layout_id": [layout] * n,
        },
        schema_overrides={"time": pl.Datetime("us"), "mod_temp_dc": pl.List(pl.Int16)},
    )


def decided(frames: list[pl.DataFrame], car_type: str | None = None, **by_hand: str) -> DeviceDecisions:
    """Decisions of a car whose months are `frames`, from 2023-01 on."""
    pieces: dict[str, dict[str, dict[str, object]]] = {}
    for number, rows in enumerate(frames, 1):
        for layout, found in evidence(rows).items():
            pieces.setdefault(layout, {})[f"2023-{number:02d}"] = found
    overrides: Mapping[tuple[str, str | None], str] = {(k, None): v for k, v in by_hand.items()}
    return decide("01290001001", pieces, car_type, overrides, min_sign_evidence=20, min_sign_confidence=0.5)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_sign_and_scale_are_found_without_any_flag(sign: int, scale: float) -> None:
    found = decided([drive(sign, scale)])
    assert found.value("current_sign", "psql-1") == str(sign)
    assert found.value("voltage_scale", "psql-1") == f"{scale:g}"


@pytest.mark.parametrize("witness", ["pack_volt", "soc", "counters"])
def test_one_witness_of_the_sign_is_enough(witness: str) -> None:
    rows = drive(-1)
    silent = {"pack_volt": ["pack_volt"], "soc": ["soc"], "counters": ["cumul_current_chrgd", "cumul_current_dischrgd"]}
    gone = [c for name, columns in silent.items() if name != witness for c in columns]
    rows = rows.with_columns(pl.lit(None, dtype=pl.Float64).alias(c) for c in gone)
    assert decided([rows] * 4).value("current_sign", "psql-1") == "-1"


def test_a_voltage_that_is_missing_in_most_rows_votes_for_no_sign() -> None:
    rows = drive().with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.col("pack_volt")).alias("pack_volt")
    )  # fmt: skip
    found = decided([rows])
    assert found.value("current_sign", "psql-1") == "1"
    made = next(d for d in found.decisions if d.decision == "current_sign")
    assert (made.evidence["step_agree"], made.evidence["step_oppose"]) == (0, 0)


def test_a_car_that_shows_nothing_gets_no_sign() -> None:
    rows = drive().with_columns(pl.lit(0.0).alias("pack_current"))
    found = decided([rows])
    assert found.value("current_sign", "psql-1") is None
    assert all(d.confidence == 0 for d in found.decisions if d.decision == "current_sign")


def test_an_export_with_too_little_follows_the_other_exports_and_says_so() -> None:
    short = drive(-1, layout="csv-2").head(3)
    found = decided([drive(-1), short])
    assert found.value("current_sign", "csv-2") == "-1"
    made = next(d for d in found.decisions if d.decision == "current_sign" and d.layout_id == "csv-2")
    assert made.confidence < 0.5
    assert made.evidence["from"] == "other layouts"


def test_each_export_has_its_own_sign() -> None:
    found = decided([drive(1), drive(-1, layout="csv-2")])
    assert found.value("current_sign", "psql-1") == "1"
    assert found.value("current_sign", "csv-2") == "-1"


def signs_by_month(found: DeviceDecisions) -> dict[str | None, str | None]:
    return {d.measured_month: d.value for d in found.decisions if d.decision == "current_sign"}


def test_a_month_in_which_the_same_export_turns_the_current_round_has_its_own_sign() -> None:
    months = [drive(1)] * 4 + [drive(-1)]
    assert signs_by_month(decided(months)) == {None: "1", "2023-05": "-1"}
    assert signs_by_month(decided(months[::-1])) == {None: "1", "2023-01": "-1"}


def test_an_export_that_says_both_has_no_sign_but_its_clear_months_do() -> None:
    found = decided([drive(1), drive(-1), drive(1).head(3)])
    assert signs_by_month(found) == {None: None, "2023-01": "1", "2023-02": "-1"}, "the third month is no guess"


def test_a_month_that_says_both_has_no_sign() -> None:
    later = drive(-1).with_columns(pl.col("time") + timedelta(hours=3))
    assert signs_by_month(decided([drive(1)] * 4 + [pl.concat([drive(1), later])])) == {None: "1", "2023-05": None}


def test_an_export_with_too_little_follows_no_exports_that_disagree() -> None:
    found = decided([drive(1), drive(-1, layout="csv-2"), drive(1, layout="csv-3").head(3)])
    assert found.value("current_sign", "csv-3") is None


def test_the_scale_of_a_car_without_cells_comes_from_the_voltage_itself() -> None:
    rows = drive(scale=0.1).with_columns(
        pl.lit(None, dtype=pl.Int32).alias("cell_sum_mv"), pl.lit(None, dtype=pl.Int16).alias("cell_n"),
        pl.lit(None, dtype=pl.Int16).alias("cell_max_mv"),
    )  # fmt: skip
    found = decided([rows])
    assert found.value("voltage_scale", "psql-1") == "0.1"
    assert found.value("cell_count") is None
    assert found.value("pack_type") is None


def test_a_state_of_charge_from_0_to_1_is_known_by_the_charge_that_moves_it() -> None:
    rows = drive()
    assert decided([rows]).value("soc_scale", "psql-1") == "1"
    assert decided([rows.with_columns(pl.col("soc") / 100)]).value("soc_scale", "psql-1") == "100"


def test_an_empty_pack_that_moves_no_charge_stays_empty() -> None:
    empty = drive().with_columns(pl.lit(0.6).alias("soc"))
    assert decided([empty]).value("soc_scale", "psql-1") == "1"
    never = drive().with_columns(pl.lit(None, dtype=pl.Float64).alias("soc"))
    assert decided([never]).value("soc_scale", "psql-1") is None


def test_cells_sensors_and_pack_type_come_from_what_the_rows_hold() -> None:
    found = decided([drive()])
    assert found.value("cell_count") == "96"
    assert found.value("pack_type") == "HK-96S-180AH"
    assert found.value("temp_sensor_map") == "[1,1,0,0,0]", "absent: 215, a sensor that is always 0, and -40"
    assert found.value("temp_sensor_count") == "2"
    assert found.value("insulation_cap_kohm") == "3000"


def test_the_vehicle_master_decides_between_packs_with_the_same_cells() -> None:
    found = decided([drive(cells=192)], car_type="GV60")
    assert found.value("pack_type") == "EGMP-192S-111AH"
    assert found.value("capacity_nominal_ah") == "111.2"


def cells_at(soc_pct: float, cell_mv: int, cells: int, n: int = 1200) -> pl.DataFrame:
    """A month that stays at one state of charge."""
    return drive(cells=cells, dt_s=4).head(n).with_columns(
        pl.lit(soc_pct).alias("soc"), pl.lit(cell_mv, dtype=pl.Int16).alias("cell_max_mv")
    )  # fmt: skip


def test_cells_are_lfp_where_they_stay_low_at_a_high_state_of_charge() -> None:
    empty = cells_at(30, 3250, cells=108)
    found = decided([cells_at(80, 3340, cells=108), empty])
    assert (found.value("chemistry"), found.value("pack_type")) == ("LFP", "LFP-108S")
    found = decided([cells_at(80, 3340, cells=108), empty, cells_at(80, 3900, cells=108)])
    assert (found.value("chemistry"), found.value("pack_type")) == ("NMC", "NMC-108S"), "no LFP cell stands at 3.9 V"


def test_cells_that_were_never_charged_far_are_not_lfp_for_that() -> None:
    found = decided([cells_at(36, 3560, cells=96)])
    assert (found.value("chemistry"), found.value("pack_type")) == ("NMC622", "HK-96S-180AH"), "the registry's"
    found = decided([cells_at(36, 3560, cells=108)])
    assert (found.value("chemistry"), found.value("pack_type")) == (None, None), "no pack of the registry has 108 cells"
    found = decided([cells_at(36, 3250, cells=101)])
    assert (found.value("chemistry"), found.value("pack_type")) == ("LFP", "RAY-LFP")


def test_evidence_adds_up_in_any_order_and_grouping() -> None:
    rows = drive(-1)
    parts = [rows.slice(0, 300), rows.slice(300, 300), rows.slice(600)]
    forward, backward = decided(parts), decided(parts[::-1])
    assert forward == backward


def channels(*, cabin: float, power: float, n: int = 1200) -> pl.DataFrame:
    """Rows of a car that always reports these two channels, and never the coolant."""
    rows = drive(dt_s=4).head(n)
    return rows.with_columns(
        pl.lit(cabin).alias("int_temp"),
        pl.lit(power).alias("batt_pw"),
        pl.lit(None, dtype=pl.Float64).alias("batt_coolant_inlet_temp"),
    )


def test_a_channel_that_is_zero_in_all_rows_is_not_supported() -> None:
    assert decided([channels(cabin=0, power=-0.0)] * 2).value("unsupported_channels") == "batt_pw int_temp"
    assert decided([channels(cabin=21, power=0)]).value("unsupported_channels") == "batt_pw"


def test_one_value_in_any_month_is_enough_to_support_a_channel() -> None:
    still, moving = channels(cabin=0, power=0), channels(cabin=21, power=3, n=1)
    assert decided([still]).value("unsupported_channels") == "batt_pw int_temp"
    for order in ([still, moving], [moving, still]):
        assert decided(order).value("unsupported_channels") == "none"


def test_a_channel_is_not_judged_by_a_few_rows_or_where_it_is_not_delivered() -> None:
    few = channels(cabin=0, power=0, n=500)
    assert decided([few]).value("unsupported_channels") == "none"
    assert decided([few] * 2).value("unsupported_channels") == "batt_pw int_temp", "the rows of all months count"
    assert decided([drive()]).value("unsupported_channels") is None


def flags(*, cable: pl.Expr, fast: pl.Expr) -> pl.DataFrame:
    """A month of driving and charging with these two flags."""
    return drive(dt_s=4).with_columns(cable.alias("chrg_cable_conn"), fast.alias("fast_chrg_port_conn"))


IS_STANDING = pl.col("emobility_spd") == 0


def test_a_flag_that_is_set_while_the_car_drives_is_not_supported() -> None:
    stuck = flags(cable=pl.lit(value=True), fast=IS_STANDING)
    assert decided([stuck]).value("unsupported_channels") == "chrg_cable_conn"
    # a message late now and then makes no difference, nor does a charge in which it falls
    late = flags(cable=pl.int_range(pl.len()) % 20 != 0, fast=pl.int_range(pl.len()) % 20 == 0)
    assert decided([late]).value("unsupported_channels") == "chrg_cable_conn"


def test_a_flag_of_a_car_that_is_never_seen_to_drive_is_believed_unless_it_never_falls() -> None:
    still = flags(cable=pl.lit(value=True), fast=pl.int_range(pl.len()) > 0).with_columns(
        emobility_spd=pl.lit(None, dtype=pl.Float64)
    )
    assert decided([still]).value("unsupported_channels") == "chrg_cable_conn"
    assert decided([still.head(900)]).value("unsupported_channels") == "none", "too little of its life"


def test_the_months_in_which_a_flag_is_right_count_too() -> None:
    stuck = flags(cable=pl.lit(value=True), fast=IS_STANDING)
    right = flags(cable=IS_STANDING, fast=IS_STANDING)
    for order in ([stuck, right], [right, stuck]):
        assert decided(order).value("unsupported_channels") == "none"


def test_a_decision_by_hand_wins_and_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "decision_overrides.csv"
    path.write_text("device_no,decision,layout_id,value\n01290001001,current_sign,psql-1,-1\n", encoding="utf-8")
    by_hand = read_overrides(path)["01290001001"]
    months = {"2023-01": drive(1), "2023-02": drive(1), "2023-03": drive(-1)}
    pieces = {layout: {month: evidence(rows)[layout] for month, rows in months.items()} for layout in ("", "psql-1")}
    found = decide("01290001001", pieces, None, by_hand, min_sign_evidence=20, min_sign_confidence=0.3)
    made = next(d for d in found.decisions if d.decision == "current_sign")
    assert not [d for d in found.decisions if d.measured_month], "it holds for all months"
    assert (made.value, made.is_overridden, made.evidence["without_override"]) == ("-1", True, "1")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1290001001,current_sign,,1", "not 11 digits"),
        ("01290001001,colour,,red", "is none of"),
        ("01290001001,current_sign,,", "no value"),
        ("01290001001,voltage_scale,,ten", "is not a number"),
        ("01290001001,unsupported_channels,,batt_pw colour", "'colour' is no channel of"),
    ],
)
def test_a_bad_override_names_file_line_and_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "decision_overrides.csv"
    path.write_text(f"device_no,decision,layout_id,value\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"decision_overrides.csv line 2: .*{reason}"):
        read_overrides(path)
