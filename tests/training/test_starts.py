"""Training from many initialisations: each start alone, the best one kept, failures survived."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt

SEED = 3


def network(seed: int = 0, readout: nn.Module | None = None, **options: Any) -> bptt.Network:
    torch.manual_seed(seed)
    return bptt.Network(bptt.cells.Elman(1, 5), readout or nn.Linear(5, 1), **options)


def stream(steps: int = 60) -> bptt.Stream:
    time = torch.arange(float(steps))
    return bptt.Stream(torch.sin(0.4 * time) + 0.3 * torch.sin(0.13 * time), horizon=1)


def fit(net: bptt.Network, **options: Any) -> bptt.History:
    options = {"method": bptt.Truncated(10), "epochs": 2, "seed": SEED, **options}
    return bptt.fit(net, stream(), progress=False, **options)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_a_start_is_determined_by_seed_and_number_alone() -> None:
    """The same by itself, whatever the network held before, and dropout drawn anew."""
    dropout = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 1))
    several, alone = network(0, dropout), network(1, dropout)
    history = fit(several, starts=4)
    torch.rand(7)
    again = fit(alone, starts=[history.start])
    assert torch.equal(weights(several), weights(alone))
    assert again.starts == [history.starts[history.start]]
    assert len({start.loss for start in history.starts}) == 4
    assert fit(network(), starts=4, seed=SEED + 1).starts != history.starts


def test_without_a_seed_the_callers_generator_decides() -> None:
    found = []
    for seed in (1, 1, 2):
        net = network()
        torch.manual_seed(seed)
        found.append(fit(net, starts=2, seed=None).starts)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("validation", [None, 0.2])
def test_the_best_is_kept(validation: float | None) -> None:
    net = network()
    history = fit(net, starts=5, validation=validation)
    ends = [start.loss for start in history.starts]
    assert history.start == int(np.argmin(ends))
    assert [start.number for start in history.starts] == list(range(5))
    assert history.watched[-1] == min(ends)
    if validation is not None:
        judge = stream().split(0.8)[1]
        assert bptt.evaluate(net, judge).loss == min(ends)


def test_restored_weights_are_judged_by_their_own_loss() -> None:
    net = network()
    wild = lambda parameters: torch.optim.SGD(parameters, 1.0)  # noqa: E731  # climbs
    stop = bptt.Patience(5, restore_best=True)
    history = fit(net, starts=3, validation=0.3, optimizer=wild, stop=stop, epochs=4)
    for start in history.starts:
        assert start.loss <= min(start.losses)
        assert start.epoch == 0 or start.losses[start.epoch - 1] == start.loss
    assert any(start.loss < start.losses[-1] for start in history.starts)
    judge = stream().split(0.7)[1]
    assert bptt.evaluate(net, judge).loss == history.starts[history.start].loss


def failing(*which: int) -> Any:
    """A maker of optimizers that fails for these starts, counted as they run."""
    made: list[int] = []

    def make(parameters: Any) -> torch.optim.Optimizer:
        made.append(1)
        if len(made) - 1 in which:
            raise RuntimeError("no luck\nat all")
        return torch.optim.SGD(parameters, 0.1)

    return make


def test_a_failure_is_reported_and_survived() -> None:
    whole = fit(network(), starts=4, optimizer=failing())
    best = whole.start
    assert best is not None
    net = network()
    with pytest.warns(UserWarning, match=f"start {best} failed and is left out: RuntimeError: no"):
        history = fit(net, starts=4, optimizer=failing(best))
    assert history.starts[best].error == "RuntimeError: no luck"
    rest = [start for start in whole.starts if start.number != best]
    assert [start for start in history.starts if start.error is None] == rest
    assert history.start == min(rest, key=lambda start: start.loss).number


def test_a_network_that_explodes_is_a_failure_too() -> None:
    def make(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 1e38)

    with pytest.raises(bptt.NonFiniteError, match="all 3 starts failed, the first of them so"):
        fit(network(), starts=3, optimizer=make)
    with pytest.raises(bptt.NonFiniteError, match=r"^(loss|gradient norm)"):
        fit(network(), starts=[2], optimizer=make)


class Dies:
    """Ends the process of the start whose first loss it is given. An object: the environment of a
    worker that is there already is that of before."""

    def __init__(self, first: float) -> None:
        self.doomed = f"{first:.6g}"

    def __call__(self, progress: bptt.Progress) -> None:
        if f"{progress.history.losses[0]:.6g}" == self.doomed:
            os._exit(9)


class DiesOnce:
    """Kills the process that is the first to come here."""

    every = 8

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, progress: bptt.Progress) -> None:
        with suppress(FileExistsError):
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)


def test_starts_in_processes_are_the_same_and_survive_the_death_of_one() -> None:
    pytest.importorskip("joblib")
    serial = fit(network(), starts=2)
    doomed = 1 - serial.start
    dies = Dies(serial.starts[doomed].losses[0])
    net, alone = network(), network()
    with pytest.warns(UserWarning, match=f"start {doomed} failed"):
        history = fit(net, starts=2, jobs=2, callbacks=[dies])
    fit(alone, starts=[serial.start])
    assert torch.equal(weights(net), weights(alone))
    assert history.starts[serial.start] == serial.starts[serial.start]
    assert "Terminated" in history.starts[doomed].error


def test_what_is_saved_outlives_a_worker(tmp_path: Path) -> None:
    """The starts that were at work as it died go on from their checkpoints, and none is left
    out."""
    pytest.importorskip("joblib")
    whole, net = network(), network()
    serial = fit(whole, starts=2)
    dies = DiesOnce(tmp_path / "died")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = fit(net, starts=2, jobs=2, callbacks=[dies], checkpoint=tmp_path / "saved")
    assert (tmp_path / "died").exists()
    assert history.starts == serial.starts
    assert torch.equal(weights(net), weights(whole))


class Odd(Exception):
    """Cannot be read where it is sent to."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class Fails:
    """Raises `Odd` in the start whose first loss it is given."""

    def __init__(self, first: float) -> None:
        self.doomed = f"{first:.6g}"

    def __call__(self, progress: bptt.Progress) -> None:
        if f"{progress.history.losses[0]:.6g}" == self.doomed:
            raise Odd("no", "luck")


