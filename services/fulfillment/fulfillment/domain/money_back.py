"""Which part of what was paid is asked back for keys that will not come."""

from collections import Counter
from collections.abc import Iterable, Sequence


def share(
    total_minor: int,
    weights: Sequence[tuple[int, int]],
    earlier: Sequence[tuple[int, int]],
    line_index: int,
    quantity: int,
) -> int:
    """Return what to ask back, in minor units, when `quantity` keys of a line will not come.

    `weights` are what a key of each line weighs and how many were ordered; `earlier` are the line and quantity of every
    request before. What is due is rounded down over all requests together and not for each by itself: so they never
    exceed the total, and reach it to the cent once nothing comes.
    """
    before = _due(total_minor, weights, earlier)
    return _due(total_minor, weights, [*earlier, (line_index, quantity)]) - before


def _due(total_minor: int, weights: Sequence[tuple[int, int]], canceled: Iterable[tuple[int, int]]) -> int:
    # Where nothing has a weight all keys weigh the same.
    even = all(weight == 0 for weight, _ in weights)
    counts = Counter[int]()
    for line_index, quantity in canceled:
        counts[line_index] += quantity
    whole = part = 0
    for line_index, (weight, ordered) in enumerate(weights):
        whole += (1 if even else weight) * ordered
        # What is canceled twice by mistake is paid back once.
        part += (1 if even else weight) * min(counts[line_index], ordered)
    return total_minor * part // whole
