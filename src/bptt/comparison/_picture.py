"""The picture of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bptt.comparison._result import Comparison
from bptt.drawing import canvas, label, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (
    "#d1495b",
    "#2e86ab",
    "#3a7d44",
    "#edae49",
    "#7b4b94",
    "#444444",
    "#00798c",
    "#a0522d",
    "#8d8d8d",
    "#c2185b",
    "#5c6bc0",
    "#8bc34a",
)
POINTS = 400


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture to ``path``."""
    figure = canvas(12.0, 5.2)
    left, right = figure.subplots(1, 2, sharey=True)
    _paint(left, comparison, "seconds", "training time (s)")
    _paint(right, comparison, "evaluations", "forward evaluations of the cell (steps · lanes)")
    left.set_ylabel(f"{label(comparison.loss)} over the whole stream, lowest so far")
    starts = len(comparison.of(comparison.methods[0]))
    title = label(comparison.name or "Training methods compared")
    figure.suptitle(
        f"{title}: {starts} start{'s' * (starts != 1)}, {comparison.budget} each "
        "(line: median; band: lowest to highest)"
    )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def _paint(axes: Axes, comparison: Comparison, by: str, unit: str) -> None:
    for index, method in enumerate(comparison.methods):
        runs = comparison.of(method)
        last = max(getattr(run, by)[-1] for run in runs)
        first = min((getattr(run, by)[1] for run in runs if getattr(run, by)[1]), default=last)
        if not last:  # no update was made
            continue
        grid = np.geomspace(first, last, POINTS)
        low, middle, high = comparison.band(method, by, grid)
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(grid, middle, color=colour, linewidth=1.8, label=label(method))
        axes.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(
        comparison.target,
        color="#222222",
        linestyle="--",
        linewidth=1,
        label=f"target {comparison.target:.3g}",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(unit)
    axes.grid(color="#e4e4e4", linewidth=0.6, which="both")
    axes.spines[["top", "right"]].set_visible(False)
