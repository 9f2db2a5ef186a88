"""What every holder of KEKs promises: the keyring, and the Transit engine of a real OpenBao.

What Transit does when it is ill is told by a small HTTP server in its place.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from aiohttp import web
from chassis.failpoints import configure_failpoints
from chassis.secret import SecretBytes
from sandbox.ports import HOST
from vault.adapters import kek_transit
from vault.adapters.kek_keyring import KeyringKeks
from vault.adapters.kek_transit import TransitKeks
from vault.crypto import Kek
from vault.domain.key import WrappedDek
from vault.errors import KeyEncryptionUnavailable, SecretVersionMissing
from vault.ports import KekHolder

from tests.integration.openbao import MOUNT, OpenBao, running_openbao
from tests.unit.vault.fakes import a_keyring

KEY_ID, OTHER_KEY_ID = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
async def openbao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBao]:
    async with running_openbao(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_plans() -> Iterator[None]:
    configure_failpoints("")
    yield
    configure_failpoints("")


class Keeper(Protocol):
    """A holder under test, and what its operator can do."""

    holder: KekHolder

    async def rotate(self) -> None: ...

    async def retire(self) -> None:
        """Take away every version but the active one."""
        ...


class OurKeyring:
    def __init__(self) -> None:
        self._versions = ["v1"]
        self.holder: KekHolder = self._open()

    def _open(self) -> KeyringKeks:
        return KeyringKeks(Kek(a_keyring(*self._versions)))

    async def rotate(self) -> None:
        self._versions.insert(0, f"v{len(self._versions) + 1}")
        self.holder = self._open()

    async def retire(self) -> None:
        del self._versions[1:]
        self.holder = self._open()


@dataclass
class OurTransit:
    holder: KekHolder
    server: OpenBao
    key: str
    latest: int = 1

    async def rotate(self) -> None:
        await self.server.rotate(self.key)
        self.latest += 1
        await self.holder.versions()

    async def retire(self) -> None:
        await self.server.allow(self.key, min_decryption_version=self.latest)


@asynccontextmanager
async def a_transit(server: OpenBao, *, token: str = "", **changes: Any) -> AsyncIterator[OurTransit]:
    key = await server.make_key(**changes)
    opened = TransitKeks.open(server.address, token=token or await server.make_token(key), mount=MOUNT, key=key)
    async with opened as holder:
        yield OurTransit(holder, server, key)


@pytest.fixture(params=["keyring", "openbao"])
async def keeper(request: pytest.FixtureRequest, openbao: OpenBao) -> AsyncIterator[Keeper]:
    if request.param == "keyring":
        yield OurKeyring()
        return
    async with a_transit(openbao) as transit:
        yield transit


def new_deks(count: int = 3) -> list[tuple[str, SecretBytes]]:
    return [(os.urandom(16).hex(), SecretBytes(os.urandom(32))) for _ in range(count)]


def ids(pairs: Sequence[tuple[str, Any]]) -> list[str]:
    return [key_id for key_id, _ in pairs]


async def wrap_one(holder: KekHolder, dek: SecretBytes, key_id: str = KEY_ID) -> WrappedDek:
    (wrapped,) = await holder.wrap([(key_id, dek)])
    return wrapped


# Every holder


async def test_what_is_wrapped_unwraps_each_for_its_key(keeper: Keeper) -> None:
    deks = new_deks()
    wrapped = await keeper.holder.wrap(deks)
    assert len({each.data for each in wrapped}) == len(deks)
    assert {each.kek_version for each in wrapped} == {(await keeper.holder.versions()).active}
    opened = await keeper.holder.unwrap(list(zip(ids(deks), wrapped, strict=True)))
    assert list(opened) == [dek for _, dek in deks]
    for (_, dek), each in zip(deks, wrapped, strict=True):
        assert dek.expose() not in each.data
        assert base64.b64encode(dek.expose()) not in each.data


async def test_nothing_is_wrapped_and_unwrapped_to_nothing(keeper: Keeper) -> None:
    assert list(await keeper.holder.wrap([])) == []
    assert list(await keeper.holder.unwrap([])) == []


async def test_one_that_was_changed_or_is_anothers_does_not_unwrap_and_spoils_no_other(keeper: Keeper) -> None:
    dek = SecretBytes(os.urandom(32))
    good = await wrap_one(keeper.holder, dek)
    middle = len(good.data) // 2
    changed = [
        good.data[:middle] + bytes([good.data[middle] ^ 1]) + good.data[middle + 1 :],
        good.data[:-1],
        good.data + b"A",
        b"",
        b"\xff" * 60,
        bytes(60),
    ]
    asked = [
        (KEY_ID, good),
        (OTHER_KEY_ID, good),
        *((KEY_ID, WrappedDek(data, good.kek_version)) for data in changed),
        (KEY_ID, good),
    ]
    opened = await keeper.holder.unwrap(asked)
    assert [each == dek for each in opened] == [True, *[False] * (len(asked) - 2), True]
    assert list(opened[1:-1]) == [None] * (len(asked) - 2)
    assert list(await keeper.holder.unwrap(asked[1:3])) == [None, None]


async def test_after_a_rotation_the_new_version_wraps_and_the_old_one_unwraps(keeper: Keeper) -> None:
    dek = SecretBytes(os.urandom(32))
    before, old = (await keeper.holder.versions()).active, await wrap_one(keeper.holder, dek)
    await keeper.rotate()
    versions = await keeper.holder.versions()
    assert versions.active != before
    assert versions.retained == {before, versions.active}
    new = await wrap_one(keeper.holder, dek)
    assert (old.kek_version, new.kek_version) == (before, versions.active)
    assert list(await keeper.holder.unwrap([(KEY_ID, old), (KEY_ID, new)])) == [dek, dek]
    passed_off = [(KEY_ID, WrappedDek(old.data, new.kek_version)), (KEY_ID, WrappedDek(new.data, old.kek_version))]
    assert list(await keeper.holder.unwrap(passed_off)) == [None, None]


async def test_a_version_that_was_taken_away_is_missing_and_not_corrupted(keeper: Keeper) -> None:
    dek = SecretBytes(os.urandom(32))
    old = await wrap_one(keeper.holder, dek)
    await keeper.rotate()
    await keeper.retire()
    assert (await keeper.holder.versions()).retained == {(await keeper.holder.versions()).active}
    if keeper.holder.names(old.kek_version):
        with pytest.raises(SecretVersionMissing) as raised:
            await keeper.holder.unwrap([(KEY_ID, old)])
        assert raised.value.metadata == {"version": old.kek_version}


async def test_it_names_its_own_versions_and_no_others(keeper: Keeper) -> None:
    assert keeper.holder.names((await keeper.holder.versions()).active)
    for stranger in ("", "v9", "transit:other:v1", "transit:v1", "transit:"):
        assert not keeper.holder.names(stranger)


# Transit alone


async def test_a_key_that_was_rotated_behind_our_back_still_wraps(openbao: OpenBao) -> None:
    dek = SecretBytes(os.urandom(32))
    async with a_transit(openbao) as transit:
        first = await wrap_one(transit.holder, dek)
        await openbao.rotate(transit.key)
        second = await wrap_one(transit.holder, dek)
        assert first.kek_version == second.kek_version == f"transit:{transit.key}:v1"
        # An operator who forbids the old version at once costs one repeat, not an outage.
        await openbao.allow(transit.key, min_encryption_version=2)
        with pytest.raises(KeyEncryptionUnavailable):
            await wrap_one(transit.holder, dek)
        third = await wrap_one(transit.holder, dek)
        assert third.kek_version == f"transit:{transit.key}:v2"
        wrapped = [(KEY_ID, each) for each in (first, second, third)]
        assert list(await transit.holder.unwrap(wrapped)) == [dek] * 3


async def test_what_is_bound_is_more_than_transit_binds_by_itself(openbao: OpenBao) -> None:
    async with a_transit(openbao) as transit:
        bare = await openbao.encrypt(transit.key, os.urandom(32))
        version = f"transit:{transit.key}:v1"
        assert list(await transit.holder.unwrap([(KEY_ID, WrappedDek(bare.encode(), version))])) == [None]


@pytest.mark.parametrize("kind", ["aes128-gcm96", "chacha20-poly1305", "rsa-2048"])
async def test_a_key_of_another_type_is_refused(openbao: OpenBao, kind: str) -> None:
    async with a_transit(openbao, type=kind) as transit:
        with pytest.raises(KeyEncryptionUnavailable, match="must be of type aes256-gcm96") as raised:
            await transit.holder.versions()
        assert raised.value.metadata["type"] == kind


async def test_a_derived_key_is_refused(openbao: OpenBao) -> None:
    async with a_transit(openbao, derived=True) as transit:
        with pytest.raises(KeyEncryptionUnavailable, match="not derived"):
            await transit.holder.versions()


async def test_a_token_that_may_not_and_a_key_that_is_not_there_say_that_transit_refuses(openbao: OpenBao) -> None:
    async with a_transit(openbao, token="no-token-of-its") as transit:
        with pytest.raises(KeyEncryptionUnavailable) as raised:
            await transit.holder.versions()
        assert raised.value.metadata == {"operation": "read_key", "status": "403"}
    opened = TransitKeks.open(openbao.address, token=openbao.root_token, mount=MOUNT, key="no-such-key")
    async with opened as holder:
        with pytest.raises(KeyEncryptionUnavailable) as raised:
            await holder.versions()
        assert raised.value.metadata["status"] == "404"


async def test_a_vault_token_makes_no_key_and_rotates_none(openbao: OpenBao) -> None:
    """The policy that we tell operators to give allows what vault does, and no more."""
    async with a_transit(openbao) as transit:
        token = await openbao.make_token(transit.key)
        root, openbao.root_token = openbao.root_token, token
        try:
            for path in (
                f"{MOUNT}/keys/{transit.key}/rotate",
                f"{MOUNT}/keys/new",
                f"{MOUNT}/keys/{transit.key}/config",
            ):
                with pytest.raises(AssertionError, match="403"):
                    await openbao.call("POST", path, {})
        finally:
            openbao.root_token = root


async def test_a_token_is_renewed_before_it_ends(openbao: OpenBao) -> None:
    key = await openbao.make_key()
    token = await openbao.make_token(key, period="2s")
    async with TransitKeks.open(openbao.address, token=token, mount=MOUNT, key=key) as holder:
        keeping = asyncio.create_task(holder.keep_token())
        # Longer than it would live by itself.
        await asyncio.sleep(2.6)
        assert (await wrap_one(holder, SecretBytes(os.urandom(32)))).kek_version == f"transit:{key}:v1"
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def test_a_token_that_never_ends_is_left_alone(openbao: OpenBao) -> None:
    key = await openbao.make_key()
    async with TransitKeks.open(openbao.address, token=openbao.root_token, mount=MOUNT, key=key) as holder:
        await asyncio.wait_for(holder.keep_token(), timeout=10)


async def test_a_call_that_is_made_twice_does_no_harm(openbao: OpenBao) -> None:
    configure_failpoints("vault.transit.encrypt=repeat;vault.transit.decrypt=repeat;vault.transit.read_key=repeat")
    dek = SecretBytes(os.urandom(32))
    async with a_transit(openbao) as transit:
        wrapped = await wrap_one(transit.holder, dek)
        assert list(await transit.holder.unwrap([(KEY_ID, wrapped)])) == [dek]


async def test_a_sealed_server_is_an_outage(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with running_openbao(tmp_path_factory.mktemp("sealed")) as server, a_transit(server) as transit:
        wrapped = await wrap_one(transit.holder, SecretBytes(os.urandom(32)))
        await server.call("PUT", "sys/seal")
        with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
            await transit.holder.unwrap([(KEY_ID, wrapped)])


# Transit when it is ill

KEY_JSON = {"data": {"type": "aes256-gcm96", "derived": False, "latest_version": 1, "min_decryption_version": 1}}


@dataclass
class Ill:
    """A server in Transit's place that answers what a test says: the last answer again and again."""

    answers: list[Callable[[], Awaitable[web.StreamResponse]]] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)

    def will(self, *answers: "Callable[[], Awaitable[web.StreamResponse]]") -> None:
        self.answers[:] = answers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer()


