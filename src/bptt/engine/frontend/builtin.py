"""Cells whose code is known: PyTorch's three, ours, and stacks of them.

Their step is traced on a private twin without values, once for each structure, and what a call must
ask of the user's own cell is little: that it is what it was. Everything else is captured
(`bptt.engine.frontend.capture`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bptt import cells
from bptt.cells._stack import output_of
from bptt.engine.frontend.graph import Kind, Step
from bptt.engine.frontend.guards import Classes
from bptt.engine.frontend.module_state import HOOKS, Guard
from bptt.state import State, leaves, map_state, rebuild

_KNOWN: dict[type[nn.Module], Classes] = {}
"""Each class with its code as it is known."""


def register(*kinds: type[nn.Module]) -> None:
    """Let classes pass for built in: whose step reads plain attributes and its tensors alone, and
    changes nothing."""
    for kind in kinds:
        _KNOWN[kind] = Classes(frozenset([kind]))


HARMLESS = frozenset({"__init__", "reset_parameters", "extra_repr", *vars(type("_", (), {}))}) | {
    "__annotations__",
    "__firstlineno__",
    "__static_attributes__",
}
"""What a subclass of a known class may define and still pass for it: no step reads it."""


def known_of(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The known class that a module's class is, or that it derives from without any change to its
    step."""
    for i, base in enumerate(kind.__mro__):
        if base in _KNOWN:
            same = kind.__mro__[i:] == base.__mro__ and _KNOWN[base].hold()
            return base if same else None
        if not vars(base).keys() <= HARMLESS:
            return None
    return None


def read_by(kind: type[nn.Module]) -> frozenset[str] | None:
    """The attributes that a module of a known class may read of itself: all names in its code; None
    if the class is not known."""
    known = known_of(kind)
    if known is None:
        return None
    if known not in _READ:
        names = {"training", "forward", "output", "initial_state", "hidden_size"}
        names |= vars(nn.Module()).keys()
        for base in known.__mro__:
            if base not in (nn.Module, object):
                for value in vars(base).values():
                    names |= _names_in(getattr(getattr(value, "fget", value), "__code__", None))
        _READ[known] = frozenset(names)
    return _READ[known]


_READ: dict[type[nn.Module], frozenset[str]] = {}


def _names_in(code: Any) -> set[str]:
    if code is None:
        return set()
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return {*code.co_names, *(name for c in inner for name in _names_in(c))}


register(nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.Embedding, nn.ModuleList, nn.Identity, nn.Linear)
register(nn.LayerNorm, nn.Sequential, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.GELU, nn.SiLU)
register(nn.Softplus, nn.ELU, nn.LeakyReLU)
register(cells.Elman, cells.Leaky, cells.GRU, cells.LSTM, cells.SelfRecurrent)
register(cells.Stack, cells.Embedded, cells.StateSpace)


def is_built_in(cell: nn.Module) -> bool:
    """Whether the code of a cell, with all its submodules, is known."""
    return all(map(_is_known, nn.Module.modules(cell)))


def _is_known(module: nn.Module) -> bool:
    kind, own = known_of(type(module)), module.__dict__
    if kind is None or "forward" in own:
        return False
    if any(own.get(hooks) for hooks in HOOKS):
        return False
    if any(isinstance(value, Tensor) for value in own.values()):
        return False  # in the place of a parameter, say: its twin would keep the value
    if kind is nn.Embedding:  # which may change its rows, or count over all steps
        return own["max_norm"] is None and not own["scale_grad_by_freq"] and not own["sparse"]
    return True


