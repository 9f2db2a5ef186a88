"""The commands, put together."""

import typer

from cli.audit import app as audit

app = typer.Typer(
    help="Keyferry from the command line.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.add_typer(audit, name="audit")


@app.callback()
def keyferry() -> None:
    """Keyferry from the command line."""
