"""Many gradients at once, and tangents of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bptt

from .layered import CELLS, DOUBLE

pytestmark = pytest.mark.usefixtures("core")


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("special", [False, True], ids=["plain", "reset, lengths, clip"])
def test_many_gradients_at_once(name: str, special: bool) -> None:
    cell, inputs = CELLS[name]().double(), torch.randn(5, 3, 3, **DOUBLE, requires_grad=True)
    options: dict[str, Any] = {}
    if special:
        options = {"reset": torch.rand(5, 3) < 0.3, "lengths": torch.tensor([5, 2, 4])}
        options["clip_state_gradient"] = 0.1
    asked, found = [inputs, *cell.parameters()], []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend, **options)  # type: ignore[call-overload]  # of any overload
        seeds = torch.randn(4, *outputs.shape, **DOUBLE, generator=torch.Generator().manual_seed(1))
        each = [torch.autograd.grad(outputs, asked, s, retain_graph=True) for s in seeds]
        by_vmap = torch.vmap(
            lambda s, o=outputs: torch.autograd.grad(o, asked, s, retain_graph=True)
        )(seeds)
        batched = torch.autograd.grad(outputs, asked, seeds, is_grads_batched=True)
        assert not any(g.requires_grad for g in batched)
        for one_by_one, way, other in zip(zip(*each, strict=True), batched, by_vmap, strict=True):
            torch.testing.assert_close(way, torch.stack(one_by_one), rtol=1e-10, atol=1e-11)
            torch.testing.assert_close(other, way, rtol=1e-10, atol=1e-11)
        found.append(batched)
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-11)


def test_jacobians_and_gradcheck_of_many_gradients() -> None:
    cell, inputs = nn.LSTMCell(2, 3, **DOUBLE), torch.randn(3, 2, 2, **DOUBLE, requires_grad=True)

    def unfold(x: Tensor) -> Tensor:
        return bptt.unfold(cell, x, backend="native")[0]

    jacobians = [
        torch.autograd.functional.jacobian(unfold, inputs, vectorize=way)  # type: ignore[no-untyped-call]  # untyped in torch
        for way in (False, True)
    ]
    torch.testing.assert_close(jacobians[0], jacobians[1], rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(unfold, inputs, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(unfold, inputs, check_batched_grad=True)


def test_tangents_of_gradients() -> None:
    """A gradient whose seed carries a tangent: its gradient carries one, too."""
    from torch.autograd import forward_ad

    cell, inputs = nn.GRUCell(2, 3, **DOUBLE), torch.randn(3, 2, 2, **DOUBLE, requires_grad=True)
    seed, tangent = torch.randn(2, 3, 2, 3, **DOUBLE)
    found = []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend)  # type: ignore[call-overload]  # of any overload
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(seed, tangent)  # type: ignore[no-untyped-call]  # untyped in torch
            (gradient,) = torch.autograd.grad(outputs, inputs, dual)
            found.append(tuple(forward_ad.unpack_dual(gradient)))  # type: ignore[no-untyped-call]  # untyped in torch
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
