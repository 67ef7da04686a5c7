"""Dynamo and recurrent layers: `torch.compile` looks inside ours.

Dynamo breaks the graph at every instance of `torch.nn.RNN`, `GRU` and `LSTM`, by class and before
it has seen their `forward`, unless ``torch._dynamo.config.allow_rnn`` is set, for all of them at
once. Ours are such instances, so that ``isinstance`` in a model holds, and need no break: they are
one operator each. So the flag is set while one of ours is wrapped, and PyTorch's own stay as they
were.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def allow_in_graph(layer: type, allowed: Callable[[Any], bool]) -> None:
    """Let Dynamo trace instances of exactly this class, those that ``allowed`` says.

    Where this PyTorch's Dynamo dispatches otherwise, nothing happens: compiled models then break
    the graph at the layer, and are right all the same.
    """
    import torch._dynamo
    from torch._dynamo.variables import builder

    def wrap(found: Any, value: Any) -> Any:
        with torch._dynamo.config.patch(allow_rnn=allowed(value)):
            return found.wrap_module(value)

    try:
        tables = [builder.VariableBuilder._type_dispatch_impl(numpy) for numpy in (True, False)]
    except (AttributeError, TypeError):
        return
    for table in tables:
        table[layer] = wrap
