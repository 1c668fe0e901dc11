"""A measured figure beside its target, and the tables that explain it.

Belongs here: the shape of a result. Does not belong here: how anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

__all__ = ["Detail", "Figure", "Plot", "Section"]


@dataclass(frozen=True)
class Figure:
    """One line of the page: what was measured, what it had to be, what it is.

    ``is_met`` is None for a figure without a target, or one that could not be measured here (``measured`` says why).
    """

    name: str
    target: str
    measured: str
    is_met: bool | None


@dataclass(frozen=True)
class Detail:
    """A small table below the figures: worst cases, misses."""

    title: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class Plot:
    """A picture that stands beside the page: file name, what it shows, and what draws it into a file."""

    name: str
    shows: str
    draw: Callable[[Path], None]


@dataclass
class Section:
    """The figures of one fleet or one set of logs."""

    title: str
    about: str
    figures: list[Figure] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    def detail(self, title: str, rows: pl.DataFrame) -> None:
        """Add a table, unless it is empty."""
        if rows.height:
            self.details.append(Detail(title, rows))
