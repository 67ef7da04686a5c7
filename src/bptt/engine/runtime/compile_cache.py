"""Which executor a call gets: its step program, or the reason why it has none.

A program belongs to the form of a step (`bptt.engine.frontend`), with the gradients that are
wanted; the tensors of a call are bound to it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks

from bptt.engine._torch_compat import (
    alone,
    function_modes,
    generators_kept,
    is_compiling,
    unlogged,
)
from bptt.engine.backends.base import Kernel
from bptt.engine.backends.cpu.calling_convention import CallingConvention, convention_of
from bptt.engine.backends.cpu.executable import Executable, executable_of
from bptt.engine.backends.cpu.kernel import Native
from bptt.engine.backends.interpreted import Interpreted
from bptt.engine.frontend.module_state import GLOBAL_HOOKS
from bptt.engine.graphs.nodes import LANES
from bptt.engine.ir.program import Code, StepProgram
from bptt.engine.ir.wanted import Wanted
from bptt.engine.passes.pipeline import derive, recorded
from bptt.engine.passes.prologue_epilogue import Frame, frame_of
from bptt.engine.unsupported import Reason, Refusal, Unsupported, line_of_error
from bptt.state import State, leaves

if TYPE_CHECKING:
    from bptt.engine.frontend import Found
    from bptt.engine.frontend.graph import RowFunction
    from bptt.engine.graphs.hoist import Partition


SHORT = 24
"""Operators, of all steps, that PyTorch runs in the time that it takes to find a foreign cell's
plan."""
NARROW, MANY, CROWD = 8, 400, 40_000
"""Of instructions less wide than ``NARROW`` PyTorch makes one operator over all rows, as in sums
over many small groups. Where there are ``MANY``, and with all lanes a ``CROWD``, it is as fast."""

PASSING = 16 << 20
"""Bytes of an array inside the hoisted part for which it takes longer to get the memory, page by
page, than to compute it."""


@dataclass(eq=False)
class Trust:
    """What is known of how right a program is (`bptt.engine.runtime.verify`).

    Attributes:
        program, beside: whether it, and its runs side by side, gave what the Python loop gives.
        verdict: how it did not.
        unstable: calls in which the Python loop's own numbers changed meanwhile.
    """

    program: bool
    beside: bool
    verdict: Unsupported | None = None
    unstable: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """A step program ready to run.

    Attributes:
        program: the program.
        frame: what PyTorch runs before and after the loop.
        kernel: what runs its loop.
        wanted: which gradients the program gives.
        output: the leaf that is the output of a step, or the function that makes it.
        convention: what the loop knows beforehand.
        executable: its form for one call of the core each way, None if it has none.
        constants: tensors that the step makes of nothing: the last of its sources.
        trust: whether it may be used yet.
        least: the fewest steps for which PyTorch takes longer than it takes to find the plan.
        most: the most lanes for which PyTorch takes longer.
        passing: the bytes for each step and lane of the largest array that only passes while the
            hoisted part runs, or the function of the output; 0 if none is much larger than what
            they give.
        tensors, output_tensors: what the step, and the output's function, read in this call.
    """

    program: StepProgram
    frame: Frame
    kernel: Kernel
    wanted: Wanted
    output: int | RowFunction
    convention: CallingConvention
    executable: Executable | None
    constants: tuple[Tensor, ...]
    trust: Trust
    least: int
    most: int
    passing: int
    tensors: list[Tensor]
    output_tensors: list[Tensor]

    def outrun(self, steps: int, lanes: int) -> str | None:
        """Why the Python loop is as fast for so many steps and lanes; None if it is not."""
        if steps < self.least:
            return f"with so few steps it is as fast; from {self.least} steps on the core runs it"
        if lanes > self.most:
            return f"with so many lanes it is as fast; up to {self.most} lanes the core runs it"
        return None

    def at_once(self, steps: int, lanes: int) -> int:
        """How many steps to run at once: all, or fewer where what the hoisted part passes through
        would be large."""
        each = self.passing * lanes
        if each * steps < PASSING:
            return steps
        return max(self.least, PASSING // 4 // each)

    @property
    def workspace(self) -> int:
        """The bytes that the core keeps to work in, from the latest runs."""
        return self.kernel.workspace + (
            0 if self.executable is None else self.executable.core.workspace
        )

    def bound(self, tensors: list[Tensor], output_tensors: list[Tensor]) -> Plan:
        """The same for the tensors of another call."""
        made = object.__new__(Plan)  # `replace` would take as long as a small step
        vars(made).update(
            vars(self), tensors=[*tensors, *self.constants], output_tensors=output_tensors
        )
        return made


def plan_for(
    cell: nn.Module, inputs: Tensor, state: State, initial: State, kernel: str = "native"
) -> Plan | Unsupported:
    """The plan for these arguments.

    Args:
        cell: the cell.
        inputs: [T, B, ...].
        state, initial: leaves [B, n].
        kernel: "native" or "interpreted".
    """
    from bptt.engine.frontend import find, refuse, refused

    # What is refused for good stays so in any mode: a small step takes little longer than to ask.
    why = None if is_compiling() else refused(cell, inputs, state)
    why = why or context_of_call() or (core_missing() if kernel == "native" else None)
    if why is not None:
        return why
    given = [state] if type(state) is Tensor else leaves(state)
    grad = torch.is_grad_enabled()
    needs_state = grad and (
        any(s.requires_grad for s in given)
        or (initial is not state and any(s.requires_grad for s in leaves(initial)))
    )
    found = None
    try:
        for tensor in (inputs, *given):
            check_plain(tensor)
        with unseen():
            found = find(cell, inputs, state, initial)
        return plan_of(found, inputs, state, grad and inputs.requires_grad, needs_state, kernel)
    except Refusal as refusal:
        why = refusal.unsupported
    except Exception as error:  # whatever goes wrong: the Python loop has the right numbers
        why = unexpected(error)
    if found is not None:
        refuse(cell, inputs, state, why)
    return why


def plan_of(
    found: Found,
    inputs: Tensor,
    state: State,
    input_too: bool,
    state_too: bool,
    kernel: str = "native",
) -> Plan:
    """The plan of a form that was found, with gradients of input and state if they are wanted.

    Raises:
        Refusal: there is none.
    """
    form, grad = found.form, torch.is_grad_enabled()
    key = (kernel, input_too, grad and form.needs_gradient, state_too, inputs.dim())
    plan = form.plans.get(key)
    if plan is None:
        # To keep the generators would undo what other threads draw meanwhile.
        kept = nullcontext() if form.built_in else generators_kept()
        with alone(), kept, unseen(), unlogged():
            plan = form.plans.get(key)
            if plan is None:
                plan = form.plans[key] = _made(found, inputs, state, key)
    if isinstance(plan, Unsupported):
        raise Refusal.of(plan)
    if plan.trust.verdict is not None:
        raise Refusal.of(plan.trust.verdict)
    bound: Plan = plan.bound(found.tensors, found.output_tensors)
    return bound


def passes_of(
    cell: nn.Module, inputs: Tensor, state: State, initial: State
) -> list[tuple[str, str]]:
    """What each pass made of a call's step, which is made anew: the pass, and the step as text. The
    arguments are those of `plan_for`, which has found a plan for them."""
    from bptt.engine.frontend import find

    grad = torch.is_grad_enabled()
    needs_state = grad and any(s.requires_grad for s in (*leaves(state), *leaves(initial)))
    found = find(cell, inputs, state, initial)
    needs = grad and found.form.needs_gradient
    key = ("native", grad and inputs.requires_grad, needs, needs_state, inputs.dim())
    with alone(), unseen(), unlogged(), recorded() as record:
        _made(found, inputs, state, key)
    return record


def context_of_call() -> Unsupported | None:
    """Modes of PyTorch under which a call must stay a sequence of ordinary operators."""
    if is_compiling():  # first: what is asked before would be guarded
        return Unsupported(Reason.CONTEXT, "torch.compile")
    if any(GLOBAL_HOOKS):
        return Unsupported(Reason.HOOKS, "a hook on all modules")
    if not (_is_pytorchs(nn.Module.__call__) and _is_pytorchs(nn.Module._call_impl)):
        return Unsupported(Reason.HOOKS, "another function in place of torch.nn.Module.__call__")
    if torch.is_autocast_enabled("cpu"):
        return Unsupported(Reason.CONTEXT, "torch.autocast")
    if torch._C._functorch.maybe_current_level() is not None:
        return Unsupported(Reason.CONTEXT, "a transform of torch.func")
    if forward_ad._current_level >= 0:
        return Unsupported(Reason.CONTEXT, "forward-mode differentiation")
    if torch._C._len_torch_dispatch_stack() > 0 or torch._C._get_tracing_state() is not None:
        return Unsupported(Reason.CONTEXT, "a tracer or counter of operators")
    if torch._C._len_torch_function_stack() > 0 and function_modes():
        return Unsupported(Reason.CONTEXT, "a TorchFunctionMode")
    return None


def _is_pytorchs(call: Any) -> bool:
    """Whether a way to call modules is PyTorch's, or what its tracers put there for a while."""
    name = getattr(call, "__globals__", {}).get("__name__", "")
    return bool(name.startswith("torch."))


