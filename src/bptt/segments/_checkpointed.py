"""`checkpointed_unfold`: `bptt.unfold` for one's own loss, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bptt.arguments import check_lengths, check_reset
from bptt.errors import CellError, OptionError, at_least
from bptt.reuse import Reuse, reusing
from bptt.segments._bytes import Freed, bytes_of
from bptt.segments._core import deltas, held, programs
from bptt.segments._draws import drawn_from, draws
from bptt.segments._plan import Costs, choose, peaks, state_bytes
from bptt.segments._revolve import reversed_states
from bptt.segments._run import Entry, Unchanged, entering, kept
from bptt.state import State, initial_state, leaves, map_state, rebuild
from bptt.unfold import unfold

PROBE = 32
"""Steps of the longest piece that is measured."""


def checkpointed_unfold(
    cell: nn.Module,
    inputs: Tensor,
    state: State | None = None,
    *,
    segment: int | None = None,
    memory: int | str | None = None,
    initial: State | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    clip_state_gradient: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """`bptt.unfold` that keeps the states between segments alone, and runs each segment again when
    the gradient comes to it: for losses of one's own over long sequences.

    Outputs, last state and all gradients are those of `bptt.unfold`, to rounding. The outputs
    themselves, ``inputs`` and their gradients are as long as they are. Random numbers that the
    cell draws are drawn again when it is run again. The state that a segment begins with is a leaf:
    a cell that asks for ``state.grad_fn`` sees that.

    Args:
        segment: how many steps are unfolded at a time; default: about the square root of all.
        memory: in its place, the bytes that going back may hold at a time beside outputs, inputs
            and their gradients, as in ``"256MB"``; measured on a few steps (see `bptt.Full`).
        cell, inputs, state, initial, reset, lengths, clip_state_gradient, backend: see
            `bptt.unfold`.

    Returns:
        ``(outputs, state)``, as `bptt.unfold` does.

    Raises:
        OptionError: ``segment`` is below 1, ``memory`` is no amount or too little, or both are
            given.
        CellError: the cell changes its own buffers, or its state depends on a tensor that needs a
            gradient and is none of its parameters. In the backward pass: a gradient of the
            gradient was asked for.
        ShapeError: see `bptt.unfold`.
    """
    if segment is not None:
        at_least(1, segment=segment)
        if memory is not None:
            raise OptionError("give either segment= or memory=, not both.")
    if memory is not None:
        bytes_of(memory)
    options: dict[str, Any] = {"clip_state_gradient": clip_state_gradient, "backend": backend}
    if not isinstance(inputs, Tensor) or inputs.dim() < 2 or not len(inputs):
        options |= {"reset": reset, "lengths": lengths, "return_states": False}
        nothing: tuple[Tensor, State] = unfold(cell, inputs, state, initial=initial, **options)
        return nothing
    steps, lanes = inputs.shape[:2]
    reset, lengths = check_reset(reset, steps, lanes), check_lengths(lengths, steps, lanes)
    own = initial_state(cell, lanes, like=inputs) if initial is None else initial
    _try_one_step(cell, inputs, own if state is None else state, own, options)
    # Read again on the way back, when the caller may have filled his own anew.
    reset, lengths = (None if given is None else given.clone() for given in (reset, lengths))
    if reset is not None:
        own = map_state(Tensor.clone, own)
    start = own if state is None else state
    run = _Run(cell, start, own, inputs, reset, lengths, options)
    run.segment, run.kept, run.freed = _segments(run, segment, memory)
    outputs, *last = _Checkpointed.apply(  # type: ignore[no-untyped-call]  # untyped in torch
        run, *run.tensors()
    )
    return outputs, rebuild(run.start, last)


def _try_one_step(
    cell: nn.Module, inputs: Tensor, state: State, initial: State, options: dict[str, Any]
) -> None:
    """Refuse before any work what `bptt.unfold` refuses, and gradients that would be lost."""
    with drawn_from(draws()):
        start = entering(state)
        _, last = unfold(cell, inputs[:1].detach(), start, initial=initial, **options)
    known = [*leaves(start), *leaves(initial), *cell.parameters()]
    strange = _reached(leaves(last)) - {id(tensor) for tensor in known}
    if strange:
        raise CellError(
            f"the state of {type(cell).__name__} depends on a tensor that needs a gradient and is "
            "none of its parameters: a segment that is run again cannot send it one. Make it a "
            "parameter of the cell, give it as an input, or detach it."
        )


def _reached(tensors: list[Tensor]) -> set[int]:
    """The leaves that a gradient of ``tensors`` would come to, by identity."""
    ways = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen, found = set(ways), set()
    while ways:
        node = ways.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        following = {other for other, _ in node.next_functions if other is not None} - seen
        seen |= following
        ways.extend(following)
    return found


@dataclass
class _Run:
    """One call: what its segments need, and the states kept of the forward pass, by segment."""

    cell: nn.Module
    start: State
    initial: State
    inputs: Tensor
    reset: Tensor | None
    lengths: Tensor | None
    options: dict[str, Any]
    segment: int = 1
    kept: int = 1
    freed: int | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    drawn: bool = False

    @property
    def segments(self) -> int:
        """How many there are."""
        return -(-len(self.inputs) // self.segment)

    def tensors(self) -> list[Tensor]:
        """All that may need a gradient: inputs, start, initial, parameters."""
        owned = [p for p in self.cell.parameters() if p.requires_grad]
        return [self.inputs, *leaves(self.start), *leaves(self.initial), *owned]

    def span(self, index: int) -> slice:
        """The steps of a segment."""
        return slice(index * self.segment, min((index + 1) * self.segment, len(self.inputs)))

    def unfold(
        self, at: slice, inputs: Tensor, state: State | None, initial: State
    ) -> tuple[Any, State]:
        """Outputs and last state of the steps ``at``, whose ``inputs`` these are."""
        within = None if self.lengths is None else (self.lengths - at.start).clamp(0, len(inputs))
        reset = None if self.reset is None else self.reset[at]
        return unfold(
            self.cell, inputs, state, initial=initial, reset=reset, lengths=within, **self.options
        )

    def forward(self) -> tuple[Tensor, State]:
        """All outputs and the last state, keeping what the schedule begins with."""
        begin = draws()
        unchanged = Unchanged(self.cell)
        parts: list[Tensor] = []

        def advance(start: int, stop: int, entry: Entry) -> Entry:
            for index in range(start, stop):
                at = self.span(index)
                outputs, last = self.unfold(at, self.inputs[at], entry.state, self.initial)
                unchanged.check()
                parts.append(outputs)
                entry = Entry(kept(last), draws(entry.draws))
            self.entries[stop] = entry
            return entry

        first = self.entries[0] = Entry(kept(self.start), begin)
        _, entry = next(reversed_states(self.segments, self.kept, first, advance))
        end = advance(self.segments - 1, self.segments, entry).state
        del self.entries[self.segments]
        self.drawn = draws(begin) is not begin
        assert end is not None
        return torch.cat(parts), end

    def states(self) -> Any:
        """Each segment and what enters it, the last one first; may be asked for again."""

        def advance(start: int, stop: int, entry: Entry) -> Entry:
            if stop in self.entries:
                return self.entries[stop]
            with self.again(entry), torch.no_grad():
                for index in range(start, stop):
                    at = self.span(index)
                    _, last = self.unfold(at, self.inputs[at], entry.state, self.initial)
                    entry = Entry(kept(last), draws(entry.draws))
            return entry

        return reversed_states(self.segments, self.kept, self.entries[0], advance)

    def again(self, entry: Entry) -> Any:
        """Where a segment that is run again draws its random numbers."""
        return drawn_from(entry.draws) if self.drawn else nullcontext()


class _Checkpointed(torch.autograd.Function):
    """The run in autograd; its tensors are those of `_Run.tensors`."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, last = run.forward()
        ctx.run = run
        ctx.save_for_backward(*tensors)  # autograd refuses them if they are changed in between
        ctx.set_materialize_grads(False)
        return outputs, *leaves(last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor | None, *of_last: Tensor | None) -> Any:
        run: _Run = ctx.run
        given = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        n = len(leaves(run.start))
        of_inputs = torch.zeros_like(run.inputs) if needed[0] else None
        sums: list[Tensor | None] = [None] * len(given)
        after = list(of_last)
        freed = Freed(run.freed)
        with reusing(Reuse()):
            for index, entry in run.states():
                found = _of_segment(
                    run, index, entry, needed[0], given[1 + 2 * n :], of_outputs, after
                )
                if of_inputs is not None and found[0] is not None:
                    of_inputs[run.span(index)] = found[0]
                after = found[1 : 1 + n]
                for i in range(1 + n, len(given)):
                    sums[i] = _sum(sums[i], found[i])
                del found
                freed.tidy()
        return (None, of_inputs, *after, *sums[1 + n :])


