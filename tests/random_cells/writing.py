"""`written`: a random cell as the source of a Python module."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from . import operators
from .constants import Constants

HEAD = """import math
import random
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

TABLE = {}
LOG = []
GAIN = 1.0
class Slots: pass
SLOTS = Slots()

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(width, width + 1), nn.Linear(width + 1, width)
        self.act, self.scale = nn.Tanh(), 0.7

    def forward(self, x):
        return self.b(self.act(self.a(x))) * self.scale + x

class Act:
    gain = 0.9
    def __call__(self, x):
        return torch.tanh(x) * self.gain

class Helper:
    def gain(self, x):
        return torch.sigmoid(x)

def halved(module, given, out):
    if isinstance(out, torch.Tensor):
        return out * 0.5
    return tuple(halved(module, given, o) for o in out)
"""

TREES = (
    (operators.POINTWISE, 5.0),
    (operators.BINARY, 4.0),
    (operators.PARAMETER, 5.0),
    (operators.FEATURES, 1.5),
    (operators.VIEWS, 2.0),
    (operators.IN_PLACE, 0.7),
    (operators.CONSTANT, 2.0),
)

SPECIALS = {
    "dropout": ["{v} = self.drop({x})"],
    "torch random": ["{v} = {x} * torch.rand(())"],
    "noise": ["{v} = {x} + 0.1 * torch.randn_like({x})"],
    "python random": ["{v} = {x} * random.uniform(0.5, 1.0)"],
    "zoneout": ["{v} = {x} if random.random() < 0.5 else {y}"],
    "numpy random": ["{v} = {x} * float(np.random.rand())"],
    "lanes": ["{v} = {x} * 0.5 if len(input) > 3 else torch.sin({x})"],
    "lanes in numbers": ["{v} = {x} / input.shape[0] + torch.tensor(float(len(input)))"],
    "features": ["{v} = {x} if {x}.shape[-1] > 2 else {y}"],
    "training": ["{v} = {x} if self.training else {x} * 0.5"],
    "grad mode": ["{v} = {x} if torch.is_grad_enabled() else {x} * 0.5"],
    "requires_grad": ["{v} = {x} if input.requires_grad else {x} * 0.5"],
    "state requires_grad": ["{v} = {x} if {h}.requires_grad else {x} * 0.5"],
    "leaf": ["{v} = {x} if {h}.is_leaf else {x} * 0.5"],
    "no graph": ["{v} = {x} if {h}.grad_fn is None else {x} * 0.5"],
    "strides": ["{v} = {x} * (1 + 0.1 * {h}.stride(0)) + int({h}.is_contiguous())"],
    "dtype": ["{v} = {x} if {x}.dtype == torch.float32 else {x} * 0.5"],
    "data": ["{v} = {x} if {x}.sum() > 0 else {y}"],
    "swallowed": [
        "try:",
        "    large = bool(({x} > 0).all())",
        "except Exception:",
        "    large = False",
        "{v} = {x} if large else {x} * 0.5",
    ],
    "loop": ["{v} = {x}", "for k in range(3):", "    {v} = torch.tanh({v} + 0.3 * {y})"],
    "loop over lanes": ["{v} = torch.stack([a * 0.5 + b for a, b in zip({x}, {y})])"],
    "no_grad": ["with torch.no_grad():", "    gate = torch.sigmoid({x})", "{v} = {y} * gate"],
    "inference": [
        "with torch.inference_mode():",
        "    gate = torch.sigmoid({x})",
        "{v} = {y} * gate.clone()",
    ],
    "counts": ["self.count += 1", "{v} = {x}"],
    "counts and reads": ["self.count += 1", "{v} = {x} * (1.0 if self.count % 2 else 0.5)"],
    "keeps": ["self.kept = {x}", "{v} = {x}"],
    "keeps and reads": [
        "{v} = {x} if self.kept is None or self.kept.shape != {x}.shape else {x} + 0.1 * self.kept",
        "self.kept = {x}.detach()",
    ],
    "logs": ["LOG.append({x}.detach())", "{v} = {x}"],
    "logs numbers": ["self.log.append(float({x}.detach().sum()))", "{v} = {x}"],
    "averages": [
        "with torch.no_grad():",
        "    self.mean_{w}.mul_(0.9).add_({x}.mean(0) * 0.1)",
        "{v} = {x} - self.mean_{w}",
    ],
    "hook": [
        "{v} = {x} * 1.0",
        "if {v}.requires_grad:",
        "    {v}.register_hook(lambda g: g * 0.5)",
    ],
    "hook on the state": [
        "if {h}.requires_grad:",
        "    {h}.register_hook(lambda g: g * 0.5)",
        "{v} = {x}",
    ],
    "mixes lanes": ["{v} = {x} - {x}.mean(0)"],
    "batch norm": ["{v} = F.batch_norm({x}, None, None, training=True) if len({x}) > 1 else {x}"],
    "class attribute": ["{v} = {x} * self.alpha"],
    "global": ["{v} = {x} * GAIN"],
    "callable": ["{v} = self.act({x})"],
    "listed module": ["{v} = self.modules_of_mine[0]({x})"],
    "number": ["{v} = {x} * self.rate"],
    "float of a tensor": ["{v} = {x} * float(self.knob)"],
    "numpy": ["{v} = {x} * float(self.array[0])"],
    "double": ["{v} = {x}.double().tanh().to({x}.dtype)"],
    "checkpoint": [
        "{v} = checkpoint(lambda a: torch.tanh(a) * {y}, {x}, use_reentrant=False)"
    ],
}  # fmt: skip
"""What is not plain arithmetic; most cells have none or one."""

CHANGES = [
    "type(cell).alpha = 0.4",
    "Cell.alpha = 0.6",
    "globals().__setitem__('GAIN', 0.7)",
    "cell.act.gain = 0.4",
    "Act.gain = 0.3",
    "cell.modules_of_mine[0].negative_slope = 0.9",
    "cell.modules_of_mine[0] = nn.Tanh()",
    "cell.rate = cell.rate * 0.5",
    "cell.rate = 2",
    "cell.knob.mul_(0.5)",
    "cell.array[0] *= 0.5",
    "cell.eval()",
    "cell.train(not cell.training)",
    "next(cell.parameters()).requires_grad_(False)",
    "[p.requires_grad_(False) for p in cell.parameters()]",
    "[p.mul_(0.9) for p in cell.parameters()]",
    "[setattr(p, 'data', p.data.t() if p.dim() == 2 and p.shape[0] == p.shape[1] else p.data)"
    " for p in cell.parameters()]",
    "[setattr(p, 'data', p.data * 0.9) for p in cell.parameters()]",
    "cell.load_state_dict({n: t * 0.9 if t.is_floating_point() else t"
    " for n, t in cell.state_dict().items()})",
    "cell.register_forward_hook(halved)",
    "next(cell.children()).register_forward_hook(halved)",
    "cell.register_forward_pre_hook(lambda m, a: (a[0].flip(0), a[1]))",
    "next(cell.children()).register_full_backward_hook(lambda m, i, o: None)",
    "next(cell.parameters()).register_hook(lambda g: g * 0.5)",
    "setattr(cell, f'new_{random.Random(1).random()}', 1.0)",
    "cell = copy.deepcopy(cell)",
    "cell.read_in = torch.nn.utils.parametrizations.weight_norm(cell.read_in)",
    "cell.read_in.weight = nn.Parameter(cell.read_in.weight * 0.5)",
    "setattr(cell.read_in, 'bias', None)",
]
"""Between two calls."""


@dataclass
class Drawn:
    """A cell's source, and what its use must know."""

    source: str
    input_size: int
    indices: int | None
    changes: int
    special: list[str]
    one_output: int


