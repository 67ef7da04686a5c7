"""Constants of every kind, where programs keep them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

PLACES = (
    "global", "attribute", "closure", "dictionary", "default", "step", "class", "list", "slot",
    "buffer",
)  # fmt: skip
TENSORS = ("row", "scalar", "other", "bools", "whole", "index", "square", "single")


@dataclass
class Constants:
    """Source of the constants that a cell uses, by place; the expression that reads each."""

    draw: Random
    outside: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    known: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    count: int = 0

    def read(self, kind: str, width: int) -> str:
        """An expression for a constant of a kind: one known, or a new one."""
        found = self.known.setdefault((kind, width), [])
        if found and self.draw.random() < 0.5:
            return self.draw.choice(found)
        found.append(self._new(kind, width))
        return found[-1]

    def _new(self, kind: str, width: int) -> str:
        value = self._value(kind, width)
        if kind == "indices":
            return value if self.draw.random() < 0.7 else self._placed(value, False)
        return self._placed(value, kind in TENSORS)

    def _value(self, kind: str, width: int) -> str:
        numbers = [round(self.draw.uniform(-2, 2), 2) for _ in range(width)]
        order = self.draw.sample(range(width), width)
        keep = [self.draw.random() < 0.6 for _ in range(width)]
        values = {
            "row": f"torch.tensor({numbers})",
            "scalar": f"torch.tensor({round(self.draw.uniform(-1, 1), 2)})",
            "other": f"torch.tensor({round(self.draw.uniform(1, 3), 2)})",
            "bools": f"torch.tensor({keep})",
            "whole": f"torch.tensor({[self.draw.randint(1, 3) for _ in range(width)]})",
            "index": f"torch.tensor({order})",
            "indices": f"{order}",
            "square": f"torch.linspace(-1, 1, {width * width}).reshape({width}, {width})",
            "number": f"{round(self.draw.uniform(-1, 1), 2)}",
            "array": f"np.array({numbers})",
            "single": f"torch.tensor({round(self.draw.uniform(-1, 1), 2)}, dtype=torch.float32)",
        }
        return values[kind]

    def _placed(self, value: str, tensor: bool) -> str:
        place = self.draw.choice([p for p in PLACES if tensor or p not in ("step", "buffer")])
        name = f"c{self.count}"
        self.count += 1
        read = getattr(self, f"_{place}")(name, value)
        if tensor and place not in ("step", "closure", "default"):
            there = read.replace("self", "cell") if read.startswith("self") else read
            self.changes.append(f"{there}.copy_({there}.flip(0))")
            self.changes.append(
                f"{there}.mul_(2)" if "[True" not in value else f"{there}.copy_(~{there})"
            )
        return read

    def _global(self, name: str, value: str) -> str:
        self.outside.append(f"{name} = {value}")
        return name

    def _attribute(self, name: str, value: str) -> str:
        self.inside.append(f"self.{name} = {value}")
        return f"self.{name}"

    def _closure(self, name: str, value: str) -> str:
        self.closed.append(f"{name} = {value}")
        return name

    def _dictionary(self, name: str, value: str) -> str:
        self.outside.append(f"TABLE['{name}'] = {value}")
        return f"TABLE['{name}']"

    def _default(self, name: str, value: str) -> str:
        self.outside.append(f"default_{name} = {value}")
        self.defaults.append(f"{name}=default_{name}")
        return name

    def _step(self, name: str, value: str) -> str:
        return value

    def _class(self, name: str, value: str) -> str:
        self.members.append(f"{name} = {value}")
        return f"self.{name}"

    def _list(self, name: str, value: str) -> str:
        self.inside.append(f"self.plain.append({value})  # {name}")
        number = sum("self.plain.append" in line for line in self.inside) - 1
        return f"self.plain[{number}]"

    def _slot(self, name: str, value: str) -> str:
        self.outside.append(f"SLOTS.{name} = {value}")
        return f"SLOTS.{name}"

    def _buffer(self, name: str, value: str) -> str:
        self.inside.append(f"self.register_buffer('{name}', {value})")
        return f"self.{name}"
