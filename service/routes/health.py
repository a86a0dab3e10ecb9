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


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez() -> Alive:
    """The process answers. `async`, so that it does not wait for searches."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
def readyz(engine: TheEngine) -> Ready:
    """Model, gallery and indexes are in memory, and the gallery's folder is in place."""
    return Ready(images=len(engine))
