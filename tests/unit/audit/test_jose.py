import base64
import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path

import pytest
from audit.adapters.jose import JosePersonKeys
from audit.domain.entry import Actor, ActorType
from audit.ports import Person, PersonalUnreadable
from chassis.keyring import Keyring
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "audit_person_v1.json").read_text(encoding="utf-8"))
OLD = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NEW = "v2:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"
ALICE = Actor(ActorType.CUSTOMER, "alice", "alice@example.com", "2001:db8::7", "Browser/1.0 é")


def keys(text: str = OLD) -> JosePersonKeys:
    return JosePersonKeys(Keyring.parse(text))


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def frozen_person() -> Person:
    return Person(VECTOR["pseudonym"], VECTOR["secret_version"], bytes.fromhex(VECTOR["wrapped_key"]))


def test_what_was_once_written_opens_for_ever() -> None:
    actor = keys(VECTOR["keyring"]).open_personal(frozen_person(), VECTOR["personal"], ActorType.CUSTOMER)
    assert actor == Actor(ActorType.CUSTOMER, **VECTOR["actor"])


def test_the_formats_are_as_drawn_without_our_own_code() -> None:
    secret = decode(VECTOR["keyring"].partition(":")[2])

    def derived(purpose: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)

    wrapped = bytes.fromhex(VECTOR["wrapped_key"])
    aad = f"keyferry audit person key\x1f{VECTOR['secret_version']}\x1f{VECTOR['pseudonym']}".encode()
    person_key = AESGCM(derived(b"keyferry audit person key")).decrypt(wrapped[:12], wrapped[12:], aad)
    header, encrypted_key, nonce, ciphertext, tag = VECTOR["personal"].split(".")
    assert encrypted_key == ""
    assert json.loads(decode(header)) == {"alg": "dir", "enc": "A256GCM", "kid": VECTOR["pseudonym"]}
    content = AESGCM(person_key).decrypt(decode(nonce), decode(ciphertext) + decode(tag), header.encode())
    assert json.loads(content) == VECTOR["actor"]
    name = f"CUSTOMER\x1f{VECTOR['actor']['id']}".encode()
    lookup = hmac.digest(derived(b"keyferry audit person lookup"), name, hashlib.sha256)
    assert lookup.hex() == VECTOR["lookup"]
    assert keys(VECTOR["keyring"]).lookups(ActorType.CUSTOMER, VECTOR["actor"]["id"]) == [lookup]
    digest_key = hmac.digest(person_key, b"keyferry audit request digest", hashlib.sha256)
    digest = hmac.digest(digest_key, VECTOR["told"].encode(), hashlib.sha256)
    assert digest.hex() == VECTOR["request_digest"]
    assert keys(VECTOR["keyring"]).request_digest(frozen_person(), VECTOR["told"].encode()) == digest


def test_a_new_person_closes_and_opens() -> None:
    person = keys().new_person()
    assert keys().open_personal(person, keys().close_personal(person, ALICE), ALICE.type) == ALICE


def test_two_persons_share_nothing() -> None:
    one, other = keys().new_person(), keys().new_person()
    assert one.pseudonym != other.pseudonym
    assert one.wrapped_key != other.wrapped_key
    assert keys().close_personal(one, ALICE) != keys().close_personal(one, ALICE)
    assert keys().request_digest(one, b"told") != keys().request_digest(other, b"told")


def test_a_lookup_depends_on_sort_and_id_and_version() -> None:
    rotated = keys(f"{NEW},{OLD}")
    assert len(rotated.lookups(ActorType.CUSTOMER, "alice")) == 2
    assert rotated.lookups(ActorType.CUSTOMER, "alice")[1:] == keys().lookups(ActorType.CUSTOMER, "alice")
    assert rotated.lookups(ActorType.CUSTOMER, "alice")[:1] == keys(NEW).lookups(ActorType.CUSTOMER, "alice")
    assert keys().lookups(ActorType.CUSTOMER, "alice") != keys().lookups(ActorType.ADMIN, "alice")


def test_a_retained_version_still_opens_and_a_retired_one_does_not() -> None:
    person = keys().new_person()
    closed = keys().close_personal(person, ALICE)
    assert keys(f"{NEW},{OLD}").open_personal(person, closed, ALICE.type) == ALICE
    assert keys(f"{NEW},{OLD}").new_person().secret_version == "v2"
    with pytest.raises(PersonalUnreadable, match="v1"):
        keys(NEW).open_personal(person, closed, ALICE.type)


def test_every_flipped_bit_of_the_wrapped_key_is_noticed() -> None:
    person = frozen_person()
    for position in range(len(person.wrapped_key) * 8):
        changed = bytearray(person.wrapped_key)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(PersonalUnreadable):
            keys(VECTOR["keyring"]).open_personal(
                replace(person, wrapped_key=bytes(changed)), VECTOR["personal"], ActorType.CUSTOMER
            )


def test_every_changed_character_of_the_personal_part_is_noticed() -> None:
    personal: str = VECTOR["personal"]
    for position, character in enumerate(personal):
        changed = personal[:position] + ("A" if character != "A" else "B") + personal[position + 1 :]
        if _same_bytes(personal, changed):
            continue
        with pytest.raises(PersonalUnreadable):
            keys(VECTOR["keyring"]).open_personal(frozen_person(), changed, ActorType.CUSTOMER)


def _same_bytes(one: str, other: str) -> bool:
    """Tell whether only bits changed that base64 does not carry, at the end of a part other than the header."""
    header, *parts = one.split(".")
    other_header, *other_parts = other.split(".")
    if (header, list(map(len, parts))) != (other_header, list(map(len, other_parts))):
        return False
    return list(map(decode, parts)) == list(map(decode, other_parts))


def test_what_was_moved_to_another_person_does_not_open() -> None:
    one = keys().new_person()
    closed = keys().close_personal(one, ALICE)
    with pytest.raises(PersonalUnreadable):
        keys().open_personal(keys().new_person(), closed, ALICE.type)
    with pytest.raises(PersonalUnreadable):
        keys().open_personal(replace(one, pseudonym="p-other"), closed, ALICE.type)


def test_a_part_under_the_right_key_that_names_another_person_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = keys().new_person(), keys().new_person()
    subject = keys()
    unwrap = subject._unwrap
    monkeypatch.setattr(subject, "_unwrap", lambda _person: unwrap(one))
    with pytest.raises(PersonalUnreadable, match="another person"):
        subject.open_personal(other, subject.close_personal(one, ALICE), ALICE.type)


def test_other_algorithms_are_refused() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    with pytest.raises(PersonalUnreadable):
        keys(VECTOR["keyring"]).open_personal(frozen_person(), f"{header}....", ActorType.CUSTOMER)
