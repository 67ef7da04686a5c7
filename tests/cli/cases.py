"""How the tests call the command line, and the table that they call it on."""

import numpy as np
from typer.testing import CliRunner

from bptt.cli._app import app

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
