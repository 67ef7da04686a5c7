"""`accelerate`: a model's own layers, unfolded by the engine from now on; and back.

A layer is replaced by changing its class. The object stays, and with it its parameters, hooks,
mode, dtype and device, and every reference to it: from optimizers, from other modules that share
it, from the caller, if the model is a layer itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import jit, nn
from torch.nn.utils import parametrize

from bptt.errors import CellError
from bptt.nn._compiling import allow_in_graph
from bptt.nn._drop_in import GRU, LSTM, RNN
from bptt.nn._unfolded import elsewhere

_OURS: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}
_THEIRS: dict[type[nn.Module], type[nn.Module]] = {ours: theirs for theirs, ours in _OURS.items()}


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


def accelerate(model: nn.Module) -> Report:
    """Let the engine unfold a model's `torch.nn.RNN`, `GRU` and `LSTM`, in place.

    The layers become `bptt.nn.RNN`, `GRU` and `LSTM`; the model computes what it did, and saved
    weights load as before, both ways. Layers of exactly these classes are replaced: a subclass
    may compute something else, and stays.

    Args:
        model: any module; it may be a layer itself.

    Returns:
        What was replaced, and what was not and why.

    Raises:
        CellError: ``model`` is no module.
    """
    return _replace(model, _OURS)


def decelerate(model: nn.Module) -> Report:
    """The inverse of `accelerate`, in place: all `bptt.nn.RNN`, `GRU` and `LSTM` become PyTorch's.

    Raises:
        CellError: ``model`` is no module.
    """
    return _replace(model, _THEIRS)


def _replace(model: nn.Module, table: dict[type[nn.Module], type[nn.Module]]) -> Report:
    if not isinstance(model, nn.Module):
        raise CellError(f"the model must be a torch.nn.Module, not a {type(model).__name__}.")
    entries: list[Entry] = []
    first_name: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        if not recurrent and not isinstance(module, jit.ScriptModule):
            continue
        before, note = _title(type(module)), _obstacle(module, table)
        if id(module) in first_name:
            where = first_name[id(module)] or "the model"
            entries.append(Entry(name, before, before, f"the same layer as {where}"))
            continue
        first_name[id(module)] = name
        if note is None:
            module.__class__ = table[type(module)]
            if table is _OURS:
                allow_in_graph(type(module))  # type: ignore[arg-type]  # types are hashable
                note = _caveat(module)
        entries.append(Entry(name, before, _title(type(module)), note or ""))
    return Report(tuple(entries))


def _title(kind: type[nn.Module]) -> str:
    module = kind.__module__
    for package in ("torch.nn", "bptt.nn"):
        if module.startswith(package):
            return f"{package}.{kind.__name__}"
    return f"{module}.{kind.__name__}"


def _obstacle(module: nn.Module, table: dict[type[nn.Module], type[nn.Module]]) -> str | None:
    """Why a module stays, None if it does not."""
    kind = type(module)
    if isinstance(module, jit.ScriptModule):
        return "compiled by TorchScript, which keeps its own copy of the code"
    if kind in table.values():
        return "nothing to do"
    if "forward" in module.__dict__:
        return "has a forward of its own"
    if kind in table:
        return None
    if isinstance(module, nn.RNNCellBase):
        return "a cell: the loop over time is the model's; bptt.nn.Recurrent makes it a layer"
    if parametrize.is_parametrized(module):
        return "its weights are parametrized, which made a class of its own: replace it before that"
    return "a subclass, which may compute something else"


def _caveat(module: nn.Module) -> str | None:
    """What keeps the engine from a layer as it is now."""
    assert isinstance(module, nn.RNNBase)
    why = elsewhere(module)
    return None if why is None else f"for now PyTorch's own code runs: {why}"
