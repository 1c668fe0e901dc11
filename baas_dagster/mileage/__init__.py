"""Mileage of one device from the pieces of its whole history.

Belongs here: what a cut between two pieces means (glitch, rollback, gap, freeze, teleport) and how many kilometres lie
where. Does not belong here: row rules and pieces (dbt staging and intermediate), calendar days, months and grades (dbt
marts), storage.
"""

from baas_dagster.mileage.odometer import OdometerRules, Stitched, stitch

__all__ = ["OdometerRules", "Stitched", "stitch"]
