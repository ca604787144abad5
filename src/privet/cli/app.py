"""The commands, put together."""

import typer

from privet.cli.serve import serve

app = typer.Typer(
    name="privet",
    help="An internal certificate authority that speaks ACME.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)


@app.callback()
def _main() -> None:
    pass