@pytest.mark.parametrize("saved", [False, True])
def test_an_exception_that_cannot_be_sent_costs_its_own_start_alone(
    saved: bool, tmp_path: Path
) -> None:
    pytest.importorskip("joblib")
    serial = fit(network(), starts=3)
    fails = Fails(serial.starts[1].losses[0])
    more = {"checkpoint": tmp_path / "saved"} if saved else {}
    with pytest.warns(UserWarning, match="start 1 failed and is left out: Odd: no luck"):
        history = fit(network(), starts=3, jobs=2, callbacks=[fails], **more)
    assert history.starts[::2] == serial.starts[::2]
    assert history.starts[1].error == "Odd: no luck"


def test_starts_that_are_saved_are_refused_at_once_unless_they_go_on(tmp_path: Path) -> None:
    before = fit(network(), starts=2, checkpoint=tmp_path)
    seen: list[bptt.Progress] = []
    with pytest.raises(bptt.OptionError, match=r"start-1 holds the checkpoints of a run: go on"):
        fit(network(), starts=[2, 1], checkpoint=tmp_path, callbacks=[seen.append])
    assert not seen
    assert not (tmp_path / "start-2").exists()
    assert len(fit(network(), starts=[2], checkpoint=tmp_path)) == 2
    assert fit(network(), starts=2, checkpoint=tmp_path, resume=True).starts == before.starts


def test_threads_take_turns() -> None:
    joblib = pytest.importorskip("joblib")
    serial = fit(network(), starts=3)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        assert fit(network(), starts=3).starts == serial.starts


