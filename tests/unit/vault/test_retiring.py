from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from chassis.errors import ServiceUnavailable
from chassis.settings import SettingsError
from prometheus_client import REGISTRY
from vault import retiring
from vault.adapters.kek_keyring import KeyringKeks
from vault.crypto import Digests, Kek
from vault.domain.kek import KekVersions
from vault.domain.key import WrappedDek
from vault.errors import KeyEncryptionUnavailable
from vault.retiring import DigestCheck, KekWatch
from vault.wrapping import KeyEncryption

from tests.unit.vault.fakes import MemoryStoredDigests, MemoryWrappedDeks, World, a_keyring, a_seal


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retiring, "START_PAUSE_SECONDS", 0)
    monkeypatch.setattr(retiring, "COUNT_SECONDS", 0)


async def seal_under(world: World, *versions: str) -> None:
    for number, version in enumerate(versions):
        world.kek = Kek(a_keyring(version))
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))


def watch(world: World, *versions: str) -> KekWatch:
    world.kek = Kek(a_keyring(*versions))
    return KekWatch(world.deks, world.keks)


def gauge(version: str) -> float | None:
    return REGISTRY.get_sample_value("keyferry_vault_keys_per_kek", {"kek_version": version})


async def test_it_starts_when_every_version_in_use_is_at_hand(world: World) -> None:
    await watch(world, "v1").check_start()
    await seal_under(world, "v1", "v2", "v2")
    await watch(world, "v3", "v2", "v1").check_start()
    assert [gauge(version) for version in ("v1", "v2", "v3")] == [1, 2, 0]


async def test_it_refuses_to_start_with_a_sentence_for_each_version_that_is_missing(world: World) -> None:
    await seal_under(world, "v1", "v2", "v2")
    with pytest.raises(SettingsError) as raised:
        await watch(world, "v3").check_start()
    one, two = str(raised.value).splitlines()
    assert one.startswith("KEY_ENCRYPTION_SECRET lacks the version v1, under which 1 key is wrapped; put it back")
    assert two.startswith("KEY_ENCRYPTION_SECRET lacks the version v2, under which 2 keys are wrapped; put it back")


async def test_a_version_of_transit_is_missed_under_its_own_setting(world: World) -> None:
    await seal_under(world, "v1")
    record = world.keys.only_key()
    world.keys.rows.keys[record.key_id] = replace(record, dek=WrappedDek(b"vault:v3:AAAA", "transit:keyferry:v3"))
    with pytest.raises(
        SettingsError, match=r"^KEYFERRY_TRANSIT_KEY does not have the version transit:keyferry:v3, under"
    ):
        await watch(world, "v1").check_start()


class Away(MemoryWrappedDeks):
    """Does not answer a number of times."""

    def __init__(self, world: World, times: int) -> None:
        super().__init__(world.keys)
        self.times = times

    async def counts(self) -> Mapping[str, int]:
        self.times -= 1
        if self.times >= 0:
            raise ServiceUnavailable("the database does not answer")
        return await super().counts()


async def test_it_waits_for_a_database_that_starts_at_the_same_time_but_not_for_ever(world: World) -> None:
    await KekWatch(Away(world, retiring.START_TRIES - 1), world.keks).check_start()
    away = Away(world, 1000)
    with pytest.raises(ServiceUnavailable):
        await KekWatch(away, world.keks).check_start()
    assert away.times == 1000 - retiring.START_TRIES


async def test_a_transit_that_cannot_be_used_is_told_with_its_settings(world: World) -> None:
    class Refusing(KeyringKeks):
        async def versions(self) -> KekVersions:
            raise KeyEncryptionUnavailable("transit refused", metadata={"status": "403"})

    with pytest.raises(
        SettingsError, match=r"^KEYFERRY_TRANSIT_ADDRESS cannot be used: transit refused, status 403; see"
    ):
        await KekWatch(world.deks, KeyEncryption(Refusing(world.kek))).check_start()


async def test_counting_goes_on_whatever_it_finds(world: World, logs: list[MutableMapping[str, Any]]) -> None:
    await seal_under(world, "v1")

    class Ending(Away):
        async def counts(self) -> Mapping[str, int]:
            if self.times < -2:
                raise LookupError
            return await super().counts()

    world.kek = Kek(a_keyring("v2"))
    with pytest.raises(LookupError):
        await KekWatch(Ending(world, 1), world.keks).run()
    events = [entry["event"] for entry in logs]
    assert events.count("counting is put off") == 1
    assert events.count("keys are wrapped under a KEK that is not here") == 3


async def test_a_version_that_is_gone_is_shown_as_empty(world: World) -> None:
    await seal_under(world, "v4")
    looking = watch(world, "v5", "v4")
    await looking.check_start()
    assert gauge("v4") == 1
    world.keys.rows.keys.clear()
    world.kek = Kek(a_keyring("v5"))
    looking._keks = world.keks
    await looking.check_start()
    assert gauge("v4") == 0


# Digests


async def seal_with_digests(world: World, *versions: str) -> None:
    for number, version in enumerate(versions):
        world.digests = Digests(a_keyring(version))
        await world.sealer.seal(a_seal(f"key {number}".encode(), source_ref=f"kinguin:1:{number}"))


def digest_check(world: World, *versions: str) -> DigestCheck:
    return DigestCheck(MemoryStoredDigests(world.keys), Digests(a_keyring(*versions)))


async def test_it_starts_when_every_version_of_digests_in_use_is_at_hand(world: World) -> None:
    await digest_check(world, "v1").check_start()
    await seal_with_digests(world, "v1", "v2", "v2")
    await digest_check(world, "v3", "v2", "v1").check_start()


async def test_it_refuses_to_start_without_a_version_that_keys_have_their_digests_under(world: World) -> None:
    await seal_with_digests(world, "v1", "v2", "v2")
    with pytest.raises(SettingsError) as raised:
        await digest_check(world, "v3").check_start()
    one, two = str(raised.value).splitlines()
    assert one.startswith("KEYFERRY_DIGEST_SECRET lacks the version v1, under which 1 key is recognized and bound")
    assert two.startswith("KEYFERRY_DIGEST_SECRET lacks the version v2, under which 2 keys are recognized and bound")
    with pytest.raises(SettingsError, match=r"lacks the version v1, [^\n]*$"):
        await digest_check(world, "v2").check_start()


async def test_digests_wait_for_a_database_too_but_not_for_ever(world: World) -> None:
    class AwayDigests(MemoryStoredDigests):
        times = retiring.START_TRIES - 1

        async def versions(self) -> frozenset[str]:
            self.times -= 1
            if self.times >= 0:
                raise ServiceUnavailable("the database does not answer")
            return await super().versions()

    away = AwayDigests(world.keys)
    await DigestCheck(away, world.digests).check_start()
    away.times = retiring.START_TRIES
    with pytest.raises(ServiceUnavailable):
        await DigestCheck(away, world.digests).check_start()
