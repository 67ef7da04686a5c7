"""`Recurrent`: a layer of any cell, with the face of `torch.nn.GRU`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.cells._stack import output_of
from bptt.engine._torch_compat import is_compiling
from bptt.errors import CellError, OptionError, ShapeError, at_least
from bptt.nn._layers import Shape, each_start, run
from bptt.nn._sequences import Sequences, enter
from bptt.state import State, describe, initial_state, map_state, same_structure
from bptt.unfold import unfold

MakeCell = Callable[[int], nn.Module]


class Recurrent(nn.Module):
    """Layers of any cell: `torch.nn.GRU`'s arguments, inputs and outputs, for your own recurrence.

    Args:
        cell: ``cell(input, state) -> state``, as `bptt.unfold` takes it. For more than one layer or
            direction it is the first, and the others are copies of it, drawn anew where the cell
            or its parts have ``reset_parameters``. Or a function that makes the cell of a layer
            from its input size: ``lambda size: MyCell(size, 64)``.
        input_size: of the first layer; needed with a function.
        layers: how many on top of each other.
        bidirectional: whether each layer also runs from the end; outputs lie side by side.
        batch_first: whether inputs and outputs are [lane, time, ...]; states never are.
        dropout: the share of the outputs of all layers but the last that is zeroed in training.
        clip_state_gradient, backend: see `bptt.unfold`.

    Shapes: input [time, lane, feature], [time, feature] for a lane alone, or a
    `torch.nn.utils.rnn.PackedSequence`; [time, lane] or [time] of indices for a cell that embeds
    them. States have the cell's nesting, leaves [layers · directions, lane, n], without the lane
    for a lane alone; layer l in direction d is number l · directions + d.

    Attributes:
        cells: the cells in that order.

    Raises:
        CellError: a layer's cell does not read what the layer below gives, or the layers' states
            differ in shape.
        OptionError: an option is out of range.
    """

    def __init__(
        self,
        cell: nn.Module | MakeCell,
        input_size: int | None = None,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        clip_state_gradient: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        at_least(1, layers=layers)
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise OptionError(f"dropout must lie between 0 and 1, not {dropout!r}.")
        self.layers = layers
        self.bidirectional = bidirectional
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.clip_state_gradient = clip_state_gradient
        self.backend = backend
        self.cells = nn.ModuleList(_make(cell, input_size, layers, 2 if bidirectional else 1))

    def extra_repr(self) -> str:
        """The options that are not at their defaults."""
        options: dict[str, tuple[Any, Any]] = {
            "layers": (self.layers, 1),
            "bidirectional": (self.bidirectional, False),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
        }
        return ", ".join(f"{k}={now}" for k, (now, usual) in options.items() if now != usual)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        *,
        reset: Tensor | None = None,
        return_states: bool = False,
    ) -> Any:
        """Unfold all layers.

        Args:
            input: as above.
            hx: the states before the first step (of the direction from the end: before the last
                one); default: the cells' own initial states.
            reset: bool, laid out as the input is, [time, lane] (padded, for a packed one); a
                flagged lane returns to the cells' initial states before that step. From the end the
                same borders part a lane, so every piece is read as if it stood alone.
            return_states: give the states after every step as well.

        Returns:
            ``(output, h_n)``, or ``(output, h_n, states)``: output as the input is laid out, with
            the top layer's outputs; h_n as ``hx``; states with leaves
            [layers · directions, time, lane, n], time and lane as the input is laid out (padded,
            for a packed one).

        Raises:
            ShapeError: shapes or dtypes do not fit each other.
        """
        if is_compiling() and not torch.compiler.is_exporting():
            return _uncompiled(self, input, hx, reset, return_states)
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self.forward(
                    self._in_own_dtype(input), hx, reset=reset, return_states=return_states
                )
        sequences = enter(input, self.batch_first, 3 if _data(input).is_floating_point() else 2)
        directions = 2 if self.bidirectional else 1
        flags = None if reset is None else self._reset(reset, sequences)

        def step(
            number: int, inputs: Tensor, state: State | None, flags: Tensor | None
        ) -> tuple[Tensor, State, State | None]:
            verb: Any = unfold  # its results depend on a bool that is known later
            found = verb(
                self.cells[number],
                inputs,
                state,
                reset=flags,
                lengths=sequences.lengths,
                return_states=return_states,
                clip_state_gradient=self.clip_state_gradient,
                backend=self.backend,
            )
            return found if return_states else (*found[:2], None)

        shape = Shape(self.layers, directions, self.dropout if self.training else 0.0)
        outputs, last, states = run(step, shape, sequences, self._starts(hx, sequences), flags)
        final = map_state(sequences.state_out, last)
        if not return_states:
            return sequences.output(outputs), final
        assert states is not None
        every = map_state(lambda leaf: sequences.over_time(leaf, 1), states)
        return sequences.output(outputs), final, every

    def _starts(self, hx: State | None, sequences: Sequences) -> list[State] | list[None]:
        count = len(self.cells)
        if hx is None:
            return [None] * count
        expected = initial_state(self.cells[0], sequences.inputs.shape[1], like=sequences.inputs)
        ranks = 1 if sequences.batched else 0
        wanted = map_state(
            lambda leaf: leaf.new_empty(()).expand(count, *leaf.shape[1 - ranks :]), expected
        )
        if not same_structure(hx, wanted):
            raise ShapeError(
                f"hx has the shape {describe(hx)}, expected [layers · directions, lane, ...]: "
                f"{describe(wanted)}."
            )
        return each_start(map_state(sequences.state_in, hx), count)

    def _reset(self, reset: Tensor, sequences: Sequences) -> Tensor:
        steps, lanes = sequences.inputs.shape[:2]
        shape = [steps] if not sequences.batched else [steps, lanes]
        if sequences.batched and sequences.batch_first:
            shape = [lanes, steps]
        if not isinstance(reset, Tensor) or list(reset.shape) != shape:
            raise ShapeError(f"reset has the shape {describe(reset)}, expected {shape}.")
        return sequences.over_time_in(reset)

    def _in_own_dtype(self, input: Tensor | PackedSequence) -> Tensor | PackedSequence:
        """Autocast does not reach the recurrence: rounding at every step adds up over time."""
        weight = next((p for p in self.parameters() if p.is_floating_point()), None)
        if weight is None or not _data(input).is_floating_point():
            return input
        return input.to(weight.dtype)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]  # a packed sequence has no types


@torch._disable_dynamo  # type: ignore[attr-defined]  # the public one imports Dynamo at once
def _uncompiled(layer: Recurrent, input: Any, hx: Any, reset: Any, return_states: bool) -> Any:
    """A cell of any kind is known to this process alone: the graph breaks here, and the engine runs
    it, where Dynamo would write out every step."""
    return layer.forward(input, hx, reset=reset, return_states=return_states)


def _data(input: Tensor | PackedSequence) -> Tensor:
    data = input.data if isinstance(input, PackedSequence) else input
    if not isinstance(data, Tensor):
        raise ShapeError(f"input must be a tensor or packed sequence, not {type(data).__name__}.")
    return data


def _make(
    cell: nn.Module | MakeCell, input_size: int | None, layers: int, directions: int
) -> list[nn.Module]:
    """All cells, the bottom layer's first."""
    make = _copies(cell) if isinstance(cell, nn.Module) else _made(cell, input_size)
    made: list[nn.Module] = []
    size = input_size
    for _ in range(layers):
        made += [make(size) for _ in range(directions)]
        size = directions * _output_width(made[-1])
    first = initial_state(made[0], 1)
    for other in made[1:]:
        if not same_structure(initial_state(other, 1), first):
            raise CellError(
                f"all layers of Recurrent carry states of one shape, but one carries "
                f"{describe(first)} and one {describe(initial_state(other, 1))}: put different "
                "cells on top of each other with bptt.Stack."
            )
    return made


