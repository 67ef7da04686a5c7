"""darts: `RNNModel` and `BlockRNNModel`, which make their layers when they are fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from darts.models.forecasting.block_rnn_model import _BlockRNNModule
from darts.models.forecasting.rnn_model import _RNNModule
from darts.utils.data.torch_datasets.utils import ModuleStage, PLModuleInput
from pytorch_lightning import Callback
from torch import Tensor, nn

import bptt

from .common import Pair, accelerated, main

STEPS, LANES, UNITS = 60, 32, 64


# [adapt]
class Accelerate(Callback):
    """For ``RNNModel(..., pl_trainer_kwargs={"callbacks": [Accelerate()]})``."""

    def on_fit_start(self, trainer: Any, module: nn.Module) -> None:
        bptt.accelerate(module)


# [/adapt]


def case(block: bool, name: str, **options: Any) -> Callable[[], Pair]:
    def make() -> Pair:
        sizes = {"input_size": 1, "hidden_dim": UNITS, "target_size": 1, "nr_params": 1}
        chunks = {"input_chunk_length": STEPS, "output_chunk_length": 12 if block else 1}
        common = {"num_layers": 1, "dropout": 0.0, **sizes, **chunks, **options}
        kind = _BlockRNNModule if block else _RNNModule
        own = {"future_cov_dim": 0, "num_layers_out_fc": [16]} if block else {}
        model = kind(name=name, **own, **common)
        batch = PLModuleInput(torch.randn(LANES, STEPS, 1), stage=ModuleStage.TRAIN)

        def call(one: nn.Module) -> Tensor:
            return one(batch).prediction

        return accelerated(model, bptt.accelerate, call, STEPS, LANES)

    return make


CASES = {
    **{f"RNNModel of {name}": case(False, name) for name in ("RNN", "GRU", "LSTM")},
    **{f"BlockRNNModel of {name}": case(True, name) for name in ("RNN", "GRU", "LSTM")},
    "RNNModel, two layers with dropout": case(False, "LSTM", num_layers=2, dropout=0.2),
}

if __name__ == "__main__":
    main("darts", CASES)
