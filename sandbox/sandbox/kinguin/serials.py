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


def foreign_key(order_id: str) -> tuple[str, str]:
    """Return name and serial of a key that does not belong into an order; always the same for one order."""
    name = hashlib.sha256(f"{order_id}/foreign".encode()).hexdigest()[:24]
    return name, "-".join(_letters(f"{order_id}/foreign/{group}", _GROUP) for group in range(3))


def invented_product(seed: int, number: int) -> str:
    """Return the supplier's name of a product that nobody sells here."""
    return "66" + hashlib.sha256(f"{seed}/invented/{number}".encode()).hexdigest()[:22]
