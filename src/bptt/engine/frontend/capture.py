"""A user's step, captured by TorchDynamo: what `torch.compile` makes of it, with its guards.

A compiled step is called once for each unfolding, on stand-ins for input and state. Dynamo looks at
all that the step read when it was captured (attributes, globals, closures, modes, strides, ...) and
calls what was made of the graph that fits, with the tensors of this call. That does not compute the
step: it notes which graph it was, and its tensors. No code of the user's runs, nothing is put into
the user's modules, and the stand-ins are nobody else's, so that no two inputs of the graph are one.
"""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Callable, Sequence
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from bptt.engine import _torch_compat as compat
from bptt.engine.frontend.explain import refusal_in
from bptt.engine.frontend.graph import Kind, Step
from bptt.engine.frontend.guards import Classes
from bptt.engine.frontend.leaf import Leaf
from bptt.engine.frontend.numbers import Numbers
from bptt.engine.graphs.nodes import where_is
from bptt.engine.graphs.tracing import refusal_of as tracing_refusal
from bptt.engine.unsupported import Reason, Refusal, Unsupported

_LANES, _SOURCE, _SCALAR, _UNUSED = -2, -3, -4, -5
"""Roles of a graph's inputs; what has a row a lane has its number."""


_LOOKED_THROUGH = (functools._lru_cache_wrapper, collections.ChainMap)
"""Dynamo traces what is behind these, and does not guard what they keep, or look at first."""


