"""A network, its loss and a window's length as a learner of the core: all that an update does,
without PyTorch.

The cell's step is traced as the executor traces it, but whole: nothing is hoisted into PyTorch. The
readout is traced as a cell that does not look at its state. What both do with parameters alone, and
how rows become gradients, is recorded by `bptt.engine.online.fixed`; the steps themselves are laid
out by `bptt.engine.online.rows`; `bptt.engine.online.parts` collects all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bptt.engine.online.parts import Parts, Table
from bptt.engine.online.plan import Leaf, Place, RowOp
from bptt.engine.online.rows import Stages, columns
from bptt.engine.online.trace import Unit, trace, trace_readout
from bptt.engine.runtime.compile_cache import core_missing
from bptt.engine.unsupported import Reason, Refusal
from bptt.state import State, leaves, rebuild

_FORWARD = frozenset({"time", "unit"})
_BACKWARD = frozenset({"state", "next", "time", "unit", "saved"})
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Learner:
    """A learner of the core and what its buffers are.

    Attributes:
        core: `bptt._core.Learner`.
        tensors: the caller's tensors, in the order of the core's first buffers.
        gradients: of each tensor that is trained, the buffer of its gradient.
        learned_initial: which tensors are leaves of a learned initial state.
        initial: the buffers of an initial state that is not learned, by leaf.
        steps, lanes: the longest window and its lanes.
        dtype: of all tensors.
        state: a state, for its nesting; leaves [lanes, n].
        prediction_width: features of a prediction.
        current: asks whether what the cell reads is what the learner was built of; None if the
            cell is built in, and a guard sees all of it.
    """

    core: Any
    tensors: tuple[Tensor, ...]
    gradients: dict[int, int]
    learned_initial: frozenset[int]
    initial: tuple[int | None, ...]
    steps: int
    lanes: int
    dtype: torch.dtype
    state: State
    prediction_width: int
    current: Callable[[], bool] | None


def learner_for(
    cell: nn.Module,
    readout: nn.Module | None,
    initial: State,
    learned: list[nn.Parameter],
    example: Tensor,
    *,
    loss: str,
    steps: int,
    clip: float | None,
) -> Learner:
    """Build a learner.

    Args:
        cell, readout: of the network.
        initial: its initial state, leaves [lanes, n].
        learned: the leaves of a learned initial state, or none.
        example: inputs [time, lane, feature]; only features and dtype count.
        loss: "mse", "mae", "huber", "indices" or "shares" (both of cross entropy).
        steps: the longest window.
        clip: bound of the state's gradient at every step.

    Raises:
        Refusal: something of it cannot run in the core; says what.
    """
    missing = core_missing()
    if missing is not None:
        raise Refusal(missing.reason, missing.operator)
    own = leaves(initial)
    dtype = own[0].dtype
    if example.dtype is not dtype or example.dim() != 3:
        raise Refusal(Reason.DTYPE, f"inputs that are not [time, lane, feature] of {dtype}")
    plain = rebuild(initial, [leaf.detach() for leaf in own])
    unit = trace(cell, example, plain)
    if unit.output is None:
        raise Refusal(Reason.OPERATOR, "an output that the cell computes from its state")
    reader = None
    if readout is not None:
        reader = trace_readout(readout, own[unit.output].shape[1], dtype)
    units = [unit] if reader is None else [unit, reader]
    tensors = _tensors(units, learned)
    parts = Parts(dtype, tensors)
    plan, gradients, prediction = _plan(parts, tensors, unit, reader, own, learned, example, steps)
    plan |= {"steps": steps, "loss": loss, "clip_state": -1.0 if clip is None else float(clip)}
    from bptt import _core

    core = _core.Learner(plan)
    for number, values in parts.buffers.values.items():
        core.set_buffer(number, values)
    numbers = {id(t): i for i, t in enumerate(tensors)}
    return Learner(
        core,
        tuple(tensors),
        gradients,
        frozenset(numbers[id(p)] for p in learned),
        tuple(None if learned else leaf.initial for leaf in plan["leaves"]),
        steps,
        own[0].shape[0],
        dtype,
        initial,
        prediction,
        unit.current,
    )


def _tensors(units: list[Unit], learned: list[nn.Parameter]) -> list[Tensor]:
    """Every tensor of cell, readout and initial state, once."""
    found: dict[int, Tensor] = {}
    for unit in units:
        for given in unit.program.params:
            assert given.source is not None
            tensor = unit.tensors[given.source]
            found.setdefault(id(tensor), tensor)
    for parameter in learned:
        if id(parameter) in found:
            raise Refusal(Reason.CAPTURED, "an initial state that the cell uses as well")
        if not parameter.is_contiguous():
            raise Refusal(Reason.DTYPE, "an initial state that is not contiguous")
        found[id(parameter)] = parameter
    return list(found.values())


def _plan(
    parts: Parts,
    tensors: list[Tensor],
    cell: Unit,
    readout: Unit | None,
    own: list[Tensor],
    learned: list[nn.Parameter],
    example: Tensor,
    steps: int,
) -> tuple[dict[str, Any], dict[int, int], int]:
    """The plan but for its options, the buffers of gradients, and the width of a prediction."""
    arrays, buffers = parts.arrays, parts.buffers
    assert cell.output is not None
    width = own[cell.output].shape[1]
    places = [[arrays.new(leaf.shape[1], "window") for _ in range(3)] for leaf in own]
    inputs, outputs = arrays.new(example.shape[2], "window"), arrays.new(width, "counted")
    forward, backward = _cell(parts, cell, places, inputs)
    if readout is None:
        prediction, slope = outputs, arrays.new(width, "counted")
        upstream, reading = slope, (Stages(), Stages())
    else:
        prediction, slope, upstream, reading = _read(parts, readout, outputs)
    numbers = {id(t): i for i, t in enumerate(tensors)}
    reached, entered_by = _reached(cell, steps)
    if readout is not None:
        reached |= {id(t) for t in readout.tensors}
    # What no loss reaches has no gradient, not zeros: the optimizer passes over it.
    gradients = {n: g for n, g in parts.gradients(numbers).items() if id(tensors[n]) in reached}
    found = []
    for j, leaf in enumerate(own):
        gradient = -1
        if learned and learned[j].requires_grad and j in entered_by:
            gradient = buffers.number(buffers.new(leaf.shape[1]))
            gradients[numbers[id(learned[j])]] = gradient
        initial = numbers[id(learned[j])] if learned else buffers.number(buffers.new(*leaf.shape))
        states, entered, carries = (place.number for place in places[j])
        found.append(
            Leaf(leaf.shape[1], states, entered, carries, initial, bool(learned), gradient)
        )
    plan = {
        "dtype": str(buffers.dtype).removeprefix("torch."),
        "lanes": own[0].shape[0],
        "sources": len(tensors),
        "prepare": [parts.told(f) for f in parts.prepare],
        "after": [parts.told(f) for f in parts.after],
        "buffers": buffers.sizes,
        "arrays": arrays.declared,
        "matrices": parts.matrices,
        "leaves": found,
        "ahead": forward.ahead,
        "forward": forward.loop,
        "back_ahead": backward.ahead,
        "backward": backward.loop,
        "behind": backward.behind,
        "read_forward": [*reading[0].ahead, *reading[0].loop, *reading[0].behind],
        "read_backward": [*reading[1].ahead, *reading[1].loop, *reading[1].behind],
        "deltas": sorted(parts.deltas),
        "special": (
            inputs.number,
            cell.output,
            outputs.number,
            prediction.number,
            slope.number,
            upstream.number,
        ),
    }
    return plan, gradients, prediction.width


def _reached(cell: Unit, steps: int) -> tuple[set[int], set[int]]:
    """The tensors, by identity, that the gradient of an output reaches in a window of so many
    steps, and the leaves of the state before it."""
    program, output = cell.program, cell.output
    assert output is not None
    first = len(program.params) + len(program.times)
    found: set[int] = set()
    before: set[int] = set()
    for _ in range(steps):
        leaves_now, before = before | {output}, set()
        for leaf in leaves_now:
            bits = program.reached[leaf]
            for i, given in enumerate(program.params):
                if bits >> i & 1 and given.source is not None:
                    found.add(id(cell.tensors[given.source]))
            before |= {j for j in range(len(program.reached)) if bits >> (first + j) & 1}
        if before | {output} == leaves_now:
            break
    return found, before


def _cell(
    parts: Parts, cell: Unit, places: list[list[Place]], inputs: Place
) -> tuple[Stages, Stages]:
    table: Table = {("time", 0): inputs}
    for j, (states, _, carries) in enumerate(places):
        table["state", j] = states
        table["next", j] = states._replace(shift=1)
        table["grad", j] = carries._replace(shift=1)
        table["enter", j] = carries
    written = ("next", "enter")
    return parts.lower(cell, table, "window", _FORWARD, _BACKWARD, written, scaled=True)


def _read(
    parts: Parts, readout: Unit, outputs: Place
) -> tuple[Place, Place, Place, tuple[Stages, Stages]]:
    """The arrays of predictions, of the loss's slope, and of the gradient of the outputs; the
    instructions."""
    program, arrays = readout.program, parts.arrays
    prediction = arrays.new(program.states[0], "counted")
    slope = arrays.new(program.states[0], "counted")
    table: Table = {("time", 0): outputs, ("next", 0): prediction, ("grad", 0): slope}
    ahead, back = parts.lower(
        readout, table, "counted", _NOTHING, _NOTHING, ("next",), scaled=False
    )
    assert program.after is not None
    flows = program.after.times[0] if program.after.times else None
    if flows is None:
        raise Refusal(Reason.READOUT, "one that does not look at the cell's output")
    found = columns(table[flows.space, flows.index], flows.offset, flows.width)
    if found.width == arrays.declared[found.number][0]:
        return prediction, slope, found, (ahead, back)
    upstream = arrays.new(outputs.width, "counted")
    back.behind.append(RowOp("copy", upstream, found, None, None, -1, True))
    return prediction, slope, upstream, (ahead, back)
