"""Windows of the plainest networks, many in one call: to the bit those that are made singly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.online.draws import ByRows, Run, Trained, tensors_of
from torch import Tensor, nn

import bptt

_core = pytest.importorskip("bptt._core")

CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "rnn": nn.RNNCell,
    "without bias": partial(nn.RNNCell, bias=False),
    "elman": bptt.cells.Elman,
    "by rows": ByRows,
}


class OneBias(nn.Module):
    """A step with a single bias."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.inward = nn.Linear(input_size, hidden_size)
        self.onward = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return torch.tanh(self.inward(input) + self.onward(state))


CELLS["one bias"] = OneBias


@st.composite
def methods(draw: st.DrawFn) -> Any:
    combine = draw(st.sampled_from(["sum", "mean"]))
    if draw(st.booleans()):
        return bptt.SlidingWindow(draw(st.integers(1, 6)), combine=combine)
    depth = draw(st.integers(1, 6))
    return bptt.Truncated(
        depth,
        draw(st.integers(1, depth)),
        loss=draw(st.sampled_from(["new", "last", "all"])),
        context=draw(st.sampled_from(["carried", "recomputed"])),
        combine=combine,
    )


@st.composite
def plainest(draw: st.DrawFn) -> Run:
    """A network, method, optimizer and data whose windows the kernel makes."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    least = 8 if dtype == torch.float32 else 4
    hidden = draw(st.sampled_from([w * least for w in (1, 2, 4, 8) if w * least >= 8]))
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    seed = draw(st.integers(0, 2**20))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = CELLS[draw(st.sampled_from(sorted(CELLS)))](inputs, hidden)
        network = bptt.Network(
            cell,
            nn.Linear(hidden, outputs, bias=draw(st.booleans())),
            learn_initial_state=draw(st.booleans()),
        ).to(dtype)
    method = draw(methods())
    generator = torch.Generator().manual_seed(seed)
    steps = draw(st.integers(30, 150))
    given = torch.randn(steps, inputs, generator=generator).to(dtype)
    kind = draw(st.sampled_from(["mse", "mae", "huber", "indices", "shares"]))
    wanted = torch.randn(steps, outputs, generator=generator).to(dtype)
    if kind == "indices":
        wanted = torch.randint(0, outputs, (steps,), generator=generator)
    elif kind == "shares":
        wanted = wanted.softmax(1)
    options: dict[str, Any] = {"horizon": 1 if isinstance(method, bptt.SlidingWindow) else 0}
    gaps = draw(st.sampled_from([0.0, 0.0, 0.02, 0.2]))
    if gaps:
        options["mask"] = torch.rand(steps, generator=generator) >= gaps
    rate, upward = draw(st.sampled_from([0.01, 0.3])), draw(st.booleans())
    return Run(
        network,
        method,
        "cross_entropy" if kind in ("indices", "shares") else kind,
        lambda parameters: torch.optim.SGD(parameters, rate, maximize=upward),
        None,
        lambda: bptt.Stream(given, wanted, **options),
    )


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plainest(), st.integers(2, 70))
def test_many_windows_in_one_call_are_those_made_one_by_one(run: Run, some: int) -> None:
    one_by_one, many, all_at_once = (Trained(run.copy()) for _ in range(3))
    kernels = []
    for trained, at_once in ((one_by_one, 1), (many, some), (all_at_once, 10_000)):
        trained.native(10_000, at_once, to_the_end=True)
        kernels.append(trained.is_classic)
    assert all(kernels)
    for trained in (many, all_at_once):
        assert trained.losses == one_by_one.losses
        assert trained.norms == one_by_one.norms
        assert trained.refused == one_by_one.refused
        for name, value in tensors_of(one_by_one).items():
            assert torch.equal(tensors_of(trained)[name], value), name


def fitted(run: Run) -> bool:
    trained = Trained(run.copy())
    trained.native(5, 5)
    return trained.is_classic


def test_which_networks_are_the_plainest() -> None:
    def run(cell: nn.Module, readout: nn.Module | None, **changed: Any) -> Run:
        series = torch.randn(40, 2)
        target = torch.randn(40, 5 if readout is None else 2)
        network = bptt.Network(cell, readout)
        plain = Run(
            network,
            bptt.Truncated(4, 2),
            "mse",
            lambda parameters: torch.optim.SGD(parameters, 0.1),
            None,
            lambda: bptt.Stream(series, target),
        )
        return replace(plain, **changed)

    def elman() -> nn.Module:
        return bptt.cells.Elman(2, 16)

    def readout() -> nn.Module:
        return nn.Linear(16, 2)

    assert fitted(run(elman(), readout()))
    assert not fitted(run(bptt.cells.GRU(2, 16), readout()))
    assert not fitted(run(bptt.cells.Elman(2, 17), nn.Linear(17, 2)))
    assert not fitted(run(bptt.cells.Elman(2, 16, nonlinearity="relu"), readout()))
    assert not fitted(run(bptt.cells.Elman(2, 5), None))
    assert not fitted(run(elman(), nn.Sequential(readout(), nn.Tanh())))
    assert not fitted(run(elman(), nn.Sequential(readout(), nn.Linear(2, 2))))
    assert not fitted(run(elman(), readout(), clip=1.0))
    assert not fitted(run(elman(), readout(), method=bptt.Truncated(2, 3)))
    for optimizer in (
        partial(torch.optim.Adam, lr=0.1),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    ):
        assert not fitted(run(elman(), readout(), optimizer=optimizer))
    frozen = run(elman(), readout())
    next(frozen.network.parameters()).requires_grad_(False)
    assert not fitted(frozen)
    tied = run(elman(), readout())
    tied.network.cell.bias_hh = tied.network.cell.bias_ih
    assert not fitted(tied)
