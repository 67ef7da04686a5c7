"""Hostile files of every format end in errors of this library's own, or in the right numbers, in
little memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fuzz import hostile
from tests.fuzz.__main__ import SECONDS, limited
from tests.fuzz.targets import Targets, read_all
from tests.fuzz.targets import signed_record as signed

import bptt
from bptt.forecasting import load, read_table, select


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    return Targets(tmp_path_factory.mktemp("hostile"))


def failures(files: hostile.Files, read: Callable[[bytes], object]) -> list[str]:
    """What else than a `BpttError` is raised, in a process of its own with little memory; that it
    dies is told by the name of the file that it read."""
    told = Path("told")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            warnings.simplefilter("ignore")
            limited()
            for name, data in files.items():
                told.write_text(f"{told.read_text() if told.exists() else ''}\n{name}: died")
                signal.alarm(SECONDS)
                found = _read(read, data)
                lines = told.read_text().splitlines()[:-1]
                told.write_text("\n".join([*lines, *([f"{name}: {found}"] if found else [])]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] in (0, signal.SIGALRM, signal.SIGSEGV, 256)
    found = [line for line in told.read_text().splitlines() if line]
    told.unlink()
    return found


def _read(read: Callable[[bytes], object], data: bytes) -> str:
    try:
        read(data)
    except bptt.BpttError as error:
        return "" if len(str(error)) < 2000 else "a message of many lines"
    except BaseException:
        return traceback.format_exc().replace("\n", " | ")
    return ""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _stream(path: str, column: str | int = "u") -> None:
    read_all(bptt.Stream.from_files(path, inputs=[column], horizon=1, chunk=16))


def _table(path: str) -> None:
    select(read_table(path), (), "u", "refuse")


def _put(path: str, read: Callable[[str], object]) -> Callable[[bytes], object]:
    def reading(data: bytes) -> object:
        Path(path).write_bytes(data)
        return read(path)

    return reading


@pytest.mark.parametrize("read", [_stream, _table])
def test_parquet(read: Callable[[str], object]) -> None:
    assert failures(hostile.parquet(), _put("data.parquet", read)) == []


@pytest.mark.parametrize("read", [_stream, _table])
def test_tables_in_text(read: Callable[[str], object]) -> None:
    assert failures(hostile.texts(), _put("data.csv", read)) == []


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_text(unit: str) -> None:
    def read(path: str) -> None:
        read_all(bptt.Stream.from_text(path, unit=unit, chunk=4096))  # type: ignore[arg-type]  # a word of two

    assert failures(hostile.texts(), _put("data.txt", read)) == []


def test_weights(targets: Targets) -> None:
    """Those of a run, whose record names their checksum."""
    run, record = targets.folder / "run", targets.good["run.json"]

    def read(data: bytes) -> None:
        (run / "model.safetensors").write_bytes(data)
        (run / "run.json").write_bytes(signed(data, record))
        load(run)

    assert failures(hostile.safetensors(targets.good["model.safetensors"]), read) == []


def _index() -> tuple[Path, Path]:
    rows = [f"{i},g{i // 20}" for i in range(60)]
    Path("data.csv").write_text("\n".join(["u,g", *rows, ""]))
    _grouped()
    return Path("data.csv"), next(Path("cache").iterdir())


def _grouped() -> list[float]:
    stream = bptt.Stream.from_files(
        "data.csv", inputs=["u"], group="g", horizon=1, chunk=16, cache="cache"
    )
    chunks: Iterator[torch.Tensor] = (batch.chunk(0, 99).inputs for batch in stream.batches())
    return sorted(float(x) for chunk in chunks for x in chunk.flatten())


def test_archives_of_arrays() -> None:
    """The index of a file in a cache: what is wrong with it is never believed."""
    _, index = _index()
    good, expected = index.read_bytes(), _grouped()

    def read(data: bytes) -> None:
        index.write_bytes(data)
        assert _grouped() == expected

    assert failures(hostile.npz(good), read) == []


def test_archives_of_arrays_are_no_tables() -> None:
    np.savez("good.npz", starts=np.arange(3.0))
    files = hostile.npz(Path("good.npz").read_bytes())
    assert failures(files, _put("data.npy", lambda path: _stream(path, 0))) == []


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "txt"])
def test_links(suffix: str) -> None:
    """To nothing, to themselves, to a folder, and to files that are read as others are."""
    os.symlink("nothing", f"absent.{suffix}")
    os.symlink(f"round.{suffix}", f"round.{suffix}")
    os.symlink(".", f"folder.{suffix}")
    for name in ("absent", "round", "folder"):
        path = f"{name}.{suffix}"
        with pytest.raises(bptt.BpttError):
            bptt.Stream.from_text(path) if suffix == "txt" else _stream(path, 0)
        if suffix in ("csv", "parquet"):
            with pytest.raises(bptt.BpttError):
                read_table(path)


def test_a_link_to_a_run_is_that_run(targets: Targets) -> None:
    shutil.copytree(targets.folder / "run", "run")
    for name in ("model.safetensors", "run.json"):
        Path("run", name).write_bytes(targets.good[name])
    os.symlink("run", "link")
    assert load("link").options == load("run").options
    os.rename("run/run.json", "elsewhere")
    os.symlink("../run/run.json", "run/run.json")
    with pytest.raises(bptt.BpttError):
        load("run")
    assert json.loads(Path("elsewhere").read_text())["format"] == 3
