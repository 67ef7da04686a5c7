"""`fit` through the core: nobody sees a difference but speed."""

from __future__ import annotations

import os
import signal
import threading
import time
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tests.core.pseudocode import back_propagation_through_time
from torch import nn

import bptt
from bptt.streams._chunk import TensorBatch
from bptt.training import _native
from bptt.training._native import Pass

pytest.importorskip("bptt._core")


def network(
    cell: str = "Elman", dtype: torch.dtype = torch.float64, hidden: int = 6
) -> bptt.Network:
    torch.manual_seed(3)
    made = bptt.Network(getattr(bptt.cells, cell)(2, hidden), nn.Linear(hidden, 1))
    return made.to(dtype)


def data(steps: int = 120, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(steps, 2, generator=generator, dtype=torch.float64).cumsum(0).sin()
    return x.to(dtype), (x[:, :1] * x[:, 1:]).to(dtype)


def stream(steps: int = 120, **options: Any) -> bptt.Stream:
    return bptt.Stream(*data(steps), **{"horizon": 1, **options})


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.5)


def fit(net: bptt.Network, source: bptt.Stream | None = None, **options: Any) -> bptt.History:
    given = {"method": bptt.SlidingWindow(4), "optimizer": sgd, "epochs": 2, "progress": False}
    return bptt.fit(net, stream() if source is None else source, **{**given, **options})


def assert_alike(one: bptt.Network, other: bptt.Network, rtol: float = 1e-9) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


