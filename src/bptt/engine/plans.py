"""Which executor a cell gets: its step program, traced once, or the reason why it has none.

Programs are kept for as long as their cell lives, by what the trace depends on
(`bptt.engine.guard`), the shapes and dtypes of input and state, and which gradients are wanted.
"""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks

from bptt.engine.eager import check_step
from bptt.engine.guard import Guard, check_hooks
from bptt.engine.kernels import Interpreted, Kernel, Native
from bptt.engine.program import StepProgram
from bptt.engine.reasons import Ineligible, Reason, Refusal
from bptt.engine.recipe import Recipe, recipe_of
from bptt.engine.sources import Source, read_all, sources_of
from bptt.engine.whole import Whole, whole_of
from bptt.errors import BpttError
from bptt.state import State, leaves

if TYPE_CHECKING:
    from bptt.engine.around import Around
    from bptt.engine.partition import Partition
    from bptt.engine.usual import Usual


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which gradients a program is for: of each source, of the input, of anything at all, of a
    state."""

    sources: tuple[bool, ...]
    input: bool
    any: bool
    state: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """A step program ready to run.

    Attributes:
        program: the program.
        around: what PyTorch runs before and after the loop.
        kernel: what runs its loop.
        sources: the cell's tensors.
        wanted: which gradients the program gives.
        output: the leaf that is the output of a step, or None if the cell computes it
            (each row alone, so for all steps at once).
        recipe: what the loop knows beforehand.
        whole: its form for one call of the core each way, None if it has none.
        views: transposes of weights, kept from call to call.
    """

    program: StepProgram
    around: Around
    kernel: Kernel
    sources: tuple[Source, ...]
    wanted: Wanted
    output: int | None

    recipe: Recipe
    whole: Whole | None

    views: dict[int, tuple[Tensor, int, Tensor]]

    def transposed(self, i: int, head: Tensor) -> Tensor:
        """The transpose of a head, the same view as long as it is the same memory."""
        if type(head) not in (Tensor, nn.Parameter):  # it stands for another, without memory
            return head.detach().t()
        known = self.views.get(i)
        if known is not None and known[0] is head and known[1] == head.data_ptr():
            return known[2]
        view = head.detach().t()
        self.views[i] = (head, head.data_ptr(), view)
        return view

    @property
    def workspace(self) -> int:
        """The bytes that the core keeps to work in, from the latest runs."""
        return self.kernel.workspace + (0 if self.whole is None else self.whole.core.workspace)

    def read(self) -> list[Tensor]:
        """The cell's tensors as they are now."""
        return [s.read() for s in self.sources]


_VARIANTS = 64
"""So many forms of one cell are kept."""


class Known:
    """What is kept of one cell."""

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.by_key: dict[Any, dict[Any, Plan | Ineligible]] = {}
        self.current: dict[Any, Plan | Ineligible] = {}
        self.analysed: dict[Any, Any] = {}
        self.usual: dict[Any, Usual] = {}

    def refresh(self, cell: nn.Module) -> None:
        """The cell was changed, or is new."""
        self.guard = Guard(cell)
        self.usual.clear()
        if len(self.by_key) >= _VARIANTS:  # an attribute that is new in every call
            self.by_key.clear()
            self.analysed.clear()
        self.current = self.by_key.setdefault(self.guard.key, {})


KNOWN: WeakKeyDictionary[nn.Module, Known] = WeakKeyDictionary()
# The core's programs must be gone before the core is: nanobind counts what is left when Python
# ends.
atexit.register(KNOWN.clear)


def plan_for(
    cell: nn.Module, inputs: Tensor, state: State, initial: State, kernel: str = "native"
) -> Plan | Ineligible:
    """The plan for these arguments, from the cache if the cell is unchanged.

    Args:
        cell: the cell.
        inputs: [T, B, ...].
        state, initial: leaves [B, n].
        kernel: "native" or "interpreted".
    """
    context = context_of_call()
    if context is not None:
        return context
    known = KNOWN.get(cell)
    if known is None:
        known = KNOWN.setdefault(cell, Known())
    if known.guard is None or not known.guard.holds():
        known.refresh(cell)
    assert known.guard is not None
    given = [state] if type(state) is Tensor else leaves(state)
    grad = torch.is_grad_enabled()
    needs = grad and (
        any(s.requires_grad for s in given)
        or (initial is not state and any(s.requires_grad for s in leaves(initial)))
    )
    key = (
        kernel,
        inputs.shape[2:],
        inputs.dtype,
        inputs.device.type,
        grad and inputs.requires_grad,
        grad and known.guard.needs_gradient,
        needs,
        *[(s.shape[1:], s.dtype, s.device.type, type(s)) for s in given],
        type(inputs),
    )
    found = known.current.get(key)
    if found is None:
        with _unseen():
            found = known.current[key] = _make(cell, known, inputs, state, key)
    return found


