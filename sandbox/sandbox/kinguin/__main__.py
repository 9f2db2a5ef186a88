"""Start the simulator: `python -m sandbox.kinguin --help`."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from chassis.logs import configure_logs

from sandbox.kinguin.server import listen_on, serve
from sandbox.kinguin.supplier import Settings

# As long as the real one may be (K55).
_LONGEST_SECRET = 32

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text).quantize(Decimal("0.01"))
    except InvalidOperation:
        raise typer.BadParameter("not an amount of money") from None


@app.command()
def main(
    *,
    listen: Annotated[str, typer.Option(help="host:port of the public API; port 0 takes a free one.")],
    control: Annotated[str, typer.Option(help="host:port of the control port; keep it private.")],
    data: Annotated[Path, typer.Option(help="Folder of the SQLite file; survives restarts.")],
    api_key: Annotated[str, typer.Option(envvar="KINGUIN_API_KEY", help="Who shows it may buy.")],
    webhook_url: Annotated[str | None, typer.Option(help="Where order.status goes; nowhere if absent.")] = None,
    webhook_secret: Annotated[str, typer.Option(envvar="KINGUIN_WEBHOOK_SECRET", help="X-Event-Secret.")] = "",
    seed: Annotated[int, typer.Option(help="Decides ids, keys and luck.")] = 1,
    fulfil_seconds: Annotated[float, typer.Option(min=0, help="How long an order stays processing.")] = 0.5,
    balance: Annotated[Decimal, typer.Option(parser=_decimal, help="EUR on a new or reset account.")] = Decimal(
        "1000000.00"
    ),
) -> None:
    """Run a Kinguin simulator until SIGTERM or SIGINT."""
    if webhook_url and not 0 < len(webhook_secret) <= _LONGEST_SECRET:
        raise typer.BadParameter(f"webhooks need a secret of 1 to {_LONGEST_SECRET} characters")
    settings = Settings(
        data=data,
        api_key=api_key,
        webhook_secret=webhook_secret,
        seed=seed,
        fulfil_seconds=fulfil_seconds,
        balance=balance,
    )
    configure_logs("kinguin", "info")
    with listen_on(listen) as public, listen_on(control) as private:
        uvloop.run(serve(settings, public=public, control=private, webhook_url=webhook_url))


if __name__ == "__main__":
    app()
