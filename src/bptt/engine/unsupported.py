"""Why a cell cannot become a step program: typed, with the operator and the cell's own line."""

from __future__ import annotations

import enum
import os
import re
import traceback
from dataclasses import dataclass

import torch


class Reason(enum.Enum):
    """One row of the table of what a cell may do; the value says it in words."""

    OPERATOR = "an operator on the state outside the set that step programs know"
    RANK = "a state that is not [batch, hidden]"
    CONTROL_FLOW = "control flow or a Python number that depends on data"
    RANDOMNESS = "random numbers"
    MUTATION = "something that the cell changes while it runs"
    LANES = "mixing of lanes"
    CAPTURED = "a captured tensor that needs a gradient and is no parameter of the cell"
    AUTOGRAD = "a gradient of its own making"
    HOOKS = "hooks on the cell"
    DTYPE = "a dtype other than float32 and float64"
    DEVICE = "tensors that are not plain tensors on the CPU"
    CONTEXT = "a mode of PyTorch that the core cannot see through"
    UNTRACEABLE = "a step that PyTorch's tracer cannot follow"
    PARAMETRIZED = "weights that are computed from other tensors"
    READOUT = "a readout is made of linear maps, LayerNorm and pointwise functions"
    CONTRACT = "a cell that breaks its contract"
    UNEXPECTED = "an error of the engine, which deserves a report"
    WRONG = "numbers that differ from the Python loop's, which deserves a report"
    CORE = "the compiled core, which is missing"


STRICT = os.environ.get("BPTT_STRICT") == "1"
"""Whether an error of the engine's own is raised, as in the tests, instead of ending in the Python
loop and a warning."""


class EngineError(BaseException):
    """An error of the engine's own; under `STRICT` alone, and past all that would mend it."""


@dataclass(frozen=True)
class Unsupported:
    """What keeps a cell from the native executor.

    Attributes:
        reason: which row of the table.
        operator: the operator, attribute or tensor at fault.
        location: ``file:line`` in the cell, where it is known.
    """

    reason: Reason
    operator: str
    location: str | None = None

    def __post_init__(self) -> None:
        """Raise what is the engine's own error, where that is asked for."""
        if STRICT and self.reason in (Reason.UNEXPECTED, Reason.WRONG):
            raise EngineError(str(self))

    def __str__(self) -> str:
        """As it is printed."""
        where = f" at {self.location}" if self.location else ""
        return f"{self.operator}{where} ({self.reason.value})"


class Refusal(Exception):
    """Carries an `Unsupported` up from the depths of a trace; never leaves the engine."""

    def __init__(self, reason: Reason, operator: str, location: str | None = None) -> None:
        super().__init__(operator)
        self.unsupported = Unsupported(reason, operator, location)

    @staticmethod
    def of(unsupported: Unsupported) -> Refusal:
        """The refusal that carries this."""
        return Refusal(unsupported.reason, unsupported.operator, unsupported.location)


_TORCH = os.path.dirname(torch.__file__) + os.sep
_ENGINE = os.path.dirname(__file__) + os.sep
_NOBODYS = ("<frozen", "<string", "<eval_with_key")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in')


def _own_line(frames: list[tuple[str, int]]) -> str | None:
    """The innermost frame of the user's own code; failing that, PyTorch's (a cell of torch.nn)."""
    inside = [f for f in frames if not f[0].startswith((_ENGINE, *_NOBODYS))]
    own = [f for f in inside if not f[0].startswith(_TORCH)]
    cells = [f for f in inside if f"nn{os.sep}modules" in f[0]]
    chosen = own[-1:] or [f for f in cells if not f[0].endswith("module.py")][-1:]
    return f"{chosen[0][0]}:{chosen[0][1]}" if chosen else None


def line_of_trace(stack_trace: str | None) -> str | None:
    """The cell's line out of the stack trace that the tracer keeps with each node."""
    found = _FRAME.findall(stack_trace or "")
    return _own_line([(name, int(line)) for name, line in found])


def line_of_error(error: BaseException) -> str | None:
    """The cell's line out of the traceback of an error raised while tracing."""
    stack = traceback.extract_tb(error.__traceback__)
    calls = [
        i for i, f in enumerate(stack) if f.filename.startswith(_ENGINE) and f.name == "call_cell"
    ]
    inside = stack[calls[-1] + 1 :] if calls else stack
    return _own_line([(f.filename, f.lineno or 0) for f in inside])
