"""The anomaly codes: what each is called, in which unit, about what, and what a mechanic is told.

Belongs here: names, units and words (English, Korean). Does not belong here: lines and windows (``rules``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CODES", "Code", "Family", "Item"]


class Item(StrEnum):
    """What an episode is about."""

    CELL = "cell"
    MODULE = "module"
    CAR = "car"


class Family(StrEnum):
    """Which channel an episode needs; a broken sensor hides the families that read its channel."""

    CELLS = "cells"
    TEMPERATURE = "temperature"
    INSULATION = "insulation"
    CHARGE = "charge"  # SoC, current, counters
    HEALTH = "health"
    FLEET = "fleet"


@dataclass(frozen=True)
class Code:
    """One code. ``en`` and ``ko`` are told with {item} and {value}; ``action`` says what to do."""

    item: Item
    family: Family
    unit: str
    en: str
    ko: str
    is_at_once: bool = False  # one reading is the whole finding: a value that lasted, an estimate with its interval, an
    # audit of months, a gated month; other codes want several windows (DOMAIN 7)
    is_sensor: bool = False  # opens at 1, rises to 2 while it hides a channel another episode needs (DOMAIN 7)


_CELL, _MODULE, _CAR = Item.CELL, Item.MODULE, Item.CAR

CODES: dict[str, Code] = {
    "CELL_OUTLIER": Code(
        _CELL, Family.CELLS, "mV", "cell {item} rests {value} mV off the pack", "셀 {item}: 팩 중앙값 대비 {value} mV"
    ),
    "CELL_LOWEST": Code(
        _CELL, Family.CELLS, "%", "cell {item} is the lowest in {value} % of rest rows and falling",
        "셀 {item}: 휴지 행의 {value} %에서 최저, 하락 중",
    ),
    "CELL_SPREAD": Code(
        _CELL, Family.CELLS, "mV", "cells are {value} mV apart on charge, cell {item} furthest",
        "충전 중 셀 편차 {value} mV, 셀 {item} 최대",
    ),
    "CELL_SELF_DISCHARGE": Code(
        _CELL, Family.CELLS, "mA", "cell {item} discharges itself by {value} mA", "셀 {item}: 자가방전 {value} mA"
    ),
    "CELL_OVERVOLT": Code(_CELL, Family.CELLS, "V", "cell {item} reached {value} V", "셀 {item}: 과전압 {value} V"),
    "CELL_UNDERVOLT": Code(_CELL, Family.CELLS, "V", "cell {item} fell to {value} V", "셀 {item}: 저전압 {value} V"),
    "TEMP_SPREAD": Code(
        _MODULE, Family.TEMPERATURE, "K", "module {item} is {value} K apart from the others",
        "모듈 {item}: 온도 편차 {value} K",
    ),
    "TEMP_HIGH": Code(
        _MODULE, Family.TEMPERATURE, "degC", "module {item} reached {value} degC", "모듈 {item}: 최고 온도 {value} °C"
    ),
    "TEMP_RISE": Code(
        _MODULE, Family.TEMPERATURE, "K/min", "module {item} rises by {value} K/min against the others",
        "모듈 {item}: 타 모듈 대비 {value} K/분 상승", is_at_once=True,
    ),
    "TEMP_SENSOR": Code(
        _MODULE, Family.TEMPERATURE, "K", "temperature sensor {item} sticks or jumps ({value} K)",
        "온도 센서 {item}: 고착 또는 튐 ({value} K)", is_sensor=True,
    ),
    "INSULATION_LOW": Code(
        _CAR, Family.INSULATION, "Ohm/V", "insulation is {value} Ohm/V", "절연 저항 {value} Ω/V"
    ),
    "SENSOR_FROZEN": Code(
        _CAR, Family.CHARGE, "min", "voltage and current stand still for {value} min while driving",
        "주행 중 {value}분간 전압·전류 고정", is_sensor=True,
    ),
    "SOC_JUMP": Code(
        _CAR, Family.CHARGE, "points", "SoC jumps by {value} points without charge", "충방전 없이 SoC {value}%p 급변"
    ),
    "SOC_LOW": Code(_CAR, Family.CHARGE, "%", "SoC fell to {value} %", "SoC {value} %까지 저하"),
    "FAULT_OR_SENSOR": Code(
        _CAR, Family.FLEET, "", "a value outside of what physics allows lasts: {value}",
        "물리 한계를 벗어난 값 지속: {value}", is_at_once=True,
    ),
    "SOH_LOW": Code(
        _CAR, Family.HEALTH, "%", "state of health {value} %", "SOH {value} %", is_at_once=True
    ),
    "SOH_FADE": Code(
        _CAR, Family.HEALTH, "%/yr", "state of health falls by {value} points a year", "SOH 연 {value}%p 하락",
        is_at_once=True,
    ),
    "POWER_FADE": Code(
        _CAR, Family.HEALTH, "1", "power has faded: resistance or limit {value} x worse than its type or start",
        "출력 저하: 저항 또는 출력 한계가 기준 대비 {value}배 나쁨",
    ),
    "SOC_BIAS": Code(
        _CAR, Family.HEALTH, "points", "SoC is {value} points off the rest voltage",
        "SoC가 휴지 전압 대비 {value}%p 차이", is_at_once=True,
    ),
    "COUNTER_DRIFT": Code(
        _CAR, Family.CHARGE, "%", "charge counters drift ({value} %)", "적산 카운터 드리프트 ({value} %)",
        is_sensor=True, is_at_once=True,
    ),
    "COUNTER_RESET": Code(
        _CAR, Family.CHARGE, "", "lifetime counters started anew", "누적 카운터 초기화",
        is_sensor=True, is_at_once=True,
    ),
    "DEVICE_SILENT": Code(
        _CAR, Family.FLEET, "d", "no data for {value} days", "{value}일간 데이터 없음", is_sensor=True, is_at_once=True,
    ),
    "PARTITION_GATED": Code(
        _CAR, Family.FLEET, "", "a month was kept out by its checks", "검사 불합격으로 제외된 월 있음",
        is_sensor=True, is_at_once=True,
    ),
}  # fmt: skip
