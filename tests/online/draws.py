"""Random training runs that the core must make as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from tests.engine.zoo import ZOO
from torch import Tensor, nn

import bptt
from bptt.training._eligible import why_not
from bptt.training._history import History, Progress
from bptt.training._native import Pass
from bptt.training._step import Stepper

FEATURES, HIDDEN = 3, 5

Maker = Callable[[Any], torch.optim.Optimizer]


class ByRows(nn.Module):
    """The state times a matrix, not times its transpose."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.inward = nn.Parameter(torch.randn(input_size, hidden_size) / 2)
        self.onward = nn.Parameter(torch.randn(hidden_size, hidden_size) / hidden_size**0.5)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(input @ self.inward + state @ self.onward)


PLAINEST = {
    "rnn": nn.RNNCell,
    "elman": bptt.cells.Elman,
    "relu": partial(bptt.cells.Elman, nonlinearity="relu"),
    "by rows": ByRows,
}
"""Cells whose loop over time is one call of a kernel, where lanes and widths are right."""


@dataclass
class Run:
    """A training run that can be made anew."""

    network: bptt.Network
    method: Any
    loss: str
    optimizer: Maker
    clip: float | None
    stream: Callable[[], bptt.Stream]

    def copy(self) -> Run:
        """The same, with weights of its own."""
        return Run(
            deepcopy(self.network),
            deepcopy(self.method),
            self.loss,
            self.optimizer,
            self.clip,
            self.stream,
        )


@st.composite
def optimizers(draw: st.DrawFn) -> Maker:
    kind = draw(st.sampled_from(["sgd", "adam", "adamw", "rmsprop"]))
    options: dict[str, Any] = {
        "lr": draw(st.sampled_from([0.01, 0.1])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "maximize": draw(st.booleans()),
    }
    if kind == "sgd":
        options["momentum"] = draw(st.sampled_from([0.0, 0.9]))
        nesterov = options["momentum"] > 0 and draw(st.booleans())
        options["nesterov"] = nesterov
        options["dampening"] = 0.0 if nesterov else draw(st.sampled_from([0.0, 0.3]))
        return lambda p: torch.optim.SGD(p, **options)
    if kind == "rmsprop":
        options["momentum"] = draw(st.sampled_from([0.0, 0.5]))
        options["centered"] = draw(st.booleans())
        options["alpha"] = draw(st.sampled_from([0.9, 0.99]))
        return lambda p: torch.optim.RMSprop(p, **options)
    options["amsgrad"] = draw(st.booleans())
    options["betas"] = draw(st.sampled_from([(0.9, 0.999), (0.5, 0.8)]))
    if kind == "adam":
        return lambda p: torch.optim.Adam(p, **options)
    return lambda p: torch.optim.AdamW(p, **options)


@st.composite
def methods(draw: st.DrawFn) -> Any:
    combine = draw(st.sampled_from(["sum", "mean"]))
    if draw(st.integers(0, 3)) == 0:
        return bptt.SlidingWindow(draw(st.integers(1, 4)), combine=combine)
    return bptt.Truncated(
        draw(st.integers(1, 6)),
        draw(st.integers(1, 7)),
        loss=draw(st.sampled_from(["new", "last", "all"])),
        context=draw(st.sampled_from(["carried", "recomputed"])),
        combine=combine,
    )


def _targets(loss: str, steps: int, classes: int, generator: torch.Generator) -> Tensor:
    if loss == "cross_entropy":
        return torch.randint(0, classes, (steps,), generator=generator)
    values = torch.randn(steps, classes, generator=generator, dtype=torch.float64)
    return values.softmax(1) if loss == "shares" else values


@st.composite
def runs(draw: st.DrawFn, zoo: Mapping[str, Any] = ZOO, widths: Sequence[int] = (HIDDEN,)) -> Run:
    """Cell, readout, loss, optimizer, method and data."""
    hidden = draw(st.sampled_from(widths))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**20, (), generator=generator)))
        cell = zoo[draw(st.sampled_from(sorted(zoo)))](FEATURES, hidden).double()
        kind = draw(st.sampled_from(["none", "linear", "linear", "network"]))
        classes = hidden if kind == "none" else draw(st.integers(1, 4))
        readout: nn.Module | None = None
        if kind == "linear":
            readout = nn.Linear(hidden, classes).double()
        elif kind == "network":
            readout = nn.Sequential(
                nn.Linear(hidden, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, classes)
            ).double()
        clip_state = draw(st.sampled_from([None, None, 0.05]))
        network = bptt.Network(
            cell,
            readout,
            learn_initial_state=draw(st.booleans()),
            clip_state_gradient=clip_state,
        )
    if draw(st.integers(0, 5)) == 0:
        next(network.parameters()).requires_grad_(False)
    loss = draw(st.sampled_from(["mse", "mae", "huber", "cross_entropy", "shares"]))
    method = draw(methods())
    sliding = isinstance(method, bptt.SlidingWindow)
    horizon = 1 if sliding else draw(st.integers(0, 2))
    count = draw(st.sampled_from([1, 1, 3, 5]))
    least = 12 if sliding else 8  # a window on each of two lanes
    lengths = [int(n) for n in torch.randint(least, 22, (count,), generator=generator)]
    inputs = [torch.randn(n, FEATURES, generator=generator, dtype=torch.float64) for n in lengths]
    targets = [_targets(loss, n, classes, generator) for n in lengths]
    masks = [torch.rand(n, generator=generator) < 0.7 for n in lengths]
    options: dict[str, Any] = {"horizon": horizon, "burn_in": draw(st.sampled_from([0, 0, 2]))}
    if draw(st.booleans()):
        options["mask"] = masks[0] if count == 1 else masks
    given: Any = (inputs, targets) if count > 1 else (inputs[0], targets[0])
    if count > 1 and draw(st.booleans()):
        options["batch"] = 2
    else:
        options["lanes"] = (
            draw(st.integers(1, 2)) if sliding or count > 1 else draw(st.integers(1, 3))
        )
    return Run(
        network,
        method,
        "cross_entropy" if loss == "shares" else loss,
        draw(optimizers()),
        draw(st.sampled_from([None, None, 0.1])),
        lambda: bptt.Stream(*given, **options),
    )


