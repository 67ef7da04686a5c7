"""The executor of step programs: hoisted parts in PyTorch, the loop in one autograd function.

`run` has the signature of `bptt.engine.backends.eager.run`. What belongs to one call and is no
differentiable tensor travels in a `Call`; `bptt.engine.runtime.loop` holds the arithmetic and knows
nothing of autograd, so that other registrations than `torch.autograd.Function` can wrap it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bptt.engine.runtime.compile_cache import Plan, plan_for
from bptt.engine.runtime.double_backward import differentiable
from bptt.engine.runtime.loop import Call, Ran, backward_loop, forward_loop
from bptt.engine.runtime.outputs import outputs_by
from bptt.engine.runtime.primals import primals_of
from bptt.engine.unsupported import Reason, Unsupported
from bptt.errors import CellError
from bptt.state import State, lane_mask, leaves, map_state, rebuild


def run(
    cell: nn.Module,
    inputs: Tensor,
    state: State,
    *,
    initial: State,
    reset: Tensor | None,
    lengths: Tensor | None,
    return_states: bool,
    clip: float | None,
    plan: Plan | None = None,
    ran: Ran | None = None,
) -> tuple[Tensor, State, State | None]:
    """Unfold ``cell`` over ``inputs`` by its step program; see `bptt.engine.backends.eager.run`.

    ``plan`` is what `plan_for` found for these arguments, if it was asked already; ``ran`` what
    `bptt.engine.runtime.loop.forward_loop` gave, if it was run already.

    Raises:
        CellError: the cell has no step program; names the operator and its line.
    """
    if plan is None:
        found = plan_for(cell, inputs, state, initial)
        if isinstance(found, Unsupported):
            raise CellError(f"{type(cell).__name__} cannot run natively: {found}.")
        plan = found
    count, output, single = plan.convention.leaves, plan.output, isinstance(state, Tensor)
    exposed = (output,) if isinstance(output, int) and not return_states else tuple(range(count))
    start = [leaf.resolve_neg() for leaf in leaves(state)]
    # The way back reads masks, lengths and what resets return to again: by then the caller may
    # have filled them anew. They are small.
    back = start
    if reset is not None:
        reset, back = _copied(reset), [_copied(leaf) for leaf in leaves(initial)]
    if lengths is not None:
        lengths = _copied(lengths)
    steps, batch = inputs.shape[0], inputs.shape[1]
    call = Call(plan, steps, batch, start, back, reset, lengths, clip, exposed, state, ran)
    primals = primals_of(plan, inputs)
    if not plan.wanted.any:
        results: Sequence[Tensor] = forward_loop(call, primals)[0]
    elif plan.wanted.state:
        results = _in_autograd(call, *primals, *start, *back)
    else:
        results = _in_autograd(call, *primals)
    last = results[-1] if single else rebuild(state, list(results[len(exposed) :]))
    states = rebuild(state, list(results[:count])) if len(exposed) == count else None
    if isinstance(output, int):
        outputs = results[0 if states is None else output]
        # Who changes one in place does not expect the other to change.
        outputs = outputs.clone() if return_states else outputs
    else:
        assert states is not None
        outputs = outputs_by(output, plan.output_tensors, states, start)
        # The outputs' own graph may have kept the states that it was made of.
        states = map_state(Tensor.clone, states) if return_states else None
    if lengths is not None:
        outputs = _until(lengths, outputs)
    return outputs, last, states if return_states else None


def hooked(plan: Plan, inputs: Tensor, state: State, initial: State) -> Unsupported | None:
    """Why a call stays with the Python loop for a hook on one of its tensors: autograd would call
    it without a gradient, where no result has one that reaches the tensor."""
    given = [*plan.tensors, inputs, *leaves(state), *leaves(initial)]
    if not any(t._backward_hooks for t in given if t.requires_grad):
        return None
    back = [*leaves(state), *leaves(initial)] if plan.wanted.state else []
    needed = [t.requires_grad for t in (*primals_of(plan, inputs), *back)]
    if plan.frame.reach.always(len(inputs), needed):
        return None
    return Unsupported(Reason.CONTEXT, "a hook on a tensor that not every gradient reaches")


def _copied(given: Tensor) -> Tensor:
    """A copy whose rows follow each other."""
    return given.clone(memory_format=torch.contiguous_format)


def _until(lengths: Tensor, outputs: Tensor) -> Tensor:
    """Outputs [T, B, ...], zero past each lane's length."""
    active = torch.arange(len(outputs))[:, None] < lengths
    return torch.where(lane_mask(active, outputs), outputs, torch.zeros_like(outputs))


