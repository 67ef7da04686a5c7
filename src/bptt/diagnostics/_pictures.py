"""Pictures of a diagnosis, one for each part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bptt.diagnostics._dynamics import Dynamics
from bptt.diagnostics._optima import Optima
from bptt.diagnostics._reach import Reach
from bptt.diagnostics._surface import Plane, Surface
from bptt.drawing import apart, canvas, label, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bptt.diagnostics._diagnosis import Diagnosis

NORM = r"$\Vert\partial\,\mathrm{loss}_t\,/\,\partial\,\mathrm{state}_{t-\mathrm{lag}}\Vert$"
BIAS = r"relative error  $\Vert g_d-g\Vert\,/\,\Vert g\Vert$"
DARK, RED, BLUE, GREY = "#222222", "#d1495b", "#2e86ab", "#8d8d8d"


def draw(diagnosis: Diagnosis, folder: Path) -> list[Path]:
    """Write ``reach.png``, ``dynamics.png``, ``surface.png`` and ``optima.png``, of the parts
    that there are, each apart: one that fails is told in a warning.

    Raises:
        BpttError: matplotlib is not installed.
    """
    painters: dict[str, tuple[Callable[[Figure, Any], None], tuple[float, float]]] = {
        "reach": (_reach, (11, 4.5)),
        "dynamics": (_dynamics, (11, 8)),
        "surface": (_surface, (11, 9)),
        "optima": (_optima, (7, 4.5)),
    }
    parts = {name: getattr(diagnosis, name) for name in painters}
    return apart(
        folder,
        {
            f"{name}.png": partial(_draw, *painters[name], part)
            for name, part in parts.items()
            if part is not None
        },
    )


def _draw(
    paint: Callable[[Figure, Any], None], size: tuple[float, float], part: Any, path: Path
) -> None:
    figure = canvas(*size)
    paint(figure, part)
    save(figure, path, dpi=110)


def _plain(axes: Axes, title: str, x: str, y: str) -> Axes:
    plain(axes)
    axes.set_axisbelow(True)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes


def _reach(figure: Figure, reach: Reach) -> None:
    left, right = figure.subplots(1, 2)
    _norms(_plain(left, "Reach of the gradient", "lag (steps)", NORM), reach)
    _truncation(_plain(right, "What truncation costs", "depth d (steps)", BIAS), reach)


def _norms(axes: Axes, reach: Reach) -> None:
    lags = np.arange(reach.lags)
    low, middle, high = (np.where(q > 0, q, np.nan) for q in reach.quantiles.T)
    axes.fill_between(lags, low, high, color=BLUE, alpha=0.2, linewidth=0, label="10 % to 90 %")
    axes.plot(lags, middle, color=BLUE, linewidth=1, label="median")
    mean = np.where(reach.mean > 0, reach.mean, np.nan)
    axes.plot(lags, mean, color=DARK, linewidth=1.6, label=f"mean of {reach.anchors} anchors")
    if reach.by_method is not None:
        felt = np.where(reach.by_method > 0, reach.by_method, np.nan)[: reach.lags]
        name = label(reach.method or "")
        axes.plot(lags[: len(felt)], felt, ":", color=RED, linewidth=2, label=name)
    if reach.mean[0] > 0:
        level = reach.share * reach.mean[0]
        axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"{100 * reach.share:g} % of the start",
            (1, level),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=GREY,
            fontsize=9,
        )
    if reach.fallen is not None:
        axes.axvline(reach.fallen, color=RED, linewidth=1, label=f"fallen: lag {reach.fallen}")
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=9)


def _truncation(axes: Axes, reach: Reach) -> None:
    known = [d for d in reach.depths if d.error > 0]
    if not known:
        axes.text(0.5, 0.5, "no full gradient to compare with", ha="center", color=GREY)
        axes.set_axis_off()
        return
    depths = [d.depth for d in known]
    axes.plot(depths, [d.error for d in known], "o-", color=DARK, label="measured")
    bounded = [(d.depth, d.bound) for d in known if 0 < d.bound < np.inf]
    if bounded:
        axes.plot(*zip(*bounded, strict=True), "--", color=BLUE, label="bound δ(d)")
    axes.axhline(reach.tolerance, color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        f"tolerance {100 * reach.tolerance:g} %",
        (0, reach.tolerance),
        xycoords=("axes fraction", "data"),
        va="bottom",
        color=GREY,
        fontsize=9,
    )
    best = reach.recommended
    if best is not None and best.error > 0:
        axes.plot(best.depth, best.error, "o", color=RED, label=f"recommended: {best.depth}")
    if reach.given is not None and reach.given.error > 0:
        depth = reach.given.depth
        axes.plot(depth, reach.given.error, "s", color=BLUE, label=f"yours: {depth}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    shown = [d for d in depths if d & (d - 1) == 0]
    axes.set_xticks(shown, [str(d) for d in shown], fontsize=9)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=9)


def _dynamics(figure: Figure, dynamics: Dynamics) -> None:
    spectrum, radius, squashed, histogram = figure.subplots(2, 2).flat
    _plain(spectrum, "Lyapunov spectrum", "number of the exponent", "exponent (nepers per step)")
    exponents = dynamics.exponents
    shown = np.isfinite(exponents)
    place = np.arange(1, len(exponents) + 1)
    spectrum.plot(place[shown], exponents[shown], ".-", color=DARK, markersize=4, linewidth=0.8)
    spectrum.axhline(0, color=RED, linewidth=1)
    lost = int((~shown).sum())
    if lost:
        spectrum.plot([], [], " ", label=f"{lost} at −∞, not shown")
        spectrum.legend(frameon=False, fontsize=9)
    _plain(radius, "Spectral radius along the data", "step", "spectral radius of the Jacobian")
    radius.plot(dynamics.radius_steps, dynamics.radius, color=BLUE, linewidth=0.9)
    radius.axhline(1, color=RED, linewidth=1)
    _plain(histogram, "Spectral radius, the same steps", "spectral radius", "steps")
    histogram.hist(dynamics.radius, bins=30, color=BLUE, alpha=0.7)
    histogram.axvline(1, color=RED, linewidth=1)
    _squashed(squashed, dynamics)


def _squashed(axes: Axes, dynamics: Dynamics) -> None:
    _plain(axes, "Saturation", "share of units and steps (%)", "")
    found = dynamics.squashed[:16]
    if not found:
        axes.text(0.5, 0.5, "no sigmoid, tanh or relu", ha="center", transform=axes.transAxes)
        return
    names = [f"{label(s.name)} ({s.kind})" for s in found]
    low, high = ([100 * getattr(s, end) for s in found] for end in ("low", "high"))
    axes.barh(names, low, color=BLUE, label="at the lower end")
    axes.barh(names, high, left=low, color=RED, label="at the upper end")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=9)


def _surface(figure: Figure, surface: Surface) -> None:
    panels = figure.subplots(2, 2)
    titles = {"random": "random directions", "hessian": "directions of largest curvature"}
    for column, plane in enumerate(surface.planes):
        lines, area = panels[0][column], panels[1][column]
        title = titles[plane.kind]
        _plain(lines, f"Loss along {title}", "distance (lengths of the weights)", "loss")
        for line, color, name in zip(plane.lines, (DARK, BLUE), ("first", "second"), strict=True):
            lines.plot(plane.along, line, color=color, linewidth=1.2, label=name)
        lines.plot(0, surface.loss, "o", color=RED, label="the weights")
        if _wide(plane.lines):
            lines.set_yscale("log")
        lines.legend(frameon=False, fontsize=9)
        _area(figure, area, plane, f"Loss on the plane of {title}")


def _wide(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() > 0 and known.max() > 30 * known.min())


def _area(figure: Figure, axes: Axes, plane: Plane, title: str) -> None:
    from matplotlib.colors import LogNorm

    loss = np.ma.masked_invalid(plane.loss)
    norm = LogNorm() if _wide(plane.loss) else None
    axes.set_title(title)
    axes.set_xlabel("first direction (lengths of the weights)")
    axes.set_ylabel("second direction")
    mesh = axes.pcolormesh(plane.places, plane.places, loss, norm=norm, shading="gouraud")
    if norm is None:
        axes.contour(plane.places, plane.places, loss, 12, colors="white", linewidths=0.5)
    axes.plot(0, 0, "o", color=RED, markeredgecolor="white")
    figure.colorbar(mesh, ax=axes, label="loss", shrink=0.9)


def _optima(figure: Figure, optima: Optima) -> None:
    axes = _plain(figure.subplots(), "Where training ends", "start, best first", "end loss")
    place = np.arange(1, len(optima.losses) + 1)
    axes.plot(place, optima.losses, "o", color=BLUE)
    axes.plot(1, optima.losses[0], "o", color=RED, label="best")
    middle = float(np.median(optima.losses))
    axes.axhline(middle, color=GREY, linestyle="--", linewidth=1, label="median")
    if _wide(optima.losses):
        axes.set_yscale("log")
    axes.set_xticks(place) if len(place) < 20 else None
    axes.legend(frameon=False)
