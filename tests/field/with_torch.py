"""PyTorch's own module tests, ``test_grad`` and ``test_gradgrad`` with its inputs, on our layers.

The two tests are those of PyTorch's ``test/test_modules.py``, which wheels do not hold; the inputs
and the checks are in the wheel. Batched gradients are checked too, as PyTorch does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import ModuleInput, module_db
from torch.testing._internal.common_utils import freeze_rng_state, gradcheck, gradgradcheck
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

import bptt

from .common import main

# [adapt]
KINDS = {"RNN": bptt.nn.RNN, "GRU": bptt.nn.GRU, "LSTM": bptt.nn.LSTM}


# [/adapt]
THEIRS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}


def inputs(name: str) -> list[ModuleInput]:
    """All cases of one layer."""
    info = next(info for info in module_db if info.module_cls is THEIRS[name])
    options: Any = {"requires_grad": True, "training": True}
    return list(info.module_inputs_func(info, "cpu", torch.float64, **options))


def trouble(kind: type[nn.Module], case: ModuleInput, check: Any) -> str:
    """Why a case does not pass, empty if it does."""
    given = case.constructor_input
    module = kind(*given.args, **given.kwargs).to(torch.float64)
    args = case.forward_input.args
    flat, spec = tree_flatten((*args, *module.parameters()))

    def call(*values: Tensor) -> list[Any]:
        found = tree_unflatten(list(values), spec)
        with freeze_rng_state():
            return tree_leaves(module(*found[: len(args)]))

    try:
        check(call, flat)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def all_pass(name: str, check: Any) -> None:
    """Those that PyTorch's layer passes, ours must pass."""
    torch.manual_seed(0)
    cases = inputs(name)
    found = [(case, why) for case in cases if (why := trouble(KINDS[name], case, check))]
    failed = [why for case, why in found if not trouble(THEIRS[name], case, check)]
    assert not failed, f"{len(failed)} of {len(cases)} cases fail, the first by {failed[0]}"


TESTS = {"test_grad": gradcheck, "test_gradgrad": gradgradcheck}
CHECKS: dict[str, Callable[[], None]] = {
    f"{name}, `{test}`": partial(all_pass, name, check)
    for name in KINDS
    for test, check in TESTS.items()
}

if __name__ == "__main__":
    main("torch", {}, checks=CHECKS)