class _Loop(torch.autograd.Function):
    """`forward_loop` and `backward_loop` in autograd; its tensors are the primals, then start and
    initial leaves if any of them needs a gradient."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, kept = call.ran or forward_loop(call, tensors[: call.plan.convention.primals])
        call.ran = None
        ctx.call, ctx.count = call, len(tensors)
        # What autograd would not save may be changed before the way back.
        saved: list[Tensor | None] = list(tensors)
        ctx.aside = aside = []
        for i in call.plan.convention.unread:
            if i < len(tensors):
                aside.append((i, tensors[i], _version(tensors[i])))
                saved[i] = None
        ctx.save_for_backward(*saved, *kept)
        # What is saved is the parameter itself: `parameter.data = ...` would change what it holds.
        ctx.memory = [
            (i, t.detach()) for i, t in enumerate(tensors) if t.requires_grad and t.is_leaf
        ]
        ctx.set_materialize_grads(False)
        exposed = len(call.exposed)
        results[:exposed] = shown = [states.data for states in results[:exposed]]
        ctx.changes = [_changes(states) for states in shown]
        # Spikes and masks need none in the loop: what refuses tensors that do takes them.
        quiet = call.plan.frame.reach.quiet(call, ctx.needs_input_grad[1:])
        if quiet:
            ctx.mark_non_differentiable(*[results[i] for i in quiet])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        call, count, needed = ctx.call, ctx.count, ctx.needs_input_grad[1:]
        held = ctx.saved_tensors
        tensors, kept = list(held[:count]), held[count:]
        for place, tensor, _ in ctx.aside:
            tensors[place] = tensor
        if torch.is_grad_enabled() or _transformed(grads):
            _check_versions(ctx.aside)
            return (None, *differentiable(call, tensors, kept, needed, grads))
        if any(map(_VERSION, ctx.changes)):
            _check_versions(ctx.aside)
            kept = _anew(call, tensors, kept)
        for place, memory in ctx.memory:
            tensors[place] = memory
        received = call.plan.frame.reach.received(call, needed, grads)
        found = backward_loop(call, tensors, kept, received, grads)
        if received is needed:
            return (None, *found)
        return (None, *(g if r else None for g, r in zip(found, received, strict=True)))


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; what is made in inference mode does not count that."""
    return -1 if tensor.is_inference() else tensor._version


def _check_versions(aside: Sequence[tuple[int, Tensor, int]]) -> None:
    """What unfolds once more reads all tensors again, as they were."""
    for _, tensor, version in aside:
        if _version(tensor) != version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor {list(tensor.shape)} that an unfolding was given is "
                f"at version {tensor._version}; expected version {version} instead. Gradients of "
                "gradients, and those after outputs were changed in place, unfold once more."
            )


def _transformed(grads: Sequence[Any]) -> bool:
    """Whether gradients come many at once, or with tangents: no memory that the core can read."""
    if torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0:
        return True
    return any(grad is not None and _BATCHED(grad) for grad in grads)


def _changes(states: Tensor) -> Tensor:
    """A tensor whose version counts how often ``states`` were changed in place; it keeps none of
    their memory."""
    counter = states.detach()
    counter.data = _NOTHING
    return counter


def _anew(call: Call, tensors: Sequence[Tensor], kept: Sequence[Tensor]) -> Sequence[Tensor]:
    """What was kept, from a second run: who changed the outputs in place (a ReLU may) changed
    the states in it, which are the same memory. To copy them for every caller would cost more."""
    n = call.plan.convention.leaves
    start = [states[0] for states in kept[:n]]
    again = Call(
        call.plan,
        call.steps,
        call.batch,
        start,
        call.initial,
        call.reset,
        call.lengths,
        call.clip,
        (),
        call.nested,
    )
    return forward_loop(again, tensors[: call.plan.convention.primals])[1]


_NOTHING = torch.empty(0)
_VERSION = attrgetter("_version")
_BATCHED = torch._C._functorch.is_legacy_batchedtensor  # of `is_grads_batched`


# What `torch.autograd.Function.apply` does besides serves transforms of `torch.func`, under which
# no call comes here, and takes as long as a small step.
_in_autograd: Callable[..., Sequence[Tensor]] = super(torch.autograd.Function, _Loop).apply
