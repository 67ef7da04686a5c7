"""Training from many initialisations: the error surface of a recurrent network has poor local
optima, and the surest way around them is to begin more than once.

Start i is drawn from the seed and i alone, so that it comes out the same by itself, among others,
and wherever it runs.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bptt.errors import (
    BpttError,
    CheckpointError,
    DataError,
    OptionError,
    at_least,
    at_most,
)
from bptt.files import Place, wait_for
from bptt.network import Network
from bptt.segments import undrawn
from bptt.streams import Stream
from bptt.training._checkpoint import Checkpoint, own_seed, refuse_saved
from bptt.training._history import History, Start
from bptt.training._loop import Callback
from bptt.training._progress import bar
from bptt.training._signals import Interrupted, Signals, asking
from bptt.training._workers import Asked, Watch, attend, deaf

Train = Callable[..., History]
"""`bptt.fit`, with all of its options given but the network, the stream and the callbacks."""

_generator = threading.Lock()
"""PyTorch's generator serves a whole process: starts that run in its threads take turns."""

Weights = dict[str, Tensor]

PATIENCE = 30.0
"""Seconds to wait for a start that another process is saving."""

MOST = 10**6
"""Starts at a time: with more, something else was meant."""


class Outcome(NamedTuple):
    """What comes back from one start: its record, and what training left unless it failed, or was
    stopped, and then is saved."""

    start: Start
    history: History | None
    weights: Weights
    error: Exception | None
    stopped: signal.Signals | None = None


def best_of(
    network: Network,
    stream: Stream,
    train: Train,
    callbacks: Sequence[Callback],
    starts: int | Sequence[int],
    seed: int | None,
    jobs: int | None,
    progress: bool,
    checkpoint: Checkpoint | None = None,
    resume: bool | Literal["force"] = False,
) -> History:
    """Train from every start, and give ``network`` the weights of the best one.

    Args:
        network: its weights are drawn anew for every start.
        stream: every start reads it from where it stands.
        train: trains a network, and takes ``checkpoint`` and ``resume``. Every start takes a copy
            of what it holds, so that none remembers another.
        callbacks: of all starts; not copied.
        starts: how many, or the numbers of those wanted.
        seed: of all of them; None draws it from PyTorch's generator.
        jobs: joblib's ``n_jobs``; None leaves it to ``joblib.parallel_config``.
        progress: show a bar that counts the starts.
        checkpoint: start i has the folder ``start-i`` in it.
        resume: go on from what is there, see `bptt.fit`; else one that is saved there is refused.

    Raises:
        OptionError: there is no start, one is saved already and not to go on, ``jobs`` is 0, or a
            parameter cannot be drawn anew.
        CheckpointError: a start cannot be saved, or another run trains it.
        BpttError: all starts failed; or several jobs are asked for and joblib is not installed.
    """
    numbers = _numbers(starts)
    check_jobs(jobs)
    with undrawn():
        draw_anew(copy.deepcopy(network))  # refuses before work
    root = int(torch.randint(2**62, ())) if seed is None else seed
    if checkpoint is not None:
        own_seed(checkpoint.path, root)
        for number in numbers:  # the process of a run that was killed may be saving
            wait_for(checkpoint.path / f"start-{number}", PATIENCE)
            if not resume:
                refuse_saved(checkpoint.path / f"start-{number}")
        # From here on what is saved is this call's own: a start that is trained again, because a
        # worker died, goes on from there.
        train = partial(train, resume=resume or True)
    place = None if checkpoint is None else Place(checkpoint.path)
    best: Outcome | None = None
    found = []
    watch = Watch(None if checkpoint is None else checkpoint.path)
    with watch, Signals(checkpoint is not None, told=watch.leave) as signals:
        trained = partial(_trained_one, network, stream, train, callbacks, root)
        one = partial(_train_one, trained, checkpoint, place, watch.asked, root)
        with closing(_run(one, numbers, jobs, watch)) as outcomes:
            for outcome in bar(outcomes, total=len(numbers), unit=" starts", enabled=progress):
                found.append(outcome._replace(weights={}))
                if outcome.stopped is not None:
                    watch.leave()
                if outcome.history is not None and (best is None or _rank(outcome) < _rank(best)):
                    best = outcome
        by = [outcome.stopped for outcome in found if outcome.stopped is not None]
        if signals.caught is not None or by:
            raise _interrupted(
                len(numbers) - len(by), len(numbers), checkpoint, signals.caught or by[0]
            )
    found.sort(key=lambda outcome: outcome.start.number)
    if best is None or best.history is None:
        raise _all_failed(found)
    for outcome in found:
        if outcome.error is not None:
            warnings.warn(
                f"start {outcome.start.number} failed and is left out: {outcome.start.error}",
                stacklevel=3,
            )
    network.load_state_dict(best.weights)
    history = best.history
    history.start = best.start.number
    history.starts = [outcome.start for outcome in found]
    return history


