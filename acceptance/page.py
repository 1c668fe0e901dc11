"""The page `docs/acceptance.md`: figures, targets, met or missed.

Belongs here: turning sections into Markdown. Does not belong here: measuring.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version

import polars as pl

from acceptance.figures import Figure, Plot, Section

__all__ = ["IMAGES", "TITLES", "image", "misses", "put", "render"]

IMAGES = "img"
"""Folder of the plots, beside the page."""

TITLES = {
    "chain": "Chain: from delivery to published mileage",
    "battery": "Battery: charging, driving, capacity and state of health",
    "anomalies": "Anomalies: faults found, false episodes, the inspection queue",
}
"""Part -> its heading."""

_VERDICT = {True: "met", False: "**MISSED**", None: ""}
_LIBRARIES = ("dagster", "dbt-core", "dbt-duckdb", "duckdb", "polars")


def misses(sections: Sequence[Section]) -> list[tuple[str, Figure]]:
    """Title of the section and figure, of every target that was missed."""
    return [(s.title, f) for s in sections for f in s.figures if f.is_met is False]


_HEAD = """# Acceptance

Written by `make accept`: simulated fleets go through the whole chain, from delivered files to the published
snapshot, and what was published is compared with what the simulated cars really did. A missed target is
shown as missed.
"""


def put(page: str, part: str, text: str) -> str:
    """The page with the block of one part replaced; the blocks of other parts stay as they were measured."""
    blocks = {name: _block(page, name) for name in TITLES} | {part: text}
    marked = [f"<!-- {name} -->\n{blocks[name]}<!-- end of {name} -->\n" for name in TITLES if blocks[name]]
    return "\n".join([_HEAD, *marked])


def _block(page: str, part: str) -> str:
    _, begin, rest = page.partition(f"<!-- {part} -->\n")
    return rest.partition(f"<!-- end of {part} -->")[0] if begin else ""


def image(page: str, plot: Plot) -> str:
    """Where a plot lies, from its page (file name without suffix); pages of other seeds have their own."""
    return f"{IMAGES}/{page}-{plot.name}"


def render(part: str, sections: Sequence[Section], seed: int, took_s: float, page: str = "acceptance") -> str:
    """The block of one part as Markdown; ``page``: file name without suffix."""
    figures = [f for section in sections for f in section.figures]
    met, missed = (sum(f.is_met is verdict for f in figures) for verdict in (True, False))
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    lines = [
        f"## {TITLES[part]}",
        "",
        f"**{met} met, {missed} missed.** Seed {seed}, {took_s / 60:.0f} min on {os.cpu_count()} cores; {libraries}.",
    ]
    if missed:
        lines += ["", "Missed:", ""]
        lines += [f"* {title}: {figure.name} ({figure.measured})" for title, figure in misses(sections)]
    for section in sections:
        lines += ["", f"### {section.title}", "", section.about, ""]
        if section.figures:
            lines += ["| figure | target | measured | |", "|---|---|---|---|"]
            lines += [f"| {f.name} | {f.target} | {f.measured} | {_VERDICT[f.is_met]} |" for f in section.figures]
        for plot in section.plots:
            lines += ["", f"![{plot.shows}]({image(page, plot)})"]
        for detail in section.details:
            lines += ["", f"{detail.title}:", "", *_table(detail.rows)]
    return "\n".join(lines) + "\n"


def _table(rows: pl.DataFrame) -> list[str]:
    lines = ["| " + " | ".join(rows.columns) + " |", "|" + "---|" * rows.width]
    lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in rows.iter_rows()]
    return lines


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value).replace("|", "/")
