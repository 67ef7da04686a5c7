"""What a call of `bptt.unfold` does: what runs where, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bptt.arguments import check_arguments
from bptt.engine import Plan, StepProgram, Unsupported, plan_for
from bptt.engine.runtime.compile_cache import passes_of
from bptt.state import State, initial_state


@dataclass(frozen=True)
class Explanation:
    """What a call does; ``print(explanation)`` says it in words.

    Attributes:
        cell: the name of the cell's class.
        shape: of the inputs.
        program: the step program; None if the Python loop runs.
        why: why the Python loop runs; None if the core does.
        whole: whether the core does all of it in one call forward and one backward; else PyTorch
            computes what is hoisted and what follows the loop.
        arithmetic: the instruction set and the number of threads.
        passes: the step after each pass, by the name of the pass, if that was asked for.
    """

    cell: str
    shape: tuple[int, ...]
    program: StepProgram | None
    why: str | None
    whole: bool
    arithmetic: str
    passes: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """All of it."""
        call = f"{self.cell} over inputs {list(self.shape)}"
        if self.program is None:
            return f"{call} runs in the Python loop: {self.why}."
        where = (
            "one call of the core forward and one backward"
            if self.whole
            else "the loop in the core; what is hoisted and what follows the loop in PyTorch"
        )
        lines = [f"{call} runs natively ({self.arithmetic}): {where}."]
        for name, text in self.passes:
            lines += [f"after {name}:", *(f"  {line}" for line in text.splitlines())]
        return "\n".join([*lines, str(self.program)])


def explain(
    cell: nn.Module,
    inputs: Tensor,
    state: State | None = None,
    *,
    initial: State | None = None,
    passes: bool = False,
) -> Explanation:
    """Tell what `bptt.unfold` does with these arguments, without running it. What only a first run
    shows is not looked at: numbers that differ from the Python loop's, and hooks on tensors.

    Args:
        cell, inputs, state, initial: as of `bptt.unfold`.
        passes: tell the step after each pass of the compiler as well.

    Raises:
        ShapeError, CellError: as `bptt.unfold` does.
    """
    check_arguments(cell, inputs)
    lanes = inputs.shape[1]
    given = initial if state is None else state
    start = initial_state(cell, lanes, like=inputs) if given is None else given
    own = start if initial is None else initial
    found = plan_for(cell, inputs, start, own)
    name, shape = type(cell).__name__, tuple(inputs.shape)
    if isinstance(found, Unsupported):
        return Explanation(name, shape, None, str(found), False, "")
    assert isinstance(found, Plan)
    why = found.outrun(len(inputs), lanes)
    if why is not None:
        return Explanation(name, shape, None, why, False, "")
    from bptt import _core

    threads = torch.get_num_threads()
    arithmetic = f"{_core.isa()}, {threads} thread{'s' * (threads != 1)}"
    record = tuple(passes_of(cell, inputs, start, own)) if passes else ()
    whole = found.executable is not None
    return Explanation(name, shape, found.program, None, whole, arithmetic, record)
