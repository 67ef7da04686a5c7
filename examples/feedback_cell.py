"""A cell that feeds its own prediction back: output-error (simulation) models.

The state holds the last prediction beside the hidden units; the cell reads both. The system to be
learned is y' = 0.8 y + 0.4 tanh(u), seen only through its input u.

    python examples/feedback_cell.py
"""

import torch
from torch import Tensor, nn

import bptt


class Feedback(nn.Module):
    """A GRU whose input is the outer input and its own last prediction.

    State ``(prediction, hidden)``: the prediction comes first, so it is the step's output and the
    network needs no readout.
    """

    def __init__(self, input_size: int, hidden_size: int, target_size: int) -> None:
        """Say the sizes of the input, of the hidden units, and of the prediction."""
        super().__init__()
        self.input_size = input_size
        self.target_size = target_size
        self.inner = bptt.cells.GRU(input_size + target_size, hidden_size)
        self.predict = nn.Linear(hidden_size, target_size)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros: [batch, target_size] and [batch, hidden_size]."""
        weight = self.predict.weight
        return (
            weight.new_zeros(batch, self.target_size),
            weight.new_zeros(batch, self.inner.hidden_size),
        )

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: the next prediction and the next hidden units."""
        prediction, hidden = state
        hidden = self.inner(torch.cat([input, prediction], dim=1), hidden)
        return self.predict(hidden), hidden


def system(steps: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(steps, 1)
    outputs = torch.empty(steps, 1)
    y = torch.zeros(1)
    for t in range(steps):
        y = 0.8 * y + 0.4 * torch.tanh(inputs[t])
        outputs[t] = y
    return inputs, outputs


def main(steps: int = 600, epochs: int = 40) -> float:
    torch.manual_seed(0)
    inputs, targets = system(steps)
    train, test = bptt.Stream(inputs, targets, burn_in=5).split(0.8)
    network = bptt.Network(Feedback(1, 12, 1))
    bptt.fit(
        network,
        train,
        method=bptt.Truncated(depth=24, stride=12),
        optimizer=torch.optim.Adam(network.parameters(), lr=5e-3),
        epochs=epochs,
        clip=1.0,
        seed=0,
    )
    loss = bptt.evaluate(network, test).loss
    share = loss / float(targets.var())
    print(f"mean squared error on the test part: {loss:.5f}, {share:.1%} of the variance")
    return loss


if __name__ == "__main__":
    main()