def _of_segment(
    run: _Run,
    index: int,
    entry: Entry,
    of_inputs: bool,
    parameters: tuple[Tensor, ...],
    of_outputs: Tensor | None,
    after: list[Tensor | None],
) -> list[Tensor | None]:
    """One segment run again, and the gradients of its inputs (if asked for), entering and initial
    state, and of the parameters."""
    at = run.span(index)
    with torch.enable_grad(), run.again(entry):
        inputs = run.inputs[at].detach().requires_grad_(of_inputs)
        assert entry.state is not None
        start, back = entering(entry.state), entering(run.initial)
        outputs, last = run.unfold(at, inputs, start, back)
    ends = [outputs, *leaves(last)]
    seeds = [None if of_outputs is None else of_outputs[at], *after]
    live = [
        (end, seed)
        for end, seed in zip(ends, seeds, strict=True)
        if seed is not None and end.requires_grad
    ]
    return _gradients(live, [inputs, *leaves(start), *leaves(back), *parameters])


def _gradients(ends: list[tuple[Tensor, Tensor]], into: list[Tensor]) -> list[Tensor | None]:
    asked = [t for t in into if t.requires_grad]
    if not ends or not asked:
        return [None] * len(into)
    found = iter(
        torch.autograd.grad(
            [end for end, _ in ends], asked, [seed for _, seed in ends], allow_unused=True
        )
    )
    return [next(found) if t.requires_grad else None for t in into]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _segments(
    run: _Run, segment: int | None, memory: int | str | None
) -> tuple[int, int, int | None]:
    """The steps of a segment, how many states are kept, and what may stay of freed memory."""
    steps, lanes = run.inputs.shape[:2]
    if memory is None:
        chosen = min(math.isqrt(steps - 1) + 1 if segment is None else segment, steps)
        return chosen, max(-(-steps // chosen) - 1, 1), None
    plan = choose(_costs(run), steps, lanes, bytes_of(memory))
    # What a second backward pass starts from stays while Revolve keeps states of its own.
    kept = max(plan.kept // 2, 1) if plan.repetitions > 1 else plan.kept
    return plan.segment, kept, plan.peak if run.inputs.device.type == "cpu" else None


def _costs(run: _Run) -> Costs:
    few = min(PROBE, len(run.inputs))
    owned = run.tensors()[1 + 2 * len(leaves(run.start)) :]

    def swept(steps: int) -> list[Callable[[], object]]:
        held: list[Any] = []
        at = slice(0, steps)

        def unfold() -> None:
            with torch.enable_grad():
                inputs = run.inputs[at].detach().requires_grad_(run.inputs.requires_grad)
                start = entering(run.start)
                held.extend((inputs, start, *run.unfold(at, inputs, start, entering(run.initial))))

        def back() -> None:
            inputs, start, outputs, last = held
            ends = [(t, torch.ones_like(t)) for t in (outputs, *leaves(last)) if t.requires_grad]
            _gradients(ends, [inputs, *leaves(start), *owned])

        return [unfold, back]

    def advanced(steps: int) -> list[Callable[[], object]]:
        at = slice(0, steps)

        def advance() -> None:
            with torch.no_grad():
                run.unfold(at, run.inputs[at], run.start, run.initial)

        return [advance]

    with drawn_from(draws()):
        unfolded, sweep = peaks(swept, few)
        (advance,) = peaks(advanced, few)
    core = programs(run.cell, run.inputs, run.start, run.options["backend"])
    return Costs(
        sweep=sweep.higher(deltas(core, run.inputs, run.start)),
        unfold=unfolded,
        advance=advance,
        state=state_bytes(run.start),
        gradients=sum(p.nbytes for p in owned),
        core=held(core),
        on_cpu=run.inputs.device.type == "cpu",
    )
