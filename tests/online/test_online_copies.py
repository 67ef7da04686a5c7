"""A learner is saved and goes on, is copied, and is collected with its network."""

from __future__ import annotations

import gc
import io
import weakref
from copy import deepcopy
from typing import Any

import pytest
import torch
from tests.online.test_fit import assert_alike, data, network, sgd

import bptt

from .steps import METHODS, fed

pytest.importorskip("bptt._core")


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("at", [0, 2, 17, 20])
def test_it_is_saved_and_goes_on(method: Any, at: int) -> None:
    x, y = data(40)
    whole = bptt.Online(network(), deepcopy(method), "mse", sgd)
    broken = bptt.Online(network(), deepcopy(method), "mse", sgd)
    expected = fed(whole, range(40), x, y)
    fed(broken, range(at), x, y)
    file = io.BytesIO()
    torch.save(broken.state_dict(), file)
    file.seek(0)
    again = bptt.Online(network("Elman"), deepcopy(method), "mse", sgd)
    with torch.no_grad():
        again.network.cell.weight_hh.zero_()
    again.load_state_dict(torch.load(file, weights_only=True))
    found = fed(again, range(at, 40), x, y)
    assert again.updates == whole.updates
    for one, other in zip(found, expected[at:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("at", [0, 2, 17])
def test_a_copy_goes_its_own_way(method: Any, at: int) -> None:
    x, y = data(40)
    first = bptt.Online(network(), deepcopy(method), "mse", sgd)
    fed(first, range(at), x, y)
    second = deepcopy(first)
    assert second.optimizer.param_groups[0]["params"][0] is next(second.network.parameters())
    fed(second, range(at, 30), x, -y)
    third = bptt.Online(network(), deepcopy(method), "mse", sgd)
    expected = fed(third, range(40), x, y)[at:]
    for one, other in zip(fed(first, range(at, 40), x, y), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    other = bptt.Online(network(), deepcopy(method), "mse", sgd)
    fed(other, range(at), x, y)
    fed(other, range(at, 30), x, -y)
    assert (second.steps, second.updates) == (other.steps, other.updates)
    assert second.loss == pytest.approx(other.loss, rel=1e-9, nan_ok=True)
    assert_alike(second.network, other.network)


def test_a_learner_is_collected_with_its_network() -> None:
    x, y = data(20)
    net = network()
    learner = bptt.Online(net, bptt.SlidingWindow(3), "mse", sgd)
    fed(learner, range(20), x, y)
    assert learner._feed is not None
    net.__dict__["learner"] = learner
    gone = weakref.ref(net)
    del net, learner
    gc.collect()
    assert gone() is None
