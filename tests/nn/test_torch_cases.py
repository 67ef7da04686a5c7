"""PyTorch's own inputs for its recurrent modules, out of its own test suite, on ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt.nn

from .helpers import gradients, same, tensors

common = pytest.importorskip(
    "torch.testing._internal.common_modules",
    reason="PyTorch's test suite needs expecttest",
    exc_type=ImportError,
)
KINDS = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
NAMES = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")
INFOS = {i.module_cls.__name__: i for i in common.module_db if i.module_cls in KINDS}


def options(name: str) -> dict[str, Any]:
    """RNN and GRU also have packed inputs, if asked for."""
    return {"with_packed_sequence": True} if name in ("RNN", "GRU") else {}


def inputs(name: str, training: bool) -> list[Any]:
    found: list[Any] = INFOS[name].module_inputs_func(
        INFOS[name], "cpu", torch.float64, requires_grad=True, training=training, **options(name)
    )
    return list(found)


def cases() -> Iterator[Any]:
    for name in NAMES:
        for i in range(len(inputs(name, True))):
            yield pytest.param(name, i, id=f"{name}-{i}")


def built(name: str, case: Any) -> tuple[nn.Module, nn.Module]:
    given = case.constructor_input
    made = [
        getattr(package, name)(*given.args, **given.kwargs, dtype=torch.float64)
        for package in (nn, bptt.nn)
    ]
    made[1].load_state_dict(made[0].state_dict())
    return made[0], made[1]


@pytest.mark.parametrize(("name", "number"), list(cases()))
def test_forward_and_gradients(name: str, number: int) -> None:
    case = inputs(name, True)[number]
    theirs, ours = built(name, case)
    args = case.forward_input.args
    result = ours(*args)
    if case.reference_fn is not None and not isinstance(args[0], nn.utils.rnn.PackedSequence):
        same(result, case.reference_fn(ours, *args))
    expected = theirs(*args)
    same(result, expected)
    wanted = [t for t in tensors(args) if t.requires_grad]
    same(
        gradients(result, [*wanted, *ours.parameters()]),
        gradients(expected, [*wanted, *theirs.parameters()]),
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    """Finite differences, on each fourth case."""
    for case in inputs(name, True)[::4]:
        _, ours = built(name, case)
        args = case.forward_input.args
        flat = [t for t in tensors(args) if t.requires_grad and t.is_leaf]
        if isinstance(args[0], nn.utils.rnn.PackedSequence):
            continue
        names = [n for n, _ in ours.named_parameters()]

        def call(*values: Tensor, ours: Any = ours, args: Any = args, names: Any = names) -> Any:
            weights = dict(zip(names, values, strict=False))
            return tuple(tensors(torch.func.functional_call(ours, weights, args)))

        assert torch.autograd.gradcheck(call, (*ours.parameters(), *flat), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_many_gradients_at_once(name: str) -> None:
    """As PyTorch's own test_grad and test_gradgrad ask, on one case."""
    case = inputs(name, True)[0]
    _, ours = built(name, case)
    args = case.forward_input.args
    flat = [t for t in tensors(args) if t.requires_grad and t.is_leaf]

    def call(*_: Tensor) -> Any:
        return tuple(t for t in tensors(ours(*args)) if t.requires_grad)

    options: dict[str, Any] = {"check_batched_grad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(call, (*ours.parameters(), *flat), **options)
    assert torch.autograd.gradgradcheck(call, (*ours.parameters(), *flat), **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors(name: str, dtype: torch.dtype) -> None:
    found = INFOS[name].module_error_inputs_func(
        INFOS[name], "cpu", dtype, requires_grad=False, training=True
    )
    for case in found:
        given, call = case.module_error_input.constructor_input, case.module_error_input
        kind = getattr(bptt.nn, name)
        if case.error_on == common.ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                kind(*given.args, **given.kwargs)
            continue
        layer = kind(*given.args, **{"dtype": dtype, **given.kwargs})
        with pytest.raises(case.error_type, match=case.error_regex):
            layer(*call.forward_input.args, **call.forward_input.kwargs)
