"""The operators that a random cell is made of: templates of Python source.

In a template ``{x}`` and ``{y}`` are rows [lane, width], ``{w}`` is their width, ``{o}`` another
width; a ``{new:…}`` is defined in ``__init__`` by `Writer`.
"""

from __future__ import annotations

POINTWISE = [
    "torch.tanh({x})",
    "torch.sigmoid({x})",
    "torch.relu({x})",
    "F.softplus({x})",
    "F.silu({x})",
    "F.gelu({x})",
    "F.elu({x})",
    "F.leaky_relu({x}, 0.2)",
    "{x}.abs()",
    "-{x}",
    "torch.sin({x})",
    "torch.exp(-{x}.abs())",
    "torch.log({x}.square() + 1.0)",
    "torch.sqrt({x} * {x} + 1.0)",
    "torch.rsqrt({x} ** 2 + 0.5)",
    "1.0 / ({x}.abs() + 1.0)",
    "({x}.abs() + 0.5) ** 1.7",
    "{x}.clamp(-0.7, 0.9)",
    "{x}.clamp(min=-0.5)",
    "torch.where({x} > 0.1, {x}, 0.3 * {x})",
    "0.5 - 2 * {x} / 3",
    "{x} * 0.5 + 1",
    "{x}.mul(2).add(1).div(3)",
    "F.hardtanh({x})",
    "{x}.erf()",
    "{x}.masked_fill({x} < -0.3, 0.1)",
    "{x}.detach()",
    "{x}.sign() * {x}.square()",
    "torch.nan_to_num({x})",
    "{x} * 0 + 0.5",
]
"""Of one row, value by value."""

FEATURES = [
    "F.layer_norm({x}, ({w},))",
    "torch.softmax({x}, -1)",
    "torch.log_softmax({x}, 1)",
    "{x} - {x}.mean(1, keepdim=True)",
    "{x} * {x}.sum(-1)[:, None] * 0.2",
    "{x} / ({x}.norm(dim=1, keepdim=True) + 1.0)",
    "{x} / ({x}.std(1, keepdim=True, unbiased=False) + 1.0)",
    "{x} + {x}.amax(1, keepdim=True)",
    "{x} * {x}.max(dim=1, keepdim=True).values",
    "{x}.flip(1)",
    "{x}.roll(1, 1)",
    "{x}.cumsum(1) * 0.5",
    "{x}.sort(dim=1).values",
    "F.normalize({x}, dim=1)",
    "torch.logsumexp({x}, 1, keepdim=True) - {x}",
    "{x} @ {x}.new_ones({w}, {w}).tril()",
    "torch.einsum('bi,bj->bi', {x}, {x}) * 0.3",
    "torch.bmm({x}[:, None], {x}[:, :, None])[:, 0] * {x} * 0.3",
]
"""Of one row, across its features."""

VIEWS = [
    "{x}.view(-1, {w})",
    "{x}.reshape(len({x}), {w})",
    "{x}.unsqueeze(1).squeeze(1)",
    "{x}.t().contiguous().t()",
    "{x}.t().clone().t()",
    "{x}.contiguous()",
    "{x}.clone()",
    "{x}[:, :]",
    "{x}[:, None].expand(-1, 2, -1)[:, 1]",
    "torch.cat(list(reversed({x}.chunk(2, 1))), 1)",
    "torch.cat({x}.tensor_split(2, 1), 1)",
    "F.pad({x}[:, 1:], (0, 1))",
    "F.pad({x}, (1, 1))[:, 1:-1]",
    "torch.stack([{x}, -{x}], 2).amax(2)",
    "torch.stack({x}.unbind(1), 1)",
    "{x}.repeat(1, 2)[:, ::2]",
    "torch.cat([{x}, {x}], 1)[:, 1:{w} + 1]",
    "{x}.movedim(0, 1).movedim(1, 0)",
    "{x}.index_select(1, torch.arange({w} - 1, -1, -1))",
    "{x}.as_strided(({x}.shape[0], {w}), {x}.stride())",
]
"""Of one row: views, pieces, copies."""

IN_PLACE = [
    "{x}.clone().mul_(0.5).add_({y})",
    "{x}.add(0.1).tanh_()",
    "torch.zeros_like({x}).add_({x}).sub_({y}, alpha=0.5)",
    "torch.empty_like({x}).copy_({x}).clamp_(-1, 1)",
    "{x}.neg().exp_().add_(1).reciprocal_()",
    "torch.relu_({x}.clone()) + {y}",
    "{x}.detach().clone().fill_(0.3) * {y}",
    "{x}.index_fill(1, torch.tensor([0]), 0.2)",
]
"""In place on what is fresh."""