class Captured:
    """One graph that Dynamo made, and how to call it.

    Args:
        module: the graph.

    Attributes:
        refusal: what keeps it from being used, if anything does.
        is_known: whether it was called, so that what it returns is known.
        listing: the graph as text: two that read alike do the same.
        order: the results that the step returned, leaf by leaf; what it only passed on is ``~row``.
            None if it returned no state.
        returned: what it returned, with a `Leaf` in place of each tensor.
        forms: what its user keeps of it.
        kinds, environment: the classes of objects that it read, and whether it read the
            environment.
        sources: the tensors that it reads besides rows and numbers, as Dynamo calls them.
        served_by: the graph whose program serves its calls: itself, or of one lane that of several
            (`bptt.engine.frontend.one_lane`); None until that is known.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.refusal: Unsupported | None = None
        self.is_known = False
        used = [n for n in module.graph.nodes if n.op != "placeholder" or n.users]
        origins = [compat.origin_of(n).name for n in used if n.op == "placeholder"]
        self.listing = "\n".join([*(str(node.format_node()) for node in used), *origins])
        self.forms: dict[Any, Any] = {}
        self.kinds, self.environment = compat.read_of_python()
        for kind in self.kinds:
            if issubclass(kind, _LOOKED_THROUGH):
                raise Refusal(Reason.MUTATION, f"what a {kind.__name__} keeps or finds")
        self.sources: tuple[str, ...] = ()
        self.served_by: Captured | None = None
        self.order: tuple[int, ...] | None = None
        self.returned: Any = None
        self._leaves: tuple[Leaf, ...] = ()
        self._roles: tuple[int, ...] = ()
        self._names: tuple[str, ...] = ()
        self._sources: tuple[int, ...] = ()
        self._numbers = Numbers()
        self._read()
        outputs = self.module.graph.output_node().args[0]
        assert isinstance(outputs, (tuple, list))
        self.marks = tuple(_Mark(i) for i in range(len(outputs)))

    def _read(self) -> None:
        placeholders = list(self.module.graph.find_nodes(op="placeholder"))
        roles = []
        for node in placeholders:
            origin = compat.origin_of(node)
            value = compat.example_of(node)
            role = _role(node, origin, value)
            if role is None and isinstance(value, torch.SymInt) and not node.users:
                role = _UNUSED  # a stride, say, that only the capture looked at
            if role is None:
                raise Refusal(
                    Reason.UNTRACEABLE, f"{_readable(origin)}, which changes from call to call"
                )
            if role == _SOURCE and not all(
                isinstance(n, int) for n in (*value.shape, *value.stride())
            ):
                raise Refusal(
                    Reason.UNTRACEABLE,
                    f"{_readable(origin)}, whose sizes or strides change from call to call",
                )
            roles.append(role)
        self._roles = tuple(roles)
        self._names = tuple(_readable(compat.origin_of(n)) for n in placeholders)
        self._sources = tuple(i for i, r in enumerate(roles) if r == _SOURCE)
        self.sources = tuple(compat.origin_of(placeholders[i]).name for i in self._sources)
        _check_nodes(self.module)
        self._numbers = Numbers.of(self.module, [r == _SCALAR for r in roles])
        self._check_lanes(placeholders)
        ends: Any = self.module.graph.output_node().args[0]
        self._leaves = tuple(Leaf.of(compat.example_of(n), _JOB.lanes) for n in ends)

    def _check_lanes(self, placeholders: list[Node]) -> None:
        """Refuse a step that was captured for one number of lanes, but for a single lane."""
        for node, role in zip(placeholders, self._roles, strict=True):
            if role >= 0:
                size = compat.example_of(node).shape[0]
                if not compat.is_open(size) and int(size) > 1:
                    raise Refusal(Reason.LANES, "Python code that counts the lanes")

    def called(self, returned: Any, rows: Sequence[Tensor]) -> None:
        """Take in what the first call returned, and forget what was needed at the capture alone.

        ``rows`` are the stand-ins that it was called with.
        """
        order: list[int] = []

        def walk(value: Any) -> Any:
            if isinstance(value, _Mark):
                order.append(value.index)
                return self._leaves[value.index] if self._leaves else value
            if isinstance(value, Tensor):
                place = next((i for i, row in enumerate(rows) if row is value), None)
                if place is None:
                    raise Refusal(Reason.CAPTURED, "a tensor returned as the state")
                order.append(~place)
                return Leaf.of(value, _JOB.lanes)
            if isinstance(value, tuple) and value:
                parts = [walk(part) for part in value]
                return tuple(parts) if type(value) is tuple else type(value)(*parts)
            raise Refusal(Reason.UNTRACEABLE, f"a {type(value).__name__} returned in the state")

        if self.refusal is None:
            try:
                self.returned = walk(returned)
                self.order = tuple(order)
            except Refusal as refusal:
                self.refusal = refusal.unsupported
        self.module = compat.forgetful(self.module)
        self.is_known = True  # last: other threads do not wait for what comes before

    def tensors(self, flat: Sequence[Any]) -> list[Tensor]:
        """The sources among the inputs of a call, and the numbers of this call."""
        found = [flat[i] for i in self._sources]
        return [*found, *self._numbers.values(self.module, flat)] if self._numbers else found

    @property
    def numbers(self) -> tuple[str, ...]:
        """The numbers that change from call to call, which `tensors` ends with."""
        return self._numbers.names

    def step(self, tensors: Sequence[Tensor], rows: Sequence[Kind]) -> Step:
        """The graph as a step; ``rows`` are the kinds of what has a row a lane: the input, if there
        is one, and the state's leaves."""
        module, roles, sources, order = self.module, self._roles, self._sources, self.order
        numbers = self._numbers
        assert order is not None

        def run(lanes: int, given: Sequence[Tensor], entering: Sequence[Tensor]) -> list[Tensor]:
            flat: list[Any] = [None] * len(roles)
            for i, tensor in zip(sources, given, strict=False):
                flat[i] = tensor
            for i, role in enumerate(roles):
                if role == _LANES:
                    flat[i] = lanes
                elif role >= 0:
                    flat[i] = entering[role]
            known = numbers.in_place(module, given[len(sources) :])
            results = _Careful(module, lanes).run(*flat, initial_env=known)
            return [results[i] if i >= 0 else entering[~i] for i in order]

        names = (*(self._names[i] for i in sources), *numbers.names)
        return Step(run, names, tuple(map(Kind.of, tensors)), tuple(rows))


