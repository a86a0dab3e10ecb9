"""The gallery's images."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

from fastapi import Path, Request, Response

from hashsearch.errors import InvalidQuery, NotInGallery, OriginalMissing
from hashsearch.gallery.originals import is_within_file
from hashsearch.imagefiles import FILE_FORMATS
from service import writing
from service.auth import WithKey
from service.body import ADD_BODY_SCHEMA, reading
from service.caching import IfNoneMatch, cache_headers, if_kept
from service.images import described_image, list_answer, picture_of
from service.originals import OriginalResponse, hanging_up, headers_of, opened, tag_of
from service.parameters import NoParameters, parameters_schema, read_parameters
from service.parsing import uploads_of
from service.problems import (
    OF_BODY,
    OF_GALLERY,
    OF_IMAGE,
    OF_WRITES,
    GalleryReplaced,
    OriginalsOff,
    problem_responses,
)
from service.routes.call import Call, Router
from service.schemas.common import Id
from service.schemas.images import (
    MAX_ADDED,
    AddedAnswer,
    AddParameters,
    DescribedImageAnswer,
    ListAnswer,
    ListParameters,
    RemovedAnswer,
    RemoveParameters,
)
from service.validation import InvalidParameter

_ALWAYS = (InvalidParameter, *OF_GALLERY)
router = Router(prefix="/v1/images", tags=["images"], responses=problem_responses(*_ALWAYS))

_BINARY = {"schema": {"type": "string", "format": "binary"}}

ImageId = Annotated[Id, Path(description="id of an image of the gallery")]


@contextmanager
def _of_path() -> Iterator[None]:
    """Within the block, an image that the gallery does not hold is that of the path."""
    try:
        yield
    except NotInGallery as error:
        error.parameter = "image_id"
        raise


@router.get("", openapi_extra={"parameters": parameters_schema(ListParameters)})
async def list_images(request: Request) -> ListAnswer:
    """A page of the gallery's images, in order of id; what is added meanwhile comes at the end."""
    call, parameters = Call(request), read_parameters(request, ListParameters)
    # A filter that is not remembered is read from the whole catalog.
    whole = parameters.label is None and parameters.uri_prefix is None
    run = call.quick if whole else call.searches
    return await run(
        lambda: call.engine.ask(lambda searcher: list_answer(searcher, parameters, call.context))
    )


@router.post(
    "",
    dependencies=[WithKey],
    openapi_extra={"parameters": parameters_schema(AddParameters), **ADD_BODY_SCHEMA},
    responses=problem_responses(*OF_BODY, *OF_IMAGE, *OF_WRITES, *_ALWAYS, InvalidQuery),
)
async def add_images(request: Request) -> AddedAnswer:
    """Add one image or several; the next search finds them.

    All are decoded before any is stored: if one cannot be read, none is added. Bytes that the
    gallery holds already are not stored again.
    """
    call, parameters = Call(request), read_parameters(request, AddParameters)
    async with reading(request, MAX_ADDED) as bodies:
        uploads = await call.parsed(bodies[0], lambda: uploads_of(bodies, parameters.label))
        images = await call.pictures(
            lambda: writing.encoded(call.engine, uploads, call.context), len(uploads)
        )
        answer = await call.slow(lambda: writing.add(call.engine, images, call.context))
    # For the log, in which it has to be found who changed the gallery.
    request.state.added_ids = [image.id for image in answer.images if image.is_new]
    request.state.held_ids = [image.id for image in answer.images if not image.is_new]
    return answer


@router.delete(
    "",
    dependencies=[WithKey],
    openapi_extra={"parameters": parameters_schema(RemoveParameters)},
    responses=problem_responses(GalleryReplaced, *OF_WRITES, *_ALWAYS),
)
async def remove_images(request: Request) -> RemovedAnswer:
    """Remove images; the next search does not find them. Unknown ids are passed over."""
    call, parameters = Call(request), read_parameters(request, RemoveParameters)
    answer = await call.slow(lambda: writing.remove_images(call.engine, parameters.id))
    request.state.removed, request.state.removed_of_ids = answer.removed, parameters.id
    return answer


