"""Schemathesis on the simulator and the supplier's contract, in this process. KEYFERRY_PROOF=full tries many more."""

import functools
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, settings
from sandbox.kinguin import serials
from sandbox.kinguin.app import CONTRACT, PREFIXES, public_app
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.kinguin.mischief import OPERATIONS, Rule
from sandbox.kinguin.rules import Line, PlaceOrder
from sandbox.kinguin.supplier import Settings, Supplier, open_supplier
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.unit.sandbox_kinguin.simulated_supplier import SteppingClock

FULL = os.environ.get("KEYFERRY_PROOF") == "full"
EXAMPLES = 500 if FULL else 25
BASE = PREFIXES[-1]
API_KEY = "key-of-the-tests"
# One text product, one of pictures; nothing that the words of the contract limit further.
LANTERN, ARMADA = PRODUCTS[0].product_id, PRODUCTS[2].product_id
DATES = ["2026-01-31", "2026-01-31 10:00:00", "2026-01-31T10:00:00", "2026-01-31T10:00:00.500Z"]
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not FULL,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


# The same seed gives the same orders their names.
ORDERS = [serials.order_id(1, number) for number in range(1, 21)]


class Stage:
    """An application that is whatever simulator the test of the moment has opened; it counts the answers."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
            await send(message)

        assert self.app is not None
        await self.app(scope, receive, count)


STAGE = Stage()


@pytest.fixture(autouse=True)
def supplier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supplier]:
    # Schemathesis runs the application in a thread of its own; nobody else uses the file meanwhile.
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, check_same_thread=False))
    clock = SteppingClock()
    plenty = Settings(data=tmp_path, api_key=API_KEY, webhook_secret="", balance=Decimal("900000000.00"))
    supplier = open_supplier(plenty, post=None, clock=clock)
    # References are short here, so that they come again.
    supplier.faults.add([Rule(action="accept_duplicate_external_id")])
    lines = (Line(LANTERN, 2, Decimal(50)), Line(ARMADA, 1, Decimal(50)))
    placed = [supplier.desk.place(PlaceOrder(lines, f"mine-{number}")).order_id for number in range(len(ORDERS))]
    assert placed == ORDERS
    clock.now += 60
    while supplier.deliveries.run_due():
        pass
    STAGE.app, STAGE.answers = public_app(supplier), Counter()
    yield supplier
    STAGE.app = None
    supplier.store.close()


def contract_as_it_is() -> dict[str, Any]:
    contract: dict[str, Any] = yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))
    return {**contract, "servers": [{"url": BASE}]}


def sharpened() -> dict[str, Any]:
    """Return the contract with what only its words demand put into its schemas: all that fits must then be taken."""
    contract = contract_as_it_is()
    known = {
        "productId": {"type": "string", "enum": [LANTERN, ARMADA]},
        "orderId": {"type": "string", "enum": ORDERS},
    }
    for operations in contract["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in known:
                    parameter["schema"] = known[parameter["name"]]
                if parameter["name"] in {"createdAtFrom", "createdAtTo", "updatedSince"}:
                    parameter["schema"] = {"type": "string", "enum": DATES}
    order = contract["components"]["schemas"]["PlaceOrder"]["properties"]
    order["orderExternalId"]["maxLength"] = 255
    order["products"]["maxItems"] = 3
    line = order["products"]["items"]["properties"]
    line["productId"] = known["productId"]
    line["qty"]["maximum"] = 3
    line["price"] = {"type": "number", "minimum": 50, "maximum": 1000}
    del line["offerId"], line["keyType"]
    return contract


def schema_of(contract: dict[str, Any], *modes: GenerationMode) -> OpenApiSchema:
    schema = schemathesis.openapi.from_dict(contract)
    schema.app = STAGE
    # The contract forbids no further query parameters, and the supplier ignores those that it does not know.
    schema.config.generation.update(modes=list(modes), max_examples=EXAMPLES, allow_extra_parameters=False)
    return schema


LITERAL = schema_of(contract_as_it_is(), GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
SHARP = schema_of(sharpened(), GenerationMode.POSITIVE)


@LITERAL.parametrize()
@SETTINGS
def test_every_answer_is_one_that_the_contract_knows(case: Case[Any]) -> None:
    # The contract says many of its limits in words only, which no generator can keep.
    case.call_and_validate(headers={"X-Api-Key": API_KEY}, excluded_checks=[positive_data_acceptance])


@SHARP.exclude(operation_id="returnKeys").parametrize()
@SETTINGS
def test_whatever_keeps_the_words_of_the_contract_is_taken(case: Case[Any]) -> None:
    case.call_and_validate(headers={"X-Api-Key": API_KEY})


@SHARP.include(operation_id="returnKeys").parametrize()
@SETTINGS
def test_the_first_return_of_an_order_is_taken_and_no_other(case: Case[Any]) -> None:
    # Which of two returns is the first no schema can say.
    case.call_and_validate(headers={"X-Api-Key": API_KEY}, excluded_checks=[positive_data_acceptance])
    assert STAGE.answers[200] <= len(ORDERS)


def test_each_operation_of_the_contract_is_there() -> None:
    operations = [operation for path in contract_as_it_is()["paths"].values() for operation in path.values()]
    assert sorted(operation["operationId"] for operation in operations) == sorted(OPERATIONS)
