"""Whether the service is alive, and ready."""

import asyncio
from typing import Literal

from fastapi import Request
from pydantic import BaseModel

from service.engine import Engine
from service.problems import GalleryLoading, GalleryUnavailable, problem_responses
from service.routes.call import Router

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
    engine: Engine = request.app.state.engine
    # Threads that nothing else uses: a service that is full is ready all the same.
    return Ready(images=await asyncio.to_thread(engine.ask, len))
