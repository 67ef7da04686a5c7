"""What is kept from one call, cell or thread to the next one serves only where it fits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import bptt
from bptt.engine.frontend import front
from bptt.engine.runtime import verify

from .contact import SIZE, Base, agree, cell_of, drive, given

pytestmark = pytest.mark.usefixtures("core", "double")


class Gain:
    """A helper of the module, with a method and a class method."""

    def act(self, value: Tensor) -> Tensor:
        return torch.tanh(value)

    @classmethod
    def of_class(cls, value: Tensor) -> Tensor:
        return value * 0.5


GAIN = Gain()


class Acting(Base):
    """Its step calls a method of its own."""

    def act(self, value: Tensor) -> Tensor:
        return torch.tanh(value)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.act(drive(self, input, state)) + float(os.environ.get("BPTT_TEST_GAIN", "1"))


Change = tuple[Any, str, Callable[..., Any]]
CODE: dict[str, tuple[Callable[[], nn.Module], Change]] = {
    "a method": (Acting, (Acting, "act", lambda self, v: torch.sigmoid(v))),
    "forward": (Acting, (Acting, "forward", lambda self, i, h: torch.sigmoid(i + h))),
    "a global object's class": (
        lambda: cell_of(lambda s, i, h: GAIN.act(drive(s, i, h))),
        (Gain, "act", lambda self, v: torch.sigmoid(v)),
    ),
    "a class method": (
        lambda: cell_of(lambda s, i, h: Gain.of_class(drive(s, i, h))),
        (Gain, "of_class", lambda v: torch.sigmoid(v)),
    ),
    "made in the step": (
        lambda: cell_of(lambda s, i, h: Gain().act(drive(s, i, h))),
        (Gain, "act", lambda self, v: torch.sigmoid(v)),
    ),
    "a method of an object": (
        lambda: cell_of(lambda s, i, h: s.act(drive(s, i, h)), act=Gain().act),
        (Gain, "act", lambda self, v: torch.sigmoid(v)),
    ),
}


@pytest.mark.parametrize("name", CODE)
def test_code_that_was_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen by the cell that knew it, and by the next one of its class."""
    make, change = CODE[name]
    cell = make()
    agree(cell)
    kind: Any = type(cell)
    monkeypatch.setattr(*change)
    agree(cell)
    torch.manual_seed(7)
    agree(kind() if kind is Acting else make())


