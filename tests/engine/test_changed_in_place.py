"""Arguments changed before the gradient comes, and outputs changed in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .layered import DOUBLE

pytestmark = pytest.mark.usefixtures("core")


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
