"""The loss as a function of all parameters: values, gradients, curvature; on a copy, so that the
user's network is never touched."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bptt.diagnostics._trajectory import Portion
from bptt.errors import BpttError, CellError
from bptt.losses import StepLoss, cost
from bptt.network import Network
from bptt.state import map_state
from bptt.streams import Chunk

Floats = np.ndarray

SMALL = 40
"""Up to so many parameters the Hessian is made whole; Lanczos needs more than it is asked for."""


@dataclass(frozen=True)
class Landscape:
    """The mean loss over fixed data.

    Attributes:
        network: a copy, in double precision where the cell can be converted.
        given: the data, alike.
        loss: of a step.
        centre: float64 [parameter]: the user's weights.
    """

    network: Network
    given: list[Portion]
    loss: StepLoss
    centre: Tensor

    @classmethod
    def of(cls, network: Network, given: list[Portion], loss: StepLoss) -> Landscape:
        """The loss around the present weights of ``network``."""
        try:
            own = copy.deepcopy(network)
        except (RuntimeError, TypeError, ValueError) as error:
            raise CellError(
                f"the surface is measured on a copy of the network, which cannot be copied: {error}"
            ) from error
        found = cls(own.double(), [_double(portion) for portion in given], loss, _flat(own))
        try:
            found.value(found.centre)
        except (RuntimeError, BpttError):
            # A cell that makes tensors of its own dtype stays in it.
            own = copy.deepcopy(network)
            found = cls(own, given, loss, _flat(own))
        return found

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that require a gradient."""
        return [p for p in self.network.parameters() if p.requires_grad]

    @torch.no_grad()
    def _move(self, to: Tensor) -> None:
        offset = 0
        for parameter in self.parameters:
            part = to[offset : offset + parameter.numel()]
            parameter.copy_(part.reshape(parameter.shape))
            offset += parameter.numel()

    def _total(self) -> tuple[Tensor, int]:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for portion in self.given:
            chunk = portion.chunk
            here = int(chunk.mask.sum())
            if not here:
                continue
            outputs, _ = self.network.unfold(
                chunk.inputs, portion.state, reset=chunk.any_reset, lengths=chunk.lengths
            )
            read = self.network.read
            total = total + cost(self.loss, read, outputs, chunk.targets, chunk.mask).double().cpu()
            count += here
        return total, count

    @torch.no_grad()
    def value(self, at: Tensor) -> float:
        """The mean loss with the weights ``at``."""
        self._move(at)
        total, count = self._total()
        return float(total) / count

    def gradient(self, at: Tensor) -> Tensor:
        """Its gradient, float64 [parameter]."""
        self._move(at)
        with torch.enable_grad():
            total, count = self._total()
            found = torch.autograd.grad(total / count, self.parameters, allow_unused=True)
        parts = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, found, strict=True)
        ]
        return torch.cat([p.flatten().double().cpu() for p in parts])

    def hessian_product(self, vector: Tensor) -> Tensor:
        """H v at the centre, by central differences of gradients along v."""
        size = float(vector.norm())
        if size == 0:
            return torch.zeros_like(vector)
        eps = torch.finfo(self.parameters[0].dtype).eps
        step = eps ** (1 / 3) * (1 + float(self.centre.norm())) / size
        ahead = self.gradient(self.centre + step * vector)
        behind = self.gradient(self.centre - step * vector)
        difference: Tensor = (ahead - behind) / (2 * step)
        return difference

    def leading(self, count: int, seed: int) -> tuple[Floats, Tensor]:
        """The largest eigenvalues of the Hessian, largest first, and unit eigenvectors
        [count, parameter], by Lanczos.

        Raises:
            BpttError: SciPy is not installed.
        """
        size = len(self.centre)
        if size <= SMALL:
            eye = torch.eye(size, dtype=torch.float64)
            whole = torch.stack([self.hessian_product(v) for v in eye])
            values, vectors = torch.linalg.eigh((whole + whole.t()) / 2)
            return values.flip(0)[:count].numpy(), vectors.t().flip(0)[:count]
        try:
            from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
        except ImportError as error:
            raise BpttError("the Hessian's directions need SciPy: pip install scipy.") from error

        def product(vector: Floats) -> Floats:
            given = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1))
            return self.hessian_product(given).numpy()

        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.random.default_rng(seed).standard_normal(size)
        try:
            values, vectors = eigsh(operator, k=count, which="LA", v0=start, tol=1e-3, maxiter=40)
        except ArpackNoConvergence as partial:
            values, vectors = partial.eigenvalues, partial.eigenvectors
            if len(values) < count:
                raise BpttError(
                    "Lanczos iteration found no leading directions of the Hessian: its gradients "
                    "are too rough here to be differenced. Leave the surface out: "
                    "parts=('reach', 'dynamics')."
                ) from partial
        order = np.argsort(values)[::-1]
        return values[order], torch.from_numpy(vectors.T[order].copy())

    def random(self, count: int, seed: int) -> Tensor:
        """Random directions [count, parameter], filter-normalised: the weights into each unit (a
        row of a matrix; a vector whole) are drawn normally and scaled to the norm that the
        network's own have (H. Li et al., Visualizing the loss landscape of neural nets, 2018)."""
        draws = torch.Generator().manual_seed(seed)
        found = []
        self._move(self.centre)
        for _ in range(count):
            parts = []
            for parameter in self.parameters:
                own = parameter.detach().double().cpu()
                rows = own.flatten(1) if own.dim() > 1 else own.reshape(1, -1)
                drawn = torch.randn(rows.shape, generator=draws, dtype=torch.float64)
                scale = rows.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
                parts.append((drawn * scale).flatten())
            found.append(torch.cat(parts))
        return torch.stack(found)


def _flat(network: Network) -> Tensor:
    own = [p.detach().double().cpu().flatten() for p in network.parameters() if p.requires_grad]
    return torch.cat(own)


def _double(portion: Portion) -> Portion:
    def wide(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    chunk = portion.chunk
    state = None if portion.state is None else map_state(wide, portion.state)
    moved = Chunk(wide(chunk.inputs), wide(chunk.targets), chunk.mask, chunk.reset, chunk.lengths)
    return Portion(moved, state)
