"""The loop as operators of `torch.library`: what `torch.compile` and `torch.export` see.

Three operators, registered when this module is imported:

- ``bptt::unfold``: a whole unfolding. It is composite: a tracer that looks inside finds the hoisted
  products as PyTorch's own operators, to be fused and differentiated as any others, and one loop.
- ``bptt::loop``: the step program over time. Opaque, with a fake kernel and a gradient.
- ``bptt::loop_backward``: its gradients.

A cell travels by name, a program by the name of its cell and what the trace depends on. Plain eager
calls do not come this way: `bptt.engine.runtime.native` wraps the same arithmetic with less
overhead.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bptt.engine._torch_compat import outside_of_modes
from bptt.engine.frontend import find
from bptt.engine.runtime.compile_cache import Plan, plan_of
from bptt.engine.runtime.loop import Call, backward_loop, forward_loop
from bptt.engine.runtime.primals import primals_of
from bptt.engine.unsupported import Refusal
from bptt.errors import CellError
from bptt.state import initial_state

# Cells by name ------------------------------------------------------------------------------------

_MAKERS: list[Callable[[str], nn.Module | None]] = []


def name_cells(maker: Callable[[str], nn.Module | None]) -> None:
    """Let ``maker`` give cells for names of its own, in any process: exports stay usable."""
    _MAKERS.append(maker)


def _named(name: str) -> nn.Module:
    found = None
    for maker in _MAKERS:
        found = maker(name) if found is None else found
    if found is None:
        raise CellError(f"no cell is known as {name!r}: the program was made for one that is gone.")
    return found


# Programs by name ---------------------------------------------------------------------------------


LAYOUT = 1
"""Part of the names of cells that outlive a process. Compilers keep graphs on disk, in which
`bptt::loop` gives so many tensors in their order: change it when that changes."""


class _Key(NamedTuple):
    """What the name of a program says."""

    cell: str
    shape: tuple[int, ...]
    dtype: str
    needs: tuple[bool, ...]
    input: bool
    state: bool

    def text(self) -> str:
        """As one word; `_Key.read` is the inverse."""
        shape = "x".join(map(str, self.shape))
        needs = "".join(str(int(flag)) for flag in self.needs)
        return f"{self.cell};{shape};{self.dtype};{needs};{int(self.input)}{int(self.state)}"

    @staticmethod
    def read(text: str) -> _Key:
        """The key of a name."""
        cell, shape, dtype, needs, rest = text.split(";")
        sizes = tuple(int(size) for size in shape.split("x") if size)
        return _Key(
            cell, sizes, dtype, tuple(map("1".__eq__, needs)), rest[0] == "1", rest[1] == "1"
        )


_PLANS: dict[str, Plan] = {}
atexit.register(_PLANS.clear)  # the core's programs go before the core does


def _plan(name: str) -> Plan:
    found = _PLANS.get(name)
    if found is None:
        key = _Key.read(name)
        with outside_of_modes():
            found = _PLANS[name] = _made(key)
    return found


def _made(key: _Key) -> Plan:
    cell = _named(key.cell)
    inputs = torch.zeros((1, 1, *key.shape), dtype=getattr(torch, key.dtype))
    state = initial_state(cell, 1, like=inputs)
    with torch.set_grad_enabled(any((*key.needs, key.input, key.state))):
        try:
            return plan_of(find(cell, inputs, state), inputs, state, key.input, key.state)
        except Refusal as refusal:
            why = refusal.unsupported
            raise CellError(f"{type(cell).__name__} cannot be unfolded natively: {why}.") from None


# The operators ------------------------------------------------------------------------------------

_OPERATORS: Any = torch.library.Library("bptt", "DEF")  # type: ignore[no-untyped-call]  # untyped in torch
_OPERATORS.define(
    "unfold(str cell, Tensor inputs, Tensor[] state, Tensor[] initial, Tensor[] sources, "
    "Tensor? reset, Tensor? lengths, float? clip) -> Tensor[]"
)


def _unfold(
    cell: str,
    inputs: Tensor,
    state: list[Tensor],
    initial: list[Tensor],
    sources: list[Tensor],
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
) -> list[Tensor]:
    """The states [T + 1, B, n] of all leaves, the start among them.

    ``sources`` are the cell's tensors in the order of
    `bptt.engine.frontend.builtin.named_tensors`; ``initial`` may be empty where nothing is reset.
    """
    grad = torch.is_grad_enabled()
    key = _Key(
        cell,
        tuple(inputs.shape[2:]),
        str(inputs.dtype).removeprefix("torch."),
        tuple(grad and s.requires_grad for s in sources),
        grad and inputs.requires_grad,
        grad and any(s.requires_grad for s in [*state, *initial]),
    )
    name = key.text()
    plan = _plan(name)
    primals = primals_of(plan.bound(list(sources), []), inputs)
    results: list[Tensor] = torch.ops.bptt.loop(
        name, primals, state, initial or state, reset, lengths, clip, inputs.shape[0]
    )
    return list(results[: len(state)])


_OPERATORS.impl("unfold", _unfold, "CompositeImplicitAutograd")


class _Nothing:
    """A kernel that computes nothing: the loop on tensors that have no values, for their shapes."""

    read_back: tuple[int, ...] = ()
    workspace = 0

    def forward(self, *_: Any) -> None:
        """See `bptt.engine.backends.base.Kernel`."""

    def reverse(self, *_: Any) -> None:
        """See `bptt.engine.backends.base.Kernel`."""


def _idle(plan: Plan) -> Plan:
    """The same plan, computing nothing."""
    executable = plan.executable and replace(plan.executable, core=_Nothing())
    return replace(plan, kernel=_Nothing(), executable=executable)


def _call(
    plan: Plan,
    steps: int,
    start: list[Tensor],
    initial: list[Tensor],
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
) -> Call:
    every, lanes = tuple(range(len(start))), start[0].shape[0]
    if reset is not None:
        reset, initial = reset.contiguous(), [leaf.contiguous() for leaf in initial]
    return Call(plan, steps, lanes, start, initial, reset, lengths, clip, every, tuple(start))


@torch.library.custom_op(
    "bptt::loop",
    mutates_args=(),
    schema="(str program, Tensor[] primals, Tensor[] start, Tensor[] initial, Tensor? reset, "
    "Tensor? lengths, float? clip, SymInt steps) -> Tensor[]",
)
def _loop(
    program: str,
    primals: list[Tensor],
    start: list[Tensor],
    initial: list[Tensor],
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
    steps: int,
) -> list[Tensor]:
    """The states [T + 1, B, n] of all leaves, then what the gradient needs.

    ``primals`` are what `bptt.engine.runtime.primals.primals_of` gives.
    """
    plan = _plan(program)
    results, kept = forward_loop(_call(plan, steps, start, initial, reset, lengths, clip), primals)
    if not plan.wanted.any:
        return [torch.cat([s.unsqueeze(0), r]) for s, r in zip(start, results, strict=False)]
    return _apart(kept, primals)


@_loop.register_fake
def _loop_fake(
    program: str,
    primals: list[Tensor],
    start: list[Tensor],
    initial: Any,
    reset: Any,
    lengths: Any,
    clip: Any,
    steps: int,
) -> list[Tensor]:
    plan = _idle(_plan(program))
    results, kept = forward_loop(_call(plan, steps, start, initial, reset, lengths, clip), primals)
    if not plan.wanted.any:
        return [r.new_empty((steps + 1, *r.shape[1:])) for r in results[: len(start)]]
    return [k.new_empty(k.shape) for k in kept]


@torch.library.custom_op(
    "bptt::loop_backward",
    mutates_args=(),
    schema="(str program, Tensor[] primals, Tensor[] initial, Tensor[] kept, Tensor?[] gradients, "
    "Tensor? reset, Tensor? lengths, float? clip) -> Tensor[]",
)
def _loop_backward(
    program: str,
    primals: list[Tensor],
    initial: list[Tensor],
    kept: list[Tensor],
    gradients: list[Tensor | None],
    reset: Tensor | None,
    lengths: Tensor | None,
    clip: float | None,
) -> list[Tensor]:
    """From the gradients of the states, those of primals, start and initial leaves.

    Of these, the ones that `_receives` names.
    """
    plan, n = _plan(program), len(initial)
    start = [k[0] for k in kept[:n]]
    call = _call(plan, len(kept[0]) - 1, start, initial, reset, lengths, clip)
    tensors = [*primals, *start, *initial] if plan.wanted.state else primals
    given = [None if g is None else g[1:] for g in gradients] + [None] * n
    found = list(backward_loop(call, tensors, kept, [True] * len(tensors), given))
    if plan.wanted.state:
        for j, gradient in enumerate(gradients, start=len(primals)):
            if gradient is not None:  # the start is the first of the states
                found[j] = found[j] + gradient[0]
    pairs = zip(tensors, found, _receives(plan, reset is not None), strict=True)
    return _apart(
        [torch.zeros_like(t) if g is None else g.reshape(t.shape) for t, g, r in pairs if r], kept
    )


@_loop_backward.register_fake
def _loop_backward_fake(
    program: str,
    primals: list[Tensor],
    initial: list[Tensor],
    kept: Any,
    gradients: Any,
    reset: Any,
    lengths: Any,
    clip: Any,
) -> list[Tensor]:
    plan = _plan(program)
    tensors = [*primals, *initial, *initial] if plan.wanted.state else primals
    receives = _receives(plan, reset is not None)
    return [
        t.new_empty(t.shape) for t, receiving in zip(tensors, receives, strict=True) if receiving
    ]


def _receives(plan: Plan, resets: bool) -> list[bool]:
    """Which of primals, start and initial leaves get a gradient."""
    after, n = plan.program.after, len(plan.program.states)
    assert after is not None
    if plan.frame.inline:
        primals = [*plan.wanted.sources, plan.wanted.input]
    else:
        primals = [*after.has_gradient, *[place is not None for place in after.times]]
    return [*primals, *[True] * n, *[resets] * n] if plan.wanted.state else primals


def _apart(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The same values, contiguous and in storages of their own: what an operator may return."""
    seen = {other.untyped_storage().data_ptr() for other in others}
    result = []
    for tensor in tensors:
        place, count = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        whole = tensor.is_contiguous() and count == tensor.nbytes and place not in seen
        seen.add(place)
        result.append(tensor if whole else tensor.clone(memory_format=torch.contiguous_format))
    return result


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    program, primals, start, initial, reset, lengths, clip, _ = inputs
    ctx.program, ctx.clip, ctx.counts = program, clip, [len(primals), len(start)]
    ctx.optional = [reset is not None, lengths is not None]
    optional = [o for o in (reset, lengths) if o is not None]
    ctx.save_for_backward(*primals, *initial, *output, *optional)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grads: list[Tensor | None]) -> Any:
    held, plan, (primals, n) = list(ctx.saved_tensors), _plan(ctx.program), ctx.counts
    lengths = held.pop() if ctx.optional[1] else None
    reset = held.pop() if ctx.optional[0] else None
    found = torch.ops.bptt.loop_backward(
        ctx.program,
        held[:primals],
        held[primals : primals + n],
        held[primals + n :],
        grads[:n],
        reset,
        lengths,
        ctx.clip,
    )
    each, receives = iter(found), _receives(plan, reset is not None)
    every = [next(each) if receiving else None for receiving in receives] + [None] * (2 * n)
    of_heads, of_start, of_initial = (
        every[:primals],
        every[primals : primals + n],
        every[primals + n :][:n],
    )
    return None, of_heads, of_start, of_initial, None, None, None, None


_loop.register_autograd(_gradients, setup_context=_keep)
