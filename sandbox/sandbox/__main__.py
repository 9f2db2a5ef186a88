"""The command line as `python -m sandbox`."""

from sandbox.cli import app

app()
