"""More than 100,000 ways to change a sealed key, or to put together parts of two, none of which opens anything."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from chassis.secret import SecretBytes
from vault.crypto import Digests, DoesNotOpen, Kek, new_dek, open_sealed, seal
from vault.domain.key import Binding, WrappedDek

from tests.unit.vault.fakes import a_keyring
from tests.unit.vault.jose_by_hand import decode, encode

FEWEST_CASES = 100_000
# Each a test of its own, so that two processes share them; there are more keys than shares.
SHARES = 4
KEYS = 14
TYPES = ("text/plain", "image/png", "image/jpeg", "image/gif")
DIGESTS = Digests(a_keyring("v1"))
KEK = Kek(a_keyring("v1"))


@dataclass(frozen=True)
class Parts:
    """A sealed key, its DEK and what it is opened for, taken apart. Two keys share some of these, and never all."""

    header: str
    nonce: str
    ciphertext: str
    tag: str
    dek: bytes
    key_id: str
    content_type: str
    order: str
    owner: str

    @property
    def token(self) -> bytes:
        return f"{self.header}..{self.nonce}.{self.ciphertext}.{self.tag}".encode()

    def opens(self, token: bytes | None = None) -> bool:
        try:
            open_sealed(
                token or self.token,
                SecretBytes(self.dek),
                key_id=self.key_id,
                content_type=self.content_type,
                binding=Binding(self.order, self.owner),
            )
        except DoesNotOpen:
            return False
        return True


FIELDS = ("header", "nonce", "ciphertext", "tag", "dek", "key_id", "content_type", "order", "owner")


def a_sealed_key(number: int) -> Parts:
    dek, key_id = new_dek(), f"{number:032x}"
    content_type = TYPES[number % len(TYPES)]
    # Keys of one order and of one owner are among them: those are the ones that somebody has a use for.
    binding = DIGESTS.bind(f"order-{number // 2}", f"customer-{number // 4}")
    plaintext = SecretBytes(f"{number:05}-BBBBB-CCCCC".encode())
    token = seal(plaintext, dek, key_id=key_id, content_type=content_type, binding=binding)
    header, _, nonce, ciphertext, tag = token.decode().split(".")
    return Parts(header, nonce, ciphertext, tag, dek.expose(), key_id, content_type, binding.order, binding.owner)


@pytest.fixture(scope="module")
def keys() -> list[Parts]:
    return [a_sealed_key(number) for number in range(KEYS)]


def flipped_bits(data: bytes) -> Iterator[bytes]:
    for position, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[position] ^= 1 << bit
        yield bytes(changed)


def written_flips(key: Parts) -> Iterator[tuple[Parts, bytes]]:
    """Yield the object with each bit of what is stored flipped."""
    yield from ((key, token) for token in flipped_bits(key.token))


def inner_flips(key: Parts) -> Iterator[tuple[Parts, bytes]]:
    """Yield well-formed objects with each bit of what is encoded flipped, and each bit of the DEK."""
    for field in ("header", "nonce", "ciphertext", "tag"):
        for changed in flipped_bits(decode(getattr(key, field))):
            other = replace(key, **{field: encode(changed)})  # type: ignore[arg-type] # these four are text
            yield other, other.token
    for changed in flipped_bits(key.dek):
        other = replace(key, dek=changed)
        yield other, other.token


def swaps(one: Parts, other: Parts) -> Iterator[tuple[Parts, bytes]]:
    """Yield one key with every combination of the other's parts in place of its own."""
    for count in range(1, len(FIELDS)):
        for chosen in itertools.combinations(FIELDS, count):
            mixed = replace(one, **{field: getattr(other, field) for field in chosen})
            if mixed not in (one, other):
                yield mixed, mixed.token


@pytest.mark.parametrize("share", range(SHARES))
def test_no_flipped_bit_and_no_part_of_another_key_opens_anything(keys: list[Parts], share: int) -> None:
    assert all(key.opens() for key in keys)
    pairs = list(itertools.permutations(keys, 2))[share::SHARES]
    mixes = itertools.chain.from_iterable(swaps(one, other) for one, other in pairs)
    tried, opened = 0, []
    for changed, token in itertools.chain(written_flips(keys[share]), inner_flips(keys[share]), mixes):
        tried += 1
        if changed.opens(token):
            opened.append((changed, token))
    assert opened == []
    assert tried >= FEWEST_CASES // SHARES


def test_no_wrapped_dek_serves_another_key_or_another_version(keys: list[Parts]) -> None:
    wrapped = {key.key_id: KEK.wrap(SecretBytes(key.dek), key.key_id) for key in keys}
    tried = 0
    for one, other in itertools.permutations(keys, 2):
        for data in (
            wrapped[other.key_id].data,
            wrapped[one.key_id].data[:12] + wrapped[other.key_id].data[12:],
            wrapped[other.key_id].data[:12] + wrapped[one.key_id].data[12:],
            wrapped[one.key_id].data[:44] + wrapped[other.key_id].data[44:],
        ):
            tried += 1
            with pytest.raises(DoesNotOpen):
                KEK.unwrap(WrappedDek(data, "v1"), one.key_id)
    for changed in flipped_bits(wrapped[keys[0].key_id].data):
        tried += 1
        with pytest.raises(DoesNotOpen):
            KEK.unwrap(WrappedDek(changed, "v1"), keys[0].key_id)
    assert tried == KEYS * (KEYS - 1) * 4 + 60 * 8
