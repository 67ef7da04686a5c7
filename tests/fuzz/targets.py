"""What is fuzzed: each target takes a string of bytes and must end well or with a `BpttError`."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.fuzz.damage import Draw, damaged, spoiled_json, spoiled_tensors

import bptt
from bptt import _core, runs, text
from bptt.files import sums
from bptt.forecasting import Job, Options, load, plan, read_table, save, select, train

ROWS = 60


class Targets:
    """The good files, made once, and what is done with damaged copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good: dict[str, bytes] = {}
        self._tables()
        self._run()
        self._checkpoint()
        self.all: dict[str, Callable[[Draw], None]] = {
            "model": self.model,
            "checkpoint": self.checkpoint,
            "table": self.table,
            "stream": self.stream,
            "text": self.text,
            "core": core,
            "command": self.command,
        }

    def _tables(self) -> None:
        random = np.random.default_rng(0)
        columns = np.round(random.normal(size=(ROWS, 2)), 4)
        rows = [f"{a},{b},g{i // 20}" for i, (a, b) in enumerate(columns.tolist())]
        self.good["csv"] = "\n".join(["u,y,g", *rows, ""]).encode()
        self.good["tsv"] = self.good["csv"].replace(b",", b"\t")
        # Semicolons, quotes, other line ends, blank lines, words for missing numbers.
        odd = self.good["csv"].replace(b",", b";").replace(b"\n", b"\r\n").replace(b"0.5", b" NA ")
        self.good["txt"] = b'\xef\xbb\xbf"u";"y";"g;h"\r\n' + odd.partition(b"\n")[2] + b"\r\n\r\n"
        import pyarrow as pa
        import pyarrow.parquet

        table = pa.table({"u": columns[:, 0], "y": columns[:, 1]})
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        self.good["parquet"] = sink.getvalue().to_pybytes()
        npy = io.BytesIO()
        np.save(npy, columns)
        self.good["npy"] = npy.getvalue()
        self.good["text"] = ("Grüße an alle — 日本 🙂 " * 20).encode()

    def _run(self) -> None:
        path = self.put("data.csv", self.good["csv"])
        series = select(read_table(path), ("u",), "y")
        fast = Options(epochs=1, hidden=3, depth=10, stride=10)
        save(train(plan(series, fast), progress=False), self.folder / "run")
        for name in ("model.safetensors", "run.json"):
            self.good[name] = (self.folder / "run" / name).read_bytes()
        job = Job(data=path, inputs=("u",), target="y", missing="refuse", options=fast)
        runs.note(self.folder / "run", job)
        self.good["job.json"] = (self.folder / "run" / "job.json").read_bytes()
        book = self.put("book.txt", b"the cat sat on the mat. " * 20)
        small = text.Options(epochs=1, hidden=3, embedding=2, lanes=2)
        text.save(text.train(text.task(book, small), progress=False), self.folder / "book")
        for name in ("model.safetensors", "run.json"):
            self.good[f"book/{name}"] = (self.folder / "book" / name).read_bytes()
        runs.note(self.folder / "book", text.Job(data=book, options=small))
        self.good["book/job.json"] = (self.folder / "book" / "job.json").read_bytes()

    def _checkpoint(self) -> None:
        self.saved = self.folder / "saved"
        self._resume()
        (one,) = list(self.saved.glob("checkpoint-*"))[-1:]
        self.good_checkpoint = {path.name: path.read_bytes() for path in one.iterdir()}

    def _resume(self) -> None:
        torch.manual_seed(0)
        net = bptt.Network(bptt.cells.Elman(1, 2), torch.nn.Linear(2, 1), backend="eager")
        stream = bptt.Stream(torch.arange(6.0) / 6, horizon=1)
        method, where = bptt.Truncated(3), bptt.Checkpoint(self.saved, every=100, keep=1)
        bptt.fit(
            net, stream, method=method, epochs=1, progress=False, checkpoint=where, resume=True
        )

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    def model(self, draw: Draw) -> None:
        """The loaders of runs, of tables and of texts, and of what they were begun with."""
        kind = draw.choice(["", "", "book/"])
        folder = self.folder / (kind or "run")
        which = draw.number(4)
        if which == 3:
            (folder / "job.json").write_bytes(spoiled_json(draw, self.good[f"{kind}job.json"]))
            runs.begun(folder, [Job, text.Job])
            return
        weights, record = self.good[f"{kind}model.safetensors"], self.good[f"{kind}run.json"]
        if which != 1:
            weights = spoiled_tensors(draw, weights)
        if which != 0:
            record = spoiled_json(draw, record)
        if draw.number(4) != 1:
            record = signed_record(weights, record)
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "run.json").write_bytes(record)
        text.load(folder) if kind else load(folder)

    def checkpoint(self, draw: Draw) -> None:
        """Going on from a checkpoint, with its checksums wrong, or made right by a stranger."""
        files = dict(self.good_checkpoint)
        name = draw.choice(sorted(files))
        kind = spoiled_tensors if name.endswith(".safetensors") else spoiled_json
        files[name] = kind(draw, files[name])
        if draw.number(4) != 1:
            files = _signed(files)
        shutil.rmtree(self.saved)
        target = self.saved / "checkpoint-00000003"
        target.mkdir(parents=True)
        for path, data in files.items():
            (target / path).write_bytes(data)
        self._resume()

    def table(self, draw: Draw) -> None:
        """Tables of the command line."""
        kind = draw.choice(["csv", "tsv", "parquet", "txt"])
        path = self.put(f"data.{kind}", damaged(draw, self.good[kind]))
        inputs = draw.choice([(), ("u",)])
        select(read_table(path), inputs, "y", draw.choice(["refuse", "mask"]))

    def stream(self, draw: Draw) -> None:
        """Streams from files, read to the end; with a cached index that may be damaged."""
        kind = draw.choice(["csv", "tsv", "parquet", "npy"])
        path = self.put(f"data.{kind}", damaged(draw, self.good[kind]))
        column: Any = 0 if kind == "npy" else "u"
        group = "g" if kind in ("csv", "tsv") and draw.flag() else None
        cache = None
        if group and draw.flag():
            cache = self.folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            self.put(f"data.{kind}", self.good[kind])
            self._read(path, column, group, cache)
            for index in cache.iterdir():
                index.write_bytes(damaged(draw, index.read_bytes()))
        self._read(path, column if draw.flag() else [column], group, cache)

    def _read(self, path: Path, column: Any, group: str | None, cache: Path | None) -> None:
        stream = bptt.Stream.from_files(
            path, inputs=column, group=group, horizon=1, chunk=16, cache=cache
        )
        read_all(stream)

    def text(self, draw: Draw) -> None:
        """Text, by characters and by bytes."""
        path = self.put("data.txt", damaged(draw, self.good["text"]))
        read_all(bptt.Stream.from_text(path, unit=draw.choice(["character", "byte"]), chunk=4096))

    def command(self, draw: Draw) -> None:
        """The command line: an exit code and a message, never a traceback."""
        from typer.testing import CliRunner

        from bptt.cli._app import app

        result = CliRunner().invoke(app, self._arguments(draw))
        if result.exit_code not in (0, 1, 2) or not isinstance(
            result.exception, (SystemExit, type(None))
        ):
            raise RuntimeError("the command line failed") from result.exception

    def _arguments(self, draw: Draw) -> list[str]:
        data = self.put(
            "data.csv", damaged(draw, self.good["csv"]) if draw.flag() else self.good["csv"]
        )
        if draw.flag():
            which = [self.folder / "run", data, self.folder / "none", "\x01", ""]
            arguments = ["predict", str(draw.choice(which)), str(draw.choice(which))]
            more = ["--free-run", "--missing", "--out", "--hidden"]
        else:
            arguments = ["fit", str(data), "--target", "y", "--inputs", "u"]
            more = [
                "--horizon", "--test", "--validation", "--cell", "--hidden", "--layers", "--method",
                "--depth", "--stride", "--loss", "--optimizer", "--lr", "--weight-decay", "--clip",
                "--patience", "--seed", "--target", "--inputs", "--missing", "--simulate",
                "--lags", "--season",
            ]  # fmt: skip
        values = ["0", "-1", "3", "nan", "inf", "1e308", "-0.0", "9" * 30, "", "x", "u", "lstm",
                  "full", "lbfgs", "mask", "0.5", "../x", "\ud800", "--", "2000000000"]  # fmt: skip
        for _ in range(draw.number(4)):
            arguments += [draw.choice(more), draw.choice(values)]
        if arguments[0] == "fit":
            out = self.folder / "made"
            shutil.rmtree(out, ignore_errors=True)
            arguments += ["--epochs", "1", "--quiet", "--out", str(out)]
        return arguments


