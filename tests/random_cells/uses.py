"""What is done with a random cell: `scenario` gives all numbers of it, under either backend."""

from __future__ import annotations

import linecache
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bptt
from bptt.engine.unsupported import EngineError
from bptt.state import leaves, map_state

from .cells import written
from .writing import Drawn

USES = {"unfold": 10, "checkpointed": 2, "full": 1.5, "truncated": 1.5, "online": 1.5, "threads": 1}
UNLIKE_IN_THREADS = {
    "dropout", "torch random", "noise", "python random", "zoneout", "numpy random", "counts",
    "counts and reads", "keeps", "keeps and reads", "logs", "logs numbers", "averages",
    "loop over lanes",  # what takes too long in a thread cannot be ended
}  # fmt: skip
ABOUT_THE_STATE = {"no graph", "leaf", "strides"}
"""Steps that ask how their state came about: it is another at the start of a segment."""
LAYOUTS = {"plain": 6, "transposed": 1, "strided": 1, "offset": 1, "expanded": 1, "reversed": 0.5}

Results = list[tuple[str, Any]]


def module_of(seed: int, drawn: Drawn) -> dict[str, Any]:
    """The source, run; its lines can be read in tracebacks."""
    name = f"<random cell {seed}>"
    lines = drawn.source.splitlines(keepends=True)
    linecache.cache[name] = (len(drawn.source), None, lines, name)
    module = ModuleType(f"random_cell_{seed}")
    sys.modules[module.__name__] = module  # where a tracer looks for what functions of it read
    exec(compile(drawn.source, name, "exec"), vars(module))
    return vars(module)


