"""`fit`: the training loop. How the gradient is found is the method's business, how the weights
change the optimizer's, when it ends the stopping criteria's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal

import torch

from bptt.errors import OptionError
from bptt.gradients import Full, GradientMethod
from bptt.gradients._update import check_stream
from bptt.losses import Loss, step_loss
from bptt.network import Network, check_trainable
from bptt.optimize import Solver
from bptt.segments import undrawn
from bptt.streams import Stream
from bptt.training._checkpoint import Checkpoint, Saver
from bptt.training._history import History
from bptt.training._loop import Callback, Loop
from bptt.training._nonfinite import Recovery
from bptt.training._processes import processes, several
from bptt.training._progress import Bar
from bptt.training._signals import Signals
from bptt.training._snapshot import about, check_savable, give, take
from bptt.training._starts import best_of
from bptt.training._step import Stepper
from bptt.training._stopping import Epochs, StoppingCriterion


def fit(
    network: Network,
    stream: Stream,
    *,
    method: GradientMethod | None = None,
    loss: Loss = "mse",
    optimizer: torch.optim.Optimizer
    | Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
    | None = None,
    epochs: int = 100,
    validation: Stream | float | None = None,
    stop: StoppingCriterion | Sequence[StoppingCriterion] = (),
    clip: float | None = None,
    clip_value: float | None = None,
    on_nonfinite: Literal["stop", "skip", "rollback"] = "stop",
    nonfinite_limit: int = 10,
    scheduler: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
    starts: int | Sequence[int] | None = None,
    jobs: int | None = None,
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
    resume: bool | Literal["force"] = False,
    verbose: bool = False,
) -> History:
    """Train ``network`` on ``stream``.

    Where `torch.distributed` is initialised, every process calls this with the same arguments and
    trains on its own lanes; together they make the updates that one process with all lanes makes.

    Args:
        network: the cell and its readout; trained in place.
        stream: the ordered data; read to the network's device, wherever they are.
        method: how the gradient is found: `Full` (the default), `Truncated`, `SlidingWindow`, or
            anything with their ``updates``.
        loss: ``"mse"``, ``"mae"``, ``"huber"``, ``"cross_entropy"``, or a function
            ``(prediction, target) -> [steps, lanes]`` or ``[steps, lanes, features]``.
        optimizer: any of `torch.optim`, or a function that makes one of the parameters; default:
            Adam with a learning rate of 0.001. `torch.optim.LBFGS` gets each update's closure.
        epochs: passes over the stream, at most.
        validation: a stream to judge by after every epoch, or a share of ``stream``, which is
            then split off its end.
        stop: further stopping criteria; the first that answers ends training.
        clip: scale the gradient of each update down to this Euclidean norm, over all parameters
            together, where it is larger.
        clip_value: bring each number of the gradient into ±``clip_value``. Both act on the summed
            gradient of an update, before the optimizer; ``Network(clip_state_gradient=)`` acts
            within the unfolding, on the state's gradient at every step.
        on_nonfinite: what happens when a loss, a gradient or the weights that the optimizer would
            give are NaN or infinite, beyond withholding that update: ``"stop"``; ``"skip"`` it,
            lanes whose state is not finite returning to the initial state; or ``"rollback"``:
            weights and optimizer return to where they stood 100 to 200 updates before, at half
            the learning rate, all lanes to the initial state, and the next window follows. The
            last two are told in a `NonFiniteWarning`.
        nonfinite_limit: withheld updates of a run beyond which training stops all the same.
        scheduler: of `torch.optim.lr_scheduler`, or a function that makes one of the optimizer;
            stepped after every epoch (``ReduceLROnPlateau`` with the validation loss, else the
            training loss).
        callbacks: functions of `Progress`, called after every epoch, or after every so many
            updates where they have an attribute ``every``.
        progress: show a bar with loss, gradient norm and speed.
        seed: of what is random while training (dropout), and with ``starts`` of their weights;
            the caller's generator is left alone.
        starts: train from so many initialisations, and keep the best by validation loss (training
            loss without). Each draws the weights anew, by every module's ``reset_parameters()``,
            and is determined by ``seed`` and its number alone: ``starts=[7]`` is start 7 by
            itself. One that fails is reported and left out. Optimizer and scheduler, if given, are
            functions then. Default: one run from the weights as they are.
        jobs: how many starts run at once, as joblib's ``n_jobs`` (-1: as many as there are
            processors); default: one after another, or as ``joblib.parallel_config`` says, through
            which Dask and Ray serve too.
        checkpoint: where and how often to save all that the rest of the run depends on, a
            `Checkpoint` or its folder. Ctrl-C, SIGTERM and SIGHUP finish the update at hand, save,
            and raise `Interrupted`; a second Ctrl-C leaves at once. With ``starts`` each of them
            has a folder of its own in it.
        resume: go on from the newest checkpoint of ``checkpoint``; begin where there is none yet,
            so that one script can be killed and started again. On the CPU, weights and history
            end as those of a run that was never broken, bit for bit, given the same arguments;
            ``epochs`` and the limits of stopping criteria may be others. ``"force"`` takes data
            that changed.
        verbose: print whether updates are made in the core, in whole stretches (docs/online.md),
            and if not, why.

    Returns:
        The history, with the reason for the stop; with ``starts`` that of the best one, and in
        `History.starts` how all of them ended.

    Raises:
        OptionError: an option is unknown, out of range, or does not go with another.
        NonFiniteError: a loss, a gradient or the weights became NaN or infinite; that update was
            withheld. Its ``report`` says where.
        CheckpointError: a checkpoint cannot be written or taken up.
        DataError: the data changed since the checkpoint.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, with a checkpoint.
        ProcessError: of several processes another one failed, or does not answer.
    """
    check_trainable(network)
    step_loss(loss)
    train, judge = _parts(stream, validation)
    where = _where(checkpoint, resume)
    if starts is not None:
        _check_makers(optimizer, scheduler)
        if where is not None and seed is None:
            raise OptionError("starts= with checkpoint= needs a seed=, to begin alike again.")
        again = partial(
            fit,
            method=method,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            validation=judge,
            stop=stop,
            clip=clip,
            clip_value=clip_value,
            on_nonfinite=on_nonfinite,
            nonfinite_limit=nonfinite_limit,
            scheduler=scheduler,
            progress=False,
            verbose=verbose,
        )
        return best_of(
            network, train, again, callbacks, starts, seed, jobs, progress, where, resume
        )
    if jobs is not None:
        raise OptionError("jobs= says how many starts run at once: give starts= as well.")
    maker = optimizer if optimizer is not None else torch.optim.Adam
    optim = maker if isinstance(maker, torch.optim.Optimizer) else maker(network.parameters())
    if scheduler is not None and not hasattr(scheduler, "step"):
        scheduler = scheduler(optim)
    if several() and isinstance(optim, Solver):
        raise OptionError(
            f"{type(optim.method).__name__} evaluates the loss by itself, over the lanes of one "
            "process: train with one process, or with an optimizer of torch.optim."
        )
    stepper = Stepper(network, optim, clip, clip_value)
    recovery = Recovery(on_nonfinite, nonfinite_limit, network, optim, scheduler)
    method = Full() if method is None else method
    criteria = [Epochs(epochs), *([stop] if isinstance(stop, StoppingCriterion) else stop)]
    together = processes(
        network,
        {
            "method": method,
            "loss": loss,
            "optimizer": optim,
            "epochs": epochs,
            "clip": clip,
            "clip_value": clip_value,
            "on_nonfinite": on_nonfinite,
            "stream": train,
            "validation": judge,
            "stop": criteria,
        },
    )
    part, judged = together.part(train), None if judge is None else together.part(judge)
    loop = Loop(
        network,
        part,
        judged,
        method,
        loss,
        stepper,
        scheduler,
        callbacks,
        criteria,
        recovery,
        together,
        verbose,
        seed,
    )
    bar = Bar(train.steps, epochs, enabled=progress and together.rank == 0)
    mode = network.training
    with (
        together,
        undrawn(enabled=seed is not None),
        Signals(where is not None, alone=together.world == 1) as signals,
    ):
        if seed is not None:
            torch.manual_seed(together.seed(seed))
        try:
            if where is not None:
                _begin_saving(loop, where, resume)
                bar.start_at(loop.progress.epoch, 0 if loop.tally is None else loop.tally.steps)
            return loop.run(bar, signals)
        finally:
            bar.close()
            if loop.saver is not None:
                loop.saver.close()
            network.train(mode)


def _check_makers(optimizer: Any, scheduler: Any) -> None:
    if several():
        raise OptionError(
            "starts= runs through joblib, on processes of its own; several processes of "
            "torch.distributed train one start together: leave starts= out."
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        raise OptionError(
            "with starts= each start makes its own optimizer: give a function of the parameters, "
            "optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1)."
        )
    if hasattr(scheduler, "step"):
        raise OptionError(
            "with starts= each start makes its own scheduler: give a function of the optimizer, "
            "scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)."
        )


def _where(
    checkpoint: Checkpoint | str | PathLike[str] | None, resume: bool | Literal["force"]
) -> Checkpoint | None:
    if resume not in (False, True, "force"):
        raise OptionError(f"resume= is False, True or 'force', not {resume!r}.")
    if resume and checkpoint is None:
        raise OptionError("resume= goes on from a checkpoint: give checkpoint=, its folder.")
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint(checkpoint)


def _begin_saving(loop: Loop, where: Checkpoint, resume: bool | Literal["force"]) -> None:
    """Stand where the newest checkpoint was taken, or write the first one."""
    check_savable(loop)
    loop.fingerprint = {"training": loop.train.fingerprint()}
    if loop.judge is not None:
        loop.fingerprint["validation"] = loop.judge.fingerprint()
    loop.fingerprint |= where.beside
    loop.saver = Saver(
        where,
        lambda: loop.processes.gathered(take(loop)),
        lambda: about(loop),
        writes=loop.processes.rank == 0,
    )
    state = loop.saver.resume() if resume else None
    if state is None:
        loop.saver.start()
    else:
        give(loop, loop.processes.own(state), force=resume == "force")
    if where.begun is not None and loop.processes.rank == 0:
        where.begun()


def _parts(stream: Stream, validation: Stream | float | None) -> tuple[Stream, Stream | None]:
    check_stream(stream, live=True)
    if validation is None or isinstance(validation, Stream):
        return stream, validation
    if isinstance(validation, bool) or not isinstance(validation, float):
        raise OptionError(
            f"validation= takes a Stream or a share between 0 and 1, not {validation!r}."
        )
    train, judge = stream.split(1 - validation)
    return train, judge
