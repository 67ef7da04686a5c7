"""Where a cell's tensors come from: parameters, buffers, and parametrized weights.

A source is read anew in every call, so a parameter that was replaced or moved is the one that is
used. A parametrized weight is evaluated by its own module, under autograd, before anything is
traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class Source:
    """One tensor that a cell owns: ``name`` as in ``state_dict``, and where to read it.

    ``places`` are all tables that hold it (a shared parameter has several); of a parametrized
    weight, none: its ``module`` evaluates it.
    """

    name: str
    kind: str  # "parameter", "buffer" or "parametrized"
    places: tuple[tuple[dict[str, Any], str], ...]
    module: nn.Module | None = None

    def read(self) -> Tensor:
        """The tensor as it is now."""
        if self.module is not None:
            value: Tensor = getattr(self.module, self.name.rpartition(".")[2])
            return value
        table, key = self.places[0]
        held: Tensor = table[key]
        return held

    def changed(self, expected: Tensor) -> bool:
        """Whether another tensor was put in its place."""
        return any(table.get(key) is not expected for table, key in self.places)


def sources_of(cell: nn.Module) -> tuple[Source, ...]:
    """All tensors of a cell, each once, however often it is shared."""
    found: dict[int, tuple[str, str]] = {}
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    evaluated: list[Source] = []
    inside = _parametrization_modules(cell)
    for prefix, module in cell.named_modules():
        if id(module) in inside:
            continue
        stem = prefix + "." if prefix else ""
        for kind, table in (("parameter", module._parameters), ("buffer", module._buffers)):
            for key, value in table.items():
                if value is not None:
                    found.setdefault(id(value), (stem + key, kind))
                    places.setdefault(id(value), []).append((table, key))
        evaluated += [
            Source(stem + key, "parametrized", (), module) for key in _parametrized(module)
        ]
    owned = [Source(name, kind, tuple(places[i])) for i, (name, kind) in found.items()]
    return (*owned, *evaluated)


def _parametrized(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    table: Any = module.parametrizations
    return list(table)


def _parametrization_modules(cell: nn.Module) -> set[int]:
    """The modules that live inside parametrizations: theirs is another trace."""
    inside: set[int] = set()
    for module in cell.modules():
        if parametrize.is_parametrized(module):
            table: Any = module.parametrizations
            inside.update(id(part) for part in table.modules())
    return inside


class _Given(nn.Module):
    """Stands in for a parametrization while the cell is traced: gives a tensor already
    evaluated."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.__dict__["value"] = value

    def forward(self) -> Tensor:
        value: Tensor = self.__dict__["value"]
        return value


@contextmanager
def replaced(sources: tuple[Source, ...], values: tuple[Tensor, ...]) -> Iterator[None]:
    """Let every source read as the value given for it; afterwards all is as before."""
    undo: list[Callable[[], None]] = []
    try:
        for source, value in zip(sources, values, strict=True):
            for table, key in source.places:
                undo.append(partial(table.__setitem__, key, table[key]))
                table[key] = value
            if source.module is not None:
                key = source.name.rpartition(".")[2]
                modules: Any = source.module.parametrizations
                undo.append(partial(modules.__setitem__, key, modules[key]))
                modules[key] = _Given(value)
        yield
    finally:
        for restore in undo:
            restore()


def read_all(sources: tuple[Source, ...]) -> list[Tensor]:
    """The present tensors of all sources."""
    with parametrize.cached():
        return [source.read() for source in sources]
