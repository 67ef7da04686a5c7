"""What the core holds beside PyTorch's tensors when it runs a cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bptt.engine import Plan, plan_for
from bptt.reuse import LINE
from bptt.segments._plan import Line
from bptt.segments._run import entering
from bptt.state import State, detach, leaves


def programs(cell: nn.Module, inputs: Tensor, state: State, backend: str) -> list[Plan]:
    """What runs the cell with a gradient and without; empty where it runs step by step."""
    if backend == "eager" or inputs.device.type != "cpu":
        return []
    with torch.enable_grad():
        learning = plan_for(cell, inputs, entering(state), detach(state))
    with torch.no_grad():
        running = plan_for(cell, inputs.detach(), detach(state), detach(state))
    return [plan for plan in (learning, running) if isinstance(plan, Plan)]


def held(found: list[Plan]) -> int:
    """The bytes that `programs` keep to work in, after they ran: packed weights, above all."""
    return sum(plan.workspace for plan in found)


def arrays(found: list[Plan], inputs: Tensor, state: State) -> Line:
    """The bytes that an unfolding by the core takes at once, for what it keeps."""
    if not found:
        return Line(0, 0)
    convention = found[0].convention
    row = inputs.shape[1] * leaves(state)[0].element_size()
    widths = sum(convention.widths)
    aligned = LINE * (len(convention.widths) + 1)
    return Line(row * widths + aligned, row * (widths + convention.saved_width))


def deltas(found: list[Plan], inputs: Tensor, state: State) -> int:
    """The bytes that the core allocates for each step as it goes back."""
    if not found or found[0].executable is None:
        return 0  # PyTorch allocates them
    lanes, size = inputs.shape[1], leaves(state)[0].element_size()
    return found[0].convention.delta_width * lanes * size
