"""A random cell: its state, its step, and the module that holds it."""

from __future__ import annotations

from random import Random

from .constants import Constants
from .operators import AGAIN
from .writing import CHANGES, HEAD, SPECIALS, Drawn, Writer

NESTS = ["{0}", "({0}, {1})", "({0}, ({1}, {2}))", "(({0}, {1}), {2})", "({0}, {1}, {2})", "({0},)"]


def written(seed: int) -> Drawn:
    """The cell of a seed."""
    draw = Random(f"cell {seed}")
    constants = Constants(draw)
    writer = Writer(draw, constants)
    hidden = draw.randint(1, 6)
    nest = draw.choices(NESTS, [6, 3, 1, 1, 1, 0.5])[0]
    number = sum(f"{{{k}}}" in nest for k in range(3))
    widths = [hidden if draw.random() < 0.7 else draw.randint(1, 6) for _ in range(number)]
    parts = 2 if number == 1 and draw.random() < 0.25 else 1
    states = [f"h{k}" for k in range(number)]
    indices = draw.randint(3, 7) if draw.random() < 0.15 else None
    size = draw.randint(1, 5)
    body = _begin(writer, states, widths, parts, indices, size)
    again = draw.choice(list(AGAIN)) if draw.random() < 0.2 else None
    special = _step(writer, states, widths, again is None)
    ends = [_end(writer, h, w, parts) for h, w in zip(states, widths, strict=True)]
    if again is not None:  # it must be in what comes out, of a cell that is plain otherwise
        changing = writer.filled(draw.choice(AGAIN[again][0]), widths[0])
        read = writer.assign(f"0.1 * torch.tanh({changing})", widths[0])
        ends[0] = f"({ends[0]} + {read if parts == 1 else f'torch.cat([{read}, {read}], 1)'})"
        special = [f"{again} that changes"]
    returned = nest.format(*ends)
    plain = nest == "{0}" and parts == 1 and draw.random() < 0.6
    methods, wide = _methods(draw, nest, [w * parts for w in widths], plain)
    number_of_changes, changes = _changes(draw, constants, again)
    unpack = [] if nest == "{0}" else [f"{nest.format(*states)} = state"]
    first = ["h0 = state"] if nest == "{0}" else []
    lines = [*unpack, *first, *body, *writer.lines, f"return {returned}"]
    made = [
        f"self.hidden_size = {widths[0]}" if plain else "pass",
        *writer.made.values(), *constants.inside,
    ]  # fmt: skip
    source = _module(constants, made, lines, methods, changes)
    return Drawn(source, size, indices, number_of_changes, special, wide)


def _begin(
    writer: Writer, states: list[str], widths: list[int], parts: int, indices: int | None, size: int
) -> list[str]:
    """Lines that name the rows a step begins with."""
    lines = []
    width = widths[0]
    if parts == 2:
        lines.append("h0, g0 = state.chunk(2, 1)")
        writer.rows.append(("g0", width))
    writer.rows += list(zip(states, widths, strict=True))
    made = f"nn.Embedding({indices}, {width})" if indices else f"nn.Linear({size}, {width})"
    writer.made["read_in"] = f"self.read_in = {made}"
    if indices is None:
        writer.rows.append(("input", size))
    if indices is not None or writer.draw.random() < 0.7:
        lines.append("x0 = self.read_in(input)")
        writer.rows.append(("x0", width))
    return lines


def _step(writer: Writer, states: list[str], widths: list[int], more: bool) -> list[str]:
    """The arithmetic; and ``more`` of it, with what is special between it."""
    draw = writer.draw
    special = draw.sample(list(SPECIALS), draw.choices([0, 1, 2, 3], [5, 5, 2, 1])[0] * more)
    steps = draw.randint(2, 9) if more else draw.randint(0, 2)
    at = {name: draw.randrange(steps) for name in special}
    for k in range(steps):
        width = draw.choice(widths) if draw.random() < 0.9 else draw.randint(1, 6)
        for name in special:
            if at[name] == k:
                writer.special(name, width, draw.choice(states))
        writer.step(width)
    return special


