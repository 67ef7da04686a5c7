"""The Typer application: what can be asked for, and the help that teaches it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bptt.cli import _compare, _diagnose, _fit, _predict, _text
from bptt.cli._processes import world
from bptt.cli._show import guarded
from bptt.comparison import DEFAULT, METHODS
from bptt.errors import OptionError
from bptt.forecasting import Job, Options, task_of

app = typer.Typer(
    name="bptt",
    help="Train recurrent networks on ordered data by backpropagation through time.",
    epilog="Start with: bptt fit — it trains on the sunspot numbers that the package carries.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COLUMNS = "What to learn"
NETWORK = "The network"
TRAINING = "How it is trained"
RUN = "Where it goes"

FIT_HELP = """Train a network on a table, and compare it with linear models on the last rows.

With no DATA it trains on the yearly sunspot numbers 1700–2008, one step ahead.

[bold]Prediction[/bold] (the default): the target's past is among the inputs. Beside persistence
and a linear AR or ARX model.

[bold]Simulation[/bold] (--simulate): the inputs alone. Beside the training mean and a linear
finite impulse response.

[bold]Text[/bold] (--task text): the next character, or byte, of a text file of any length, beside
counted frequencies. It has defaults of its own: --hidden 128 --depth 64 (--stride is the same) --lr
0.005 --clip 1 --epochs 20 --patience 3 --validation 0.05 --test 0.05.

[bold]Examples[/bold]

  bptt fit

  bptt fit furnace.csv --inputs GasRate --target CO2 --test 96 --out furnace

  bptt fit furnace.csv --inputs GasRate --target CO2 --simulate

  bptt fit load.parquet --inputs temperature,weekday --target load --horizon 24

  bptt fit load.csv --target load --cell lstm --hidden 32 --method full --lr 0.001

  bptt fit load.csv --target load --starts 16 --jobs 4

  bptt fit book.txt --task text --out book

  torchrun --nproc-per-node 4 -m bptt fit load.csv --target load --lanes 16 --out run

  bptt fit --resume furnace        (after a crash, Ctrl-C, or for more --epochs)
"""

COMPARE_HELP = """Train the same network from the same starts by several methods, under one budget.

Loss against time and against evaluations of the cell, median and spread over the starts, time to a
target loss, and how many times what full BPTT took. The loss is the mean squared error of scaled
values over all of DATA: this compares training, not forecasts.

With no DATA: the yearly sunspot numbers, then the adding problem.

[bold]Examples[/bold]

  bptt compare

  bptt compare load.csv --target load --methods full,truncated,evolution --budget 60s

  bptt compare load.csv --target load --budget 1e6 --starts 9
"""

PREDICT_HELP = """Forecast a table with the network of a run.

Every row of DATA gives one prediction, made after reading it: the output names the row that it is
of, so that the last rows lie past the end of DATA.

[bold]Examples[/bold]

  bptt predict furnace newer.csv --out predictions.csv

  bptt predict sunspots --free-run 20        (feeds predictions back, 20 years past the end)

  bptt predict book --begin "Once " --sample 500        (of a text: a sample)

  bptt predict book other.txt        (and how well the model predicts another text)

With inputs, a free run covers the last N rows of DATA: it reads their inputs, and not their
targets, which may be empty.
"""

DIAGNOSE_HELP = """See what the gradient reaches, whether the dynamics are chaotic, how rough the
loss is.

[bold]reach[/bold]: how many steps back an error is felt, what a depth of truncation misses, and the
depth to choose.

[bold]dynamics[/bold]: Lyapunov exponents, spectral radius, saturated gates.

[bold]surface[/bold]: the loss around the weights, along random directions and those of largest
curvature.

Of a run with several starts also their spread. Pictures, numbers and one page go to RUN/diagnosis.

[bold]Examples[/bold]

  bptt diagnose sunspots

  bptt diagnose furnace furnace.csv --parts reach --depth 50 --tolerance 0.001
"""

REPORT_HELP = """Gather a run in one page of HTML that needs no server and no network: its history,
its pictures, and its diagnosis if there is one.

[bold]Example[/bold]

  bptt diagnose furnace furnace.csv && bptt report furnace
