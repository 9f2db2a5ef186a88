import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap
from joserfc import jwe
from joserfc.jwk import ECKey, OctKey
from vault.crypto import Digests, DoesNotOpen, Kek, hand_over, new_dek, open_sealed, read_recipient, seal
from vault.domain.key import MOST_KEY_BYTES, Binding, WrappedDek
from vault.errors import SecretVersionMissing

from tests.unit.vault.fakes import GAME_KEY, a_keyring
from tests.unit.vault.jose_by_hand import agree, decode, encode, keyed_digest, read_agreed, read_direct

VECTOR: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "vault_sealed_v1.json").read_text(encoding="utf-8")
)
KEY_ID = VECTOR["key_id"]
BINDING = Binding(VECTOR["binding"]["order"], VECTOR["binding"]["owner"])
DEK = SecretBytes(decode(VECTOR["dek"]))
WRAPPED = WrappedDek(decode(VECTOR["wrapped_dek"]["data"]), VECTOR["wrapped_dek"]["kek_version"])


def keyring_of(name: str) -> Keyring:
    return Keyring.parse(",".join(f"{version}:{secret}" for version, secret in VECTOR["secrets"][name].items()))


def sealed(plaintext: bytes = GAME_KEY, content_type: str = "text/plain") -> bytes:
    return seal(SecretBytes(plaintext), DEK, key_id=KEY_ID, content_type=content_type, binding=BINDING)


def opened(token: bytes, dek: SecretBytes = DEK, content_type: str = "text/plain", **changes: Any) -> bytes:
    key_id, binding = changes.get("key_id", KEY_ID), changes.get("binding", BINDING)
    return open_sealed(token, dek, key_id=key_id, content_type=content_type, binding=binding).expose()


# What was stored once


@pytest.mark.parametrize("key", VECTOR["keys"], ids=lambda key: str(key["content_type"]))
def test_what_was_once_sealed_opens_for_ever(key: dict[str, str]) -> None:
    dek = Kek(keyring_of("kek")).unwrap(WRAPPED, KEY_ID)
    plaintext = opened(key["sealed"].encode(), dek, key["content_type"])
    assert plaintext == decode(key["plaintext"])
    digests = Digests(keyring_of("digest"))
    assert digests.fingerprints(key["content_type"], SecretBytes(plaintext)) == [key["fingerprint"]]
    assert digests.bind(VECTOR["order_id"], VECTOR["customer_id"]) == BINDING


def test_the_vectors_are_as_drawn_without_our_own_code() -> None:
    wrapped, (kek,) = decode(VECTOR["wrapped_dek"]["data"]), VECTOR["secrets"]["kek"].values()
    bound = b"\0".join((b"keyferry/dek/v1", KEY_ID.encode(), b"v1"))
    dek = AESGCM(decode(kek)).decrypt(wrapped[:12], wrapped[12:], bound)
    assert (len(wrapped), dek) == (60, decode(VECTOR["dek"]))
    (secret,) = (decode(text) for text in VECTOR["secrets"]["digest"].values())
    for label, value, digest in (("order", b"order-1", BINDING.order), ("owner", b"alice", BINDING.owner)):
        assert digest == "v2." + encode(keyed_digest(secret, "binding", label, value))
    for key in VECTOR["keys"]:
        header, plaintext = read_direct(key["sealed"], dek)
        assert plaintext == decode(key["plaintext"])
        assert header == {
            "alg": "dir",
            "enc": "A256GCM",
            "kid": KEY_ID,
            "cty": key["content_type"],
            "typ": f"keyferry-key;order={BINDING.order};owner={BINDING.owner}",
        }
        label = f"key/{key['content_type']}"
        assert key["fingerprint"] == "v2." + encode(keyed_digest(secret, "fingerprint", label, plaintext))
    handed = VECTOR["handed_over"]
    header, plaintext = read_agreed(handed["jwe"], handed["recipient"])
    assert plaintext == decode(handed["plaintext"])
    assert {**header, "epk": None} == {
        "alg": "ECDH-ES+A256KW",
        "enc": "A256GCM",
        "cty": "text/plain",
        "kid": KEY_ID,
        "epk": None,
    }


def test_the_reader_of_these_tests_agrees_with_the_example_of_the_standard() -> None:
    # RFC 7518, appendix C.
    alice = {
        "x": "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
        "y": "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
        "d": "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo",
    }
    bob = {
        "x": "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
        "y": "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
    }
    derived = agree(alice, bob, algorithm="A128GCM", key_bytes=16, apu=b"Alice", apv=b"Bob")
    assert encode(derived) == "VqqN6vgjbSBcIijNcacQGg"


