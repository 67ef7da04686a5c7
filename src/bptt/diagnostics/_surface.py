"""Surface: the loss along directions in parameter space, drawn, and its roughness as a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bptt.diagnostics._landscape import Landscape
from bptt.diagnostics._words import percent

Floats = np.ndarray

STEPS = 2000
"""The surface takes many hundred passes: it looks at no more steps than this."""


@dataclass(frozen=True)
class Plane:
    """The loss on a plane through the present weights, and along its two axes.

    Attributes:
        kind: ``"random"`` or ``"hessian"``.
        along: [point] places on an axis; ±1 is about as far as the weights are long.
        lines: [2, point], the loss along the first and the second axis.
        places: [grid] places on an axis of the plane.
        loss: [grid, grid], the loss on it, the second axis first.
    """

    kind: str
    along: Floats
    lines: Floats
    places: Floats
    loss: Floats

    @property
    def roughness(self) -> float:
        """The mean over the two axes of `roughness`."""
        return float(np.mean([roughness(line) for line in self.lines]))


@dataclass(frozen=True)
class Surface:
    """The loss around the present weights.

    Attributes:
        loss: at the weights themselves.
        steps: over how many counted steps.
        planes: along random directions, filter-normalised, and along the two directions of
            largest curvature.
        curvature: the Hessian's two largest eigenvalues, or one where there is one parameter.
    """

    loss: float
    steps: int
    planes: tuple[Plane, ...]
    curvature: Floats

    def plane(self, kind: str) -> Plane:
        """The plane of a kind."""
        return next(plane for plane in self.planes if plane.kind == kind)

    def verdict(self) -> str:
        """What was found, in words."""
        random, curved = self.plane("random").roughness, self.plane("hessian").roughness
        worst = max(random, curved)
        kind = "smooth" if worst < 0.02 else "uneven" if worst < 0.2 else "rough"
        said = [
            f"{kind}: walking away from the lowest point, the loss falls back by {percent(random)} "
            f"of its range along random directions, by {percent(curved)} along those of largest "
            "curvature"
        ]
        largest = float(self.curvature[0])
        if largest > 0:
            said.append(
                f"largest curvature {largest:.3g}: plain gradient descent is stable up to a "
                f"learning rate of {2 / largest:.3g}"
            )
        else:
            said.append("curved upwards nowhere")
        return "; ".join(said) + "."


def roughness(line: Floats) -> float:
    """How much a walk outwards from a line's lowest point goes down again, in both directions
    together, over the range of the loss on it.

    0 where the loss only rises away from its lowest point, however steeply; each further valley
    adds its depth. Unlike a second derivative it does not depend on the scale of either axis, nor
    on the step from point to point while that resolves the valleys. Where the loss is not finite
    it counts as the highest finite value.
    """
    known = np.isfinite(line)
    if not known.any():
        return 0.0
    line = np.where(known, line, line[known].max())
    span = float(line.max() - line.min())
    if not span > 0:
        return 0.0
    lowest = int(line.argmin())
    right, left = np.diff(line[lowest:]), np.diff(line[lowest::-1])
    return float(-(right[right < 0].sum() + left[left < 0].sum()) / span)


def measure_surface(landscape: Landscape, *, points: int, grid: int, seed: int) -> Surface:
    """Walk over the surface; see `bptt.diagnose`."""
    random = landscape.random(2, seed)
    curvature, leading = landscape.leading(min(2, len(landscape.centre)), seed)
    length = float(random.norm(dim=1).mean())
    if len(leading) < 2:
        leading = torch.cat([leading, torch.zeros_like(leading)])
    planes = (
        _walked(landscape, "random", random, points, grid),
        _walked(landscape, "hessian", leading * length, points, grid),
    )
    counted = sum(int(portion.chunk.mask.sum()) for portion in landscape.given)
    return Surface(landscape.value(landscape.centre), counted, planes, curvature)


def _walked(landscape: Landscape, kind: str, axes: Tensor, points: int, grid: int) -> Plane:
    centre = landscape.centre
    along, places = np.linspace(-1, 1, points), np.linspace(-1, 1, grid)
    lines = [[landscape.value(centre + a * axis) for a in along] for axis in axes]
    plane = [[landscape.value(centre + a * axes[0] + b * axes[1]) for a in places] for b in places]
    return Plane(kind, along, np.array(lines), places, np.array(plane))
