"""The worked example of docs/add_a_detector.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baas_dagster.anomaly import codes
from baas_dagster.anomaly.detector import Context, Detector
from baas_dagster.anomaly.episodes import episodes
from baas_dagster.anomaly.rows import Car, Rows
from baas_dagster.anomaly.rules import RULES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "add_a_detector.md"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Detector:
    """The detector of the page; its code is registered for one test."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    monkeypatch.setitem(codes.CODES, "AUX_LOW", names["AUX_LOW"])
    found = names["DETECTOR"]
    assert isinstance(found, Detector)
    return found


def rows(volts: list[float]) -> Rows:
    """Ten rows a day at one voltage."""
    t = np.array([day * 86_400.0 + i * 60 for day in range(len(volts)) for i in range(10)])
    return Rows(t, {"aux_voltage_v": np.repeat(np.array(volts), 10)})


def test_the_example_finds_a_battery_that_runs_low(example: Detector) -> None:
    context = Context(Car("01290007002"), RULES)
    assert example.windows is not None
    low = example.windows(rows([12.6, 11.4, 11.4, 11.4]), context.car, RULES)
    found = episodes("01290007002", example.readings(low, context))
    assert found.select("code", "severity", "worst_value").rows() == [("AUX_LOW", 2, 11.4)]
    healthy = example.windows(rows([12.6] * 4), context.car, RULES)
    assert episodes("01290007002", example.readings(healthy, context)).is_empty()


def test_the_example_says_when_it_cannot_judge(example: Detector) -> None:
    assert example.windows is not None
    none = example.windows(rows([float("nan")] * 3), Car("01290007002"), RULES)
    assert example.unjudged(none, Context(Car("01290007002"), RULES)) == {"AUX_LOW": "no 12 V voltage delivered"}


def test_one_row_alone_is_noise(example: Detector) -> None:
    one = rows([12.6] * 4)
    one.columns["aux_voltage_v"][15] = 9.0
    assert example.windows is not None
    assert example.windows(one, Car("01290007002"), RULES)["value"].to_list() == [12.6] * 4
