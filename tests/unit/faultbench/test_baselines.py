"""The baselines' scores and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import pytest

from baas_dagster.anomaly.rows import NO_VALUE, Car, Rows
from baas_dagster.faultbench.baselines import GBT_BITS, auroc, gbt_alarms, gbt_score, spread_score

CAR = Car("01290000001", "NMC", cell_count=4)


def rows(n: int = 200) -> Rows:
    rng = np.random.default_rng(1)
    cells = (3_800 + 20 * rng.integers(0, 2, (n, 4))).astype(np.int16)
    temps = np.full((n, 3), 200, dtype=np.int16)
    columns = {"soc_pct": np.full(n, 60.0), "insulation_kohm": np.full(n, 1000.0), "pack_voltage_v": np.full(n, 400.0)}
    return Rows(np.arange(n) * 10.0, columns, cells, temps)


def test_perfect_order_is_one_reversed_is_zero_and_no_order_is_a_half() -> None:
    labels = [False, False, True, True]
    assert auroc([1, 2, 3, 4], labels) == 1.0
    assert auroc([4, 3, 2, 1], labels) == 0.0
    assert auroc([7, 7, 7, 7], labels) == 0.5


def test_it_is_the_share_of_pairs_in_the_right_order_with_ties_half() -> None:
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(0, 6, 60).astype(float), rng.uniform(size=60) < 0.3
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[labels] for b in scores[~labels]]
    assert auroc(scores.tolist(), labels.tolist()) == pytest.approx(np.mean(pairs))
    assert auroc((10 * scores - 3).tolist(), labels.tolist()) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("scores", "labels"), [([1.0, 2.0], [True, True]), ([1.0, float("nan")], [True, False]), ([1.0], [True, False])]
)
def test_what_cannot_be_compared_is_refused(scores: list[float], labels: list[bool]) -> None:
    with pytest.raises(ValueError, match=r"cars|score"):
        auroc(scores, labels)


def test_a_healthy_car_raises_no_bit_and_each_fault_its_own() -> None:
    assert gbt_score([rows()], CAR) == 0.0
    n = 200
    wrong = {
        "temperature difference": lambda r: r.module_temp_dc.__setitem__((5, 0), 320),
        "high temperature": lambda r: r.module_temp_dc.__setitem__(5, 560),
        "cell overvoltage": lambda r: r.cell_mv.__setitem__(5, 4_300),
        "cell undervoltage": lambda r: r.cell_mv.__setitem__(5, 2_700),
        "SoC low": lambda r: r.columns["soc_pct"].__setitem__(slice(None), 4.0),
        "SoC jump": lambda r: r.columns["soc_pct"].__setitem__(slice(100, None), 66.0),
        "insulation": lambda r: r.columns["insulation_kohm"].__setitem__(5, 150.0),
        "cell consistency": lambda r: r.cell_mv.__setitem__((5, 2), 3_480),
    }
    assert tuple(wrong) == GBT_BITS
    for bit, (name, spoil) in enumerate(wrong.items()):
        spoilt = rows(n)
        spoil(spoilt)
        raised = gbt_alarms(spoilt, CAR).any(axis=0)
        assert raised.tolist() == [i == bit for i in range(len(GBT_BITS))], name
        assert 1 < gbt_score([rows(n), spoilt], CAR) <= 1.5


def test_missing_values_raise_nothing_and_lfp_has_limits_of_its_own() -> None:
    empty = rows()
    assert empty.cell_mv is not None
    empty.cell_mv[:] = NO_VALUE
    bare = Rows(empty.t_s, {}, empty.cell_mv, None)
    assert gbt_score([bare], CAR) == 0.0
    assert spread_score([bare]) == 0.0
    assert gbt_score([rows()], Car("x", "LFP")) > 1.0  # 3.8 V is too much for LFP


def test_the_spread_score_is_the_largest_deviation_of_a_row_from_the_cars_own() -> None:
    spoilt = rows()
    assert spoilt.cell_mv is not None
    spoilt.cell_mv[7, 1] = 3_600
    spread = (spoilt.cell_mv.max(axis=1) - spoilt.cell_mv.min(axis=1)).astype(float)
    assert spread_score([spoilt]) == pytest.approx((spread.max() - spread.mean()) / spread.std())
    assert spread_score([spoilt]) > 5 * spread_score([rows()])
    assert spread_score([]) == 0.0
