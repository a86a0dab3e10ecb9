"""The gallery's size, methods and newest job."""

from fastapi import APIRouter

from service.routes.dependencies import TheEngine
from service.schemas import GalleryAnswer

router = APIRouter(prefix="/v1/gallery", tags=["gallery"])


@router.head("", include_in_schema=False)
@router.get("")
def gallery(engine: TheEngine) -> GalleryAnswer:
    """The gallery as it is searched now, and the newest job that wrote to it."""
    return engine.describe()
