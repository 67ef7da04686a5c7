"""Cells whose code is known, as strangers change, mark and configure them; and what a first call
may show of a program."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import bptt
from bptt import cells
from bptt.engine import _torch_compat
from bptt.engine.frontend import builtin, front
from bptt.engine.runtime import native

from .contact import SIZE, agree, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]

KNOWN: dict[str, Callable[[], nn.Module]] = {
    "GRUCell": lambda: nn.GRUCell(SIZE, SIZE),
    "GRU": lambda: cells.GRU(SIZE, SIZE),
    "stack": lambda: cells.Stack(cells.GRU(SIZE, SIZE), cells.Elman(SIZE, SIZE)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_no_step_reads_may_change_in_every_call(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, cell, twin = [], KNOWN[name](), builtin.Twin.__init__

    def counted(self: Any, cell: nn.Module) -> None:
        made.append(cell)
        twin(self, cell)

    monkeypatch.setattr(builtin.Twin, "__init__", counted)
    cell.calls, cell.log = 0, []
    front._FORMS.clear()
    for _ in range(5):
        cell.calls += 1
        cell.log.append(cell.calls)
        bptt.unfold(cell, given(), backend="native")
    assert len(made) == 1


@pytest.mark.parametrize("name", KNOWN)
def test_what_no_step_reads_may_be_anything(name: str) -> None:
    cell = KNOWN[name]()
    cell.lock, cell.owner = threading.Lock(), [given()]
    next(iter(cell.modules())).note = lambda: None
    bptt.unfold(cell, given(), backend="native")
    agree(cell)


def test_what_a_step_reads_may_change_in_every_call() -> None:
    cell = nn.Sequential(nn.Linear(SIZE, SIZE))  # as a part, behind which a number changes
    whole = cells.Stack(cells.GRU(SIZE, SIZE), Scaled(cell))
    for k in range(12):
        whole.cells[1].norm.eps = 0.1 * (k + 1)
        agree(whole)


class Scaled(cells.Elman):
    """A known class's subclass that is not known."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(SIZE, SIZE)
        self.norm, self.inner = nn.LayerNorm(SIZE), inner

    def drive(self, input: Tensor) -> Tensor:
        return super().drive(self.norm(input))


def test_a_known_cell_that_changes_in_every_call_is_made_anew_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, cell, twin = [], nn.RNNCell(SIZE, SIZE), builtin.Twin.__init__

    def counted(self: Any, cell: nn.Module) -> None:
        made.append(cell)
        twin(self, cell)

    monkeypatch.setattr(builtin.Twin, "__init__", counted)
    front._FORMS.clear()
    for k in range(20):
        cell.bias = (k, True)  # read by its class, never the same
        agree(cell)
    assert len(made) <= front.RECAPTURES + 1


def patched_output(kind: type[nn.Module]) -> None:
    kind.output = lambda self, state: 2 * (state[0] if isinstance(state, tuple) else state)


def patched_top(kind: type[nn.Module]) -> None:
    kind.output = lambda self, state: 2 * state[-1]


def patched_start(kind: type[nn.Module]) -> None:
    def start(self: Any, batch: int) -> Any:
        rows = torch.full((batch, SIZE), 0.7)
        return (rows, rows) if issubclass(kind, (nn.LSTMCell, cells.LSTM)) else rows

    kind.initial_state = start


def patched_drive(kind: type[nn.Module]) -> None:
    kind.drive = lambda self, input: torch.nn.functional.linear(input, self.weight_ih) * 0.5


@pytest.mark.parametrize("base", [nn.GRUCell, nn.LSTMCell, cells.GRU, cells.LSTM, cells.Elman])
@pytest.mark.parametrize("patch", [patched_output, patched_start, patched_drive])
def test_a_class_that_changes_after_the_first_calls(base: type[nn.Module], patch: Any) -> None:
    own = type("Own", (base,), {})
    cell = own(SIZE, SIZE)
    agree(cell)
    bptt.unfold(cell, given())
    patch(own)
    agree(cell)


@pytest.mark.parametrize(
    ("owner", "patch"),
    [
        (cells.Stack, patched_top),  # its states are its parts'
        (nn.GRUCell, patched_output),
        (nn.GRUCell, patched_start),
        (cells.LSTM, patched_output),
        (cells.LSTM, patched_start),
    ],
)
def test_a_known_class_that_changes_after_the_first_calls(owner: Any, patch: Any) -> None:
    cell = KNOWN["stack"]() if owner is cells.Stack else owner(SIZE, SIZE)
    agree(cell)
    bptt.unfold(cell, given())
    before = dict(vars(owner))
    patch(owner)
    try:
        agree(cell)
    finally:
        for name in ("output", "initial_state"):
            delattr(owner, name) if name in vars(owner) else None
            setattr(owner, name, before[name]) if name in before else None
    agree(cell)


def test_a_hook_that_was_removed_leaves_a_known_cell_known() -> None:
    cell = nn.GRUCell(SIZE, SIZE)
    handle = cell.register_forward_hook(lambda module, given, out: out * 0.5)
    agree(cell)
    handle.remove()
    agree(cell)
    assert isinstance(front._front_of(cell), front.BuiltIn)