BINARY = [
    "{x} + {y}",
    "{x} - {y}",
    "{x} * {y}",
    "{x} / ({y}.square() + 1.0)",
    "torch.minimum({x}, {y})",
    "torch.maximum({x}, {y})",
    "torch.where({x} >= {y}, {x}, {y} * 0.5)",
    "torch.lerp({x}, {y}, torch.sigmoid({x}))",
    "torch.lerp({x}, {y}, 0.3)",
    "torch.addcmul({x}, {y}, {y}, value=0.5)",
    "torch.sigmoid({x}) * {y}",
    "torch.where(({x} > 0) & ({y} <= 0.5), {x}, {y})",
    "torch.atan2({x}, {y}.abs() + 1.0)",
    "torch.hypot({x}, {y} + 2.0)",
    "{x}.add({y}, alpha=0.3)",
    "torch.stack([{x}, {y}]).mean(0)",
    "torch.cat([{x}, {y}], 1)[:, ::2]",
]
"""Of two rows of one width."""

CONSTANT = [
    "{x} * {row}",
    "{x} + {row}",
    "({x} - {scalar}) / {other}",
    "({x} - {scalar}) / {other} * (({x} - {scalar}) / {other})",
    "torch.where({bools}, {x}, {y})",
    "{x}.masked_fill({bools}, 0.2)",
    "{x} * {whole}",
    "{x} / {whole}",
    "{x}[:, {index}]",
    "{x}[:, {indices}]",
    "{x}.index_select(1, {index})",
    "{x} @ {square}",
    "({square} @ {x}.t()).t()",
    "F.linear({x}, {square}, {row})",
    "torch.einsum('bi,ij->bj', {x}, {square})",
    "torch.lerp({x}, {y}, {row}.sigmoid())",
    "{x} + {y} + {row}",
    "F.layer_norm({x}, ({w},), {row})",
    "{x} * {number}",
    "{x} * float({scalar})",
    "{x} + torch.as_tensor({array}, dtype={x}.dtype)",
    "{x} * {single}",
    "{x}.clamp(min=-{row}.abs())",
]
"""With a plain constant of one of the kinds that `Constants` knows."""

AGAIN = {
    "number": (
        [
            "{x} * self.rate + (1 - self.rate) * {y}",
            "{x} / (1 - self.rate**2) + {y}",
            "{x} * (self.rate % 0.3) + {y} * (self.rate // 0.3)",
            "{x} * math.sqrt(abs(self.rate))",
            "{x} * (self.rate * 1e300) * 1e-300",
        ],
        ["cell.rate = 1 - 1e-9", "cell.rate = cell.rate * 0.7", "cell.rate = 0.9"],
    ),
    "whole number": (["{x} * self.whole", "{x} / (1 + self.whole)"], ["cell.whole += 1"]),
    "length": (
        [
            "{x} * self.grown.mean()",
            "{x} + self.grown.var()",
            "{x} + self.grown[-1]",
            "{x} * self.grown.chunk(2)[0].sum()",
        ],
        ["cell.grown = torch.cat([cell.grown, cell.grown[:1] + 0.3])"],
    ),
    "helper": (
        ["{x} * self.helper.gain({y})"],
        [
            "Helper.gain = lambda self, x: torch.tanh(x)",
            "Helper.gain = lambda self, x: x * 0.5",
            "cell.helper = Helper()",
        ],
    ),
}
"""What changes again and again, and how."""

PARAMETER = [
    "self.{linear}({x})",
    "{x} @ self.{matrix}",
    "{x} @ self.{matrix}.t()",
    "(self.{matrix} @ {x}.t()).t()",
    "F.linear({x}, self.{matrix}, self.{vector})",
    "{x} * self.{vector}",
    "{x} + self.{vector}",
    "torch.tanh({x} @ self.{matrix} + {y})",
    "torch.addmm(self.{vector}, {x}, self.{matrix})",
    "torch.einsum('bi,ij->bj', {x}, self.{matrix})",
    "torch.einsum('bi,ji->bj', {x}, self.{matrix})",
    "F.linear({x}, self.{tall}[:{w}])",
    "F.linear({x}, self.{tall}[{w}:], self.{vector})",
    "{x} @ self.{tall}.chunk(2, 0)[1].t()",
    "{x} @ self.{matrix}[:, self.order_{w}]",
    "{x} @ (self.{matrix} * {square})",
    "{x} @ torch.tril(self.{matrix})",
    "{x} @ (self.{matrix} - self.{matrix}.t())",
    "F.layer_norm({x}, ({w},), self.{vector})",
    "torch.matmul({x}, self.{matrix}) + {x} * self.{vector}",
    "self.{block}({x})",
    "self.{block}({x}) + self.{block}({y})",
    "torch.cat([{x}, {y}], 1) @ self.{tall}",
    "F.prelu({x}, self.{vector}.abs()[:1])",
    "{x} * self.{buffer}",
    "torch.tanh({x} + self.{buffer}) * self.{buffer}",
]
"""With weights; all give the same width."""
