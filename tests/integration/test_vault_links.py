"""Who is given a link or a key, whatever state it is in, and for how long a link is one, on the real S3 server."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chassis.errors import RemoteError
from keyferry.type.v1 import actor_pb2
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.integration.conftest import S3_SECRET_ACCESS_KEY
from tests.integration.presigned import parameters, sign_again, signed_at
from tests.integration.real_servers import fetch
from tests.integration.vault_replicas import (
    ALICE,
    BOB,
    GAME_KEY,
    Bench,
    a_seal,
    a_wish,
    make_bench,
    run_audit,
)
from tests.unit.vault.fakes import Recipient

if TYPE_CHECKING:
    from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceAsyncStub

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)

SECOND = timedelta(seconds=1)


async def test_a_link_lives_fifteen_minutes_to_the_second(bench: Bench) -> None:
    here = await bench.here()
    sealed = (await (await bench.call("kinguin-gateway", here)).SealKey(a_seal())).key
    before = datetime.now(UTC)
    link = await (await bench.call("fulfillment", here)).CreateDownloadLink(
        pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, Recipient()))
    )
    signed, lifetime = signed_at(link.url), timedelta(seconds=int(parameters(link.url)["X-Amz-Expires"]))
    assert before - SECOND < signed < datetime.now(UTC) + SECOND
    assert timedelta(minutes=15) - SECOND <= lifetime <= timedelta(minutes=15)
    assert abs(link.expire_time.ToDatetime(UTC) - signed - timedelta(minutes=15)) <= SECOND
    # Signed by hand for the same moment it is the same URL: so for another moment it is the one vault would have made.
    assert parameters(sign_again(link.url, S3_SECRET_ACCESS_KEY, signed)) == parameters(link.url)
    async with httpx.AsyncClient() as http:

        async def status(age: timedelta) -> int:
            url = sign_again(link.url, S3_SECRET_ACCESS_KEY, datetime.now(UTC) - age)
            return (await http.get(url)).status_code

        assert (await http.get(link.url)).status_code == 200
        assert await status(timedelta(minutes=15) - 3 * SECOND) == 200
        assert await status(timedelta(minutes=15) + SECOND) == 403
        assert await status(timedelta(days=1)) == 403
        # Nor does it live longer, or name another object, because somebody writes so into it.
        assert (await http.get(link.url.replace("X-Amz-Expires=", "X-Amz-Expires=9"))).status_code == 403
        assert (await http.get(link.url.replace(sealed.key_id, "0" * 32))).status_code == 403


# Every actor with every method and every state

STATES = {
    "SEALING": "state = 'SEALING', seal_time = NULL, object_sha256 = NULL",
    "SEALED": "state = 'SEALED'",
    "OPENED": "state = 'SEALED', open_time = now()",
    "HELD": "state = 'HELD'",
    "REVOKED": "state = 'REVOKED', revoke_time = now()",
    "SHREDDED": "state = 'SHREDDED', shred_time = now(), wrapped_dek = NULL, kek_version = NULL",
    "EXPIRED": "state = 'SHREDDED', shred_time = now(), wrapped_dek = NULL, kek_version = NULL, open_time = now(),"
    " expire_time = now()",
    "ERASED": "state = 'SHREDDED', shred_time = now(), wrapped_dek = NULL, kek_version = NULL, owner_digest = '-'",
}
FOR_ALICE = {
    "SEALING": "KEY_NOT_READY",
    "SEALED": "given",
    "OPENED": "given",
    "HELD": "KEY_NOT_READY",
    "REVOKED": "KEY_REVOKED",
    "SHREDDED": "KEY_REVOKED",
    "EXPIRED": "KEY_EXPIRED",
    "ERASED": "KEY_NOT_FOUND",
}
# What is asked, in another's name or for another's order. Nobody but alice is told anything about her key.
ASKERS: dict[str, dict[str, Any]] = {
    "alice": {},
    "bob": {"actor": BOB},
    "bob with alice's address": {
        "actor": actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="bob", email=ALICE.email)
    },
    "alice for bob's order": {"order_id": "order-2"},
    "bob for his own order": {"actor": BOB, "order_id": "order-2"},
    "alice in capitals": {"actor": actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER, id="ALICE")},
    "an admin": {"actor": actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="alice")},
    "a service": {"actor": actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_SERVICE, id="alice")},
    "nobody": {"actor": actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_CUSTOMER)},
}
BAD_ACTOR = {"an admin", "a service", "nobody"}
CALLERS = ("fulfillment", "edge", "kinguin-gateway", "audit", "shop")
METHODS = ("CreateDownloadLink", "RevealKey")


def expected(caller: str, asker: str, state: str) -> str:
    if caller != "fulfillment":
        return "METHOD_NOT_ALLOWED"
    if asker in BAD_ACTOR:
        return "INVALID_REQUEST"
    return FOR_ALICE[state] if asker == "alice" else "KEY_NOT_FOUND"


async def answer(stub: "VaultServiceAsyncStub", method: str, wish: dict[str, Any]) -> str:
    try:
        if method == "RevealKey":
            await stub.RevealKey(pb.RevealKeyRequest(**wish))
        else:
            await stub.CreateDownloadLink(pb.CreateDownloadLinkRequest(**wish))
    except RemoteError as error:
        return error.reason
    return "given"


async def test_nobody_but_its_owner_is_given_a_key_in_whatever_state(bench: Bench) -> None:
    here = await bench.here()
    gateway, recipient = await bench.call("kinguin-gateway", here), Recipient()
    keys: dict[str, str] = {}
    for number, (state, change) in enumerate(STATES.items()):
        sealed = (await gateway.SealKey(a_seal(f"kinguin:1:{number}", GAME_KEY + str(number).encode()))).key
        keys[state] = sealed.key_id
        await fetch(bench.database.superuser_url, f"UPDATE sealed_key SET {change} WHERE key_id = '{sealed.key_id}'")  # noqa: S608 # the test's own words
    stubs = {caller: await bench.call(caller, here) for caller in CALLERS}
    found: dict[tuple[str, ...], str] = {}
    wanted: dict[tuple[str, ...], str] = {}
    for caller, asker, method, state in itertools.product(CALLERS, ASKERS, METHODS, STATES):
        if caller != "fulfillment" and asker not in ("alice", "bob"):
            continue
        wish = {**a_wish(keys[state], recipient, request_id=str(uuid.uuid4())), **ASKERS[asker]}
        case = (caller, asker, method, state)
        found[case] = await answer(stubs[caller], method, wish)
        wanted[case] = expected(caller, asker, state)
    assert found == wanted
    assert sum(value == "given" for value in found.values()) == 4
    logs = await fetch(bench.database.superuser_url, "SELECT key_id, act FROM delivery")
    assert {(row["key_id"], row["act"]) for row in logs} == {
        (keys[state], act) for state in ("SEALED", "OPENED") for act in ("LINK_ISSUED", "REVEALED")
    }
