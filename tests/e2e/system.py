"""The whole system as its users meet it: a shop, customers, the supplier's ledger, and an operator with `kill -9`."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from keyferry.audit.v1.audit_service_pb2 import Entry, ListEntriesRequest
from keyferry.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from keyferry.fulfillment.v1.fulfillment_pb2 import Fulfillment
from keyferry.fulfillment.v1.fulfillment_service_pb2 import GetFulfillmentRequest, ListFulfillmentsRequest
from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceStub
from sandbox.customer import CustomerClient, Refused
from sandbox.endpoints import Endpoints
from sandbox.issuer.accounts import account_of
from sandbox.issuer.tokens import Mint, SigningKey
from sandbox.layout import Layout
from sandbox.setup import AUDIENCE
from sandbox.shop import Purchase, new_order_id, open_as_shop, paid_order, tell_paid

START_SECONDS = 90
STOP_SECONDS = 40
ACCEPT_SECONDS = 30.0
READY_SECONDS = 90.0


@dataclass
class System:
    """One running sandbox in a folder of its own."""

    folder: Path
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def layout(self) -> Layout:
        return Layout(self.folder)

    @property
    def endpoints(self) -> Mapping[str, Any]:
        return Endpoints.read(self.layout).values

    def start(self) -> None:
        """Start it and wait until it says that everything is ready."""
        command = [sys.executable, "-m", "sandbox", "run", "--folder", str(self.folder), "--no-sample", *self.options]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "supervisor.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **self.environment}
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.layout.endpoints.exists():
            assert self._process.poll() is None, (self.folder / "supervisor.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "supervisor.log").read_text()
            time.sleep(0.1)

    def stop(self) -> int:
        """Press Ctrl-C and wait; return its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(STOP_SECONDS)

    def replicas(self, service: str) -> list[str]:
        """Return the names of all processes of one service."""
        return [name for name in self.endpoints["pids"] if re.fullmatch(rf"{re.escape(service)}(-\d+)?", name)]

    def kill(self, name: str) -> None:
        """End one process as if the machine had lost it."""
        os.kill(self.endpoints["pids"][name], signal.SIGKILL)

    def token(self, subject: str, *, seconds: int = 600, issuer: str | None = None, audience: str = AUDIENCE) -> str:
        """Return an access token as the issuer would give it."""
        mint = Mint(
            SigningKey.ensure(self.layout.signing_key), issuer=issuer or self.endpoints["issuer"], audience=audience
        )
        return mint.access_token(account_of(subject), now=int(time.time()), seconds=seconds)

    async def pay(self, subject: str, purchase: Purchase, *, seconds: float = ACCEPT_SECONDS) -> str:
        """Tell of one paid order as a shop does, until it is accepted; return its number."""
        now = datetime.now(UTC)
        order_id = new_order_id(now)
        message = paid_order(subject, purchase, order_id=order_id, now=now)
        await tell_paid(self.endpoints["nats"], message, seconds=seconds)
        return order_id

    def customer(self, http: httpx.AsyncClient, subject: str) -> CustomerClient:
        """Return a customer with a fresh token."""
        return CustomerClient(http, edge=self.endpoints["edge"], token=self.token(subject))

    async def until(
        self, http: httpx.AsyncClient, subject: str, order_id: str, *states: str, seconds: float = READY_SECONDS
    ) -> dict[str, Any]:
        """Read the order as its owner until it is in one of the states."""
        deadline = time.monotonic() + seconds
        seen: object = None
        while time.monotonic() < deadline:
            try:
                order = await self.customer(http, subject).read_order(order_id)
            except (Refused, httpx.TransportError) as error:
                seen = error
            else:
                if order["state"] in states:
                    return order
                seen = order
            await asyncio.sleep(0.2)
        raise AssertionError(f"{order_id} is not {' or '.join(states)} after {seconds:.0f} s: {seen}")

    async def sold(self, http: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
        """Return the supplier's own ledger of orders, with their keys in plain."""
        answer = await http.get(f"{self.endpoints['kinguin_control']}/ledger", params=query)
        return list(answer.json()["orders"])

    async def serials(self, http: httpx.AsyncClient, order_id: str) -> list[str]:
        """Return the texts of the keys that the supplier sold for one order of the shop."""
        fulfillment = await self.fulfillment(order_id)
        bought = [purchase.external_id for line in fulfillment.lines for purchase in line.purchases]
        orders = [order for external_id in bought for order in await self.sold(http, external_id=external_id)]
        return [key["shown"] for order in orders for key in order["keys"]]

    async def fulfillment(self, order_id: str) -> Fulfillment:
        """Return the fulfillment as the shop sees it."""
        async with open_as_shop(Endpoints.read(self.layout), "fulfillment") as channel:
            stub = FulfillmentServiceStub(channel)
            return (await stub.GetFulfillment(GetFulfillmentRequest(order_id=order_id))).fulfillment

    async def all_fulfillments(self) -> list[Fulfillment]:
        """Return every fulfillment, page by page."""
        found: list[Fulfillment] = []
        token = ""
        async with open_as_shop(Endpoints.read(self.layout), "fulfillment") as channel:
            stub = FulfillmentServiceStub(channel)
            while True:
                page = await stub.ListFulfillments(ListFulfillmentsRequest(page_size=100, page_token=token))
                found += page.fulfillments
                token = page.next_page_token
                if not token:
                    return found

    async def audit_entries(self, order_id: str = "") -> list[Entry]:
        """Return what the audit log holds, of one order or of everything, page by page."""
        found: list[Entry] = []
        token = ""
        async with open_as_shop(Endpoints.read(self.layout), "audit") as channel:
            stub = AuditServiceStub(channel)
            while True:
                request = ListEntriesRequest(order_id=order_id, page_size=500, page_token=token)
                page = await stub.ListEntries(request)
                found += page.entries
                token = page.next_page_token
                if not token:
                    return found

    async def actions(self, order_id: str, action: str) -> list[Entry]:
        """Return the entries of one action."""
        return [entry for entry in await self.audit_entries(order_id) if entry.action == action]

    async def until_true(
        self, ask: Callable[[], Awaitable[object]], *, seconds: float = 20.0, every: float = 0.2
    ) -> None:
        """Ask until the answer is true."""
        deadline = time.monotonic() + seconds
        while not await ask():
            assert time.monotonic() < deadline, "it did not come true in time"
            await asyncio.sleep(every)

    async def mails(self, http: httpx.AsyncClient, order_id: str) -> list[dict[str, Any]]:
        """Return the mails that link to an order."""
        mailbox = self.endpoints["mailbox"]
        found = []
        for summary in (await http.get(f"{mailbox}/messages")).json():
            mail = (await http.get(f"{mailbox}/messages/{summary['id']}")).json()
            if f"/orders/{order_id}" in mail["text"]:
                found.append(mail)
        return found


def keys_of(order: Mapping[str, Any]) -> list[str]:
    """Return the ids of an order's keys, as the customer API shows it."""
    return [key["key_id"] for line in order["lines"] for key in line["keys"]]
