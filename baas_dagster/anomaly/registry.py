"""Every detector of the platform. A new one is a module of its own, a settings block in ``rules`` and one line here."""

from __future__ import annotations

from baas_dagster.anomaly import cells, health, insulation, sensors, temperature
from baas_dagster.anomaly.detector import Detector

__all__ = ["DETECTORS"]

DETECTORS: tuple[Detector, ...] = (
    cells.DETECTOR,
    temperature.DETECTOR,
    insulation.DETECTOR,
    sensors.DETECTOR,
    health.DETECTOR,
)
