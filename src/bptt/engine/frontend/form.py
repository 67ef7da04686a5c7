"""A step of one structure: its graph, cut into parts, and the programs that were made of it.

A form holds no tensor of the user's: what a program works on comes with each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.engine.frontend.graph import RowFunction, Step, Traced, trace, trace_rows
from bptt.engine.graphs.algebraic import rearrange
from bptt.engine.graphs.hoist import Partition, partition, sink
from bptt.engine.unsupported import Reason, Refusal


@dataclass(frozen=True, eq=False)
class Parts:
    """A step in parts.

    Attributes:
        step: what depends on the state, and what is hoisted.
        sunk: the same with less hoisted (see `bptt.engine.graphs.hoist.sink`), if there is such.
    """

    step: Partition
    sunk: Partition | None


class Form:
    """The graph of a step, and the programs that were made of it.

    Args:
        name: of the cell's class.
        step: makes the step to trace.
        output: the leaf that is a step's output, or what makes the function that gives it.
        needs_gradient: whether any of its sources does.
        built_in: whether the cell is, so that its programs need no verification.

    Attributes:
        plans: programs and refusals, by what they depend on.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Step],
        output: Callable[[], int | Step],
        needs_gradient: bool,
        built_in: bool,
    ) -> None:
        self.name, self.needs_gradient, self.built_in = name, needs_gradient, built_in
        self.plans: dict[Any, Any] = {}
        self._step, self._output_of = step, output
        self._traced: Traced | None = None
        self._parts: dict[bool, Parts] = {}
        self._output: int | RowFunction | None = None

    def traced(self, hoist: bool = True) -> tuple[Traced, Parts]:
        """The step's graph, and its parts; without ``hoist`` all of it is one part.

        Raises:
            Refusal: it has no step program.
        """
        if self._traced is None:
            step = self._step()
            _check_leaves(step)
            self._traced = trace(step)
            count = len(self._traced.names)
            rearrange(self._traced.graph, count)
        if hoist not in self._parts:
            graph, count = self._traced.graph, len(self._traced.names)
            sunk = sink(graph, count) if hoist else None
            self._parts[hoist] = Parts(partition(graph, count, hoist), sunk)
        return self._traced, self._parts[hoist]

    def output(self) -> int | RowFunction:
        """Which leaf is a step's output, or what makes it of the leaves.

        Raises:
            Refusal: it reads several lanes at once.
        """
        if self._output is None:
            found = self._output_of()
            self._output = found if isinstance(found, int) else trace_rows(found)
        return self._output


def _check_leaves(step: Step) -> None:
    states = step.rows[1:]
    for leaf in states:
        if len(leaf.shape) != 1:
            raise Refusal(Reason.RANK, f"a state of {len(leaf.shape) + 1} dimensions")
        if leaf.dtype not in (torch.float32, torch.float64):
            raise Refusal(Reason.DTYPE, f"a state of {leaf.dtype}")
        if leaf.dtype is not states[0].dtype:
            raise Refusal(Reason.DTYPE, "a state of two dtypes")
        if leaf.shape[0] == 0:
            raise Refusal(Reason.RANK, "a state of width 0")


class Found(NamedTuple):
    """A step's form, and the tensors of this call: those of the step and those of the output."""

    form: Form
    tensors: list[Tensor]
    output_tensors: list[Tensor]
