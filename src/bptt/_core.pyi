"""The native core: executes low-level step programs over time on the CPU (see native/README.md).

A program is plain data, validated when it is built; an array is anything that speaks DLPack on the
CPU (torch tensors by the fast road, NumPy arrays by the general one), validated at every run.
Nothing is copied and nothing converted: a wrong dtype or kind of object raises ``TypeError``, a
wrong shape, stride, alignment or device, or an output that overlaps another array, ``ValueError``,
before any work. Tensors that are no plain memory (fake, meta, batched, sparse) raise too. Gradients
are not tracked: pass tensors as they are, ``requires_grad`` or not. A tensor whose negation is lazy
(``Tensor.is_neg()``) must be resolved first: DLPack does not tell.

Operands of an instruction
    ``(space, index, offset, width)`` with a space of `SPACES`: the columns ``offset : offset +
    width`` of array ``index``; or a ``float`` (immediate constant, width 1). Width 1 broadcasts
    over a wider result. A destination is always such a tuple.

Spaces: what each array is at step t, for B rows
    ======== ======================================== ======= =======
    space    array                                    forward reverse
    ======== ======================================== ======= =======
    scratch  thread-local tile, forgotten each step   rw      rw
    time     ``time[i]`` [T, B, W] at t               r or w  r or w
    row      ``rows[i]`` [B, W]                       r       r
    unit     ``units[i]`` [W] for all rows            r       r
    state    state j before step t (resets applied)   r       r
    next     state j after step t                     w       r
    grad     gradient wrt. ``next`` (carry + GS[t])   -       r
    grad_in  gradient wrt. ``state``                  -       w
    ======== ======================================== ======= =======
    What is written may be read again later in the same step, never before. Every column of every
    ``next`` (forward) or ``grad_in`` (reverse) must be written.

Instructions
    ``(name, dst, *operands)`` with a name of `OPCODES` and as many operands as it tells;
    ``("matmul", dst, init, a, m)`` is dst = init + a @ matrices[m], init an operand or None, m an
    int. A destination may be one of its own operands (the same slot exactly; never matmul's ``a``,
    nor the wider operands of ``sum``, ``amax`` and ``dot``); any other overlap of a destination
    with its operands is refused.
    Instructions are fastest where each value is a scratch array of its own (its rows then follow
    each other) rather than columns of a wide one.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""Anything that speaks DLPack on the CPU."""

Slot: TypeAlias = tuple[str, int, int, int]
"""(space, index, offset, width)."""

Operand: TypeAlias = Slot | float
Instruction: TypeAlias = tuple[Any, ...]

SPACES: tuple[str, ...]
"""Names of the operand spaces."""

OPCODES: dict[str, int]
"""Name of an instruction to its number of operands (after dst).

copy neg abs sign reciprocal sqrt rsqrt exp expm1 log log1p tanh sigmoid relu softplus erf not |
add sub mul div minimum maximum pow gt ge lt le eq ne and or tanh_backward(g, y)
sigmoid_backward(g, y) | mul_add(a, b, c) = a*b+c, where(condition, a, b) | sum amax
dot(a, b) (dst width 1) | matmul(init, a, m).
"""

