"""neuralrnn: models of cognitive neuroscience, one step of each as the package writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from neuralrnn import AutoConfig, AutoModel, NeuralDynamicsModel
from torch import Tensor, nn

import bptt

from .common import Pair, accelerated, main, pair

INPUTS, UNITS, OUTPUTS, STEPS, LANES = 5, 64, 3, 100, 16


# [adapt]
class Cell(nn.Module):
    """A step of any of the package's models."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def initial_state(self, batch: int) -> Tensor:
        return self.model.init_state(batch)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        return self.model.recurrence(input, state)

    def output(self, state: Tensor) -> Tensor:
        return self.model.readout(state)


# [/adapt]


def built(family: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"input_dim": INPUTS, "output_dim": OUTPUTS}
    config = AutoConfig.for_model(family, **sizes, **{"latent_dim": UNITS, **options})
    return AutoModel.from_config(config).to(torch.get_default_dtype())


def case(family: str, steps: int = STEPS, lanes: int = LANES, **options: Any) -> Callable[[], Pair]:
    """The package's loop, beside the same step unfolded."""

    def make() -> Pair:
        one, other = (Cell(built(family, options)) for _ in range(2))
        inputs = torch.randn(lanes, steps, INPUTS, requires_grad=True)

        def before(cell: Cell) -> Tensor:
            return NeuralDynamicsModel.forward(cell.model, inputs).outputs

        def after(cell: Cell) -> Tensor:
            return bptt.unfold(cell, inputs.transpose(0, 1))[0].transpose(0, 1)

        return pair(one, other, before, after, steps, lanes, [inputs])

    return make


def layers(family: str, **options: Any) -> Callable[[], Pair]:
    """The package's own call of PyTorch's layers."""

    def make() -> Pair:
        inputs = torch.randn(LANES, STEPS, INPUTS, requires_grad=True)

        def call(model: nn.Module) -> Tensor:
            return model(inputs).outputs

        return accelerated(built(family, options), bptt.accelerate, call, STEPS, LANES, [inputs])

    return make


CASES = {
    "ctrnn": case("ctrnn", alpha=0.2),
    "ctrnn, one lane": case("ctrnn", steps=500, lanes=1, alpha=0.2),
    "ctrnn of rates": case("ctrnn", alpha=0.2, nonlinearity_mode="rate"),
    "ctrnn with noise": case("ctrnn", alpha=0.2, sigma_rec=0.1),
    "ei_rnn": case("ei_rnn", alpha=0.2),
    "shallow_plrnn": case("shallow_plrnn"),
    "dend_plrnn": case("dend_plrnn"),
    "alrnn": case("alrnn"),
    "lowrank_rnn": case("lowrank_rnn"),
    "gain_rnn": case("gain_rnn", alpha=0.2),
    "stp_rnn": case("stp_rnn", dt=20.0),
    "constrained_rnn": case("constrained_rnn", alpha=0.2),
    "se_rnn": case("se_rnn", alpha=0.2),
    "sparse_rnn": case("sparse_rnn", alpha=0.2),
    "multiarea_rnn": case("multiarea_rnn", alpha=0.2, area_sizes=[40, 24], latent_dim=64),
    "latent_circuit": case("latent_circuit"),
    "gated_rnn of GRU, its step": case("gated_rnn", rnn_type="GRU"),
    "gated_rnn of LSTM, its step": case("gated_rnn", rnn_type="LSTM"),
    "gated_rnn of GRU": layers("gated_rnn", rnn_type="GRU"),
    "gated_rnn of LSTM": layers("gated_rnn", rnn_type="LSTM"),
    "tiny_rnn": layers("tiny_rnn", latent_dim=4),
}

SINGLE = ["multiarea_rnn"]  # whose masks stay float32

if __name__ == "__main__":
    main("neuralrnn", CASES, SINGLE)
