"""Operators that compute: pointwise ones, reductions over features, products with parameters.

What is not here and not in `bptt.engine.lowering.views` is no part of a step program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.engine.lowering.builder import Columns, Rows
from bptt.engine.lowering.translator import HANDLERS, Contraction, Param, Translator, handles
from bptt.engine.unsupported import Reason, Refusal

_aten = torch.ops.aten

CHAIN = 16
"""Up to this many rows a reduction across them is a chain of pointwise operators."""


def _pointwise(tr: Translator, opcode: str, *arguments: Any) -> Rows:
    return tr.builder.pointwise(opcode, *(tr.as_rows(a) for a in arguments))


def _simple(opcode: str) -> Callable[..., Rows]:
    def handler(tr: Translator, value: Tensor, *arguments: Any) -> Rows:
        return _pointwise(tr, opcode, *arguments)

    return handler


for _name in [
    "neg",
    "abs",
    "reciprocal",
    "sqrt",
    "rsqrt",
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "sigmoid",
    "relu",
    "erf",
    "minimum",
    "maximum",
    "gt",
    "ge",
    "lt",
    "le",
    "eq",
    "ne",
    "tanh_backward",
    "sigmoid_backward",
    "where",
    "pow",
]:
    HANDLERS[getattr(_aten, _name)] = _simple(_name)
for _packet, _opcode in {
    _aten.sign: "sign",
    _aten.sgn: "sign",
    _aten.logical_not: "not",
    _aten.logical_and: "and",
    _aten.logical_or: "or",
}.items():
    HANDLERS[_packet] = _simple(_opcode)


@handles(_aten.logical_xor)
def logical_xor(tr: Translator, value: Tensor, a: Any, b: Any) -> Rows:
    """Whether one of two is not zero, and not both."""
    truths = [_pointwise(tr, "ne", x, 0.0) for x in (a, b)]
    return _pointwise(tr, "ne", *truths)


def _bitwise(opcode: str) -> Callable[..., Rows]:
    def handler(tr: Translator, value: Tensor, *arguments: Any) -> Rows:
        if value.dtype is not torch.bool:
            raise Refusal(Reason.OPERATOR, "bitwise operators on integers")
        return _pointwise(tr, opcode, *arguments)

    return handler


HANDLERS[_aten.bitwise_not] = _bitwise("not")
HANDLERS[_aten.bitwise_and] = _bitwise("and")
HANDLERS[_aten.bitwise_or] = _bitwise("or")
HANDLERS[_aten.bitwise_xor] = _bitwise("ne")


def _scaled(tr: Translator, x: Any, alpha: float) -> Any:
    return x if alpha == 1 else _pointwise(tr, "mul", x, alpha)


@handles(_aten.add)
def add(tr: Translator, value: Tensor, a: Any, b: Any, alpha: float = 1) -> Rows:
    """a + alpha b; of truth values, whether one of them is."""
    if value.dtype is torch.bool:
        return _pointwise(tr, "or", a, b) if alpha else _pointwise(tr, "ne", a, 0.0)
    return _pointwise(tr, "add", a, _scaled(tr, b, alpha))


@handles(_aten.sub)
def sub(tr: Translator, value: Tensor, a: Any, b: Any, alpha: float = 1) -> Rows:
    """a - alpha b."""
    return _pointwise(tr, "sub", a, _scaled(tr, b, alpha))


@handles(_aten.rsub)
def rsub(tr: Translator, value: Tensor, a: Any, b: Any, alpha: float = 1) -> Rows:
    """b - alpha a."""
    return _pointwise(tr, "sub", b, _scaled(tr, a, alpha))


@handles(_aten.mul)
def mul(tr: Translator, value: Tensor, a: Any, b: Any) -> Rows:
    """a b."""
    return _pointwise(tr, "mul", a, b)


@handles(_aten.div)
def div(tr: Translator, value: Tensor, a: Any, b: Any, rounding_mode: str | None = None) -> Rows:
    """a / b."""
    if rounding_mode is not None:
        raise Refusal(Reason.OPERATOR, "aten::div with rounding")
    return _pointwise(tr, "div", a, b)


@handles(_aten.softplus)
def softplus(tr: Translator, value: Tensor, x: Any, beta: float = 1, threshold: float = 20) -> Rows:
    """log(1 + exp(beta x)) / beta, x itself above the threshold."""
    if beta == 1 and threshold == 20:
        return _pointwise(tr, "softplus", x)
    scaled = _pointwise(tr, "mul", x, beta)
    soft = _pointwise(tr, "div", _pointwise(tr, "log1p", _pointwise(tr, "exp", scaled)), beta)
    return _pointwise(tr, "where", _pointwise(tr, "gt", scaled, threshold), x, soft)


@handles(_aten.clamp)
def clamp(
    tr: Translator, value: Tensor, x: Any, low: Any = None, high: Any = None, **named: Any
) -> Rows:
    """Between bounds; NaN stays NaN."""
    low, high = named.get("min", low), named.get("max", high)
    bounded = x if low is None else _pointwise(tr, "maximum", x, low)
    return bounded if high is None else _pointwise(tr, "minimum", bounded, high)


@handles(_aten.clamp_min)
def clamp_min(tr: Translator, value: Tensor, x: Any, low: Any) -> Rows:
    """At least ``low``."""
    return _pointwise(tr, "maximum", x, low)


@handles(_aten.clamp_max)
def clamp_max(tr: Translator, value: Tensor, x: Any, high: Any) -> Rows:
    """At most ``high``."""
    return _pointwise(tr, "minimum", x, high)


@handles(_aten.exp2)
def exp2(tr: Translator, value: Tensor, x: Any) -> Rows:
    """2 to the power of x."""
    return _pointwise(tr, "pow", 2.0, x)


@handles(_aten.isnan)
def isnan(tr: Translator, value: Tensor, x: Any) -> Rows:
    """Whether x is not a number."""
    return _pointwise(tr, "ne", x, x)


@handles(_aten._to_copy)
def to_copy(tr: Translator, value: Tensor, x: Any, **options: Any) -> Any:
    """A conversion between truth values and the step's own dtype."""
    if value.dtype is torch.bool:
        return _pointwise(tr, "ne", x, 0.0)
    if value.is_floating_point() and value.dtype is not tr.dtype:
        raise Refusal(Reason.DTYPE, f"conversion to {value.dtype}")
    if not value.is_floating_point():
        raise Refusal(Reason.OPERATOR, f"conversion to {value.dtype}")
    return x


