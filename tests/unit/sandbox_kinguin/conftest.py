import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sandbox.kinguin.app import public_app
from sandbox.kinguin.control import control_app
from sandbox.kinguin.supplier import Settings, Supplier, open_supplier

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.sandbox_kinguin.simulated_supplier import SteppingClock, World


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def supplier(tmp_path: Path, clock: SteppingClock) -> Iterator[Supplier]:
    settings = Settings(
        data=tmp_path, api_key="the-key", webhook_secret="", fulfil_seconds=10.0, balance=Decimal("5000.00")
    )
    opened = open_supplier(settings, post=None, clock=clock)
    yield opened
    opened.store.close()


@pytest.fixture
async def world(supplier: Supplier, clock: SteppingClock) -> AsyncIterator[World]:
    public, private = httpx.ASGITransport(public_app(supplier)), httpx.ASGITransport(control_app(supplier))
    headers = {"X-Api-Key": "the-key"}
    async with (
        httpx.AsyncClient(transport=public, base_url="http://kinguin/esa/api", headers=headers) as api,
        httpx.AsyncClient(transport=private, base_url="http://control") as control,
    ):
        yield World(supplier, clock, api, control)
