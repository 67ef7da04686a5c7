"""Which results need a gradient, and what may change before it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.state import State, leaves, map_state

from .contact import SIZE, Base, agree, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


class Parts(Base):
    """A state of several tensors."""

    parts = 2

    def initial_state(self, lanes: int) -> tuple[Tensor, ...]:
        return (torch.zeros(lanes, SIZE),) * self.parts


def spiking(s: Any, i: Tensor, state: Any) -> Any:
    v = state[0] * 0.9 + s.u(i)
    return v, (v > 0.2).to(v.dtype)


def shifting(s: Any, i: Tensor, state: Any) -> Any:
    """What the first leaf is given reaches the last one two steps later."""
    return torch.tanh(s.u(i)), state[0] * 1.0, state[1] @ s.w


class Spikes(Parts):
    def output(self, state: Any) -> Tensor:
        found: Tensor = state[1]
        return found


class Difference(Parts):
    def output(self, state: Any) -> Tensor:
        found: Tensor = state[1] * 2 - 1
        return found


class Shifting(Parts):
    parts = 3


def needing(found: tuple[State, ...]) -> list[bool]:
    """Of each result, whether it needs a gradient."""
    return [leaf.requires_grad for leaf in leaves(found)]


def agree_on_needs(cell: nn.Module, inputs: Tensor, **options: Any) -> list[bool]:
    """The same results need a gradient as in the loop; gives which."""
    wanted = needing(bptt.unfold(cell, inputs, backend="eager", **options))
    assert needing(bptt.unfold(cell, inputs, backend="auto", **options)) == wanted
    agree(cell, inputs, **options)
    return wanted


@pytest.mark.parametrize("base", [Parts, Spikes, Difference])
@pytest.mark.parametrize("return_states", [False, True])
def test_a_result_without_a_gradient_needs_none(base: type[Parts], return_states: bool) -> None:
    cell = cell_of(spiking, base)
    found = agree_on_needs(cell, given(), return_states=return_states)
    assert found[:3] == [base is Parts, True, False]
    bptt.unfold(cell, given())[1][1].numpy()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_gradient_takes_its_steps_to_a_leaf(steps: int) -> None:
    cell = cell_of(shifting, Shifting)
    found = agree_on_needs(cell, given(steps=steps))
    assert found == [True, True, steps > 1, True]
    cell.w.requires_grad_(False)
    for lengths in (None, torch.full((3,), steps), torch.tensor([steps, 1, steps])):
        found = agree_on_needs(cell, given(steps=steps), lengths=lengths)
        assert found == [True, True, steps > 1, steps > 2]


def test_a_start_that_needs_a_gradient_alone() -> None:
    cell = cell_of(shifting, Shifting).requires_grad_(False)
    zeros = cell.initial_state(3)
    inputs = given().detach()
    assert not any(agree_on_needs(cell, inputs))
    for leaf in range(3):
        start = tuple(z.clone().requires_grad_(j == leaf) for j, z in enumerate(zeros))
        for steps in (1, 2, 5):
            agree_on_needs(cell, inputs[:steps], state=start)
        reset = torch.zeros(5, 3, dtype=torch.bool)
        agree_on_needs(cell, inputs, initial=start, state=zeros, reset=reset)
        reset[4, 1] = True
        agree_on_needs(cell, inputs, initial=start, state=zeros, reset=reset)


def test_segments_and_second_derivatives_of_spikes() -> None:
    cell, inputs = cell_of(spiking, Parts), given()
    found = []
    for backend in ("native", "eager"):
        first, between = bptt.unfold(cell, inputs[:2], backend=backend)
        second, last = bptt.unfold(cell, inputs[2:], between, backend=backend)
        assert needing((between, last)) == [True, False] * 2
        slope = torch.autograd.grad((second**3).sum(), inputs, create_graph=True)[0]
        found.append(torch.autograd.grad((slope**2).sum() + first.sum(), [*cell.parameters()][1:]))
    torch.testing.assert_close(*found)


def test_a_stack_whose_lower_cell_is_frozen() -> None:
    cell = bptt.cells.Stack(nn.GRUCell(SIZE, SIZE), nn.GRUCell(SIZE, SIZE))
    cell.cells[0].requires_grad_(False)
    assert agree_on_needs(cell, given().detach()) == [True, False, True]
    start = map_state(lambda s: s.requires_grad_(), cell.initial_state(3))
    assert all(agree_on_needs(cell, given().detach(), state=start))


# What changes between the way forth and the way back ---------------------------------------------


def added(s: Any, i: Tensor, h: Tensor) -> Tensor:
    return torch.tanh(i + h @ s.w)


def gained(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """The input is a factor: its values are read again."""
    return torch.tanh(i * h + s.u(i) @ s.w)


MADE: dict[str, Callable[[], Any]] = {
    "GRU": lambda: nn.GRUCell(SIZE, SIZE),
    "LSTM": lambda: nn.LSTMCell(SIZE, SIZE),
    "own": lambda: cell_of(drive),
    "added": lambda: cell_of(added),
    "gained": lambda: cell_of(gained),
}
Change = Callable[[Any, Tensor, Any], None]


def biases(cell: Any, inputs: Tensor, state: Any) -> None:
    for name, parameter in cell.named_parameters():
        if "bias" in name:
            parameter.add_(0.1)


def weights(cell: Any, inputs: Tensor, state: Any) -> None:
    for name, parameter in cell.named_parameters():
        if "bias" not in name:
            parameter.add_(0.1)


def buffer(cell: Any, inputs: Tensor, state: Any) -> None:
    inputs.zero_()


def start(cell: Any, inputs: Tensor, state: Any) -> None:
    leaves(state)[0].zero_()


def after(
    change: Change, cell: nn.Module, trained: Callable[[str], bool], backend: str
) -> list[Tensor | None] | str:
    """All gradients after a change, or the error."""
    before = {name: p.detach().clone() for name, p in cell.named_parameters()}
    for name, parameter in cell.named_parameters():
        parameter.requires_grad_(trained(name))
    inputs = given().detach()
    state: Any = torch.full((3, SIZE), 0.3)
    if isinstance(cell, nn.LSTMCell):
        state = (state, state.clone())
    asked = [p for p in cell.parameters() if p.requires_grad]
    if trained("state"):
        state = map_state(lambda leaf: leaf.requires_grad_(), state)
        asked += leaves(state)
    outputs = bptt.unfold(cell, inputs, state, backend=backend)[0]
    with torch.no_grad():
        change(cell, inputs, state)
    if not outputs.requires_grad:
        return "nothing is trained"
    try:
        return list(torch.autograd.grad((outputs**2).sum(), asked, allow_unused=True))
    except RuntimeError as error:
        return "changed" if "modified by an inplace operation" in str(error) else str(error)
    finally:
        for name, parameter in cell.named_parameters():
            parameter.data.copy_(before[name])


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("change", [biases, weights, buffer, start])
def test_what_autograd_would_not_save_may_change(kind: str, change: Change) -> None:
    cell = MADE[kind]()
    choices: list[Callable[[str], bool]] = [
        lambda name: "bias" in name,
        lambda name: name in ("weight_ih", "u.weight"),
        lambda name: name in ("weight_hh", "w"),
        lambda name: name == "state",
        lambda name: True,
    ]
    for trained in choices:
        found = after(change, cell, trained, "auto")
        expected = after(change, cell, trained, "eager")
        if isinstance(found, str) or isinstance(expected, str):
            # The loop has a copy of the start: a change of it seldom does any harm.
            assert found == expected or (change is start and expected == "changed")
            continue
        for one, other in zip(found, expected, strict=True):
            if other is not None:
                torch.testing.assert_close(one, other)


def test_what_unfolds_again_does_not_take_changed_values() -> None:
    cell, inputs = nn.GRUCell(SIZE, SIZE), given()
    outputs = bptt.unfold(cell, inputs)[0]
    with torch.no_grad():
        cell.bias_hh.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
    outputs = bptt.unfold(cell, inputs)[0]
    with torch.no_grad():
        outputs.relu_()
        cell.bias_hh.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_inputs_of_inference_mode_that_are_only_added() -> None:
    with torch.inference_mode():
        inputs = given().detach()
    agree(cell_of(added), inputs)


# What the loss does not reach ---------------------------------------------------------------------


def second(s: Any, i: Tensor, state: Any) -> Any:
    """Nothing of the second part is read by the first."""
    h = torch.tanh(s.u(i) + state[0])
    return h, torch.tanh(h + state[1] @ s.w)


NESTED: dict[str, Callable[[], Any]] = {
    "second": lambda: cell_of(second, Parts),
    "shifting": lambda: cell_of(shifting, Shifting),
    "spiking": lambda: cell_of(spiking, Parts),
    "stack": lambda: bptt.cells.Stack(nn.GRUCell(SIZE, SIZE), nn.LSTMCell(SIZE, SIZE)),
    "LSTM": lambda: nn.LSTMCell(SIZE, SIZE),
}


def gradients_of_each(cell: nn.Module, backend: str, **options: Any) -> list[list[Tensor | None]]:
    """The gradients of each result alone, and of the first and last one together."""
    inputs = given(steps=options.pop("steps"))
    with torch.no_grad():
        start = bptt.unfold(cell, inputs[:1], backend="eager")[1]
    start = map_state(lambda leaf: leaf.requires_grad_(), start)
    found = bptt.unfold(cell, inputs, start, backend=backend, **options)
    results = [r for r in leaves(found) if r.requires_grad]
    asked = [*cell.parameters(), inputs, *leaves(start)]
    sums = [(r**2).sum() for r in results]
    sums += [sums[0] + sums[-1]]
    return [list(torch.autograd.grad(s, asked, retain_graph=True, allow_unused=True)) for s in sums]


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_what_a_loss_does_not_reach_has_no_gradient(kind: str, steps: int) -> None:
    cell = NESTED[kind]()
    reset = torch.zeros(steps, 3, dtype=torch.bool)
    reset[-1, 1] = True
    ways: list[dict[str, Any]] = [{}, {"return_states": True}, {"reset": reset}]
    ways += [{"lengths": torch.tensor([steps, 1, steps])}]
    for options in ways:
        found = gradients_of_each(cell, "auto", steps=steps, **options)
        expected = gradients_of_each(cell, "eager", steps=steps, **options)
        for one, other in zip(found, expected, strict=True):
            assert [g is None for g in one] == [g is None for g in other]
            torch.testing.assert_close(one, other)


class Followed(nn.Module):
    """The second part of the state follows the first, which is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(1, SIZE), nn.GRUCell(SIZE, SIZE)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, SIZE), torch.zeros(batch, SIZE)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        new = self.first(input, state[0])
        return new, self.second(new, state[1])


