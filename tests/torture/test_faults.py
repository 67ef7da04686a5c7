"""A few faults in every run of the tests; `make torture` makes two thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bptt

ROOT = Path(__file__).parents[2]


def test_what_was_there_is_there_and_what_was_begun_ends(tmp_path: Path) -> None:
    """In a process of its own: it forks, and should not do so beside the threads of other tests."""
    paths = [str(Path(bptt.__file__).parents[1]), str(ROOT)]
    command = ["-m", "tests.torture.faults", "--cases", "6", "--seed", "5"]
    done = subprocess.run(
        [sys.executable, *command, "--commands", "fit --force", "predict", "--json", "score.json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["cases"] == 6
    assert score["lost"] == []
