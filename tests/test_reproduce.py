"""The published results, at small sizes."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "examples" / "reproduce"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def test_lyapunov_exponents_of_random_networks(tmp_path: Path) -> None:
    lyapunov = script("lyapunov")
    found = lyapunov["main"](True, tmp_path)
    below, above = found["gains"]
    assert (below["gain"], above["gain"]) == (0.8, 3.0)
    # Chaos above a gain of 1 (Sompolinsky, Crisanti and Sommers 1988), near the mean field.
    assert below["largest"] == pytest.approx(-0.2, abs=0.1)
    assert above["largest"] > 3 * above["error"]
    assert above["largest"] == pytest.approx(above["mean_field"], abs=0.1)
    # A point-symmetric spectrum (Engelken, Wolf and Abbott 2023): about −1/τ, by Euler's rule
    # about log(1 − Δt)/Δt.
    for row in (below, above):
        assert row["mean"] == pytest.approx(math.log(1 - found["step"]) / found["step"], rel=5e-3)
        exponents = np.array(row["exponents"])
        pairs = (exponents + exponents[::-1]) / 2
        assert np.abs(pairs - row["mean"]).mean() < 0.05
    assert found["linear"]["error"] < 5e-3
    assert (tmp_path / "lyapunov.png").read_bytes().startswith(b"\x89PNG")


def test_the_mean_field_has_its_known_limits() -> None:
    of = script("lyapunov")["MeanField"]
    # The second level is exactly zero; near the onset λ → (g − 1)²/2.
    for gain in (1.05, 2.0):
        assert of(gain).levels()[1] == pytest.approx(0.0, abs=1e-6)
    assert of(1.02).largest() / (0.02**2 / 2) == pytest.approx(1.0, abs=0.1)
