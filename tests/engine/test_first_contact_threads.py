"""First calls from many threads, and from processes that were forked meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.frontend import capture
from bptt.engine.runtime import verify
from bptt.errors import CellError

from .contact import SIZE, agree, assert_equal, cell_of, drive, given, seen

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]

THREADS = 4


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What each gives, begun at one moment in a thread of its own; the first error is raised."""
    start, found = threading.Barrier(len(works)), [None] * len(works)
    errors: list[BaseException] = []

    def run(k: int) -> None:
        torch.set_num_threads(1)
        start.wait()
        try:
            found[k] = works[k]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(works))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 300  # captures take turns, and others may use the processor
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return found


def call(cell: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Outputs and gradients, which no generator and no filter of warnings takes part in."""
    outputs, last = bptt.unfold(cell, inputs)
    state = last if isinstance(last, Tensor) else last[0]
    loss = outputs.sin().sum() + state.square().sum()
    return [outputs.detach(), *torch.autograd.grad(loss, [inputs, *cell.parameters()])]


def expected(cell: nn.Module, inputs: Tensor) -> list[Tensor]:
    outputs, last = bptt.unfold(cell, inputs, backend="eager")
    state = last if isinstance(last, Tensor) else last[0]
    loss = outputs.sin().sum() + state.square().sum()
    return [outputs.detach(), *torch.autograd.grad(loss, [inputs, *cell.parameters()])]


CELLS: dict[str, Callable[[], Any]] = {
    "GRUCell": lambda: nn.GRUCell(SIZE, SIZE),
    "LSTMCell": lambda: nn.LSTMCell(SIZE, SIZE),
    "own": lambda: cell_of(drive),
    "stack": lambda: bptt.cells.Stack(bptt.cells.GRU(SIZE, SIZE), bptt.cells.Elman(SIZE, SIZE)),
    "refused": lambda: cell_of(lambda s, i, h: drive(s, i, h) * (1 if h.sum() > 0 else 2)),
}


@pytest.mark.parametrize("name", CELLS)
def test_one_cell_in_many_threads(name: str) -> None:
    for trial in range(3):
        cell, inputs = CELLS[name](), [given(1 + k, seed=k) for k in range(THREADS)]
        found = at_once([partial(call, cell, x) for x in inputs])
        assert {type(p) for p in cell.parameters()} == {nn.Parameter}, trial
        for mine, x in zip(found, inputs, strict=True):
            torch.testing.assert_close(mine, expected(cell, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CELLS)
def test_many_threads_with_a_cell_each(name: str) -> None:
    for _ in range(3):
        cells, inputs = [CELLS[name]() for _ in range(THREADS)], given()
        shared = inputs.detach()
        own = [shared.clone().requires_grad_() for _ in cells]
        found = at_once([lambda c=c, x=x: call(c, x) for c, x in zip(cells, own, strict=True)])
        for mine, cell in zip(found, cells, strict=True):
            torch.testing.assert_close(mine, expected(cell, inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["GRUCell", "own"])
def test_many_threads_with_a_cell_each_stay_native(name: str) -> None:
    cells = [CELLS[name]() for _ in range(THREADS)]
    at_once([lambda c=c: bptt.unfold(c, given()) for c in cells])
    for cell in cells:
        bptt.unfold(cell, given(), backend="native")


def test_sizes_and_modes_in_many_threads() -> None:
    cell = CELLS["own"]()

    def work(k: int) -> None:
        for n in range(6):
            inputs = given(1 + (n + k) % 5, 3 + n, seed=n)
            if k % 2:
                with torch.no_grad():
                    bptt.unfold(cell, inputs.detach())
            torch.testing.assert_close(call(cell, inputs), expected(cell, inputs))

    at_once([lambda k=k: work(k) for k in range(THREADS)])


@pytest.mark.usefixtures("lenient")  # whether it stays native is left to chance
def test_changes_beside_calls_in_another_thread() -> None:
    """A call sees an attribute from before or from after, nothing else."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, done = given().detach(), threading.Event()
    wanted = []
    for gain in (1.0, 0.5):
        cell.gain = gain
        wanted.append(bptt.unfold(cell, inputs, backend="eager")[0])

    def change() -> None:
        for n in range(200):
            cell.gain = (1.0, 0.5)[n % 2]
            time.sleep(0.001)
        done.set()

    def use() -> None:
        while not done.is_set():
            one_step, _ = bptt.unfold(cell, inputs[:1])
            assert any(torch.allclose(one_step, want[:1]) for want in wanted)

    at_once([change, use, use])


@pytest.mark.parametrize("back", [False, True], ids=["for good", "and back"])
def test_a_change_in_another_thread_is_no_verdict(
    back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes between a program and the loop that it is held against does not refuse it."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, loop, changes = given().detach(), verify.eager.run, []

    def changed(*args: Any, **kwargs: Any) -> Any:
        gain = cell.gain
        if not changes:
            changes.append(gain)
            cell.gain = 0.5
        found = loop(*args, **kwargs)
        if back:
            cell.gain = gain
        return found

    monkeypatch.setattr(verify.eager, "run", changed)
    bptt.unfold(cell, inputs)
    monkeypatch.undo()
    assert changes
    for gain in (1.0, 0.5):
        cell.gain = gain
        found, _ = bptt.unfold(cell, inputs, backend="native")
        torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])


