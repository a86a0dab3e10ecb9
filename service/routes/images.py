"""The gallery's images."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response

from hashsearch.errors import NotInGallery
from service.routes.dependencies import TheEngine

router = APIRouter(prefix="/v1/images", tags=["images"])

# A browser asks again each time, and gets 304 if the picture is the same: another
# gallery, with other images under these ids, may be served at this address later.
_CACHE = "private, no-cache"


@router.head("/{image_id}/thumbnail", include_in_schema=False)
@router.get(
    "/{image_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/png": {}}}},
)
def thumbnail(
    engine: TheEngine,
    image_id: Annotated[int, Path(ge=0, lt=2**63)],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A picture of at most 128 px a side: JPEG, or the tiny image as PNG."""
    picture = engine.picture(image_id)
    if picture is None:
        raise NotInGallery("the gallery keeps neither a thumbnail nor pixels of this image")
    data, media_type = picture
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": _CACHE, "ETag": tag}
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
