"""Branches and loops of a step, on all that it may ask."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .contact import (
    SIZE,
    Step,
    agree,
    cell_of,
    drive,
    given,
    within,
)

pytestmark = [
    pytest.mark.usefixtures("core", "double"),
    pytest.mark.filterwarnings("ignore:.*Python loop"),
]

LOG: list[Tensor] = []
COUNTS: Counter[str] = Counter()


def swallowing(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        positive = bool((i > 0).all())
    except Exception:
        positive = False
    return drive(s, i, h) + (1 if positive else -1)


def swallowing_all(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        size = float(h.norm())
    except:  # noqa: E722 (what strangers write)
        size = 100.0
    return drive(s, i, h) / (1 + size)


def with_finally(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        return drive(s, i, h) if float(h.sum()) > 0.1 else torch.sin(h @ s.w + i)
    finally:
        COUNTS["finally"] += 1


def missing(s: Any, i: Tensor, h: Tensor) -> Tensor:
    try:
        return s.nothing(h)
    except AttributeError:
        return drive(s, i, h)


def while_large(s: Any, i: Tensor, h: Tensor) -> Tensor:
    new = s.u(i) + h @ s.w
    while new.abs().max() > 0.5:
        new = new * 0.7
    return new


def asserting(s: Any, i: Tensor, h: Tensor) -> Tensor:
    assert not h.isnan().any()
    return drive(s, i, h)


BRANCHES: dict[str, Step] = {
    "lanes": lambda s, i, h: drive(s, i, h) if len(i) > 8 else torch.sigmoid(h @ s.w + i),
    "lanes, exactly": lambda s, i, h: drive(s, i, h) if len(i) == 3 else torch.sin(h @ s.w + i),
    "lanes by shape": lambda s, i, h: drive(s, i, h) * (0.5 if h.shape[0] % 2 else 1.0),
    "one lane": lambda s, i, h: drive(s, i, h) if h.size(0) > 1 else torch.sin(h.squeeze(0) + i),
    "lanes in arithmetic": lambda s, i, h: drive(s, i, h) / math.sqrt(len(h)) + 1 / h.shape[0],
    "lanes as an index": lambda s, i, h: drive(s, i, h) * s.w[min(len(h), SIZE) - 1, 0],
    "features": lambda s, i, h: drive(s, i, h) if i.shape[-1] == SIZE else h,
    "requires_grad of the input": lambda s, i, h: drive(s, i, h) * (2 if i.requires_grad else -1),
    "requires_grad of the state": lambda s, i, h: drive(s, i, h) * (2 if h.requires_grad else -1),
    "requires_grad of the weight": lambda s, i, h: drive(s, i, h) + int(s.w.requires_grad),
    "grad mode": lambda s, i, h: drive(s, i, h) * (2 if torch.is_grad_enabled() else -1),
    "inference mode": lambda s, i, h: drive(s, i, h) * (1 + torch.is_inference_mode_enabled()),
    "is_inference": lambda s, i, h: drive(s, i, h) * (2 if h.is_inference() else 1),
    "is_leaf": lambda s, i, h: drive(s, i, h) * (2 if h.is_leaf else 1),
    "is_leaf of the input": lambda s, i, h: drive(s, i, h) * (2 if i.is_leaf else 1),
    "grad_fn": lambda s, i, h: drive(s, i, h) * (2 if h.grad_fn is None else 1),
    "contiguity": lambda s, i, h: drive(s, i, h) * (2 if h.is_contiguous() else 1),
    "strides": lambda s, i, h: drive(s, i, h) * (h.stride(0) / SIZE + i.stride(0)),
    "offset": lambda s, i, h: drive(s, i, h) + i.storage_offset() * 0.01,
    "dtype": lambda s, i, h: drive(s, i, h) * (2 if h.dtype == torch.float64 else 1),
    "default dtype": lambda s, i, h: drive(s, i, h) * torch.ones(SIZE).element_size(),
    "type": lambda s, i, h: drive(s, i, h) * (2 if type(h) is Tensor else 1),
    "compiling": lambda s, i, h: drive(s, i, h) * (2 if torch.compiler.is_compiling() else 1),
    "tracing": lambda s, i, h: drive(s, i, h) * (2 if torch.jit.is_tracing() else 1),
    "same tensor": lambda s, i, h: drive(s, i, h) * (2 if i is h else 1),
    "data": lambda s, i, h: drive(s, i, h) if h.sum() > 0 else torch.sin(h @ s.w + i),
    "data of the input": lambda s, i, h: drive(s, i, h) if i.sum() > 0 else torch.sin(h + i),
    "data of the weight": lambda s, i, h: drive(s, i, h) if s.w.sum() > 0 else torch.sin(h + i),
    "item": lambda s, i, h: drive(s, i, h) * float(h[0, 0] + 1),
    "nonzero": lambda s, i, h: drive(s, i, h) * len((h > 0).nonzero()),
    "tolist": lambda s, i, h: drive(s, i, h) + sum(i[0].tolist()),
    "numpy": lambda s, i, h: drive(s, i, h) + float(i.detach().numpy().sum()),
    "shape of what is made": lambda s, i, h: drive(s, i, h) * torch.ones(len(h), 1).numel(),
    "loop over lanes": lambda s, i, h: torch.stack(
        [torch.tanh(a @ s.w + b) for a, b in zip(h, i, strict=True)]
    ),
    "range over lanes": lambda s, i, h: torch.cat(
        [h[k : k + 1] @ s.w + i[k] for k in range(len(h))]
    ),
    "loop over features": lambda s, i, h: torch.stack([drive(s, i, h)[:, k] for k in (1, 0, 3)], 1)
    @ s.w[:3],
    "swallowed": swallowing,
    "swallowed, all": swallowing_all,
    "finally": with_finally,
    "missing attribute": missing,
    "while": while_large,
    "assert": asserting,
}  # fmt: skip


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name: str, request: pytest.FixtureRequest) -> None:
    if name == "compiling":  # what is captured is the other branch, which verification finds
        request.getfixturevalue("lenient")
    cell = cell_of(BRANCHES[name])
    for lanes in (3, 12, 1, SIZE):
        agree(cell, given(lanes))
    agree(cell, given(3).detach(), state=torch.randn(3, SIZE))
    agree(cell, given(3).detach().abs(), state=torch.randn(3, SIZE).requires_grad_())
    with torch.no_grad():
        agree(cell, given(3).detach())


@pytest.mark.parametrize("name", ["requires_grad of the state", "is_leaf", "grad_fn", "strides"])
def test_branches_on_what_changes_after_the_first_step(name: str) -> None:
    cell = cell_of(BRANCHES[name])
    for steps in (1, 2, 5):
        agree(cell, given(3, steps).detach(), state=torch.randn(SIZE, 3).t())
        agree(cell, given(3, steps), state=torch.randn(1, SIZE).expand(3, SIZE))


QUESTIONS: dict[str, Callable[[Tensor], bool]] = {
    "requires_grad": lambda t: t.requires_grad,
    "is_leaf": lambda t: t.is_leaf,
    "grad_fn": lambda t: t.grad_fn is None,
    "is_inference": lambda t: t.is_inference(),
    "retains_grad": lambda t: t.retains_grad,
}
MODES: dict[str, Callable[[], Any]] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def kinds_of(tensor: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same values, as they can come about."""

    def inferred(needs: bool) -> Tensor:
        with torch.inference_mode():
            return tensor.clone().requires_grad_(needs)

    return {
        "plain": lambda: tensor.clone(),
        "leaf": lambda: tensor.clone().requires_grad_(),
        "computed": lambda: tensor.clone().requires_grad_() * 1,
        "view": lambda: tensor.clone().requires_grad_()[:],
        "inference": lambda: inferred(False),
        "inference, needing": lambda: inferred(True),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("of_input", [True, False], ids=["input", "state"])
@pytest.mark.parametrize("backward", [False, True], ids=["", "reversed"])
def test_what_a_step_asks_of_its_tensors(
    question: str, mode: str, of_input: bool, backward: bool
) -> None:
    ask = QUESTIONS[question]
    cell = cell_of(lambda s, i, h: drive(s, i, h) * (2 if ask(i if of_input else h) else 1))
    plain = {"inputs": given(3).detach(), "state": torch.randn(3, SIZE)}
    asked = kinds_of(plain.pop("inputs" if of_input else "state"))
    for make in reversed(asked.values()) if backward else asked.values():
        value = make()
        if mode == "grad" and value.is_inference():  # which autograd refuses
            continue
        with MODES[mode]():
            agree(cell, **plain | {"inputs" if of_input else "state": value})


def strided(lanes: int) -> Tensor:
    """A state that is not dense."""
    return torch.randn(lanes, SIZE, 2)[..., 0]


@pytest.mark.parametrize("name", ["strides", "contiguity", "is_leaf", "requires_grad of the state"])
def test_branches_on_what_a_reset_changes(name: str) -> None:
    reset = torch.tensor([[True] * 3, [False] * 3, [False, True, False], [False] * 3, [True] * 3])
    for make in (lambda: torch.randn(SIZE, 3).t(), lambda: strided(3)):
        for needs in (False, True):
            initial = make().requires_grad_(needs)
            for state in (None, torch.randn(3, SIZE)):
                for mode in (torch.enable_grad, torch.no_grad):
                    cell, options = cell_of(BRANCHES[name]), {"initial": initial, "reset": reset}
                    with mode():
                        agree(cell, given(3).detach(), state=state, **options)


def test_a_reset_to_rows_that_lie_otherwise_than_those_that_a_step_returns() -> None:
    reset = torch.tensor([[False] * 3, [False, True, False], [False] * 3, [True] * 3, [False] * 3])
    cell = cell_of(lambda s, i, h: (drive(s, i, h) * (1 + h.stride(0) / SIZE)).t().contiguous().t())
    start = torch.randn(SIZE, 3).t()
    agree(cell, given(3), state=start, initial=torch.zeros(3, SIZE), reset=reset)
    agree(cell, given(3), state=start, initial=torch.zeros(SIZE, 3).t(), reset=reset)


def test_a_cell_that_is_refused_later_is_given_the_state_as_it_lies() -> None:
    cell = cell_of(BRANCHES["strides"])
    agree(cell, given(3).detach())
    agree(cell, given(3).detach(), initial=strided(3))


def swaps(s: Any, i: Tensor, h: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    a, b = h
    return torch.tanh(b.t().contiguous().t() @ s.w + i), torch.sin(a)


def test_a_state_of_two_whose_layouts_change() -> None:
    cell = cell_of(swaps)
    type(cell).initial_state = lambda s, batch: (torch.zeros(batch, SIZE), torch.ones(batch, SIZE))
    for lanes in (3, 1):
        agree(cell, given(lanes))


def test_a_loop_over_lanes_takes_no_longer_than_it_must() -> None:
    cell = cell_of(BRANCHES["loop over lanes"])
    with within(20):
        agree(cell, given(3))
