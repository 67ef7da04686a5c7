"""Comparison of executors: every output and every gradient by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bptt.engine import Plan, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import native
from bptt.state import State, initial_state, leaves, map_state


@dataclass
class Case:
    """One unfolding: the cell, and all that it is given."""

    cell: nn.Module
    inputs: Tensor
    state: State
    initial: State
    reset: Tensor | None = None
    lengths: Tensor | None = None
    clip: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


def case(
    cell: nn.Module,
    size: int,
    steps: int,
    batch: int,
    *,
    dtype: torch.dtype = torch.float64,
    reset: bool = False,
    lengths: bool = False,
    clip: float | None = None,
    given: bool = True,
    seed: int = 0,
) -> Case:
    """A case with random data; everything needs a gradient."""
    generator = torch.Generator().manual_seed(seed)
    cell = cell.to(dtype)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    inputs = random(steps, batch, size)
    start = initial_state(cell, batch)
    state, initial = start, start
    if given:
        state = map_state(lambda s: (s + 0.3 * random(*s.shape)).requires_grad_(), start)
        initial = map_state(lambda s: (s + 0.3 * random(*s.shape)).requires_grad_(), start)
    resets = torch.rand((steps, batch), generator=generator) < 0.2 if reset else None
    ends = torch.randint(0, steps + 1, (batch,), generator=generator) if lengths else None
    if ends is not None:
        inputs = inputs * (torch.arange(steps)[:, None] < ends)[:, :, None]
    return Case(cell, inputs.requires_grad_(), state, initial, resets, ends, clip)


def results(given: Case, executor: str) -> dict[str, Tensor]:
    """Outputs and gradients of a random loss on all of them, by name."""
    options = {
        "initial": given.initial,
        "reset": given.reset,
        "lengths": given.lengths,
        "return_states": True,
        "clip": given.clip,
    }
    arguments: Any = (given.cell, given.inputs, given.state)
    if executor == "eager":
        outputs, last, states = eager.run(*arguments, **options)
    else:
        plan = plan_for(*arguments, given.initial, kernel=executor)
        assert isinstance(plan, Plan), str(plan)
        outputs, last, states = native.run(*arguments, plan=plan, **options)
    found = {"outputs": outputs}
    found |= {f"last {j}": leaf for j, leaf in enumerate(leaves(last))}
    found |= {f"states {j}": leaf for j, leaf in enumerate(leaves(states))}
    return found | gradients(given, found)


def gradients(given: Case, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of one fixed random functional of all results."""
    generator = torch.Generator().manual_seed(99)
    loss = torch.zeros((), dtype=given.inputs.dtype)
    for tensor in found.values():
        weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        loss = loss + (weight.to(tensor.dtype) * tensor).sum()
    asked = {"input": given.inputs} if given.inputs.is_floating_point() else {}
    asked |= {f"start {j}": s for j, s in enumerate(leaves(given.state)) if s.requires_grad}
    if given.reset is not None:
        asked |= {f"initial {j}": s for j, s in enumerate(leaves(given.initial)) if s.requires_grad}
    asked |= {name: p for name, p in given.cell.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(asked.values()), allow_unused=True)
    zeros = [
        torch.zeros_like(t) if g is None else g for t, g in zip(asked.values(), grads, strict=True)
    ]
    return {f"gradient of {name}": g for name, g in zip(asked, zeros, strict=True)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every tensor by name, relative to the greatest magnitude in the expected one (at least 1)."""
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        got = found[name]
        assert got.shape == want.shape, f"{name}: {list(got.shape)} for {list(want.shape)}"
        assert got.dtype == want.dtype, name
        if not want.numel():
            continue
        assert torch.isfinite(want).all(), f"{name} of the oracle is not finite"
        scale = max(1.0, float(want.detach().abs().max()))
        worst = float((got.detach() - want.detach()).abs().max()) / scale
        assert worst <= tolerance, f"{name} is off by {worst:.2e}"
