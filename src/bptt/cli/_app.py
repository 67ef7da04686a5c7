"""The Typer application: every command under its name."""

from __future__ import annotations

from typing import Annotated

import typer

from bptt.cli.commands._compare import COMPARE_HELP, compare_methods
from bptt.cli.commands._diagnose import DIAGNOSE_HELP, REPORT_HELP, diagnose, report
from bptt.cli.commands._fit import FIT_HELP, fit
from bptt.cli.commands._predict import PREDICT_HELP, predict

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


def _show_version(context: typer.Context, asked: bool) -> None:
    if asked:
        from bptt import __version__, info

        typer.echo(info.text() if context.params.get("verbose") else f"bptt {__version__}")
        raise typer.Exit


@app.callback()
def _bptt(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="With --version: show the core, its instruction set, threads, PyTorch and devices "
            "as well.",
            is_eager=True,  # known when --version is looked at
        ),
    ] = False,
) -> None:
    pass


app.command("fit", help=FIT_HELP)(fit)
app.command("compare", help=COMPARE_HELP)(compare_methods)
app.command("predict", help=PREDICT_HELP)(predict)
app.command("diagnose", help=DIAGNOSE_HELP)(diagnose)
app.command("report", help=REPORT_HELP)(report)
