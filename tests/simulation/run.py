"""Lives many histories of the whole order path, and prints the seed of every one that breaks a promise.

`make simulate` lives 20,000 of them in two processes; `make simulate SEED=1234` lives one again, to the letter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.promises import broken_promises
from tests.simulation.settings import simulated
from tests.simulation.world import World, frugal, live

# A worker takes so many at a time: few enough that both end together.
CHUNK = 100
MOST_SHOWN = 20


@dataclass
class Report:
    """What came of some histories: how orders ended, and which seeds broke what."""

    ends: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    """What went wrong on the way, and what was done about it."""
    broken: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.ends += other.ends
        self.met += other.met
        self.broken += other.broken


def judged(seed: int) -> tuple[World | None, list[str]]:
    """Live a history and return it with everything that went wrong."""
    try:
        world = live(seed)
    except Exception as error:  # noqa: BLE001 # a history that cannot be lived is a finding like any other
        return None, [f"it could not be lived: {error!r}"]
    return world, broken_promises(world)


def live_some(seeds: range) -> Report:
    """Live histories in this process."""
    report = Report()
    with simulated():
        for seed in seeds:
            world, broken = judged(seed)
            if world is not None:
                rows = world.orders.tables.table("orders").values()
                report.ends.update(f"{row.state} {row.reason}".strip() for row in rows)
                report.met += world.met()
            if broken:
                report.broken.append((seed, broken))
    return report


def live_all(count: int, jobs: int) -> Report:
    """Live histories in so many processes."""
    chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    report = Report()
    if jobs == 1:
        for chunk in chunks:
            report.add(live_some(chunk))
        return report
    with multiprocessing.get_context("fork").Pool(jobs, initializer=frugal) as pool:
        for part in pool.imap_unordered(live_some, chunks):
            report.add(part)
    return report


def show(seed: int) -> int:
    """Live one history again and print everything that is left of it."""
    with simulated():
        world, broken = judged(seed)
    if world is not None:
        print(f"weather {world.sky.weather}\nsupplier {world.account.habits}")
        for name, table in world.orders.tables.committed.items():
            for key, row in table.items():
                if name not in {"inbox", "answers"}:
                    print(f"{name} {key}: {row}".replace("\n", " "))
        for guarded in world.gateway_database.rows.values():
            print(f"guard {guarded}")
        for sold in world.account.sold:
            print(f"sold {sold}")
        for sealed in world.store.keys.values():
            print(f"vault {sealed}")
    for line in broken:
        print(f"BROKEN {line}")
    return 1 if broken else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int)
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return show(chosen.seed)
    begun = time.perf_counter()
    report = live_all(chosen.count, chosen.jobs)
    seconds = time.perf_counter() - begun
    cpu = sum(os.times()[:4])
    print(f"{chosen.count} histories in {seconds:.1f} s ({chosen.count / seconds:.0f} per second, {cpu:.0f} s of CPU)")
    print(", ".join(f"{count} {what}" for what, count in sorted(report.met.items())))
    for end, count in report.ends.most_common():
        print(f"{count:8} orders ended as {end}")
    for seed, broken in sorted(report.broken)[:MOST_SHOWN]:
        print(f"seed {seed} breaks a promise (make simulate SEED={seed}): {'; '.join(broken[:3])}")
    print(f"{len(report.broken)} histories broke a promise")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
