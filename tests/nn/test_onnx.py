"""Models with a layer export to ONNX as PyTorch's own do, and run in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bptt.nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CASES: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("GRU", {"bidirectional": True, "batch_first": True}),
    ("LSTM", {"num_layers": 2}),
]


def run(path: Path, *inputs: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, feed)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=["RNN", "GRU", "LSTM"])
def test_standard_operators(
    kind: str, options: dict[str, Any], dynamo: bool, tmp_path: Path
) -> None:
    layer = getattr(bptt.nn, kind)(4, 5, **options)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), layer).eval()
    x, path = torch.randn(6, 3, 4), tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, dynamo=dynamo, verbose=False)
    found = run(path, x)
    output, last = model(x)
    last = last if isinstance(last, tuple) else (last,)
    for one, other in zip(found, (output, *last), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    # PyTorch's newer exporter has no translation of its plain recurrence, and writes its steps.
    assert kind in operators or (kind == "RNN" and dynamo)
