"""The page's own files."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.edge import edge_of
from gateway.errors import RouteUnknown

router = APIRouter(include_in_schema=False)


@router.api_route("/static/{digest}/{name}", methods=["GET", "HEAD"])
async def read_asset(request: Request, digest: str, name: str) -> Response:
    """Return a file, to be kept for ever under its digest. Under another build's digest it is not kept."""
    assets = edge_of(request).assets
    asset = assets.find(name)
    if asset is None:
        raise RouteUnknown("there is no such file")
    kept = "public, max-age=31536000, immutable" if digest == assets.digest else "no-store"
    return Response(asset.content, media_type=asset.media_type, headers={"cache-control": kept})
