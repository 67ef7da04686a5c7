"""How the tests call the command line, the table that they call it on, and what is left there."""

import hashlib
import os
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from bptt.cli._app import app

COLUMNS = ("--inputs", "u", "--target", "y")
FAST = ("--epochs", "2", "--cell", "gru", "--hidden", "4")
FAST += ("--depth", "10", "--stride", "10", "--quiet")


def call(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text):
    """What a terminal shows, without the frames and line breaks of its panels."""
    return " ".join(text.translate(str.maketrans("│╭╮╰╯─", "      ")).split())


def write_table(path, rows=120, seed=0):
    random = np.random.default_rng(seed)
    u = random.normal(size=rows)
    y = np.zeros(rows)
    for t in range(2, rows):
        y[t] = 0.6 * y[t - 1] + np.tanh(u[t - 2]) + 0.05 * random.normal()
    lines = [f"{a:.6f},{50 + 10 * b:.6f},x{i}" for i, (a, b) in enumerate(zip(u, y, strict=True))]
    path.write_text("\n".join(["u,y,note", *lines]) + "\n")
    return path


def snapshot(folder):
    """Every file below a folder, with its content."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def fit(*arguments):
    result = call("fit", "data.csv", *COLUMNS, *FAST, *arguments)
    assert result.exit_code == 0, result.output
    return result


def in_fork(work):
    """The exit code of a process that does ``work``."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
