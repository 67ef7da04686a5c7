"""What PyTorch's tools make of accelerated models: what they made before, or an error that says
`decelerate`."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization as quantization
from torch import Tensor, nn
from torch.ao.quantization import quantize_fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations, prune

import bptt
import bptt.nn

from .helpers import needs_core, same

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DYNAMIC = quantization.default_dynamic_qconfig


class Own(nn.GRU):
    """A subclass, which is taken."""

    def reset_parameters(self) -> None:
        super().reset_parameters()


class Model(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.rnn = kind(4, 5)  # type: ignore[call-arg]  # a recurrent layer
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(torch.relu(self.inner(x)))
        return self.out(output)


def models(kind: type[nn.Module]) -> tuple[Model, Model, Tensor]:
    """A model, the same one accelerated, and an input."""
    model = Model(kind).eval()
    fast = copy.deepcopy(model)
    assert bptt.accelerate(fast).replaced == ("rnn",)
    return model, fast, torch.randn(6, 3, 4)


def static(model: nn.Module, x: Tensor) -> Any:
    model.qconfig = quantization.get_default_qconfig("x86")
    ready = quantization.prepare(model)
    ready(x)
    return quantization.convert(ready)


def by_layer(model: Any, x: Tensor) -> Any:
    model.rnn.qconfig = DYNAMIC
    return quantization.convert(model, quantization.get_default_dynamic_quant_module_mappings())


def by_graph(mapping: Any) -> Callable[[nn.Module, Tensor], Any]:
    return lambda model, x: quantize_fx.convert_fx(quantize_fx.prepare_fx(model, mapping, (x,)))


def mapping() -> Any:
    return quantization.QConfigMapping()


REFUSED: dict[str, Callable[[Any, Tensor], Any]] = {
    "script": lambda model, x: torch.jit.script(model),
    "dynamic": lambda model, x: quantization.quantize_dynamic(model),
    "dynamic, float16": lambda model, x: quantization.quantize_dynamic(model, dtype=torch.float16),
    "dynamic, classes": lambda model, x: quantization.quantize_dynamic(model, {nn.LSTM, nn.GRU}),
    "dynamic, names": lambda model, x: quantization.quantize_dynamic(model, {"rnn"}),
    "dynamic, in place": lambda model, x: quantization.quantize_dynamic(model, inplace=True),
    "static": static,
    "by layer": by_layer,
    "graph": by_graph(mapping().set_global(DYNAMIC)),
    "graph, classes": by_graph(
        mapping().set_object_type(nn.LSTM, DYNAMIC).set_object_type(nn.GRU, DYNAMIC)
    ),
    "graph, names": by_graph(mapping().set_module_name("rnn", DYNAMIC)),
}


@pytest.mark.parametrize("tool", REFUSED)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_refused_with_the_mend(kind: type[nn.Module], tool: str) -> None:
    _, fast, x = models(kind)
    with pytest.raises(bptt.CellError, match=r"bptt\.decelerate\(model\)"):
        REFUSED[tool](fast, x)
    bptt.decelerate(fast)
    if tool != "static" or kind is nn.LSTM:  # PyTorch's own static quantization has no GRU
        REFUSED[tool](fast, x)


def test_quantized_after_decelerate() -> None:
    model, fast, x = models(nn.GRU)
    bptt.decelerate(fast)
    found, expected = (quantization.quantize_dynamic(m) for m in (fast, model))
    assert type(found.rnn) is type(expected.rnn) is torch.ao.nn.quantized.dynamic.GRU
    same(found(x), expected(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.RNN, Own])
def test_quantization_of_other_layers(kind: type[nn.Module]) -> None:
    model, fast, x = models(kind)
    wanted = None if kind is not nn.LSTM else {nn.Linear}
    found, expected = (quantization.quantize_dynamic(m, wanted) for m in (fast, model))
    assert type(found.inner) is not nn.Linear
    same(found(x), expected(x), 1e-5)


def test_a_layer_prepared_for_quantization_stays() -> None:
    model = Model(nn.GRU)
    model.rnn.qconfig = DYNAMIC
    (entry,) = bptt.accelerate(model).entries
    assert not entry.replaced
    assert "quantized" in entry.note


def test_old_script_modules_name_the_mend() -> None:
    class Old(torch.jit.ScriptModule):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = bptt.nn.GRU(4, 5)

        @torch.jit.script_method
        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    with pytest.raises(RuntimeError, match=r"bptt\.decelerate\(model\)"):
        Old()


def pruned(model: Any, x: Tensor) -> Tensor:
    prune.l1_unstructured(model.rnn, "weight_hh_l0", 0.5)
    found = model(x)
    prune.remove(model.rnn, "weight_hh_l0")
    same(model(x), found, 1e-6)
    return found


def normed(model: Any, x: Tensor) -> Tensor:
    nn.utils.weight_norm(model.rnn, "weight_hh_l0")
    model.rnn.weight_hh_l0_g.data.mul_(2)
    found = model(x)
    nn.utils.remove_weight_norm(model.rnn, "weight_hh_l0")
    same(model(x), found, 1e-5)
    return found


def spectral(model: Any, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    parametrizations.spectral_norm(model.train().rnn, "weight_hh_l0")
    return [model(x) for _ in range(3)][-1]


def spectral_hook(model: Any, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    nn.utils.spectral_norm(model.train().rnn, "weight_hh_l0")
    return [model(x) for _ in range(3)][-1]


def saved(model: Any, x: Tensor) -> Tensor:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)(x)


SAME: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "trace": lambda model, x: torch.jit.trace(model, x)(x),
    "trace, saved": saved,
    "trace, frozen": lambda model, x: torch.jit.freeze(torch.jit.trace(model, x))(x),
    "script of a trace": lambda model, x: torch.jit.script(torch.jit.trace(model, x))(x),
    "symbolic": lambda model, x: torch.fx.symbolic_trace(model)(x),
    "make_fx": lambda model, x: make_fx(model)(x)(x),
    "export": lambda model, x: torch.export.export(model, (x,)).module()(x),
    "compile": lambda model, x: torch.compile(model, backend="aot_eager")(x),
    "prune": pruned,
    "weight_norm": normed,
    "spectral_norm": spectral,
    "spectral_norm, hook": spectral_hook,
}


@pytest.mark.parametrize("tool", SAME)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_as_before(kind: type[nn.Module], tool: str) -> None:
    torch._dynamo.reset()
    model, fast, x = models(kind)
    same(SAME[tool](fast, x), SAME[tool](model, x), 1e-5)


@needs_core
def test_symbolic_traces_call_the_layer() -> None:
    """As they call PyTorch's own; subclasses, which PyTorch cannot trace, too."""
    for kind in (nn.LSTM, Own):
        model, fast, x = models(kind)
        traced = torch.fx.symbolic_trace(fast)
        assert [n.target for n in traced.graph.nodes if n.op == "call_module"][1] == "rnn"
        assert traced.rnn is fast.rnn
        same(traced(x), model(x), 1e-5)
