"""The whole: verdicts, files, the page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import bptt
from bptt.diagnostics._words import percent, signed
from bptt.network import Network

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def diagnosis() -> bptt.Diagnosis:
    torch.manual_seed(0)
    network = Network(bptt.cells.GRU(2, 5), nn.Linear(5, 1))
    stream = bptt.Stream(torch.randn(120, 2), torch.randn(120, 1))
    return bptt.diagnose(network, stream, depth=9, points=11, grid=5, starts=[0.2, 0.3, 0.21])


def test_it_prints_a_verdict_of_each_part(diagnosis: bptt.Diagnosis) -> None:
    lines = str(diagnosis).splitlines()
    assert lines[0] == "GRU over 120 steps"
    assert [line.split(":")[0] for line in lines[1:]] == ["reach", "dynamics", "surface", "optima"]
    assert re.search(r"vanish after about \d+ steps \(below 1% of their start\)", lines[1])
    assert re.search(r"depth \d+ captures 99\.\d+% of the full gradient", lines[1])
    assert re.search(r"largest exponent −0\.\d+ per step: stable", lines[2])


def test_it_saves_numbers_pictures_and_a_page(diagnosis: bptt.Diagnosis, tmp_path: Path) -> None:
    files = diagnosis.save(tmp_path / "here")
    names = ["diagnosis.json", "reach.png", "dynamics.png", "surface.png", "optima.png"]
    assert [f.name for f in files] == [*names, "diagnosis.html"]
    for file in files[1:-1]:
        assert file.read_bytes().startswith(PNG)
    content = json.loads(files[0].read_text())
    assert content["steps"] == 120
    assert content["reach"]["given"]["depth"] == 9
    assert len(content["dynamics"]["exponents"]) == 5
    assert content["optima"]["losses"] == [0.2, 0.21, 0.3]
    page = files[-1].read_text()
    assert page.count("data:image/png;base64,") == 4
    for verdict in diagnosis.verdicts().values():
        assert verdict[1:].replace("'", "&#39;") in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # nothing from outside
    # A later diagnosis of fewer parts leaves no picture of the earlier one.
    part = bptt.Diagnosis("GRU", 120, optima=diagnosis.optima)
    part.save(tmp_path / "here")
    assert sorted(f.name for f in (tmp_path / "here").glob("*.png")) == ["optima.png"]


def browser() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        found = shutil.which(name)
        if found:
            return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as tools:
        path = tools.chromium.executable_path
    return path if Path(path).exists() else None


def test_the_page_opens_without_a_console_error(diagnosis: bptt.Diagnosis, tmp_path: Path) -> None:
    found = browser()
    if found is None:
        pytest.skip("there is no Chromium here to open the page with")
    page = diagnosis.save(tmp_path)[-1]
    opened = subprocess.run(
        [
            found,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Diagnosis of GRU over 120 steps" in opened.stdout
    assert "CONSOLE" not in opened.stderr


def test_a_name_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    found = bptt.diagnostics.page("<script>alert(1)</script>", [])
    assert "<script" not in found
    assert "&lt;script&gt;" in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ("reach", "dynamic")}, "Did you mean 'dynamics'"),
        ({"depth": 121}, r"depth=121 is beyond the data: the longest sequence has 120 steps"),
        ({"lags": 500}, "lags=500 is beyond the data"),
        ({"lags": 10, "depth": 20}, "depth=20 is beyond the lags=10"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must lie between 0 and 1, not 0.0"),
        ({"share": 1}, "share must lie between 0 and 1"),
        ({"anchors": 0}, "anchors must be at least 1"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"points": 2}, "points must be at least 3"),
        ({"loss": "cross_entropy"}, "the readout scores 1 classes"),
        ({"loss": "rmse"}, "loss='rmse' is unknown"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(options: dict, message: str) -> None:
    network = Network(bptt.cells.Elman(2, 3), nn.Linear(3, 1))
    stream = bptt.Stream(torch.randn(120, 2), torch.randn(120, 2)[:, :1])
    if options.get("loss") == "cross_entropy":
        stream = bptt.Stream(torch.randn(120, 2), torch.randint(3, 6, (120,)))
    with pytest.raises(bptt.BpttError, match=message):
        bptt.diagnose(network, stream, **options)


def test_data_without_a_loss_are_refused() -> None:
    network = Network(bptt.cells.Elman(2, 3), nn.Linear(3, 1))
    never = torch.zeros(40, dtype=torch.bool)
    never[30] = True
    stream = bptt.Stream(torch.randn(40, 2), torch.randn(40, 1), mask=never)
    with pytest.raises(bptt.DataError, match="none of the first 20 steps counts"):
        bptt.diagnose(network, stream, steps=20)
    with pytest.raises(bptt.CellError, match="no parameter"):
        bptt.diagnose(network.requires_grad_(False), stream)
    with pytest.raises(bptt.OptionError, match=r"bptt\.Stream"):
        bptt.diagnose(network.requires_grad_(True), torch.randn(40, 2))
    with pytest.raises(bptt.ShapeError, match="cross_entropy"):
        bptt.diagnose(network, bptt.Stream(torch.randn(40, 2), torch.randint(0, 3, (40,))))


def test_a_loss_at_its_minimum_is_told() -> None:
    network = Network(bptt.cells.Elman(2, 3), nn.Linear(3, 1))
    with torch.no_grad():
        network.readout.weight.zero_()
        network.readout.bias.zero_()
    stream = bptt.Stream(torch.randn(40, 2), torch.zeros(40, 1))
    with pytest.raises(bptt.DataError, match="gradient is exactly zero"):
        bptt.diagnose(network, stream, parts="reach")


def test_numbers_in_words() -> None:
    assert percent(0.998) == "99.8%"
    assert percent(0.99995) == "99.995%"
    assert percent(1.0) == "100%"
    assert percent(1 - 1e-9) == "nearly 100%"
    assert percent(0.0) == "0%"
    assert percent(0.01) == "1%"
    assert signed(-0.03) == "−0.03"
    assert signed(float("-inf")) == "−∞"
