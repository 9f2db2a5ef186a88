from datetime import timedelta

import grpc
import pytest
from chassis.errors import (
    DeadlineTooShort,
    FieldViolation,
    IdentityUnknown,
    InvalidRequest,
    KeyferryError,
    MethodNotAllowed,
    RequestIdReused,
    ServiceUnavailable,
    error_from_call,
    error_from_status,
    error_to_status,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

CLASSES = (
    KeyferryError, InvalidRequest, RequestIdReused, IdentityUnknown, MethodNotAllowed, DeadlineTooShort,
    ServiceUnavailable,
)  # fmt: skip


@pytest.mark.parametrize("error_class", CLASSES)
def test_an_error_crosses_the_wire_with_everything_it_says(error_class: type[KeyferryError]) -> None:
    error = error_class(
        "a sentence",
        metadata={"order": "o-1"},
        retry_after=timedelta(seconds=1.5),
        field_violations=[FieldViolation("a.b", "must be"), FieldViolation("c", "is required")],
    )
    remote = error_from_status(status_pb2.Status.FromString(error_to_status(error).SerializeToString()))
    assert (remote.code, remote.reason, remote.message) == (error_class.code, error_class.reason, "a sentence")
    assert (remote.metadata, remote.retry_after) == ({"order": "o-1"}, timedelta(seconds=1.5))
    assert remote.field_violations == error.field_violations
    # A service in the middle passes it on as it came.
    assert error_to_status(remote) == error_to_status(error)


def test_there_is_exactly_one_error_info_and_details_only_where_known() -> None:
    status = error_to_status(ServiceUnavailable("away"))
    (detail,) = status.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert (info.domain, info.reason) == ("keyferry", "SERVICE_UNAVAILABLE")


def test_faults_are_listed_in_the_message_too() -> None:
    error = InvalidRequest.of_all([FieldViolation("a", "is required"), FieldViolation("b", "must be short")])
    assert str(error) == "a: is required; b: must be short"
    assert InvalidRequest.of("a", "is required").field_violations == (FieldViolation("a", "is required"),)


def test_a_status_of_somebody_else_keeps_its_code_only() -> None:
    foreign = AnyMessage()
    foreign.Pack(error_details_pb2.ErrorInfo(domain="elsewhere.example", reason="ODD"))
    remote = error_from_status(status_pb2.Status(code=5, message="not here", details=[foreign]))
    assert (remote.code, remote.reason, remote.metadata) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {})
    assert error_from_status(status_pb2.Status(code=99)).code is grpc.StatusCode.UNKNOWN


def call_error(code: grpc.StatusCode, trailers: grpc.aio.Metadata) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details="details")


def test_a_call_that_failed_before_reaching_anybody_is_unavailable() -> None:
    error = error_from_call(call_error(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("trailer", [b"\xff\xff", b""])
def test_details_that_cannot_be_read_do_not_hide_the_code(trailer: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", trailer)) if trailer else grpc.aio.Metadata()
    error = error_from_call(call_error(grpc.StatusCode.NOT_FOUND, metadata))
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "details")
