"""Random cells: compositions from the list of operators, native against eager."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from .oracle import assert_same, case, results

WIDTH = 4

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky relu": functional.leaky_relu,
    "softplus": functional.softplus,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "abs": torch.abs,
    "neg": torch.neg,
    "exp": lambda x: torch.exp(torch.tanh(x)),
    "log": lambda x: torch.log(x.square() + 1.0),
    "sqrt": lambda x: torch.sqrt(x * x + 1.0),
    "rsqrt": lambda x: torch.rsqrt(x**2 + 0.5),
    "reciprocal": lambda x: 1.0 / (x.abs() + 1.0),
    "power": lambda x: (x.abs() + 0.5) ** 1.7,
    "clamp": lambda x: x.clamp(-0.7, 0.9),
    "where": lambda x: torch.where(x > 0.1, x, 0.3 * x),
    "layer norm": lambda x: functional.layer_norm(x, (WIDTH,)),
    "softmax": lambda x: torch.softmax(x, -1),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "sum": lambda x: x * x.sum(-1)[:, None] * 0.2,
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda x: torch.cat(
        [p * s for p, s in zip(x.split([1, 3], 1), (0.5, 1.5), strict=True)], 1
    ),
    "slice": lambda x: functional.pad(x[:, 1:3], (1, 1)),
    "stack": lambda x: torch.stack([x, -x], 2).amax(2),
    "constants": lambda x: 0.5 - 2 * x / 3,
    "std": lambda x: x / (x.std(1, keepdim=True) + 1.0),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": lambda a, b: a / (b.square() + 1.0),
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "select": lambda a, b: torch.where(a >= b, a, b * 0.5),
    "gate": lambda a, b: torch.lerp(a, b, torch.sigmoid(a)),
    "both": lambda a, b: torch.where((a > 0) & (b <= 0.5), a, b),
}


class Composed(nn.Module):
    """A cell that follows a list of instructions on a growing list of rows."""

    hidden_size = WIDTH

    def __init__(self, plan: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.plan = plan
        self.x = nn.Linear(3, WIDTH)
        self.h = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in plan)
        self.units = nn.ParameterList(torch.randn(WIDTH) * 0.5 for _ in plan)

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        rows = [state, self.x(input), self.h[0](state) + input[:, :1]]
        for i, (name, a, b) in enumerate(self.plan):
            one, other = rows[a % len(rows)], rows[b % len(rows)]
            if name == "linear":
                rows.append(self.h[i](one))
            elif name == "unit":
                rows.append(one * self.units[i] + other)
            else:
                rows.append(UNARY[name](one) if name in UNARY else BINARY[name](one, other))
        return torch.tanh(rows[-1] + 0.3 * rows[-2] + 0.5 * state)


operations = st.tuples(
    st.sampled_from([*UNARY, *BINARY, "linear", "unit"]), st.integers(0, 20), st.integers(0, 20)
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(plan=st.lists(operations, min_size=1, max_size=7), special=st.booleans())
def test_random_cells_equal_eager(
    core: None, plan: list[tuple[str, int, int]], special: bool
) -> None:
    torch.manual_seed(1)
    problem = case(Composed(plan), 3, 5, 3, reset=special, lengths=special)
    expected = results(problem, "eager")
    assert_same(results(problem, "interpreted"), expected, 1e-10)
    assert_same(results(problem, "native"), expected, 1e-10)


def test_every_operator_of_the_list_alone(core: None) -> None:
    for name in [*UNARY, *BINARY, "linear", "unit"]:
        problem = case(Composed([(name, 2, 0)]), 3, 4, 3)
        assert_same(results(problem, "native"), results(problem, "eager"), 1e-10)
