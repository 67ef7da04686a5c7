"""Every private name of PyTorch that the front end uses, in one place.

Each function here says what it stands for. `tests/engine/test_torch_compat.py` tests each of them
alone, so that a release of PyTorch which changes one is told by name.
"""

from __future__ import annotations

import builtins
import logging
import os
import random
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import RLock, get_ident
from typing import Any
from weakref import finalize

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

_NUMBERS = count()
_IMPORTING = RLock()


def _dynamo() -> Any:
    """`torch._dynamo`, imported when it is first needed: that takes a second."""
    global _LOADED
    if _LOADED is None:
        with _IMPORTING:
            import torch._dynamo

            _LOADED = torch._dynamo
    return _LOADED


_LOADED: Any = None


def alone() -> Any:
    """A lock, held while a step is captured or a program is made of it: PyTorch's tracers keep
    state of their own for a whole process. It is Dynamo's, as other threads may compile, too."""
    return getattr(_dynamo().convert_frame, "compile_lock", _IMPORTING)


def function_modes() -> bool:
    """Whether a mode that may change what functions do is entered: a default device may stay, if it
    is the CPU."""
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext

    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]  # PyTorch's
    return not all(isinstance(mode, DeviceContext) and mode.device.type == "cpu" for mode in modes)


_CAPTURING: list[int] = []
"""The threads that capture a step, the innermost last."""


def is_compiling() -> bool:
    """`torch.compiler.is_compiling()`, which tells of the whole process, for this thread: it is not
    what another one captures."""
    if not torch.compiler.is_compiling():
        return False
    if torch.compiler.is_dynamo_compiling():  # this very line is being traced
        return True
    return _CAPTURING[-1:] in ([], [get_ident()])  # asked once: another thread may end its capture


# A child of `os.fork` has one thread: it would wait for ever for what another one holds or imports.
_HELD: list[Any] = []


def _before_fork() -> None:
    _IMPORTING.acquire()
    _HELD.append(_IMPORTING if _LOADED is None else alone())
    _HELD[-1].acquire()


def _after_fork() -> None:
    _HELD.pop().release()
    _IMPORTING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def capture_missing() -> str | None:
    """Why this PyTorch cannot capture a step; None if it can."""
    config = _dynamo().config
    if config.disable:
        return "torch._dynamo.config.disable is set"
    for name in ("side_effect_replay_policy", "skip_nnmodule_hook_guards"):
        if not hasattr(config, name):
            return f"torch {torch.__version__} has no torch._dynamo.config.{name}"
    return None


_DISABLED = os.environ.get("TORCHDYNAMO_DISABLE", "0") == "1"


def capture_is_off() -> bool:
    """Whether `torch.compile` would run a function as it is, or refuse to compile."""
    stance = _dynamo().eval_frame._stance
    unsafe = getattr(stance, "skip_guard_eval_unsafe", False)
    return _DISABLED or stance.stance != "default" or stance.backend is not None or unsafe


