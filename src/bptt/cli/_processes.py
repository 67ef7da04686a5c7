"""The command line as one of several processes that torchrun started."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch.distributed as dist

from bptt import _ending
from bptt._ending import world
from bptt.errors import ProcessError
from bptt.training import join_processes

T = TypeVar("T")


def first() -> bool:
    """Whether this is the process that speaks and writes."""
    return world() == 1 or dist.get_rank() == 0


def started_again() -> bool:
    """Whether torchrun started all processes again after one of them had failed."""
    return world() > 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") not in ("", "0")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within, this process trains with the others; only the first one speaks."""
    if world() == 1:
        yield
        return
    if int(os.environ["RANK"]) >= world():  # it would wait for ever
        raise ProcessError(
            f"RANK is {os.environ['RANK']}, of {world()} processes by WORLD_SIZE: start all by "
            "torchrun, or unset both."
        )
    _leave_with_torchrun()
    with _ending.left():  # the connection waits in native code, and nothing is saved yet
        try:
            join_processes("gloo")
        except (RuntimeError, ValueError) as error:
            raise ProcessError(
                f"RANK and WORLD_SIZE tell of {world()} processes, which do not find each other: "
                f"{str(error).partition(chr(10))[0]}. Start all by torchrun, or unset both."
            ) from error
    try:
        quiet = contextlib.nullcontext() if first() else contextlib.redirect_stdout(io.StringIO())
        with quiet:
            yield
    finally:
        dist.destroy_process_group()


PAUSE, PATIENCE = 0.5, 60.0
"""Seconds between two looks at torchrun, and those that are left to save when it is gone."""


def _leave_with_torchrun() -> None:
    """End as by SIGTERM, saved, when torchrun was killed: nobody else would end its processes."""
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(PAUSE)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)  # another process may be gone already, and this one wait for it
        os._exit(128 + signal.SIGTERM)

    if os.name == "posix":
        threading.Thread(target=look, daemon=True).start()


def decided(decide: Callable[[], T]) -> T:
    """What the first process decides, in all of them.

    Raises:
        BpttError: in the first process what went wrong, in the others that it did.
    """
    if world() == 1:
        return decide()
    found: list[tuple[T] | None] = [None]
    try:
        if first():
            found = [(decide(),)]
    finally:
        _share(found)
    if found[0] is None:
        raise ProcessError("process 0 could not begin; its own message says why.")
    return found[0][0]


def agreed(work: Callable[[], T]) -> T:
    """What every process does by itself before training. Where it fails in one of them, it fails in
    all, so that the first one can tell why.

    Raises:
        BpttError: where it failed, what went wrong; in the others that it did, and where.
    """
    if world() == 1:
        return work()
    failed: Exception | None = None
    try:
        found = work()
    except Exception as error:  # whatever it is: the others wait
        failed = error
    told: list[str | None] = [None] * world()
    try:
        dist.all_gather_object(told, None if failed is None else str(failed) or repr(failed))
    except RuntimeError as error:
        raise failed or ProcessError(f"another process ended before training: {error}") from error
    if failed is not None:
        raise failed
    for rank, text in enumerate(told):
        if text is not None:
            raise ProcessError(f"process {rank} could not begin: {text}")
    return found


def _share(found: list[Any]) -> None:
    try:
        dist.broadcast_object_list(found, 0)
    except RuntimeError as error:
        raise ProcessError(f"another process ended before training began: {error}") from error
