"""Frozen examples of sealed keys, opened by our own code, by the RFCs alone, and by a JOSE library that is not ours.

Whoever changes the format breaks these; a new version gets vectors of its own, and these stay.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from chassis.keyring import Keyring
from chassis.secret import SecretBytes
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from vault.crypto import Digests, DoesNotOpen, Kek, new_dek, open_sealed, seal
from vault.domain.key import CONTENT_TYPES, MOST_KEY_BYTES, Binding, WrappedDek

from tests.unit.vault.jose_by_hand import decode, encode, read_direct

VECTORS = Path(__file__).parents[2] / "vectors"
SEALED: dict[str, Any] = json.loads((VECTORS / "vault_sealed_v1_cases.json").read_text(encoding="utf-8"))
WYCHEPROOF: dict[str, Any] = json.loads((VECTORS / "wycheproof_aes_gcm_256.json").read_text(encoding="utf-8"))
BASE: dict[str, Any] = SEALED["opened"][0]


def keyring_of(name: str) -> Keyring:
    return Keyring.parse(",".join(f"{version}:{secret}" for version, secret in SEALED["secrets"][name].items()))


def plaintext_of(case: dict[str, Any]) -> bytes:
    if "plaintext" in case:
        return decode(case["plaintext"])
    made = case["plaintext_shake_256"]
    return hashlib.shake_256(made["of"].encode()).digest(made["size"])


def sealed_of(case: dict[str, Any]) -> bytes:
    """Return the sealed object; a large one is not printed in the vector but made as it says, without our own code."""
    if "sealed" in case:
        token = case["sealed"]
    else:
        bound = f"keyferry-key;order={case['binding']['order']};owner={case['binding']['owner']}"
        header = {"alg": "dir", "enc": "A256GCM", "kid": case["key_id"], "cty": case["content_type"], "typ": bound}
        part = encode(json.dumps(header, separators=(",", ":")).encode())
        nonce = decode(case["nonce"])
        box = AESGCM(decode(case["dek"])).encrypt(nonce, plaintext_of(case), part.encode())
        token = f"{part}..{encode(nonce)}.{encode(box[:-16])}.{encode(box[-16:])}"
    assert hashlib.sha256(token.encode()).hexdigest() == case["sealed_sha256"]
    return bytes(token.encode())


def opened(sealed: bytes, case: dict[str, Any], dek: SecretBytes) -> bytes:
    binding = Binding(case["binding"]["order"], case["binding"]["owner"])
    return open_sealed(sealed, dek, key_id=case["key_id"], content_type=case["content_type"], binding=binding).expose()


def opened_by_another_library(token: str, dek: bytes) -> bytes:
    found = JWE()
    found.deserialize(token, JWK(kty="oct", k=encode(dek)))
    return bytes(found.payload)


every_case = pytest.mark.parametrize("case", SEALED["opened"], ids=lambda case: str(case["name"]))


@every_case
def test_our_own_code_opens_it_and_derives_what_it_is_bound_to(case: dict[str, Any]) -> None:
    dek = Kek(keyring_of("kek")).unwrap(WrappedDek(decode(case["wrapped_dek"]), "v12"), case["key_id"])
    assert dek.expose() == decode(case["dek"])
    plaintext = opened(sealed_of(case), case, dek)
    assert plaintext == plaintext_of(case)
    digests, binding = Digests(keyring_of("digest")), Binding(case["binding"]["order"], case["binding"]["owner"])
    assert digests.bind(case["order_id"], case["customer_id"]) == binding
    assert digests.fingerprints(case["content_type"], SecretBytes(plaintext)) == [case["fingerprint"]]


@every_case
def test_a_jose_library_that_is_not_ours_opens_it(case: dict[str, Any]) -> None:
    token, dek = sealed_of(case).decode(), decode(case["dek"])
    assert opened_by_another_library(token, dek) == read_direct(token, dek)[1] == plaintext_of(case)


@every_case
def test_what_we_seal_now_is_opened_by_that_library_too(case: dict[str, Any]) -> None:
    dek, binding = new_dek(), Binding(case["binding"]["order"], case["binding"]["owner"])
    plaintext = SecretBytes(plaintext_of(case))
    token = seal(plaintext, dek, key_id=case["key_id"], content_type=case["content_type"], binding=binding)
    assert opened_by_another_library(token.decode(), dek.expose()) == plaintext.expose()


@pytest.mark.parametrize("case", SEALED["refused"], ids=lambda case: str(case["name"]))
def test_whatever_is_not_exactly_ours_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(DoesNotOpen):
        opened(case["sealed"].encode(), BASE, SecretBytes(decode(BASE["dek"])))


def test_many_of_the_refused_are_authentic_so_that_their_form_alone_is_what_refuses_them() -> None:
    """Guard the vectors: a negative one that fails for a typing error proves nothing."""
    authentic = 0
    for case in SEALED["refused"]:
        try:
            _, plaintext = read_direct(case["sealed"], decode(BASE["dek"]))
        except (AssertionError, InvalidTag, ValueError):
            continue
        authentic += plaintext == plaintext_of(BASE)
    assert authentic >= 25


def test_the_cases_hold_every_content_type_words_beyond_ascii_and_the_largest_key() -> None:
    cases = SEALED["opened"]
    assert {case["content_type"] for case in cases} == CONTENT_TYPES
    assert max(len(plaintext_of(case)) for case in cases) == MOST_KEY_BYTES
    assert min(len(plaintext_of(case)) for case in cases) == 1
    assert any(not case["order_id"].isascii() and not case["customer_id"].isascii() for case in cases)


@pytest.mark.parametrize("test", WYCHEPROOF["tests"], ids=lambda test: f"tc{test['tcId']}")
def test_the_cipher_under_our_seals_passes_wycheproof(test: dict[str, Any]) -> None:
    """What `seal` and `Kek` use, with its tag behind the ciphertext as both store it."""
    key, nonce, aad = (bytes.fromhex(test[name]) for name in ("key", "iv", "aad"))
    message, box = bytes.fromhex(test["msg"]), bytes.fromhex(test["ct"] + test["tag"])
    if test["result"] == "valid":
        assert AESGCM(key).encrypt(nonce, message, aad) == box
        assert AESGCM(key).decrypt(nonce, box, aad) == message
    else:
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(nonce, box, aad)


def test_wycheproof_reaches_the_reader_of_sealed_keys() -> None:
    """The same tests in the form of a JWE: the key, the nonce, the ciphertext and the tag are the vector's."""
    header = BASE["sealed"].partition(".")[0]
    checked = 0
    for test in WYCHEPROOF["tests"]:
        key, nonce, message = (bytes.fromhex(test[name]) for name in ("key", "iv", "msg"))
        box = AESGCM(key).encrypt(nonce, message, header.encode())
        tag = box[-16:]
        if test["result"] == "invalid":
            good = AESGCM(key).encrypt(nonce, message, b"")[-16:]
            tag = bytes(
                ours ^ theirs ^ right for ours, theirs, right in zip(tag, bytes.fromhex(test["tag"]), good, strict=True)
            )
        token = f"{header}..{encode(nonce)}.{encode(box[:-16])}.{encode(tag)}".encode()
        if test["result"] == "valid":
            assert opened(token, BASE, SecretBytes(key)) == message
        else:
            with pytest.raises(DoesNotOpen):
                opened(token, BASE, SecretBytes(key))
        checked += 1
    assert checked == WYCHEPROOF["numberOfTests"] == 54
