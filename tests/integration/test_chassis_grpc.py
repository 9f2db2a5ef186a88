import asyncio
import datetime as dt
import ipaddress
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from chassis.channel import open_channel
from chassis.deadline import bounded, remaining
from chassis.errors import (
    FieldViolation,
    InvalidRequest,
    KeyferryError,
    RemoteError,
    ServiceUnavailable,
)
from chassis.failpoints import FailpointError
from chassis.identity import caller_identity
from chassis.server import GrpcServer
from chassis.tls import TlsFiles
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from keyferry.fulfillment.v1 import fulfillment_pb2
from keyferry.fulfillment.v1 import fulfillment_service_pb2 as pb
from keyferry.fulfillment.v1 import fulfillment_service_pb2_grpc as rpc
from sandbox.pki import Identity, ensure_pki

if TYPE_CHECKING:
    from keyferry.fulfillment.v1.fulfillment_service_pb2_grpc import FulfillmentServiceAsyncStub

SERVICE = "keyferry.fulfillment.v1.FulfillmentService"
ACCESS = {
    "GetFulfillment": frozenset({"edge", "shop"}),
    "WatchFulfillment": frozenset({"edge"}),
    "ConfirmPayment": frozenset[str](),
}

Context = Any
Behaviour = Callable[[Context], Awaitable[str]]


class Servicer(rpc.FulfillmentServiceServicer):
    """Does for each request what the test has put down under the request's order id."""

    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.visits = 0

    async def GetFulfillment(  # noqa: N802 # the name in the contract
        self, request: pb.GetFulfillmentRequest, context: Context
    ) -> pb.GetFulfillmentResponse:
        self.visits += 1
        answer = await self.behaviours[request.order_id](context)
        return pb.GetFulfillmentResponse(fulfillment=fulfillment_pb2.Fulfillment(order_id=answer))

    async def WatchFulfillment(  # noqa: N802 # the name in the contract
        self, request: pb.WatchFulfillmentRequest, context: Context
    ) -> AsyncIterator[pb.WatchFulfillmentResponse]:
        for number in range(3):
            yield pb.WatchFulfillmentResponse(fulfillment=fulfillment_pb2.Fulfillment(order_id=str(number)))
        await self.behaviours[request.order_id](context)


