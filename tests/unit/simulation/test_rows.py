"""The simulation's rows keep every law of the port that PostgreSQL's keep, as far as it asks for nothing but orders."""

import asyncio
import inspect
from types import ModuleType

import pytest

from tests.integration import test_fulfillment_money_port, test_fulfillment_port, test_fulfillment_purchases_port
from tests.simulation.clock import Luck, News
from tests.simulation.network import Process, Sky
from tests.simulation.rows import OrdersDatabase, Rows

SUITES = [test_fulfillment_port, test_fulfillment_money_port, test_fulfillment_purchases_port]


def laws(suite: ModuleType) -> dict[str, object]:
    return {
        name: law
        for name, law in vars(suite).items()
        if name.startswith("test_") and callable(law) and list(inspect.signature(law).parameters) == ["orders"]
    }


for each in SUITES:
    globals().update(laws(each))


@pytest.fixture
async def orders() -> Rows:
    loop = asyncio.get_running_loop()
    sky = Sky(loop, Luck(1))
    sky.weather.until = -1.0
    return OrdersDatabase(News(loop), lambda *_: None).connect(Process(sky))


def test_the_suites_are_run() -> None:
    assert sum(len(laws(suite)) for suite in SUITES) > 30
