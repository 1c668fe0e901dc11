"""Every detector of the platform. A new one is a module of its own, a settings block in ``rules`` and one line here."""

from __future__ import annotations

from baas_dagster.anomaly import health
from baas_dagster.anomaly.detector import Detector

__all__ = ["DETECTORS"]

DETECTORS: tuple[Detector, ...] = (health.DETECTOR,)