def says(status: int, body: Any = None, text: str = "") -> Callable[[], Awaitable[web.StreamResponse]]:
    async def answer() -> web.StreamResponse:
        return web.Response(status=status, text=text) if body is None else web.json_response(body, status=status)

    return answer


def batch(*results: Any) -> Callable[[], Awaitable[web.StreamResponse]]:
    return says(200, {"data": {"batch_results": list(results)}})


@pytest.fixture
async def ill(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Ill, TransitKeks]]:
    monkeypatch.setattr(kek_transit, "PAUSES_SECONDS", (0.0,) * len(kek_transit.PAUSES_SECONDS))
    server = Ill()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    opened: AbstractAsyncContextManager[TransitKeks] = TransitKeks.open(
        f"http://{host}:{port}/", token="t0ken", mount="/a/b/", key="k", namespace="ns"
    )
    async with opened as holder:
        yield server, holder
    await runner.cleanup()


WRAPPED = WrappedDek(b"vault:v1:" + base64.b64encode(bytes(60)), "transit:k:v1")
GOOD = {"plaintext": base64.b64encode(bytes(32)).decode()}


async def test_it_asks_as_the_api_says(ill: tuple[Ill, TransitKeks]) -> None:
    server, holder = ill
    server.will(batch(GOOD))
    assert list(await holder.unwrap([(KEY_ID, WRAPPED)])) == [SecretBytes(bytes(32))]
    (request,) = server.asked
    assert (request.method, request.path) == ("POST", "/v1/a/b/decrypt/k")
    assert request.headers["x-vault-token"] == "t0ken"
    assert request.headers["x-vault-namespace"] == "ns"
    assert request.headers["x-vault-request"] == "true"
    (item,) = (await request.json())["batch_input"]
    assert base64.b64decode(item["associated_data"]) == b"keyferry/dek/v1\0" + KEY_ID.encode() + b"\0transit:k:v1"
    assert item["ciphertext"] == WRAPPED.data.decode()


