"""Calls in inference mode and without gradients, first or later; modes inside a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import cells

from .contact import SIZE, Step, agree, assert_close, cell_of, drive, given

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]


@pytest.mark.parametrize("make", [lambda: nn.GRUCell(SIZE, 5), lambda: cell_of(drive)])
def test_a_first_call_in_inference_mode_is_as_native_as_any(make: Callable[[], Any]) -> None:
    cell, inputs = make(), given(1, 1000).detach()
    with torch.inference_mode():
        outputs, _ = bptt.unfold(cell, inputs)
        assert outputs.is_inference()
        bptt.unfold(cell, inputs, backend="native")
    agree(cell)
    bptt.unfold(cell, given(), backend="native")
    with torch.inference_mode():
        agree(cell, given().detach())


def test_weights_and_inputs_made_in_inference_mode() -> None:
    with torch.inference_mode():
        cell, inputs, state = cell_of(drive), given().detach(), torch.zeros(3, SIZE)
        agree(cell, inputs, state=state)
    agree(cell, inputs)
    agree(cell, given())
    agree(cell_of(drive), inputs, state=state)


def inside(mode: Callable[[], Any]) -> Step:
    def step(s: Any, i: Tensor, h: Tensor) -> Tensor:
        with mode():
            gate = torch.sigmoid(h @ s.w + i)
        return drive(s, i, h) * gate.clone()

    return step


@pytest.mark.parametrize(
    "mode",
    [torch.inference_mode, torch.no_grad, torch.enable_grad, lambda: torch.set_grad_enabled(False)],
)
def test_modes_inside_the_step(mode: Callable[[], Any]) -> None:
    cell = cell_of(inside(mode))
    agree(cell)
    with torch.no_grad():
        agree(cell, given().detach())
    agree(cell, given().detach())


def test_a_whole_step_without_gradient() -> None:
    agree(cell_of(torch.no_grad()(drive)))
    agree(cell_of(torch.enable_grad()(drive)))
    with torch.no_grad():
        agree(cell_of(torch.enable_grad()(drive)), given().detach())


def test_embeddings_that_count_what_a_step_reads() -> None:
    table = nn.Embedding(5, SIZE, scale_grad_by_freq=True)
    cell = cells.Embedded(table, cells.GRU(SIZE, SIZE))
    agree(cell, torch.randint(0, 5, (7, 3)))
    own = cell_of(lambda s, i, h: torch.tanh(s.table(i) + h @ s.w), table=table)
    agree(own, torch.randint(0, 5, (7, 3)))
    for options in ({"max_norm": 0.5}, {"padding_idx": 1}, {"sparse": True}):
        tables = []
        for _ in range(2):
            torch.manual_seed(1)
            tables.append(cells.Embedded(nn.Embedding(5, SIZE, **options), cells.GRU(SIZE, SIZE)))
        found = [
            bptt.unfold(one, torch.arange(10).reshape(5, 2) % 5, backend=backend)[0]
            for one, backend in zip(tables, ("auto", "eager"), strict=True)
        ]
        grads = []
        for outputs, one in zip(found, tables, strict=True):
            outputs.sin().sum().backward()
            grads.append(one.embedding.weight.grad.to_dense())
        assert_close(str(options), *found)
        assert_close(str(options), *grads)
        assert_close(str(options), *(one.embedding.weight for one in tables))
