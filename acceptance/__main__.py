"""`python -m acceptance [PART]`: measure, write `docs/acceptance.md`, and say what was missed.

Ends with 0 when everything was measured, whatever the figures are: misses stand in the page, by name.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from dagster import BetaWarning, PreviewWarning

from baas_dagster.settings import PROJECT_ROOT

PARTS = ("chain", "battery", "anomalies", "operation")
_MADE = ("chain", "battery", "anomalies")


def main() -> int:
    """Run the parts asked for (all of them without an argument); the exit code."""
    parser = argparse.ArgumentParser(prog="python -m acceptance", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="one part; all without")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulated fleets")
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / "docs" / "acceptance.md")
    parser.add_argument("--keep", type=Path, help="folder in which deliveries, truth and homes stay")
    asked = parser.parse_args()
    if asked.part is not None and asked.part not in _MADE:
        print(f"{asked.part}: nothing to accept yet")
        return 0
    for category in (BetaWarning, PreviewWarning):
        warnings.simplefilter("ignore", category)
    from acceptance import anomalies, battery, chain
    from acceptance.page import IMAGES, image, misses, put, render
    from acceptance.runs import Runs

    accepts = {"chain": chain.accept, "battery": battery.accept, "anomalies": anomalies.accept}
    page = asked.out.read_text(encoding="utf-8") if asked.out.exists() else ""
    with tempfile.TemporaryDirectory(prefix="acceptance-") as temporary:
        runs = Runs(asked.seed, asked.keep or Path(temporary))
        for part in [asked.part] if asked.part else _MADE:
            started = time.monotonic()
            sections = accepts[part](runs)
            page = put(page, part, render(part, sections, asked.seed, time.monotonic() - started, asked.out.stem))
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(page, encoding="utf-8")
            for plot in (plot for section in sections for plot in section.plots):
                (asked.out.parent / IMAGES).mkdir(exist_ok=True)
                plot.draw(asked.out.parent / image(asked.out.stem, plot))
            for title, figure in misses(sections):
                print(f"MISSED {part}: {title}: {figure.name}: {figure.measured} (target {figure.target})")
    print(f"written: {asked.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
