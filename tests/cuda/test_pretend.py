"""The scenarios on a pretended device, in a process of its own: what fails on a GPU fails here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cuda import pretend
from tests.cuda.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _possible() -> None:
    reason = pretend.why_not()
    if reason is not None:
        pytest.skip(reason)


QUICK = (
    "unfold",
    "unfold_with_everything",
    "unfold_indices",
    "layers",
    "recurrent_with_resets",
    "plans",
    "updates_by_hand",
    "fit_with_options",
    "evaluate_and_predict",
    "streams_on_other_devices",
)


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(tuple(SCENARIOS), marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_every_scenario_works_elsewhere(names: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.cuda", f"{pretend.NAME}:0", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("ok ")] == list(names)


def test_it_refuses_what_a_gpu_refuses() -> None:
    code = """
import torch
from tests.cuda import pretend
device = pretend.install()
here = torch.ones(3).to(device)
for mixed in (lambda: here + torch.ones(3), lambda: torch.ones(3)[here > 0], here.numpy):
    try:
        mixed()
    except (RuntimeError, TypeError):
        continue
    raise SystemExit("it was taken")
assert (here + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]
assert not torch.equal(here.uniform_().cpu(), torch.empty(3).uniform_())
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