"""

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="CSV or Parquet, a row for each step; or a text.",
        show_default="sunspots",
    ),
]


def _show_version(asked: bool) -> None:
    if asked:
        from bptt import __version__

        typer.echo(f"bptt {__version__}")
        raise typer.Exit


@app.callback()
def _bptt(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


@app.command(help=FIT_HELP)
@guarded
def fit(
    context: typer.Context,
    data: Data = None,
    task: Annotated[
        Literal["forecast", "text"],
        typer.Option(help="What DATA is: a table, or a text.", rich_help_panel=COLUMNS),
    ] = "forecast",
    unit: Annotated[
        Literal["character", "byte"],
        typer.Option(help="What of a text is a step.", rich_help_panel=COLUMNS),
    ] = "character",
    inputs: Annotated[
        str, typer.Option(help="Input columns, separated by commas.", rich_help_panel=COLUMNS)
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to forecast.", rich_help_panel=COLUMNS)
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            help="How many steps ahead.",
            show_default="1, with --simulate 0",
            rich_help_panel=COLUMNS,
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Do not read the target's past.", rich_help_panel=COLUMNS),
    ] = False,
    missing: Annotated[
        Literal["refuse", "mask"],
        typer.Option(
            help="Missing targets: refuse them, or leave them uncounted (where the past target is "
            "an input, the last known one stands in).",
            rich_help_panel=COLUMNS,
        ),
    ] = "refuse",
    test: Annotated[
        float,
        typer.Option(
            help="The last rows, to test on: a share, or a number of rows.",
            rich_help_panel=COLUMNS,
        ),
    ] = _fit.DEFAULTS.test,
    validation: Annotated[
        float,
        typer.Option(
            help="The rows before those, to validate on: a share of what is not tested on, or a "
            "number of rows.",
            rich_help_panel=COLUMNS,
        ),
    ] = _fit.DEFAULTS.validation,
    cell: Annotated[
        Literal["gru", "lstm", "elman", "leaky"],
        typer.Option(help="The recurrent cell.", rich_help_panel=NETWORK),
    ] = "gru",
    hidden: Annotated[
        int, typer.Option(help="Units of each layer.", rich_help_panel=NETWORK)
    ] = _fit.DEFAULTS.hidden,
    layers: Annotated[
        int, typer.Option(help="Recurrent layers.", rich_help_panel=NETWORK)
    ] = _fit.DEFAULTS.layers,
    method: Annotated[
        Literal["truncated", "full", "sliding-window"],
        typer.Option(help="How the gradient is found.", rich_help_panel=TRAINING),
    ] = "truncated",
    depth: Annotated[
        int,
        typer.Option(
            help="Steps that an error travels back (truncated, sliding-window).",
            rich_help_panel=TRAINING,
        ),
    ] = _fit.DEFAULTS.depth,
    stride: Annotated[
        int,
        typer.Option(help="Steps between two updates (truncated).", rich_help_panel=TRAINING),
    ] = _fit.DEFAULTS.stride,
    loss: Annotated[
        Literal["mse", "mae", "huber"],
        typer.Option(help="The loss, of scaled values.", rich_help_panel=TRAINING),
    ] = "mse",
    optimizer: Annotated[
        Literal["adam", "adamw", "rmsprop", "sgd", "lbfgs"],
        typer.Option(help="How the weights change.", rich_help_panel=TRAINING),
    ] = "adamw",
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate.",
            show_default="adam and adamw 0.002, rmsprop 0.001, sgd 0.01, lbfgs 1",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    weight_decay: Annotated[
        float,
        typer.Option(
            help="How strongly adamw draws the weights to zero.", rich_help_panel=TRAINING
        ),
    ] = _fit.DEFAULTS.weight_decay,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Scale gradients down to this norm.",
            show_default="never",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    on_nonfinite: Annotated[
        Literal["stop", "skip", "rollback"],
        typer.Option(
            help="What follows when an update is NaN or infinite, which is never made: stop, go on "
            "with the next, or return to earlier weights at half the learning rate.",
            rich_help_panel=TRAINING,
        ),
    ] = "stop",
    epochs: Annotated[
        int, typer.Option(help="Passes over the data, at most.", rich_help_panel=TRAINING)
    ] = _fit.DEFAULTS.epochs,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after so many epochs without a better validation loss.",
            rich_help_panel=TRAINING,
        ),
    ] = _fit.DEFAULTS.patience,
    seed: Annotated[
        int, typer.Option(help="Of the initial weights.", rich_help_panel=TRAINING)
    ] = _fit.DEFAULTS.seed,
    starts: Annotated[
        int,
        typer.Option(
            help="Train from so many initial weights, and keep the best on the validation part.",
            rich_help_panel=TRAINING,
        ),
    ] = _fit.DEFAULTS.starts,
    lanes: Annotated[
        int | None,
        typer.Option(
            help="Stretches of the training part that run side by side; the processes that "
            "torchrun starts share them.",
            show_default=f"of a text {_text.DEFAULTS.lanes}, of a table 1 for each process",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="How many starts run at once; -1: one for each processor.",
            show_default="1",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The folder for model, configuration, history and pictures.",
            show_default="bptt-run, or bptt-run-2, … where that exists",
            rich_help_panel=RUN,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the run in RUN once the new one is done; with --resume, take data that "
            "changed.",
            rich_help_panel=RUN,
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was broken off, with the data and options recorded in it.",
            show_default="begin a new one",
            rich_help_panel=RUN,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="EVERY",
            help="How often to save the training: a time (30s, 5min, 1h), a number of updates, or "
            "never. Saving takes at most 1 % of the time.",
            rich_help_panel=RUN,
        ),
    ] = "30s",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress bar.", rich_help_panel=RUN)
    ] = False,
) -> None:
    often = _fit.every(checkpoint)
    if resume is not None:
        _go_on(context, resume, often)
        return
    given = _given(context)
    if task == "text":
        chosen = {name: context.params[name] for name in given}
        _text.fit(data, chosen, _fit.Output(out, force, quiet))
        return
    if "unit" in given:
        raise OptionError("--unit goes with --task text alone.")
    options = Options(
        simulate=simulate,
        horizon=horizon,
        cell=cell,
        hidden=hidden,
        layers=layers,
        method=method,
        depth=depth,
        stride=stride,
        loss=loss,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        clip=clip,
        epochs=epochs,
        patience=patience,
        validation=validation,
        test=test,
        seed=seed,
        starts=starts,
        on_nonfinite=on_nonfinite,
        lanes=world() if lanes is None else lanes,
    )
    job = Job(data, _fit.names(inputs), target, missing, options, jobs, often or "30s")
    _fit.run(job, _fit.Output(out, force, quiet, save=often is not None))


GOES_ON = {"resume", "epochs", "jobs", "on_nonfinite", "checkpoint", "force", "quiet"}
"""What may be given when a run goes on."""


def _given(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # Compared by name: newer versions of Typer bring click along under a name of their own.
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _go_on(context: typer.Context, folder: Path, often: str | int | None) -> None:
    given = _given(context)
    if given - GOES_ON:
        names = ("DATA" if name == "data" else f"--{name}" for name in sorted(given - GOES_ON))
        raise OptionError(
            "--resume goes on with the data and options recorded in the run: leave out "
            f"{', '.join(names).replace('_', '-')}. --epochs, --jobs, --on-nonfinite, "
            "--checkpoint, --force and --quiet may be given."
        )
    asked: dict[str, Any] = {
        name: context.params[name] for name in ("epochs", "jobs", "on_nonfinite") if name in given
    }
    if "checkpoint" in given:
        if often is None:
            raise OptionError("--resume goes on saving: give --checkpoint a time, not never.")
        asked["every"] = often
    _fit.go_on(folder, _fit.Changes(**asked), context.params["force"], context.params["quiet"])


@app.command("compare", help=COMPARE_HELP)
@guarded
def compare_methods(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="CSV or Parquet, a row for each step.",
            show_default="sunspots, then the adding problem",
        ),
    ] = None,
    inputs: Annotated[
        str, typer.Option(help="Input columns, separated by commas.", rich_help_panel=COLUMNS)
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to forecast.", rich_help_panel=COLUMNS)
    ] = None,
    horizon: Annotated[
        int, typer.Option(help="How many steps ahead.", rich_help_panel=COLUMNS)
    ] = 1,
    missing: Annotated[
        Literal["refuse", "mask"],
        typer.Option(help="As in `bptt fit`.", rich_help_panel=COLUMNS),
    ] = "refuse",
    methods: Annotated[
        str,
        typer.Option(
            help="Separated by commas, of: " + ", ".join(METHODS) + ".", rich_help_panel=TRAINING
        ),
    ] = ",".join(DEFAULT),
    budget: Annotated[
        str,
        typer.Option(
            help="Of each run: a time (60s, 2min), or a number of evaluations of the cell (1e6).",
            rich_help_panel=TRAINING,
        ),
    ] = "5s",
    starts: Annotated[
        int,
        typer.Option(help="Initial weights, the same for every method.", rich_help_panel=TRAINING),
    ] = 3,
    depth: Annotated[
        int,
        typer.Option(
            help="Of truncated and sliding-window; the stride of rtrl, uoro and focused.",
            rich_help_panel=TRAINING,
        ),
    ] = 25,
    lr: Annotated[
        float, typer.Option(help="Learning rate of Adam.", rich_help_panel=TRAINING)
    ] = 0.01,
    target_loss: Annotated[
        float | None,
        typer.Option(
            help="The loss to reach (mean squared error of scaled values).",
            show_default="nine tenths of the way that full BPTT goes",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    cell: Annotated[
        Literal["gru", "lstm", "elman"],
        typer.Option(help="The recurrent cell.", rich_help_panel=NETWORK),
    ] = "gru",
    hidden: Annotated[int, typer.Option(help="Units.", rich_help_panel=NETWORK)] = 8,
    seed: Annotated[
        int, typer.Option(help="Of the initial weights.", rich_help_panel=TRAINING)
    ] = 0,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Where pictures and tables go.", rich_help_panel=RUN),
    ] = Path("bptt-compare"),
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress bar.", rich_help_panel=RUN)
    ] = False,
) -> None:
    options = _compare.Options(
        methods=_fit.names(methods),
        budget=budget,
        starts=starts,
        horizon=horizon,
        cell=cell,
        hidden=hidden,
        depth=depth,
        rate=lr,
        target_loss=target_loss,
        seed=seed,
    )
    source = _compare.Source(data, _fit.names(inputs), target, missing)
    _compare.run(source, options, out, quiet)


@app.command(help=PREDICT_HELP)
@guarded
def predict(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    data: Data = None,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where the predictions go.")] = Path(
        "predictions.csv"
    ),
    free_run: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Feed predictions back for N steps in place of the target's past.",
            show_default="never",
        ),
    ] = None,
    missing: Annotated[
        Literal["refuse", "mask"] | None,
        typer.Option(help="As in `bptt fit`.", show_default="as the run was fitted"),
    ] = None,
    begin: Annotated[
        str, typer.Option(help="How a sample of a text begins.", show_default="anew")
    ] = "",
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Draw so many characters of a text.",
            show_default="300 without DATA",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Below 1, likelier characters are drawn more often still.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    given = _given(context)
    if task_of(run) == "text":
        for name in given & {"out", "free_run", "missing"}:
            raise OptionError(
                f"--{name.replace('_', '-')} forecasts a table, but {run} is of a text: --sample, "
                "--begin, --temperature and --seed go with it."
            )
        _text.predict(run, data, begin, sample, temperature, seed)
        return
    for name in given & {"begin", "sample", "temperature", "seed"}:
        raise OptionError(f"--{name} is of a text, but {run} forecasts a table.")
    _predict.run(run, data, out, free_run, missing)


@app.command(help=DIAGNOSE_HELP)
@guarded
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    data: Data = None,
    parts: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(
        _diagnose.PARTS
    ),
    depth: Annotated[
        int | None,
        typer.Option(help="A depth of truncation to judge.", show_default="the run's own"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="The relative bias that the recommended depth may have.")
    ] = 0.01,
    lags: Annotated[
        int | None,
        typer.Option(
            help="Follow errors back so many steps, at most.", show_default="as far as they reach"
        ),
    ] = None,
    anchors: Annotated[
        int, typer.Option(help="Steps whose errors are followed back, spread over DATA.")
    ] = 256,
    steps: Annotated[int, typer.Option(help="Rows of DATA to look at, from the first.")] = 10_000,
    missing: Annotated[
        Literal["refuse", "mask"] | None,
        typer.Option(help="As in `bptt fit`.", show_default="as the run was fitted"),
    ] = None,
) -> None:
    asked = _diagnose.Asked(_fit.names(parts), depth, tolerance, lags, anchors, steps)
    _diagnose.diagnose(run, data, missing, asked)


@app.command(help=REPORT_HELP)
@guarded
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `bptt fit` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="Where it goes.", show_default="RUN/report.html"),
    ] = None,
) -> None:
    _diagnose.report(run, out)