def test_joblib_can_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    present = fit(network(), starts=2)
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert fit(network(), starts=2).starts == present.starts
    with pytest.raises(bptt.BpttError, match=r"jobs=2 needs joblib: pip install 'bptt\[starts\]'"):
        fit(network(), starts=2, jobs=2)


def test_what_is_frozen_stays_and_a_learned_initial_state_begins_anew() -> None:
    net = network(learn_initial_state=True)
    (initial,) = net.learned_initial_state
    with torch.no_grad():
        initial.fill_(5.0)
    net.cell.weight_ih.requires_grad_(False)
    before = net.cell.weight_ih.clone()
    seen = []
    seen_at_first = lambda progress: seen.append(initial.detach().clone())  # noqa: E731
    tiny = lambda parameters: torch.optim.SGD(parameters, 1e-9)  # noqa: E731
    fit(net, starts=2, callbacks=[seen_at_first], optimizer=tiny)
    assert torch.equal(net.cell.weight_ih, before)
    assert float(initial.detach().abs().max()) < 1e-3


class Stubborn(nn.Module):
    """Has parameters, and no way to draw them anew."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[..., :1] * self.gain + self.shift


class Parent(nn.Module):
    """Draws what its part cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Stubborn()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.part.gain)
        self.part.shift.data.zero_()

    def forward(self, outputs: Tensor) -> Tensor:
        return self.part(outputs)


def test_what_cannot_be_drawn_anew_is_refused_before_work() -> None:
    stubborn = network(readout=Stubborn())
    before, state = weights(stubborn), torch.get_rng_state()
    with pytest.raises(
        bptt.OptionError, match=r"none sets readout.gain and 1 more: give Stubborn, or the module"
    ):
        fit(stubborn, starts=2)
    assert torch.equal(weights(stubborn), before)
    assert torch.equal(torch.get_rng_state(), state)
    fit(network(readout=Parent()), starts=2)


def test_a_scheduler_is_made_for_each_optimizer() -> None:
    make = lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # noqa: E731
    for starts in (None, 2):
        history = fit(network(), starts=starts, scheduler=make)
        assert [epoch.learning_rate for epoch in history.epochs] == [0.001, 0.0005]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": 0}, "starts must be at least 1"),
        ({"starts": 10**11}, "starts must be at most 1000000"),
        ({"starts": "many"}, "starts must be a whole number"),
        ({"starts": []}, "at least one"),
        ({"starts": [1, 1]}, "each number once"),
        ({"starts": [-1]}, "at least 0"),
        ({"jobs": 2}, "give starts="),
    ],
)
def test_refused(options: Any, message: str) -> None:
    with pytest.raises(bptt.OptionError, match=message):
        fit(network(), **options)


def test_what_is_bound_to_one_start_is_refused() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(bptt.OptionError, match="makes its own optimizer"):
        fit(net, starts=2, optimizer=optimizer)
    with pytest.raises(bptt.OptionError, match="makes its own scheduler"):
        fit(net, starts=2, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1))


@pytest.mark.parametrize("ending", ["npy", "parquet", "csv"])
def test_streams_from_files_go_to_other_processes(tmp_path: Path, ending: str) -> None:
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / f"data.{ending}"
    column = np.sin(np.arange(40.0))
    if ending == "npy":
        np.save(path, column)
    elif ending == "csv":
        path.write_text("a\n" + "".join(f"{value!r}\n" for value in column.tolist()))
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.table({"a": column}), path)
    name = 0 if ending == "npy" else "a"
    source = bptt.Stream.from_files(path, inputs=[name], horizon=1)
    (before,) = source.batches()  # files are open now
    expected = before.chunk(0, 40).inputs
    sent = pickle.dumps(source)
    assert len(sent) < 4000  # the way to the data, not the data
    (after,) = pickle.loads(sent).batches()
    assert torch.equal(after.chunk(0, 40).inputs, expected)
