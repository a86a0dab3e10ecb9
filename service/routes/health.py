"""Whether the service is alive, and ready."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from service.problems import GalleryLoading, GalleryUnavailable, problem_responses
from service.routes.dependencies import Call

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The gallery can be searched."""

    status: Literal["ready"] = "ready"
    images: int


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Alive:
    """The process answers, also while the gallery is loaded."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=problem_responses(GalleryUnavailable, GalleryLoading))
async def readyz(request: Request) -> Ready:
    """Model, gallery and indexes are in memory, and the gallery's folder is in place."""
    call = Call(request)
    return Ready(images=await call.quick(lambda: len(call.engine)))