# Sealing


@pytest.mark.parametrize("size", [1, 17, 49_152, 100_000, MOST_KEY_BYTES])
def test_a_key_of_any_size_opens_again(size: int) -> None:
    plaintext = os.urandom(size)
    token = sealed(plaintext, "image/png")
    assert opened(token, content_type="image/png") == plaintext
    assert read_direct(token.decode(), DEK.expose())[1] == plaintext


def test_any_jose_library_opens_it_with_its_defaults() -> None:
    found = jwe.decrypt_compact(sealed().decode(), OctKey.import_key(DEK.expose()))
    assert found.plaintext == GAME_KEY


def test_any_bit_that_is_another_closes_it() -> None:
    token = sealed()
    for position, bit in product(range(len(token)), range(8)):
        changed = bytearray(token)
        changed[position] ^= 1 << bit
        with pytest.raises(DoesNotOpen):
            opened(bytes(changed))


def test_any_byte_too_many_or_too_few_closes_it() -> None:
    token = sealed()
    for position in range(len(token)):
        with pytest.raises(DoesNotOpen):
            opened(token[:position] + token[position + 1 :])
    for position, extra in product(range(len(token) + 1), (b"A", b"=", b".", b"\n", b"\xff")):
        with pytest.raises(DoesNotOpen):
            opened(token[:position] + extra + token[position:])


def test_another_key_order_owner_or_type_does_not_open_it() -> None:
    token = sealed()
    other = Digests(a_keyring("v2"))
    with pytest.raises(DoesNotOpen):
        opened(token, new_dek())
    with pytest.raises(DoesNotOpen):
        opened(token, key_id="f" * 32)
    with pytest.raises(DoesNotOpen):
        opened(token, content_type="image/png")
    for binding in (other.bind("order-2", "alice"), other.bind("order-1", "bob")):
        with pytest.raises(DoesNotOpen):
            opened(token, binding=binding)


@pytest.mark.parametrize(
    "changes", [{"zip": "DEF"}, {"crit": ["exp"], "exp": 1}, {"jku": "https://evil.example"}, {"alg": "ECDH-ES+A256KW"}]
)
def test_a_header_with_more_in_it_is_not_ours_even_under_the_right_dek(changes: dict[str, Any]) -> None:
    header, plaintext = read_direct(sealed().decode(), DEK.expose())
    part = encode(json.dumps({**header, **changes}).encode())
    nonce = os.urandom(12)
    box = AESGCM(DEK.expose()).encrypt(nonce, plaintext, part.encode())
    forged = f"{part}..{encode(nonce)}.{encode(box[:-16])}.{encode(box[-16:])}"
    assert read_direct(forged, DEK.expose())[1] == GAME_KEY
    with pytest.raises(DoesNotOpen):
        opened(forged.encode())


def test_no_nonce_and_no_dek_ever_comes_twice() -> None:
    count = 2_000
    assert len({sealed().split(b".")[2] for _ in range(count)}) == count
    deks = [new_dek().expose() for _ in range(count)]
    assert len(set(deks)) == count
    assert {len(dek) for dek in deks} == {32}
    kek = Kek(a_keyring())
    assert len({kek.wrap(DEK, KEY_ID).data[:12] for _ in range(count)}) == count


# Wrapping


def test_a_wrapped_dek_unwraps_for_its_key_only() -> None:
    kek = Kek(a_keyring())
    wrapped = kek.wrap(DEK, KEY_ID)
    assert kek.unwrap(wrapped, KEY_ID) == DEK
    assert DEK.expose() not in wrapped.data
    with pytest.raises(DoesNotOpen):
        kek.unwrap(wrapped, "f" * 32)


def test_any_bit_of_a_wrapped_dek_that_is_another_closes_it() -> None:
    kek = Kek(a_keyring())
    for position, bit in product(range(60), range(8)):
        changed = bytearray(WRAPPED.data)
        changed[position] ^= 1 << bit
        with pytest.raises(DoesNotOpen):
            kek.unwrap(WrappedDek(bytes(changed), "v1"), KEY_ID)


@pytest.mark.parametrize("length", [0, 11, 12, 28, 59, 61])
def test_a_wrapped_dek_of_another_length_does_not_open(length: int) -> None:
    with pytest.raises(DoesNotOpen):
        Kek(a_keyring()).unwrap(WrappedDek((WRAPPED.data + b"\0")[:length], "v1"), KEY_ID)