def test_a_new_cell_after_its_class_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is not asked again in between."""
    first = Acting()
    agree(first)
    monkeypatch.setattr(Acting, "act", lambda self, value: torch.sigmoid(value))
    agree(Acting())
    monkeypatch.setenv("BPTT_TEST_GAIN", "2")
    agree(Acting())
    agree(first)


def test_an_environment_that_no_step_reads_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(drive)
    for k in range(30):
        monkeypatch.setenv("BPTT_TEST_OTHER", str(k))
        bptt.unfold(cell, given(), backend="native")


@pytest.mark.parametrize("given_back", [False, True], ids=["in the cell", "by the caller"])
def test_the_state_to_start_from_may_be_changed(given_back: bool) -> None:
    """In a mode in which the cell runs in the Python loop, after one in which it did not."""

    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        if not s.training:
            return drive(s, i, h)
        if given_back:
            return h if bool(i.sum() > -1e9) else h * 2
        with torch.no_grad():
            h.add_(1.0)
        return drive(s, i, h) * (1 if bool(i.sum() > -1e9) else 2)

    cell, inputs = cell_of(step).eval(), given().detach()
    for training in (False, False, True, False):
        cell.train(training)
        found = bptt.unfold(cell, inputs)[1]
        expected = bptt.unfold(cell, inputs, backend="eager")[1]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        if training and given_back:
            found.add_(7.0)


@pytest.mark.parametrize("of_class", [False, True])
def test_an_initial_state_that_comes_later(of_class: bool) -> None:
    for made in (cell_of(drive), nn.GRUCell(SIZE, SIZE)):
        cell = type("Later", (type(made),), {})(SIZE, SIZE) if of_class is None else made
        for _ in range(2):
            agree(cell)
        if of_class and type(cell) is not nn.GRUCell:
            type(cell).initial_state = lambda self, batch: torch.ones(batch, SIZE)
        else:
            cell.initial_state = lambda batch: torch.ones(batch, SIZE)
        agree(cell)


class SigmoidForTanh(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = torch.sigmoid if func is torch.tanh else func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [bptt.cells.Elman, bptt.cells.GRU, None])
def test_a_mode_that_changes_functions(kind: Any) -> None:
    cell = cell_of(drive) if kind is None else kind(SIZE, SIZE)
    before = agree(cell)
    with SigmoidForTanh():
        after = agree(cell)
    assert not torch.equal(before.values["outputs"], after.values["outputs"])


def test_states_that_nest_in_other_ways() -> None:
    def step(s: Any, i: Tensor, h: Any) -> Any:
        if isinstance(h[0], tuple):
            (a, b), c = h
            return (drive(s, i, a), b + 1), c
        a, (b, c) = h
        return drive(s, i, a) * 2, (b, c + 1)

    cell, z = cell_of(step), torch.zeros(3, SIZE)
    for state in (((z, z), z), (z, (z, z)), ((z, z), z)):
        agree(cell, state=state)


class Named(NamedTuple):
    h: Tensor
    c: Tensor


def test_a_state_that_is_a_named_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(s: Any, i: Tensor, h: Any) -> Any:
        return Named(drive(s, i, h.h), h.c + h.h)

    cell, z = cell_of(step), torch.zeros(3, SIZE)
    reset = torch.zeros(5, 3, dtype=torch.bool)
    reset[2] = True
    checked: list[int] = []
    differs = verify.differs
    monkeypatch.setattr(verify, "differs", lambda *args: checked.append(1) or differs(*args))
    for _ in range(3):
        agree(cell, state=Named(z, z))
        agree(cell, state=Named(z, z), initial=Named(z + 1, z), reset=reset)
    assert len(checked) <= 2
    assert type(bptt.unfold(cell, given(), Named(z, z))[1]) is Named


@pytest.mark.slow
def test_more_forms_than_a_compiled_function_takes() -> None:
    """Of one cell, and of cells that share."""
    cell = cell_of(lambda s, i, h: torch.tanh(h @ s.w + i.sum(-1, keepdim=True)))
    for width in range(1, 40):
        bptt.unfold(cell, given(2, 2, width), backend="native")


def test_layers_while_another_thread_captures() -> None:
    """That another thread captures does not make this one's calls part of a compilation."""
    layer = bptt.nn.LSTM(SIZE, SIZE)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, SIZE), torch.tensor([5, 3]))
    recurrent = bptt.nn.Recurrent(nn.GRUCell(SIZE, SIZE))
    known = cell_of(drive)
    bptt.unfold(known, given())
    done, errors = threading.Event(), []

    def call() -> None:
        while not done.is_set():
            try:
                layer(packed)
                recurrent(torch.randn(4, 2, SIZE))
                bptt.unfold(known, given(), backend="native")
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for _ in range(6):
            bptt.unfold(cell_of(lambda s, i, h: drive(s, i, h) * 0.5), given())
    finally:
        done.set()
        thread.join()
    assert not errors


def test_an_output_that_reads_what_changes_is_bounded() -> None:
    cell: Any = cell_of(drive)
    type(cell).output = lambda self, state: state * self.k
    for k in range(20):
        cell.k = f"{k}" and k
        bptt.unfold(cell, given(2, 3))
    known: Any = front._FRONTS.get(cell)
    assert known._verdicts or known._steps.forms <= front.RECAPTURES + 1


@pytest.mark.parametrize("passing", ["meta", "infinite"])
def test_a_reason_that_passes_is_not_kept(passing: str) -> None:
    cell = cell_of(lambda s, i, h: drive(s, i, h) * s.k, k=1.0)
    if passing == "meta":
        inputs = given()
        with torch.device("meta"):
            agree(cell, inputs, state=torch.zeros(3, SIZE, device="cpu"))
    else:
        for k in (2.0, 3.0, float("inf")):
            cell.k = k
            with torch.no_grad():
                agree(cell)
        cell.k = 4.0
    bptt.unfold(cell, given(), backend="native")
