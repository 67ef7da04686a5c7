"""`accelerate`: a model's own layers, unfolded by the engine from now on; and back.

A layer is replaced by changing its class. The object stays, and with it its parameters, hooks,
mode, dtype and device, and every reference to it: from optimizers, from other modules that share
it, from the caller, if the model is a layer itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import jit, nn

from bptt.errors import CellError
from bptt.nn._costs import note
from bptt.nn._drop_in import Unfolded
from bptt.nn._subclasses import (
    Kind,
    accelerated,
    obstacle,
    original_of,
    over,
    own_forward,
    parametrized,
    parent_of,
    plain,
)
from bptt.nn._unfolded import elsewhere


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one module.

    Attributes:
        name: where it is in the model; empty for the model itself.
        before, after: its classes.
        note: why it was left as it was, or what to know.
    """

    name: str
    before: str
    after: str
    note: str

    @property
    def replaced(self) -> bool:
        """Whether its class was changed."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Report:
    """What was replaced in a model, and what was not and why; prints as a table."""

    entries: tuple[Entry, ...]

    @property
    def replaced(self) -> tuple[str, ...]:
        """The names of the layers that were replaced."""
        return tuple(entry.name for entry in self.entries if entry.replaced)

    def __str__(self) -> str:
        if not self.entries:
            return "The model has no recurrent layers."
        rows = [("layer", "before", "after", "note")]
        rows += [(e.name or "(the model)", e.before, e.after, e.note) for e in self.entries]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def accelerate(model: nn.Module, *, beneath: bool = False) -> Report:
    """Let the engine unfold a model's `torch.nn.RNN`, `GRU` and `LSTM`, in place.

    The layers become `bptt.nn.RNN`, `GRU` and `LSTM`; the model computes what it did, and saved
    weights load as before, both ways. An LSTM of 512 hidden units and more leaves some calls
    with few lanes to PyTorch's kernel, which is faster there: sizes and the instruction set decide.

    Subclasses that override nothing of what `forward` reads are taken, too. Such a layer gets a
    class of the same name between which and its parent `bptt.nn`'s stands: ``isinstance`` holds,
    and attributes, methods, ``super()``, ``state_dict``, copies and pickles are as before.

    Args:
        model: any module; it may be a layer itself.
        beneath: take subclasses with a `forward` of their own as well, if it calls
            ``super().forward``: theirs runs as before, and what it calls is the engine's.

    Returns:
        What was replaced, and what was not and why.

    Raises:
        CellError: ``model`` is no module.
    """
    return _replace(model, _faster, lambda module: _refusal(module, beneath))


def decelerate(model: nn.Module) -> Report:
    """The inverse of `accelerate`, in place: all `bptt.nn.RNN`, `GRU` and `LSTM` become PyTorch's,
    and subclasses what they were.

    Raises:
        CellError: ``model`` is no module.
    """
    return _replace(model, _slower, _staying)


def _replace(
    model: nn.Module,
    other: Callable[[Kind], Kind],
    refusal: Callable[[nn.Module], str | None],
) -> Report:
    if not isinstance(model, nn.Module):
        raise CellError(f"the model must be a torch.nn.Module, not a {type(model).__name__}.")
    entries: list[Entry] = []
    first_name: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        if not recurrent and not isinstance(module, jit.ScriptModule):
            continue
        before = _title(module)
        if id(module) in first_name:
            where = first_name[id(module)] or "the model"
            entries.append(Entry(name, before, before, f"the same layer as {where}"))
            continue
        first_name[id(module)] = name
        note = refusal(module) or _changed(module, other)
        if note is None and other is _faster:
            note = _caveat(module)
        entries.append(Entry(name, before, _title(module), note or ""))
    return Report(tuple(entries))


def _changed(module: nn.Module, other: Callable[[Kind], Kind]) -> str | None:
    """Give a module its other class; tells why it cannot have it."""
    kind = type(module)
    try:
        new = over(kind, other(kind.__bases__[0])) if parametrized(module) else other(kind)
        object.__setattr__(module, "__class__", new)
    except TypeError as error:  # bases without a common order, or other memory
        return f"a subclass that nothing can stand beneath: {error}"
    return None


_faster = accelerated


def _slower(kind: Kind) -> Kind:
    found = plain(kind)
    assert found is not None
    return found


def _own_kind(module: nn.Module) -> Kind:
    """A module's class, without what `parametrize` put before it."""
    return type(module).__bases__[0] if parametrized(module) else type(module)


def _title(module: nn.Module) -> str:
    kind = _own_kind(module)
    title = _name(kind)
    if original_of(kind) is not None:
        parent = parent_of(kind)
        assert parent is not None
        title += f" ({_name(accelerated(parent))})"
    return title + (", parametrized" if kind is not type(module) else "")


def _name(kind: Kind) -> str:
    module = kind.__module__
    for package in ("torch.nn", "bptt.nn"):
        if module.startswith(package):
            return f"{package}.{kind.__name__}"
    return f"{module}.{kind.__name__}"


def _refusal(module: nn.Module, beneath: bool) -> str | None:
    """Why `accelerate` leaves a module as it is, None if it does not."""
    kind = _own_kind(module)
    if isinstance(module, jit.ScriptModule):
        return "compiled by TorchScript, which keeps its own copy of the code"
    if isinstance(module, nn.RNNCellBase):
        return "a cell: the loop over time is the model's; bptt.nn.Recurrent makes it a layer"
    if issubclass(kind, Unfolded):
        return "nothing to do"
    if "forward" in module.__dict__:
        return "has a forward of its own"
    if module.__dict__.get("qconfig") is not None:
        return "to be quantized, which goes by the exact classes of PyTorch's layers"
    return None if plain(kind) is None and kind is parent_of(kind) else obstacle(kind, beneath)


def _staying(module: nn.Module) -> str | None:
    """Why `decelerate` leaves a module as it is, None if it does not."""
    kind = _own_kind(module)
    if not issubclass(kind, Unfolded):
        return "nothing to do"
    if "forward" in module.__dict__:
        return "has a forward of its own"
    return None if plain(kind) else "a class that was written as a subclass of bptt.nn's"


def _caveat(module: nn.Module) -> str | None:
    """What to know of a layer as it is now."""
    assert isinstance(module, nn.RNNBase)
    why = elsewhere(module)
    if why is not None:
        return f"for now PyTorch's own code runs: {why}"
    if own_forward(_own_kind(module)):
        return "its own forward runs; what that calls by super().forward was replaced"
    return note(module)
