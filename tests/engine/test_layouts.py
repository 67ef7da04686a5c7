"""Arguments, weights and gradients in any layout, or changed before the gradient comes."""

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
from bptt import cells
from bptt.engine import Plan, plan_for
from bptt.state import initial_state, leaves, map_state

from .conftest import require_core

pytestmark = pytest.mark.usefixtures("core")
DOUBLE: dict[str, Any] = {"dtype": torch.float64}


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


class Sine(nn.Linear):
    """Of its results the core knows nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.sin(super().forward(input))


def embedded() -> nn.Module:
    """Runs in parts, with two leaves of the state."""
    return cells.Embedded(Sine(3, 4), cells.Stack(cells.GRU(4, 5), cells.GRU(5, 2)))


CELLS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: nn.GRUCell(3, 5),
    "narrow": lambda: nn.GRUCell(3, 1),
    "lstm": lambda: cells.LSTM(3, 4),
    "stack": lambda: cells.Stack(cells.GRU(3, 5), cells.LSTM(5, 4)),
    "embedded": embedded,
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


# Changed before the gradient comes ---------------------------------------------------------------


def given_all(lanes: int = 3) -> dict[str, Any]:
    return {
        "initial": torch.randn(lanes, 4, **DOUBLE),
        "state": torch.randn(lanes, 4, **DOUBLE),
        "reset": torch.rand(6, lanes) < 0.4,
        "lengths": torch.tensor([6, 2, 4]),
    }


@pytest.mark.parametrize("changed", ["initial", "state", "reset", "lengths"])
@pytest.mark.parametrize("unfold", [bptt.unfold, bptt.checkpointed_unfold])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_an_argument_changed_before_the_gradient_comes(
    changed: str, unfold: Any, again: bool
) -> None:
    """Never another gradient. The plain loop raises for some of them."""
    if again and unfold is bptt.checkpointed_unfold:
        pytest.skip("it has no second gradient")
    cell, options = nn.GRUCell(2, 4, **DOUBLE), given_all()
    inputs = torch.randn(6, 3, 2, **DOUBLE)
    parameters = list(cell.parameters())
    outputs, _ = unfold(cell, inputs, backend="native", **options)

    def gradients() -> list[Tensor]:
        found = torch.autograd.grad(
            outputs.sin().sum(), parameters, retain_graph=True, create_graph=again
        )
        if again:
            total = torch.stack([g.square().sum() for g in found]).sum()
            return list(torch.autograd.grad(total, parameters, retain_graph=True))
        return list(found)

    before = gradients()
    options[changed].zero_() if changed != "lengths" else options[changed].fill_(6)
    if unfold is bptt.checkpointed_unfold and changed == "state":
        with pytest.raises(RuntimeError, match="inplace"):
            gradients()
        return
    torch.testing.assert_close(gradients(), before, rtol=1e-12, atol=1e-12)


def test_a_learned_initial_state_changed_before_the_gradient_comes() -> None:
    cell, initial = nn.GRUCell(2, 4, **DOUBLE), torch.zeros(1, **DOUBLE, requires_grad=True)
    inputs, reset = torch.randn(6, 3, 2, **DOUBLE), torch.rand(6, 3) < 0.4
    outputs, _ = bptt.unfold(
        cell, inputs, initial=initial.expand(3, 4), state=torch.ones(3, 4, **DOUBLE), reset=reset
    )
    (before,) = torch.autograd.grad(outputs.sin().sum(), initial, retain_graph=True)
    with torch.no_grad():
        initial.fill_(3.0)
    (after,) = torch.autograd.grad(outputs.sin().sum(), initial)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


# Outputs that a cell computes ---------------------------------------------------------------------


def cell_with(output: Callable[[Tensor], Tensor]) -> nn.Module:
    class Own(nn.GRUCell):
        def output(self, state: Tensor) -> Tensor:
            return output(state)

    return Own(3, 4, **DOUBLE)


@pytest.mark.parametrize(
    "output",
    [
        torch.tanh,
        torch.exp,
        lambda s: torch.softmax(s, dim=1),
        lambda s: s * 2.0,
        lambda s: s[:, 1:3],
        lambda s: torch.tanh(s)[:, :2],
        lambda s: s.detach() * s,
    ],
)
@pytest.mark.parametrize("every", [False, True])
def test_computed_outputs_may_be_changed_in_place(
    output: Callable[[Tensor], Tensor], every: bool
) -> None:
    cell, inputs = cell_with(output), torch.randn(5, 2, 3, **DOUBLE)
    found: list[list[Tensor]] = []
    for backend in ("native", "eager"):
        results = bptt.unfold(cell, inputs, return_states=every, backend=backend)  # type: ignore[call-overload]  # of any overload
        outputs, last = results[0], results[1]
        total = outputs.mul_(2).sin().sum() + last.cos().sum()
        if every:
            total = total + results[2].sum() + results[2].add_(1.0).square().sum()
        found.append([total, *torch.autograd.grad(total, list(cell.parameters()))])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


# Many gradients at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("special", [False, True], ids=["plain", "reset, lengths, clip"])
def test_many_gradients_at_once(name: str, special: bool) -> None:
    cell, inputs = CELLS[name]().double(), torch.randn(5, 3, 3, **DOUBLE, requires_grad=True)
    options: dict[str, Any] = {}
    if special:
        options = {"reset": torch.rand(5, 3) < 0.3, "lengths": torch.tensor([5, 2, 4])}
        options["clip_state_gradient"] = 0.1
    asked, found = [inputs, *cell.parameters()], []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend, **options)  # type: ignore[call-overload]  # of any overload
        seeds = torch.randn(4, *outputs.shape, **DOUBLE, generator=torch.Generator().manual_seed(1))
        each = [torch.autograd.grad(outputs, asked, s, retain_graph=True) for s in seeds]
        by_vmap = torch.vmap(
            lambda s, o=outputs: torch.autograd.grad(o, asked, s, retain_graph=True)
        )(seeds)
        batched = torch.autograd.grad(outputs, asked, seeds, is_grads_batched=True)
        assert not any(g.requires_grad for g in batched)
        for one_by_one, way, other in zip(zip(*each, strict=True), batched, by_vmap, strict=True):
            torch.testing.assert_close(way, torch.stack(one_by_one), rtol=1e-10, atol=1e-11)
            torch.testing.assert_close(other, way, rtol=1e-10, atol=1e-11)
        found.append(batched)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-11)


def test_jacobians_and_gradcheck_of_many_gradients() -> None:
    cell, inputs = nn.LSTMCell(2, 3, **DOUBLE), torch.randn(3, 2, 2, **DOUBLE, requires_grad=True)

    def unfold(x: Tensor) -> Tensor:
        return bptt.unfold(cell, x, backend="native")[0]

    jacobians = [
        torch.autograd.functional.jacobian(unfold, inputs, vectorize=way)  # type: ignore[no-untyped-call]  # untyped in torch
        for way in (False, True)
    ]
    torch.testing.assert_close(jacobians[0], jacobians[1], rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(unfold, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(unfold, inputs, check_batched_grad=True)


def test_tangents_of_gradients() -> None:
    """A gradient whose seed carries a tangent: its gradient carries one, too."""
    from torch.autograd import forward_ad

    cell, inputs = nn.GRUCell(2, 3, **DOUBLE), torch.randn(3, 2, 2, **DOUBLE, requires_grad=True)
    seed, tangent = torch.randn(2, 3, 2, 3, **DOUBLE)
    found = []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend)  # type: ignore[call-overload]  # of any overload
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(seed, tangent)  # type: ignore[no-untyped-call]  # untyped in torch
            (gradient,) = torch.autograd.grad(outputs, inputs, dual)
            found.append(tuple(forward_ad.unpack_dual(gradient)))  # type: ignore[no-untyped-call]  # untyped in torch
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


# What a cell holds and does not read --------------------------------------------------------------


class Idle(nn.GRUCell):
    """Reads neither its buffers nor one of its parameters."""

    def __init__(self) -> None:
        super().__init__(3, 4, **DOUBLE)
        self.register_buffer("old", torch.zeros(2, **DOUBLE))
        self.register_buffer("count", torch.tensor(0))
        self.unused = nn.Parameter(torch.zeros(2, **DOUBLE))


def test_what_is_not_read_is_none_of_the_graph() -> None:
    cell, inputs = Idle(), torch.randn(5, 2, 3, **DOUBLE)
    source = torch.ones(2, **DOUBLE, requires_grad=True)
    cell.old = source.exp()  # of a graph that is gone at the next backward
    cell.old.sum().backward()
    outputs, _ = bptt.unfold(cell, inputs, backend="native")
    cell.count += 1  # type: ignore[operator]  # a buffer
    cell.unused.data.add_(1.0)
    with torch.no_grad():
        cell.unused.add_(1.0)
    outputs.sum().backward()
    assert cell.unused.grad is None
    found = [p.grad for p in cell.parameters()]
    cell.zero_grad()
    bptt.unfold(cell, inputs, backend="eager")[0].sum().backward()
    expected = [p.grad for p in cell.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_what_is_not_read_does_not_keep_a_cell_from_running_whole() -> None:
    cell, inputs = Idle(), torch.randn(5, 2, 3, **DOUBLE)
    state = torch.zeros(2, 4, **DOUBLE)
    plan = plan_for(cell, inputs, state, state)
    assert isinstance(plan, Plan)
    assert plan.executable is not None
