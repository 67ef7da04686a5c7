"""Classes for layers whose class is not exactly one of PyTorch's.

A subclass of `torch.nn.LSTM` becomes one that has `bptt.nn.LSTM` between itself and its parent:
what it overrides still comes first, and what it leaves to its parent, or asks of it by
``super()``, comes from `bptt.nn`. The new class has the old one's name, and is found again from it
by pickles. A parametrized layer has a class of its own, which `torch.nn.utils.parametrize` made: it
is made once more over the other parent.
"""

from __future__ import annotations

import dis
import threading
from abc import ABCMeta
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from bptt.nn._compiling import allow_in_graph
from bptt.nn._drop_in import GRU, LSTM, RNN, Unfolded, untouched

Kind = type[nn.Module]

_OURS: dict[Kind, Kind] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}

_READ = (
    "check_forward_args",
    "check_input",
    "check_hidden_size",
    "get_expected_hidden_size",
    "get_expected_cell_size",
    "permute_hidden",
    "_update_flat_weights",
    "_weights_have_changed",
    "_init_flat_weights",
    "__getattribute__",
)
"""What `forward` of PyTorch's layers calls of the layer itself: who overrides one of these may
compute something else."""


ORIGINAL = "__bptt_original__"
"""The attribute of a class made here with the class in whose place it stands."""


class _Unannounced:
    """Keeps a class that is made here from the `__init_subclass__` of its bases: registries are
    told of what users wrote, and options that a user's hook requires are not known here."""

    def __init_subclass__(cls, **options: Any) -> None:
        if ORIGINAL not in cls.__dict__:
            super().__init_subclass__(**options)


def original_of(kind: Kind) -> Kind | None:
    """The class in whose place one made here stands, None if ``kind`` was not made here."""
    return kind.__dict__.get(ORIGINAL)


def _reduce(made: Kind) -> Callable[[Any, Any], Any]:
    """``__reduce_ex__`` of a class made here: a pickle names the user's own class."""

    def reduce(self: Any, protocol: Any) -> Any:
        found = super(made, self).__reduce_ex__(protocol)
        if isinstance(found, str) or type(self) is not made:
            return found
        function, arguments, *rest = found
        given = [original_of(made) if value is made else value for value in (function, *arguments)]
        return (remade, tuple(given), *rest)

    return reduce


def remade(function: Callable[..., Any], *arguments: Any) -> Any:
    """A layer out of a pickle: as its own class makes it, then with what was between."""
    made = function(*arguments)
    if type(made) in _OURS or obstacle(type(made), beneath=True) is not None:
        return made  # its class has changed since
    object.__setattr__(made, "__class__", accelerated(type(made)))
    return made


def parent_of(kind: Kind) -> Kind | None:
    """Which of PyTorch's three a class is or descends from; None if it is none, or several."""
    found = [parent for parent in _OURS if issubclass(kind, parent)]
    return found[0] if len(found) == 1 else None


def obstacle(kind: Kind, beneath: bool) -> str | None:
    """Why a class that is not one of PyTorch's three stays as it is, None if it does not."""
    parent = parent_of(kind)
    if parent is None:
        return "a recurrent layer of its own kind"
    if type(kind) not in (type, ABCMeta):
        return f"a subclass with the metaclass {type(kind).__name__}"
    own = _own_classes(kind, parent)
    for name in _READ:
        if any(name in each.__dict__ for each in own):
            return f"a subclass that overrides {name}, which the parent's forward reads"
    if any(map(_asks_past_itself, _codes(own))):
        return "a subclass that calls super(self.__class__, ...), which no class can stand between"
    if not own_forward(kind):
        return None
    if not any(map(_calls_up, _codes(own))):
        return "a subclass with a forward of its own, which does not call super().forward"
    if not beneath:
        return "a subclass with a forward of its own: beneath=True replaces what it calls"
    return None


def own_forward(kind: Kind) -> bool:
    """Whether a subclass of PyTorch's layers has another `forward`."""
    parent = parent_of(kind)
    assert parent is not None
    return any("forward" in each.__dict__ for each in _own_classes(kind, parent))


def _own_classes(kind: Kind, parent: Kind) -> list[type]:
    """The classes that are asked before the parent is."""
    order = kind.__mro__
    return [each for each in order[: order.index(parent)] if not issubclass(each, Unfolded)]


def _codes(classes: list[type]) -> Iterator[CodeType]:
    """The code of all methods of some classes."""
    for each in classes:
        for value in each.__dict__.values():
            functions = [value, getattr(value, "__func__", None), getattr(value, "fget", None)]
            functions.append(getattr(value, "__wrapped__", None))
            for function in functions:
                if isinstance(getattr(function, "__code__", None), CodeType):
                    yield from _nested(function.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _asks_past_itself(code: CodeType) -> bool:
    """Whether ``super(self.__class__, self)`` or ``super(type(self), self)`` is called: in an
    instance of any further class that is the method itself, without end."""
    if "super" not in code.co_names:
        return False
    loads = [i.argval for i in dis.get_instructions(code) if i.opname.startswith("LOAD")]
    following = zip(loads, [*loads[1:], None], [*loads[2:], None, None], strict=True)
    return any(a == "super" and (b == "type" or c == "__class__") for a, b, c in following)


def _calls_up(code: CodeType) -> bool:
    return "super" in code.co_names and "forward" in code.co_names


_LOCK = threading.Lock()
_MADE: dict[Kind, Kind] = {}


def accelerated(kind: Kind) -> Kind:
    """The class that unfolds by the engine what the class ``kind`` leaves to its parent.

    Raises:
        TypeError: Python cannot make it.
    """
    if kind in _OURS:
        return _OURS[kind]
    parent = parent_of(kind)
    assert parent is not None
    with _LOCK:
        if kind not in _MADE:
            _MADE[kind] = _between(kind, parent)
        return _MADE[kind]


def _between(kind: Kind, parent: Kind) -> Kind:
    names = ("__module__", "__qualname__", "__doc__")
    namespace: dict[str, Any] = {name: getattr(kind, name) for name in names}
    namespace[ORIGINAL] = kind
    # The user's class comes first where it may: Python compares how the first bases lie in memory
    # before it lets an object change its class.
    announced = any("__init_subclass__" in each.__dict__ for each in _own_classes(kind, parent))
    first: tuple[Kind, ...] = (_Unannounced,) if announced else ()  # type: ignore[assignment]  # a mixin
    made = _class(type(kind), kind.__name__, (*first, kind, _OURS[parent]), namespace)
    made.__reduce_ex__ = _reduce(made)
    allow_in_graph(made, untouched)
    return made  # type: ignore[no-any-return]  # of a class made by its metaclass


def plain(kind: Kind) -> Kind | None:
    """The inverse of `accelerated`; None where ``kind`` was not made so."""
    return original_of(kind) or next(
        (theirs for theirs, ours in _OURS.items() if ours is kind), None
    )


def parametrized(module: nn.Module) -> bool:
    """Whether a module has a class that `torch.nn.utils.parametrize` made for it."""
    kind = type(module)
    return parametrize.is_parametrized(module) and kind.__module__ == parametrize.__name__


def over(kind: Kind, base: Kind) -> Kind:
    """The class of a parametrized module once more, over another class."""
    namespace = {k: v for k, v in kind.__dict__.items() if k not in ("__dict__", "__weakref__")}
    return _class(type(kind), kind.__name__, (base,), namespace)  # type: ignore[no-any-return]  # as above


def _class(meta: Any, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
    return meta(name, bases, namespace)
