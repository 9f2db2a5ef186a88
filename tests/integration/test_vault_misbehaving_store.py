"""What vault answers while the object store misbehaves, at each of its calls, and that nothing is lost by it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from chassis.errors import RemoteError
from keyferry.vault.v1 import vault_service_pb2 as pb
from sandbox.servers.s3 import S3Server

from tests.integration.misbehaving_s3 import (
    CUT_OFF,
    FLIPPED,
    HANGS,
    LOST_ANSWER,
    REFUSED_INSIDE,
    RESET,
    SHORTENED,
    Fault,
    MisbehavingS3,
    misbehaving,
    says,
)
from tests.integration.real_servers import fetch
from tests.integration.vault_replicas import GAME_KEY, Bench, a_seal, a_wish, fetch_and_open, make_bench, run_audit
from tests.unit.vault.fakes import Recipient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceAsyncStub

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)

# How long vault waits for a store that hangs, here.
HANG_SECONDS = 0.3
WAITS = "UNAVAILABLE OBJECT_STORE_UNAVAILABLE"
REFUSED = "UNAVAILABLE OBJECT_STORE_REFUSED"
LOST = "DATA_LOSS KEY_CORRUPTED"
DONE = "done"

# fmt: off
AT_ANY_CALL: "Mapping[str, tuple[Fault, str]]" = {
    "403":              (says(403, "AccessDenied"),          REFUSED),
    "401":              (says(401, "Unauthorized"),          REFUSED),
    "403 wrong clock":  (says(403, "RequestTimeTooSkewed"),  REFUSED),
    "404 no bucket":    (says(404, "NoSuchBucket"),          REFUSED),
    "404 of another":   (says(404),                          WAITS),
    "400":              (says(400, "InvalidArgument"),       WAITS),
    "409":              (says(409, "OperationAborted"),      WAITS),
    "412":              (says(412, "PreconditionFailed"),    WAITS),
    "429":              (says(429, "SlowDown", headers="retry-after: 1\r\n"), WAITS),
    "500":              (says(500, "InternalError"),         WAITS),
    "503":              (says(503, "SlowDown"),              WAITS),
    "503 of another":   (says(503),                          WAITS),
    "reset":            (RESET,                              WAITS),
    "hangs":            (HANGS,                              WAITS),
}
AT_PUT = {**AT_ANY_CALL, "lost answer": (LOST_ANSWER, WAITS)}
# Read back, what is another object stands under a name that is not ours: the next name is tried, five times.
AT_READ_BACK = {
    **AT_ANY_CALL,
    "404":              (says(404, "NoSuchKey"),             WAITS),
    "cut off":          (CUT_OFF,                            WAITS),
    "shortened":        (SHORTENED,                          WAITS),
    "flipped":          (FLIPPED,                            WAITS),
}
AT_OPENING = {
    **AT_READ_BACK,
    "404":              (says(404, "NoSuchKey"),             LOST),
    "shortened":        (SHORTENED,                          LOST),
    "flipped":          (FLIPPED,                            LOST),
}
AT_DELETION = {
    **AT_ANY_CALL,
    "lost answer":      (LOST_ANSWER,                        WAITS),
    "refused inside":   (REFUSED_INSIDE,                     REFUSED),
    "404":              (says(404, "NoSuchKey"),             DONE),
}
# fmt: on


@pytest.fixture
async def store(s3_server: S3Server) -> AsyncIterator[MisbehavingS3]:
    async with misbehaving(s3_server.url) as store:
        yield store


@dataclass
class Callers:
    """Those who call a replica of vault that stands on the misbehaving store."""

    gateway: "VaultServiceAsyncStub"
    fulfillment: "VaultServiceAsyncStub"
    store: MisbehavingS3
    monkeypatch: pytest.MonkeyPatch
    recipient: Recipient = field(default_factory=Recipient)

    async def answers_to(
        self, act: "Callable[[str], Awaitable[object]]", method: str, table: "Mapping[str, tuple[Fault, str]]"
    ) -> dict[str, str]:
        """Do something once under each fault in the answers to one method, and return what vault answered."""
        answers = {}
        for name, (fault, _) in table.items():
            with self.monkeypatch.context() as patched:
                if fault is HANGS:
                    patched.setattr("vault.adapters.r2.CALL_SECONDS", HANG_SECONDS)
                async with self.store.while_it(method, fault):
                    answers[name] = await answer_of(act(name))
        return answers

    def seal(self, name: str) -> "Awaitable[pb.SealKeyResponse]":
        return self.gateway.SealKey(a_seal(f"kinguin:1:{name}", key_named(name)))

    def link(self, key_id: str) -> "Awaitable[pb.CreateDownloadLinkResponse]":
        return self.fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(key_id, self.recipient)))

    def reveal(self, key_id: str) -> "Awaitable[pb.RevealKeyResponse]":
        return self.fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(key_id, self.recipient)))


@pytest.fixture
async def callers(bench: Bench, store: MisbehavingS3, monkeypatch: pytest.MonkeyPatch) -> Callers:
    # Each asks once: what vault answers is looked at, not what comes of asking four times.
    monkeypatch.setattr("chassis.channel._OPTIONS", (("grpc.enable_retries", 0),))
    here = await bench.here(R2_ENDPOINT=store.url)
    gateway, fulfillment = await bench.call("kinguin-gateway", here), await bench.call("fulfillment", here)
    return Callers(gateway, fulfillment, store, monkeypatch)


def key_named(name: str) -> bytes:
    return GAME_KEY + name.encode()


async def answer_of(call: "Awaitable[object]") -> str:
    try:
        await call
    except RemoteError as error:
        return f"{error.code.name} {error.reason}"
    return DONE


def expected(table: "Mapping[str, tuple[Fault, str]]") -> dict[str, str]:
    return {name: answer for name, (_, answer) in table.items()}


@pytest.mark.parametrize(("method", "table"), [("PUT", AT_PUT), ("GET", AT_READ_BACK)], ids=["put", "read back"])
async def test_a_sealing_waits_is_finished_by_the_repeat_and_loses_nothing(
    bench: Bench, callers: Callers, method: str, table: "Mapping[str, tuple[Fault, str]]"
) -> None:
    answers = await callers.answers_to(callers.seal, method, table)
    assert answers == expected(table)
    rows = await fetch(bench.database.superuser_url, "TABLE sealed_key")
    assert [row["state"] for row in rows] == ["SEALING"] * len(table)
    repeated = await asyncio.gather(*(callers.seal(name) for name in table))
    assert {answer.key.state for answer in repeated} == {pb.STATE_SEALED}
    links = await asyncio.gather(*(callers.link(answer.key.key_id) for answer in repeated))
    opened = [await fetch_and_open(link, callers.recipient) for link in links]
    assert opened == [key_named(name) for name in table]
    assert len(await fetch(bench.database.superuser_url, "TABLE sealed_key")) == len(table)
    assert GAME_KEY not in b"".join(bench.objects().values())


async def test_a_put_whose_answer_was_lost_leaves_one_object(bench: Bench, callers: Callers) -> None:
    async with callers.store.while_it("PUT", LOST_ANSWER, times=1):
        await answer_of(callers.seal("lost"))
    sealed = (await callers.seal("lost")).key
    assert bench.objects().keys() == {sealed.object_name} == {f"keys/{sealed.key_id}"}


async def test_what_is_read_back_as_another_object_is_left_alone_and_the_next_name_is_used(
    bench: Bench, callers: Callers
) -> None:
    async with callers.store.while_it("GET", FLIPPED, times=1):
        sealed = (await callers.seal("flipped")).key
    assert sealed.object_name == f"keys/{sealed.key_id}.1"
    assert bench.objects().keys() == {f"keys/{sealed.key_id}", sealed.object_name}


@pytest.mark.parametrize("way", ["link", "reveal"])
async def test_opening_waits_or_says_that_the_key_is_lost_and_never_marks_it_as_opened(
    bench: Bench, callers: Callers, way: str
) -> None:
    sealed = (await callers.seal("opened")).key
    ask = callers.link if way == "link" else callers.reveal
    answers = await callers.answers_to(lambda _: ask(sealed.key_id), "GET", AT_OPENING)
    assert answers == expected(AT_OPENING)
    assert [row["open_time"] for row in await fetch(bench.database.superuser_url, "TABLE sealed_key")] == [None]
    # What is another object on the way only, once, is no loss.
    async with callers.store.while_it("GET", FLIPPED, times=1):
        assert await answer_of(ask(sealed.key_id)) == DONE
    told = await fetch(bench.database.superuser_url, "SELECT subject, count(*) FROM outbox GROUP BY subject")
    counts = {row["subject"]: row["count"] for row in told}
    assert counts["vault.key.opened"] == 1
    assert counts["vault.key.corrupted"] == list(answers.values()).count(LOST)


async def test_a_shredded_keys_object_is_deleted_by_the_repeat(bench: Bench, callers: Callers) -> None:
    sealed = {name: answer.key for name in AT_DELETION for answer in [await callers.seal(name)]}
    named = {"order_id": "order-1", "reason": "the order was refunded"}
    key_ids = [key.key_id for key in sealed.values()]
    await callers.fulfillment.RevokeKeys(pb.RevokeKeysRequest(request_id=key_ids[0], key_ids=key_ids, **named))

    def shred(name: str) -> "Awaitable[pb.ShredKeyResponse]":
        key_id = sealed[name].key_id
        return callers.fulfillment.ShredKey(pb.ShredKeyRequest(request_id=key_id[::-1], key_id=key_id, **named))

    answers = await callers.answers_to(shred, "POST", AT_DELETION)
    assert answers == expected(AT_DELETION)
    left = "SELECT 1 FROM sealed_key WHERE wrapped_dek IS NOT NULL OR state <> 'SHREDDED'"
    assert await fetch(bench.database.superuser_url, left) == []
    await asyncio.gather(*(shred(name) for name in AT_DELETION))
    assert bench.objects() == {}
