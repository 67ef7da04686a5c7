"""f and g as feed-forward networks of any depth: a cell is any module (input, state) -> state.

The series is a chaotic logistic map read through noise; the network learns to forecast it.

    python examples/feedforward_cell.py
"""

import torch
from torch import Tensor, nn

import bptt


class DeepCell(nn.Module):
    """A recurrent function with two hidden layers inside the step."""

    def __init__(self, input_size: int, hidden_size: int, width: int) -> None:
        """Say the sizes; ``hidden_size`` tells the library the shape of the state."""
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.layers = nn.Sequential(
            nn.Linear(input_size + hidden_size, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, hidden_size),
            nn.Tanh(),
        )

    def forward(self, input: Tensor, state: Tensor) -> Tensor:
        """One step: the new state [lane, hidden_size]."""
        return self.layers(torch.cat([input, state], dim=1))


def series(steps: int) -> Tensor:
    values = torch.empty(steps)
    value = 0.3
    for t in range(steps):
        value = 3.8 * value * (1 - value)
        values[t] = value
    return values + 0.01 * torch.randn(steps)


def main(steps: int = 600, epochs: int = 30) -> float:
    torch.manual_seed(0)
    readout = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    network = bptt.Network(DeepCell(1, 8, width=16), readout)
    train, test = bptt.Stream(series(steps), horizon=1).split(0.8)
    bptt.fit(
        network,
        train,
        method=bptt.Truncated(depth=20, stride=10),
        optimizer=torch.optim.Adam(network.parameters(), lr=3e-3),
        epochs=epochs,
        clip=1.0,
        seed=0,
    )
    loss = bptt.evaluate(network, test).loss
    print(f"mean squared error on the test part: {loss:.5f} (variance of the series: about 0.06)")
    return loss


if __name__ == "__main__":
    main()