@torch.no_grad()
@pytest.mark.parametrize("times", [1, 2])
def test_a_change_in_the_midst_of_a_capture_is_no_verdict(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamo reads a value for the graph, and once more for the condition: a change between the two
    makes a wrong program, in place of which another one is made."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, backend, changes = given().detach(), capture._backend, []

    def changed(*args: Any) -> Any:
        if len(changes) < times:
            changes.append(cell.gain)
            cell.gain = 1.5 - cell.gain
        return backend(*args)

    monkeypatch.setattr(capture, "_backend", changed)
    found, _ = bptt.unfold(cell, inputs, backend="native")
    assert len(changes) == times
    torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])
    for gain in (1.0, 0.5):
        cell.gain = gain
        found, _ = bptt.unfold(cell, inputs, backend="native")
        torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])


def test_a_change_in_the_midst_of_every_trial_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often the loop and the program saw different values, the program may be right."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, loop, calls = given().detach(), verify.eager.run, []

    def changed(*args: Any, **kwargs: Any) -> Any:
        calls.append(cell.gain)
        cell.gain = 2.0 + len(calls)
        found = loop(*args, **kwargs)
        cell.gain = 1.0  # what the program was made for, and what is found afterwards
        return found

    monkeypatch.setattr(verify.eager, "run", changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bptt.unfold(cell, inputs)
    monkeypatch.undo()
    assert len(calls) > 1
    found, _ = bptt.unfold(cell, inputs, backend="native")
    torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])


class Drifting:
    """The Python loop, with other numbers in each call."""

    def __init__(self) -> None:
        self.loop, self.calls = verify.eager.run, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        outputs, last, states = self.loop(*args, **kwargs)
        return outputs + self.calls, last, states


def test_a_step_that_never_repeats_its_numbers_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no capture sees (a clock, a file) is not verified anew in every call for ever."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, drifting = given().detach(), Drifting()
    monkeypatch.setattr(verify.eager, "run", drifting)
    for _ in range(25):
        bptt.unfold(cell, inputs)
    before = drifting.calls
    bptt.unfold(cell, inputs)
    assert drifting.calls == before + 1  # the call itself, and no trial
    with pytest.raises(CellError, match="gives other numbers in each call"):
        bptt.unfold(cell, inputs, backend="native")