class Program:
    """A validated step program; immutable, may run from several threads at once."""

    def __init__(
        self,
        *,
        dtype: str,
        reverse: bool,
        states: Sequence[int],
        scratch: Sequence[int] = (),
        time: Sequence[tuple[int, str]] = (),
        rows: Sequence[int] = (),
        units: Sequence[int] = (),
        matrices: Sequence[tuple[int, int]] = (),
        instructions: Sequence[Instruction] = (),
    ) -> None:
        """Validate and resolve.

        dtype: "float32" or "float64". states, scratch, rows, units: widths. time: (width, "r" or
        "w"). matrices: (k, n). Raises ValueError or TypeError that names the instruction at fault.
        """

    def forward(
        self,
        steps: int,
        batch: int,
        states: Sequence[Array],
        time: Sequence[Array] = (),
        rows: Sequence[Array] = (),
        units: Sequence[Array] = (),
        matrices: Sequence[Array] = (),
        initial: Sequence[Array | None] = (),
        reset: Array | None = None,
        lengths: Array | None = None,
        threads: int = 1,
    ) -> None:
        """Run t = 0 .. steps-1.

        states: S_j [steps+1, batch, n_j], S_j[0] filled by the caller, the rest written.
        time: [steps, batch, W] each; rows: [batch, W]; units: [W]; matrices: [k, n] with any
        strides. Elsewhere the last dimension is contiguous and the others have any strides
        (outputs: not overlapping themselves or any other array). initial: [batch, n_j] each (row
        stride 0 is fine), needed only with reset. reset: bool [steps, batch]; lengths: int64
        [batch], any strides. threads: at most so many; the result does not depend on them.
        Past a lane's length its state is frozen and the written time arrays are zero.
        """

    def reverse(
        self,
        steps: int,
        batch: int,
        states: Sequence[Array | None],
        time: Sequence[Array] = (),
        rows: Sequence[Array] = (),
        units: Sequence[Array] = (),
        matrices: Sequence[Array] = (),
        initial: Sequence[Array | None] = (),
        reset: Array | None = None,
        lengths: Array | None = None,
        threads: int = 1,
        clip: float | None = None,
        final_grads: Sequence[Array | None] = (),
        step_grads: Sequence[Array | None] = (),
        start_grads: Sequence[Array | None] = (),
        initial_grads: Sequence[Array | None] = (),
    ) -> None:
        """Run t = steps-1 .. 0.

        states: as in forward; None where the program reads neither ``state`` nor ``next`` of that
        leaf. initial: needed with reset for the leaves whose ``state`` is read.
        final_grads: [batch, n_j], gradient of S_j[steps] (None: zero). step_grads: GS_j [steps,
        batch, n_j], added to the carry before step t (None: nothing). start_grads: [batch, n_j],
        written: gradient of S_j[0] (None: not wanted). initial_grads: [batch, n_j], added to where
        a row was reset (None: not wanted). Each of these four is empty or has one entry a leaf.
        clip: the state's gradient is clamped to [-clip, clip] after each step (None: not).
        """

    @property
    def workspace(self) -> int:
        """The bytes that the latest run worked in: packed weights, and rows of what it computes."""

Place: TypeAlias = tuple[str, int, int, int]
"""(space, index, offset, width): columns of an array over time. Spaces: state (before the step,
resets applied), next, saved, delta (what the backward program writes over time), input."""

class Unfolding:
    """Input projections, the loop, and the products after it: one call each way.

    The heads are the tensors that a call is about: the sources of all weights, and last the input,
    [steps, batch, n]. Matrices, units and projections name them by their number.
    """

    def __init__(
        self,
        *,
        heads: int,
        forward: tuple[Program, list[tuple[int, bool]], list[int], list[int], bool],
        backward: tuple[Program, list[tuple[int, bool]], list[int], list[int], bool] | None,
        projections: list[tuple[int, list[int]]],
        products: list[tuple[str, int, int, Place, Place, int]],
    ) -> None:
        """Validate and resolve.

        forward, backward: the program; of each of its matrices the head, and whether transposed; of
        each unit the head; which projections its first arrays over time are; whether an array of
        all that is saved follows. An array that the backward program writes comes last.
        projections: (weight, biases): rows of the input @ weight^T + biases, in the order of the
        forward program's arrays over time.
        products: (kind, head, first row, a, b, matrix): part of a head's gradient, "outer" a^T b,
        "sum" the columns' sums of a, "dot" those of a times b, "multiply" a @ heads[matrix].
        """

    def forward(
        self,
        steps: int,
        batch: int,
        heads: Sequence[Array],
        start: Sequence[Array],
        states: Sequence[Array],
        last: Sequence[Array],
        times: Sequence[Array],
        saved: Array | None,
        initial: Sequence[Array],
        reset: Array | None,
        lengths: Array | None,
        threads: int,
    ) -> None:
        """Fill states [steps + 1, batch, n], last [batch, n] and saved.

        start: [batch, n], any strides. times: empty, or an array for each projection to be kept in.
        Others as in `Program.forward`.
        """

    def backward(
        self,
        steps: int,
        batch: int,
        heads: Sequence[Array],
        states: Sequence[Array],
        times: Sequence[Array],
        saved: Array | None,
        initial: Sequence[Array],
        before: Sequence[Array | None],
        reset: Array | None,
        lengths: Array | None,
        threads: int,
        clip: float | None,
        final_grads: Sequence[Array | None],
        step_grads: Sequence[Array | None],
        start_grads: Sequence[Array | None],
        initial_grads: Sequence[Array | None],
        gradients: Sequence[Array | None],
    ) -> None:
        """Fill the gradients of the heads (None: not wanted) and of the states.

        before: with resets, the states before each step [steps, batch, n] of the leaves that
        products read; else empty. Rows that a product reads follow each other in memory. Others as
        in `Program.reverse`.
        """

    @property
    def workspace(self) -> int:
        """The bytes that the latest products after the loop worked in."""

