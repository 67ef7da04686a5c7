"""What Dynamo does not guard of a cell, compared beside it; and what cells have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


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


_BUILT_IN = frozenset(("builtins", "collections", "functools", "numpy", "torch", "types"))
MOST = 1000
"""Objects among whose classes the code is looked for."""


def _held(cell: nn.Module) -> Iterator[Any]:
    """A cell's modules, and the objects of the user's classes that they hold as attributes, in
    lists, tuples and dictionaries."""
    waiting: list[Any] = list(nn.Module.modules(cell))
    seen = {id(one) for one in waiting}
    while waiting and len(seen) < MOST:
        one = waiting.pop()
        if isinstance(one, nn.Module) or _is_of_user(one):
            yield one
            inner = getattr(one, "__dict__", None)
            parts = list(inner.values()) if isinstance(inner, dict) else []
        else:
            parts = list(one.values() if isinstance(one, dict) else one)
        for part in parts:
            walked = isinstance(part, (list, tuple, dict, nn.Module)) or _is_of_user(part)
            if walked and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)


def _is_of_user(value: Any) -> bool:
    """Whether a value is a plain object of a class that is neither Python's, NumPy's nor
    PyTorch's."""
    kind = type(value)
    return kind.__module__.partition(".")[0] not in _BUILT_IN and kind.__module__ != "builtins"


class Classes:
    """The code of a cell's classes, which Dynamo does not guard; nor does it the environment."""

    def __init__(self, cell: nn.Module) -> None:
        kinds = {kind for held in _held(cell) for kind in type(held).__mro__}
        kinds -= {nn.Module, object}
        # What lies in `os.environ` as it is, encoded.
        self._environment: Any = getattr(os.environ, "_data", None)
        self._was = dict(self._environment or ())
        self._own = [(k, dict(vars(k))) for k in kinds if not k.__module__.startswith("torch.")]
        of_torch = [k for k in kinds if k.__module__.startswith("torch.") and "forward" in vars(k)]
        self._forwards = [(k, vars(k)["forward"]) for k in of_torch]

    def hold(self) -> bool:
        """Whether it is as it was."""
        if self._environment and self._environment != self._was:
            return False
        try:
            return all(vars(k) == was for k, was in self._own) and all(
                vars(k).get("forward") is was for k, was in self._forwards
            )
        except (RuntimeError, ValueError):  # of values that cannot be compared: one is new
            return False


def hooks_of(cell: nn.Module) -> Iterator[Any]:
    """The tables of a cell's hooks that a graph would not call."""
    for module in nn.Module.modules(cell):
        for name in ("_backward_hooks", "_backward_pre_hooks"):
            yield module.__dict__.get(name)
