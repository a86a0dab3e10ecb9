"""The gallery's images."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from hashsearch.errors import NotInGallery
from service.routes.dependencies import TheEngine

router = APIRouter(prefix="/v1/images", tags=["images"])

# An id is never given to another image, so what it shows does not change.
_CACHE = "public, max-age=86400"


@router.get(
    "/{image_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}},
)
def thumbnail(engine: TheEngine, image_id: Annotated[int, Path(ge=0, lt=2**63)]) -> Response:
    """A picture of at most 128 px a side: JPEG, or the tiny image as PNG."""
    picture = engine.picture(image_id)
    if picture is None:
        raise NotInGallery(f"the gallery keeps neither thumbnail nor pixels of image {image_id}")
    data, media_type = picture
    return Response(data, media_type=media_type, headers={"Cache-Control": _CACHE})