class _Mark:
    """Stands for a result of a graph in what the step returns."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class _Careful(Interpreter):
    """Runs a graph; refuses to take apart what is counted by lanes, which may be very many."""

    _TAKING_APART = frozenset(
        ("unbind", "split", "chunk", "tensor_split", "tolist", "__iter__", "unsafe_chunk", "iter")
    )

    def __init__(self, module: GraphModule, lanes: int) -> None:
        super().__init__(module)
        self._lanes = lanes

    def run_node(self, n: Node) -> Any:
        """One operator; an error names the line of the user's that called it."""
        name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", "")
        if n.op in ("call_function", "call_method") and name in self._TAKING_APART and n.args:
            first = n.args[0]
            value = self.env.get(first) if isinstance(first, Node) else None
            if isinstance(value, Tensor) and value.dim():
                place = {"unbind": 1, "__iter__": 9}.get(name, 2)
                dim = n.kwargs.get("dim", n.args[place] if len(n.args) > place else 0)
                if not isinstance(dim, int) or value.shape[dim] == self._lanes:
                    raise Refusal(Reason.LANES, f"{name} over the lanes", where_is(n))
        try:
            return super().run_node(n)
        except Refusal:
            raise
        except Exception as error:
            told = tracing_refusal(error).unsupported
            raise Refusal(told.reason, told.operator, where_is(n)) from error


_JOB = local()


def made() -> int:
    """How many graphs this thread has captured."""
    count: int = getattr(_JOB, "made", 0)
    return count


def _backend(module: GraphModule, _: Any) -> Callable[..., Any]:
    for effect in compat.side_effects():
        if effect == "hook":
            raise Refusal(Reason.HOOKS, "a hook on a tensor that the step was given")
        raise Refusal(Reason.MUTATION, f"attribute {effect}")
    _JOB.made = made() + 1
    captured = Captured(module)  # what is refused here is not called: not even once

    def noted(*flat: Any) -> tuple[_Mark, ...]:
        _JOB.captured, _JOB.flat = captured, flat
        return captured.marks

    return noted


def _step(cell: Any, leafs: str, input: Any, state: Any) -> Any:
    # To read it guards it: Dynamo guards whether a tensor needs a gradient, but not `is_leaf`.
    return cell(input, state) if leafs else None


def _output(cell: Any, leafs: str, state: Any) -> Any:
    return cell.output(state) if leafs else None


class Steps:
    """The compiled ``(cell, leafs, input, state) -> new state`` and ``(cell, leafs, state) ->
    output`` of cells of one structure; the letters of ``leafs`` tell which tensors are leaves."""

    def __init__(self) -> None:
        missing = compat.capture_missing()
        if missing is not None:
            raise Refusal(Reason.UNTRACEABLE, missing)
        self.classes: dict[frozenset[type], Classes] = {}
        self.step = compat.CompiledStep(_step, _backend)  # type: ignore[arg-type]  # a function
        self.output = compat.CompiledStep(_output, _backend)  # type: ignore[arg-type]  # a function

    @property
    def forms(self) -> int:
        """How many compiled forms there are of either."""
        return max(self.step.forms, self.output.forms)

    def serves(self) -> bool:
        """Whether a cell may take them that has not yet: Dynamo does not guard the code of the
        classes that were read."""
        return self.forms < compat.LIMIT // 2 and all(c.hold() for c in self.classes.values())


