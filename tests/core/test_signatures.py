"""What `unfold` asks of a cell, and what it need not ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt
from bptt.errors import CellError, ShapeError

X, H = torch.randn(5, 3, 4), torch.zeros(3, 4)
RESET = torch.zeros(5, 3, dtype=torch.bool).index_put(
    (torch.tensor(2), torch.tensor(1)), torch.tensor(True)
)
BACKENDS = ["auto", "eager"]


class Silent(nn.Module):
    """A cell that does not tell its state."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(8, 4)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.both(torch.cat([input, state], 1)))


class Pair(nn.Module):
    """A cell whose ``hidden_size`` is the width of each of two tensors."""

    hidden_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 4)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.cell(input, state)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("make", "state"), [(Silent, H), (Pair, (H, H))])
def test_a_given_state_tells_its_shape(
    make: Callable[[], nn.Module], state: Any, backend: str
) -> None:
    cell = make()
    expected, _ = bptt.unfold(cell, X, state, backend="eager")
    for options in ({"state": state}, {"initial": state}, {"state": state, "initial": state}):
        for _ in range(2):  # a second call goes another way
            found, _ = bptt.unfold(cell, X, backend=backend, **options)
            torch.testing.assert_close(found, expected)
    found, _ = bptt.unfold(cell, X, state, initial=state, reset=RESET, backend=backend)
    assert not torch.equal(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("make", "state"), [(Silent, H), (Pair, (H, H))])
def test_a_reset_needs_somewhere_to_go(
    make: Callable[[], nn.Module], state: Any, backend: str
) -> None:
    with pytest.raises(CellError, match=r"a reset returns to the initial state.*give initial="):
        bptt.unfold(make(), X, state, reset=RESET, backend=backend)


@pytest.mark.parametrize("state", [torch.zeros(2, 4), torch.tensor(0.0), [H, H]])
def test_a_given_state_has_the_lanes(state: Any) -> None:
    with pytest.raises(ShapeError, match=r"inputs have 3 lane\(s\)"):
        bptt.unfold(Silent(), X, state)


def test_initial_and_state_agree() -> None:
    with pytest.raises(ShapeError, match="initial has the shape"):
        bptt.unfold(Silent(), X, H, initial=torch.zeros(3, 5))


def with_forward(forward: Any) -> nn.Module:
    return type("Other", (nn.Module,), {"forward": forward, "hidden_size": 4})()


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (lambda self, x: x, "forward(x)"),
        (lambda self, x, h, c: h, "forward(x, h, c)"),
        (lambda self, x, ts, state: state, "forward(x, ts, state)"),
        (lambda self, x, h, *, ts: h, "forward(x, h, *, ts)"),
        (lambda self: None, "forward()"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_another_signature_is_refused_before_work(
    forward: Any, told: str, backend: str, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(CellError) as error:
        bptt.unfold(with_forward(forward), X, backend=backend)
    assert told in str(error.value)
    assert "forward(input, state) -> state" in str(error.value)
    assert not recwarn.list


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x, h, c=None: torch.tanh(x + h),
        lambda self, *given: torch.tanh(given[0] + given[1]),
        lambda self, x, h=None, **options: torch.tanh(x + h),
    ],
)
def test_signatures_that_fit(forward: Any) -> None:
    assert bptt.unfold(with_forward(forward), X)[0].shape == (5, 3, 4)


def test_no_module() -> None:
    with pytest.raises(CellError, match=r"a cell must be a torch\.nn\.Module"):
        bptt.unfold(lambda x, h: h, X)  # type: ignore[call-overload]  # refused
