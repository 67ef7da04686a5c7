"""Whether a cell is still what it was when it was traced.

A trace holds for a cell's modules, the shapes and dtypes of its tensors, which of them need
gradients, its training mode and all plain attributes. Comparing all that by value takes long; as
nearly everything stays the very same object, a `Guard` compares identities and gives up at the
first difference.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_OWN = frozenset(nn.Module().__dict__) - {"training"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(
    getattr(torch.nn.modules.module, name)
    for name in (
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
    )
    if hasattr(torch.nn.modules.module, name)
)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_DEPTH = 4
_MISSING = object()


def frozen(value: Any, depth: int = 0) -> Any:
    """A hashable stand-in that is equal while the value is."""
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, (list, tuple)) and depth < _DEPTH:
        return (type(value), tuple(frozen(v, depth + 1) for v in value))
    if isinstance(value, dict) and depth < _DEPTH:
        return (dict, tuple((frozen(k, depth + 1), frozen(v, depth + 1)) for k, v in value.items()))
    if isinstance(value, (set, frozenset)):
        return (set, frozenset(frozen(v, depth + 1) for v in value))
    if isinstance(value, (Tensor, nn.Module)) or callable(value) or depth >= _DEPTH:
        return (type(value), id(value))
    inner = getattr(value, "__dict__", None)
    return (type(value), id(value), frozen(inner, depth + 1) if inner else None)


Read = Callable[[type[nn.Module]], frozenset[str] | None]
"""The attributes that a class reads of its instances; None if it may be any."""


def plain_attributes(cell: nn.Module, read: Read) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Every attribute of every submodule that is read and that PyTorch does not keep itself: (path,
    holder, name, value)."""
    for path, module in nn.Module.named_modules(cell):
        names = read(type(module))
        for name, value in module.__dict__.items():
            if name not in _OWN and (names is None or name in names):
                yield path, module.__dict__, name, value


def _any(kind: type[nn.Module]) -> None:
    return None


class _Watch:
    """`bptt._core.Watch` where the core is missing."""

    def __init__(
        self,
        same: list[tuple[dict[str, Any], str, Any]],
        sizes: list[tuple[Any, int]],
        tensors: list[tuple[Tensor, bool, torch.dtype, torch.Size]],
    ) -> None:
        self._same, self._sizes, self._tensors = same, sizes, tensors

    def holds(self) -> bool:
        return (
            all(holder.get(name, _MISSING) is value for holder, name, value in self._same)
            and all(len(table) == size for table, size in self._sizes)
            and all(
                t.requires_grad is needs and t.dtype is dtype and t.shape == shape
                for t, needs, dtype, shape in self._tensors
            )
        )


_new_watch: Callable[..., Any] = _Watch
if importlib.util.find_spec("bptt._core") is not None:
    from bptt import _core

    _new_watch = _core.Watch  # the same, in a tenth of the time


class Guard:
    """Identities of all that a trace depends on; `holds` is the test made in every call.

    Args:
        cell: the module that was traced.
        read: the attributes that count.

    Attributes:
        same, sizes: what `bptt._core.Watch` is told of it, but for the tensors.
        more: whether there is more to compare, for `more_holds`.
        key: the same by value, for cells that change to and fro.
    """

    def __init__(self, cell: nn.Module, read: Read = _any) -> None:
        self.same: list[tuple[dict[str, Any], str, Any]] = []
        self._equal: list[tuple[dict[str, Any], str, Any]] = []
        self.sizes: list[tuple[Any, int]] = []
        self._empty: list[Any] = list(GLOBAL_HOOKS)
        self._tensors: list[tuple[Tensor, bool, torch.dtype, torch.Size]] = []
        for _, holder, name, value in plain_attributes(cell, read):
            simple = isinstance(value, _PLAIN) or callable(value) or isinstance(value, Tensor)
            kept = (holder, name, value if simple else frozen(value))
            (self.same if simple else self._equal).append(kept)
        for module in nn.Module.modules(cell):
            self._watch(module)
        self._hooked = any(self._empty)
        if not self._hooked:
            self.sizes += [(table, 0) for table in self._empty]
        self.key = self._key(cell, read)
        self.more = self._hooked or bool(self._equal)
        self._watched = _new_watch(self.same, self.sizes, self._tensors)

    def _watch(self, module: nn.Module) -> None:
        attributes = module.__dict__
        self._empty += [attributes[kind] for kind in HOOKS if kind in attributes]
        self.sizes.append((attributes, len(attributes)))
        for table in (module._parameters, module._buffers, module._modules):
            self.sizes.append((table, len(table)))
            for name, value in table.items():
                self.same.append((table, name, value))
                if isinstance(value, Tensor):
                    self._tensors.append((value, value.requires_grad, value.dtype, value.shape))

    def holds(self) -> bool:
        """Whether the cell is unchanged."""
        return self._watched.holds() and (not self.more or self.more_holds())

    def more_holds(self) -> bool:
        """Whether what is more than identities and sizes is as it was."""
        if self._hooked and not any(self._empty):
            return False
        return all(frozen(h.get(n, _MISSING)) == v for h, n, v in self._equal)

    def _key(self, cell: nn.Module, read: Read) -> Any:
        plain = tuple(
            (path, name, frozen(value)) for path, _, name, value in plain_attributes(cell, read)
        )
        tensors = tuple(
            (name, t.requires_grad, t.dtype, t.shape, t.device.type, type(t))
            for name, t in [*_every(cell.named_parameters), *_every(cell.named_buffers)]
        )
        shared = tuple(_first_of_each(cell))
        modules = tuple((path, id(type(module))) for path, module in nn.Module.named_modules(cell))
        hooks = tuple(bool(table) for table in self._empty)
        return plain, tensors, shared, modules, hooks


def _every(named: Any) -> list[tuple[str, Tensor]]:
    return list(named(remove_duplicate=False))


def _first_of_each(cell: nn.Module) -> Iterator[int]:
    """Which parameters are the same tensor."""
    seen: dict[int, int] = {}
    for i, (_, tensor) in enumerate(_every(cell.named_parameters)):
        yield seen.setdefault(id(tensor), i)
