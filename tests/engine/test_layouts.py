"""Arguments, weights and gradients in any layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import bptt
from bptt.engine import Plan, plan_for
from bptt.state import initial_state, leaves, map_state

from .conftest import require_core
from .layered import CELLS, DOUBLE

pytestmark = pytest.mark.usefixtures("core")


def transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def every_other(t: Tensor) -> Tensor:
    return torch.stack([t, torch.zeros_like(t)], dim=-1)[..., 0]


def with_gaps(t: Tensor) -> Tensor:
    return torch.stack([t, torch.ones_like(t)], dim=1)[:, 0]


def behind_others(t: Tensor) -> Tensor:
    return torch.cat([t.new_ones(3), t.reshape(-1)])[3:].view(t.shape)


def first_row(t: Tensor) -> Tensor:
    return t[:1].expand(t.shape)


def first_column(t: Tensor) -> Tensor:
    return t[..., :1].expand(t.shape)


def to_be_negated(t: Tensor) -> Tensor:
    """An imaginary part, which waits to be negated."""
    if not t.is_floating_point():
        return t
    found = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert found.is_neg()
    return found


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    f.__name__: f
    for f in (
        Tensor.clone,
        transposed,
        every_other,
        with_gaps,
        behind_others,
        first_row,
        first_column,
        to_be_negated,
    )
}


@cache
def cell_of(name: str) -> nn.Module:
    """One for all layouts, which is captured once: others of its structure share that."""
    cell = CELLS[name]().double()
    bptt.unfold(cell, torch.zeros(2, 2, 3, **DOUBLE))
    return cell


PLACES = ("inputs", "state", "initial", "reset", "lengths", "weights", "gradients")


def random_like(state: Any) -> Any:
    return map_state(torch.randn_like, state)


def compare(
    name: str, layouts: dict[str, str], lanes: int, needs: bool, some: frozenset[str]
) -> None:
    """Outputs and gradients natively and eagerly; ``some`` optional arguments are given."""
    # A captured cell whose weights lie elsewhere in every call is left to the Python loop.
    kept = cell_of(name)
    cell = CELLS[name]().double() if name == "embedded" else kept
    for parameter in cell.parameters():
        parameter.data = LAYOUTS[layouts["weights"]](torch.randn_like(parameter) / 2)

    def laid(place: str, tensor: Tensor) -> Tensor:
        return LAYOUTS[layouts[place]](tensor).detach()

    own = initial_state(cell, lanes)
    inputs = laid("inputs", torch.randn(6, lanes, 3, **DOUBLE)).requires_grad_(needs)
    options: dict[str, Any] = {
        "state": map_state(lambda s: laid("state", s), random_like(own)),
        "initial": map_state(lambda s: laid("initial", s), random_like(own)),
        "reset": laid("reset", torch.rand(6, lanes) < 0.3),
        "lengths": laid("lengths", torch.randint(0, 7, (lanes,))),
    }
    options = {key: value for key, value in options.items() if key in some}
    states = [s for key in ("state", "initial") for s in leaves(options.get(key, ()))]
    asked = [inputs] * needs + [s.requires_grad_(needs) for s in states if needs]
    asked += list(cell.parameters())
    seeds: list[Tensor] = []
    found = []
    for backend in ("eager", "native"):
        outputs, last, every = bptt.unfold(  # type: ignore[call-overload]  # of any overload
            cell, inputs, return_states=True, backend=backend, **options
        )
        results = [outputs, *leaves(last), *leaves(every)]
        seeds = seeds or [laid("gradients", torch.randn_like(r)) for r in results]
        grads = torch.autograd.grad(results, asked, seeds, allow_unused=True)
        zeros = [torch.zeros_like(t) if g is None else g for t, g in zip(asked, grads, strict=True)]
        found.append([*results, *zeros])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("gru", layout) for layout in LAYOUTS),
        *(("embedded", layout) for layout in ("transposed", "with_gaps", "first_column")),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_one_argument_in_another_layout(name: str, place: str, layout: str) -> None:
    layouts = dict.fromkeys(PLACES, "clone") | {place: layout}
    compare(name, layouts, 4, True, frozenset({"state", "initial", "reset"}))
    compare(name, layouts, 4, False, frozenset({place, "lengths"}))


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(CELLS)),
    layouts=st.fixed_dictionaries({place: st.sampled_from(sorted(LAYOUTS)) for place in PLACES}),
    lanes=st.integers(1, 4),
    needs=st.booleans(),
    some=st.frozensets(st.sampled_from(PLACES[1:5])),
)
def test_all_arguments_in_any_layout(
    name: str, layouts: dict[str, str], lanes: int, needs: bool, some: frozenset[str]
) -> None:
    require_core()
    compare(name, layouts, lanes, needs, some)


def test_a_view_that_runs_before_the_loop() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.shift = nn.Linear(3, 8), nn.Parameter(torch.randn(8))
            self.weight, self.hidden_size = nn.Parameter(torch.randn(4, 4) / 2), 4

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            into = torch.sin(self.into(input))[:, ::2]
            return torch.tanh(into * state + self.shift[::2] * (state @ self.weight))

    cell, inputs = Views().double(), torch.randn(6, 2, 3, **DOUBLE)
    found = [bptt.unfold(cell, inputs, backend=b)[0] for b in ("native", "eager")]
    grads = [torch.autograd.grad(o.sin().sum(), list(cell.parameters())) for o in found]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", ["embedded", "stack"])
def test_leaves_that_share_memory(name: str, reset: bool) -> None:
    """Segments take the arrays of all leaves out of one block."""
    cell, inputs = CELLS[name]().double(), torch.randn(40, 3, 3, **DOUBLE)
    state = initial_state(cell, 3)
    plan = plan_for(cell, inputs, state, state)
    assert isinstance(plan, Plan)
    assert (plan.executable is None) == (name == "embedded")
    mask = torch.rand(40, 3) < 0.2 if reset else None
    whole = bptt.unfold(cell, inputs, reset=mask, backend="eager")[0]
    parts = bptt.checkpointed_unfold(cell, inputs, segment=10, reset=mask, backend="native")[0]
    grads = [torch.autograd.grad(o.sin().sum(), list(cell.parameters())) for o in (whole, parts)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-10, atol=1e-12)


NEGATED: dict[str, Callable[[Tensor], Tensor]] = {
    "as it lies": lambda g: torch._neg_view(-g),
    "an imaginary part": lambda g: torch.complex(torch.zeros_like(g), -g).conj().imag,
    "of one row": lambda g: torch._neg_view(-g[:1, :1]).expand(g.shape),
}


@pytest.mark.parametrize("name", NEGATED)
def test_gradients_that_wait_to_be_negated(name: str) -> None:
    require_core()
    gradient = NEGATED[name](torch.randn(6, 2, 4, **DOUBLE))
    assert gradient.is_neg()
    cell, inputs = nn.GRUCell(3, 4).double(), torch.randn(6, 2, 3, **DOUBLE)
    found = [
        torch.autograd.grad(
            bptt.unfold(cell, inputs, backend=backend)[0], list(cell.parameters()), gradient
        )
        for backend in ("native", "eager")
    ]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
