"""What everybody may know of the audit log: that it is one log, which only grows."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from gateway.auth.gate import address_of, count
from gateway.edge import edge_of
from gateway.schema import problems

router = APIRouter(tags=["audit"])

CHECKPOINT = "/v1/audit/checkpoint"
# Short: who compares a log with it wants the present one.
_CACHED = "public, max-age=10"


@router.get(
    CHECKPOINT,
    summary="Read the audit log's checkpoint",
    response_class=PlainTextResponse,
    response_description="The checkpoint, a signed note (C2SP tlog-checkpoint, Ed25519): origin, size, root hash.",
    responses=problems(429, 504),
)
async def read_checkpoint(request: Request) -> PlainTextResponse:
    """Return the signed size and root hash of the audit log. Whoever keeps it can prove later that nothing was changed.

    Needs no login: it says nothing of anybody.
    """
    await count(request, "address", address_of(request))
    return PlainTextResponse(await edge_of(request).checkpoints.newest(), headers={"cache-control": _CACHED})