def variants() -> dict[str, bool]:
    """Instruction sets compiled in, slowest first, and whether this CPU supports each."""

def isa() -> str:
    """The instruction set in use: the best supported, or BPTT_NATIVE_ISA's or `use_isa`'s."""

def use_isa(name: str | None) -> None:
    """Force an instruction set (None: the choice at import). ValueError if unsupported."""

def elementwise(name: str, x: Array, out: Array) -> None:
    """Apply a unary instruction to a contiguous 1-d array (for accuracy tests)."""

def multiply(a: Array, matrix: Array, out: Array, threads: int = 1, repeat: int = 1) -> None:
    """Write a @ matrix by the packed product, packed once, repeated (for measurement)."""

def multiply_adds(rounds: int) -> float:
    """Run float32 multiply-adds in registers; their number (for the machine's raw peak)."""

class Watch:
    """Whether Python objects are what they were when this was made."""

    def __init__(
        self,
        same: list[tuple[Any, ...]],
        sizes: list[tuple[Any, ...]],
        tensors: list[tuple[Any, ...]] = ...,
        places: list[tuple[Any, ...]] = ...,
        equal: list[tuple[Any, ...]] = ...,
    ) -> None:
        """What to watch: (dict or list, key, value) that it holds that very value there;
        (container, size) its size; (tensor, requires_grad, dtype, shape) that it is such; of
        (tensor, requires_grad) that it is there, in place and kind, without a gradient; (dict, key,
        value) that it holds an equal one. TypeError for other tuples, and a place that is none in
        the CPU's memory."""

    def holds(self) -> bool:
        """Whether all of it is so."""

class Rows:
    """A contiguous buffer [capacity, lanes, ...] that steps are written into as they come."""

    def __init__(self, buffer: Array) -> None:
        """TypeError for what is no tensor in the CPU's memory, ValueError for one that is not
        contiguous."""

    def put(self, index: int, row: Any, classes: int = 0) -> bool:
        """Copy a row [lanes, ...] (without the lane, where there is one) into ``buffer[index]``.
        False, and nothing is copied, for what is no tensor of the buffer's very class and dtype,
        does not fit, or holds what is not finite or, of integers, none of so many classes (0:
        any)."""

class Standing:
    """Where a learner of live data stands.

    steps were read, updates made; the next window starts at ``start``, windows have reached
    ``reached``; loss and gradient norm of the last update, NaN before the first.
    """

    steps: int
    updates: int
    start: int
    reached: int
    loss: float
    gradient_norm: float

class Feed:
    """Live data: a step read, learned from and answered with a prediction in one call."""

    base: int

    def __init__(
        self,
        learner: Learner,
        watch: Watch,
        check: Callable[[], bool] | None,
        standing: Standing,
        inputs: Rows,
        targets: Rows,
        mask: Array,
        horizon: int,
        predictions: Callable[[bool], list[Any]],
    ) -> None:
        """Steps go where ``standing`` says, into rows counted from ``base``; ``mask``, bool
        [capacity, lanes], marks those that have a target. ``watch`` and ``check`` are asked before
        every step. ``predictions`` makes tensors to answer with, [lanes, features], or [features]
        if it is told that inputs come without their lane. ValueError if buffers are not what the
        learner reads."""

    def step(self, input: Any, target: Any) -> Any:
        """Take a step in, and the target of the one ``horizon`` steps ago; make the update that is
        due; give the prediction, after it, or with no horizon before. None, and the same step is to
        be taken again in another way, where something is not as it was, does not fit, or the update
        would not be finite."""

