"""Finds a Chromium for the tests, or brings one, and prints its path: `CHROMIUM=$(python tests/browser.py)`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from playwright.sync_api import sync_playwright

INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROBE_SECONDS = 60
BRING_SECONDS = 900


def works(path: str | None) -> bool:
    """Tell whether it starts: a name on the path may be a stub that only asks to be installed."""
    if not path:
        return False
    try:
        return (
            subprocess.run([path, "--version"], capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def candidates() -> Iterator[str | None]:
    """Yield what may work, from the cheapest to the dearest; each is brought only when the one before did not work."""
    yield os.environ.get("CHROMIUM")
    for name in INSTALLED:
        yield shutil.which(name)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    yield own
    attempt(sys.executable, "-m", "playwright", "install", "chromium")
    yield own
    if os.geteuid() == 0 and shutil.which("apt-get"):
        attempt("apt-get", "update")
        attempt("apt-get", "install", "--yes", "--no-install-recommends", "chromium")
        yield shutil.which("chromium")


def attempt(*command: str) -> None:
    """Run a command that may fail; what it says goes to standard error."""
    try:
        subprocess.run(command, stdout=sys.stderr, timeout=BRING_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{command[0]}: {error}\n")


def main() -> None:
    """Print the path of a Chromium that starts, or say what to install."""
    for path in candidates():
        if path is not None and works(path):
            sys.stdout.write(f"{path}\n")
            return
    sys.exit(
        "The tests need a Chromium and none could be brought. "
        "Install chromium or google-chrome, or set CHROMIUM to the path of one."
    )


if __name__ == "__main__":
    main()