def read_all(stream: bptt.Stream) -> None:
    """Every chunk of an epoch."""
    for batch in stream.batches():
        for start in range(0, batch.length, 999):
            batch.chunk(start, start + 999)


def signed_record(weights: bytes, record: bytes) -> bytes:
    """A run's record with the right checksum of other weights."""
    try:
        content = json.loads(record)
        about = content["files"]["model.safetensors"]
        about |= sums({"": weights})[""]
        return json.dumps(content).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return record


def _signed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The checksums made right again, as one who means harm would."""
    try:
        about = json.loads(files["manifest.json"])
        for name in about["files"]:
            if name in files:
                about["files"] |= sums({name: files[name]})
        about.pop("sha256", None)
        about["sha256"] = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        return {**files, "manifest.json": json.dumps(about).encode()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return files


H = 4
SIZES = [H, 0, 1, 3, -1, 2**31, 2**62, 2**63 - 1, 2**63, H + 1]


def _operand(draw: Draw) -> Any:
    space = draw.choice([*_core.SPACES, "constant", "", None])
    if draw.number(8) == 1:
        return draw.choice([1.0, float("nan"), None, "x", 3, ()])
    return (
        space,
        draw.choice([0, 1, 2, -1, 2**40]),
        draw.choice([0, 0, *SIZES]),
        draw.choice(SIZES),
    )


def _line(draw: Draw) -> Any:
    name = draw.choice([*_core.OPCODES, "leap", None])
    count = 1 + _core.OPCODES.get(name, 1)
    if name == "matmul":
        return (name, _operand(draw), None, _operand(draw), draw.choice([0, 1, -1, 2**63]))
    return (name, *[_operand(draw) for _ in range(count + draw.choice([0, 0, 0, 1, -1]))])


def _array(draw: Draw, *shape: int) -> Any:
    kind = draw.number(14)
    base = torch.zeros(*shape)
    if kind == 1:
        return base.to(draw.choice([torch.float64, torch.int32, torch.bfloat16, torch.bool]))
    if kind == 2:
        return torch.zeros(*shape[:-1], 2 * shape[-1])[..., ::2]
    if kind == 3:
        return torch.zeros(1).expand(*shape)
    if kind == 4:
        return torch.zeros(*shape[:-1], draw.choice([0, 1, 3, 5]))
    if kind == 5:
        return draw.choice([None, 3, "abcd", [1.0] * 4, b"1234", np.float32(1), object()])
    if kind == 6:
        return base.numpy()[::-1]
    if kind == 7:
        return torch.zeros(*shape, device="meta")
    if kind == 8:
        return np.zeros(shape, draw.choice([">f4", "O", "S4", "f8", "V4"]))
    if kind == 9:
        return base.transpose(0, -1)
    if kind == 10:
        raw = np.frombuffer(bytes(4 * int(np.prod(shape)) + 1), np.uint8)
        return raw[1:].view(np.float32).reshape(shape)
    return base


def core(draw: Draw) -> None:
    """The native core: whatever programs and arrays it is given from Python."""
    program: dict[str, Any] = {
        "dtype": "float32",
        "reverse": False,
        "states": [H],
        "scratch": [H],
        "time": [(H, "r"), (H, "w")],
        "units": [H],
        "matrices": [(H, H)],
        "instructions": [
            ("matmul", ("time", 1, 0, H), ("unit", 0, 0, H), ("state", 0, 0, H), 0),
            ("add", ("next", 0, 0, H), ("time", 1, 0, H), ("time", 0, 0, H)),
        ],
    }
    if draw.flag():
        program["instructions"] = [
            *program["instructions"],
            *(_line(draw) for _ in range(1 + draw.number(3))),
        ]
    if draw.number(4) == 1:
        name = draw.choice(["states", "scratch", "time", "units", "matrices", "dtype", "reverse"])
        program[name] = draw.choice(
            [[], [0], [2**62], [(2**62, 2**62)], [(H, "w"), (H, "w")], None, True, "x", 5]
        )
    steps, batch = 3, 2
    pool = torch.zeros(4, 4, 4 * H)
    arrays: dict[str, Any] = {
        "states": [_array(draw, 4, 2, H)],
        "time": [_array(draw, 3, 2, H), _array(draw, 3, 2, H)],
        "units": [_array(draw, H)],
        "matrices": [_array(draw, H, H)],
    }
    if draw.number(4) == 1:
        arrays[draw.choice(list(arrays))] = draw.choice([[], None, [None] * 3, 3, {}])
    if draw.number(3) == 1:  # what is written lies in what is read
        width = draw.number(2 * H)
        arrays["time"] = [pool[:3, :2, :H], pool[:3, :2, width : width + H]]
        if draw.flag():
            arrays["states"] = [pool[:, :2, draw.number(3 * H) :][..., :H]]
    if draw.number(4) == 1:
        arrays["lengths"] = draw.choice(
            [torch.tensor([-1, 2**62]), torch.zeros(3), torch.ones(2), None]
        )
    if draw.number(4) == 1:
        arrays["reset"] = draw.choice([torch.ones(3, 2, dtype=torch.bool), torch.ones(2, 2), 1])
        arrays["initial"] = [_array(draw, 2, H)]
    if draw.number(4) == 1:
        steps, batch = draw.choice([0, -1, 2**31, 2**62, 4]), draw.choice([0, 1, 2**62, 2])
    if draw.number(8) == 1:
        arrays["threads"] = draw.choice([0, -1, 2, 2**31, "x"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built = _core.Program(**program)
            built.forward(steps=steps, batch=batch, **arrays)
    except (TypeError, ValueError):
        pass  # what `_core.pyi` promises
