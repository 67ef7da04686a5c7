"""deepSI: subspace encoders for system identification, in discrete and in continuous time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepSI import SUBNET, SUBNET_CT, Norm
from torch import Tensor, nn

import bptt

from .common import Pair, main, twins

STATE, PAST = 8, 10


# [adapt]
class Cell(nn.Module):
    """A step of `SUBNET`, or of `SUBNET_CT` with the sampling time behind the inputs."""

    def __init__(self, model: SUBNET | SUBNET_CT) -> None:
        super().__init__()
        self.model, self.hidden_size = model, model.nx

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        if isinstance(self.model, SUBNET):
            return self.model.f(state, input)
        return self.model.integrator(self.model.f_CT, state, input[:, :-1], input[:, -1])


def unfolded(cell: Cell, upast: Tensor, ypast: Tensor, ufuture: Tensor, *time: Tensor) -> Tensor:
    """What ``model(upast, ypast, ufuture, *time)`` gives."""
    model, inputs = cell.model, ufuture.transpose(0, 1)
    first = model.encoder(upast, ypast)
    given = [inputs, *(t.expand(len(inputs), len(t)).unsqueeze(2) for t in time)]
    after, _ = bptt.unfold(cell, torch.cat(given, dim=2), first)
    before = torch.cat([first.unsqueeze(0), after[:-1]]).transpose(0, 1)
    seen = (
        (before.flatten(0, 1), ufuture.flatten(0, 1))
        if model.feedthrough
        else (before.flatten(0, 1),)
    )
    return model.h(*seen).unflatten(0, ufuture.shape[:2])


# [/adapt]


def case(
    kind: type[nn.Module], inputs: int, steps: int, lanes: int, **options: Any
) -> Callable[[], Pair]:
    def make() -> Pair:
        norm = Norm(torch.randn(inputs), torch.rand(inputs) + 0.5, 0.3, 1.4, 0.1)
        model = kind(inputs, "scalar", norm, nx=STATE, nb=PAST, na=PAST, **options)
        given = [
            torch.randn(lanes, PAST, inputs),
            torch.randn(lanes, PAST),
            torch.randn(lanes, steps, inputs, requires_grad=True),
        ]
        if kind is SUBNET_CT:
            given.append(torch.rand(lanes) * 0.1)

        def before(cell: Cell) -> Any:
            return cell.model(*given)

        def after(cell: Cell) -> Any:
            return unfolded(cell, *given)

        return twins(Cell(model), before, after, steps, lanes, [given[2]])

    return make


CASES = {
    "SUBNET": case(SUBNET, 2, 50, 32),
    "SUBNET, one lane": case(SUBNET, 2, 500, 1),
    "SUBNET with feedthrough": case(SUBNET, 3, 50, 32, feedthrough=True),
    "SUBNET_CT": case(SUBNET_CT, 2, 50, 32),
    "SUBNET_CT, one lane": case(SUBNET_CT, 2, 200, 1),
}

if __name__ == "__main__":
    main("deepSI", CASES)
