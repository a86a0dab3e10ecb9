"""Whether the service is alive, and ready."""

from typing import Literal

from fastapi import Request
from pydantic import BaseModel

from service.problems import GalleryLoading, GalleryUnavailable, problem_responses
from service.routes.dependencies import Call, Router

router = Router(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The gallery can be searched."""

    status: Literal["ready"] = "ready"
    images: int


@router.get("/livez")
async def livez() -> Alive:
    """The process answers, also while the gallery is loaded."""
    return Alive()


@router.get("/readyz", responses=problem_responses(GalleryUnavailable, GalleryLoading))
async def readyz(request: Request) -> Ready:
    """Model, gallery and indexes are in memory, and the gallery's folder is in place."""
    call = Call(request)
    return Ready(images=await call.quick(lambda: len(call.engine)))
