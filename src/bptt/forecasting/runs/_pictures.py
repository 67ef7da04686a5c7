"""Pictures of a run: the loss over epochs, prediction against truth on the test part, and how
several starts ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bptt.drawing import Pictures, canvas, plain, save
from bptt.drawing import label as label_of
from bptt.forecasting.data._tables import Floats
from bptt.forecasting.runs._train import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STARTS = "starts.png"
TRUTH, NETWORK, LINEAR, QUIET = "#222222", "#d1495b", "#2e86ab", "#8d8d8d"

MOST = 4
"""Series that are drawn."""


def pictures(result: Result) -> Pictures:
    """What there is to be drawn, by the names of the files, each with what draws it."""
    drawn: Pictures = {"loss.png": partial(_draw, result, _loss, 7.0)}
    drawn["prediction.png"] = partial(_predictions, result)
    if result.history.starts:
        drawn[STARTS] = partial(_draw, result, _starts, 7.0)
    return drawn


def _draw(result: Result, paint: Callable[[Axes, Result], None], width: float, path: Path) -> None:
    figure = canvas(width, 4.5)
    axes = figure.add_subplot()
    plain(axes)
    paint(axes, result)
    save(figure, path)


def _loss(axes: Axes, result: Result) -> None:
    history = result.history
    epochs = [epoch.epoch for epoch in history.epochs]
    axes.plot(epochs, history.losses, color=QUIET, label="training")
    start = history.initial_validation
    assert start is not None
    axes.plot([0, *epochs], [start, *history.validations], color=NETWORK, label="validation")
    kept = history.best_epoch
    best = start if kept == 0 else history.validations[kept - 1]
    axes.plot([kept], [best], "o", color=NETWORK, label=f"kept: epoch {kept}")
    axes.axhline(start, color=LINEAR, linestyle="--", linewidth=1, label="validation, at the start")
    shown = [start, *history.losses, *history.validations]
    if max(shown) > 20 * max(min(shown), 1e-12):
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{result.plan.options.loss} loss (scaled units)")
    axes.set_title("Loss over epochs")
    axes.legend(frameon=False)


def _predictions(result: Result, path: Path) -> None:
    """Of each series by itself; of many, the first ones."""
    series, judged = result.plan.series, result.plan.split.judged
    found = np.full(len(series), np.nan)
    found[judged] = result.prediction
    shown = [
        (label, span.start + np.flatnonzero(judged[span]))
        for span, label in zip(series.spans, series.labels, strict=True)
        if judged[span].any()
    ]
    shown, others = shown[:MOST], len(shown) - MOST
    figure = canvas(10.0, 4.5 if len(shown) == 1 else 2.6 * len(shown) + 1.0)
    for i, (label, rows) in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, i + 1)
        plain(axes)
        _prediction(axes, result, rows, found[rows], label)
        if i == 0:
            more = f" (and {others} more series)" if others > 0 else ""
            axes.set_title(_title(result) + more)
    axes.set_xlabel(label_of(series.axis_name))
    save(figure, path)


def _prediction(
    axes: Axes, result: Result, rows: NDArray[np.intp], prediction: Floats, name: str
) -> None:
    series = result.plan.series
    place, truth = series.axis[rows], series.target[rows]
    axes.plot(place, truth, ".-", color=TRUTH, linewidth=1.1, markersize=4, label="truth")
    delivered = result.metrics[0]
    own = {one.name: one.rmse for one in result.groups}
    axes.plot(
        place,
        prediction,
        color=NETWORK,
        linewidth=1.6,
        label=f"{delivered.name}: RMSE {own.get(name, delivered.rmse):.3g}",
    )
    axes.set_ylabel(label_of(f"{series.target_name}, {name}" if name else series.target_name))
    axes.margins(x=0.01)
    if np.issubdtype(series.axis.dtype, np.datetime64):
        # Steps that go on over the end of a month put no label upon that of the first.
        from matplotlib.dates import AutoDateLocator

        axes.xaxis.set_major_locator(AutoDateLocator(interval_multiples=False))  # type: ignore[no-untyped-call]  # untyped in matplotlib
    known = truth[np.isfinite(truth)] if np.isfinite(truth).any() else prediction
    span = float(known.max() - known.min()) or 1.0
    # Room above the curves for the legend.
    axes.set_ylim(top=max(float(known.max()), float(prediction.max())) + 0.18 * span)
    axes.legend(frameon=False, loc="upper left", ncols=2)


def _starts(axes: Axes, result: Result) -> None:
    history = result.history
    before = history.initial_validation
    assert before is not None  # every start begins as the linear path
    ended = [start for start in history.starts if start.error is None]
    for start in ended:
        kept = start.number == history.start
        curve = [before, *start.losses]
        color, width, order = (NETWORK, 1.8, 3) if kept else (QUIET, 0.9, 2)
        label = f"kept: start {start.number}" if kept else None
        axes.plot(range(len(curve)), curve, color=color, linewidth=width, zorder=order, label=label)
        axes.plot([start.epoch], [start.loss], "o", color=color, markersize=5, zorder=order)
    axes.plot([], [], "o-", color=QUIET, linewidth=0.9, markersize=5, label="others, and their end")
    axes.axhline(before, color=LINEAR, linestyle="--", linewidth=1, label="at the start")
    shown = [before, *(loss for start in ended for loss in start.losses)]
    if max(shown) > 20 * max(min(shown), 1e-12):
        axes.set_yscale("log")
    failed = len(history.starts) - len(ended)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {result.plan.options.loss} loss (scaled units)")
    axes.set_title(f"{len(history.starts)} starts{f', {failed} failed' if failed else ''}")
    axes.legend(frameon=False)


def _title(result: Result) -> str:
    options, series = result.plan.options, result.plan.series
    steps = f"{options.ahead} step{'s' * (options.ahead != 1)} ahead"
    if options.simulate:
        what = "simulated" if options.ahead == 0 else f"simulated, {steps}"
    else:
        what = f"predicted {steps}"
    plan = result.plan
    part = "test part" if plan.split.tests else "validation part"
    source = series.source if plan.tested is None else plan.tested
    return f"{label_of(source)}: {label_of(series.target_name)} {what}, {part}"
