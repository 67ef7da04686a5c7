"""Threads: the same bits whatever their number, several callers at once, forks."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from bptt import _core

T, B, H = 30, 37, 48


def program() -> _core.Program:
    return _core.Program(
        dtype="float32",
        reverse=False,
        states=[H],
        time=[(H, "r")],
        matrices=[(H, H)],
        instructions=[
            ("matmul", ("next", 0, 0, H), ("time", 0, 0, H), ("state", 0, 0, H), 0),
            ("tanh", ("next", 0, 0, H), ("next", 0, 0, H)),
        ],
    )


def work(core: _core.Program, threads: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    states = torch.zeros(T + 1, B, H)
    inputs, weight = torch.randn(T, B, H, generator=g), torch.randn(H, H, generator=g)
    core.forward(T, B, [states], [inputs], matrices=[weight], threads=threads)
    return states


@pytest.mark.usefixtures("isa")
def test_the_number_of_threads_does_not_show() -> None:
    core = program()
    once = work(core, 1)
    for threads in (2, 3, 5, 64):
        assert torch.equal(work(core, threads), once)


def test_several_callers_at_once() -> None:
    core = program()
    once = work(core, 1)
    equal: list[bool] = []

    def call() -> None:
        equal.extend(torch.equal(work(core, 2), once) for _ in range(10))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert len(equal) == 40
    assert all(equal)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    core = program()
    states = torch.zeros(T + 1, B, H)
    arguments = (T, B, [states], [torch.ones(T, B, H)])
    matrices = [torch.eye(H)]
    core.forward(*arguments, matrices=matrices, threads=2)
    child = os.fork()
    if child == 0:  # no PyTorch arithmetic here: its own threads do not survive a fork
        try:
            core.forward(*arguments, matrices=matrices, threads=2)
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    core.forward(*arguments, matrices=matrices, threads=2)
