"""Whether the service is alive, and ready."""

from fastapi import APIRouter
from pydantic import BaseModel

from service.routes.dependencies import TheEngine

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    status: str = "alive"


class Ready(BaseModel):
    status: str = "ready"
    images: int


@router.get("/livez")
def livez() -> Alive:
    """The process answers."""
    return Alive()


@router.get("/readyz")
def readyz(engine: TheEngine) -> Ready:
    """Model, gallery and indexes are in memory, and the catalog can be read."""
    engine.gallery.catalog.setting("generation")
    return Ready(images=len(engine))