class CompiledStep:
    """`torch.compile(function, backend=backend, fullgraph=True)` on a code object of its own.

    Dynamo counts and keeps what it compiled by code object, and puts names into the function's
    globals: with both of its own, a function's compiled forms are gone when it is. Side effects of
    the function are errors, and hooks on modules are guarded; both are settings that matter while
    it is compiled, so they are set there alone.

    A call that fits something compiled already asks Dynamo's evaluator directly: what
    `torch.compile` does around it takes three times as long as the guards.
    """

    def __init__(self, function: types.FunctionType, backend: Callable[..., Any]) -> None:
        dynamo = _dynamo()
        config = dynamo.config
        code = function.__code__.replace(co_name=f"{function.__name__}_{next(_NUMBERS)}")
        own = types.FunctionType(code, {"__builtins__": builtins}, function.__name__)
        with alone():  # it imports, and a fork meanwhile would leave a lock held for ever
            context: Any = dynamo.optimize(backend, nopython=True)
        inner = context.callback

        def compile_frame(*args: Any) -> Any:
            with (
                alone(),
                generators_kept(),
                _untimed(),
                _as_if_run(),
                unlogged(),
                warnings.catch_warnings(),
                config.patch({n: v for n, v in _SETTINGS.items() if hasattr(config, n)}),
            ):
                warnings.simplefilter("ignore")
                _CAPTURING.append(get_ident())
                try:
                    return inner(*args)
                finally:
                    _CAPTURING.pop()

        def look_up(frame: Any, *rest: Any) -> Any:
            if frame.f_code is code:
                raise _Missed
            return inner(frame, *rest)  # of what the compiled form itself calls

        for name in dir(inner):
            if name.startswith("_torchdynamo"):
                setattr(compile_frame, name, getattr(inner, name))
                setattr(look_up, name, getattr(inner, name))
        context.callback = compile_frame
        self._plain, self._look_up = own, look_up
        self._set_evaluator: Callable[..., Any] = torch._C._dynamo.eval_frame.set_eval_frame
        self._compiled: Callable[..., Any] = context(own)
        self._used = False
        finalize(self, _forget, code).atexit = False

    @property
    def forms(self) -> int:
        """How many compiled forms there are, which a call is compared with in turn."""
        entries = torch._C._dynamo.eval_frame._debug_get_cache_entry_list
        return len(entries(self._plain.__code__))

    def __call__(self, *arguments: Any) -> Any:
        """What the compiled function gives."""
        if self._used:
            evaluate = self._set_evaluator  # a builtin: a function's frame would be looked up, too
            prior = evaluate(self._look_up)
            try:
                return self._plain(*arguments)
            except _Missed:
                pass
            finally:
                evaluate(prior)
        result = self._compiled(*arguments)
        self._used = True
        return result


@contextmanager
def _untimed() -> Iterator[None]:
    """Dynamo times the guards of a new form, for a log, and empties the processor's caches before:
    a fifth of the time of a capture."""
    guards = _dynamo().guards
    name = "profile_guard_manager"
    before = getattr(guards, name, None)
    if before is None:
        yield
        return
    setattr(guards, name, lambda *_: 0.0)
    try:
        yield
    finally:
        setattr(guards, name, before)


@contextmanager
def unlogged() -> Iterator[None]:
    """What a trace on stand-ins cannot run is a reason, and told as one: PyTorch's log would show a
    traceback of it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _as_if_run() -> Iterator[None]:
    """Code that asks whether it is being compiled is told that it is not: its step must be the
    one that the Python loop would run."""
    from torch._dynamo import convert_frame
    from torch._dynamo.variables import torch as functions

    told: dict[Any, Any] = getattr(functions, "tracing_state_functions", dict)()
    asked = [f for f in told if getattr(f, "__name__", "") in _ASKED and told[f] is True]
    with convert_frame.compile_lock:  # no other compilation is told so
        try:
            told.update(dict.fromkeys(asked, False))
            yield
        finally:
            told.update(dict.fromkeys(asked, True))


_ASKED = ("is_compiling", "is_dynamo_compiling")


def _forget(code: types.CodeType) -> None:
    """Drop the compiled forms of a code object: Dynamo notes of each which code it was made of, and
    with that keeps both."""
    torch._C._dynamo.eval_frame.reset_code(code)
    _dynamo().utils.guard_failures.pop(code, None)


LIMIT = 64
"""So many forms of one function may be compiled."""
_SETTINGS: dict[str, Any] = {
    "side_effect_replay_policy": "error",
    "skip_nnmodule_hook_guards": False,
    "suppress_errors": False,
    "error_on_recompile": False,  # which a first call is to Dynamo, where another cell's form is
    "recompile_limit": LIMIT,
    "accumulated_recompile_limit": 1 << 30,
    "fake_tensor_cache_enabled": False,  # which keeps the sizes of every capture
    "record_runtime_overhead": False,  # which takes longer than the guards
    "install_free_tensors": False,  # they are a call's own
}
"""Of Dynamo, while a step is captured."""


class _Missed(Exception):
    """Nothing that was compiled fits a call."""


def side_effects() -> tuple[str, ...]:
    """What the function that Dynamo captures right now does besides its graph: names of attributes
    that it changes, "hook" for hooks on tensors that it was given; to be asked by a backend."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    effects = InstructionTranslator.current_tx().output.side_effects
    named = [name for changed in effects.store_attr_mutations.values() for name in changed]
    return (*named, *("hook" for _ in effects.tensor_hooks))


