"""Truncated BPTT in skorch: one training step is one pass of a gradient method over a stream.

python examples/skorch_recipe.py
"""

from typing import Any

import skorch
import torch

import bptt


class Truncated(skorch.NeuralNet):
    """A net trained on streams by ``method``; what skorch batches are the streams' numbers."""

    def __init__(
        self, *args: Any, method: bptt.GradientMethod, streams: list[bptt.Stream], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.method = method
        self.streams = streams

    def train_step(self, batch: Any, **_: Any) -> dict[str, Any]:  # noqa: D102 (documented in its base class)
        stream = self.streams[int(batch[0])]
        total = count = 0.0
        for update in self.method.updates(self.module_, "mse", stream):
            torch.nn.utils.clip_grad_norm_(self.module_.parameters(), 1.0)
            self.optimizer_.step()
            self.optimizer_.zero_grad()
            total += update.loss * update.count
            count += update.count
        return {"loss": torch.tensor(total / count), "y_pred": None}


def main(steps: int = 400, epochs: int = 10) -> float:
    torch.manual_seed(0)
    time = torch.arange(steps, dtype=torch.float32)
    stream = bptt.Stream(torch.sin(0.3 * time) + 0.5 * torch.sin(0.11 * time), horizon=1)
    net = Truncated(
        bptt.Network,
        module__cell=bptt.cells.GRU(1, 16),
        module__readout=torch.nn.Linear(16, 1),
        criterion=torch.nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=1e-2,
        max_epochs=epochs,
        train_split=None,
        batch_size=1,
        method=bptt.Truncated(depth=20, stride=5),
        streams=[stream],
    )
    net.fit(torch.arange(len(net.streams)), y=None)
    loss: float = net.history[-1, "train_loss"]
    return loss


if __name__ == "__main__":
    main()