# -- reductions -----------------------------------------------------------------------------------


def _dims(x: Rows, dims: Any) -> list[int]:
    given = list(range(x.rank)) if dims is None or dims == [] else dims
    return sorted({d % x.rank for d in ([given] if isinstance(given, int) else given)})


def _reduce(tr: Translator, reduction: str, pair: str, x: Rows, dims: Any, keepdim: bool) -> Rows:
    """Over feature dimensions: a row reduction for each that stays, or a chain across few that
    go."""
    gone = _dims(x, dims)
    if x.axis in gone:
        raise Refusal(Reason.LANES, reduction)
    stay = [d for d in range(x.rank) if d not in gone]
    kept = [x.columns.shape[d] for d in stay]
    flat = x.columns.transpose([*stay, *gone]).reshape(int(np.prod(kept)), -1)
    result = _reduced(tr, reduction, pair, flat).reshape(kept)
    axis = stay.index(x.axis)
    if keepdim:
        result, axis = np.expand_dims(result, tuple(gone)), x.axis
    return Rows(result, axis)


def _reduced(tr: Translator, reduction: str, pair: str, flat: Columns) -> Columns:
    rows, across = flat.shape
    if across == 1:
        return np.ascontiguousarray(flat[:, 0])
    if rows > 1 and across <= CHAIN:
        total = Rows(flat[:, 0][None], 0)
        for i in range(1, across):
            total = tr.builder.pointwise(pair, total, Rows(flat[:, i][None], 0))
        return total.columns.reshape(-1)
    if rows <= CHAIN:
        return np.concatenate([tr.builder.reduce(reduction, row) for row in flat])
    raise Refusal(Reason.OPERATOR, f"a {reduction} over {rows} x {across} features")