@router.delete(
    "/{image_id}",
    dependencies=[WithKey, NoParameters],
    responses=problem_responses(GalleryReplaced, *OF_WRITES, NotInGallery, *_ALWAYS),
)
async def remove_image(request: Request, image_id: ImageId) -> RemovedAnswer:
    """Remove an image; the next search does not find it."""
    call = Call(request)
    with _of_path():
        answer = await call.slow(lambda: writing.remove_image(call.engine, image_id))
    request.state.removed, request.state.removed_of_ids = answer.removed, [image_id]
    return answer


@router.get("/{image_id}", dependencies=[NoParameters], responses=problem_responses(NotInGallery))
async def get_image(request: Request, image_id: ImageId) -> DescribedImageAnswer:
    """All that is known of an image, and its code."""
    call = Call(request)
    originals = call.settings.originals
    with _of_path():
        return await call.quick(
            lambda: call.engine.ask(
                lambda searcher: described_image(
                    searcher, image_id, call.context, originals=originals
                )
            )
        )


@router.get(
    "/{image_id}/original",
    dependencies=[NoParameters],
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {
                media_type.name: _BINARY for row in FILE_FORMATS for media_type in row.media_types
            },
        },
        304: {"description": "The file is the one that the client has."},
        **problem_responses(OriginalsOff, OriginalMissing, NotInGallery, *_ALWAYS),
    },
)
async def get_original(
    request: Request, image_id: ImageId, if_none_match: IfNoneMatch = None
) -> Response:
    """The file that the image was indexed from, with all that it holds.

    A photograph's file tells the place where it was taken, if the camera knew it. It is sent only
    if its bytes are still those that were indexed.
    """
    call = Call(request)
    if not call.settings.originals:
        raise OriginalsOff("the service does not give original files")
    with _of_path():
        known, in_archive = await call.quick(
            lambda: call.engine.ask(
                lambda searcher: (
                    searcher.gallery.catalog.key(image_id),
                    is_within_file(searcher.gallery, image_id),
                )
            )
        )
    if kept := if_kept(if_none_match, tag_of(known)):
        return kept
    lane = call.lanes.archives if in_archive else call.lanes.files
    seconds = call.settings.original_timeout_s
    deadline = time.monotonic() + seconds
    with _of_path(), ExitStack() as held:
        held.enter_context(lane.place())
        async with hanging_up(request.receive) as is_gone:
            key, original = await lane.run_within(
                lambda: opened(call.engine, image_id, deadline, is_gone)
            )
        held.enter_context(original)
        headers = {**cache_headers(tag_of(key)), **headers_of(original)}
        if request.method == "HEAD":
            return Response(headers=headers)
        return OriginalResponse(original, call.lanes.files, held.pop_all(), headers, seconds)


@router.get(
    "/{image_id}/thumbnail",
    dependencies=[NoParameters],
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "content": dict.fromkeys(("image/jpeg", "image/png"), _BINARY),
        },
        304: {"description": "The picture is the one that the client has."},
        **problem_responses(NotInGallery),
    },
)
async def get_thumbnail(
    request: Request,
    image_id: ImageId,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A picture of at most 128 px a side: JPEG, or the tiny image as PNG."""
    call = Call(request)
    with _of_path():
        picture = await call.quick(
            lambda: call.engine.ask(lambda searcher: picture_of(searcher.gallery, image_id))
        )
        if picture is None:
            raise NotInGallery("the gallery keeps neither a thumbnail nor pixels of this image")
    data, media_type = picture
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    return if_kept(if_none_match, tag) or Response(
        data, media_type=media_type, headers=cache_headers(tag)
    )
