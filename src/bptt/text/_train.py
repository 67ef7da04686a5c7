"""From a text file to a trained model and its loss beside those of counted frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from bptt.errors import DataError
from bptt.files import printable
from bptt.gradients import Truncated
from bptt.runs import HISTORY, MODEL, Made, tensors_of, write_run
from bptt.streams import Chunk, Stream, Vocabulary
from bptt.text._model import Options, TextModel, build
from bptt.training import Checkpoint, History, Patience, fit

LARGEST_PAIRS = 1024
"""Vocabularies up to this size are compared with the frequencies of pairs of symbols."""


@dataclass(frozen=True)
class Task:
    """A text that can be learnt: divided and checked.

    Attributes:
        path: the file.
        vocabulary: its symbols.
        options: how to train.
        training, validation, test: its parts, one after the other.
    """

    path: Path
    vocabulary: Vocabulary
    options: Options
    training: Stream
    validation: Stream
    test: Stream


@dataclass(frozen=True)
class Result:
    """What training gives: the model, its history, and bits per symbol on the test part by name."""

    task: Task
    model: TextModel
    history: History
    bits: dict[str, float]


def task(path: str | Path, options: Options, cache: str | Path | None = None) -> Task:
    """Index a text, and divide it.

    Raises:
        DataError: it is no UTF-8 text, or too short.
    """
    stream = Stream.from_text(path, unit=options.unit, lanes=options.lanes, cache=cache)  # type: ignore[arg-type]  # checked
    assert stream.vocabulary is not None
    least = round(min(options.validation, options.test) * stream.steps)
    learnt = stream.steps * (1 - options.validation - options.test)
    if least < 2 or learnt < 2 * options.lanes:
        raise DataError(
            f"{path} has {stream.steps} {options.unit}s, too few to learn from on {options.lanes} "
            "lanes and to test on: give more text, or fewer lanes and larger shares."
        )
    parts = stream.split(1 - options.validation - options.test, options.validation)
    return Task(Path(path), stream.vocabulary, options, *parts)


def train(
    task: Task,
    progress: bool = True,
    checkpoint: Checkpoint | None = None,
    resume: bool | Literal["force"] = False,
) -> Result:
    """Train by truncated backpropagation through time with Adam, keep the epoch with the lowest
    validation loss, and test.

    Args:
        task: from `task`.
        progress: show a bar.
        checkpoint: where and how often training is saved.
        resume: whether to go on from there, see `bptt.fit`.

    Raises:
        NonFiniteError: the loss or gradient became NaN or infinite.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, and training is saved.
    """
    options = task.options
    torch.manual_seed(options.seed)
    model = build(task.vocabulary, options)
    history = fit(
        model.network,
        task.training,
        method=Truncated(options.depth),
        loss="cross_entropy",
        optimizer=torch.optim.Adam(model.network.parameters(), options.lr),
        epochs=options.epochs,
        validation=task.validation,
        stop=Patience(options.patience, restore_best=True),
        clip=options.clip,
        on_nonfinite=options.on_nonfinite,  # type: ignore[arg-type]  # checked by Options
        progress=progress,
        seed=options.seed,
        checkpoint=checkpoint,
        resume=resume,
    )
    model.network.eval()
    bits = {f"network ({options.cell})": model.bits(task.test), **_counted(task)}
    return Result(task, model, history, bits)


def _counted(task: Task) -> dict[str, float]:
    """Bits per symbol of frequencies counted on the training part, each seen once more."""
    size = len(task.vocabulary)
    found = {}
    single = torch.ones(size, dtype=torch.float64)
    pairs = torch.ones(size, size, dtype=torch.float64) if size <= LARGEST_PAIRS else None
    for before, after in _pairs(task.training):
        single += torch.bincount(after, minlength=size)
        if pairs is not None:
            joint = torch.bincount(before * size + after, minlength=size * size)
            pairs += joint.reshape(size, size)
    if pairs is not None:
        shares = pairs / pairs.sum(dim=1, keepdim=True)
        found["frequencies of pairs"] = _bits(task.test, shares)
    found["frequencies of symbols"] = _bits(task.test, (single / single.sum()).expand(size, size))
    return found


def _pairs(stream: Stream) -> Iterator[tuple[Tensor, Tensor]]:
    """Symbols and those that follow them, a chunk at a time."""
    for batch in stream.in_order():
        for start in range(0, batch.length, 1 << 14):
            chunk: Chunk = batch.chunk(start, start + (1 << 14))
            yield chunk.inputs[chunk.mask], chunk.targets[chunk.mask]


def _bits(stream: Stream, shares: Tensor) -> float:
    total, count = 0.0, 0
    for before, after in _pairs(stream):
        total -= float(shares[before, after].log().sum())
        count += len(after)
    return total / count / math.log(2)


def made(result: Result) -> Made:
    """The run, to be written."""
    about = {
        "data": {
            "source": printable(str(result.task.path)),
            "training": result.task.training.steps,
            "validation": result.task.validation.steps,
            "test": result.task.test.steps,
        },
        "training": {
            "epochs": len(result.history),
            "best_epoch": result.history.best_epoch,
            "stop_reason": result.history.stop_reason,
        },
        "bits": result.bits,
    }
    parts = {
        MODEL: save_tensors(tensors_of(result.model.network)),
        HISTORY: result.history.as_csv().encode(),
    }
    return Made(parts, {**result.model.to_json(), **about})


def save(result: Result, folder: str | Path, force: bool = False) -> list[Path]:
    """Write a run; see `bptt.forecasting.save`."""
    return write_run(folder, made(result), force)
