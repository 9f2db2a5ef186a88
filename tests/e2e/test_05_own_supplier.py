"""With a supplier in the environment the sandbox uses that one instead of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.ports import free_port
from sandbox.shop import Purchase

from tests.e2e.system import System

API_KEY = "key-of-another-supplier"
SECRET = "secret-of-another-supplier"
START_SECONDS = 20


@pytest.fixture
def supplier(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give a supplier that somebody else runs: started here, known to the sandbox by its address only."""
    listen, control = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.kinguin", "--listen", listen, "--control", control, "--data", str(tmp_path)],
        env={**os.environ, "KINGUIN_API_KEY": API_KEY},
    )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"http://{control}/healthz", timeout=1)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield {"base": f"http://{listen}/esa/api", "control": f"http://{control}"}
    process.terminate()
    process.wait(10)


async def test_a_given_supplier_is_used(supplier: dict[str, str], tmp_path: Path, http: httpx.AsyncClient) -> None:
    system = System(
        tmp_path / "own",
        environment={
            "KINGUIN_BASE": supplier["base"],
            "KINGUIN_API_KEY": API_KEY,
            "KINGUIN_WEBHOOK_SECRET": SECRET,
            "KINGUIN_COMMIT_BOUND": "2",
            "KINGUIN_SEARCH_LAG_BOUND": "2",
        },
    )
    system.start()
    try:
        assert system.endpoints["kinguin"] == supplier["base"]
        assert "kinguin" not in json.loads(system.layout.endpoints.read_text())["pids"]
        order_id = await system.pay("alice", Purchase(PRODUCTS[0].product_id))
        await system.until(http, "alice", order_id, "READY")
        assert len((await http.get(f"{supplier['control']}/ledger")).json()["orders"]) == 1
    finally:
        assert system.stop() == 0
