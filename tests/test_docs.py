"""Every code block of the README and of the pages runs, to its end; and every `bptt` command.

The Python blocks of a page run one after the other under the names that its text takes for given
(`given`). Commands run with their defaults, in a folder that holds the files that they name: small
ones. What takes long is left to `make slow`.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bptt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"field.md"}  # whose blocks are lines of the scripts in `tests/field`

pytestmark = pytest.mark.filterwarnings("ignore:.*(Python loop|lanes|Converting a tensor)")


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The number of the line where each begins, and its text."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if found[1] == language:
            yield text.count("\n", 0, found.start(2)) + 1, found[2]


class MyCell(nn.GRUCell):
    """A reader's own."""


def given() -> dict[str, Any]:
    """The names that a page may take for given: small, of one feature."""
    torch.manual_seed(0)
    series = torch.arange(100).mul(0.3).sin()
    stream = bptt.Stream(series, horizon=1)
    network = bptt.Network(bptt.cells.GRU(1, 8), nn.Linear(8, 1))
    return {
        "torch": torch,
        "nn": nn,
        "bptt": bptt,
        "MyCell": MyCell,
        "series": series,
        "stream": stream,
        "train": stream,
        "network": network,
        "optimizer": torch.optim.Adam(network.parameters()),
        "loss": "mse",
        "method": bptt.Truncated(20, 10),
        "cell": bptt.cells.GRU(3, 4),
        "inputs": torch.randn(6, 2, 3),
        "state": None,
        "reset": torch.zeros(6, 2, dtype=torch.bool),
        "model": nn.Sequential(nn.GRU(3, 4)),
        "x": torch.randn(6, 2, 8),
        "my_loss": lambda outputs: outputs.square().mean(),
        "sensor": [torch.randn(1, 1) for _ in range(50)],
        "read_sensor": lambda: iter(torch.randn(50, 1)),
        "simulate": lambda: ((torch.randn(1), torch.randn(1)) for _ in range(50)),
    }


def of_plant() -> dict[str, Any]:
    """What the page about streams begins with: two inputs."""
    return {"network": bptt.Network(bptt.cells.GRU(2, 8), nn.Linear(8, 1))}


def text_stream() -> dict[str, Any]:
    """What its second half is about."""
    return {"stream": bptt.Stream.from_text("book.txt", lanes=4)}


def alone() -> dict[str, Any]:
    """What torchrun tells its processes, of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    return {}


# Of a page, before the block that begins with a line: what the text between the two says.
BETWEEN: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {
    ("devices.md", "network"): lambda: {
        "stream": bptt.Stream(torch.randn(50, 3), torch.randn(50, 1))
    },
    ("reliability.md", "bptt.training.join"): alone,
    ("streams.md", "stream = "): of_plant,
    ("streams.md", "cell = bptt.cells.Embedded"): text_stream,
    ("streams.md", "saved = "): given,
    ("reliability.md", "history = bptt.fit(network, stream, validation"): given,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # as they are, afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    random = np.random.default_rng(0)
    u, y = random.normal(size=(2, 150))
    for t in range(2, 150):
        y[t] = 0.7 * y[t - 1] + np.tanh(u[t - 2]) + 0.1 * y[t]
    rows = [f"{a:.4f},{50 + b:.4f}" for a, b in zip(u, y, strict=True)]
    table("furnace.csv", "InputGasRate,CO2", rows)
    table("newer.csv", "InputGasRate,CO2", rows[100:])
    table("load.csv", "load", [row.split(",")[1] for row in rows])
    plant = [f"{k // 30},{random.normal():.3f},{k % 7},{k % 5}" for k in range(960)]
    table("plant.csv", "run,u1,u2,y", plant)
    shops = [f"2024-{1 + d // 28:02}-{1 + d % 28:02},{s},{d % 7 + len(s)}" for d in range(60)
             for s in ("north", "south")]  # fmt: skip
    table("shops.csv", "day,shop,sales", shops)
    Path("book.txt").write_text("Once upon a time there was a king. " * 20)
    return tmp_path


def table(name: str, header: str, rows: list[str]) -> None:
    Path(name).write_text("\n".join([header, *rows]) + "\n")


def on_the_cpu(text: str) -> str:
    return text if torch.cuda.is_available() else text.replace('.to("cuda")', "")


SLOW = {"diagnostics.md", "reliability.md", "rivals.md"}
"""Pages whose blocks take tens of seconds."""


def parameter(path: Path) -> Any:
    """A page as the parameter of a test."""
    marks = [pytest.mark.slow] if path.name in SLOW else []
    return pytest.param(path, id=path.name, marks=marks)


WITH_PYTHON = [p for p in PAGES if p.name not in ELSEWHERE and any(blocks(p, "python"))]


@pytest.mark.parametrize("page", [parameter(path) for path in WITH_PYTHON])
def test_python(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = given()
    for line, text in blocks(page, "python"):
        for (name, begins), more in BETWEEN.items():
            if name == page.name and text.startswith(begins):
                names.update(more())
        # Errors name the page and its line.
        code = compile("\n" * (line - 1) + on_the_cpu(text), str(page), "exec")
        exec(code, names)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def commands(page: Path) -> list[str]:
    """The `bptt` commands that stand in blocks, or indented, each without its comment."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = [re.match(r"(?:\$ |    )?((?:bptt|torchrun) [^#]*)", line) for line in lines]
    return [m[1].strip() for m, line in zip(found, lines, strict=True) if m and "`" not in line]


LONG = ("bptt compare", "torchrun")
"""Minutes, and four processes that train at once."""


def run(line: str) -> str:
    found = ""
    for part in line.split(" && "):
        words = shlex.split(part)
        if words[0] == "bptt":
            words[:1] = [sys.executable, "-m", "bptt"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{part}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        found += done.stdout
    return found


WITH_COMMANDS = [p for p in PAGES if any(not c.startswith(LONG) for c in commands(p))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands(page: Path, folder: Path) -> None:
    if page.name == "diagnostics.md":
        run("bptt fit furnace.csv --inputs InputGasRate --target CO2 --out furnace --epochs 2")
    for line in commands(page):
        if not line.startswith(LONG):
            run(line)


@pytest.mark.slow
@pytest.mark.parametrize("line", [c for p in PAGES for c in commands(p) if c.startswith(LONG)])
def test_long_commands(line: str, folder: Path) -> None:
    run(line)
