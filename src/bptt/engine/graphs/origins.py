"""Which of the cell's own operators an operator of a derived graph comes from.

Decomposing and differentiating a step makes many operators of one. A refusal of one of them names
the operator that the user wrote, and its line.
"""

from __future__ import annotations

from typing import Any

import torch.fx.traceback as traceback
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.fx.traceback import NodeSource, NodeSourceAction
from torch.utils._pytree import tree_leaves


class OriginInterpreter(Interpreter):
    """Runs the graph of a step so that the operators of its gradient are traced with the metadata
    of the operator that they are the gradient of; `torch.fx.traceback.preserve_node_meta` must hold
    in the forward and in the backward pass."""

    def run_node(self, n: Node) -> Any:
        """One operator, and a note on the autograd nodes that it made."""
        result = super().run_node(n)
        meta = {key: n.meta[key] for key in ("stack_trace",) if key in n.meta}
        meta["from_node"] = [NodeSource(n, "gradient", NodeSourceAction.CREATE)]
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                _note(tensor.grad_fn, meta)
        return result


def _note(function: Any, meta: dict[str, Any]) -> None:
    """Note the metadata on the autograd nodes that one operator made; earlier ones have a note."""
    waiting = [function]
    while waiting:
        found = waiting.pop()
        if found is None or "origin" in found.metadata:
            continue
        found.metadata["origin"] = True
        found.register_prehook(lambda _: _set(meta))
        waiting.extend(before for before, _ in found.next_functions)


def _set(meta: dict[str, Any]) -> None:
    traceback.current_meta = dict(meta)


def origin_of(node: Node) -> str | None:
    """The name of the cell's own operator, as PyTorch prints it, without its overload."""
    sources = node.meta.get("from_node")
    target = str(getattr(sources[-1], "target", None) or "") if sources else ""
    if not target.startswith("aten."):
        return None
    return f"aten::{target.removeprefix('aten.').partition('.')[0]}"