@dataclass
class Serving:
    """One server, its servicer and its port."""

    server: GrpcServer
    servicer: Servicer

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@asynccontextmanager
async def serve(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[Serving]:
    servicer = Servicer()  # type: ignore[abstract] # what is not called need not be there
    server = GrpcServer(
        listen=listen,
        tls=TlsFiles(folder),
        access=ACCESS,
        services=[SERVICE],
        registrars=[partial(rpc.add_FulfillmentServiceServicer_to_server, servicer)],
    )
    await server.start()
    await server.set_serving(serving=True)
    try:
        yield Serving(server, servicer)
    finally:
        await server.drain(0.1)


@pytest.fixture
async def serving(pki: Mapping[str, Identity]) -> AsyncIterator[Serving]:
    async with serve(pki["fulfillment"].folder) as serving:
        yield serving


class Client:
    """Calls as one identity."""

    def __init__(self, stub: "FulfillmentServiceAsyncStub") -> None:
        self._stub = stub

    async def get(self, order_id: str, **options: Any) -> str:
        response = await self._stub.GetFulfillment(pb.GetFulfillmentRequest(order_id=order_id), **options)
        return response.fulfillment.order_id

    async def watch(self, order_id: str, seen: list[str]) -> None:
        async for response in self._stub.WatchFulfillment(pb.WatchFulfillmentRequest(order_id=order_id)):
            seen.append(response.fulfillment.order_id)  # noqa: PERF401 # what came before an error counts

    async def confirm(self) -> None:
        await self._stub.ConfirmPayment(pb.ConfirmPaymentRequest())

    async def refused(self, order_id: str, **options: Any) -> RemoteError:
        with pytest.raises(RemoteError) as raised:
            await self.get(order_id, **options)
        return raised.value


@asynccontextmanager
async def client_as(folder: Path, addresses: Sequence[str], peer: str = "fulfillment") -> AsyncIterator[Client]:
    async with open_channel(addresses, peer=peer, tls=TlsFiles(folder)) as channel:
        yield Client(rpc.FulfillmentServiceStub(channel))


@pytest.fixture
async def edge(serving: Serving, pki: Mapping[str, Identity]) -> AsyncIterator[Client]:
    async with client_as(pki["edge"].folder, [serving.address]) as client:
        yield client


def raising(error: Exception) -> Behaviour:
    async def behave(_context: Context) -> str:
        raise error

    return behave


async def hang(_context: Context) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def test_the_caller_is_who_its_certificate_says(serving: Serving, pki: Mapping[str, Identity]) -> None:
    async def who(context: Context) -> str:
        return caller_identity(context)

    serving.servicer.behaviours["who"] = who
    for name in ("edge", "shop"):
        async with client_as(pki[name].folder, [serving.address]) as client:
            assert await client.get("who") == name


async def test_who_is_not_listed_is_refused_before_anything_is_done(
    serving: Serving, pki: Mapping[str, Identity], edge: Client
) -> None:
    async with client_as(pki["audit"].folder, [serving.address]) as client:
        error = await client.refused("anything")
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")
    assert error.metadata == {"identity": "audit", "method": "GetFulfillment"}
    with pytest.raises(RemoteError, match="may not call ConfirmPayment"):
        await edge.confirm()
    assert serving.servicer.visits == 0


async def test_a_stream_is_guarded_too(serving: Serving, pki: Mapping[str, Identity]) -> None:
    async with client_as(pki["shop"].folder, [serving.address]) as client:
        with pytest.raises(RemoteError) as raised:
            await client.watch("anything", [])
    assert raised.value.reason == "METHOD_NOT_ALLOWED"


def certificate_with(folder: Path, authority: Path, names: Sequence[str]) -> Path:
    """Make an identity of our own authority that carries these URIs."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    authority_certificate = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")]))
        .issuer_name(authority_certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    folder.mkdir()
    shutil.copy(authority / "ca.crt", folder / "ca.crt")
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.mark.parametrize(
    "names",
    [[], ["spiffe://elsewhere/edge"], ["spiffe://keyferry/edge", "spiffe://keyferry/vault"], ["https://keyferry/edge"]],
)
async def test_a_certificate_of_ours_without_one_name_of_ours_is_nobody(
    serving: Serving, pki: Mapping[str, Identity], tmp_path: Path, names: list[str]
) -> None:
    folder = certificate_with(tmp_path / "odd", pki["edge"].folder.parent, names)
    async with client_as(folder, [serving.address]) as client:
        error = await client.refused("anything")
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_UNKNOWN")


async def test_a_certificate_of_another_authority_does_not_get_in(
    serving: Serving, pki: Mapping[str, Identity], tmp_path: Path
) -> None:
    stranger = ensure_pki(tmp_path / "other")["edge"].folder
    shutil.copy(pki["edge"].authority, stranger / "ca.crt")
    async with client_as(stranger, [serving.address]) as client:
        assert (await client.refused("anything", timeout=2)).code in {
            grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
        }  # fmt: skip
    assert serving.servicer.visits == 0


async def test_without_a_certificate_nobody_gets_in(serving: Serving, pki: Mapping[str, Identity]) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=pki["edge"].authority.read_bytes())
    options = (("grpc.ssl_target_name_override", "fulfillment"),)
    async with grpc.aio.secure_channel(serving.address, credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await rpc.FulfillmentServiceStub(channel).GetFulfillment(pb.GetFulfillmentRequest(), timeout=2)
    assert serving.servicer.visits == 0


async def test_a_server_that_is_somebody_else_is_not_talked_to(serving: Serving, pki: Mapping[str, Identity]) -> None:
    async with client_as(pki["edge"].folder, [serving.address], peer="vault") as client:
        error = await client.refused("anything", timeout=2)
    assert error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert serving.servicer.visits == 0


class OutOfStock(KeyferryError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "OUT_OF_STOCK"


async def test_an_error_arrives_with_its_reason_and_details(serving: Serving, edge: Client) -> None:
    violations = [FieldViolation("order_id", "is required"), FieldViolation("items[0]", "ä must be ü")]
    serving.servicer.behaviours["bad"] = raising(InvalidRequest.of_all(violations))
    wait = dt.timedelta(seconds=90)
    serving.servicer.behaviours["wait"] = raising(OutOfStock("none left", metadata={"left": "0"}, retry_after=wait))
    bad, waiting = await edge.refused("bad"), await edge.refused("wait")
    assert (bad.code, bad.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(bad.field_violations) == violations
    assert (waiting.code, waiting.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OUT_OF_STOCK")
    assert (waiting.message, waiting.metadata, waiting.retry_after) == ("none left", {"left": "0"}, wait)


async def test_an_error_passes_through_a_service_in_the_middle_unchanged(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["far"] = raising(OutOfStock("none left", metadata={"left": "0"}))

    async def ask_far(_context: Context) -> str:
        return await edge.get("far")

    serving.servicer.behaviours["near"] = ask_far
    error = await edge.refused("near")
    assert (error.code, error.reason, error.metadata) == (OutOfStock.code, "OUT_OF_STOCK", {"left": "0"})


async def test_an_unknown_exception_tells_its_caller_nothing(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["boom"] = raising(ValueError("AAAAA-BBBBB-CCCCC"))
    error = await edge.refused("boom")
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "AAAAA" not in error.message


async def test_a_stream_ends_with_its_error_after_what_it_gave(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["bad"] = raising(OutOfStock("none left"))
    seen: list[str] = []
    with pytest.raises(RemoteError) as raised:
        await edge.watch("bad", seen)
    assert raised.value.reason == "OUT_OF_STOCK"
    assert seen == ["0", "1", "2"]


async def test_the_server_names_a_passed_deadline_before_the_caller_gives_up(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["slow"] = hang
    began = time.monotonic()
    error = await edge.refused("slow", timeout=0.5)
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert error.message == "the deadline passed before the work was done"
    assert 0.4 < time.monotonic() - began < 1.5


async def test_too_little_time_is_refused_at_once(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["slow"] = hang
    await edge.refused("slow", timeout=0.5)
    visits = serving.servicer.visits
    error = await edge.refused("slow", timeout=0.04)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert serving.servicer.visits == visits


async def test_a_call_on_the_way_takes_what_is_left_of_the_deadline(serving: Serving, edge: Client) -> None:
    left: list[float] = []

    async def far(_context: Context) -> str:
        left.append(remaining(100))
        return ""

    async def near(_context: Context) -> str:
        left.append(remaining(100))
        await asyncio.sleep(0.3)
        return await edge.get("far")

    serving.servicer.behaviours.update(far=far, near=near)
    await edge.get("near", timeout=0.9)
    # gRPC sends a deadline up to 3% longer than it is, to save bytes.
    assert left[1] < left[0] - 0.25
    assert left[0] < 0.93
    async with bounded(0.3):
        began = time.monotonic()
        serving.servicer.behaviours["slow"] = hang
        await edge.refused("slow")
        assert time.monotonic() - began < 1


async def test_only_unavailable_is_tried_again(serving: Serving, edge: Client) -> None:
    answers: list[Exception | str] = [ServiceUnavailable("away"), FailpointError("x"), "there"]

    async def flaky(_context: Context) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    serving.servicer.behaviours["flaky"] = flaky
    assert await edge.get("flaky") == "there"
    assert serving.servicer.visits == 3
    serving.servicer.behaviours["away"] = raising(ServiceUnavailable("away"))
    assert (await edge.refused("away")).reason == "SERVICE_UNAVAILABLE"
    assert serving.servicer.visits == 3 + 4
    serving.servicer.behaviours["boom"] = raising(ValueError())
    await edge.refused("boom")
    assert serving.servicer.visits == 3 + 4 + 1


async def test_a_caller_that_goes_away_ends_the_work(serving: Serving, edge: Client) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work(_context: Context) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    serving.servicer.behaviours["work"] = work
    call = asyncio.create_task(edge.get("work"))
    await began.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_calls_spread_over_replicas_and_survive_one(pki: Mapping[str, Identity]) -> None:
    async def answer(_context: Context) -> str:
        return "there"

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve(pki["fulfillment"].folder))
        two = await stack.enter_async_context(serve(pki["fulfillment"].folder))
        client = await stack.enter_async_context(client_as(pki["edge"].folder, [one.address, two.address]))
        for replica in (one, two):
            replica.servicer.behaviours["a"] = answer
        for _ in range(40):
            await client.get("a", wait_for_ready=True)
            await asyncio.sleep(0.005)
        assert min(one.servicer.visits, two.servicer.visits) > 5
        await one.server.drain(0.1)
        for _ in range(10):
            assert await client.get("a") == "there"


async def test_a_server_that_was_started_again_is_found_within_seconds(pki: Mapping[str, Identity]) -> None:
    async def answer(_context: Context) -> str:
        return "there"

    async with serve(pki["fulfillment"].folder) as first:
        first.servicer.behaviours["a"] = answer
        address = first.address
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(client_as(pki["edge"].folder, [address]))
            assert await client.get("a") == "there"
            await first.server.drain(0.1)
            assert (await client.refused("a")).code is grpc.StatusCode.UNAVAILABLE
            second = await stack.enter_async_context(serve(pki["fulfillment"].folder, address))
            second.servicer.behaviours["a"] = answer
            assert await client.get("a", wait_for_ready=True, timeout=5) == "there"


async def test_a_rotated_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    async def answer(_context: Context) -> str:
        return "there"

    old, new = ensure_pki(tmp_path / "old"), ensure_pki(tmp_path / "new")
    folder = tmp_path / "served"
    shutil.copytree(old["fulfillment"].folder, folder)
    async with serve(folder) as serving:
        serving.servicer.behaviours["a"] = answer
        async with client_as(old["edge"].folder, [serving.address]) as client:
            assert await client.get("a") == "there"
        await asyncio.sleep(0.02)
        for name in ("ca.crt", "tls.key", "tls.crt"):
            (folder / name).write_bytes((new["fulfillment"].folder / name).read_bytes())
        async with client_as(new["edge"].folder, [serving.address]) as client:
            assert await client.get("a") == "there"


@asynccontextmanager
async def health_of(serving: Serving, folder: Path) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    async with open_channel([serving.address], peer="fulfillment", tls=TlsFiles(folder)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def ask() -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
            return int(answer.status)

        yield ask


async def test_health_follows_readiness_for_every_identity(serving: Serving, pki: Mapping[str, Identity]) -> None:
    status = health_pb2.HealthCheckResponse
    async with health_of(serving, pki["audit"].folder) as ask:
        assert await ask() == status.SERVING
        await serving.server.set_serving(serving=False)
        assert await ask() == status.NOT_SERVING


async def test_reflection_tells_what_is_served(serving: Serving, pki: Mapping[str, Identity]) -> None:
    async with open_channel([serving.address], peer="fulfillment", tls=TlsFiles(pki["shop"].folder)) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type] # typed for sync only
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answers = [answer async for answer in call]
    names = {service.name for service in answers[0].list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_new(
    serving: Serving, pki: Mapping[str, Identity], edge: Client
) -> None:
    began, go = asyncio.Event(), asyncio.Event()

    async def work(_context: Context) -> str:
        began.set()
        await go.wait()
        return "finished"

    serving.servicer.behaviours["work"] = work
    call = asyncio.create_task(edge.get("work"))
    await began.wait()
    drain = asyncio.create_task(serving.server.drain(5))
    await asyncio.sleep(0.1)
    async with client_as(pki["edge"].folder, [serving.address]) as late:
        assert (await late.refused("work", timeout=2)).code in {
            grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
        }  # fmt: skip
    assert not drain.done()
    go.set()
    assert await call == "finished"
    await drain


async def test_a_drain_does_not_wait_for_ever(serving: Serving, edge: Client) -> None:
    serving.servicer.behaviours["slow"] = hang
    call = asyncio.create_task(edge.refused("slow"))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await serving.server.drain(0.3)
    assert time.monotonic() - began < 3
    assert (await call).code in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