def _made(function: MakeCell, input_size: int | None) -> Callable[[int | None], nn.Module]:
    if not callable(function):
        raise CellError(f"Recurrent takes a cell or a function that makes one, not {function!r}.")
    if input_size is None:
        raise OptionError("Recurrent needs input_size= with a function that makes cells.")

    def make(size: int | None) -> nn.Module:
        assert size is not None
        made = function(size)
        if not isinstance(made, nn.Module):
            raise CellError(f"{function!r} must make a torch.nn.Module, not {made!r}.")
        return made

    return make


def _copies(cell: nn.Module) -> Callable[[int | None], nn.Module]:
    given: list[nn.Module] = [cell]
    reads = getattr(cell, "input_size", None)

    def make(size: int | None) -> nn.Module:
        if isinstance(reads, int) and size is not None and size != reads:
            name = type(cell).__name__
            raise CellError(
                f"a layer would be given {size} features, but {name} reads {reads}: give a "
                f"function that makes cells, Recurrent(lambda size: {name}(size, ...), {reads})."
            )
        return given.pop() if given else _drawn_anew(copy.deepcopy(cell))

    return make


def _drawn_anew(cell: nn.Module) -> nn.Module:
    for module in reversed(list(cell.modules())):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return cell


def _output_width(cell: nn.Module) -> int:
    with torch.no_grad():
        state = initial_state(cell, 1)
        return int(output_of(cell, state).shape[-1])
