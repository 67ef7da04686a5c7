"""``auto`` beside ``eager``: all that a call gives, draws and leaves behind."""

from __future__ import annotations

import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

import bptt
from bptt.state import leaves

SIZE = 4
TOLERANCE = 1e-9


class TooLong(BaseException):
    """Nothing that catches an `Exception` takes it for its own."""


def _too_long(number: int, frame: FrameType | None) -> NoReturn:
    raise TooLong


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What takes more of a processor's time, in Python, fails."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Base(nn.Module):
    """A linear map of the input, a square weight, and a step of the test's own."""

    hidden_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(SIZE, SIZE) * 0.5)
        self.u = nn.Linear(SIZE, SIZE)


Step = Callable[[Any, Tensor, Any], Any]


def cell_of(step: Step, base: type[nn.Module] = Base, **attributes: Any) -> Any:
    """A cell of a class of its own, the same weights each time."""
    torch.manual_seed(7)
    cell = type("Own", (base,), {"forward": step})()
    for name, value in attributes.items():
        setattr(cell, name, value)
    return cell


def drive(s: Any, i: Tensor, h: Tensor) -> Tensor:
    """The plainest step."""
    return torch.tanh(s.u(i) + h @ s.w)


def given(lanes: int = 3, steps: int = 5, size: int = SIZE, seed: int = 3) -> Tensor:
    """Inputs that need a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, lanes, size, generator=generator).requires_grad_()


@dataclass
class Seen:
    """A call and its gradients: numbers by name, or the error; where the generators then are."""

    values: dict[str, Tensor] = field(default_factory=dict)
    error: BaseException | None = None
    drawn: tuple[Any, ...] = ()


def seed_all(seed: int) -> None:
    """Each of the three generators that a cell may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def generators() -> tuple[Any, ...]:
    """Where each of the three stands."""
    numpy = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), (numpy[1].tolist(), *numpy[2:])


def results(cell: nn.Module, inputs: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """Outputs and states of a call, by name."""
    outputs, last, *more = bptt.unfold(cell, inputs, **options)
    found = {"outputs": outputs}
    found |= {f"last {j}": leaf for j, leaf in enumerate(leaves(last))}
    return found | {f"states {j}": leaf for j, leaf in enumerate(leaves(tuple(more)))}


def wanted(cell: nn.Module, inputs: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """All leaves of a call that need a gradient."""
    asked = {"inputs": inputs}
    for name in ("state", "initial"):
        if options.get(name) is not None:
            asked |= {f"{name} {j}": leaf for j, leaf in enumerate(leaves(options[name]))}
    asked |= dict(cell.named_parameters())
    return {name: tensor for name, tensor in asked.items() if tensor.requires_grad}


def gradients(found: dict[str, Tensor], asked: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of one fixed functional of all results."""
    generator = torch.Generator().manual_seed(99)
    terms = []
    for tensor in found.values():
        weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.requires_grad:
            terms.append((weight.to(tensor.dtype) * tensor).sum())
    if not terms or not asked:
        return {}
    loss = torch.stack(terms).sum()
    grads = torch.autograd.grad(loss, list(asked.values()), allow_unused=True)
    return {
        f"gradient of {name}": torch.zeros_like(asked[name]) if gradient is None else gradient
        for name, gradient in zip(asked, grads, strict=True)
    }


def seen(
    cell: nn.Module,
    inputs: Tensor,
    backend: str,
    *,
    more: dict[str, Tensor] | None = None,
    seed: int = 0,
    **options: Any,
) -> Seen:
    """One call, seeded, with its gradients, where there are any."""
    found = Seen()
    seed_all(seed)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*Python loop")
            found.values = results(cell, inputs, options | {"backend": backend})
            found.drawn = generators()
            asked = wanted(cell, inputs, options) | (more or {})
            found.values |= gradients(found.values, asked)
    except Exception as error:
        found.error = error
        found.drawn = generators()
    return found


def assert_equal(found: Seen, expected: Seen, tolerance: float = TOLERANCE) -> None:
    """The same numbers, the same kind of error, the same draws."""
    if expected.error is not None:
        assert type(found.error) is type(expected.error), (found.error, expected.error)
        return
    if found.error is not None:
        raise AssertionError(f"eager gives numbers, auto raises {found.error!r}") from found.error
    for name, want in expected.values.items():
        assert_close(name, found.values[name], want, tolerance)
    for name in found.values.keys() - expected.values.keys():
        assert not found.values[name].any(), f"{name}: there is none in eager"
    assert found.drawn == expected.drawn, "the generators stand elsewhere"


def assert_close(name: str, got: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal but for rounding, relative to the greatest magnitude (at least 1)."""
    assert type(got) is type(want), f"{name} is a {type(got).__name__}"
    assert got.shape == want.shape, f"{name}: {list(got.shape)} for {list(want.shape)}"
    assert got.dtype == want.dtype, f"{name}: {got.dtype} for {want.dtype}"
    assert got.requires_grad is want.requires_grad, f"{name}: requires_grad is {got.requires_grad}"
    if want.numel():
        got, want = got.detach(), want.detach()
        scale = max(1.0, float(want.abs().max()))
        torch.testing.assert_close(
            got / scale,
            want / scale,
            rtol=0,
            atol=tolerance,
            equal_nan=True,
            msg=lambda text: f"{name}: {text}",
        )


MARK = "_dynamo_static_input_type"
"""A name that PyTorch gives to parameters which it has captured; it changes nothing."""


def belongings(cell: nn.Module) -> dict[str, Any]:
    """What modules and tensors hold, by name: kinds and lengths, not values."""

    def kind(value: Any) -> Any:
        if isinstance(value, Tensor):
            return type(value).__name__, sorted(vars(value).keys() - {MARK})
        if isinstance(value, (list, tuple)):
            return type(value).__name__, [kind(item) for item in value]
        if isinstance(value, dict):
            return type(value).__name__, [(kind(key), kind(item)) for key, item in value.items()]
        return value if isinstance(value, str) else type(value).__name__

    return {name: kind(vars(module)) for name, module in cell.named_modules()}


def agree(
    cell: nn.Module,
    inputs: Tensor | None = None,
    *,
    twin: nn.Module | None = None,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> Seen:
    """Assert that ``auto`` is as ``eager``, which runs on ``twin`` where the cell changes itself;
    give what eager gave."""
    inputs = given() if inputs is None else inputs
    other = cell if twin is None else twin
    with within(30):
        found = seen(cell, inputs, "auto", **options)
    left, marks = belongings(cell), vars(inputs)
    assert not marks, f"marks on the inputs: {marks}"
    expected = seen(other, inputs, "eager", **options)
    assert_equal(found, expected, tolerance)
    assert left == belongings(other), "something was left in the cell"
    return expected


def differ(one: Seen, other: Seen) -> bool:
    """Whether two calls gave other numbers: a change that changes nothing tests nothing."""
    return (one.error is None) != (other.error is None) or any(
        one.values[name].shape != other.values[name].shape
        or not torch.allclose(one.values[name], other.values[name])
        for name in one.values
    )