@handles(_aten.sum)
def sum_(
    tr: Translator,
    value: Tensor,
    x: Rows,
    dims: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Any:
    """Over features; over lanes it is what follows the loop."""
    counts = not value.is_floating_point() and value.dtype is not torch.bool
    if not counts and value.dtype is not tr.dtype:
        raise Refusal(Reason.OPERATOR, f"aten::sum as {value.dtype}")
    over = _dims(x, dims)
    if x.axis not in over:
        return _reduce(tr, "sum", "add", x, over, keepdim)
    if not tr.builder.depends_on_gradient(x):
        raise Refusal(Reason.LANES, "aten::sum")
    features = [d for d in over if d != x.axis]
    rest = _reduce(tr, "sum", "add", x, features, True) if features else x
    gathered = tr.gather(rest.columns)
    total = tr.crossed(torch.sum, (gathered, 0), (rest.columns.size,))
    shaped = tr.crossed(torch.reshape, (total.node, tuple(value.shape)), value.shape)
    return total if len(value.shape) == 1 else shaped


@handles(_aten.mean)
def mean(
    tr: Translator,
    value: Tensor,
    x: Rows,
    dims: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Rows:
    """Over features."""
    count = int(np.prod([x.columns.shape[d] for d in _dims(x, dims)]))
    return _pointwise(tr, "div", _reduce(tr, "sum", "add", x, dims, keepdim), count)


@handles(_aten.amax)
def amax(tr: Translator, value: Tensor, x: Rows, dims: Any = None, keepdim: bool = False) -> Rows:
    """The greatest feature."""
    return _reduce(tr, "amax", "maximum", x, dims, keepdim)


@handles(_aten.amin)
def amin(tr: Translator, value: Tensor, x: Rows, dims: Any = None, keepdim: bool = False) -> Rows:
    """The least feature."""
    return _pointwise(
        tr, "neg", _reduce(tr, "amax", "maximum", _pointwise(tr, "neg", x), dims, keepdim)
    )


@handles(_aten.var)
def var(
    tr: Translator,
    value: Tensor,
    x: Rows,
    dims: Any = None,
    correction: float | None = None,
    keepdim: bool = False,
) -> Rows:
    """Over features, in two passes."""
    count = int(np.prod([x.columns.shape[d] for d in _dims(x, dims)]))
    middle = _pointwise(tr, "div", _reduce(tr, "sum", "add", x, dims, True), count)
    apart = _pointwise(tr, "sub", x, middle)
    squares = _reduce(tr, "sum", "add", _pointwise(tr, "mul", apart, apart), dims, keepdim)
    return _pointwise(tr, "div", squares, count - (1 if correction is None else correction))


@handles(_aten.var_mean)
def var_mean(tr: Translator, value: Any, x: Rows, dims: Any = None, **options: Any) -> list[Rows]:
    """Both over features."""
    keepdim = bool(options.get("keepdim", False))
    return [var(tr, value[0], x, dims, **options), mean(tr, value[1], x, dims, keepdim)]


@handles(_aten.linalg_vector_norm)
def vector_norm(
    tr: Translator,
    value: Tensor,
    x: Rows,
    order: float = 2,
    dims: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Rows:
    """The Euclidean length of the features, or the sum or greatest of their magnitudes."""
    if order == 2:
        squares = _pointwise(tr, "mul", x, x)
        return _pointwise(tr, "sqrt", _reduce(tr, "sum", "add", squares, dims, keepdim))
    size = _pointwise(tr, "abs", x)
    if order == 1:
        return _reduce(tr, "sum", "add", size, dims, keepdim)
    if order == float("inf"):
        return _reduce(tr, "amax", "maximum", size, dims, keepdim)
    raise Refusal(Reason.OPERATOR, f"a norm of order {order}")


# -- products -------------------------------------------------------------------------------------


@handles(_aten.mm)
def mm(tr: Translator, value: Tensor, a: Any, b: Any) -> Any:
    """A product with a parameter; of two rows, over the lanes: a parameter's gradient."""
    if isinstance(a, Rows) and isinstance(b, Param) and a.axis == 0:
        return _product(tr, None, a, b)
    if isinstance(a, Param) and isinstance(b, Rows) and b.axis == 1:
        turned = _product(tr, None, _turn(b), _transposed(tr, a))
        return _turn(turned)
    if isinstance(a, Rows) and isinstance(b, Rows) and a.axis == 1 and b.axis == 0:
        return _crossed_product(tr, value, a, b)
    raise Refusal(Reason.LANES, "aten::mm")


def _crossed_product(tr: Translator, value: Tensor, a: Rows, b: Rows) -> Contraction:
    if not (tr.builder.depends_on_gradient(a) or tr.builder.depends_on_gradient(b)):
        raise Refusal(Reason.LANES, "aten::mm")
    left = tr.transposed(tr.gather(a.columns))
    return tr.crossed(torch.mm, (left, tr.gather(b.columns)), value.shape)


@handles(_aten.addmm)
def addmm(
    tr: Translator, value: Tensor, init: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1
) -> Rows:
    """init + a @ b."""
    if beta == 1 and alpha == 1 and isinstance(a, Rows) and a.axis == 0 and isinstance(b, Param):
        return _product(tr, init, a, b)
    product = mm(tr, value, a, b)
    return add(tr, value, _scaled(tr, init, beta), product, alpha)


@handles(_aten.mv)
def mv(tr: Translator, value: Tensor, a: Any, b: Any) -> Rows:
    """A product with a vector parameter."""
    if not (isinstance(a, Rows) and a.axis == 0 and isinstance(b, Param)):
        raise Refusal(Reason.LANES, "aten::mv")
    column = Param(tr.before.call_method("unsqueeze", (b.node, 1)), (*b.shape, 1), b.dtype)
    return Rows(_product(tr, None, a, column).columns[:, 0], 0)


def _product(tr: Translator, init: Any, a: Rows, matrix: Param) -> Rows:
    width = matrix.shape[1]
    start = None
    if init is not None:
        start = np.broadcast_to(tr.as_rows(init).columns, (1, width)).reshape(-1)
    columns = tr.builder.matmul(start, a.columns.reshape(-1), tr.matrix(matrix), width)
    return Rows(columns[None], 0)


def _turn(x: Rows) -> Rows:
    return Rows(x.columns.T, 1 - x.axis)


def _transposed(tr: Translator, a: Param) -> Param:
    if a.node.op == "call_function" and a.node.target is _aten.t.default:
        return Param(a.node.args[0], a.shape[::-1], a.dtype)  # type: ignore[arg-type]  # torch.fx types its arguments as anything
    for node in a.node.users:
        if node.target is _aten.t.default:
            return Param(node, a.shape[::-1], a.dtype)
    return Param(tr.before.call_function(_aten.t.default, (a.node,)), a.shape[::-1], a.dtype)