def _end(writer: Writer, state: str, width: int, parts: int) -> str:
    """What becomes of a leaf: bounded, so that a few steps do not grow without end."""
    draw, found = writer.draw, []
    for k in range(parts):
        old = state if k == 0 else "g0"
        new, gate = writer.row(width), writer.row(width)
        found.append(
            draw.choice(
                [
                    f"torch.tanh({new})",
                    f"torch.tanh({new} + 0.3 * {gate} + 0.3 * {old})",
                    f"0.5 * {old} + 0.5 * torch.tanh({new})",
                    f"torch.lerp({old}, torch.tanh({new}), torch.sigmoid({gate}))",
                    f"torch.sigmoid({gate}) * torch.tanh({new})",
                    f"torch.sin({new} + {old})",
                ]
            )
        )
    return found[0] if parts == 1 else f"torch.cat([{', '.join(found)}], 1)"


def _methods(draw: Random, nest: str, widths: list[int], plain: bool) -> tuple[list[str], int]:
    """``initial_state`` and ``output``, and the width of what is put out."""
    lines = []
    if not plain:
        lines += ["def initial_state(self, batch):"]
        leaves = [_start(draw, width, k) for k, width in enumerate(widths)]
        lines.append(f"    return {nest.format(*leaves)}")
    wide = widths[0]
    if draw.random() < 0.3:
        names = [f"h{k}" for k in range(len(widths))]
        lines += ["def output(self, state):", f"    {nest.format(*names)} = state"]
        wide, output = draw.choice(
            [
                (widths[-1], f"h{len(widths) - 1}"),
                (widths[0], "torch.tanh(h0)"),
                (widths[0], "self.put_out(h0)"),
                (sum(widths), f"torch.cat([{', '.join(names)}], 1)"),
                (1, "h0.sum(1, keepdim=True)"),
                (widths[0], "F.relu(h0) + OFFSET"),
            ]
        )
        lines.append(f"    return {output}")
    return lines, wide


def _start(draw: Random, width: int, k: int) -> str:
    """A leaf of the initial state."""
    return draw.choice(
        [
            f"torch.zeros(batch, {width})",
            f"torch.full((batch, {width}), 0.3)",
            f"self.read_in.weight.new_zeros(batch, {width})",
            f"self.start_{k}.expand(batch, {width})",
            f"self.start_{k}.tanh().expand(batch, {width})",
            f"self.start_{k}.repeat(batch, {width})",
            f"torch.ones({width}, batch).t()",
        ]
    )


def _changes(draw: Random, constants: Constants, again: str | None) -> tuple[int, list[str]]:
    """Functions that change a cell, or what it reads, between two calls."""
    number = draw.choices([0, 1, 2], [2, 3, 1])[0] if again is None else 4
    lines = []
    for k in range(number):
        own = constants.changes and draw.random() < 0.5
        change = draw.choice(constants.changes if own else CHANGES)
        if again is not None:
            change = draw.choice(AGAIN[again][1])
        lines += [f"def change_{k}(cell):", "    with torch.no_grad():", f"        {change}"]
        lines += ["    return cell"]
    return number, lines


def _module(
    constants: Constants, made: list[str], step: list[str], methods: list[str], changes: list[str]
) -> str:
    """The whole source."""
    defaults = "".join(f", {one}" for one in constants.defaults)
    inside = [
        "super().__init__()",
        "self.plain, self.log, self.count, self.kept = [], [], 0, None",
        "self.drop, self.act, self.rate = nn.Dropout(0.3), Act(), 0.8",
        "self.modules_of_mine, self.knob = [nn.LeakyReLU(0.3)], torch.tensor(0.8)",
        "self.array, self.whole, self.helper = np.ones(2), 1, Helper()",
        "self.grown = torch.tensor([0.3, -0.4, 0.9])",
        *made,
    ]
    if any("start_" in line for line in methods):
        inside += [f"self.start_{k} = nn.Parameter(torch.tensor(0.2))" for k in range(3)]
    if any("put_out" in line for line in methods):
        width = next(line for line in made if "read_in" in line).rsplit(",", 1)[1].strip(" )")
        factor = 2 if any("chunk(2, 1)" in line for line in step) else 1
        inside.append(f"self.put_out = nn.Linear({int(width) * factor}, {int(width) * factor})")
    lines = [HEAD, "import copy", "OFFSET = torch.tensor(0.25)", *constants.outside, ""]
    lines += ["def made():", *(f"    {line}" for line in constants.closed)]
    lines += ["    class Cell(nn.Module):", "        alpha = 0.9"]
    lines += [f"        {line}" for line in constants.members]
    lines += ["        def __init__(self):", *(f"            {line}" for line in inside)]
    lines += [f"        def forward(self, input, state{defaults}):"]
    lines += [f"            {line}" for line in step]
    lines += [f"        {line}" for line in methods]
    return "\n".join([*lines, "    return Cell", "", "Cell = made()", *changes, ""])
