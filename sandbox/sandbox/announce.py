"""What the sandbox says to the person who started it."""

from rich.console import Console

from sandbox.processes import SHORT_BOUNDS, SHORT_PATIENCE
from sandbox.setup import Setup


def announce(console: Console, setup: Setup) -> None:
    """Print where everything is."""
    console.print("\n[bold]Keyferry is up[/bold]")
    rows = {
        "customer page": f"{setup.public_url}/  (log in as alice or bob, no password)",
        "mailbox": setup.mailbox_url or "none: mail goes to the given server",
        "API docs": f"{setup.public_url}/docs",
        "all addresses": str(setup.layout.endpoints),
        "logs": str(setup.layout.folder / "logs"),
    }
    for name, value in rows.items():
        console.print(f"  {name:<15}{value}")
    if "KINGUIN_BASE" in setup.given:
        console.print(f"  {'buying at':<15}{setup.kinguin_url}, within the real bounds")
        console.print(f"  {'its webhooks':<15}{setup.public_url}/webhooks/kinguin")
    else:
        seconds = sum(int(SHORT_BOUNDS[name]) for name in ("KINGUIN_COMMIT_BOUND", "KINGUIN_SEARCH_LAG_BOUND"))
        console.print(f"Bounds are short here: an order in doubt is settled after {seconds} s instead of 3 minutes.")
        name = "KEYFERRY_STOCK_PATIENCE_SECONDS"
        patience = setup.given.get(name) or SHORT_PATIENCE[name]
        console.print(f"So is patience: what is sold out has {patience} s to come back instead of half an hour.")