def draw_anew(network: Network) -> None:
    """Draw all trained parameters from PyTorch's generator: every module's ``reset_parameters()``,
    PyTorch's convention, the parts before the whole. Parameters that need no gradient stay.

    Raises:
        OptionError: no ``reset_parameters()`` sets some of the parameters.
    """
    kept = {name: p.detach().clone() for name, p in network.named_parameters() if not _trained(p)}
    with torch.no_grad():
        for parameter in network.parameters():
            if _trained(parameter):
                parameter.fill_(float("nan"))  # so that it shows what is not drawn
        network.apply(_reset)
        for name, parameter in network.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    missed = [name for name, p in network.named_parameters() if bool(torch.isnan(p).any())]
    if missed:
        owner = network.get_submodule(missed[0].rpartition(".")[0])
        raise OptionError(
            f"starts= draws the weights anew by reset_parameters(), and none sets {missed[0]}"
            f"{f' and {len(missed) - 1} more' if len(missed) > 1 else ''}: give "
            f"{type(owner).__name__}, or the module that holds it, a method reset_parameters() "
            "that does, or set requires_grad=False on what is to stay as it is."
        )


def _trained(parameter: Tensor) -> bool:
    return parameter.requires_grad and parameter.is_floating_point()


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()


NOT_OF_ONE = (CheckpointError, DataError, OptionError, OSError)
"""What no start has failed by: it cannot be saved, another process trains it, its data or options
are others than those that it was begun with, or the system refuses something."""


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of starts at a time that means nothing.

    Raises:
        OptionError: it is 0.
    """
    if jobs == 0:
        raise OptionError("jobs must be a number of starts at a time, or -1 for all, not 0.")


def _numbers(starts: Any) -> list[int]:
    if isinstance(starts, Sequence) and not isinstance(starts, str):
        numbers = list(starts)
        for number in numbers:
            at_least(0, starts=number)
        if not numbers or len(set(numbers)) != len(numbers):
            raise OptionError(f"starts= takes each number once, and at least one, not {numbers}.")
        return numbers
    at_least(1, starts=starts)
    at_most(MOST, starts=starts)
    return list(range(starts))


def _train_one(
    train: Callable[[Checkpoint | None, int], Outcome],
    checkpoint: Checkpoint | None,
    place: Place | None,
    asked: Asked,
    root: int,
    number: int,
) -> Outcome:
    """One start, unless the process that asked for it is gone or no longer wants it.

    Raises:
        Moved: the folder of all starts is not where it was.
    """
    own = _own(checkpoint, root, number)
    if place is not None and asked.near:
        place.check()
    with asked.watched(saves=own is not None):
        if asked.left():
            return _stopped(number)
        try:
            with asking(asked.left) if own is not None else nullcontext():
                outcome = train(own, number)
        except Interrupted as error:
            return _stopped(number, error.signal)
        return outcome if asked.here else outcome._replace(error=_sendable(outcome.error))


def _sendable(error: Exception | None) -> Exception | None:
    """What can be sent to the process that asked. An exception that cannot be read there would be
    taken for the death of a worker, and all starts at work would be lost."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own methods raise
        assert error is not None
        return BpttError(_told(error))
    return error


def _stopped(number: int, by: signal.Signals = signal.SIGTERM) -> Outcome:
    return Outcome(Start(number), None, {}, None, by)