def call(
    compiled: Callable[..., Any], cell: nn.Module, rows: Sequence[Tensor], *arguments: Any
) -> tuple[Captured, tuple[Any, ...]]:
    """Call a compiled step of a cell: the graph that fits, and its inputs.

    ``arguments`` are the step's, made of the stand-ins ``rows``.

    Raises:
        Refusal: it cannot be captured.
    """
    _JOB.captured = _JOB.flat = None
    _JOB.lanes = rows[0].shape[0]
    _JOB.paths, _JOB.first = _paths(arguments[-1]), len(arguments) - 1
    leafs = "".join(["l" if row.is_leaf else "c" for row in rows])
    try:
        returned = compiled(cell, leafs, *arguments)
        captured, flat = _JOB.captured, _JOB.flat
    except Exception as error:
        raise refusal_in(error) from error
    finally:
        _JOB.captured = _JOB.flat = None
    if captured is None:
        raise Refusal(Reason.UNTRACEABLE, "a step that computes nothing")
    if not captured.is_known:
        with compat.alone():
            if not captured.is_known:
                captured.called(returned, rows)
    if captured.refusal is not None:
        raise Refusal.of(captured.refusal)
    return captured, flat


def _paths(state: Any) -> dict[str, int]:
    """Where Dynamo finds each leaf of a state."""
    found: dict[str, int] = {}
    count = 0

    def walk(value: Any, names: list[str]) -> None:
        nonlocal count
        if isinstance(value, Tensor):
            found.update(dict.fromkeys(names, count))
            count += 1
            return
        fields = getattr(value, "_fields", ())
        for i, part in enumerate(value):
            ways = [f"[{i}]", *([f".{fields[i]}"] if fields else [])]
            walk(part, [name + way for name in names for way in ways])

    walk(state, [""])
    return found


def _role(node: Node, origin: Any, value: Any) -> int | None:
    """What an input of the graph is; None if it is nothing that a program can be given."""
    name = str(origin.name)
    if not isinstance(value, Tensor):
        rows = name.startswith(("L['input']", "L['state']")) and name.endswith(".size()[0]")
        return _LANES if rows and isinstance(value, torch.SymInt) else None
    if name == "L['input']":
        return 0
    if name.startswith("L['state']"):
        leaf = _JOB.paths.get(name.removeprefix("L['state']"))
        return None if leaf is None else leaf + _JOB.first
    if type(origin).__name__ == "RandomValueSource":
        return None
    if node.meta["grapharg"].pass_arg_as_tensor and not name.startswith("___from_numpy"):
        return _SCALAR
    return _SOURCE


def _readable(origin: Any) -> str:
    text = str(origin.name)
    parts = re.findall(r"\['([^']+)'\]|\.(\w+)|\[(\d+)\]", text.removeprefix("L['cell']"))
    words = [a or b or c for a, b, c in parts]
    kept = [w for w in words if w not in ("_parameters", "_buffers", "_modules")]
    return ".".join(kept) or text


_REFUSED = {
    "_set_grad_enabled": (Reason.AUTOGRAD, "torch.no_grad"),
    "_enter_inference_mode": (Reason.AUTOGRAD, "torch.inference_mode"),
    "_enter_autocast": (Reason.CONTEXT, "torch.autocast"),
}


def _check_nodes(module: GraphModule) -> None:
    """Refuse what a graph of operators would forget."""
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = getattr(node.target, "__name__", "")
        if name in ("sym_min", "sym_max"):
            raise Refusal(Reason.LANES, "the lesser or greater of the number of lanes and another")
        if "assert" in name:
            raise Refusal(Reason.CONTROL_FLOW, "assert", where_is(node))
        if name in _REFUSED:
            raise Refusal(*_REFUSED[name], where_is(node))
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise Refusal(Reason.AUTOGRAD, _of_higher_order(node), where_is(node))
        if name.startswith("wrapped_") and _is_random(name):
            raise Refusal(Reason.RANDOMNESS, f"numpy.random.{name[8:]}", where_is(node))


def _of_higher_order(node: Node) -> str:
    name = str(node.target)
    return "torch.autograd.Function" if "autograd_function" in name else name


def _is_random(name: str) -> bool:
    import numpy as np

    return hasattr(np.random, name.removeprefix("wrapped_"))
