"""`make demo`: the main job once, on real parts. Each step is printed with its time, and only if it really held."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import boto3
import httpx
from botocore.config import Config
from chassis.errors import KeyferryError
from keyferry.audit.v1 import audit_service_pb2, audit_service_pb2_grpc
from keyferry.fulfillment.v1 import fulfillment_pb2, fulfillment_service_pb2, fulfillment_service_pb2_grpc
from rich.console import Console

from sandbox.customer import CustomerClient, NotGenuine, OpenedKey, Refused
from sandbox.endpoints import Endpoints
from sandbox.issuer.accounts import account_of
from sandbox.issuer.tokens import Mint, SigningKey
from sandbox.kinguin.catalogue import PRODUCTS
from sandbox.layout import Layout
from sandbox.secret_store import ensure_secrets
from sandbox.servers.s3 import REGION
from sandbox.setup import AUDIENCE, BUCKET
from sandbox.shop import Purchase, new_order_id, open_as_shop, paid_order, tell_paid

OWNER = "alice"
STRANGER = "bob"
STEP_SECONDS = 20.0
CALL_SECONDS = 10.0
_POLL_SECONDS = 0.05
_SHOWN_CHARACTERS = 4

T = TypeVar("T")


class DemoFailed(RuntimeError):
    """A step did not hold. The message says which and why."""


@dataclass(frozen=True, slots=True)
class _Bought:
    """The one purchase of the order and its key."""

    supplier_order_id: str
    key_id: str


class Demo:
    """One order of one key, from its payment to its owner's screen."""

    def __init__(self, layout: Layout, endpoints: Endpoints, console: Console) -> None:
        if not endpoints["kinguin_control"] or not endpoints["mailbox"]:
            raise DemoFailed(
                "the demo compares with the sandbox's own Kinguin and mailbox; unset KINGUIN_BASE, SMTP_URL"
            )
        self._layout = layout
        self._endpoints = endpoints
        self._console = console
        self._mint = Mint(SigningKey.ensure(layout.signing_key), issuer=endpoints["issuer"], audience=AUDIENCE)
        self._began = time.monotonic()

    async def play(self) -> None:
        """Do it. Raises DemoFailed, or what the failing call raised."""
        self._began = time.monotonic()
        async with httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False) as http:
            try:
                await self._play(http)
            except (KeyferryError, httpx.HTTPError, Refused, NotGenuine) as error:
                raise DemoFailed(f"the demo stopped: {error}") from error

    async def _play(self, http: httpx.AsyncClient) -> None:
        order_id = await self._pay()
        supplier_order_id = await self._until(
            "Kinguin took no order", lambda: self._look(order_id, lambda f: f.lines[0].purchases[0].supplier_order_id)
        )
        self._tell("bought at Kinguin", f"order {supplier_order_id}")
        key_id = await self._until(
            "no key was sealed", lambda: self._look(order_id, lambda f: f.lines[0].keys[0].key_id)
        )
        bought = _Bought(supplier_order_id, key_id)
        name, stored = await asyncio.to_thread(self._sealed_object, key_id)
        self._tell("key sealed", f"object {name}, {len(stored)} bytes of ciphertext")
        mail = await self._until("no e-mail was sent", lambda: self._mail(http, order_id))
        self._tell("e-mail sent", f"“{mail['subject']}” to {', '.join(mail['to'])}")
        opened = await self._open(http, order_id, bought, mail)
        if opened.ciphertext != stored:
            raise DemoFailed("the object store holds something else than what the owner fetched")
        await self._refuse(http, order_id, key_id)
        await self._audit(order_id)

    async def _pay(self) -> str:
        now = datetime.now(UTC)
        order_id = new_order_id(now)
        message = paid_order(OWNER, Purchase(PRODUCTS[0].product_id), order_id=order_id, now=now)
        await tell_paid(self._endpoints["nats"], message, seconds=STEP_SECONDS)
        cents = message.payment.amount.minor_units
        self._tell("order paid", f"{order_id}, {cents / 100:.2f} EUR, by {OWNER}")
        return order_id

    async def _look(self, order_id: str, read: Callable[[fulfillment_pb2.Fulfillment], str]) -> str | None:
        """Ask fulfillment as the shop does; None while what is asked for is not there yet."""
        async with open_as_shop(self._endpoints, "fulfillment") as channel:
            stub = fulfillment_service_pb2_grpc.FulfillmentServiceStub(channel)
            answer = await stub.GetFulfillment(fulfillment_service_pb2.GetFulfillmentRequest(order_id=order_id))
        if answer.fulfillment.state == fulfillment_pb2.STATE_NEEDS_ATTENTION:
            raise DemoFailed(f"the order needs attention: {answer.fulfillment.reason}")
        try:
            return read(answer.fulfillment) or None
        except IndexError:
            return None

    def _sealed_object(self, key_id: str) -> tuple[str, bytes]:
        secrets = ensure_secrets(self._layout.secrets)
        client = boto3.client(
            "s3",
            endpoint_url=self._endpoints["s3"],
            aws_access_key_id=secrets["R2_ACCESS_KEY_ID"],
            aws_secret_access_key=secrets["R2_SECRET_ACCESS_KEY"],
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=CALL_SECONDS, read_timeout=CALL_SECONDS),
        )
        try:
            listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"keys/{key_id}").get("Contents", [])
            if len(listed) != 1:
                raise DemoFailed(f"the object store holds {len(listed)} objects of the key instead of one")
            name = listed[0]["Key"]
            return name, client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        finally:
            client.close()

    async def _mail(self, http: httpx.AsyncClient, order_id: str) -> dict[str, Any] | None:
        messages = (await http.get(f"{self._endpoints['mailbox']}/messages")).json()
        for summary in messages:
            if account_of(OWNER).email in summary["to"]:
                mail = (await http.get(f"{self._endpoints['mailbox']}/messages/{summary['id']}")).json()
                if f"{self._endpoints['edge']}/orders/{order_id}" in mail["text"]:
                    return dict(mail)
        return None

    async def _open(self, http: httpx.AsyncClient, order_id: str, bought: _Bought, mail: dict[str, Any]) -> OpenedKey:
        opened = await self._customer(http, OWNER).open_key(order_id, bought.key_id)
        text = opened.plaintext.decode()
        if text not in await self._sold(http, bought.supplier_order_id):
            raise DemoFailed("the opened key is not the one that the simulator sold")
        if text in mail["text"] or text in mail["html"]:
            raise DemoFailed("the e-mail holds the key")
        masked = text[:_SHOWN_CHARACTERS] + "".join(
            "•" if mark.isalnum() else mark for mark in text[_SHOWN_CHARACTERS:]
        )
        self._tell("opened by its owner", f"{masked}, the very key that Kinguin sold")
        return opened

    async def _sold(self, http: httpx.AsyncClient, supplier_order_id: str) -> list[str]:
        """Return the serials that the simulator's own ledger names for an order."""
        answer = await http.get(f"{self._endpoints['kinguin_control']}/ledger", params={"order_id": supplier_order_id})
        answer.raise_for_status()
        return [key["serial"] for order in answer.json()["orders"] for key in order["keys"]]

    async def _refuse(self, http: httpx.AsyncClient, order_id: str, key_id: str) -> None:
        try:
            await self._customer(http, STRANGER).open_key(order_id, key_id)
        except Refused as refusal:
            if not str(refusal).startswith("404"):
                raise DemoFailed(f"{STRANGER} was told more than that there is no such order: {refusal}") from None
            self._tell("refused to somebody else", f"{STRANGER} got {refusal}")
        else:
            raise DemoFailed(f"{STRANGER} opened {OWNER}'s key")

    async def _audit(self, order_id: str) -> None:
        request = audit_service_pb2.ListEntriesRequest(order_id=order_id)
        expected = {"purchase.placed", "key.sealed", "key.link_authorized", "key.link_released", "order.access_denied"}

        async def listed() -> list[audit_service_pb2.Entry] | None:
            async with open_as_shop(self._endpoints, "audit") as channel:
                stub = audit_service_pb2_grpc.AuditServiceStub(channel)
                entries = list((await stub.ListEntries(request)).entries)
            return entries if expected <= {entry.action for entry in entries} else None

        entries = await self._until(f"audit does not list {', '.join(sorted(expected))}", listed)
        self._tell("audit entries listed", f"{len(entries)} for this order")
        for entry in entries:
            self._console.print(f"            {entry.sequence:>6}  {entry.action:<24} {entry.actor.id}")

    def _customer(self, http: httpx.AsyncClient, subject: str) -> CustomerClient:
        token = self._mint.access_token(account_of(subject), now=int(time.time()))
        return CustomerClient(http, edge=self._endpoints["edge"], token=token)

    async def _until(self, failure: str, ask: Callable[[], Awaitable[T | None]]) -> T:
        """Ask until there is an answer."""
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            answer = await ask()
            if answer is not None:
                return answer
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoFailed(f"{failure} within {STEP_SECONDS:.0f} s")

    def _tell(self, step: str, detail: str) -> None:
        self._console.print(f"[bold]{time.monotonic() - self._began:6.2f} s  {step:<25}[/bold] {detail}")
