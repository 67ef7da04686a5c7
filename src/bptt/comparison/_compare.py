"""`compare`: the same network from the same starts, by each method, under one budget."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from bptt._counting import counting
from bptt.comparison._meter import Budget, Meter, Spent
from bptt.comparison._methods import Rival, chosen, refuse_unfit
from bptt.comparison._result import Comparison, Run
from bptt.errors import NonFiniteError, OptionError, at_least
from bptt.gradients import Full
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable
from bptt.segments import undrawn
from bptt.streams import Stream
from bptt.training import Progress, evaluate, fit
from bptt.training._progress import bar as progress_bar
from bptt.training._starts import draw_anew

DEFAULT = ("full", "truncated", "l-bfgs", "least-squares", "evolution", "cma-es")

SAMPLES = 1.08
"""Losses are measured whenever what is spent has grown by this factor, off the clock."""

OFTEN = 0.005
"""Seconds: whether to measure is not asked more often, but at first."""


def compare(
    network: Network,
    stream: Stream,
    methods: Sequence[str | Rival] = DEFAULT,
    *,
    budget: str | float = "10s",
    starts: int = 3,
    loss: Loss = "mse",
    depth: int = 25,
    rate: float = 0.01,
    target: float | None = None,
    seed: int = 0,
    name: str = "",
    progress: bool = True,
) -> Comparison:
    """Train a network by several methods under one budget, and see what each makes of it.

    Every run has the budget to itself. The loss is that of the whole stream with the weights of
    the moment, measured off the clock; of a run its lowest so far counts.

    Args:
        network: cell and readout; stays as it is. Starts are drawn by ``reset_parameters()``.
        stream: what is trained on and judged by.
        methods: names of `bptt.comparison.METHODS`, or a `Rival` of your own.
        budget: ``"60s"``, ``"2min"`` or a float: seconds for each run; ``"1e6"`` or a whole
            number: evaluations of the cell, forward, one step of one lane each.
        starts: how many initial weights, the same for all methods.
        loss: as `bptt.fit` takes it.
        depth: of truncated, sliding-window; the stride of the forward methods.
        rate: the learning rate of Adam, a tenth of it for sliding-window and uoro, whose updates
            are many or noisy.
        target: the loss to reach; default: nine tenths of the way that full BPTT (else the first
            method) goes at its median.
        seed: of the starts.
        name: of the task, for titles.
        progress: show a bar.

    Raises:
        OptionError, CellError, DataError: a method does not go with the network or the data; what
            would is named.
    """
    at_least(1, starts=starts)
    if target is not None and not target > 0:
        raise OptionError(f"target must be a loss above 0, not {target}.")
    rivals, limit = check(network, stream, methods, loss, depth, rate), Budget.of(budget)
    runs = []
    total = len(rivals) * starts
    with progress_bar(total=total, enabled=progress, unit="run") as bar:
        for start in range(starts):
            drawn = _start(network, seed, start)
            for rival in rivals:
                bar.set_description_str(f"{rival.name}, start {start + 1}")
                runs.append(_run(copy.deepcopy(drawn), stream, rival, limit, loss, start, bar))
    return Comparison(runs, limit, target, name, loss if isinstance(loss, str) else "loss")


def check(
    network: Network,
    stream: Stream,
    methods: Sequence[str | Rival],
    loss: Loss = "mse",
    depth: int = 25,
    rate: float = 0.01,
) -> list[Rival]:
    """The methods, or the error that `compare` would raise before any work."""
    check_trainable(network)
    step_loss(loss)
    at_least(1, depth=depth)
    if not rate > 0:
        raise OptionError(f"rate must be above 0, not {rate}.")
    rivals = chosen(methods, depth, rate)
    for rival in rivals:
        refuse_unfit(rival, copy.deepcopy(network), stream, loss)
    return rivals


def _start(network: Network, seed: int, start: int) -> Network:
    drawn = copy.deepcopy(network)
    with undrawn():
        torch.manual_seed(seed + start)
        draw_anew(drawn)
    return drawn


@dataclass
class _Sampler:
    """Called after every update: the loss of the whole stream, every so often, off the clock."""

    network: Network
    stream: Stream
    loss: Loss
    meter: Meter
    run: Run
    bar: tqdm[None]
    shown: float = 0.0
    every: int = field(default=1, init=False)
    called: float = field(default=0.0, init=False)

    def __call__(self, progress: Progress | None = None) -> None:
        spent, seconds = self.meter.evaluations, self.meter.seconds
        # Some methods make an update in microseconds, a stretch of them in one call of the core.
        if seconds - self.called < OFTEN:
            self.every *= 2
        self.called = seconds
        last = (self.run.seconds or [0.0])[-1]
        if progress is None or not self.run.seconds or seconds > last * SAMPLES:
            with self.meter.free():
                found = evaluate(self.network, self.stream, self.loss).loss
            self.run.add(seconds, spent, found)
        self.advance(min(self.meter.share, 1.0))

    def advance(self, share: float) -> None:
        """Move the bar to this share of the run."""
        self.bar.update(share - self.shown)
        self.shown = share


def _run(
    network: Network,
    stream: Stream,
    rival: Rival,
    budget: Budget,
    loss: Loss,
    start: int,
    bar: tqdm[None],
) -> Run:
    """One method from one start."""
    rival, stream = copy.deepcopy((rival, stream))
    run = Run(rival.name, start)
    # The engine's tracing is no training: it is done before the clock starts.
    next(iter(Full().updates(network, loss, copy.deepcopy(stream))))
    network.zero_grad()
    meter = Meter(budget)
    sampler = _Sampler(network, stream, loss, meter, run, bar)
    sampler()
    try:
        with counting(meter):
            fit(
                network,
                stream,
                method=rival.method,
                loss=loss,
                optimizer=rival.optimizer,
                epochs=10**9,
                clip=rival.clip,
                callbacks=[sampler],
                progress=False,
                seed=start,
            )
    except Spent:
        run.note = "budget spent"
    except NonFiniteError:
        run.note = "diverged"
    sampler()
    sampler.advance(1.0)
    return run
