"""The gallery's size, methods and newest job."""

from fastapi import APIRouter

from service.problems import OF_GALLERY, problem_responses
from service.routes.dependencies import TheCall
from service.schemas.gallery import GalleryAnswer

router = APIRouter(prefix="/v1/gallery", tags=["gallery"], responses=problem_responses(*OF_GALLERY))


@router.head("", include_in_schema=False)
@router.get("")
async def gallery(call: TheCall) -> GalleryAnswer:
    """The gallery as it is searched now, and the newest job that wrote to it."""
    return await call.quick(call.engine.describe)
