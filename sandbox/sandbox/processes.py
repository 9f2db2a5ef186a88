"""The table of every program that the sandbox starts: what it is told, what must be there first, when it is ready."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from sandbox.given import KEEPING_CHOICES, SHOP_CHOICES, SUPPLIER_CHOICES
from sandbox.setup import AUDIENCE, BUCKET, CHECKPOINT_BUCKET, CLIENT_ID, LOG_ORIGIN, Setup, replica_names

Settings = Mapping[str, str]

# Real suppliers get minutes. The simulator keeps well within a second unless it is told otherwise.
SHORT_BOUNDS: Settings = {
    "KINGUIN_COMMIT_BOUND": "2",
    "KINGUIN_SEARCH_LAG_BOUND": "2",
    "KINGUIN_TIMEOUT": "5",
    "KEYFERRY_POLL_FIRST_SECONDS": "0.5",
    "KEYFERRY_POLL_MAX_SECONDS": "5",
}
# A real shop waits half an hour; the simulator's stock changes when it is told to.
SHORT_PATIENCE: Settings = {"KEYFERRY_STOCK_PATIENCE_SECONDS": "3"}
# Keys are kept here as long as anywhere: the bucket may be a real one. That their time is over is only seen sooner.
SWEPT_SOON: Settings = {"KEYFERRY_SWEEP_SECONDS": "5"}
# A real log publishes every minute; here somebody waits to see it.
SHORT_PACE: Settings = {"KEYFERRY_CHECKPOINT_SECONDS": "2"}
# Long enough for what is in flight here; Ctrl-C should feel like one.
_DRAIN_SECONDS = "5"


class Ready(Enum):
    """How a program says that it is ready."""

    GRPC_HEALTH = auto()
    """`grpc.health.v1.Health` on its gRPC port, over mutual TLS."""
    PRIVATE_HTTP = auto()
    """`/readyz` on its private port."""
    HTTP = auto()
    """`/readyz` on its own port."""
    CONTROL = auto()
    """`/healthz` on its control port."""


def _no_arguments(_setup: Setup) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Program:
    """One row of the table. A replica's settings are asked for by the replica's name."""

    name: str
    package: str
    needs: tuple[str, ...]
    ready: Ready
    settings: Callable[[Setup, str], Settings]
    arguments: Callable[[Setup], tuple[str, ...]] = _no_arguments
    replaced_by: str = ""
    """The setting whose presence in the environment means that this program is not started."""
    replicated: bool = False
    """Whether there are as many as asked for. The edge is one: pages need one address."""

    def replicas(self, setup: Setup) -> list[str]:
        """Return the names of the processes to start."""
        if self.replaced_by and self.replaced_by in setup.given:
            return []
        return replica_names(self.name, setup.options.replicas if self.replicated else 1)

    def environment(self, setup: Setup, replica: str) -> dict[str, str]:
        """Return everything that one process is told."""
        return {**setup.environment, **self.settings(setup, replica)}


def _service(setup: Setup, replica: str, identity: str) -> dict[str, str]:
    """Return what every service is told."""
    settings = {
        "KEYFERRY_PRIVATE_LISTEN": setup.address(f"{replica}.private"),
        "KEYFERRY_TLS_DIR": str(setup.identities[identity].folder),
        "KEYFERRY_LOG_LEVEL": setup.options.log_level,
        "KEYFERRY_DRAIN_SECONDS": _DRAIN_SECONDS,
    }
    if setup.options.traces:
        settings["KEYFERRY_TRACE_FILE"] = str(setup.layout.trace(replica))
    if setup.options.failpoints:
        settings["KEYFERRY_FAILPOINTS_FILE"] = setup.failpoints(replica)
    return settings


def _grpc_service(setup: Setup, replica: str, identity: str, database: str) -> dict[str, str]:
    return {
        **_service(setup, replica, identity),
        "KEYFERRY_GRPC_LISTEN": setup.address(f"{replica}.grpc"),
        "DATABASE_URL": setup.database(database, "service"),
        "NATS_URL": setup.nats_url,
    }


def _object_store(setup: Setup) -> dict[str, str]:
    return {
        "R2_ENDPOINT": setup.s3_url,
        "R2_ACCESS_KEY_ID": setup.setting("R2_ACCESS_KEY_ID"),
        "R2_SECRET_ACCESS_KEY": setup.setting("R2_SECRET_ACCESS_KEY"),
    }


def _audit(setup: Setup, replica: str) -> Settings:
    return {
        **_grpc_service(setup, replica, "audit", "audit"),
        "KEYFERRY_AUDIT_SECRET": setup.secrets["KEYFERRY_AUDIT_SECRET"],
        "KEYFERRY_CHECKPOINT_SECRET": setup.secrets["KEYFERRY_CHECKPOINT_SECRET"],
        "KEYFERRY_LOG_ORIGIN": LOG_ORIGIN,
        "KEYFERRY_CHECKPOINT_BUCKET": setup.setting("KEYFERRY_CHECKPOINT_BUCKET", CHECKPOINT_BUCKET),
        **_object_store(setup),
        **SHORT_PACE,
    }


def _vault(setup: Setup, replica: str) -> Settings:
    return {
        **_grpc_service(setup, replica, "vault", "vault"),
        "KEY_ENCRYPTION_SECRET": setup.secrets["KEY_ENCRYPTION_SECRET"],
        "KEYFERRY_DIGEST_SECRET": setup.secrets["KEYFERRY_DIGEST_SECRET"],
        **_object_store(setup),
        "R2_BUCKET": setup.setting("R2_BUCKET", BUCKET),
        "KEYFERRY_AUDIT_ADDRESS": setup.grpc_addresses("audit"),
        "PUBLIC_URL": setup.public_url,
        **SWEPT_SOON,
        **setup.given.chosen(KEEPING_CHOICES),
    }


def _kinguin_gateway(setup: Setup, replica: str) -> Settings:
    # With a real supplier its real bounds hold: short ones could buy twice.
    bounds: Settings = {} if "KINGUIN_BASE" in setup.given else SHORT_BOUNDS
    return {
        **_grpc_service(setup, replica, "kinguin-gateway", "kinguin"),
        "KINGUIN_BASE": setup.kinguin_url,
        "KINGUIN_API_KEY": setup.setting("KINGUIN_API_KEY"),
        "KEYFERRY_VAULT_ADDRESS": setup.grpc_addresses("vault"),
        **bounds,
        **setup.given.chosen(SUPPLIER_CHOICES),
    }


def _fulfillment(setup: Setup, replica: str) -> Settings:
    patience: Settings = {} if "KINGUIN_BASE" in setup.given else SHORT_PATIENCE
    return {
        **_grpc_service(setup, replica, "fulfillment", "fulfillment"),
        "KEYFERRY_KINGUIN_ADDRESS": setup.grpc_addresses("kinguin-gateway"),
        "KEYFERRY_VAULT_ADDRESS": setup.grpc_addresses("vault"),
        "SMTP_URL": setup.smtp_url,
        "KEYFERRY_MAIL_FROM": "Keyferry <keys@example.com>",
        "PUBLIC_URL": setup.public_url,
        **patience,
        **setup.given.chosen(SHOP_CHOICES),
    }


def _edge(setup: Setup, replica: str) -> Settings:
    return {
        **_service(setup, replica, "edge"),
        "PUBLIC_URL": setup.public_url,
        "KEYFERRY_HTTP_LISTEN": setup.address("edge"),
        "KEYFERRY_FULFILLMENT_ADDRESS": setup.grpc_addresses("fulfillment"),
        "KEYFERRY_AUDIT_ADDRESS": setup.grpc_addresses("audit"),
        "NATS_URL": setup.nats_url,
        "KEYFERRY_OBJECT_ORIGIN": setup.s3_origin,
        "KINGUIN_WEBHOOK_SECRET": setup.setting("KINGUIN_WEBHOOK_SECRET"),
        "OIDC_ISSUER": setup.issuer_url,
        "OIDC_CLIENT_ID": setup.setting("OIDC_CLIENT_ID", CLIENT_ID),
        "OIDC_CLIENT_SECRET": setup.setting("OIDC_CLIENT_SECRET"),
        "OIDC_AUDIENCE": setup.setting("OIDC_AUDIENCE", AUDIENCE),
        "KEYFERRY_SESSION_SECRET": setup.secrets["KEYFERRY_SESSION_SECRET"],
    }


def _issuer(setup: Setup, _replica: str) -> Settings:
    return {
        "ISSUER_LISTEN": setup.address("issuer"),
        "ISSUER_URL": setup.issuer_url,
        "ISSUER_KEY_FILE": str(setup.layout.signing_key),
        "ISSUER_REDIRECT_URIS": f"{setup.public_url}/callback",
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": setup.secrets["OIDC_CLIENT_SECRET"],
        "OIDC_AUDIENCE": AUDIENCE,
    }


def _mailbox(setup: Setup, _replica: str) -> Settings:
    return {
        "MAILBOX_SMTP_LISTEN": setup.address("mailbox.smtp"),
        "MAILBOX_HTTP_LISTEN": setup.address("mailbox"),
        "MAILBOX_FOLDER": str(setup.layout.mail),
    }


def _kinguin(setup: Setup, _replica: str) -> Settings:
    return {
        "KINGUIN_API_KEY": setup.secrets["KINGUIN_API_KEY"],
        "KINGUIN_WEBHOOK_SECRET": setup.secrets["KINGUIN_WEBHOOK_SECRET"],
    }


def _kinguin_arguments(setup: Setup) -> tuple[str, ...]:
    options = {
        "--listen": setup.address("kinguin"),
        "--control": setup.address("kinguin.control"),
        "--data": str(setup.layout.data("kinguin")),
        "--webhook-url": f"http://{setup.address('edge')}/webhooks/kinguin",
    }
    return tuple(part for option in options.items() for part in option)


_GRPC = Ready.GRPC_HEALTH

# fmt: off
PROGRAMS = (
    # name, package, what must be there first, how it says that it is ready, what it is told
    Program("issuer",          "sandbox.issuer",  (),               Ready.HTTP, _issuer,  replaced_by="OIDC_ISSUER"),
    Program("mailbox",         "sandbox.mailbox", (),               Ready.HTTP, _mailbox, replaced_by="SMTP_URL"),
    Program("kinguin",         "sandbox.kinguin", (),               Ready.CONTROL, _kinguin, _kinguin_arguments,
            replaced_by="KINGUIN_BASE"),
    Program("audit",           "audit",           ("schema",),      _GRPC, _audit,           replicated=True),
    Program("vault",           "vault",           ("schema", "s3"), _GRPC, _vault,           replicated=True),
    Program("kinguin-gateway", "kinguin_gateway", ("schema",),      _GRPC, _kinguin_gateway, replicated=True),
    Program("fulfillment",     "fulfillment",     ("schema",),      _GRPC, _fulfillment,     replicated=True),
    Program("edge",            "gateway",         ("nats",),        Ready.PRIVATE_HTTP, _edge),
)
# fmt: on
