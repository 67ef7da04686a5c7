"""A training loop of your own: the gradient method is all you need.

python examples/own_loop.py
"""

import torch

import bptt


def main(steps: int = 400, epochs: int = 10) -> float:
    torch.manual_seed(0)
    time = torch.arange(steps, dtype=torch.float32)
    stream = bptt.Stream(torch.sin(0.3 * time) + 0.5 * torch.sin(0.11 * time), horizon=1)
    network = bptt.Network(bptt.cells.GRU(1, 16), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    method = bptt.Truncated(depth=20, stride=5)
    mean = float("nan")
    for epoch in range(epochs):
        total = count = 0.0
        for update in method.updates(network, "mse", stream):
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += update.loss * update.count
            count += update.count
        mean = total / count
        print(f"epoch {epoch + 1}: loss {mean:.5f}")
    return mean


if __name__ == "__main__":
    main()
