"""What the front end takes from PyTorch's private parts, one by one: a release that changes one of
them is told by name."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config, guards
from torch.fx import GraphModule

from bptt.engine import _torch_compat as compat


class Add(nn.Module):
    """Adds a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.w


def step(module: Any, x: Tensor) -> Any:
    return module(x)


class Seen:
    """A backend that runs the graph, and what it was asked."""

    def __init__(self, look: Callable[[GraphModule], Any] = lambda module: None) -> None:
        self.modules: list[GraphModule] = []
        self.found: list[Any] = []
        self.look = look

    def __call__(self, module: GraphModule, _: Any) -> Any:
        self.modules.append(module)
        self.found.append(self.look(module))
        return module.forward


def rows(lanes: int = 3) -> Tensor:
    return compat.with_any_number_of_lanes(torch.ones(lanes, 4))


def test_a_step_can_be_captured_here() -> None:
    assert compat.capture_missing() is None
    assert not compat.capture_is_off()
    with torch.compiler.set_stance("force_eager"):
        assert compat.capture_is_off()
    assert not compat.capture_is_off()


def test_a_compiled_step_is_compiled_once_for_any_number_of_lanes() -> None:
    seen, module = Seen(), Add()
    compiled = compat.CompiledStep(step, seen)
    for lanes in (3, 5, 3, 9):
        assert torch.equal(compiled(module, rows(lanes)), torch.full((lanes, 4), 2.0))
    assert len(seen.modules) == 1
    assert torch.equal(compiled(Add(), rows()), torch.full((3, 4), 2.0))
    assert len(seen.modules) == compiled.forms == 1


def test_hooks_that_are_added_later_are_seen() -> None:
    seen, module = Seen(), Add()
    compiled = compat.CompiledStep(step, seen)
    assert compiled.forms == 0
    compiled(module, rows())
    module.register_forward_hook(lambda module, given, made: made * 3)
    assert torch.equal(compiled(module, rows()), torch.full((3, 4), 6.0))
    assert compiled.forms == 2


def test_each_step_has_forms_of_its_own() -> None:
    seen, other = Seen(), Seen()
    module = Add()
    for backend in (seen, other):
        compat.CompiledStep(step, backend)(module, rows())
    assert (len(seen.modules), len(other.modules)) == (1, 1)


def test_side_effects_are_told_and_refused() -> None:
    def counting(module: Any, x: Tensor) -> Tensor:
        module.calls += 1
        return module(x)

    seen, module = Seen(lambda _: compat.side_effects()), Add()
    with pytest.raises(RuntimeError, match="side effects"):
        compat.CompiledStep(counting, seen)(module, rows())
    assert seen.found == [("calls",)]
    assert module.calls == 0


def test_hooks_on_inputs_are_told() -> None:
    def hooked(module: Any, x: Tensor) -> Any:
        x.register_hook(lambda gradient: gradient * 0)
        return module(x)

    seen = Seen(lambda _: compat.side_effects())
    compat.CompiledStep(hooked, seen)(Add(), rows().requires_grad_())
    assert seen.found == [("hook",)]


def test_origins_examples_and_sizes() -> None:
    def look(module: GraphModule) -> dict[str, Any]:
        given = module.graph.find_nodes(op="placeholder")
        return {
            compat.origin_of(node).name: (
                [compat.hint_of(n) for n in value.shape],
                compat.is_open(value.shape[0]),
            )
            for node in given
            if isinstance(value := compat.example_of(node), Tensor)
        }

    seen = Seen(look)
    compat.CompiledStep(step, seen)(Add(), rows(7))
    assert seen.found[0]["L['x']"] == ([7, 4], True)
    assert seen.found[0]["L['module']._parameters['w']"] == ([4], False)


def test_a_forgetful_graph_is_the_same_graph() -> None:
    seen, module = Seen(), Add()
    compat.CompiledStep(step, seen)(module, rows())
    kept = compat.forgetful(seen.modules[0])
    assert all(set(node.meta) <= {"stack_trace"} for node in kept.graph.nodes)
    seen.modules.clear()
    torch.utils.swap_tensors(module.w, nn.Parameter(torch.zeros(4)))


def test_what_was_compiled_goes_with_its_step() -> None:
    graphs: list[weakref.ref[Any]] = []

    def backend(module: Any, _: Any) -> Any:
        graphs.append(weakref.ref(module))
        return module.forward

    module = Add()  # lives on, as do its classes
    compiled = compat.CompiledStep(step, backend)
    compiled(module, rows())
    with torch.no_grad():
        compiled(module, rows())
    del compiled
    gc.collect()
    assert [graph() for graph in graphs] == [None, None]


def test_dynamo_is_as_it_was_after_a_capture() -> None:
    before = guards.profile_guard_manager, config.fake_tensor_cache_enabled
    compat.CompiledStep(step, Seen())(Add(), rows())
    assert before == (guards.profile_guard_manager, config.fake_tensor_cache_enabled)


def test_generators_are_kept() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with compat.generators_kept():
        torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (random.getstate(), np.random.get_state()[1].tolist())


def test_outside_of_modes_tensors_are_plain() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        assert isinstance(torch.ones(2), FakeTensor)
        with compat.outside_of_modes():
            assert type(torch.ones(2)) is Tensor
            assert torch.is_grad_enabled()
