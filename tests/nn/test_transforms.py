"""Good manners: copies, casts, replicas, `torch.func`, autocast, checkpoints and tracers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import bptt.nn

from .helpers import gradients, needs_core, packed, pair, same, unfolded_by_engine

KINDS = ["RNN", "GRU", "LSTM"]
F64 = torch.float64


@pytest.fixture(params=KINDS)
def layers(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    return pair(request.param, 4, 5, num_layers=2, bidirectional=True, dtype=F64)


def test_deepcopy_and_pickle(layers: Any) -> None:
    theirs, ours = layers
    x = torch.randn(6, 3, 4, dtype=F64)
    ours(x)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(twin) is type(ours)
        same(twin(x), theirs(x))
        twin.weight_hh_l0.data.zero_()
        assert bool((ours.weight_hh_l0 != 0).any())
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    buffer.seek(0)
    theirs.load_state_dict(torch.load(buffer))


def test_dtype_after_use(layers: Any) -> None:
    theirs, ours = layers
    x = torch.randn(6, 3, 4)
    for dtype in (F64, torch.float32, torch.bfloat16, F64):
        theirs, ours = theirs.to(dtype), ours.to(dtype)
        same(ours(x.to(dtype)), theirs(x.to(dtype)), 1e-10 if dtype is F64 else 1e-5)


def test_meta_device() -> None:
    layer = bptt.nn.GRU(4, 5, device="meta")
    assert layer(torch.randn(6, 3, 4, device="meta"))[0].shape == (6, 3, 5)
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.randn(6, 3, 4))[0].shape == (6, 3, 5)


def test_weights_put_in_their_place(layers: Any) -> None:
    theirs, ours = layers
    x = torch.randn(6, 3, 4, dtype=F64)
    ours(x)
    new = nn.Parameter(torch.randn_like(ours.weight_hh_l0))
    theirs.weight_hh_l0 = ours.weight_hh_l0 = new
    same(ours(x), theirs(x))
    with torch.no_grad():
        new.mul_(0.5)
    same(ours(x), theirs(x))


def test_replicas(layers: Any) -> None:
    """What `nn.DataParallel` makes of a module: plain tensors in the place of parameters."""
    theirs, ours = layers
    x = torch.randn(6, 3, 4, dtype=F64)
    replica = ours._replicate_for_data_parallel()
    for name, weight in ours.named_parameters():
        setattr(replica, name, weight * 1.0)
    same(replica(x), theirs(x))
    wanted = list(ours.parameters())
    same(gradients(replica(x), wanted), gradients(theirs(x), list(theirs.parameters())))


@needs_core
def test_replicas_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    from bptt.engine.frontend import form

    layer, x = bptt.nn.GRU(4, 5), torch.randn(6, 3, 4)
    layer(x)
    monkeypatch.setattr(form, "trace", lambda *_: pytest.fail("traced again"))
    copy.deepcopy(layer)(x)
    bptt.nn.GRU(4, 5)(x)
    layer._replicate_for_data_parallel()


def test_parametrized_weights() -> None:
    theirs, ours = pair("GRU", 4, 5, dtype=F64)
    x = torch.randn(6, 3, 4, dtype=F64)
    for layer in (theirs, ours):
        nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    same(ours(x), theirs(x))
    found, expected = (gradients(m(x), list(m.parameters())) for m in (ours, theirs))
    same(found, expected)


def weights_of(layer: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in layer.named_parameters()}


def total(result: Any) -> Tensor:
    output, last = result
    last = last if isinstance(last, tuple) else (last,)
    return (output**2).sum() + sum((leaf.sin()).sum() for leaf in last)


def test_functional_call_and_grad(layers: Any) -> None:
    theirs, ours = layers
    x, weights = torch.randn(6, 3, 4, dtype=F64), weights_of(ours)
    halved = {name: 0.5 * value for name, value in weights.items()}
    same(functional_call(ours, halved, (x,)), functional_call(theirs, halved, (x,)))

    def loss(layer: nn.Module, weights: Any, x: Tensor) -> Tensor:
        return total(functional_call(layer, weights, (x,)))

    found, expected = (grad(loss, argnums=1)(m, weights, x) for m in (ours, theirs))
    same([found[n] for n in weights], [expected[n] for n in weights])


def test_vmap_over_lanes(layers: Any) -> None:
    """Each lane by itself, states and all."""
    theirs, ours = layers
    x = torch.randn(6, 3, 4, dtype=F64)
    found = vmap(lambda lane: ours(lane)[0], in_dims=1, out_dims=1)(x)
    same(found, theirs(x)[0])


def test_gradient_of_each_sample(layers: Any) -> None:
    theirs, ours = layers
    x, weights = torch.randn(3, 6, 1, 4, dtype=F64), weights_of(ours)
    one = grad(lambda w, x: total(functional_call(ours, w, (x,))))
    found = vmap(one, in_dims=(None, 0))(weights, x)
    for i in range(3):
        loss = total(theirs(x[i]))
        expected = torch.autograd.grad(loss, list(theirs.parameters()))
        same([g[i] for g in found.values()], expected)


def test_vmap_over_an_ensemble() -> None:
    members = [bptt.nn.GRU(4, 5, dtype=F64) for _ in range(3)]
    weights, buffers = stack_module_state(members)  # type: ignore[arg-type]  # modules of one class
    x = torch.randn(6, 2, 4, dtype=F64)
    base = copy.deepcopy(members[0])

    def call(weights: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(base, (weights, buffers), (x,))[0]

    found = vmap(call, in_dims=(0, 0, None), randomness="different")(weights, buffers, x)
    same(found, torch.stack([member(x)[0] for member in members]))


def test_forward_mode(layers: Any) -> None:
    theirs, ours = layers
    x, v = torch.randn(2, 6, 3, 4, dtype=F64)
    # PyTorch's own layers have no forward mode: two reverse ones give the same.
    expected = torch.autograd.functional.jvp(lambda x: theirs(x)[0], x, v)
    same(jvp(lambda x: ours(x)[0], (x,), (v,)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pack", [False, True])
def test_autocast_leaves_the_recurrence(kind: str, pack: bool) -> None:
    layer = getattr(bptt.nn, kind)(4, 5)
    x = torch.randn(6, 3, 4).bfloat16()
    given = packed(x, False) if pack else x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(given)
        loss = total((found[0].data, found[1]))
    expected = layer(packed(x.float(), False) if pack else x.float())
    assert found[0].data.dtype == torch.float32
    same(found, expected, 0.0)
    loss.backward()
    assert layer.weight_hh_l0.grad.dtype == torch.float32


def test_checkpoint(layers: Any) -> None:
    theirs, ours = layers
    x = torch.randn(6, 3, 4, dtype=F64, requires_grad=True)
    wanted = [x, *ours.parameters()]
    found = checkpoint(ours, x, use_reentrant=False)
    same(gradients(found, wanted), gradients(theirs(x), [x, *theirs.parameters()]))


@needs_core
@pytest.mark.parametrize("kind", KINDS)
def test_tracers_see_torchs_operators(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair(kind, 4, 5)
    x = torch.randn(6, 3, 4)
    seen = unfolded_by_engine(monkeypatch)
    traced = torch.jit.trace(ours.eval(), x, check_trace=False)
    same(traced(x), theirs(x))
    counts = []
    for layer in (theirs, ours):
        with FlopCounterMode(display=False) as counter:
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0 or kind == "LSTM"
    assert not seen


def test_after_fork() -> None:
    """Workers of a data loader may run a layer."""
    layer = bptt.nn.GRU(4, 5)
    x = torch.randn(6, 3, 4)
    expected = layer(x)[0].detach()
    context = torch.multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        found = pool.apply(_run, (layer.state_dict(), x))
    torch.testing.assert_close(found, expected)


def _run(weights: Any, x: Tensor) -> Tensor:
    layer = bptt.nn.GRU(4, 5)
    layer.load_state_dict(weights)
    with torch.no_grad():
        return layer(x)[0]
