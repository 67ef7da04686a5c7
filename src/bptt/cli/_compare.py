"""``bptt compare``: the same network by several training methods, under one budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.markup import escape
from torch import nn

from bptt import _ending, cells, tasks
from bptt.cli._forecast import read_series
from bptt.cli._place import check_outs
from bptt.cli._show import at_work, say, show_comparison
from bptt.comparison import Budget, Comparison, check, compare
from bptt.drawing import apart
from bptt.errors import at_least
from bptt.files import check_writable, make_folder, shown
from bptt.forecasting import Scaling, Series
from bptt.network import Network
from bptt.streams import Stream

ADDING = (30, 100)
"""Steps and sequences of the adding problem that stands beside the sunspots."""

CELLS = {"gru": cells.GRU, "lstm": cells.LSTM, "elman": cells.Elman}


@dataclass(frozen=True)
class Source:
    """Where the data come from, and which columns of them."""

    data: Path | None
    inputs: tuple[str, ...]
    target: str | None
    missing: str
    time: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Options:
    """What is compared, and how long."""

    methods: tuple[str, ...]
    budget: str
    starts: int
    horizon: int
    cell: str
    hidden: int
    depth: int
    rate: float
    target_loss: float | None
    seed: int


def run(source: Source, options: Options, out: Path, force: bool, quiet: bool) -> None:
    """Compare on ``source``, or on the two tasks that the package carries; leave table, picture and
    JSON in ``out``."""
    at_least(1, horizon=options.horizon, hidden=options.hidden)
    check_writable(out)
    names = ("comparison",) if source.data else ("sunspots", "adding")
    outs = [out / f"{name}.{ending}" for name in names for ending in ("json", "png")]
    absent = check_outs(outs, force, data=source.data)
    series = read_series(
        source.data, source.inputs, source.target, source.missing, source.time, source.group
    )
    if source.data is None:
        named = {"sunspots": _task(series, options), "adding": _adding(options)}
    else:
        named = {"comparison": _task(series, options)}
    budget = Budget.of(options.budget)
    runs = 0
    for _, network, stream in named.values():
        rivals = check(network, stream, options.methods, "mse", options.depth, options.rate)
        runs += len(rivals) * options.starts
    say(_cost(runs, budget))
    at_work()
    for file, (name, network, stream) in named.items():
        say(
            f"[bold]{escape(name)}[/bold]: {stream.steps} steps, "
            f"{sum(p.numel() for p in network.parameters())} weights"
        )
        found = compare(
            network,
            stream,
            options.methods,
            budget=options.budget,
            starts=options.starts,
            depth=options.depth,
            rate=options.rate,
            target=options.target_loss,
            seed=options.seed,
            name=name,
            progress=not quiet,
        )
        show_comparison(found)
        check_outs([path for path in absent if path.stem == file], force, data=source.data)
        _write(found, out, file)


def _cost(runs: int, budget: Budget) -> str:
    """What the command will take."""
    each = f"{runs} run{'s' * (runs != 1)} of {budget}"
    if budget.seconds is None:
        return each
    seconds = runs * budget.seconds
    return f"{each}: about {seconds:.0f} s" if seconds < 100 else f"{each}: {seconds / 60:.0f} min"


def _write(found: Comparison, out: Path, file: str) -> None:
    make_folder(out)
    found.to_json(out / f"{file}.json")
    _ending.note(f"Written to {shown(out)}: {file}.json.")
    drawn = apart(out, {f"{file}.png": found.figure})
    names = ", ".join([f"{file}.json", *(path.name for path in drawn)])
    _ending.note(f"Written to {shown(out)}: {names}.")
    say(f"Written to [bold]{escape(shown(out))}[/bold]: {names}\n")


def _task(series: Series, options: Options) -> tuple[str, Network, Stream]:
    """Predict the target from its past and the inputs, all scaled."""
    scaling = Scaling.fit(series, len(series))
    features, target = scaling.features(series), scaling.scale(series.target)
    parts = [features, target[:, None], target == target]
    if len(series.begins) > 1:
        inputs, targets, mask = ([part[span] for span in series.spans] for part in parts)
    else:
        inputs, targets, mask = parts
    stream = Stream(
        inputs,
        targets,
        horizon=options.horizon,
        mask=mask,
        dtype=torch.float64,
    )
    name = f"{series.source}, {options.horizon} step{'s' * (options.horizon != 1)} ahead"
    return name, _network(options, features.shape[1]), stream


def _adding(options: Options) -> tuple[str, Network, Stream]:
    length, count = ADDING
    stream = tasks.adding(length, count, seed=options.seed, dtype=torch.float64)
    return f"adding problem, {length} steps", _network(options, 2), stream


def _network(options: Options, features: int) -> Network:
    # Line searches compare losses that are nearly equal: float64.
    cell = CELLS[options.cell](features, options.hidden, dtype=torch.float64)
    return Network(cell, nn.Linear(options.hidden, 1, dtype=torch.float64))
