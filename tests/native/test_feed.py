"""`bptt._core.Rows` and `Feed`: what does not fit is refused, or left to who takes it in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt import _core
from bptt.training._online_core import CoreSide


def rows(buffer: Any) -> Any:
    return _core.Rows(buffer)


@pytest.mark.parametrize(
    ("row", "fits"),
    [
        (torch.ones(2, 3), True),
        (torch.ones(3, 2).t(), False),
        (torch.ones(3), False),
        (torch.ones(2, 4), False),
        (torch.ones(1, 2, 3), False),
        (torch.ones(2, 3, dtype=torch.float64), False),
        (torch.ones(2, 3, dtype=torch.int32), False),
        (torch.full((2, 3), float("nan")), False),
        (torch.full((2, 3), float("-inf")), False),
        (nn.Parameter(torch.ones(2, 3)), False),
        (torch.ones(2, 3, device="meta"), False),
        (torch.ones(2, 3).to_sparse(), False),
        (np.ones((2, 3), np.float32), False),
        (None, False),
        ([1.0], False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows(row: Any, fits: bool) -> None:
    buffer = torch.zeros(5, 2, 3)
    assert rows(buffer).put(3, row) == fits
    assert torch.equal(buffer[3], torch.full((2, 3), float(fits)))
    assert not buffer[[0, 1, 2, 4]].any()


def test_rows_of_one_lane() -> None:
    buffer = torch.zeros(5, 1, 3)
    assert rows(buffer).put(0, torch.ones(3))
    assert rows(buffer).put(1, torch.ones(1, 3))
    assert torch.equal(buffer[:2], torch.ones(2, 1, 3))
    assert not buffer[2:].any()


@pytest.mark.parametrize("index", [-1, 5, 1 << 60, -(1 << 60)])
def test_there_is_no_such_row(index: int) -> None:
    assert not rows(torch.zeros(5, 1, 3)).put(index, torch.ones(3))


@pytest.mark.parametrize(("value", "fits"), [(0, True), (2, True), (3, False), (-1, False)])
def test_classes(value: int, fits: bool) -> None:
    buffer = torch.full((4, 1), 7)
    assert rows(buffer).put(1, torch.tensor(value), classes=3) == fits
    assert rows(buffer).put(2, torch.tensor(value))
    assert buffer[:, 0].tolist() == [7, value if fits else 7, value, 7]


@pytest.mark.parametrize(
    "buffer", [torch.zeros(3), torch.zeros(3, 4).t(), torch.zeros(3, 2)[:, :1]]
)
def test_what_is_no_buffer(buffer: Tensor) -> None:
    with pytest.raises(ValueError, match="not contiguous, or without lanes"):
        rows(buffer)
    with pytest.raises(TypeError, match="no tensor"):
        rows(buffer.to("meta"))


def parts() -> dict[str, Any]:
    """What a `Feed` is made of, taken from a learner in full flight."""
    kept: dict[str, Any] = {}
    torch.manual_seed(0)
    net = bptt.Network(bptt.cells.Elman(2, 4), nn.Linear(4, 3))
    learner = bptt.Online(net, bptt.Truncated(3, 1), "mse")
    for _ in range(8):
        learner.step(torch.randn(2), torch.randn(3))
    side, batch = learner._native, learner._batch
    assert isinstance(side, CoreSide)
    kept |= {"learner": side.learner.core, "watch": side._watch, "check": None}
    kept |= {"standing": learner._at, "mask": batch.mask, "horizon": 0}
    kept |= {"inputs": batch.rows["inputs"], "targets": batch.rows["targets"]}
    kept["predictions"] = lambda alone: [torch.empty(1, 3)]
    return kept


def step(given: dict[str, Any]) -> Any:
    feed = _core.Feed(**given)
    return feed.step(torch.randn(2), torch.randn(3))


def test_a_feed() -> None:
    given = parts()
    before = given["standing"].updates
    assert step(given).shape == (1, 3)
    assert given["standing"].updates == before + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", torch.zeros(9, 1, 3)),
        ("inputs", torch.zeros(9, 1, 2, dtype=torch.float64)),
        ("targets", torch.zeros(9, 1, 3)),
        ("targets", torch.zeros(520, 1, 2)),
        ("mask", torch.zeros(9, 1, dtype=torch.bool)),
        ("mask", torch.zeros(520, 1)),
        ("horizon", -1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_makes_no_feed(name: str, value: Any) -> None:
    given = parts()
    capacity = len(given["mask"])
    if isinstance(value, Tensor) and len(value) == 520:
        value = value[:1].expand(capacity, *value.shape[1:]).contiguous()
    given[name] = rows(value) if name in ("inputs", "targets") else value
    with pytest.raises((ValueError, TypeError)):
        step(given)


@pytest.mark.parametrize("name", ["learner", "watch", "standing", "inputs", "targets"])
def test_other_objects_make_no_feed(name: str) -> None:
    with pytest.raises((TypeError, RuntimeError)):
        step(parts() | {name: object()})


@pytest.mark.parametrize(
    "made", [[], [torch.ones(2)], [torch.ones(1, 3, dtype=torch.float64)], None, [None]]
)
def test_predictions_of_another_kind(made: Any) -> None:
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        step(parts() | {"predictions": lambda alone: made})


def test_what_a_check_raises_comes_through() -> None:
    def check() -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        step(parts() | {"check": check})
    assert step(parts() | {"check": lambda: False}) is None
