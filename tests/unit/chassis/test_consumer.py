import grpc
import pytest
from chassis.consumer import is_of_the_surroundings, reason_of
from chassis.errors import InvalidRequest, RemoteError, ServiceUnavailable
from chassis.events import MalformedEvent
from chassis.failpoints import FailpointError
from google.protobuf.message import DecodeError
from nats.errors import NoRespondersError


def remote(code: grpc.StatusCode) -> RemoteError:
    return RemoteError("told by another service", code=code, reason="X")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ServiceUnavailable("away"), True),
        (remote(grpc.StatusCode.UNAVAILABLE), True),
        (remote(grpc.StatusCode.DEADLINE_EXCEEDED), True),
        (remote(grpc.StatusCode.ABORTED), True),
        (TimeoutError(), True),
        (OSError(), True),
        (NoRespondersError(), True),
        (FailpointError(), True),
        (remote(grpc.StatusCode.NOT_FOUND), False),
        (InvalidRequest.of("a", "b"), False),
        (MalformedEvent("a"), False),
        (DecodeError(), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_what_passes_by_itself_never_counts_against_an_event(error: Exception, *, passes: bool) -> None:
    assert is_of_the_surroundings(error) is passes


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidRequest.of("total", "must be there"), "INVALID_REQUEST: total: must be there"),
        (MalformedEvent("header ce-id is missing"), "header ce-id is missing"),
        (DecodeError(), "DecodeError"),
        (ValueError("AAAAA-BBBBB-CCCCC"), "ValueError"),
    ],
)
def test_a_reason_says_what_may_be_said(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