def plan_made(
    cell: nn.Module, inputs: Tensor, state: State, needs: tuple[bool, bool, bool]
) -> Plan | Ineligible:
    """A plan made anew, in whatever mode PyTorch is: for a caller that keeps it itself.

    ``needs`` tells whether the input, any parameter, and any state need gradients.
    """
    known = KNOWN.setdefault(cell, Known())
    known.refresh(cell)
    place = [(s.shape[1:], s.dtype, s.device.type, type(s)) for s in leaves(state)]
    head = ("native", inputs.shape[2:], inputs.dtype, inputs.device.type)
    return _make(cell, known, inputs, state, (*head, *needs, *place))


def context_of_call() -> Ineligible | None:
    """Modes of PyTorch under which a call must stay a sequence of ordinary operators."""
    if torch.is_autocast_enabled("cpu"):
        return Ineligible(Reason.CONTEXT, "torch.autocast")
    if torch._C._functorch.maybe_current_level() is not None:
        return Ineligible(Reason.CONTEXT, "a transform of torch.func")
    if forward_ad._current_level >= 0:
        return Ineligible(Reason.CONTEXT, "forward-mode differentiation")
    if torch.compiler.is_compiling():
        return Ineligible(Reason.CONTEXT, "torch.compile")
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return Ineligible(Reason.CONTEXT, "a tracer or counter of operators")
    return None


def _unseen() -> AbstractContextManager[Any]:
    """What a trace computes is none of the caller's business: checkpoints count what is saved."""
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
        return nullcontext()
    return saved_tensors_hooks(_same, _same)


def _same(value: Any) -> Any:
    return value


def core_missing() -> Ineligible | None:
    """Whether the compiled core is not there."""
    if importlib.util.find_spec("bptt._core") is None:
        return Ineligible(Reason.CORE, "bptt._core")
    return None


def _make(
    cell: nn.Module, known: Known, inputs: Tensor, state: State, key: Any
) -> Plan | Ineligible:
    kernel, any_input, any_param, any_state = key[0], key[4], key[5], key[6]
    missing = core_missing() if kernel == "native" else None
    if missing is not None:
        return missing
    try:
        check_hooks(cell)
        sources = sources_of(cell)
        with torch.enable_grad():
            tensors = read_all(sources)
        _check_plain([inputs, *leaves(state), *tensors])
        from bptt.engine.around import around
        from bptt.engine.build import analyse, assemble

        place = (known.guard.key if known.guard else None, key[1:4], key[7:])
        if place not in known.analysed:
            known.analysed[place] = analyse(cell, sources, tensors, inputs, state)
        parts = known.analysed[place]
        flags = tuple(any_param and t.requires_grad for t in tensors)
        wanted = Wanted(flags, any_input, any_param or any_input or any_state, any_state)
        dtype = leaves(state)[0].dtype

        def form(step: Partition, kernel: str) -> Plan:
            program = assemble(cell, sources, step, dtype, wanted)
            made: Kernel = Native(program) if kernel == "native" else Interpreted(program)
            frame = around(program, step, (*flags, any_input))
            recipe = recipe_of(program, frame, made, step.time_floats(dtype))
            whole = whole_of(program, frame, made, recipe, tensors, inputs)
            return Plan(program, frame, made, sources, wanted, parts.output, recipe, whole, {})

        sunk = None if parts.sunk is None else _runs_whole(lambda: form(parts.sunk, "native"))
        if sunk is not None:
            return sunk if kernel == "native" else form(parts.sunk, kernel)
        return form(parts.step, kernel)
    except Refusal as refusal:
        return refusal.ineligible
    except BpttError as error:
        raise _of_a_plain_step(cell, inputs, state, error) from None


def _runs_whole(form: Callable[[], Plan]) -> Plan | None:
    """A form of the program, if the core is there and runs all of it."""
    if core_missing() is not None:
        return None
    try:
        plan = form()
    except Refusal:
        return None
    return plan if plan.whole is not None else None


def _of_a_plain_step(cell: nn.Module, inputs: Tensor, state: State, traced: BpttError) -> BpttError:
    """The error with which the cell itself breaks its contract: that of the trace speaks of the
    tracer's own odd number of lanes."""
    try:
        with torch.no_grad():
            if len(inputs):
                check_step(cell, cell(inputs[0], state), state)
    except BpttError as error:
        return error
    return traced


def _check_plain(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
        if not plain or tensor.device.type != "cpu":
            what = type(tensor).__name__ if not plain else f"a tensor on {tensor.device}"
            raise Refusal(Reason.DEVICE, what)
