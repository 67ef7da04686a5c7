"""Truncated BPTT in Lightning 2: manual optimization, and a gradient method in the training step.

python examples/lightning_recipe.py

Lightning 2 has no truncated BPTT of its own. Here a stream is one batch, and the training step runs
one pass of the method over it, with an optimizer step at every update.
"""

import lightning
import torch

import bptt


class Recurrent(lightning.LightningModule):
    """A network trained by a gradient method, a pass an epoch."""

    def __init__(self, method: bptt.GradientMethod) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = bptt.Network(bptt.cells.GRU(1, 16), torch.nn.Linear(16, 1))
        self.method = method
        self.mean = float("nan")

    def training_step(self, batch: bptt.Stream, batch_idx: int) -> None:  # noqa: D102 (documented in its base class)
        optimizer = self.optimizers()
        total = count = 0.0
        for update in self.method.updates(self.network, "mse", batch):
            self.clip_gradients(optimizer, 1.0, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            total += update.loss * update.count
            count += update.count
        self.mean = total / count
        self.log("loss", self.mean, prog_bar=True, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102 (documented in its base class)
        return torch.optim.Adam(self.network.parameters(), lr=1e-2)


def main(steps: int = 400, epochs: int = 10) -> float:
    torch.manual_seed(0)
    time = torch.arange(steps, dtype=torch.float32)
    stream = bptt.Stream(torch.sin(0.3 * time) + 0.5 * torch.sin(0.11 * time), horizon=1)
    model = Recurrent(bptt.Truncated(depth=20, stride=5))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # A stream is a batch already: the loader only hands it over, once an epoch.
    trainer.fit(model, torch.utils.data.DataLoader([stream], batch_size=None))
    print(f"loss {model.mean:.5f}")
    return model.mean


if __name__ == "__main__":
    main()