@contextmanager
def seeded(seed: int, dtype: torch.dtype) -> Iterator[None]:
    """A default dtype, and generators that stand where the seed says."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def laid(tensor: Tensor, how: str) -> Tensor:
    """Equal values (of one lane, if expanded) in memory of another layout."""
    if how == "transposed" and tensor.dim() >= 2:
        return tensor.transpose(0, 1).clone(memory_format=torch.contiguous_format).transpose(0, 1)
    if how == "strided" and tensor.dim():
        return torch.stack([tensor, tensor], -1)[..., 0]
    if how == "offset":
        return torch.cat([tensor.reshape(-1)[:1].expand(3), tensor.reshape(-1)])[3:].view_as(tensor)
    if how == "expanded" and tensor.dim() >= 2:
        lane = 1 if tensor.dim() > 2 or not tensor.is_floating_point() else 0
        return tensor.narrow(lane, 0, 1).expand_as(tensor) if tensor.shape[lane] else tensor
    if how == "reversed" and tensor.dim() >= 2:
        order = list(range(tensor.dim()))[::-1]
        return tensor.permute(order).clone(memory_format=torch.contiguous_format).permute(order)
    return tensor


@dataclass
class Use:
    """One seed's cell, its use, and what came of it."""

    seed: int
    backend: str
    results: Results = field(default_factory=list)

    def __post_init__(self) -> None:
        self.drawn = written(self.seed)
        self.draw = Random(f"use {self.seed}")
        self.dtype = torch.float64 if self.draw.random() < 0.8 else torch.float32
        self.kind = self.draw.choices(list(USES), list(USES.values()))[0]
        if self.kind == "threads" and UNLIKE_IN_THREADS & set(self.drawn.special):
            self.kind = "unfold"
        if self.kind in ("checkpointed", "full") and ABOUT_THE_STATE & set(self.drawn.special):
            self.kind = "unfold"

    def run(self) -> Results:
        """All of it; an error ends it and is its last result."""
        with seeded(self.seed, self.dtype):
            self.module = module_of(self.seed, self.drawn)
            try:
                self.cell = self.module["Cell"]()
                getattr(self, f"_{self.kind}")()
            except (Exception, EngineError) as error:
                self.results.append(("error", error))
            self._left()
            sys.modules.pop(self.module["__name__"])
        return self.results

    def _left(self) -> None:
        """Where the generators stand, and what the cell has kept."""
        self.results.append(("torch's generator", torch.get_rng_state().double()))
        self.results.append(("random", hash(random.getstate())))
        self.results.append(("numpy", hash(np.random.get_state()[1].tobytes())))
        log = self.module.get("LOG", [])
        self.results.append(("log", [type(t).__name__ for t in log]))
        self.results += [(f"logged {k}", t) for k, t in enumerate(log) if type(t) is Tensor]
        cell = getattr(self, "cell", None)
        if cell is not None:
            self.results += [(f"buffer {n}", b.clone()) for n, b in cell.named_buffers()]
            kinds = {n: type(v).__name__ for n, v in vars(cell).items()}
            self.results.append(("attributes", sorted(kinds.items())))
            self.results.append(("numbers", [cell.count, cell.log]))
            kinds = {n: type(p).__name__ for n, p in cell.named_parameters()}
            self.results.append(("kinds", sorted(kinds.items())))

    # -- arguments ---------------------------------------------------------------------------------

    def _layout(self) -> str:
        return self.draw.choices(list(LAYOUTS), list(LAYOUTS.values()))[0]

    def _inputs(self, steps: int, lanes: int, needs: bool) -> tuple[Tensor, Tensor]:
        """The inputs, and the leaf that they are a view of."""
        if self.drawn.indices is not None:
            values = torch.randint(0, self.drawn.indices, (steps, lanes))
            return laid(values, self._layout()), values
        leaf = torch.randn(steps, lanes, self.drawn.input_size).requires_grad_(needs)
        return laid(leaf, self._layout()), leaf

    def _state(self, lanes: int, needs: bool, asked: dict[str, Tensor], name: str) -> Any:
        """A state like the cell's own."""
        with torch.no_grad():
            own = bptt.state.initial_state(self.cell, lanes)
        seen = asked
        layout = self._layout()
        # What has no gradient is compared whatever it holds.
        bad = (
            self.draw.choice([None] * 5 + [np.nan, np.inf]) if not torch.is_grad_enabled() else None
        )

        def other(leaf: Tensor) -> Tensor:
            if not leaf.is_floating_point():
                return leaf
            base = leaf.detach() * 0.5 + 0.3 * torch.randn(leaf.shape)
            if bad is not None and base.numel():
                base.view(-1)[base.numel() // 2] = bad
            base.requires_grad_(needs)
            seen[f"{name} {len(seen)}"] = base
            return laid(base, layout)

        return map_state(other, own)

    def _options(self, steps: int, lanes: int, asked: dict[str, Tensor]) -> dict[str, Any]:
        draw, options = self.draw, {}
        if draw.random() < 0.5:
            options["state"] = self._state(lanes, draw.random() < 0.5, asked, "state")
        if draw.random() < 0.25:
            options["initial"] = self._state(lanes, draw.random() < 0.5, asked, "initial")
        if draw.random() < 0.3:
            options["reset"] = laid(torch.rand(steps, lanes) < 0.3, self._layout())
        if draw.random() < 0.2:
            ends = torch.randint(0, steps + 1, (lanes,))
            options["lengths"] = torch.stack([ends, ends], 1)[:, 0] if draw.random() < 0.5 else ends
        if draw.random() < 0.15:
            options["clip_state_gradient"] = 0.05
        if self.dtype is torch.float32 and "number that changes" in self.drawn.special:
            # Some are beyond float32: past a lane's length the loop makes NaN of them, 0 * inf.
            options.pop("lengths", None)
        return options

    def _mode(self) -> Callable[[], Any]:
        modes: list[Callable[[], Any]] = [torch.enable_grad, torch.no_grad, torch.inference_mode]
        return self.draw.choices(modes, [8, 1, 1])[0]

    # -- uses --------------------------------------------------------------------------------------

    def _unfold(self, verb: Callable[..., Any] = bptt.unfold, **more: Any) -> None:
        """Some calls, with changes of the cell between them."""
        for k in range(1 + self.drawn.changes):
            for again in range(1 + (self.draw.random() < 0.3)):
                steps, lanes = self.draw.randint(0, 12), self.draw.randint(1, 9)
                self._call(f"call {k}.{again}", verb, steps, lanes, more)
            if k < self.drawn.changes:
                self.cell = self.module[f"change_{k}"](self.cell)

    def _call(
        self, name: str, verb: Callable[..., Any], steps: int, lanes: int, more: dict[str, Any]
    ) -> None:
        mode = self._mode()
        with mode():
            inputs, leaf = self._inputs(steps, lanes, self.draw.random() < 0.6)
            asked = {"inputs": leaf}
            options = self._options(steps, lanes, asked) | more
            if verb is bptt.unfold and self.draw.random() < 0.2:
                options["return_states"] = True
            found = verb(self.cell, inputs, backend=self.backend, **options)
        tensors = leaves(tuple(found))
        self.results += [(f"{name} result {j}", t.detach()) for j, t in enumerate(tensors)]
        self._gradients(name, tensors, asked)

    def _gradients(self, name: str, tensors: list[Tensor], asked: dict[str, Tensor]) -> None:
        """Of one functional of all results."""
        asked = asked | {f"weight {n}": p for n, p in self.cell.named_parameters()}
        asked = {n: t for n, t in asked.items() if t.requires_grad}
        generator = torch.Generator().manual_seed(99)
        terms = []
        for tensor in tensors:
            weight = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if tensor.requires_grad:
                terms.append((weight.to(tensor.dtype) * tensor).sum())
        if terms and asked:
            grads = torch.autograd.grad(
                torch.stack(terms).sum(), list(asked.values()), allow_unused=True
            )
            for (n, t), g in zip(asked.items(), grads, strict=True):
                self.results.append(
                    (f"{name} gradient of {n}", torch.zeros_like(t) if g is None else g)
                )

    def _checkpointed(self) -> None:
        self._unfold(bptt.checkpointed_unfold, segment=self.draw.randint(1, 5))

    def _network(self) -> bptt.Network:
        readout = nn.Linear(self.drawn.one_output, 1)
        return bptt.Network(self.cell, readout, backend=self.backend)

    def _weights(self, network: nn.Module, at: str) -> None:
        named = network.named_parameters()
        self.results += [(f"{at}: weight {n}", p.detach().clone()) for n, p in named]

    def _fit(self, method: bptt.GradientMethod) -> None:
        network, steps = self._network(), self.draw.randint(8, 20)
        inputs, _ = self._inputs(steps, 1, False)
        targets = torch.randn(steps, 1)
        stream = bptt.Stream(inputs[:, 0].contiguous(), targets, lanes=self.draw.choice([1, 1, 2]))
        for k in range(1 + min(self.drawn.changes, 1)):
            bptt.fit(
                network,
                stream,
                method=method,
                optimizer=lambda p: torch.optim.SGD(p, 0.02),
                epochs=1,
                progress=False,
            )
            self._weights(network, f"fit {k}")
            if k < self.drawn.changes:
                network.cell = self.cell = self.module[f"change_{k}"](self.cell)

    def _full(self) -> None:
        segment = self.draw.choice([None, 3, 5])
        self._fit(bptt.Full() if segment is None else bptt.Full(segment=segment))

    def _truncated(self) -> None:
        depth = self.draw.randint(2, 6)
        self._fit(bptt.Truncated(depth, self.draw.randint(1, depth)))

    def _online(self) -> None:
        network, depth = self._network(), self.draw.randint(2, 5)
        method = bptt.Truncated(depth, self.draw.randint(1, depth))
        learner = bptt.Online(network, method, "mse", lambda p: torch.optim.SGD(p, 0.02))
        inputs, _ = self._inputs(self.draw.randint(6, 14), 1, False)
        change_at = self.draw.randrange(len(inputs))
        for t, x in enumerate(inputs[:, 0]):
            self.results.append(
                (f"prediction {t}", learner.step(x, torch.randn(1)).detach().clone())
            )
            if t == change_at and self.drawn.changes:
                network.cell = self.cell = self.module["change_0"](self.cell)
        self._weights(network, "online")

    def _threads(self) -> None:
        """Two first calls at once, under ``auto``; one after the other under ``eager``."""
        given = [
            self._inputs(self.draw.randint(1, 8), self.draw.randint(1, 5), False)[0] for _ in "ab"
        ]
        together = self.backend == "auto"
        found: list[Any] = [None, None]
        start = threading.Barrier(2 if together else 1)

        def work(k: int) -> None:
            start.wait()
            try:
                outputs, last = bptt.unfold(self.cell, given[k], backend=self.backend)
                loss = outputs.sin().sum() + sum(leaf.sum() for leaf in leaves(last))
                asked = [p for p in self.cell.parameters() if p.requires_grad]
                grads = torch.autograd.grad(loss, asked, allow_unused=True)
                found[k] = [
                    outputs.detach(),
                    *(g if g is not None else torch.zeros(()) for g in grads),
                ]
            except BaseException as error:
                found[k] = error

        if together:
            threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:  # in this thread, in which `judging.Rounding` is at work
            work(0)
            work(1)
        for k, one in enumerate(found):
            if isinstance(one, BaseException):
                raise one
            self.results += [(f"thread {k} {j}", t) for j, t in enumerate(one)]
