"""The command line: `keyferry-sandbox run`, `demo`, `order`, `token`, `clean`."""

import asyncio
import shutil
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from sandbox.announce import announce
from sandbox.child import StartFailed
from sandbox.demo import Demo, DemoFailed
from sandbox.endpoints import Endpoints, NotRunning
from sandbox.given import Given, GivenIncomplete
from sandbox.issuer.accounts import account_of
from sandbox.issuer.tokens import ACCESS_SECONDS, Mint, SigningKey
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.layout import DEFAULT_FOLDER, Layout
from sandbox.ports import NoFreePort
from sandbox.running import Interrupted, Running, running
from sandbox.setup import AUDIENCE, Options
from sandbox.shop import NotAccepted, Purchase, new_order_id, paid_order, tell_paid
from sandbox.supervisor import AlreadyRunning, is_running, locked, stop_leftovers

SAMPLE_PRODUCT = PRODUCTS[0].product_id
SAMPLE_CUSTOMER = "alice"
ACCEPT_SECONDS = 20.0

app = typer.Typer(
    help="The whole of Keyferry on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True, emoji=False)

Folder = Annotated[Path, typer.Option(help="Where the sandbox keeps everything.")]
Replicas = Annotated[int, typer.Option(min=1, max=3, help="Processes of each gRPC service.")]
LogLevel = Annotated[str, typer.Option(help="Lowest level the services log.")]

_EXPECTED = (
    AlreadyRunning,
    DemoFailed,
    GivenIncomplete,
    NoFreePort,
    NotAccepted,
    NotRunning,
    StartFailed,
)


@app.command()
def run(
    folder: Folder = DEFAULT_FOLDER,
    replicas: Replicas = 1,
    log_level: LogLevel = "info",
    *,
    traces: Annotated[bool, typer.Option("--traces", help="Write the services' spans below `traces`.")] = False,
    failpoints: Annotated[
        bool, typer.Option("--failpoints", help="For tests: services read the faults planned below `failpoints`.")
    ] = False,
    sample: Annotated[
        bool | None, typer.Option(help="Place an order for alice; by default only where buying costs nothing.")
    ] = None,
) -> None:
    """Start everything, place a sample order, and keep it running until Ctrl-C."""
    options = Options(replicas=replicas, log_level=log_level, traces=traces, failpoints=failpoints)
    _finish(_run(Layout(folder.resolve()), options, sample=sample))


async def _run(layout: Layout, options: Options, *, sample: bool | None) -> None:
    async with running(layout, options, tell=_tell) as sandbox:
        announce(console, sandbox.setup)
        if sample or (sample is None and "KINGUIN_BASE" not in sandbox.setup.given):
            await _sample_order(sandbox)
        console.print("Ctrl-C stops everything.")
        await sandbox.interrupted.wait()
        console.print("stopping")


async def _sample_order(sandbox: Running) -> None:
    try:
        url = await _order(sandbox.endpoints, SAMPLE_CUSTOMER, Purchase(SAMPLE_PRODUCT))
    except NotAccepted as error:
        console.print(f"The sample order: {error}")
    else:
        console.print(f"A sample order of {SAMPLE_CUSTOMER}'s: [bold]{url}[/bold]")


@app.command()
def demo(folder: Folder = DEFAULT_FOLDER) -> None:
    """Do the main job once, from the payment to the opened key, and show each step."""
    _finish(_demo(Layout(folder.resolve())))


async def _demo(layout: Layout) -> None:
    if is_running(layout):
        await Demo(layout, Endpoints.read(layout), console).play()
        return
    began = time.monotonic()
    async with running(layout, Options(), tell=lambda _: None) as sandbox:
        console.print(f"The sandbox is up after {time.monotonic() - began:.1f} s.")
        await Demo(layout, sandbox.endpoints, console).play()


@app.command()
def order(
    folder: Folder = DEFAULT_FOLDER,
    sub: Annotated[str, typer.Option(help="The customer.")] = SAMPLE_CUSTOMER,
    product: Annotated[str, typer.Option(help="The supplier's product id.")] = SAMPLE_PRODUCT,
    quantity: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    unit_price: Annotated[int, typer.Option(min=1, help="The most that one key may cost, in EUR cents.")] = 1499,
) -> None:
    """Place one more paid order, as the shop would, and print the address of its page."""

    async def place() -> None:
        endpoints = Endpoints.read(Layout(folder.resolve()))
        typer.echo(await _order(endpoints, sub, Purchase(product, quantity, unit_price)))

    _finish(place())


async def _order(endpoints: Endpoints, subject: str, purchase: Purchase) -> str:
    now = datetime.now(UTC)
    order_id = new_order_id(now)
    await tell_paid(
        endpoints["nats"], paid_order(subject, purchase, order_id=order_id, now=now), seconds=ACCEPT_SECONDS
    )
    return f"{endpoints['edge']}/orders/{order_id}"


@app.command()
def token(
    folder: Folder = DEFAULT_FOLDER,
    sub: Annotated[str, typer.Option(help="Who it is for.")] = SAMPLE_CUSTOMER,
    seconds: Annotated[int, typer.Option(help="How long it is good; negative makes an expired one.")] = ACCESS_SECONDS,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="With the role keyferry-admin.")] = False,
) -> None:
    """Print an access token of the sandbox's issuer."""
    layout = Layout(folder.resolve())
    try:
        if "OIDC_ISSUER" in Given.read():
            _fail("the issuer is given by OIDC_ISSUER; only it can make tokens")
        mint = Mint(SigningKey.ensure(layout.signing_key), issuer=Endpoints.read(layout)["issuer"], audience=AUDIENCE)
    except _EXPECTED as error:
        _fail(str(error))
    now = int(time.time())
    # An expired token was good once.
    issued = now if seconds > 0 else now + seconds - ACCESS_SECONDS
    lifetime = seconds if seconds > 0 else ACCESS_SECONDS
    typer.echo(mint.access_token(account_of(sub), now=issued, seconds=lifetime, admin=admin))


@app.command()
def clean(folder: Folder = DEFAULT_FOLDER) -> None:
    """Remove everything the sandbox keeps; what a killed one left running is stopped first."""
    layout = Layout(folder.resolve())
    if not layout.folder.exists():
        return
    if not layout.lock.exists():
        _fail(f"{layout.folder} is not a sandbox's folder; nothing was removed")
    try:
        with locked(layout):
            for name in stop_leftovers(layout):
                _tell(f"stopped {name}")
            shutil.rmtree(layout.folder)
    except AlreadyRunning as error:
        _fail(str(error))


def _tell(sentence: str) -> None:
    console.print(f"[dim]{sentence}[/dim]", markup=True)


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; what may be expected to go wrong is one sentence and status 1."""
    try:
        asyncio.run(work)
    except Interrupted:
        sys.exit(130)
    except _EXPECTED as error:
        _fail(str(error))


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise SystemExit(1)
