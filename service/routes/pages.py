"""GET / and its files.

The dashboard, served from the package. Views are named by the address's fragment (deep links).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import Response

from bitwright.core.canonical import digest_bytes
from bitwright.core.errors import NotFound
from service.replies import tagged_headers

router = APIRouter(include_in_schema=False)
MEDIA: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    body: bytes
    media: str
    tag: str


@cache
def assets() -> Mapping[str, Asset]:
    """Every file of the dashboard by name; nothing outside this table can be asked for."""
    found = {}
    for file in resources.files("service").joinpath("dashboard").iterdir():
        media = MEDIA.get("." + file.name.rpartition(".")[2])
        if media is not None:
            body = file.read_bytes()
            found[file.name] = Asset(body, media, digest_bytes(body)[7:39])
    return found


def _serve(request: Request, name: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise NotFound("the dashboard has no such file", got=name[:80])
    return Response(asset.body, headers=tagged_headers(request, asset.tag, "no-cache"), media_type=asset.media)


@router.get("/")
async def index(request: Request) -> Response:
    return _serve(request, "index.html")


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    return _serve(request, name)


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    return _serve(request, "icon.svg")
