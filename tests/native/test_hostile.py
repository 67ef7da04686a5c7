"""Whatever Python passes, what is wrong is refused with an error that names it; nothing crashes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from bptt import _core

H = 4
NEXT, STATE, OUT = ("next", 0, 0, H), ("state", 0, 0, H), ("time", 1, 0, H)
BODY = [
    ("matmul", OUT, ("unit", 0, 0, H), STATE, 0),
    ("add", NEXT, OUT, ("time", 0, 0, H)),
]


def described(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "dtype": "float32",
        "reverse": False,
        "states": [H],
        "scratch": [H],
        "time": [(H, "r"), (H, "w")],
        "units": [H],
        "matrices": [(H, H)],
        "instructions": BODY,
    }
    return {**good, **changes}


def with_line(*line: Any) -> dict[str, Any]:
    return described(instructions=[*BODY, line])


def given(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "steps": 3,
        "batch": 2,
        "states": [torch.zeros(4, 2, H)],
        "time": [torch.ones(3, 2, H), torch.zeros(3, 2, H)],
        "units": [torch.zeros(H)],
        "matrices": [torch.eye(H)],
    }
    return {**good, **changes}


SCRATCH = ("scratch", 0, 0, H)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (described(dtype="float16"), "dtype"),
        (described(states=[0]), "width 0"),
        (described(states=[-3]), "width -3"),
        (described(time=[(H, "r"), (H, "x")]), "mode"),
        (described(matrices=[(H, 0)]), "matrix"),
        (described(instructions=[]), r"next\[0\] is not written"),
        (described(instructions=[("copy", ("next", 0, 0, 3), 0.0)]), r"next\[0\] is not written"),
        (with_line("leap", SCRATCH, STATE), "instruction 2: there is no instruction 'leap'"),
        (with_line("tanh", SCRATCH), r"instruction 2 \(tanh\): expected"),
        (with_line("tanh", SCRATCH, STATE, STATE), "expected a destination and 1"),
        (with_line("tanh", ("heap", 0, 0, H), STATE), "no space 'heap'"),
        (with_line("tanh", ("constant", 0, 0, 1), STATE), "no space 'constant'"),
        (with_line("tanh", ("scratch", 1, 0, H), STATE), r"no array scratch\[1\]"),
        (with_line("tanh", ("scratch", -1, 0, H), STATE), r"no array scratch\[-1\]"),
        (with_line("tanh", ("scratch", 0, 1, H), STATE), "does not fit"),
        (with_line("tanh", ("scratch", 0, -1, H), STATE), "does not fit"),
        (with_line("tanh", ("scratch", 0, 2**62, 2**62), STATE), "does not fit"),
        (with_line("tanh", ("scratch", 0, 0, 0), STATE), "does not fit"),
        (with_line("tanh", SCRATCH, ("state", 0, 0, 3)), "width 3"),
        (with_line("tanh", SCRATCH, SCRATCH), "before it is written"),
        (with_line("tanh", SCRATCH, ("grad", 0, 0, H)), "no array grad"),
        (with_line("tanh", STATE, STATE), "only read"),
        (with_line("tanh", ("time", 0, 0, H), STATE), "only read"),
        (with_line("tanh", ("unit", 0, 0, H), STATE), "only read"),
        (with_line("tanh", ("next", 0, 1, 3), ("next", 0, 0, 3)), "overlaps"),
        (with_line("tanh", NEXT, ("next", 0, 1, 1)), "overlaps"),
        (with_line("sum", SCRATCH, STATE), "width 1"),
        (with_line("sum", ("next", 0, 0, 1), NEXT), "overlaps"),
        (with_line("matmul", NEXT, None, NEXT, 0), "overlaps"),
        (with_line("matmul", SCRATCH, None, STATE, 1), "no matrix 1"),
        (with_line("matmul", SCRATCH, None, STATE, -1), "no matrix -1"),
        (with_line("matmul", SCRATCH, None, ("state", 0, 0, 3), 0), "width 3"),
        (with_line("matmul", ("scratch", 0, 0, 3), None, STATE, 0), "4 columns"),
        (with_line("matmul", SCRATCH, None, 1.0, 0), "multiplies no slot"),
        (with_line("tanh", ("scratch", 0, 0), STATE), "expected 4 entries"),
        (with_line(), "empty"),
    ],
)
def test_a_wrong_program_is_refused(description: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Program(**description)


@pytest.mark.parametrize(
    "description",
    [
        described(states=4),
        described(states=[4.0]),
        described(states=["4"]),
        described(dtype=torch.float32),
        described(reverse="yes"),
        described(instructions=5),
        with_line("tanh", SCRATCH, None),
        with_line("tanh", None, STATE),
        with_line(3, SCRATCH, STATE),
        with_line("tanh", ("scratch", 0, 0, True), STATE),
        with_line("tanh", ("scratch", 2**80, 0, H), STATE),
        with_line("matmul", SCRATCH, None, STATE, "0"),
    ],
)
def test_a_program_of_wrong_types_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _core.Program(**description)


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(H)


def read_only() -> np.ndarray:
    x = np.zeros((3, 2, H), np.float32)
    x.flags.writeable = False
    return x


ONES, BOTH = torch.ones(3, 2, H), torch.zeros(3, 2, 2 * H)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "out of range"),
        ({"batch": 2**60}, "out of range"),
        ({"batch": 5}, r"states\[0\]: shape is \[4, 2, 4\], expected \[4, 5, 4\]"),
        ({"threads": 0}, "threads"),
        ({"time": []}, "time: expected 2 arrays, got 0"),
        ({"states": []}, "states: expected 1"),
        ({"states": [None]}, r"states\[0\]: needed"),
        ({"units": [torch.zeros(H + 1)]}, r"units\[0\]: shape"),
        ({"units": [torch.zeros(1, H)]}, r"units\[0\]: shape"),
        ({"units": [torch.zeros(2 * H)[::2]]}, "not contiguous"),
        ({"units": [np.zeros(2 * H, np.float32)[::-2]]}, "not contiguous"),
        (
            {"units": [np.frombuffer(bytes(4 * H + 1), np.uint8)[1:].view(np.float32)]},
            "not aligned",
        ),
        ({"time": [ONES, torch.zeros(1, 2, H).expand(3, 2, H)]}, "overlap itself"),
        ({"time": [ONES, torch.zeros(30).as_strided((3, 2, H), (2, 3, 1))]}, "overlap itself"),
        ({"time": [ONES, ONES]}, r"time\[1\]: is written, and overlaps time\[0\]"),
        ({"time": [BOTH[..., :H], BOTH[..., H - 1 : -1]]}, "overlaps"),
        ({"time": [ONES, BOTH[..., :H]], "units": [BOTH[1, 1, :H]]}, "overlaps"),
        ({"reset": torch.zeros(3, 2, dtype=torch.bool)}, r"initial\[0\]: needed"),
        ({"reset": torch.zeros(2, 3, dtype=torch.bool)}, "reset: shape"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, "lengths: shape"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Program(**described()).forward(**given(**arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": "3"},
        {"steps": 3.0},
        {"time": None},
        {"time": 5},
        {"time": {1: 2, 3: 4}},
        {"units": ["abcd"]},
        {"units": [None]},
        {"units": [[1.0, 2.0, 3.0, 4.0]]},
        {"units": [torch.zeros(H, dtype=torch.float64)]},
        {"units": [torch.zeros(H, dtype=torch.int32)]},
        {"units": [torch.zeros(H, dtype=torch.bfloat16)]},
        {"units": [torch.zeros(H, dtype=torch.complex64)]},
        {"units": [torch.zeros(H, device="meta")]},
        {"units": [torch.zeros(H).to_sparse()]},
        {"units": [np.zeros(H, ">f4")]},
        {"time": [ONES, read_only()]},
        {"reset": torch.zeros(3, 2, dtype=torch.uint8)},
        {"lengths": torch.zeros(2)},
    ],
)
def test_wrong_types_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _core.Program(**described()).forward(**given(**arguments))


@pytest.mark.filterwarnings("ignore")
def test_tensors_without_memory_are_refused() -> None:
    program = _core.Program(**described())
    refused = []

    def attempt(x: torch.Tensor) -> torch.Tensor:
        with pytest.raises((TypeError, ValueError)):
            program.forward(**given(units=[x]))
        refused.append(x)
        return x.sum()

    attempt(fake())
    torch.vmap(attempt)(torch.zeros(2, H))
    torch.func.grad(attempt)(torch.zeros(H))
    assert len(refused) == 3


def test_a_run_the_wrong_way_is_refused() -> None:
    with pytest.raises(ValueError, match="runs forward"):
        _core.Program(**described()).reverse(**given())


def test_an_uninitialised_program_is_refused() -> None:
    with pytest.raises((TypeError, RuntimeError)), pytest.warns(RuntimeWarning):
        _core.Program.__new__(_core.Program).forward(**given())


def test_a_list_that_shrinks_while_it_is_read() -> None:
    """Importing an array may run Python code."""
    arrays: list[Any] = []

    class Shrinking:
        def __dlpack__(self, **_: Any) -> Any:
            arrays.clear()
            return torch.ones(3, 2, H).__dlpack__()

        def __dlpack_device__(self) -> Any:
            return (1, 0)

    arrays += [Shrinking(), torch.zeros(3, 2, H)]
    with pytest.raises((TypeError, ValueError)):
        _core.Program(**described()).forward(**given(time=arrays))


@pytest.mark.parametrize("clip", [-1.0, float("nan")])
def test_a_wrong_clip_is_refused(clip: float) -> None:
    program = _core.Program(
        dtype="float32",
        reverse=True,
        states=[H],
        instructions=[("copy", ("grad_in", 0, 0, H), 0.0)],
    )
    with pytest.raises(ValueError, match="clip"):
        program.reverse(1, 1, [None], clip=clip)


def test_what_is_allowed() -> None:
    """Columns of one buffer side by side, a broadcast input, parameters, NumPy beside PyTorch."""
    both = torch.zeros(3, 2, 2 * H)
    arguments = given(
        time=[torch.ones(1, 1, H).expand(3, 2, H), both[..., H:]],
        units=[torch.nn.Parameter(torch.full((H,), 2.0))],
        matrices=[np.eye(H, dtype=np.float32).T],
    )
    _core.Program(**described()).forward(**arguments)
    assert arguments["states"][0][3, 1, 0] == 9
    assert both[..., :H].eq(0).all()


def test_the_instruction_set_is_chosen_by_name() -> None:
    with pytest.raises(ValueError, match="not compiled"):
        _core.use_isa("abacus")
    _core.use_isa("baseline")
    assert _core.isa() == "baseline"
    _core.use_isa(None)


def test_measuring_functions_refuse_nonsense() -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="no unary instruction"):
        _core.elementwise("add", x, x.copy())
    with pytest.raises(ValueError, match="overlaps"):
        _core.elementwise("tanh", x, x)
    with pytest.raises(ValueError, match="shape"):
        _core.multiply(
            np.zeros((2, 3), np.float32), np.zeros((4, 5), np.float32), np.zeros((2, 5), np.float32)
        )
