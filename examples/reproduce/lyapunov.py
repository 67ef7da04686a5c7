"""Lyapunov exponents of random networks and of a linear cell, beside what is published.

    python examples/reproduce/lyapunov.py            (about five minutes)
    python examples/reproduce/lyapunov.py --small    (seconds)

Writes ``lyapunov.json`` and ``lyapunov.png`` to ``--out``; ``lyapunov.md`` beside this file
discusses them.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.linalg import eigvalsh_tridiagonal
from scipy.optimize import brentq
from torch import Tensor, nn

import bptt

STEP = 0.05
"""Euler's step, in time constants."""


class RandomNetwork(nn.Module):
    """The network of Sompolinsky, Crisanti and Sommers, by Euler's rule:
    ``h' = h + Δt (−h + J tanh h)`` with J_ij ~ N(0, g²/N), J_ii = 0, and no input."""

    def __init__(self, size: int, gain: float, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        matrix = torch.randn(size, size, generator=draws, dtype=torch.float64)
        self.hidden_size = size
        self.matrix = nn.Parameter(gain / math.sqrt(size) * matrix.fill_diagonal_(0.0))
        self.register_buffer("start", torch.randn(size, generator=draws, dtype=torch.float64))

    def initial_state(self, batch: int) -> Tensor:
        """Where the run starts: a random state, later one on the attractor."""
        return self.start.expand(batch, -1)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step; the input is not read."""
        return state + STEP * (torch.tanh(state) @ self.matrix.t() - state)


class LinearCell(nn.Module):
    """``s' = A s + x``."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.hidden_size = len(matrix)
        self.matrix = nn.Parameter(matrix)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return state @ self.matrix.t() + input


def spectrum(cell: nn.Module, inputs: Tensor, count: int) -> bptt.diagnostics.Dynamics:
    """The leading ``count`` exponents of ``cell`` along ``inputs``, per step."""
    stream = bptt.Stream(inputs, torch.zeros(len(inputs), 1))
    network = bptt.Network(cell)
    length = len(inputs)
    found = bptt.diagnose(
        network, stream, parts=("dynamics",), steps=length, exponents=count, anchors=1
    )
    assert found.dynamics is not None
    return found.dynamics


def of_gain(size: int, gain: float, steps: int, count: int) -> bptt.diagnostics.Dynamics:
    """The leading exponents of a random network that has come to its attractor."""
    cell = RandomNetwork(size, gain, seed=1)
    nothing = torch.zeros(steps, 1, dtype=torch.float64)
    with torch.no_grad():
        _, settled = bptt.unfold(cell, nothing[: steps // 2, None])
    cell.start = settled[0]
    return spectrum(cell, nothing, count)


@dataclass(frozen=True)
class MeanField:
    """The dynamic mean-field theory of infinitely many units at a gain above 1.

    The autocorrelation Δ(τ) of a unit rolls in a potential, Δ'' = −V'(Δ), from Δ(0) = Δ₀ where
    V(Δ₀) = V(0); its decay gives the potential of a Schrödinger equation whose ground state E₀
    gives the largest exponent, λ = −1 + √(1 − E₀), per time constant.
    """

    gain: float

    def _pair(self, function: Any, delta: float, start: float) -> float:
        """⟨f(x) f(y)⟩ of two Gaussians of variance ``start`` and covariance ``delta``."""
        nodes = np.linspace(-8, 8, 401)
        weights = np.exp(-(nodes**2) / 2)
        weights /= weights.sum()
        common = np.sqrt(max(delta, 0.0)) * nodes[:, None]
        own = np.sqrt(max(start - delta, 0.0)) * nodes[None, :]
        return float(weights @ (function(common + own) @ weights) ** 2)

    def _hill(self, start: float) -> float:
        """V(Δ₀) − V(0)."""

        def antiderivative(x: np.ndarray) -> np.ndarray:
            return np.logaddexp(x, -x) - np.log(2)

        risen = self._pair(antiderivative, start, start) - self._pair(antiderivative, 0.0, start)
        return -(start**2) / 2 + self.gain**2 * risen

    def levels(self) -> np.ndarray:
        """The two lowest levels of the Schrödinger equation; the second is exactly 0, with the
        wave function Δ'."""
        start = brentq(self._hill, 1e-3 * (self.gain - 1), self.gain**2)
        grid = start * (1 - np.cos(np.linspace(0, np.pi, 60))) / 2
        force = [d - self.gain**2 * self._pair(np.tanh, d, start) for d in grid]
        bend = [
            1 - self.gain**2 * self._pair(lambda x: 1 / np.cosh(x) ** 2, d, start) for d in grid
        ]
        pull, well = CubicSpline(grid, force), CubicSpline(grid, bend)
        # Leapfrog from rest. The decay to zero is unstable: it ends where rounding turns it.
        width = 0.005 / min(1.0, self.gain - 1)
        path, speed = [start], width * float(pull(start)) / 2
        while 0 < path[-1] + width * speed < path[-1]:
            path.append(path[-1] + width * speed)
            speed += width * float(pull(path[-1]))
        path += [path[-1]] * len(path)
        depth = well(np.array([*path[:0:-1], *path]))
        bond = np.full(len(depth) - 1, -1 / width**2)
        return eigvalsh_tridiagonal(depth + 2 / width**2, bond, select="i", select_range=(0, 1))

    def largest(self) -> float:
        """The largest Lyapunov exponent, per time constant."""
        return -1 + math.sqrt(1 - self.levels()[0])


def linear(size: int, steps: int) -> dict[str, Any]:
    """A random linear cell, beside the logarithms of its eigenvalues' moduli."""
    draws = torch.Generator().manual_seed(5)
    matrix = torch.randn(size, size, generator=draws, dtype=torch.float64) / math.sqrt(size)
    truth = torch.linalg.eigvals(matrix).abs().log().sort(descending=True).values.numpy()
    inputs = torch.randn(steps, size, generator=draws, dtype=torch.float64)
    found = spectrum(LinearCell(matrix), inputs, size).exponents
    error = float(np.abs(found - truth).max())
    return {"size": size, "exponents": found.tolist(), "truth": truth.tolist(), "error": error}


def run(small: bool) -> dict[str, Any]:
    """All figures."""
    wide, size, steps = (150, 40, 800) if small else (500, 160, 4000)
    gains = [0.8, 3.0] if small else [0.6, 0.8, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0]
    rows = []
    for gain in gains:
        leading = of_gain(wide, gain, steps, 2)
        whole = of_gain(size, gain, steps, size)
        exponents = whole.exponents / STEP
        row = {
            "gain": gain,
            "largest": float(leading.exponents[0]) / STEP,
            "error": leading.error / STEP,
            "mean_field": gain - 1 if gain <= 1 else MeanField(gain).largest(),
            "mean": float(exponents.mean()),
            "dimension": (whole.dimension or 0.0) / size,
            "entropy_rate": float(exponents[exponents > 0].sum()) / size,
            "exponents": exponents.tolist(),
        }
        rows.append(row)
        print(
            f"gain {gain:5.2f}: largest {row['largest']:+.3f} ± {row['error']:.3f} (mean field "
            f"{row['mean_field']:+.3f}), mean {row['mean']:+.4f}, dimension "
            f"{100 * row['dimension']:.1f} % of the units, entropy rate {row['entropy_rate']:.4f}"
        )
    sizes = {n: of_gain(n, 3.0, steps, n).exponents / STEP for n in (size // 4, size // 2)}
    found = linear(12 if small else 40, 2000 if small else 10000)
    print(f"linear cell: largest error against log|eigenvalue| {found['error']:.2g}")
    return {
        "wide": wide,
        "size": size,
        "steps": steps,
        "step": STEP,
        "gains": rows,
        "sizes": {str(n): e.tolist() for n, e in sizes.items()},
        "linear": found,
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """The four pictures in one file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    largest, spectra, sizes, line = figure.subplots(2, 2).flat
    rows = found["gains"]
    gains = [row["gain"] for row in rows]
    theory = sorted([(1.0, 0.0), *((row["gain"], row["mean_field"]) for row in rows)])
    largest.plot(*zip(*theory, strict=True), "--", color="#2e86ab", label="mean field")
    largest.plot(
        gains, [r["largest"] for r in rows], "o", color="#222222", label=f"N = {found['wide']}"
    )
    largest.axvline(1, color="#d1495b", linewidth=1, label="published onset of chaos")
    largest.axhline(0, color="#8d8d8d", linewidth=0.8)
    largest.set(
        xscale="log",
        xticks=gains,
        xticklabels=[f"{gain:g}" for gain in gains],
        title="Largest exponent",
        xlabel="gain g",
        ylabel="λ₁ (per τ)",
    )
    largest.minorticks_off()
    for row in rows:
        place = np.arange(1, found["size"] + 1) / found["size"]
        spectra.plot(place, row["exponents"], linewidth=1, label=f"g = {row['gain']:g}")
    spectra.axhline(0, color="#8d8d8d", linewidth=0.8)
    spectra.axhline(-1, color="#8d8d8d", linewidth=0.8, linestyle=":")
    spectra.set(title="Whole spectrum", xlabel="i / N", ylabel="λ (per τ)")
    whole = next(row for row in rows if row["gain"] == 3.0)
    every = {**found["sizes"], str(found["size"]): whole["exponents"]}
    for size, exponents in every.items():
        place = (np.arange(int(size)) + 0.5) / int(size)
        sizes.plot(place, exponents, ".-", linewidth=0.8, markersize=3, label=f"N = {size}")
    sizes.set(title="Size matters little, g = 3", xlabel="i / N", ylabel="λ (per τ)")
    truth, own = found["linear"]["truth"], found["linear"]["exponents"]
    line.plot(truth, own, "o", color="#222222", label="exponents")
    line.plot(truth, truth, color="#d1495b", linewidth=1, label="equal")
    line.set(title="A linear cell", xlabel="log |eigenvalue|", ylabel="exponent (per step)")
    for axes in (largest, spectra, sizes, line):
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main(small: bool = False, out: Path = Path("runs/reproduce")) -> dict[str, Any]:
    """Run, write and draw; gives all figures."""
    out.mkdir(parents=True, exist_ok=True)
    found = run(small)
    (out / "lyapunov.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, out / "lyapunov.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small sizes, in seconds")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    options = parser.parse_args()
    main(options.small, options.out)