@pytest.mark.parametrize("status", [412, 429, 473, 500, 503])
async def test_what_passes_is_asked_again(ill: tuple[Ill, TransitKeks], status: int) -> None:
    server, holder = ill
    server.will(says(status, {"errors": ["try later"]}), says(status, text="<html>"), batch(GOOD))
    assert list(await holder.unwrap([(KEY_ID, WRAPPED)])) == [SecretBytes(bytes(32))]
    assert len(server.asked) == 3
    server.will(says(status, {"errors": ["try later"]}))
    with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
        await holder.unwrap([(KEY_ID, WRAPPED)])
    assert len(server.asked) == 3 + len(kek_transit.PAUSES_SECONDS), "tries are bounded"


async def test_a_connection_that_breaks_is_asked_again(ill: tuple[Ill, TransitKeks]) -> None:
    server, holder = ill

    async def break_off() -> web.StreamResponse:
        transport = server.asked[-1].transport
        assert transport is not None
        transport.close()
        return web.Response()

    server.will(break_off, batch(GOOD))
    assert list(await holder.unwrap([(KEY_ID, WRAPPED)])) == [SecretBytes(bytes(32))]


async def test_one_that_never_answers_is_given_up_in_time(
    ill: tuple[Ill, TransitKeks], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, holder = ill
    monkeypatch.setattr(kek_transit, "CALL_SECONDS", 0.3)

    async def hang() -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.Response()

    server.will(hang)
    async with asyncio.timeout(2):
        with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
            await holder.unwrap([(KEY_ID, WRAPPED)])


async def test_nobody_there_is_an_outage() -> None:
    async with TransitKeks.open("http://127.0.0.1:1", token="t", mount="transit", key="k") as holder:
        with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
            await holder.versions()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(200, text="<html>"), id="no JSON"),
        pytest.param(says(200, []), id="a list"),
        pytest.param(says(200, {"data": None}), id="no data"),
        pytest.param(says(200, {"data": {}}), id="no results"),
        pytest.param(batch(), id="too few results"),
        pytest.param(batch(GOOD, GOOD), id="too many results"),
        pytest.param(batch("text"), id="a result that is no object"),
        pytest.param(batch({}), id="no plaintext"),
        pytest.param(batch({"plaintext": "!"}), id="no base64"),
        pytest.param(batch({"error": "the disk is full"}), id="an error of its own"),
        pytest.param(says(302, {"data": GOOD}), id="elsewhere"),
        pytest.param(says(400, {"errors": ["encryption key not found"]}), id="no such key"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_outage_and_no_corruption(
    ill: tuple[Ill, TransitKeks], answer: Callable[[], Awaitable[web.StreamResponse]]
) -> None:
    server, holder = ill
    server.will(answer)
    with pytest.raises(KeyEncryptionUnavailable) as raised:
        await holder.unwrap([(KEY_ID, WRAPPED)])
    assert "disk" not in str(raised.value)


async def test_a_plaintext_of_another_length_is_no_dek(ill: tuple[Ill, TransitKeks]) -> None:
    server, holder = ill
    server.will(batch({"plaintext": base64.b64encode(bytes(31)).decode()}))
    assert list(await holder.unwrap([(KEY_ID, WRAPPED)])) == [None]


@pytest.mark.parametrize(
    "ciphertext",
    [None, 5, "", "é", "vault:v2:AAAA", "other:v1:AAAA", "vault:v1:" + "A" * 600],
    ids=["none", "number", "empty", "no ASCII", "another version", "another prefix", "too long"],
)
async def test_a_ciphertext_that_we_could_not_give_back_is_not_taken(
    ill: tuple[Ill, TransitKeks], ciphertext: Any
) -> None:
    server, holder = ill
    server.will(says(200, KEY_JSON), batch({"ciphertext": ciphertext}))
    with pytest.raises(KeyEncryptionUnavailable, match="cannot be understood"):
        await holder.wrap([(KEY_ID, SecretBytes(bytes(32)))])


@pytest.mark.parametrize("key", [{}, {"type": "aes256-gcm96"}, {"type": "aes256-gcm96", "latest_version": "x"}])
async def test_a_key_that_makes_no_sense_is_an_outage(ill: tuple[Ill, TransitKeks], key: dict[str, Any]) -> None:
    server, holder = ill
    server.will(says(200, {"data": key}))
    with pytest.raises(KeyEncryptionUnavailable, match="cannot be understood"):
        await holder.versions()


async def test_a_token_that_cannot_be_renewed_now_is_renewed_later(
    ill: tuple[Ill, TransitKeks], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, holder = ill
    monkeypatch.setattr(kek_transit, "TOKEN_PAUSE_SECONDS", 0.0)
    server.will(
        says(403, {"errors": ["permission denied"]}),
        says(200, {"auth": {}}),
        says(200, {"auth": {"lease_duration": 0, "renewable": True}}),
    )
    await asyncio.wait_for(holder.keep_token(), timeout=10)
    assert len(server.asked) == 3