def unseen() -> AbstractContextManager[Any]:
    """What a trace computes is none of the caller's business: checkpoints count what is saved."""
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
        return nullcontext()
    return saved_tensors_hooks(_same, _same)


def _same(value: Any) -> Any:
    return value


def core_missing() -> Unsupported | None:
    """Whether the compiled core is not there."""
    return _MISSING


_MISSING = (
    Unsupported(Reason.CORE, "bptt._core")
    if importlib.util.find_spec("bptt._core") is None
    else None
)


def _made(found: Found, inputs: Tensor, state: State, key: Any) -> Plan | Unsupported:
    kernel, any_input, any_source, any_state, _ = key
    form = found.form
    try:
        for tensor in (*found.tensors, *found.output_tensors):
            check_plain(tensor)
        traced, parts = form.traced()
        output = form.output()
        tensors = [*found.tensors, *traced.constants]
        flags = tuple(any_source and t.requires_grad for t in tensors)
        wanted = Wanted(flags, any_input, any_source or any_input or any_state, any_state)
        dtype = leaves(state)[0].dtype

        def make(step: Partition, kernel: str) -> Plan:
            program = derive(form.name, traced.names, step, dtype, wanted)
            made: Kernel = Native(program) if kernel == "native" else Interpreted(program)
            frame = frame_of(program, step, (*flags, any_input))
            convention = convention_of(program, frame, made, step.time_floats(dtype))
            executable = executable_of(program, frame, made, convention, tensors, inputs)
            trust = Trust(form.built_in, form.built_in)
            constants = traced.constants
            operators = sum(n.op == "call_function" for n in traced.graph.graph.nodes)
            if not isinstance(output, int):
                operators += len(output.code.text.splitlines())
            least = 1 if form.built_in else 1 + SHORT // max(1, operators)
            return Plan(
                program,
                frame,
                made,
                wanted,
                output,
                convention,
                executable,
                constants,
                trust,
                least,
                _most(program, operators),
                max(
                    _passing(None if executable is not None else program.hoisted),
                    _passing(None if isinstance(output, int) else output.code),
                ),
                [],
                [],
            )

        sunk = parts.sunk
        if sunk is not None:
            plan = _runs_whole(lambda: make(sunk, "native"))
            if plan is not None:
                return plan if kernel == "native" else make(sunk, kernel)
        return make(parts.step, kernel)
    except Refusal as refusal:
        return refusal.unsupported
    except Exception as error:  # whatever goes wrong: the Python loop has the right numbers
        return unexpected(error)


