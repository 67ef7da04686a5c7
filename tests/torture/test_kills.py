"""A few kills in every run of the tests; `make torture` makes a hundred and more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bptt

ROOT = Path(__file__).parents[2]


def test_killed_it_ends_as_if_never_killed(tmp_path: Path) -> None:
    pytest.importorskip("bptt._core")
    command = ["-m", "tests.torture.torture", "--kills", "3", "--combinations", "1", "--seed", "2"]
    source = str(Path(bptt.__file__).parents[1])
    paths = {"PYTHONPATH": os.pathsep.join([source, str(ROOT)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, "--json", str(tmp_path / "score.json")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **paths},
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["kills"] >= 3
    assert score["lost"] == []