def test_an_error_beside_a_change_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fails while the loop's numbers change may be right."""
    cell = cell_of(lambda s, i, h: torch.tanh(s.u(i) + h @ s.w) * s.gain, gain=1.0)
    inputs, drifting = given().detach(), Drifting()

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes")

    with monkeypatch.context() as patched:
        patched.setattr(verify.eager, "run", drifting)
        patched.setattr(verify.native, "run", failing)
        bptt.unfold(cell, inputs)
    found, _ = bptt.unfold(cell, inputs, backend="native")
    torch.testing.assert_close(found, bptt.unfold(cell, inputs, backend="eager")[0])


def test_calls_while_the_python_loop_runs_elsewhere() -> None:
    """Another thread's own use of the cell sees the user's weights and nothing else."""
    cell, x, h = CELLS["own"](), given()[0].detach(), torch.randn(3, SIZE)
    want = cell(x, h).detach()
    fresh = [cell_of(drive) for _ in range(5)]
    for other in fresh:
        other.u, other.w = cell.u, cell.w

    def use() -> None:
        for _ in range(300):
            assert torch.equal(cell(x, h), want)

    def first_calls() -> None:
        for other in fresh:
            bptt.unfold(other, given())

    at_once([use, first_calls, use])


def test_a_first_call_in_a_thread_then_in_the_main_one() -> None:
    for name in ("own", "GRUCell"):
        cell = CELLS[name]()
        at_once([lambda c=cell: bptt.unfold(c, given())])
        agree(cell)


def test_training_in_many_threads() -> None:
    def train(backend: str) -> list[Tensor]:
        generator = torch.Generator().manual_seed(3)
        cell = nn.GRUCell(2, SIZE)
        with torch.no_grad():
            for p in cell.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.4)
        readout = nn.Linear(SIZE, 1)
        nn.init.constant_(readout.weight, 0.3)
        nn.init.zeros_(readout.bias)
        network = bptt.Network(cell, readout, backend=backend)
        x = torch.randn(30, 2, generator=generator)
        options: Any = {"optimizer": lambda p: torch.optim.SGD(p, 0.05), "progress": False}
        bptt.fit(network, bptt.Stream(x, x[:, :1]), method=bptt.Truncated(5), epochs=2, **options)
        return [p.detach() for p in network.parameters()]

    want = train("eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in at_once([lambda: train("auto")] * THREADS):
            torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-9)


FORKED = """
import os, sys, threading, torch, bptt
from torch import nn

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

class Cell(nn.Module):
    hidden_size = 4

    def __init__(self):
        super().__init__()
        self.u, self.w = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, i, h):
        return torch.tanh(self.u(i) + h @ self.w)

def make():
    return type("Own", (Cell,), {"forward": lambda s, i, h: torch.tanh(s.u(i) + h @ s.w)})()

x, stop = torch.randn(5, 3, 4), threading.Event()
if sys.argv[1] == "after":
    bptt.unfold(make(), x)

def captures():
    while not stop.is_set():
        bptt.unfold(make(), x)

thread = threading.Thread(target=captures)
thread.start()
wrong = 0
for k in range(6):
    stop.wait(0.05 + 0.03 * k)
    child = os.fork()
    if child == 0:
        cell = make()
        same = torch.allclose(bptt.unfold(cell, x)[0], bptt.unfold(cell, x, backend="eager")[0])
        os._exit(0 if same else 1)
    wrong += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
print("wrong", wrong)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("when", ["first", "after"])
def test_a_fork_while_another_thread_makes_a_program(when: str) -> None:
    """The child must not wait for a lock whose holder was not forked with it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, when],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.stdout.strip() == "wrong 0", done.stdout + done.stderr[-2000:]


def test_a_fork_after_a_call() -> None:
    cell, inputs = CELLS["own"](), given()
    want = seen(cell, inputs, "eager")
    assert_equal(seen(cell, inputs, "auto"), want)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert_equal(seen(cell, inputs, "auto"), want)
            assert_equal(seen(CELLS["own"](), inputs, "auto"), want)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