class Learner:
    """The online loop: updates for many windows in one call, without allocating and without the
    interpreter (native/src/online.h tells what a plan may say).

    Weights and the optimizer's state are the caller's arrays, changed in place; they must be
    contiguous and of the plan's dtype, and are held until others are bound. A plan that does not
    hold together raises ValueError when the learner is made.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        """Check the plan and lay out its memory. `bptt.engine.online.learner` makes plans."""

    def bind(self, sources: list[Array]) -> None:
        """The caller's arrays: the first buffers of the plan, in order."""

    def set_buffer(self, index: int, values: Array) -> None:
        """Fill a buffer of the learner's own."""

    def configure(
        self,
        depth: int,
        stride: int,
        counted: str,
        recomputed: bool,
        mean: bool,
        clip: float,
        slots: list[dict[str, Any]],
    ) -> None:
        """The method (counted: "new", "last" or "all"), the norm that gradients are clipped to
        (negative: not), and of every trained buffer its optimizer and that one's state."""

    def enter(
        self,
        context: Sequence[Array] | None,
        length: int,
        start: int,
        reached: int,
        pending: tuple[int, int, int, int] | None,
    ) -> None:
        """Stand in a batch of ``length`` steps: the context, leaves [lanes, n] (None: the initial
        state); where the next window starts; up to where windows have reached; and the window
        (start, stop, first, follow) after which the context is not yet renewed."""

    def extend(self, length: int) -> None:
        """The batch has so many steps."""

    def run(
        self,
        inputs: Array,
        targets: Array,
        mask: Array,
        reset: Array | None,
        lengths: Array | None,
        base: int,
        steps: int,
        seconds: float,
        losses: Array,
        norms: Array,
        counts: Array,
        most: int,
    ) -> tuple[str, int, tuple[int, int, int, int]]:
        """Windows until the batch is done, ``most`` updates are made, ``seconds`` are over, more
        steps are needed, or the next update's loss or gradient, or the weights it makes, are not
        finite, or huge (that update is not made).

        inputs [steps, lanes, features], targets [steps, lanes, features] or int64 [steps, lanes],
        mask and reset bool [steps, lanes], lengths int64 [lanes]: contiguous steps of the batch
        from ``base`` on (more may follow that are not looked at). losses, norms (float64) and
        counts (int64) [most] are written. Gives what `report` gives.
        """

    def report(self) -> tuple[str, int, tuple[int, int, int, int]]:
        """Of the last run: why it came back ("done", "updates", "time", "data", "nonfinite"), how
        many updates it made, and the window of the last one."""

    def state(self, what: str, to: list[Array]) -> bool:
        """Copy a state into ``to``, leaves [lanes, n]: "entry", "context" or "end" of the last
        update's window, or the "present" context. False, and nothing copied, at the initial
        state."""

    def predict(
        self, inputs: Array, reset: Array | None, base: int, steps: int, first: int, to: Array
    ) -> None:
        """The prediction [lanes, features] after the last of the given steps, unfolded from step
        ``first`` on from the present context, with the present weights."""

    def fresh(self) -> list[bool]:
        """For every slot, whether its momentum buffer holds nothing yet."""

    @property
    def needed(self) -> int:
        """The first step that the next run looks at."""

    @property
    def is_classic(self) -> bool:
        """Whether windows that are like each other are made many in one call of a kernel: so for
        the plainest networks, with the method and the optimizer that it is configured with."""

    def position(self) -> tuple[int, int, tuple[int, int, int, int] | None]:
        """Where the next window starts, how far windows have reached, and the window after which
        the context is not yet renewed: what `enter` takes."""