METHODS = {
    "full": bptt.Full(),
    "segments": bptt.Full(segment=4),
    "truncated": bptt.Truncated(8, 4),
    "one step": bptt.Truncated(1),
    "stored": bptt.Truncated(8, 4, history="stored"),
    "sliding window": bptt.SlidingWindow(5),
}


@pytest.mark.parametrize("learn_initial_state", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_training_passes_over_what_no_loss_reaches(name: str, learn_initial_state: bool) -> None:
    """An optimizer that lets weights decay would move it, if its gradient were zeros."""
    trained = []
    for backend in ("auto", "eager"):
        torch.manual_seed(1)
        network = bptt.Network(Followed(), nn.Linear(SIZE, 1), learn_initial_state, backend=backend)
        before = network.cell.second.weight_hh.detach().clone()  # type: ignore[union-attr]  # it has one
        bptt.fit(
            network,
            bptt.Stream(torch.sin(0.3 * torch.arange(40.0)), horizon=1),
            method=METHODS[name],
            optimizer=torch.optim.AdamW(network.parameters(), 0.02, weight_decay=0.3),
            epochs=2,
            progress=False,
        )
        assert torch.equal(network.cell.second.weight_hh, before)  # type: ignore[union-attr]  # it has one
        trained.append([p.detach() for p in network.parameters()])
    torch.testing.assert_close(trained[0], trained[1])
