"""The fixed reference sizes of faults: what strength 1 is.

Belongs here: one table, whatever any detector's setting is. Does not belong here: how a fault looks (``inject`` for
logs, ``simulator.faults`` for simulated cars), lines of detectors.

Source of every size: DOMAIN 7, "A detector is measured with injected faults of a fixed reference size".
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BENCH_STRENGTHS", "PRESENT_OR_ABSENT", "REFERENCE", "Reference", "size_of"]

BENCH_STRENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Multiples of the reference at which a detector is measured (issue 5)."""


@dataclass(frozen=True)
class Reference:
    """Size of a fault: ``base`` + ``step`` x strength, or ``step`` / strength where less is worse."""

    step: float
    unit: str
    base: float = 0.0
    is_inverse: bool = False

    def at(self, strength: float) -> float:
        """Size at a strength; ValueError for one that is none."""
        if not strength > 0:
            raise ValueError(f"a strength is above 0, not {strength}")
        return self.step / strength if self.is_inverse else self.base + self.step * strength


REFERENCE: dict[tuple[str, str], Reference] = {
    ("CELL_OUTLIER", ""): Reference(25.0, "mV"),  # one cell low, all the time
    ("CELL_LOWEST", ""): Reference(25.0, "mV"),  # the same
    ("CELL_SELF_DISCHARGE", ""): Reference(20.0, "mA"),  # one cell leaks, all the time
    ("CELL_SPREAD", ""): Reference(100.0, "mV"),  # one cell apart on charge
    ("TEMP_SPREAD", ""): Reference(8.0, "K"),  # one module warmer under load
    ("TEMP_HIGH", ""): Reference(5.0, "degC", base=45.0),  # hottest module, for 10 min
    ("TEMP_RISE", ""): Reference(3.0, "K/min"),  # one module, for 3 min
    ("INSULATION_LOW", ""): Reference(300.0, "Ohm/V", is_inverse=True),
    ("SOC_JUMP", ""): Reference(6.0, "points"),  # without charge moved
    ("SOH_FADE", ""): Reference(4.0, "%/yr"),  # more than the type
    ("COUNTER_DRIFT", "asymmetry"): Reference(3.0, "%"),  # of charge against discharge
    ("COUNTER_DRIFT", "offset"): Reference(0.3, "A"),  # of the current sensor
}
"""(code, variant) -> what strength 1 is. Codes with one kind of size have the variant ''."""

PRESENT_OR_ABSENT = (
    "TEMP_SENSOR", "SENSOR_FROZEN", "DEVICE_SILENT", "COUNTER_RESET", "CELL_OVERVOLT", "CELL_UNDERVOLT", "SOC_LOW",
    "FAULT_OR_SENSOR",
)  # fmt: skip
"""Faults that are there or not: they have no strength."""


def size_of(code: str, strength: float | None, variant: str = "") -> tuple[float | None, str]:
    """Size and unit of a fault; (None, '') for one that is present or absent. KeyError for an unknown code.

    ``variant`` counts only where it stands in the table: how a low cell comes about does not change its size.
    """
    if code in PRESENT_OR_ABSENT:
        return None, ""
    reference = REFERENCE.get((code, variant)) or REFERENCE[code, ""]
    if strength is None:
        raise ValueError(f"{code} has a size: it needs a strength")
    return reference.at(strength), reference.unit