def _most(program: StepProgram, operators: int) -> int:
    """The most lanes for which the core is faster than PyTorch, which runs so many operators."""
    both = [step.instructions for step in (program.forward, program.backward) if step is not None]
    narrow = sum(i.result.width < NARROW for instructions in both for i in instructions)
    many = narrow >= max(MANY, 2 * NARROW * operators)
    return max(1, CROWD // narrow) if many else sys.maxsize


def _passing(code: Code | None) -> int:
    """Of what PyTorch runs for all steps at once; see `Plan`."""
    if code is None:
        return 0
    *nodes, end = code.graph.graph.nodes
    sizes = {n: _row_bytes(n.meta.get("val")) for n in nodes if n.op == "call_function"}
    given = sum(size for n, size in sizes.items() if n in end.all_input_nodes)
    most = max(sizes.values(), default=0)
    return most if most > 2 * given else 0


def _row_bytes(value: Any) -> int:
    """Of an array with a row for each step and lane."""
    rows = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == LANES[0]
    return value.numel() // LANES[0] * value.element_size() if rows else 0


def unexpected(error: Exception) -> Unsupported:
    """An error of the engine's own as a reason."""
    return Unsupported(Reason.UNEXPECTED, f"{type(error).__name__}: {error}", line_of_error(error))


def _runs_whole(form: Callable[[], Plan]) -> Plan | None:
    """A form of the program, if the core is there and runs all of it."""
    if core_missing() is not None:
        return None
    try:
        plan = form()
    except Refusal:
        return None
    return plan if plan.executable is not None else None


def check_plain(tensor: Tensor) -> None:
    """Refuse what the core cannot read.

    Raises:
        Refusal: the tensor is not plain, or elsewhere than in the CPU's memory.
    """
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.device.type != "cpu":
        what = type(tensor).__name__ if not plain else f"a tensor on {tensor.device}"
        raise Refusal(Reason.DEVICE, what)