def test_a_wrapped_dek_cannot_be_passed_off_as_another_versions() -> None:
    # Two versions with the same secret: only what is bound keeps them apart.
    secret = a_keyring("v1").versions["v1"]
    kek = Kek(Keyring("v1", {"v1": secret, "v2": secret}))
    wrapped = kek.wrap(DEK, KEY_ID)
    with pytest.raises(DoesNotOpen):
        kek.unwrap(WrappedDek(wrapped.data, "v2"), KEY_ID)


def test_the_active_kek_wraps_and_retained_ones_unwrap() -> None:
    old = Kek(a_keyring("v1")).wrap(DEK, KEY_ID)
    both = Kek(a_keyring("v2", "v1"))
    assert both.wrap(DEK, KEY_ID).kek_version == "v2"
    assert both.unwrap(old, KEY_ID) == DEK


def test_a_kek_that_is_not_there_is_no_corruption() -> None:
    with pytest.raises(SecretVersionMissing) as raised:
        Kek(a_keyring("v2")).unwrap(WRAPPED, KEY_ID)
    assert raised.value.metadata == {"version": "v1"}


# Digests


def test_fingerprints_come_under_every_retained_secret_the_active_first() -> None:
    key = SecretBytes(GAME_KEY)
    rotated = Digests(a_keyring("v3", "v1", "v2")).fingerprints("text/plain", key)
    assert [digest.partition(".")[0] for digest in rotated] == ["v3", "v1", "v2"]
    for version, digest in zip(("v3", "v1", "v2"), rotated, strict=True):
        assert Digests(a_keyring(version)).fingerprints("text/plain", key) == [digest]
    assert len({digest.partition(".")[2] for digest in rotated}) == 3


def test_a_fingerprint_is_of_the_key_and_its_type() -> None:
    digests = Digests(a_keyring("v1"))
    (stored,) = digests.fingerprints("text/plain", SecretBytes(GAME_KEY))
    assert digests.has_fingerprint(stored, "text/plain", SecretBytes(GAME_KEY))
    assert not digests.has_fingerprint(stored, "text/plain", SecretBytes(GAME_KEY + b"x"))
    assert not digests.has_fingerprint(stored, "image/png", SecretBytes(GAME_KEY))
    assert GAME_KEY.decode() not in stored


def test_a_binding_matches_its_order_and_owner_under_any_retained_secret() -> None:
    binding = Digests(a_keyring("v1")).bind("order-1", "alice")
    rotated = Digests(a_keyring("v2", "v1"))
    assert rotated.matches(binding, "order-1", "alice")
    for order, owner in (("order-2", "alice"), ("order-1", "bob"), ("alice", "order-1"), ("", ""), ("order-1", "")):
        assert not rotated.matches(binding, order, owner)


def test_an_order_and_an_owner_of_the_same_name_have_different_digests() -> None:
    binding = Digests(a_keyring("v1")).bind("same", "same")
    assert binding.order != binding.owner


def test_a_digest_secret_that_is_not_there_is_no_refusal() -> None:
    binding = Digests(a_keyring("v1")).bind("order-1", "alice")
    with pytest.raises(SecretVersionMissing):
        Digests(a_keyring("v2")).matches(binding, "order-1", "alice")
    with pytest.raises(SecretVersionMissing):
        Digests(a_keyring("v2")).has_fingerprint("nonsense", "text/plain", SecretBytes(GAME_KEY))


# Handing over


@pytest.fixture(scope="module")
def recipient() -> dict[str, str]:
    private = ECKey.generate_key("P-256").as_dict(private=True)
    return {name: str(private[name]) for name in ("kty", "crv", "x", "y", "d")}


def public_part(jwk: dict[str, str]) -> bytes:
    return json.dumps({name: value for name, value in jwk.items() if name != "d"}).encode()


@pytest.mark.parametrize("size", [1, 32, 100_000, MOST_KEY_BYTES])
def test_the_recipient_opens_what_is_handed_over(recipient: dict[str, str], size: int) -> None:
    secret = os.urandom(size)
    token = hand_over(
        SecretBytes(secret), read_recipient(public_part(recipient)), content_type="image/gif", key_id=KEY_ID
    )
    header, plaintext = read_agreed(token, recipient)
    assert plaintext == secret
    assert (header["cty"], header["kid"]) == ("image/gif", KEY_ID)
    assert "d" not in header["epk"]


