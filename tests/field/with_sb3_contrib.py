"""sb3-contrib: RecurrentPPO, whose policy loops over time once an episode starts in a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from torch import Tensor, nn

import bptt

from .common import Pair, main, pair

FEATURES, HIDDEN = 6, 64


# [adapt]
class Policy(RecurrentActorCriticPolicy):
    """For ``RecurrentPPO(Policy, environment)``: episodes start inside a sequence, in one go."""

    @staticmethod
    def _process_sequence(features: Tensor, states: Any, starts: Tensor, lstm: nn.LSTM) -> Any:
        lanes = states[0].shape[1]
        inputs = features.reshape(lanes, -1, lstm.input_size).transpose(0, 1)
        reset = starts.reshape(lanes, -1).transpose(0, 1) > 0
        outputs, last = recurrent(lstm)(inputs, states, reset=reset)
        return outputs.transpose(0, 1).flatten(0, 1), last


def recurrent(lstm: nn.LSTM) -> bptt.nn.Recurrent:
    """The same layers with the same weights, and resets."""
    if lstm not in KNOWN:
        made = bptt.nn.Recurrent(
            lambda size: nn.LSTMCell(size, lstm.hidden_size),
            lstm.input_size,
            layers=lstm.num_layers,
        )
        for number, cell in enumerate(made.cells):
            for name, _ in list(cell.named_parameters()):
                setattr(cell, name, getattr(lstm, f"{name}_l{number}"))
        KNOWN[lstm] = made
    return KNOWN[lstm]


KNOWN: WeakKeyDictionary[nn.LSTM, bptt.nn.Recurrent] = WeakKeyDictionary()
# [/adapt]


def policy(**options: Any) -> RecurrentActorCriticPolicy:
    box = spaces.Box(-1.0, 1.0, (FEATURES,), numpy.float32)
    return RecurrentActorCriticPolicy(
        box, spaces.Discrete(4), lambda _: 1e-3, lstm_hidden_size=HIDDEN, **options
    )


def drawn(steps: int, lanes: int, every: int) -> Tensor:
    """Where episodes start: [lane · step]."""
    starts = torch.zeros(lanes, steps)
    for lane in range(lanes):
        starts[lane, (3 * lane + 7) % every :: every] = 1.0
    return starts.flatten()


def sequence(steps: int, lanes: int, every: int = 40) -> Callable[[], Pair]:
    """The recurrence alone."""

    def make() -> Pair:
        inputs = torch.randn(lanes * steps, FEATURES, requires_grad=True)
        states = tuple(torch.randn(1, lanes, HIDDEN, requires_grad=True) for _ in range(2))
        starts = drawn(steps, lanes, every)

        def call(one: Any) -> Any:
            return one._process_sequence(inputs, states, starts, one.lstm_actor)

        return _pair(call, steps, lanes, [inputs, *states])

    return make


def evaluation(steps: int, lanes: int, **options: Any) -> Callable[[], Pair]:
    """What a training step does with a batch."""

    def make() -> Pair:
        layers = options.get("n_lstm_layers", 1)
        seen, actions = torch.randn(lanes * steps, FEATURES), torch.arange(lanes * steps) % 4
        state = torch.randn(layers, lanes, HIDDEN), torch.randn(layers, lanes, HIDDEN)
        starts = drawn(steps, lanes, 40)

        def call(one: Any) -> Any:
            return one.evaluate_actions(seen, actions, RNNStates(state, state), starts)

        return _pair(call, steps, lanes, (), **options)

    return make


def _pair(call: Any, steps: int, lanes: int, inputs: Any, **options: Any) -> Pair:
    one = policy(**options)
    other = copy.deepcopy(one)
    other.__class__ = Policy
    return pair(one, other, call, call, steps, lanes, inputs)


CASES = {
    "`_process_sequence`": sequence(500, 1),
    "`_process_sequence`, lanes": sequence(128, 8),
    "`_process_sequence`, no start": sequence(128, 8, every=10**6),
    "`_process_sequence`, one step": sequence(1, 8),
    "`evaluate_actions`": evaluation(500, 1),
    "`evaluate_actions`, lanes": evaluation(128, 8),
    "`evaluate_actions`, two layers": evaluation(128, 8, n_lstm_layers=2),
}
SINGLE = [name for name in CASES if "evaluate" in name]  # observations become float32 there

if __name__ == "__main__":
    main("sb3-contrib", CASES, SINGLE)