@pytest.fixture
def stretches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many updates each stretch has that the core makes."""
    seen: list[int] = []
    run = Pass.stretches

    def counted(self: Pass) -> Any:
        for stretch in run(self):
            seen.append(len(stretch.norms))
            yield stretch

    monkeypatch.setattr(Pass, "stretches", counted)
    return seen


@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("hidden", [6, 8])  # window by window, and many in one call of a kernel
def test_both_pseudocodes(k: int, combine: str, hidden: int, stretches: list[int]) -> None:
    net = network(hidden=hidden)
    a, y = data(24)
    arrays = [
        {name: p.detach().numpy().copy() for name, p in part.named_parameters()}
        for part in (net.cell, net.readout)
    ]
    steps = list(back_propagation_through_time(a.numpy(), y.numpy(), k, *arrays, 0.05, 2, combine))
    f_weights, g_weights, _ = steps[-1]
    costs = [cost for *_, cost in steps]
    history = fit(
        net,
        bptt.Stream(a, y, horizon=1),
        method=bptt.SlidingWindow(k, combine=combine),
        optimizer=lambda p: torch.optim.SGD(p, 0.05),
    )
    assert sum(stretches) == len(costs) == 2 * (24 - k)
    for part, expected in ((net.cell, f_weights), (net.readout, g_weights)):
        for name, p in part.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=2e-12, atol=2e-13)
    assert history.losses[0] == pytest.approx(np.mean(costs[: 24 - k]), rel=1e-12)


@pytest.mark.parametrize("cell", ["Elman", "GRU", "LSTM"])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_two_hundred_updates_end_to_end(
    cell: str, clip: float | None, stretches: list[int]
) -> None:
    native, eager = network(cell), network(cell)
    histories = []
    for net in (native, eager):
        histories.append(
            fit(
                net,
                method=bptt.Truncated(7, 1, loss="last", context="recomputed"),
                clip=clip,
            )
        )
        eager.backend = "eager"
    assert sum(stretches) == histories[0].epochs[0].updates * 2 >= 200
    assert_alike(native, eager, 1e-10)
    for one, other in zip(histories[0].epochs, histories[1].epochs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-10)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-10)
        assert (one.updates, one.counted) == (other.updates, other.counted)


def test_single_precision_agrees_to_rounding(stretches: list[int]) -> None:
    nets = [network(dtype=torch.float32) for _ in range(2)]
    nets[1].backend = "eager"
    for net in nets:
        fit(net, bptt.Stream(*data(dtype=torch.float32), horizon=1), epochs=1)
    assert sum(stretches) == 116
    assert_alike(*nets, rtol=1e-4)


def test_wide_steps_are_handed_over_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces, steps = network(), network(), []
    fit(whole)
    chunk = TensorBatch.chunk

    def counted(self: TensorBatch, start: int, stop: int) -> Any:
        steps.append(stop - start)
        return chunk(self, start, stop)

    monkeypatch.setattr(_native, "NUMBERS", 30)  # of steps of two inputs and a target
    monkeypatch.setattr(_native, "FEWEST", 7)
    monkeypatch.setattr(TensorBatch, "chunk", counted)
    fit(pieces)
    assert len(steps) > 20
    assert max(steps) <= 10 + 2 * 4
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.equal(a, b)


def test_callbacks_come_at_their_interval_with_everything_up_to_date(stretches: list[int]) -> None:
    native, eager = network(), network()
    eager.backend = "eager"
    seen: list[list[Any]] = []
    for net in (native, eager):
        mine: list[Any] = []
        seen.append(mine)

        def look(progress: bptt.Progress, mine: list[Any] = mine) -> None:
            assert progress.update is not None
            mine.append((progress.updates, progress.update.stop, progress.update.loss))
            mine.append(float(progress.network.cell.weight_hh.sum()))
            buffers = progress.optimizer.state_dict()["state"]
            mine.append(sum(float(s["momentum_buffer"].sum()) for s in buffers.values()))

        look.every = 7
        fit(net, callbacks=[look])
    assert set(stretches) <= set(range(1, 8))
    assert len(seen[0]) == len(seen[1]) == 3 * (232 // 7)
    for one, other in zip(*seen, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_a_callback_may_change_optimizer_and_weights(stretches: list[int]) -> None:
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:

        def meddle(progress: bptt.Progress) -> None:
            progress.optimizer.param_groups[0]["lr"] *= 0.9
            with torch.no_grad():
                progress.network.cell.bias_hh.add_(0.01)
            progress.network.cell.weight_ih.requires_grad_(progress.updates % 20 == 0)

        meddle.every = 10
        fit(net, callbacks=[meddle], optimizer=lambda p: torch.optim.SGD(p, 0.05))
    assert_alike(*nets)


def test_another_readout_or_initial_state_is_seen(stretches: list[int]) -> None:
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:
        fit(net, epochs=1)
        torch.manual_seed(9)
        net.readout = nn.Linear(6, 1).double()
        fit(net, epochs=1)
        net.learned_initial_state = nn.ParameterList([nn.Parameter(torch.zeros(6).double())])
        fit(net, epochs=1)
        net.clip_state_gradient = 1e-3
        fit(net, epochs=1)
    assert sum(stretches) == 4 * 116
    assert_alike(*nets)


def test_what_is_not_eligible_in_the_middle_goes_on_through_pytorch(stretches: list[int]) -> None:
    nets = network(), network()
    nets[1].backend = "eager"
    for net in nets:

        def hook(progress: bptt.Progress) -> None:
            if progress.updates == 30:
                progress.network.cell.register_full_backward_hook(lambda *_: None)

        hook.every = 10
        fit(net, callbacks=[hook], epochs=1)
    assert stretches == [10, 10, 10]
    assert_alike(*nets)


@pytest.mark.filterwarnings("ignore")
def test_a_non_finite_loss_stops_at_the_very_update() -> None:
    told, weights = [], []
    for backend in ("auto", "eager"):
        net = network()
        net.backend = backend
        x, y = data()
        x = x.clone()
        x[60:] = 1e300
        net.cell = bptt.cells.Leaky(2, 6, rate=0.5).double()
        net.readout = nn.Linear(6, 1).double()
        with torch.no_grad():
            torch.manual_seed(0)
            for p in net.parameters():
                p.uniform_(-0.3, 0.3)
        y = y.clone()
        y[70:] = 1e200
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, bptt.Stream(x, y, horizon=1), callbacks=[])
        told.append(str(caught.value))
        weights.append(net)
    assert told[0] == told[1]
    assert_alike(*weights)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_makes_weights_infinite_stops_at_the_very_update(
    kind: Any, stretches: list[int]
) -> None:
    told, nets, optimizers = [], [], []
    for backend in ("auto", "eager"):
        net = network(dtype=torch.float32)
        net.backend = backend
        optimizer = kind(net.parameters(), 1e3, weight_decay=1e3)  # times -1e6 at every update
        given = bptt.Stream(*data(dtype=torch.float32), horizon=1)
        with pytest.raises(bptt.NonFiniteError) as caught:
            fit(net, given, optimizer=optimizer, loss="mae")
        told.append(str(caught.value))
        nets.append(net)
        optimizers.append(optimizer)
    assert "weights that are not finite in epoch 1, update 7," in told[0]
    assert told[0][:90] == told[1][:90]
    assert stretches[0] < 7  # the core began, and went back
    assert_alike(*nets, rtol=1e-4)
    for one, other in zip(*(o.state.values() for o in optimizers), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)


def test_ctrl_c_ends_within_a_tenth_of_a_second_after_a_whole_update() -> None:
    net, method = network(), bptt.SlidingWindow(4)
    optimizer = sgd(net.parameters())
    source = stream(3_000_000)  # the signal comes in the first epoch, on any machine
    sent: list[float] = []

    def interrupt() -> None:
        time.sleep(1.0)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fit(net, source, method=method, optimizer=optimizer, epochs=10_000)
    late = time.perf_counter() - sent[0]
    thread.join()
    assert late < 1.0  # the stretch is 0.04 s; a loaded machine may take its time
    assert all(p.isfinite().all() for p in net.parameters())
    saved = deepcopy((net.state_dict(), optimizer.state_dict(), method.state_dict()))
    again, taken_up = network(), bptt.SlidingWindow(4)
    again.load_state_dict(saved[0])
    other = sgd(again.parameters())
    other.load_state_dict(saved[1])
    taken_up.load_state_dict(saved[2])
    source_again = stream(3_000_000)
    source_again.load_state_dict(source.state_dict())
    fits = [(net, method, optimizer, source), (again, taken_up, other, source_again)]
    method.load_state_dict(method.state_dict())
    for one, way, optim, where in fits:
        fit(one, where, method=way, optimizer=optim, stop=_After(50))
    assert_alike(net, again, 1e-12)


class _After(bptt.StoppingCriterion):
    def __init__(self, updates: int) -> None:
        self.updates = updates

    def after_update(self, progress: bptt.Progress) -> str | None:
        return "enough" if progress.updates >= self.updates else None


def test_a_criterion_of_ones_own_is_asked_after_every_update(stretches: list[int]) -> None:
    history = fit(network(), stop=_After(5))
    assert stretches == [1] * 5
    assert history.stop_reason == "enough"


def test_a_time_limit_ends_in_the_middle_of_an_epoch() -> None:
    net = network()
    fit(net, epochs=1)
    began = time.perf_counter()
    history = fit(net, stream(500_000), epochs=1, stop=bptt.TimeLimit(0.3))
    assert time.perf_counter() - began < 5
    assert history.stop_reason == "0.3 seconds are over"
    assert history.epochs[0].updates < 499_996


def test_schedulers_do_not_complain(recwarn: pytest.WarningsRecorder) -> None:
    fit(network(), scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "in the core"),
        ({"method": bptt.Full()}, "the method is Full"),
        ({"method": bptt.Truncated(4, 2, history="stored")}, "history='stored'"),
        ({"loss": lambda p, t: (p - t) ** 2}, "a function of yours"),
        ({"optimizer": lambda p: torch.optim.Adagrad(p)}, "the optimizer is Adagrad"),
        ({"optimizer": lambda p: torch.optim.Adam(p, capturable=False)}, "in the core"),
    ],
)
def test_verbose_says_how_updates_are_made(
    options: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(network(), epochs=2, verbose=True, **options)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert reason in printed[0]


@pytest.mark.parametrize(
    ("readout", "reason"),
    [
        (nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 1)), "Dropout in the readout (a readout is"),
        (nn.Sequential(nn.Linear(6, 1)), "hooks of readout.0 (a readout is"),
    ],
)
def test_verbose_names_what_is_in_the_readout(
    readout: nn.Sequential, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "hooks" in reason:
        readout[0].register_forward_hook(lambda *_: None)
    fit(bptt.Network(bptt.cells.Elman(2, 6), readout).double(), epochs=1, verbose=True)
    assert reason in capsys.readouterr().out


def test_verbose_names_the_operator_of_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    class Sorted(bptt.cells.Elman):
        def forward(self, input: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            return super().forward(input, state.sort(dim=1).values)

    net = bptt.Network(Sorted(2, 6), nn.Linear(6, 1)).double()
    fit(net, epochs=1, verbose=True)
    assert "sort" in capsys.readouterr().out


@pytest.mark.parametrize("at", [4, 11, 12, 13, 30, 75, 76, 77])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_huge_gradient_is_left_to_pytorch(
    at: int, clip: float | None, stretches: list[int]
) -> None:
    """Wherever it comes, also first after a look at the weights, the core has changed nothing."""
    native, eager = network(), network()
    x, y = data(100)
    y[at], rate = 1e17, 0.01 if clip else 1e-18
    for net in (native, eager):
        fit(
            net,
            bptt.Stream(x, y, horizon=1),
            optimizer=lambda p: torch.optim.SGD(p, rate),
            epochs=1,
            clip=clip,
        )
        eager.backend = "eager"
    assert sum(stretches) == at - 4
    assert not torch.equal(native.cell.weight_hh, network().cell.weight_hh)
    assert_alike(native, eager, 1e-12)
