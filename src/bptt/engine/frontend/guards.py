"""What Dynamo does not guard of a cell, compared beside it; and what cells have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from bptt.engine.frontend.module_state import HOOKS


def structure_of(cell: nn.Module) -> Any:
    """What cells must have in common to share compiled steps: few forms are then to be looked
    through in a call."""
    own = type(cell)  # not named here: what is kept of a class must not keep it alive
    return tuple(
        (
            path,
            None if type(module) is own else type(module),
            *((name, _form_of(tensor)) for name, tensor in module._parameters.items()),
        )
        for path, module in nn.Module.named_modules(cell)
    )


def _form_of(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.dtype)


_HEAP = 1 << 9
"""Of a class that was made in Python, and may change (`Py_TPFLAGS_HEAPTYPE`)."""


def _methods(kind: type) -> tuple[Any, ...]:
    """Of a class of PyTorch's, what an unfolding calls."""
    own = vars(kind)
    return own.get("forward"), own.get("output"), own.get("initial_state")


def _function(value: Any) -> FunctionType | None:
    """The function behind what a class holds."""
    found = getattr(value, "fget", getattr(value, "__func__", value))
    return found if isinstance(found, FunctionType) else None


_METHODS: dict[str, Any] = dict(vars(Tensor))


def methods_of_tensors() -> dict[str, Any]:
    """The methods of `torch.Tensor`, of which Dynamo guards few: the same object while they are the
    same."""
    global _METHODS
    if vars(Tensor) != _METHODS:
        _METHODS = dict(vars(Tensor))
    return _METHODS


class Classes:
    """The code of classes, which Dynamo does not guard; nor does it the environment.

    Args:
        kinds: the classes, whose bases are looked at, too.
        environment: whether the environment counts.
    """

    def __init__(self, kinds: frozenset[type], environment: bool = False) -> None:
        self.kinds, self.environment = kinds, environment
        # What lies in `os.environ` as it is, encoded.
        self._now: Any = getattr(os.environ, "_data", None) if environment else None
        self._was = dict(self._now or ())
        every = {base for kind in kinds for base in kind.__mro__} - {nn.Module, object}
        of_torch = {k for k in every if k.__module__.startswith("torch.")}
        self._own = [(k, dict(vars(k))) for k in every - of_torch if k.__flags__ & _HEAP]
        functions = [f for _, own in self._own for f in map(_function, own.values())]
        self._of_torch = [(k, _methods(k)) for k in of_torch if "forward" in vars(k)]
        functions += [_function(method) for _, own in self._of_torch for method in own]
        # What is edited while it runs may get new code in its old functions.
        self._codes = [(f, f.__code__) for f in functions if f is not None]

    @staticmethod
    def of(cell: nn.Module) -> Classes:
        """Those of its modules."""
        return Classes(frozenset(map(type, nn.Module.modules(cell))))

    def more(self, kinds: frozenset[type], environment: bool) -> Classes:
        """The same and those that a step read."""
        if kinds <= self.kinds and environment <= self.environment:
            return self
        return Classes(self.kinds | kinds, self.environment or environment)

    def hold(self) -> bool:
        """Whether it is as it was."""
        if self._now is not None and self._now != self._was:
            return False
        try:
            return (
                all(vars(k) == was for k, was in self._own)
                and all(_methods(k) == was for k, was in self._of_torch)
                and all(f.__code__ is code for f, code in self._codes)
            )
        except (RuntimeError, ValueError):  # of values that cannot be compared: one is new
            return False


def hooked(cell: nn.Module) -> bool:
    """Whether any part of a cell has a hook."""
    return any(m.__dict__.get(name) for m in nn.Module.modules(cell) for name in HOOKS)


def hooks_of(cell: nn.Module) -> Iterator[Any]:
    """The tables of a cell's hooks that a graph would not call."""
    for module in nn.Module.modules(cell):
        for name in ("_backward_hooks", "_backward_pre_hooks"):
            yield module.__dict__.get(name)
