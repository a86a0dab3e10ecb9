"""The gallery's images."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from hashsearch.errors import NotInGallery
from service.images import described_image, list_answer
from service.problems import OF_GALLERY, problem_responses
from service.routes.dependencies import TheCall
from service.schemas.images import DescribedImageAnswer, ListAnswer, ListParameters
from service.validation import InvalidParameter

router = APIRouter(
    prefix="/v1/images",
    tags=["images"],
    responses=problem_responses(NotInGallery, InvalidParameter, *OF_GALLERY),
)

# A browser asks again each time, and gets 304 if the picture is the same: another
# gallery, with other images under these ids, may be served at this address later.
_CACHE = "private, no-cache"

ImageId = Annotated[int, Path(ge=0, lt=2**63, description="id of an image of the gallery")]


@router.head("", include_in_schema=False)
@router.get("")
async def list_images(call: TheCall, parameters: Annotated[ListParameters, Query()]) -> ListAnswer:
    """A page of the gallery's images, in order of id; what is added meanwhile comes at the end."""
    return await call.quick(
        lambda: call.engine.ask(lambda searcher: list_answer(searcher, parameters, call.context))
    )


@router.head("/{image_id}", include_in_schema=False)
@router.get("/{image_id}")
async def get_image(call: TheCall, image_id: ImageId) -> DescribedImageAnswer:
    """All that is known of an image, and its code."""
    originals = call.settings.originals
    return await call.quick(
        lambda: call.engine.ask(
            lambda searcher: described_image(searcher, image_id, call.context, originals=originals)
        )
    )


@router.head("/{image_id}/thumbnail", include_in_schema=False)
@router.get(
    "/{image_id}/thumbnail",
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in ("image/jpeg", "image/png")
            },
        },
        304: {"description": "The picture is the one that the client has."},
    },
)
async def get_thumbnail(
    call: TheCall,
    image_id: ImageId,
    if_none_match: Annotated[
        str | None, Header(description="the ETag of the picture that the client has")
    ] = None,
) -> Response:
    """A picture of at most 128 px a side: JPEG, or the tiny image as PNG."""
    picture = await call.quick(lambda: call.engine.picture(image_id))
    if picture is None:
        raise NotInGallery("the gallery keeps neither a thumbnail nor pixels of this image")
    data, media_type = picture
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": _CACHE, "ETag": tag}
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
