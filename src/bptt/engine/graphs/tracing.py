"""PyTorch's tracer under fake tensors: graphs of functions that run no code of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from bptt.engine.unsupported import Reason, Refusal, line_of_error


def fake_mode() -> FakeTensorMode:
    """Tensors with shapes and no data; real constants may join in."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    mode.cache_enabled = False  # it would keep the shapes of every trace, for good
    return mode


def first_stage(function: Callable[..., Any], given: list[Tensor]) -> GraphModule:
    """A function of fake tensors as a graph, nothing taken apart.

    Raises:
        Refusal: it cannot be traced.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), preserve_node_meta():
            return make_fx(
                function,
                decomposition_table={},
                _allow_non_fake_inputs=True,
                record_stack_traces=True,
            )(*given)
    except Refusal:
        raise
    except Exception as error:
        raise refusal_of(error) from error


def refusal_of(error: Exception) -> Refusal:
    """Why a graph cannot be traced."""
    line = line_of_error(error)
    if isinstance(error, DataDependentOutputException):
        return Refusal(Reason.CONTROL_FLOW, str(error.func), line)
    text = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {text[0] if text else ''}"
    if "in-place operation" in str(error):
        return Refusal(Reason.MUTATION, message, line)
    dependent = "data-dependent" in str(error).lower() or "GuardOnDataDependent" in message
    return Refusal(Reason.CONTROL_FLOW if dependent else Reason.UNTRACEABLE, message, line)
