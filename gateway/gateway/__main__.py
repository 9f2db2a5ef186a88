"""Composition root of the edge: settings, adapters, application, server."""

import httpx
from chassis.channel import open_channel
from chassis.clock import SystemClock
from chassis.process import Process, run_process
from chassis.settings import load_or_exit
from chassis.tls import TlsFiles
from httpx_aiohttp import HttpxAiohttpClient

from gateway.adapters.audit_grpc import GrpcCheckpoints
from gateway.adapters.fulfillment_grpc import GrpcFulfillments
from gateway.adapters.nats import NatsFacts, NatsWebhooks
from gateway.app import create_app
from gateway.assets import Assets
from gateway.auth.issuer import Issuer
from gateway.auth.login import Client, Login
from gateway.auth.session import Sessions
from gateway.auth.tokens import TokenVerifier
from gateway.config import Settings
from gateway.edge import Edge, Streams
from gateway.limits import Limiter
from gateway.pages import Pages
from gateway.server import HttpServer
from gateway.telling import Teller


def _login(settings: Settings, http: httpx.AsyncClient, clock: SystemClock) -> tuple[Login, TokenVerifier]:
    issuer = Issuer(http, issuer=settings.oidc_issuer, clock=clock)
    verifier = TokenVerifier(issuer, issuer=settings.oidc_issuer)
    client = Client(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret.get_secret_value(),
        redirect_uri=f"{settings.public_url}/callback",
    )
    keyring = settings.keyferry_session_secret
    return Login(http=http, issuer=issuer, verifier=verifier, client=client, keyring=keyring, clock=clock), verifier


async def assemble(process: Process, settings: Settings) -> HttpServer:
    """Open what the edge needs and return its server."""
    clock, assets, streams = SystemClock(), Assets(), Streams()
    http = await process.enter(HttpxAiohttpClient(follow_redirects=False, trust_env=False))
    tls = TlsFiles(settings.keyferry_tls_dir)
    channel = await process.enter(open_channel(settings.keyferry_fulfillment_address, peer="fulfillment", tls=tls))
    audit = await process.enter(open_channel(settings.keyferry_audit_address, peer="audit", tls=tls))
    webhooks = NatsWebhooks(settings.nats_url.get_secret_value(), clock)
    process.spawn("nats", webhooks.keep_connected)
    teller = Teller(NatsFacts(webhooks), clock)
    process.spawn("facts", teller.run)
    teller.settings_read(settings.digest())
    login, verifier = _login(settings, http, clock)
    edge = Edge(
        origin=settings.public_url,
        object_origin=settings.keyferry_object_origin,
        audience=settings.oidc_audience,
        clock=clock,
        fulfillments=GrpcFulfillments(channel),
        checkpoints=GrpcCheckpoints(audit, clock),
        webhooks=webhooks,
        webhook_proofs=settings.webhook_proofs(),
        verifier=verifier,
        sessions=Sessions(
            settings.keyferry_session_secret, lifetime_seconds=settings.keyferry_session_seconds, clock=clock
        ),
        login=login,
        teller=teller,
        limiter=Limiter(settings.limits()),
        pages=Pages(assets),
        assets=assets,
        streams=streams,
        stream_seconds=settings.keyferry_stream_seconds,
        country_header=settings.keyferry_country_header,
    )
    return HttpServer(
        create_app(edge),
        listen=settings.keyferry_http_listen,
        streams=streams,
        trusted_proxies=settings.keyferry_trusted_proxies,
        drain_seconds=settings.keyferry_drain_seconds,
    )


if __name__ == "__main__":
    run_process("edge", load_or_exit(Settings), assemble)
