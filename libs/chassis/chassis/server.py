"""The gRPC server of a service: mutual TLS, one interceptor, health, reflection, and a drain at the end."""

from collections.abc import Sequence
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.identity import AccessList
from chassis.interceptors import ServerInterceptor
from chassis.tls import TlsFiles

# Above this the server answers RESOURCE_EXHAUSTED at once, which is better than answering everybody late.
MAXIMUM_CONCURRENT_CALLS = 512


class Registrar(Protocol):
    """Registers one servicer, as the generated `add_…Servicer_to_server` does once its servicer is bound."""

    def __call__(self, server: grpc.aio.Server, /) -> None:
        """Register it."""
        ...


class GrpcServer:
    """Serves the given services on one address. Not serving until `start`, and refusing new calls from `drain` on."""

    def __init__(
        self,
        *,
        listen: str,
        tls: TlsFiles,
        access: AccessList,
        services: Sequence[str],
        registrars: Sequence[Registrar],
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=[ServerInterceptor(access)],
            maximum_concurrent_rpcs=MAXIMUM_CONCURRENT_CALLS,
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        self._names = (*services, "")
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        for register in registrars:
            register(self._server)
        self.port = self._server.add_secure_port(listen, tls.server_credentials())

    async def start(self) -> None:
        """Listen. Health stays NOT_SERVING until `set_serving`."""
        await self.set_serving(serving=False)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether to send calls here."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, state)

    async def drain(self, seconds: float) -> None:
        """Take no new call, let those in flight finish for at most this long, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace=seconds)
