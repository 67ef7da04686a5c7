"""pytorch-forecasting: DeepAR, a recurrent encoder and decoder, and temporal fusion."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy
import pandas
import torch
from pytorch_forecasting import (
    DeepAR,
    RecurrentNetwork,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.models.nn import GRU, LSTM
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import bptt

from .common import Pair, accelerated, main

PAST, AHEAD, LANES = 60, 20, 32


# [adapt]
class FastLSTM(LSTM, bptt.nn.LSTM):
    """The package's LSTM, which calls that of PyTorch; here the next one in line is bptt's."""


class FastGRU(GRU, bptt.nn.GRU):
    """The same of its GRU."""


def adapted(model: nn.Module) -> bptt.nn.Report:
    """Replaces the classes of the package's layers, which `accelerate` leaves alone."""
    report = bptt.accelerate(model)
    for module in model.modules():
        if type(module) in (LSTM, GRU):
            module.__class__ = FastLSTM if type(module) is LSTM else FastGRU
    return report


# [/adapt]


@cache
def data() -> tuple[TimeSeriesDataSet, dict[str, Any]]:
    """Eight noisy waves, and a batch of windows."""
    draw = numpy.random.default_rng(0)
    steps, series = 120, 8
    table = pandas.DataFrame(
        {
            "time": numpy.tile(numpy.arange(steps), series),
            "series": numpy.repeat([f"s{i}" for i in range(series)], steps),
            "value": numpy.sin(numpy.arange(steps * series) / 7) + draw.normal(size=steps * series),
        }
    )
    dataset = TimeSeriesDataSet(
        table,
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=PAST,
        max_prediction_length=AHEAD,
        time_varying_unknown_reals=["value"],
        time_varying_known_reals=["time"],
    )
    loader = dataset.to_dataloader(train=True, batch_size=LANES, shuffle=False)
    return dataset, next(iter(loader))[0]


def as_default(value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.get_default_dtype()) if floating else value


def case(
    kind: Any, change: Callable[[Any], bptt.nn.Report] = adapted, **options: Any
) -> Callable[[], Pair]:
    def make() -> Pair:
        dataset, drawn = data()
        batch = tree_map(as_default, copy.deepcopy(drawn))
        model = kind.from_dataset(dataset, **options).to(torch.get_default_dtype())

        def call(one: nn.Module) -> Tensor:
            return one(batch)["prediction"]

        return accelerated(model, change, call, PAST, LANES)

    return make


CASES = {
    "DeepAR of LSTM": case(DeepAR, hidden_size=32),
    "DeepAR of GRU": case(DeepAR, hidden_size=32, cell_type="GRU"),
    "RecurrentNetwork of LSTM": case(RecurrentNetwork, hidden_size=32),
    "RecurrentNetwork of GRU": case(RecurrentNetwork, hidden_size=32, cell_type="GRU"),
    "TemporalFusionTransformer": case(TemporalFusionTransformer, hidden_size=32),
    "DeepAR of GRU, `accelerate` alone": case(DeepAR, bptt.accelerate, cell_type="GRU"),
}

if __name__ == "__main__":
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|pytorch_forecasting")
    main("pytorch-forecasting", CASES)