@pytest.mark.parametrize("output", ["bool", "complex", "integer"])
def test_outputs_that_are_no_real_numbers(output: str) -> None:
    made = {
        "bool": lambda s, h: h > 0,
        "complex": lambda s, h: (2 * h).to(torch.complex128),
        "integer": lambda s, h: (h > 0).long(),
    }[output]
    cell = cell_of(drive)
    cell.__class__ = type("Told", (type(cell),), {"output": made})
    found, expected = (
        bptt.unfold(cell, given(), backend=backend)[0] for backend in ("native", "eager")
    )
    assert found.dtype is expected.dtype
    torch.testing.assert_close(found, expected)
    loss = bptt.unfold(cell, given())[1].sum()
    assert loss.requires_grad


@pytest.fixture
def elsewhere() -> Any:
    torch.set_default_device("meta")
    yield
    torch.set_default_device("cpu")
    torch.set_default_device(None)


def test_a_default_device_that_is_not_the_cells(elsewhere: None) -> None:
    inputs = torch.randn(6, 2, SIZE, device="cpu")
    for cell in (cells.GRU(SIZE, SIZE, device="cpu"), nn.LSTMCell(SIZE, SIZE, device="cpu")):
        found, expected = (
            bptt.unfold(cell, inputs, backend=b)[0].detach() for b in ("auto", "eager")
        )
        assert torch.equal(found, expected)
    layer = bptt.nn.GRU(SIZE, SIZE, device="cpu")
    theirs = nn.GRU(SIZE, SIZE, device="cpu")
    theirs.load_state_dict(layer.state_dict())
    with torch.device("cpu"):
        packed = pack_sequence([inputs[:, 0], inputs[:4, 1]])
    torch.testing.assert_close(layer(packed)[0].data, theirs(packed)[0].data)


def test_training_under_a_default_device_that_is_not_the_cells(elsewhere: None) -> None:
    network = bptt.Network(
        cells.GRU(1, 3, device="cpu"), nn.Linear(3, 1, device="cpu"), backend="auto"
    )
    stream = bptt.Stream(torch.randn(30, device="cpu"), horizon=1)
    bptt.fit(network, stream, epochs=1, progress=False)


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]) -> None:
    run = native.run

    def other(cell: Any, inputs: Tensor, state: Any, **options: Any) -> Any:
        return change(run, cell, inputs, state, options)

    monkeypatch.setattr(native, "run", other)


def wrong_from_the_second_step(
    run: Any, cell: Any, inputs: Tensor, state: Any, options: Any
) -> Any:
    outputs, last, states = run(cell, inputs, state, **options)
    return torch.cat([outputs[:1], 1.1 * outputs[1:]]), last, states


def wrong_where_a_state_is_given(
    run: Any, cell: Any, inputs: Tensor, state: Any, options: Any
) -> Any:
    return run(cell, inputs, torch.zeros_like(state), **options)


def wrong_gradients(run: Any, cell: Any, inputs: Tensor, state: Any, options: Any) -> Any:
    outputs, last, states = run(cell, inputs, state, **options)
    return outputs + 0.1 * (outputs - outputs.detach()), last, states


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(
    ("change", "first"),
    [
        (wrong_from_the_second_step, 1),
        (wrong_from_the_second_step, 2),
        (wrong_where_a_state_is_given, 6),
        (wrong_gradients, 6),
    ],
)
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_first_call_shows_what_is_wrong(
    change: Any, first: int, graded: bool, hooked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change is wrong_gradients and not graded:
        return
    cell, called = cell_of(drive), []
    if hooked:
        for parameter in cell.parameters():
            parameter.register_hook(lambda grad: called.append(grad))
    spoiled(monkeypatch, change)
    inputs = given().detach()
    with torch.set_grad_enabled(graded):
        bptt.unfold(cell, inputs[:first])
        with pytest.raises(bptt.errors.CellError, match="deserves a report"):
            bptt.unfold(cell, inputs, backend="native")
    assert not called


def test_a_hook_of_another_thread_is_called_meanwhile() -> None:
    """A trial leaves out the hooks of its own thread's gradients alone."""
    from bptt.engine.runtime.verify import _unhooked

    weight, called = torch.ones(2, requires_grad=True), []
    weight.register_hook(lambda grad: called.append(1))
    thread = threading.Thread(target=lambda: weight.sum().backward())
    with _unhooked([weight]):
        torch.autograd.grad(weight.sum(), weight)
        assert called == []
        thread.start()
        thread.join()
    assert called == [1]
    weight.sum().backward()
    assert called == [1, 1]


class Ending(list[int]):
    """A list from which another thread takes the last one when it is asked whether it is empty."""

    def __bool__(self) -> bool:
        self.pop()
        return True


def test_a_capture_that_ends_while_another_thread_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_compat, "_CAPTURING", Ending([0]))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert _torch_compat.is_compiling() in (False, True)


def test_a_layer_whose_parents_forward_is_a_stand_in() -> None:
    layer, inputs = bptt.nn.GRU(SIZE, SIZE), given()
    with mock.patch.object(nn.GRU, "forward", mock.Mock(return_value=("mine", None))):
        assert layer(inputs)[0] == "mine"