_OF_CLASSES = frozenset(
    ("TYPE_MATCH", "CLASS_MATCH", "ID_MATCH", "CLOSURE_MATCH", "FUNCTION_MATCH")
)


_OF_ENVIRONMENT = (os.getenv, getattr(os, "getenvb", os.getenv))


def read_of_python() -> tuple[frozenset[type], bool]:
    """What the step that Dynamo captures right now reads besides tensors and modules: the classes
    of objects, whose code Dynamo does not guard; and whether it reads the environment. To be asked
    by a backend."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    output = InstructionTranslator.current_tx().output
    found: set[type] = set()
    environment = False
    for guard in output.guards:
        environment |= "environ" in guard.name
        if guard.create_fn_name() not in _OF_CLASSES:
            continue
        try:
            value = guard.originating_source.get_value(
                {"G": output.root_tx.f_globals, "L": output.root_tx.f_locals}, {}, {}
            )
        except Exception:  # what has no value of its own has no class either
            continue
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            value = value.__self__
        environment |= any(value is one for one in _OF_ENVIRONMENT)  # `==` may be anything
        found.add(value if isinstance(value, type) else type(value))
    return frozenset(found), environment


def with_any_number_of_lanes(tensor: Tensor) -> Tensor:
    """The same tensor, whose first size a capture keeps open, and no other one, also where calls
    differ in it."""
    _dynamo().maybe_mark_dynamic(tensor, 0)
    for dim in range(1, tensor.dim()):
        _dynamo().mark_static(tensor, dim)
    return tensor


def origin_of(placeholder: Node) -> Any:
    """The source of a captured graph's input: ``.name`` is a Python expression."""
    return placeholder.meta["grapharg"].source


def example_of(node: Node) -> Any:
    """The fake value of a captured graph's node."""
    return node.meta["example_value"]


def hint_of(size: Any) -> int:
    """The size, at the capture, of what may be symbolic; it adds no guard."""
    return int(size) if isinstance(size, int) else int(size.node.hint)


def is_open(size: Any) -> bool:
    """Whether a size is still symbolic: nothing asked for its number during the capture."""
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def forgetful(module: GraphModule) -> GraphModule:
    """A captured graph that keeps nothing of the tensors and classes that it was captured with.

    Fake tensors know the real ones by weak references, with which `torch.utils.swap_tensors`
    refuses a tensor; nodes know the classes of modules, and a graph keeps nodes that were erased.
    """
    for node in module.graph.nodes:
        value = node.meta.get("example_value")
        mode = getattr(value, "fake_mode", None)
        if mode is not None:
            converter = mode.fake_tensor_converter.meta_converter
            for memo in (
                converter.tensor_memo,
                converter.storage_memo,
                converter.describer.lookup_tensor,
                converter.describer.lookup_storage,
            ):
                memo.clear()
        trace = node.meta.get("stack_trace")
        node.meta.clear()
        node.meta["stack_trace"] = trace
    fresh = Graph()
    fresh.output(fresh.graph_copy(module.graph, {}))
    return GraphModule(module, fresh)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever draws inside, PyTorch's, Python's and NumPy's generators are as before."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])


@contextmanager
def outside_of_modes() -> Iterator[None]:
    """Outside of every mode and transform that is at work: programs are made of plain tensors."""
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
    from torch._guards import tracing
    from torch.utils._python_dispatch import _disable_current_modes

    with (
        _disable_current_modes(),
        temporarily_clear_interpreter_stack(),
        tracing(None),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        yield
