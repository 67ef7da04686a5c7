"""`accelerate` and `decelerate`: models that compute and train as before, and what stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bptt.nn
from bptt.errors import CellError
from bptt.nn import accelerate, decelerate

from .helpers import gradients, needs_core, same, tensors, unfolded_by_engine
from .models import MODELS, Alike, Translator


def trained(model: nn.Module, given: Any) -> list[Any]:
    """Outputs, gradients and weights over three updates, equal draws."""
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    seen = []
    for _ in range(3):
        result = model(given)
        loss = sum((t**2).mean() for t in tensors(result))
        optimizer.zero_grad()
        loss.backward()
        seen += [[t.detach().clone() for t in tensors(result)], loss.detach()]
        seen.append([p.grad.clone() for p in model.parameters()])
        optimizer.step()
    return [*seen, [p.detach().clone() for p in model.parameters()]]


@pytest.mark.parametrize(("make", "draw", "layers"), MODELS, ids=[m[0].__name__ for m in MODELS])
def test_models_train_alike(
    make: type[nn.Module], draw: Callable[[], Any], layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = make().double(), draw()
    fast = copy.deepcopy(model)
    report = accelerate(fast)
    assert len(report.replaced) == layers, str(report)
    expected = trained(model, given)
    seen = unfolded_by_engine(monkeypatch)
    found = trained(fast, given)
    same(found, expected, 1e-9)
    same(fast.eval()(given), model.eval()(given), 1e-9)
    assert seen or not bptt.nn._unfolded._CORE


def test_in_place() -> None:
    """Everything that was there is still the same object."""
    model = Translator().double()
    layer, parameters = model.encoder, list(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = []
    layer.register_forward_hook(lambda *_: called.append("forward"))
    layer.register_full_backward_hook(lambda *_: called.append("backward"))
    model.eval()
    accelerate(model)
    assert model.encoder is layer
    assert type(layer) is bptt.nn.GRU
    assert not layer.training
    assert layer.weight_hh_l0.dtype == torch.float64
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    before = layer.weight_hh_l0.detach().clone()
    model.train()(torch.randint(0, 9, (2, 5))).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight_hh_l0, before)
    assert called == ["forward", "backward"]
    decelerate(model)
    assert type(layer) is nn.GRU
    assert model.encoder is layer


def test_there_and_back() -> None:
    model = Translator().double()
    words = torch.randint(0, 9, (2, 5))
    expected, names = model(words), repr(model)
    for _ in range(2):
        assert len(accelerate(model).replaced) == 2
        same(model(words), expected)
        assert len(decelerate(model).replaced) == 2
        same(model(words), expected)
    assert repr(model) == names


def test_saved_weights_load_both_ways(tmp_path: Any) -> None:
    slow, fast = Translator(), Translator()
    accelerate(fast)
    words = torch.randint(0, 9, (2, 5))
    for one, other in ((slow, fast), (fast, slow)):
        for weight in one.parameters():
            weight.data.uniform_(-0.3, 0.3)
        torch.save(one.state_dict(), tmp_path / "weights.pt")
        other.load_state_dict(torch.load(tmp_path / "weights.pt"))
        torch.testing.assert_close(slow(words), fast(words))


def test_a_layer_is_the_model() -> None:
    layer = nn.LSTM(4, 5)
    report = accelerate(layer)
    assert type(layer) is bptt.nn.LSTM
    assert report.replaced == ("",)
    assert "(the model)" in str(report)


def test_shared_layers() -> None:
    model = Alike().double()
    report = accelerate(model)
    assert report.replaced == ("left",)
    assert [e.note for e in report.entries] == ["", "the same layer as left"]
    assert model.left is model.right


class Peephole(nn.LSTM):
    """A subclass, as users write them."""


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.GRU(4, 5)
        self.half = nn.GRU(4, 5, dtype=torch.bfloat16)
        self.subclass = Peephole(4, 5)
        self.cell = nn.GRUCell(4, 5)
        self.again = bptt.nn.RNN(4, 5)
        self.linear = nn.Linear(4, 5)
        self.weighed = nn.utils.parametrizations.weight_norm(nn.RNN(4, 5), "weight_hh_l0")
        self.patched = nn.RNN(4, 5)
        self.patched.forward = lambda x: x  # type: ignore[method-assign]  # as users do
        self.script = torch.jit.script(nn.Linear(4, 5))


@needs_core
def test_report_says_what_and_why() -> None:
    report = accelerate(Zoo())
    notes = {entry.name: (entry.replaced, entry.note) for entry in report.entries}
    assert notes["plain"] == (True, "")
    assert notes["half"] == (True, "for now PyTorch's own code runs: weights of torch.bfloat16")
    assert notes["subclass"] == (True, "")
    assert notes["cell"][1].startswith("a cell: the loop over time is the model's")
    assert notes["again"] == (False, "nothing to do")
    assert notes["weighed"] == (True, "")
    assert notes["patched"] == (False, "has a forward of its own")
    assert notes["script"][1].startswith("compiled by TorchScript")
    assert "linear" not in notes
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "before", "after", "note"]
    assert lines[2].split()[:3] == ["plain", "torch.nn.GRU", "bptt.nn.GRU"]
    assert str(accelerate(nn.Linear(2, 2))) == "The model has no recurrent layers."


def test_no_module() -> None:
    with pytest.raises(CellError, match=r"must be a torch\.nn\.Module, not a int"):
        accelerate(3)  # type: ignore[arg-type]  # refused


def test_state_dict_hooks_and_gradients_stay() -> None:
    layer = nn.GRU(4, 5, dtype=torch.float64)
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = gradients(layer(x), list(layer.parameters()))
    accelerate(layer)
    same(gradients(layer(x), list(layer.parameters())), expected)


def test_a_layer_whose_weight_is_made_in_its_forward_is_left_to_pytorch() -> None:
    layer = nn.GRU(4, 4)
    del layer._parameters["weight_hh_l0"]
    report = bptt.accelerate(nn.ModuleDict({"layer": layer}))
    assert "weight_hh_l0 is missing" in str(report)
