"""Calls of one lane, whose size Dynamo takes for a constant, beside those of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bptt

from .contact import SIZE, Base, agree, cell_of, drive, given

pytestmark = pytest.mark.usefixtures("core", "double")

HALF = SIZE // 2


def heads(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """Attention's way to take features apart."""
    lanes = i.shape[0]
    parts = (s.u(i) + h @ s.w).view(lanes, 2, HALF)
    return torch.tanh(torch.softmax(parts, -1).reshape(lanes, -1) + h)


def made(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """A row a lane, made in the step."""
    return torch.tanh(torch.cat([h, i.new_ones(len(i), 1)], 1)[:, 1:] @ s.w + s.u(i))


def expanded(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """A parameter's row for each lane."""
    return torch.tanh(s.u.bias.expand(i.size(0), -1) * h + i @ s.w)


def scaled(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """A buffer and another parameter read before the ones that the graph of several lanes does."""
    return torch.tanh(s.scale * h.reshape(len(h), 2, -1).flatten(1) + s.u(i) + h @ s.w)


def matrices(s: Any, i: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two leaves."""
    h, c = state
    c = 0.5 * c + heads(s, i, h)
    return torch.tanh(c).reshape(i.shape[0], SIZE), c


class Parted(Base):
    """A readout that counts the lanes."""

    def output(self, state: Tensor) -> Tensor:
        """Two means."""
        return state.view(state.shape[0], 2, HALF).mean(-1)


class Pair(Base):
    """A state of two leaves."""

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros."""
        return (torch.zeros(batch, SIZE, dtype=torch.float64),) * 2


CELLS: dict[str, Callable[[], Any]] = {
    "heads": lambda: cell_of(heads),
    "made": lambda: cell_of(made),
    "expanded": lambda: cell_of(expanded),
    "scaled": lambda: cell_of(scaled, scale=torch.tensor(0.7)),
    "two leaves": lambda: cell_of(matrices, Pair),
    "output": lambda: cell_of(heads, Parted),
}


@pytest.mark.parametrize("name", CELLS)
def test_one_lane_is_native_as_several_are(name: str) -> None:
    for order in ((1, 3, 1), (3, 1)):
        cell = CELLS[name]()
        for lanes in order:
            agree(cell, given(lanes))
        assert bptt.explain(cell, given(1, 30)).program is not None
        with torch.no_grad():
            agree(cell, given(1))


def test_one_program_serves_both() -> None:
    cell = CELLS["output"]()
    one, several = (bptt.explain(cell, given(lanes, 30)).program for lanes in (1, 3))
    assert one is several


def test_weights_and_attributes_change_between_calls_of_one_lane() -> None:
    cell = cell_of(lambda s, i, h: heads(s, i, h) * s.gain, gain=0.5)
    for gain in (0.5, 2.0, -1.0, 0.25):
        cell.gain = gain
        with torch.no_grad():
            cell.w.mul_(0.9)
        agree(cell, given(1))
        agree(cell, given(3))


def test_what_only_one_lane_reads_is_looked_at() -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        if len(i) == 1 and s.flag:
            return torch.sigmoid(heads(s, i, h))
        return heads(s, i, h)

    cell = cell_of(step, flag=False)
    for flag in (False, True, False):
        cell.flag = flag
        for lanes in (1, 3):
            agree(cell, given(lanes))


ALONE: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "a branch": lambda s, i, h: drive(s, i, h) if len(i) > 1 else drive(s, i, h).sin(),
    "squeeze": lambda s, i, h: drive(s, i, h.squeeze().reshape(len(i), -1)),
    "a count": lambda s, i, h: drive(s, i, h) / len(i),
    "a count, at least": lambda s, i, h: drive(s, i, h) / max(len(i), 2),
    "one alone": lambda s, i, h: drive(s, i, h.reshape(1, -1)),
    "of the lanes": lambda s, i, h: torch.tanh(h @ s.w + i - i.mean(0)),
    "a row of the lanes": lambda s, i, h: torch.tanh(h @ s.w + i[0]),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_lane_is_another_step_than_several(name: str) -> None:
    for order in ((1, 3), (3, 1)):  # the first call alone is verified
        cell = cell_of(ALONE[name])
        for lanes in order:
            agree(cell, given(lanes))


def test_a_verdict_on_one_lane_is_not_one_on_several() -> None:
    cell = cell_of(lambda s, i, h: drive(s, i, h) * (h.mean(0) if len(i) == 1 else 1))
    with pytest.warns(UserWarning, match="Python loop"):
        bptt.unfold(cell, given(1, 30))
    assert bptt.explain(cell, given(3, 30)).program is not None


def test_numbers_that_one_lane_computes_otherwise() -> None:
    cell = cell_of(lambda s, i, h: drive(s, i, h) * (s.dt * (2 if len(i) == 1 else 3)), dt=0.5)
    for dt in (0.5, 0.25, 0.1):
        cell.dt = dt
        for lanes in (3, 1):
            agree(cell, given(lanes))


def test_layouts_of_one_lane() -> None:
    cell = CELLS["heads"]()
    wide = given(SIZE, 5)
    for inputs in (wide[:, :1], wide.transpose(1, 2)[:, :1], given(1, 1).expand(5, 1, SIZE)):
        agree(cell, inputs.detach().requires_grad_())
        agree(cell, inputs.detach(), state=torch.randn(SIZE, 1, dtype=torch.float64).t())


def test_many_small_groups_of_many_lanes_are_left_to_pytorch() -> None:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        parts = (i + h * 0.5).view(len(i), 64, 4)
        return torch.tanh((parts / (1 + parts.norm(dim=-1, keepdim=True))).reshape(len(i), -1))

    cell = cell_of(step, hidden_size=256)
    assert bptt.explain(cell, given(2, 30, 256)).program is not None
    several = bptt.explain(cell, given(500, 30, 256))
    assert several.program is None
    assert "with so many lanes" in str(several)
    agree(cell, given(500, 2, 256))
