"""The one place through which every served call goes: identity, access, deadline, trace, errors, log line, metric."""

from __future__ import annotations  # grpcio's classes are generic in the stubs only

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
import structlog
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from chassis import deadline, metrics
from chassis.errors import DeadlineTooShort, KeyferryError, ServiceUnavailable, error_to_status
from chassis.failpoints import FailpointError
from chassis.identity import AccessList, caller_identity, check_access
from chassis.tracing import extract_trace, span

logger = structlog.get_logger(__name__)

# For callers that set no deadline of their own. A stream is ended so that clients spread over replicas again.
DEFAULT_UNARY_SECONDS = 30.0
DEFAULT_STREAM_SECONDS = 600.0

Context = grpc.aio.ServicerContext[Any, Any]
UnaryBehaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncIterator[Any]]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server. An unknown exception reaches the caller as INTERNAL, without its text."""

    def __init__(self, access: AccessList) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler with everything of this module around it."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None:
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._wrap_unary(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._wrap_stream(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        # Only server reflection streams requests; it is open to every identity and holds nothing of ours.
        return handler

    def _wrap_unary(self, method: str, behaviour: Any) -> UnaryBehaviour:
        async def call(request: Any, context: Context) -> Any:
            async with self._served(method, request, context, DEFAULT_UNARY_SECONDS):
                return await behaviour(request, context)

        return call

    def _wrap_stream(self, method: str, behaviour: Any) -> StreamBehaviour:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._served(method, request, context, DEFAULT_STREAM_SECONDS):
                async for response in behaviour(request, context):
                    yield response

        return call

    @asynccontextmanager
    async def _served(self, method: str, request: Any, context: Context, default_seconds: float) -> AsyncIterator[None]:
        began = time.perf_counter()
        name = method.rpartition("/")[2]
        code, reason = grpc.StatusCode.OK, None
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        structlog.contextvars.bind_contextvars(method=name)
        with span(method.lstrip("/"), kind=SpanKind.SERVER, parent=extract_trace(metadata)):
            try:
                self._admit(method, request, context)
                async with deadline.bounded(_budget(context, default_seconds)):
                    yield
            except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:  # noqa: BLE001 # the last place that can give it a log line and a clean answer
                answer = _answer(error)
                code, reason = answer.code, answer.reason
                await _abort(context, answer, error)
            finally:
                took = time.perf_counter() - began
                metrics.RPC_SECONDS.labels(name, code.name).observe(took)
                logger.info("call served", code=code.name, reason=reason, milliseconds=round(took * 1000, 2))

    def _admit(self, method: str, request: Any, context: Context) -> None:
        identity = caller_identity(context)
        structlog.contextvars.bind_contextvars(caller=identity)
        request_id = getattr(request, "request_id", "")
        if request_id:
            structlog.contextvars.bind_contextvars(request_id=request_id)
        check_access(self._access, identity, method)


def _budget(context: Context, default_seconds: float) -> float:
    left: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
    seconds = (left if left is not None else default_seconds) - deadline.RETURN_OVERHEAD
    if seconds < deadline.LEAST_USEFUL:
        raise DeadlineTooShort("too little time is left; call again with a longer deadline")
    return seconds


def _answer(error: Exception) -> KeyferryError:
    if isinstance(error, KeyferryError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineTooShort("the deadline passed before the work was done")
    if isinstance(error, FailpointError):
        return ServiceUnavailable("a fault was injected here")
    logger.error("call failed unexpectedly", exc_info=error)
    return KeyferryError("internal error; it was logged under this request's trace id")


async def _abort(context: Context, answer: KeyferryError, cause: Exception) -> NoReturn:
    try:
        await context.abort_with_status(rpc_status.to_status(error_to_status(answer)))
        # missing in the stubs, present since grpcio 1.85
    except grpc.aio.AbortError as aborted:
        raise aborted from cause
    raise AssertionError("abort always raises")
