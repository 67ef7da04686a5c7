"""Influence balancing: where a truncated gradient has the wrong sign.

C. Tallec and Y. Ollivier, Unbiasing truncated backpropagation through time (2017), and Unbiased
online recurrent optimization (2018). Of 23 units ten push the first one up at once, thirteen pull
it down later: s ← A s + θ·sign, with the loss ½ (s₁ − 1)². The optimum is θ* = −1/6.

python examples/reproduce/influence_balancing.py
"""

import math

import torch
from torch import Tensor, nn

import bptt

OPTIMUM = -1 / 6
AWAY = 10.0


class Balance(nn.Module):
    """A linear cell with one parameter."""

    hidden_size = 23

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))
        half = 0.5 * torch.eye(23, dtype=torch.float64)
        upper = torch.diag(torch.full((22,), 0.5, dtype=torch.float64), 1)
        self.register_buffer("mix", half + upper)
        self.register_buffer("sign", torch.tensor([1.0] * 10 + [-1.0] * 13, dtype=torch.float64))

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step."""
        return state @ self.mix.T + self.theta * self.sign


def loss(prediction: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (prediction[..., :1] - 1.0).square()


def train(
    method: bptt.GradientMethod,
    rate: float,
    steps: int,
    epochs: int = 1,
    lanes: int = 1,
    burn_in: int = 0,
) -> float:
    """θ after ``epochs`` passes over ``steps`` steps, by gradient descent at a constant rate;
    infinite where it ran away. Lanes are all alike: of a random method, as many draws."""
    nothing = torch.zeros(steps, lanes, 1, dtype=torch.float64)
    stream = bptt.Stream(nothing, nothing, burn_in=burn_in)
    network = bptt.Network(Balance())
    theta = network.cell.theta
    for _ in range(epochs):
        for _ in method.updates(network, loss, stream):
            with torch.no_grad():
                theta -= rate * theta.grad
            network.zero_grad()
            value = float(theta.detach())
            if not abs(value) < AWAY:
                return math.copysign(math.inf, value)
    return float(theta.detach())


def main(
    steps: int = 6000, depths: tuple[int, ...] = (1, 10, 20, 40, 41, 100), online: int = 3000
) -> dict[str, float]:
    found = {}
    for depth in depths:
        # θ acts on s₁ after up to 40 steps: a gradient of the true size needs a smaller rate.
        method = bptt.Truncated(depth, stride=1, loss="last")
        found[f"truncated {depth}"] = train(method, 1e-4 if depth > 41 else 5e-4, steps)
    found["rtrl"] = train(bptt.RTRL(10), 1e-3, online)
    found["uoro"] = train(bptt.UORO(10), 1e-3, online, lanes=100)
    # A whole sequence at a time, from zero: only what has settled counts.
    method = bptt.EvolutionStrategies(8, 0.01)
    found["evolution"] = train(method, 5e-3, 200, epochs=online // 20, burn_in=100)
    print(f"θ* = {OPTIMUM:.4f}")
    for name, theta in found.items():
        print(f"{name:15} θ = {theta:8.4f}" if math.isfinite(theta) else f"{name:15} diverged")
    return found


if __name__ == "__main__":
    main()
