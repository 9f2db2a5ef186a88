"""Versions of key encryption keys: which there are, which are in use, and which nobody needs any more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KekVersions:
    """The versions that are at hand: the one that wraps, and all that unwrap, that one among them."""

    active: str
    retained: frozenset[str]


@dataclass(frozen=True, slots=True)
class KekUse:
    """How many keys are wrapped under one version."""

    version: str
    keys: int
    is_active: bool
    is_retained: bool

    @property
    def may_be_retired(self) -> bool:
        """Whether it can be taken away without losing a key."""
        return self.is_retained and not self.is_active and self.keys == 0


def uses(counts: Mapping[str, int], versions: KekVersions) -> Sequence[KekUse]:
    """Return every version that is at hand or in use, the active one first."""
    known = sorted(versions.retained | counts.keys(), key=lambda version: (version != versions.active, version))
    return [
        KekUse(version, counts.get(version, 0), version == versions.active, version in versions.retained)
        for version in known
    ]


def missing(counts: Mapping[str, int], versions: KekVersions) -> Mapping[str, int]:
    """Return the versions that are in use and not at hand, with the keys that nobody could open."""
    return {version: keys for version, keys in sorted(counts.items()) if keys and version not in versions.retained}
