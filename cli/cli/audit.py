"""`keyferry audit`: fetch the log, and check it without trusting who keeps it."""

import asyncio
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from chassis.errors import KeyferryError
from chassis.tls import TlsFiles

from cli import verifier
from cli.exporting import ExportBroken, export_to

app = typer.Typer(help="The audit log.", no_args_is_help=True)


@app.command()
def verify(
    export: Annotated[Path, typer.Option(help="Entries as lines, from sequence 0.", exists=True, dir_okay=False)],
    public_key: Annotated[str, typer.Option(help="The log's verifier key, name+hash+base64.")],
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A signed checkpoint; may be given more than once.", exists=True)
    ] = None,
    inclusion: Annotated[
        Path | None, typer.Option(help="A c2sp.org/tlog-proof of one entry of the export.", exists=True)
    ] = None,
    *,
    tail: Annotated[bool, typer.Option("--tail", help="Allow entries after the newest checkpoint.")] = False,
) -> None:
    """Say whether an export is what was signed; status 1, and what is wrong, where it is not."""
    try:
        typer.echo(verifier.verify(export, checkpoint or [], public_key, inclusion=inclusion, tail=tail))
    except (verifier.Refused, OSError) as error:
        _fail(f"REFUSED: {error}")


@app.command()
def export(
    address: Annotated[str, typer.Option(help="Replicas of audit, host:port separated by commas.")],
    identity: Annotated[
        Path, typer.Option(help="Folder with tls.crt, tls.key and ca.crt of who asks.", exists=True, file_okay=False)
    ],
    output: Annotated[Path, typer.Option(help="File that takes the lines; made once all are there.")],
    end: Annotated[int | None, typer.Option(min=0, help="How many entries: a checkpoint's tree size.")] = None,
) -> None:
    """Fetch the log as lines, as far as it goes now, or as far as a checkpoint does."""
    try:
        count = asyncio.run(export_to(output, addresses=address.split(","), tls=TlsFiles(identity), end=end))
    except (ExportBroken, KeyferryError, OSError) as error:
        _fail(f"the export failed: {error}")
    typer.echo(f"{count} entries in {output}")


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