@dataclass
class Writer:
    """Writes the lines of a step; notes what ``__init__`` must make."""

    draw: Random
    constants: Constants
    made: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    rows: list[tuple[str, int]] = field(default_factory=list)
    count: int = 0

    def row(self, width: int, but: str | None = None) -> str:
        """A row of this width: one that there is, or one made of another."""
        found = [name for name, w in self.rows if w == width and name != but]
        if found and self.draw.random() < 0.9:
            return self.draw.choice(found[-4:] if self.draw.random() < 0.6 else found)
        name, other = self.draw.choice(self.rows)
        return self._adapted(name, other, width)

    def _adapted(self, name: str, width: int, to: int) -> str:
        """A row of another width, by a linear map or by its pieces."""
        ways = [
            f"self.{self._linear(width, to)}({name})",
            f"{name} @ self.{self._matrix(width, to)}",
        ]
        if width >= to:
            ways += [f"{name}[:, :{to}]", f"{name}[:, {width - to}:]", f"{name}.split({to}, 1)[0]"]
        else:
            ways += [f"F.pad({name}, (0, {to - width}))"]
            ways += [f"{name}[:, :1].expand(-1, {to})", f"{name}.repeat(1, {to})[:, :{to}]"]
        return self.assign(self.draw.choice(ways), to)

    def assign(self, expression: str, width: int) -> str:
        """A line that names an expression."""
        name = f"v{self.count}"
        self.count += 1
        self.lines.append(f"{name} = {expression}")
        self.rows.append((name, width))
        return name

    def step(self, width: int) -> str:
        """One operator of any group."""
        groups, weights = zip(*TREES, strict=True)
        template = self.draw.choice(self.draw.choices(groups, weights)[0])
        return self.assign(self.filled(template, width), width)

    def filled(self, template: str, width: int) -> str:
        """A template with rows, constants and weights put in."""
        x = self.row(width)
        names = {"x": x, "w": width}
        if "{y}" in template:
            names["y"] = self.row(width)
        for kind in ("row", "scalar", "other", "bools", "whole", "index", "indices", "square"):
            if "{" + kind + "}" in template:
                names[kind] = self.constants.read(kind, width)
        for kind in ("number", "array", "single"):
            if "{" + kind + "}" in template:
                names[kind] = self.constants.read(kind, width)
        makers = {"linear": self._linear, "matrix": self._matrix}
        for kind, maker in makers.items():
            if "{" + kind + "}" in template:
                names[kind] = maker(width, width)
        for kind, value in {
            "vector": f"nn.Parameter(torch.randn({width}) * 0.5)",
            "tall": f"nn.Parameter(torch.randn({2 * width}, {width}) * 0.4)",
            "block": f"Block({width})",
        }.items():
            if "{" + kind + "}" in template:
                names[kind] = self._member(kind, value, f"{width}")
        if "{buffer}" in template:
            names["buffer"] = f"kept_{width}"
            self.made[f"kept_{width}"] = (
                f"self.register_buffer('kept_{width}', torch.randn({width}))"
            )
        if "order_{w}" in template:
            order = self.draw.sample(range(width), width)
            self.made[f"order_{width}"] = f"self.order_{width} = {order}"
        return template.format(**names)

    def special(self, name: str, width: int, state: str) -> None:
        """Lines that are not plain arithmetic."""
        x, y, v = self.row(width), self.row(width), f"v{self.count}"
        self.count += 1
        if name == "averages":
            self.made[f"mean_{width}"] = (
                f"self.register_buffer('mean_{width}', torch.zeros({width}))"
            )
        for line in SPECIALS[name]:
            self.lines.append(line.format(x=x, y=y, v=v, w=width, h=state))
        self.rows.append((v, width))

    def _member(self, kind: str, value: str, size: str) -> str:
        """A weight's name: one that there is (tied), or a new one."""
        known = [name for name in self.made if name.startswith(f"{kind}_{size}_")]
        if known and self.draw.random() < 0.4:
            return self.draw.choice(known)
        name = f"{kind}_{size}_{len(known)}"
        tied = known and self.draw.random() < 0.2
        self.made[name] = f"self.{name} = self.{known[0]}" if tied else f"self.{name} = {value}"
        return name

    def _linear(self, width: int, to: int) -> str:
        bias = self.draw.random() < 0.8
        return self._member("linear", f"nn.Linear({width}, {to}, bias={bias})", f"{width}_{to}")

    def _matrix(self, width: int, to: int) -> str:
        scale = round(0.8 / width**0.5, 3)
        value = f"nn.Parameter(torch.randn({width}, {to}) * {scale})"
        return self._member("matrix", value, f"{width}_{to}")