def _trained_one(
    network: Network,
    stream: Stream,
    train: Train,
    callbacks: Sequence[Callback],
    seed: int,
    checkpoint: Checkpoint | None,
    number: int,
) -> Outcome:
    """One start, on copies; its generator is its own, from drawing to the last update."""
    sequence = np.random.SeedSequence(seed, spawn_key=(number,))
    with _generator, undrawn():
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
        try:
            mine, data, again = copy.deepcopy((network, stream, train))
            draw_anew(mine)
            history = again(mine, data, callbacks=callbacks, checkpoint=checkpoint)
        except NOT_OF_ONE:
            raise
        except Exception as error:  # whatever one start dies of, the others go on
            return Outcome(Start(number, error=_told(error)), None, {}, error)
    loss, epoch = _end(history)
    start = Start(number, loss, epoch, tuple(history.watched), history.stop_reason)
    return Outcome(start, history, {k: v.detach() for k, v in mine.state_dict().items()}, None)


def _own(checkpoint: Checkpoint | None, root: int, number: int) -> Checkpoint | None:
    if checkpoint is None:
        return None
    own = checkpoint.path / f"start-{number}"
    return replace(checkpoint, folder=own, start=f"{number} of seed {root}")


def _end(history: History) -> tuple[float, int]:
    """The loss that a start is judged by, of the weights that it ended with, and their epoch."""
    epoch = history.best_epoch if history.restored else len(history)
    if epoch == 0:
        assert history.initial_validation is not None
        return history.initial_validation, 0
    return history.watched[epoch - 1], epoch


def _rank(outcome: Outcome) -> tuple[bool, float, int]:
    """The lowest loss first, NaN last, and of equals the first."""
    start = outcome.start
    return start.loss != start.loss, start.loss, start.number


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _all_failed(found: list[Outcome]) -> Exception:
    first = found[0].error
    assert first is not None
    if len(found) == 1:
        return first
    kind = type(first) if isinstance(first, BpttError) else BpttError
    failure = kind(f"all {len(found)} starts failed, the first of them so: {_told(first)}")
    failure.__cause__ = first
    return failure


def _interrupted(
    done: int, count: int, checkpoint: Checkpoint | None, by: signal.Signals
) -> Interrupted:
    where = "" if checkpoint is None else f" in {checkpoint.path}"
    return Interrupted(
        f"stopped after {done} of {count} starts; the others are saved{where}. The same call "
        "with resume=True goes on from there.",
        by,
    )


def _run(
    one: Callable[[int], Outcome], numbers: list[int], jobs: int | None, watch: Watch
) -> Generator[Outcome]:
    """Every start's outcome, as they come."""
    try:
        import joblib
    except ImportError as error:
        if jobs not in (None, 1):
            raise BpttError(
                f"jobs={jobs} needs joblib: pip install 'bptt[starts]'. Without it the starts run "
                "one after another."
            ) from error
        yield from map(one, numbers)
        return
    left = list(numbers)
    try:
        for outcome in _parallel(joblib, one, numbers, jobs):
            left.remove(outcome.start.number)
            yield outcome
    except NOT_OF_ONE:
        raise
    except Exception:
        # A worker died and took the pool with it: every start that is left gets a pool of its own.
        for number in left:
            if watch.asked.left():
                yield _stopped(number)
                continue
            try:
                yield from _parallel(joblib, one, [number], jobs)
            except NOT_OF_ONE:
                raise
            except Exception as error:
                yield Outcome(Start(number, error=_told(error)), None, {}, error)


def _parallel(
    joblib: Any, one: Callable[[int], Outcome], numbers: list[int], jobs: int | None
) -> Iterator[Outcome]:
    if jobs is not None:
        # More would only import PyTorch; with one the start would run in this process, and what
        # kills it would kill all.
        jobs = min(joblib.effective_n_jobs(jobs), max(len(numbers), 2))
    try:
        pool = joblib.Parallel(
            n_jobs=jobs,
            return_as="generator_unordered",
            batch_size=1,
            initializer=attend,
            initargs=(os.getpid(),),
        )
    except ValueError as error:  # of the backend in `joblib.parallel_config`
        raise OptionError(f"joblib cannot run the starts: {error}.") from error
    with deaf() if pool.n_jobs != 1 else nullcontext():
        outcomes = pool(joblib.delayed(one)(number) for number in numbers)
    yield from outcomes