class Trained:
    """A run under way, one way or the other."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.network, self.method = run.network, run.method
        self.optimizer = run.optimizer(p for p in run.network.parameters() if p.requires_grad)
        self.stream = run.stream()
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.is_classic = False
        self.refused: str | None = None

    def take_over(self, other: Trained) -> None:
        """Stand where another run stands."""
        self.network.load_state_dict(other.network.state_dict())
        self.optimizer.load_state_dict(deepcopy(other.optimizer.state_dict()))
        self.method.load_state_dict(deepcopy(other.method.state_dict()))
        self.stream.load_state_dict(other.stream.state_dict())

    def eager(self, updates: int) -> bptt.Update | None:
        """So many updates through PyTorch, of the pass at hand; the last one."""
        self.network.backend = "eager"  # the oracle of all executors, and it traces nothing
        stepper = Stepper(self.network, self.optimizer, self.run.clip)
        progress = Progress(self.network, self.optimizer, History())
        last = None
        if updates == 0:
            return None
        for update in self.method.updates(self.network, self.run.loss, self.stream):
            self.norms.append(stepper.apply(update, progress))
            self.losses.append(update.loss)
            last = update
            if len(self.losses) == updates:
                break
        return last

    def native(self, updates: int, at_once: int, *, to_the_end: bool = False) -> bptt.Update | None:
        """The same in the core, in stretches of ``at_once``; ``to_the_end``: or until refused."""
        assert why_not(self.network, self.method, self.run.loss, self.optimizer) is None
        passage = Pass(
            self.network,
            self.method,
            self.run.loss,
            self.optimizer,
            self.run.clip,
            self.stream,
            lambda: (min(at_once, updates - len(self.losses)), 10.0),
        )
        last = None
        for stretch in passage.stretches():
            self.losses += passage._numbers[0][: len(stretch.totals)].tolist()
            self.norms += passage._numbers[1][: len(stretch.totals)].tolist()
            last = stretch.update
            assert passage._bound is not None
            self.is_classic = passage._bound[0].core.is_classic
            if len(self.losses) == updates:
                break
        self.refused = passage.refused
        assert to_the_end or passage.refused is None, passage.refused
        return last


def tensors_of(trained: Trained) -> dict[str, Tensor]:
    """Everything that training changes, by name."""
    found = dict(trained.network.state_dict())
    for i, state in trained.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                found[f"optimizer.{i}.{name}"] = torch.as_tensor(value)
    for name, value in trained.method.state_dict()["tensors"].items():
        found[f"method.{name}"] = value
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """Equal by name, relative to the largest element of each tensor."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = max(float(value.abs().max()), 1e-6) if value.numel() else 1.0
        apart = float((value.double() - other[name].double()).abs().max()) if value.numel() else 0.0
        assert apart <= tolerance * scale, f"{name}: {apart / scale:.2e}"
