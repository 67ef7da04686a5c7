"""What a cell may do, row by row: which cells have a step program, and the typed reason where one
has none."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

import bptt
from bptt import cells
from bptt.engine import Plan, Reason, Unsupported, compile, plan_for
from bptt.engine.backends import eager
from bptt.engine.runtime import native
from bptt.errors import CellError

from .oracle import assert_same, case, results
from .zoo import Embedding

SIZE = 4


class Custom(nn.Module):
    """A plain cell whose step is a function of (self, input, state)."""

    hidden_size = SIZE

    def __init__(self, step: Any = None) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.step = step

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """The drive, and what the test makes of it."""
        return self.step(self, self.x(input) + self.h(state), state, input)


def found(cell: nn.Module, batch: int = 3) -> Plan | Unsupported:
    """The plan of a cell with input and state [*, 4]."""
    inputs, state = torch.randn(5, batch, SIZE), torch.zeros(batch, SIZE)
    return plan_for(cell, inputs, state, state, kernel="interpreted")


def program(cell: nn.Module, batch: int = 3) -> Any:
    """The program of a cell with input and state [*, 4]."""
    plan = found(cell, batch)
    assert isinstance(plan, Plan)
    return plan.program


def refused(step: Any) -> Unsupported:
    """Why a step has no program."""
    reason = found(Custom(step))
    assert isinstance(reason, Unsupported), reason
    return reason


def accepted(cell: nn.Module) -> None:
    """The cell has a program that equals the loop."""
    given = case(cell, SIZE, 6, 3)
    assert_same(results(given, "interpreted"), results(given, "eager"), 1e-11)


# -- hoisted: parameters alone, inputs alone ------------------------------------------------------


@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrizations_are_evaluated_before_tracing(normalise: Any) -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive)).double()
    normalise(cell.h)
    accepted(cell)


def test_encoders_of_the_input_are_hoisted() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive + torch.fft.fft(input).real.cumsum(1))
    )
    accepted(cell)
    assert compile(cell.float(), SIZE).forward.count() == 2


def test_what_mixes_lanes_in_the_input_sees_each_step_alone() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive + (input - input.mean(0))))
    program = compile(cell, SIZE)
    assert not program.folds
    accepted(cell)


def test_sorting_over_lanes_of_the_input_is_not_folded() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(
            drive + input.sort(0).values + input.softmax(0)
        )
    )
    assert not compile(cell, SIZE).folds
    accepted(cell)


def test_embeddings_read_indices() -> None:
    cell = Embedding(7, SIZE).double()
    inputs, state = torch.randint(0, 7, (6, 3)), torch.zeros(3, SIZE, dtype=torch.float64)
    plan = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(plan, Plan)
    options: Any = {"initial": state, "reset": None, "lengths": None}
    options |= {"return_states": False, "clip": None}
    outputs = [
        eager.run(cell, inputs, state, **options)[0],
        native.run(cell, inputs, state, plan=plan, **options)[0],
    ]
    grads = [torch.autograd.grad(o.square().sum(), list(cell.parameters())) for o in outputs]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


def test_constants_made_in_the_step() -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        fresh = torch.zeros(state.shape[0], SIZE, dtype=state.dtype) + torch.tensor(
            0.5, dtype=state.dtype
        )
        fresh[:, 1:3] = drive[:, :2]
        fresh.mul_(2.0)
        return torch.tanh(drive * fresh + torch.full_like(state, 0.1))

    accepted(Custom(step))


# -- outside the set ------------------------------------------------------------------------------


class Cumulative(Custom):
    """A cell with an operator outside the set."""

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """The operator is on the second line."""
        drive = self.x(input) + self.h(state)
        return torch.cumsum(drive, 1)


def test_an_operator_outside_the_set_is_named_with_its_line() -> None:
    reason = found(Cumulative())
    line = Cumulative.forward.__code__.co_firstlineno + 3
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.OPERATOR
    assert reason.operator == "aten::cumsum"
    assert reason.location == f"{__file__}:{line}"
    assert str(reason).startswith(f"aten::cumsum at {__file__}:{line} (")


@pytest.mark.parametrize(
    "step",
    [
        lambda self, drive, state, input: torch.einsum(
            "bij,bj->bi", state[:, :, None] * drive[:, None], drive
        ),
        lambda self, drive, state, input: torch.bmm(
            drive[:, None], state[:, :, None].expand(-1, -1, 4)
        )[:, 0],
        lambda self, drive, state, input: nn.functional.conv1d(
            drive[:, None], torch.ones(1, 1, 3), padding=1
        )[:, 0],
    ],
    ids=["einsum", "bmm", "convolution"],
)
def test_products_of_states_are_outside_the_set(step: Any) -> None:
    reason = refused(step)
    assert reason.reason in (Reason.OPERATOR, Reason.LANES)


def test_a_state_of_another_rank() -> None:
    class Image(nn.Module):
        def initial_state(self, batch: int) -> Tensor:
            return torch.zeros(batch, 2, 3)

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return torch.tanh(state + input.sum())

    cell = Image()
    state = cell.initial_state(3)
    reason = plan_for(cell, torch.randn(5, 3, SIZE), state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.RANK


# -- control flow, randomness, changes ------------------------------------------------------------


def test_control_flow_on_data() -> None:
    reason = refused(lambda self, drive, state, input: drive if drive.sum() > 0 else -drive)
    assert reason.reason is Reason.CONTROL_FLOW
    assert reason.location is not None
    assert reason.location.startswith(__file__)


def test_control_flow_on_attributes_is_traced_and_keyed() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive) if self.flag else torch.relu(drive)
    )
    for flag, opcode in ((True, "tanh"), (False, "relu"), (True, "tanh")):
        cell.flag = flag
        plan = found(cell)
        assert isinstance(plan, Plan)
        assert plan.program.forward.instructions[-1].opcode == opcode


def test_random_numbers() -> None:
    reason = refused(lambda self, drive, state, input: nn.functional.dropout(drive, 0.5))
    assert reason.reason is Reason.RANDOMNESS


def test_dropout_in_evaluation_is_nothing() -> None:
    cell = Custom(lambda self, drive, state, input: self.drop(torch.tanh(drive)))
    cell.drop = nn.Dropout(0.5)
    assert isinstance(found(cell), Unsupported)
    cell.eval()
    assert isinstance(found(cell), Plan)
    cell.train()
    assert isinstance(found(cell), Unsupported)


def test_buffers_that_change() -> None:
    cell = Custom(lambda self, drive, state, input: self.norm(drive))
    cell.norm = nn.BatchNorm1d(SIZE)
    before = cell.norm.running_mean.clone()
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert torch.equal(cell.norm.running_mean, before)
    assert type(cell.norm.running_mean) is Tensor


@pytest.mark.parametrize("change", ["number", "list", "tensor", "buffer"])
def test_a_cell_that_changes_while_it_runs(change: str) -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        if change == "number":
            self.count += 1
        elif change == "list":
            self.seen.append(1)
        elif change == "tensor":
            self.last = drive
        else:
            self.kept = drive.detach().mean(0)
        return torch.tanh(drive)

    cell = Custom(step)
    cell.count, cell.seen = 0, []
    cell.register_buffer("kept", torch.zeros(SIZE))
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.MUTATION
    named = {"number": "count", "list": "seen", "tensor": "last", "buffer": "_buffers"}
    assert named[change] in reason.operator
    assert (cell.count, cell.seen, "last" in cell.__dict__) == (0, [], False)
    assert torch.equal(cell.kept, torch.zeros(SIZE))


def test_a_state_written_in_place() -> None:
    reason = refused(lambda self, drive, state, input: state.mul_(0.5).add_(drive))
    assert reason.reason is Reason.MUTATION


# -- lanes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        lambda self, drive, state, input: drive - drive.mean(0),
        lambda self, drive, state, input: torch.softmax(drive, 0),
        lambda self, drive, state, input: drive.flip(0),
        lambda self, drive, state, input: torch.tanh(drive) @ state.t() @ state,
        lambda self, drive, state, input: drive.view(-1).view(4, -1).t(),
        lambda self, drive, state, input: drive / drive.shape[0],
        lambda self, drive, state, input: drive * math.log(len(drive)),
        lambda self, drive, state, input: torch.cat([drive[1:], drive[:1]]),
        lambda self, drive, state, input: drive + torch.arange(len(drive))[:, None],
    ],
    ids=[
        "mean",
        "softmax",
        "flip",
        "product",
        "view",
        "divided",
        "logarithm",
        "rolled",
        "numbered",
    ],
)
def test_mixing_of_lanes(step: Any) -> None:
    reason = refused(step)
    told = (Reason.LANES, Reason.OPERATOR, Reason.UNTRACEABLE, Reason.CONTROL_FLOW)
    assert reason.reason in told


def test_a_captured_tensor_of_the_lanes_size() -> None:
    noise = torch.randn(3, SIZE)
    reason = refused(lambda self, drive, state, input: torch.tanh(drive + noise))
    assert reason.reason is Reason.LANES


def test_an_output_that_mixes_lanes() -> None:
    class Mixed(cells.GRU):
        def output(self, state: Tensor) -> Tensor:
            return state - state.mean(0)

    reason = found(Mixed(SIZE, SIZE))
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.LANES


def test_the_number_of_lanes_in_hoisted_arithmetic() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive + input / input.shape[0]))
    assert not compile(cell, SIZE).folds
    accepted(cell)


# -- captured tensors, gradients, hooks -----------------------------------------------------------


def test_a_captured_tensor_that_needs_a_gradient() -> None:
    gain = torch.ones(SIZE, requires_grad=True, dtype=torch.float64)
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive) * gain).double()
    inputs = torch.randn(5, 3, SIZE, dtype=torch.float64)
    grads = []
    for backend in ("native", "eager"):
        outputs, _ = bptt.unfold(cell, inputs, backend=backend)
        grads.append(torch.autograd.grad(outputs.square().sum(), [gain, *cell.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


def test_a_captured_constant() -> None:
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    accepted(
        Custom(lambda self, drive, state, input: torch.tanh(drive) * mask + state * (1 - mask))
    )


def test_a_parameter_by_another_road() -> None:
    cell = Custom(
        lambda self, drive, state, input: torch.tanh(drive) * self.others[0].exp()
    ).double()
    cell.gain = nn.Parameter(torch.randn(SIZE, dtype=torch.float64))
    cell.others = [cell.gain]
    accepted(cell)


def test_gradients_switched_off() -> None:
    def step(self: Any, drive: Tensor, state: Tensor, input: Tensor) -> Tensor:
        with torch.no_grad():
            gain = torch.sigmoid(state)
        return torch.tanh(drive) * gain

    assert refused(step).reason is Reason.AUTOGRAD


def test_a_detached_state() -> None:
    accepted(
        Custom(lambda self, drive, state, input: torch.tanh(drive) * torch.sigmoid(state.detach()))
    )


def test_a_backward_of_its_own() -> None:
    class Surrogate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

    assert (
        refused(lambda self, drive, state, input: Surrogate.apply(drive)).reason is Reason.AUTOGRAD
    )


def test_a_forward_hook_is_part_of_the_step() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive)).double()
    accepted(cell)
    handle = cell.h.register_forward_hook(lambda module, given, made: made * 0.5)
    accepted(cell)
    handle.remove()
    accepted(cell)


def test_backward_hooks() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive))
    assert isinstance(found(cell), Plan)
    handle = cell.h.register_full_backward_hook(lambda *given: None)
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.HOOKS
    handle.remove()
    assert isinstance(found(cell), Plan)


def test_the_old_weight_norm_changes_the_module() -> None:
    cell = Custom(lambda self, drive, state, input: torch.tanh(drive))
    with pytest.warns(FutureWarning):
        weight_norm(cell.h)
    reason = found(cell)
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.MUTATION


# -- dtypes, devices, contexts, mistakes ----------------------------------------------------------


def test_other_dtypes() -> None:
    cell = cells.GRU(SIZE, SIZE).to(torch.bfloat16)
    inputs, state = (
        torch.randn(5, 3, SIZE, dtype=torch.bfloat16),
        torch.zeros(3, SIZE, dtype=torch.bfloat16),
    )
    reason = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.DTYPE


def test_other_devices() -> None:
    cell = cells.GRU(SIZE, SIZE).to("meta")
    inputs, state = torch.randn(5, 3, SIZE, device="meta"), torch.zeros(3, SIZE, device="meta")
    reason = plan_for(cell, inputs, state, state, kernel="interpreted")
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.DEVICE


def test_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reason = found(cells.GRU(SIZE, SIZE))
    assert isinstance(reason, Unsupported)
    assert reason.reason is Reason.CONTEXT


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_anomaly_detection_sees_the_run_not_the_trace() -> None:
    with torch.autograd.set_detect_anomaly(True):
        assert not isinstance(found(cells.GRU(SIZE, SIZE)), Unsupported)


@pytest.mark.filterwarnings("error")  # nothing is said of a Python loop
def test_output_and_state_is_an_error_that_points_to_output() -> None:
    cell = Custom(lambda self, drive, state, input: (drive, drive))
    with pytest.raises(CellError, match=r"output\(state\)"):
        bptt.unfold(cell, torch.randn(5, 3, SIZE), torch.zeros(3, SIZE))


def test_compile_says_why_not() -> None:
    with pytest.raises(CellError, match="cumsum"):
        compile(Custom(lambda self, drive, state, input: drive.cumsum(1)), SIZE)


# -- the cache ------------------------------------------------------------------------------------


def test_a_plan_is_made_once_and_dies_with_its_cell() -> None:
    cell = cells.GRU(SIZE, SIZE)
    assert program(cell) is program(cell, batch=2)
    with torch.no_grad():
        cell.weight_hh.mul_(2.0)
    first = program(cell)
    cell.weight_hh.requires_grad_(False)
    second = program(cell)
    cell.weight_hh.requires_grad_(True)
    assert first is program(cell)
    assert first is not second
    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


def test_a_replaced_parameter_is_the_one_that_is_used() -> None:
    given = case(cells.GRU(SIZE, SIZE), SIZE, 4, 2)
    results(given, "interpreted")
    given.cell.weight_hh = nn.Parameter(given.cell.weight_hh.detach() * 0.5)
    assert_same(results(given, "interpreted"), results(given, "eager"), 1e-11)


def test_a_change_of_dtype_is_seen() -> None:
    cell = cells.GRU(SIZE, SIZE)
    assert isinstance(found(cell), Plan)
    accepted(cell.double())
    assert isinstance(found(cell.float()), Plan)


def test_a_broken_contract_is_told_with_the_callers_own_shapes() -> None:
    """Not with those that the tracer makes up."""

    class Narrow(nn.Module):
        hidden_size = 4

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return state[:, :3]

    with pytest.raises(
        CellError, match=r"given a state of the shape \[2, 4\] and returned \[2, 3\]"
    ):
        bptt.unfold(Narrow(), torch.randn(5, 2, 3))
