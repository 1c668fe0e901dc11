"""Plots of the acceptance page.

Belongs here: drawing what was measured. Does not belong here: measuring.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import polars as pl

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first: there is no screen

__all__ = ["plot_bench"]

_COLUMNS = 5


def plot_bench(summary: pl.DataFrame, found_at: Mapping[float | None, float], target: Path) -> None:
    """Share found against strength, one panel a code, with what is asked for: strength (None: present) -> share.

    ``summary``: code, variant, strength (NULL: present or absent), found_share; such codes have one bar.
    """
    codes = sorted(summary["code"].unique().to_list())
    rows = -(-len(codes) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(13, 2.1 * rows), sharey=True, squeeze=False)
    panels = axes.ravel()
    for panel, code in zip(panels, codes, strict=False):
        mine = summary.filter(pl.col("code") == code)
        panel.set_title(code, fontsize=9)
        panel.set_ylim(-0.04, 1.08)
        panel.grid(visible=True, alpha=0.3)
        if mine["strength"].null_count():
            panel.bar(mine["variant"].replace("", "present"), mine["found_share"], color="tab:blue", width=0.5)
            panel.set_xlim(-1, mine.height)
            panel.axhline(found_at[None], color="tab:red", lw=0.8, ls="--")
            continue
        for (variant,), part in mine.sort("strength").group_by("variant", maintain_order=True):
            panel.plot(part["strength"], part["found_share"], marker="o", ms=4, label=variant or None)
        asked = {strength: share for strength, share in found_at.items() if strength is not None}
        panel.plot(list(asked), list(asked.values()), ls="", marker="_", ms=12, color="tab:red")
        panel.set_xscale("log", base=2)
        panel.set_xticks([0.5, 1, 2, 4], ["0.5 x", "1 x", "2 x", "4 x"])
        if mine["variant"].n_unique() > 1:
            panel.legend(fontsize=7)
    for panel in panels[len(codes) :]:
        panel.set_visible(False)
    figure.suptitle("Share of injected faults found, by multiples of the reference size (red: targets)", fontsize=10)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    plt.close(figure)