def test_each_hand_over_is_under_keys_of_its_own(recipient: dict[str, str]) -> None:
    key = read_recipient(public_part(recipient))
    tokens = [hand_over(DEK, key, content_type="text/plain", key_id=KEY_ID).split(".") for _ in range(20)]
    for part in (0, 1, 2):
        assert len({token[part] for token in tokens}) == 20


def test_nobody_else_opens_what_is_handed_over(recipient: dict[str, str]) -> None:
    token = hand_over(DEK, read_recipient(public_part(recipient)), content_type="text/plain", key_id=KEY_ID)
    stranger = ECKey.generate_key("P-256").as_dict(private=True)
    with pytest.raises(InvalidUnwrap):
        read_agreed(token, {name: str(stranger[name]) for name in ("x", "y", "d")})


def hostile_recipients() -> Iterator[Any]:
    good = ECKey.generate_key("P-256").as_dict(private=True)
    public = {name: str(good[name]) for name in ("kty", "crv", "x", "y")}

    def case(name: str, jwk: object, says: str) -> Any:
        return pytest.param(jwk if isinstance(jwk, bytes) else json.dumps(jwk).encode(), says, id=name)

    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    flipped = encode((int.from_bytes(decode(public["y"])) ^ 1).to_bytes(32))
    p384 = ECKey.generate_key("P-384").as_dict(private=False)
    yield case("private part", {**public, "d": good["d"]}, "public part only")
    yield case("empty private part", {**public, "d": ""}, "public part only")
    yield case("another curve", {name: p384[name] for name in ("kty", "crv", "x", "y")}, "crv P-256")
    yield case("another curve's point", {**public, "x": p384["x"], "y": p384["y"]}, "32 bytes")
    yield case("curve of another case", {**public, "crv": "p-256"}, "crv P-256")
    yield case("symmetric", {"kty": "oct", "k": encode(bytes(32))}, "kty EC")
    yield case("RSA", {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "kty EC")
    yield case("off the curve", {**public, "y": flipped}, "point on P-256")
    yield case("infinity", {**public, "x": encode(bytes(32)), "y": encode(bytes(32))}, "point on P-256")
    yield case("not reduced", {**public, "x": encode((prime + 5).to_bytes(32))}, "point on P-256")
    yield case("all ones", {**public, "x": encode(b"\xff" * 32), "y": encode(b"\xff" * 32)}, "point on P-256")
    for name in ("x", "y"):
        yield case(f"without {name}", {key: value for key, value in public.items() if key != name}, "x and y")
        yield case(f"{name} is a number", {**public, name: 5}, "x and y")
        yield case(f"{name} is a list", {**public, name: [public[name]]}, "x and y")
        yield case(f"{name} is short", {**public, name: public[name][:-2]}, "x and y")
        yield case(f"{name} is long", {**public, name: public[name] + "AA"}, "x and y")
        yield case(f"{name} is no base64url", {**public, name: "é" * 43}, "x and y")
    for name in ("kty", "crv"):
        yield case(f"without {name}", {key: value for key, value in public.items() if key != name}, "kty EC")
    yield case("for signatures", {**public, "use": "sig"}, "use enc")
    yield case("for another algorithm", {**public, "alg": "ES256"}, "alg ECDH-ES+A256KW")
    yield case("use is null", {**public, "use": None}, "use enc")
    yield case("huge", {**public, "x5c": ["A" * 2_000]}, "small")
    yield case("deep", b"[" * 1_000, "UTF-8 JSON")
    yield case("big number", b'{"kty":' + b"9" * 900 + b"}", "kty EC")
    yield case("nothing", b"", "UTF-8 JSON")
    yield case("not JSON", b"{kty: EC}", "UTF-8 JSON")
    yield case("not UTF-8", b'{"kty":"\xff"}', "UTF-8 JSON")
    yield case("a list", [public], "kty EC")
    yield case("null", None, "kty EC")


@pytest.mark.parametrize(("jwk", "says"), [*hostile_recipients()])
def test_a_hostile_recipient_is_refused_with_a_sentence(jwk: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as raised:
        read_recipient(jwk)
    assert says in str(raised.value)


def test_a_recipient_as_webcrypto_exports_it_is_taken(recipient: dict[str, str]) -> None:
    exported = {**json.loads(public_part(recipient)), "ext": True, "key_ops": [], "use": "enc", "alg": "ECDH-ES+A256KW"}
    key = read_recipient(json.dumps(exported).encode())
    header, _ = read_agreed(hand_over(DEK, key, content_type="text/plain", key_id=KEY_ID), recipient)
    assert header.keys() == {"alg", "enc", "cty", "kid", "epk"}
