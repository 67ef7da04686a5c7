"""Programs as data: what is hoisted, saved, repeated; how many instructions and products."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bptt import cells
from bptt.engine import StepProgram, compile

from .zoo import ZOO, LayerNormGRU, MinimalGated, PeepholeLSTM, Shared


def spaces(program: StepProgram) -> set[str]:
    """The spaces that the backward step reads."""
    assert program.backward is not None
    return {o.value.space for i in program.backward.instructions for o in i.operands()}


def test_a_tanh_elman_saves_its_states_alone() -> None:
    program = compile(cells.Elman(8, 5), 8)
    assert program.saved == ()
    assert program.recomputed == 0
    assert [i.opcode for i in program.forward.instructions] == ["matmul", "tanh"]
    assert program.backward is not None
    assert [i.opcode for i in program.backward.instructions] == ["tanh_backward", "matmul"]
    assert spaces(program) == {"grad", "next", "temp"}
    assert program.deltas == (5,)


def test_a_relu_elman_saves_its_states_alone() -> None:
    program = compile(cells.Elman(8, 5, nonlinearity="relu"), 8)
    assert program.saved == ()


def test_both_biases_and_the_input_product_are_hoisted() -> None:
    program = compile(cells.Elman(8, 5), 8)
    assert [g.name for g in program.params] == ["weight_hh"]
    assert program.units == ()
    assert len(program.times) == 1
    assert program.times[0].shape == (5,)
    assert program.folds
    assert program.hoisted is not None
    assert "addmm" in program.hoisted.text


def test_the_counts_of_a_gru() -> None:
    program = compile(cells.GRU(8, 5), 8)
    assert program.backward is not None
    assert program.after is not None
    assert program.forward.count("matmul") == 1
    assert program.backward.count("matmul") == 1
    assert program.forward.count() <= 7
    assert program.backward.count() <= 11
    assert sorted(program.saved) == [5, 5, 10]  # two gates side by side are one value
    assert program.after.code.text.count(" mm(") == 1
    assert program.deltas == (15, 15)


def test_the_counts_of_an_lstm() -> None:
    program = compile(cells.LSTM(8, 5), 8)
    assert program.backward is not None
    assert program.forward.count("matmul") == program.backward.count("matmul") == 1
    assert program.forward.count() <= 8
    assert sorted(program.saved) == [5, 5, 5, 10]
    assert program.deltas == (20,)
    assert program.units == ()


def test_a_product_of_a_concatenation_is_split_and_hoisted() -> None:
    program = compile(PeepholeLSTM(8, 5), 8)
    assert program.forward.count("matmul") == 1
    assert program.matrices[0] == (5, 20)
    program = compile(MinimalGated(8, 5), 8)
    assert program.forward.count("matmul") == 2


def test_a_weight_used_twice_is_one_parameter() -> None:
    program = compile(Shared(8, 5), 8)
    names = [g.name for g in program.params]
    assert sum(name in ("h.weight", "twice.weight") for name in names) == 1
    assert program.after is not None
    assert program.after.code.text.count(" mm(") == 2


def test_no_gradient_wanted_no_backward() -> None:
    cell = cells.GRU(8, 5).requires_grad_(False)
    program = compile(cell, 8)
    assert program.backward is None
    assert program.after is None
    assert program.saved == ()


def test_frozen_parameters_have_no_product() -> None:
    cell = cells.Elman(8, 5)
    cell.weight_hh.requires_grad_(False)
    program = compile(cell, 8)
    assert program.after is not None
    assert " mm(" not in program.after.code.text


def test_a_layer_norm_saves_its_normalised_row_and_one_number() -> None:
    program = compile(LayerNormGRU(8, 5), 8)
    assert sorted(program.saved) == [1, 1, 5, 10, 15, 15]


def test_what_is_made_of_the_projected_input_belongs_to_the_step() -> None:
    program = compile(LayerNormGRU(8, 5), 8)
    assert program.hoisted is not None
    assert "norm" not in program.hoisted.text
    assert program.forward.count("rsqrt") == 2
    assert "time" not in spaces(program)


def test_gradients_of_gains_are_products_of_rows_kept_anyway() -> None:
    program = compile(LayerNormGRU(8, 5), 8)
    assert program.after is not None
    assert program.deltas == (15, 15, 15, 15)  # of both shifts, and of both products
    assert program.after.code.text.count("vecdot") == 2
    assert {g.space for g in program.after.gathered} == {"delta", "saved", "state"}
    assert program.backward is not None
    assert program.backward.count("dot") == program.forward.count("dot") == 2


class Doubtful(nn.Module):
    """A cell that does something to its projected input."""

    hidden_size = 5

    def __init__(self, function: Callable[[Tensor], Tensor], also: bool = False) -> None:
        super().__init__()
        self.i, self.h = nn.Linear(8, 5), nn.Linear(5, 5)
        self.function, self.also = function, also

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        seen = self.function(self.i(input))
        return torch.tanh((seen + input[:, :5] if self.also else seen) + self.h(state))


def test_what_the_core_does_not_know_stays_hoisted() -> None:
    program = compile(Doubtful(lambda x: x.cumsum(1)), 8)
    assert program.hoisted is not None
    assert "cumsum" in program.hoisted.text


def test_an_input_that_is_read_otherwise_too_stays_hoisted() -> None:
    assert "sigmoid" not in str(compile(Doubtful(torch.sigmoid), 8).hoisted)
    assert "sigmoid" in str(compile(Doubtful(torch.sigmoid, also=True), 8).hoisted)


def test_a_hoisted_tensor_that_the_backward_step_needs_is_saved() -> None:
    program = compile(Doubtful(lambda x: x * torch.sigmoid(x)), 8)
    assert "time" not in spaces(program)
    assert sum(program.saved) == 10


def test_what_is_hoisted_over_parameters_alone_runs_once() -> None:
    class Scaled(nn.Module):
        hidden_size = 4

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

        def forward(self, input: Tensor, state: Tensor) -> Tensor:
            return torch.tanh(input + state @ (self.weight * torch.exp(self.scale)))

    program = compile(Scaled(), 4)
    assert program.forward.count() == 2
    assert program.hoisted is not None
    assert "exp" in program.hoisted.text


def assert_single_assignments(program: StepProgram) -> None:
    """Every temporary is assigned once, and before it is read."""
    assert program.backward is not None
    for step in (program.forward, program.backward):
        known = set()
        for instruction in step.instructions:
            assert {o.value for o in instruction.operands() if o.value.space == "temp"} <= known
            assert instruction.result not in known
            known.add(instruction.result)


@pytest.mark.parametrize("name", ZOO)
def test_a_program_prints_all_of_itself(name: str) -> None:
    began = time.perf_counter()
    program = compile(ZOO[name](8, 5), 8)
    print(f"{name}: compiled in {time.perf_counter() - began:.2f} s")
    text = str(program)
    assert program.backward is not None
    for step in (program.forward, program.backward):
        assert all(str(i) in text for i in step.instructions)
    assert_single_assignments(program)
    for part in (
        "given to each step",
        "each step forward",
        "saved each step",
        "each step backward",
        "after the loop",
    ):
        assert part in text


def test_equal_cells_have_equal_programs() -> None:
    assert compile(cells.GRU(8, 5), 8) == compile(cells.GRU(8, 5), 8)
    assert compile(cells.GRU(8, 5), 8) != compile(cells.GRU(8, 6), 8)
