"""Whether the service is alive, and ready."""

import asyncio

from fastapi import Request

from service.engine import Engine
from service.problems import GalleryLoading, GalleryUnavailable, problem_responses
from service.routes.call import Router
from service.schemas.health import Alive, Ready

router = Router(tags=["health"])


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
