"""Channels to other services: mutual TLS, several replicas, a deadline on every call, errors as `RemoteError`."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.trace import SpanKind

from chassis.deadline import remaining
from chassis.errors import error_from_call
from chassis.tls import TlsFiles
from chassis.tracing import inject_trace, span

# Only UNAVAILABLE (AIP-194), and only because every mutation carries a request id or a natural id.
SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)

DEFAULT_CALL_SECONDS = 10.0
DEFAULT_STREAM_SECONDS = 600.0

_OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    # A restarted server is found within seconds instead of the default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)


@asynccontextmanager
async def open_channel(addresses: Sequence[str], *, peer: str, tls: TlsFiles) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to the replicas of one service.

    The server must prove to be `peer` (the DNS name in its certificate), whatever address it was found at.
    """
    scheme = "ipv4:" if len(addresses) > 1 else "dns:///"
    channel = grpc.aio.secure_channel(
        scheme + ",".join(addresses),
        tls.channel_credentials(),
        options=[*_OPTIONS, ("grpc.ssl_target_name_override", peer)],
        interceptors=[_UnaryInterceptor(), _StreamInterceptor()],
    )
    try:
        yield channel
    finally:
        await channel.close(grace=1.0)


def _prepare(details: grpc.aio.ClientCallDetails, seconds: float) -> grpc.aio.ClientCallDetails:
    carrier: dict[str, str] = {}
    inject_trace(carrier)
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *carrier.items())
    timeout = remaining(seconds if details.timeout is None else details.timeout)
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


def _method_name(details: grpc.aio.ClientCallDetails) -> str:
    method: str | bytes = details.method  # bytes in practice, whatever the stubs say
    return (method if isinstance(method, str) else method.decode()).lstrip("/")


class _UnaryInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds deadline and trace to a call and reads its error."""

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        with span(_method_name(client_call_details), kind=SpanKind.CLIENT):
            call = await continuation(_prepare(client_call_details, DEFAULT_CALL_SECONDS), request)
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                raise error_from_call(error) from None


class _StreamInterceptor(grpc.aio.UnaryStreamClientInterceptor):
    """The same for a call that is answered with a stream."""

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        call = await continuation(_prepare(client_call_details, DEFAULT_STREAM_SECONDS), request)
        return _read_stream(call)


async def _read_stream(call: Any) -> AsyncIterator[Any]:
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise error_from_call(error) from None
    finally:
        call.cancel()
