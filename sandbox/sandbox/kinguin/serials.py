"""Names and secrets that are never given twice: derived from the seed and a counter that only grows."""

import hashlib

# Without letters and digits that are mistaken for one another.
_ALPHABET = "ABCDEFGHJKLMNPQRTUVWXYZ2346789"
_GROUP = 5


def _letters(text: str, count: int) -> str:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    letters = []
    for _ in range(count):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def order_id(seed: int, number: int) -> str:
    """Return the supplier's name of an order, such as PHS84FJAG5U."""
    return "P" + _letters(f"{seed}/order/{number}", 10)


def key_id(seed: int, number: int) -> str:
    """Return the supplier's name of a key."""
    return hashlib.sha256(f"{seed}/key/{number}".encode()).hexdigest()[:24]


def serial(seed: int, product_id: str, number: int, groups: int) -> str:
    """Return a key as a customer would type it."""
    letters = _letters(f"{seed}/serial/{product_id}/{number}", groups * _GROUP)
    return "-".join(letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP))