class Twin:
    """A cell of the same structure, without values, that nobody else knows.

    Args:
        cell: the cell; nothing of it is kept.

    Attributes:
        names: of its tensors, each once, however often it is shared.
        kinds: theirs.
    """

    def __init__(self, cell: nn.Module) -> None:
        tensors = named_tensors(cell)
        self.names = tuple(tensors)
        self.kinds = tuple(map(Kind.of, tensors.values()))
        memo: dict[int, Any] = {id(t): _blank(t) for t in tensors.values()}
        for module in nn.Module.modules(cell):  # what no step reads may be what nobody can copy
            read = read_by(type(module))
            for name, value in vars(module).items():
                if read is not None and name not in read:
                    memo.setdefault(id(value), value)
        # What lies elsewhere than in its tables of tensors would be copied whole.
        self._module = copy.deepcopy(cell, memo)

    def step(self, example: Tensor, state: State) -> Step:
        """Its step, for such an input [lane, ...] and state."""

        def call(inputs: Tensor, entering: State) -> Any:
            return self._module(inputs, entering)

        def run(_: int, sources: Sequence[Tensor], rows: Sequence[Tensor]) -> list[Tensor]:
            new = self._with(sources, call, rows[0], rebuild(state, list(rows[1:])))
            return leaves(new)

        rows = [example, *leaves(state)]
        return Step(run, self.names, self.kinds, tuple(map(row_kind, rows)))

    def output(self, state: State) -> int | Step:
        """The leaf of the state that is the output of a step, or the function that makes it."""
        if getattr(self._module, "output", None) is None:
            return 0
        given = map_state(lambda s: s.new_empty((1, *s.shape[1:]), device="meta"), state)
        result = output_of(self._module, given)
        for j, leaf in enumerate(leaves(given)):
            if leaf is result:
                return j

        def run(_: int, sources: Sequence[Tensor], rows: Sequence[Tensor]) -> list[Tensor]:
            def call(entering: State) -> Tensor:
                return output_of(self._module, entering)

            return [self._with(sources, call, rebuild(state, list(rows)))]

        return Step(run, self.names, self.kinds, tuple(map(row_kind, leaves(state))))

    def _with(self, sources: Sequence[Tensor], call: Callable[..., Any], *arguments: Any) -> Any:
        values = {f"module.{name}": t for name, t in zip(self.names, sources, strict=True)}
        return functional_call(_Calling(self._module, call), values, arguments)


class _Calling(nn.Module):
    """A module with another function in place of its forward."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        """The function's result."""
        return self.function(*arguments)


def row_kind(tensor: Tensor) -> Kind:
    """The kind of a tensor that has a row a lane."""
    return Kind(tuple(tensor.shape[1:]), tensor.dtype, True)


def named_tensors(cell: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once."""
    found: dict[int, tuple[str, Tensor]] = {}
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        for name, tensor in named(cell):
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _blank(tensor: Tensor) -> Tensor:
    made = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, tensor.requires_grad)
    return made


class Standing:
    """What is known of one built-in cell: its structure, and where its tensors lie.

    Args:
        cell: the cell; it is not kept alive.

    Attributes:
        key: its structure by value.
    """

    def __init__(self, cell: nn.Module) -> None:
        self._guard = Guard(cell, read_by)
        self.key = (type(cell), self._guard.key)
        self._kind = type(cell)
        self._parts = [module for module in nn.Module.modules(cell) if module is not cell]
        self._kinds = [type(part) for part in self._parts]
        self._classes = Classes.of(cell)
        self._places = _places(cell)

    def holds(self, cell: nn.Module) -> bool:
        """Whether the cell is what it was."""
        if type(cell) is not self._kind or not self._guard.holds():
            return False
        return [type(part) for part in self._parts] == self._kinds and self._classes.hold()

    def tensors(self) -> list[Tensor]:
        """Its tensors as they are now, in the order of `Twin.names`."""
        return [table[name] for table, name in self._places]


def _places(cell: nn.Module) -> list[tuple[dict[str, Any], str]]:
    found: list[tuple[dict[str, Any], str]] = []
    for path in named_tensors(cell):
        prefix, _, name = path.rpartition(".")
        module = cell.get_submodule(prefix)
        table: Any = module._parameters if name in module._parameters else module._buffers
        found.append((table, name))
    return found
