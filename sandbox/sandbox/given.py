"""Parts of the system that the environment names: the given one is used, and the sandbox starts none of its own."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class GivenIncomplete(ValueError):
    """A part is given by its address, but not what is needed to use it."""


# Address of a part → what else must be given with it.
_COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "KINGUIN_BASE": ("KINGUIN_API_KEY", "KINGUIN_WEBHOOK_SECRET"),
    "DATABASE_URL": (),
    "NATS_URL": (),
    "R2_ENDPOINT": ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET"),
    "SMTP_URL": (),
    "OIDC_ISSUER": ("OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "OIDC_AUDIENCE"),
}
# Passed on as they are when they are given.
SUPPLIER_CHOICES = ("KINGUIN_AUTH", "KINGUIN_COMMIT_BOUND", "KINGUIN_SEARCH_LAG_BOUND", "KINGUIN_TIMEOUT")
KEEPING_CHOICES = (
    "KEYFERRY_RETENTION_DAYS",
    "KEYFERRY_UNOPENED_RETENTION_DAYS",
    "KEYFERRY_SWEEP_SECONDS",
    "KEYFERRY_RELEASES_PER_HOUR",
)
LOG_CHOICES = ("KEYFERRY_CHECKPOINT_BUCKET",)
SHOP_CHOICES = (
    "KEYFERRY_STOCK_PATIENCE_SECONDS",
    "KEYFERRY_PURCHASE_ATTEMPTS",
    "KEYFERRY_WHEN_REFUSED",
    "KEYFERRY_REPORT_GRACE_SECONDS",
)


@dataclass(frozen=True, slots=True)
class Given:
    """The settings that came with the environment."""

    values: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def chosen(self, names: Iterable[str]) -> Mapping[str, str]:
        """Return those of the settings that are given."""
        return {name: self.values[name] for name in names if name in self.values}

    def get(self, name: str) -> str | None:
        """Return a given setting; None when it is the sandbox's to choose."""
        return self.values.get(name)

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Given":
        """Read what is given. A secret may come as the path of a file, in NAME_FILE. Raises GivenIncomplete."""
        values: dict[str, str] = {}
        for address, companions in _COMPANIONS.items():
            value = _value(environment, address)
            if value is None:
                continue
            values[address] = value
            for name in companions:
                companion = _value(environment, name)
                if companion is None:
                    raise GivenIncomplete(f"{address} is set, so {name} has to be set as well")
                values[name] = companion
        for name in (*SUPPLIER_CHOICES, *KEEPING_CHOICES, *SHOP_CHOICES, *LOG_CHOICES):
            value = _value(environment, name)
            if value is not None:
                values[name] = value
        return cls(values)


def _value(environment: Mapping[str, str], name: str) -> str | None:
    path = environment.get(f"{name}_FILE")
    if path:
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise GivenIncomplete(f"{name}_FILE names a file that cannot be read: {error.strerror}") from None
    return environment.get(name) or None
