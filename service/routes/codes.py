"""From a picture to its code, and from a code to a picture."""

from typing import Annotated

from fastapi import Path, Request, Response

from hashsearch.errors import CodeShapeError, InvalidQuery
from service.body import IMAGE_BODY_SCHEMA, reading
from service.caching import IfNoneMatch, cache_headers, if_kept
from service.encoding import encode_answer, images_of, reconstruction, require_image_alone
from service.parameters import NoParameters, parameters_schema, read_parameters
from service.parsing import query_of
from service.problems import OF_BODY, OF_GALLERY, OF_IMAGE, problem_responses
from service.routes.call import Call, Router
from service.schemas.codes import EncodeAnswer, EncodeParameters
from service.validation import InvalidParameter

router = Router(prefix="/v1", tags=["codes"], responses=problem_responses(*OF_GALLERY))


@router.post(
    "/encode",
    openapi_extra={"parameters": parameters_schema(EncodeParameters), **IMAGE_BODY_SCHEMA},
    responses=problem_responses(*OF_BODY, *OF_IMAGE, InvalidQuery, InvalidParameter),
)
async def encode(request: Request) -> EncodeAnswer:
    """Encode a picture: its code, and pictures of what the model sees and keeps of it."""
    call, parameters = Call(request), read_parameters(request, EncodeParameters)
    async with reading(request) as (body,):
        asked = await call.parsed(body, lambda: query_of(body))
        require_image_alone(asked)
        return await call.pictures(
            lambda: encode_answer(call.engine, asked, parameters, call.context),
            images_of(parameters),
        )


@router.get(
    "/codes/{hex}/reconstruction.png",
    dependencies=[NoParameters],
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The picture is the one that the client has."},
        **problem_responses(CodeShapeError, InvalidParameter),
    },
)
async def get_reconstruction(
    request: Request,
    hex: Annotated[str, Path(description="a code, 64 hexadecimal digits", examples=["0f" * 32])],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The picture of 32×32 pixels that a code decodes to, PNG."""
    call = Call(request)
    tag, picture = await call.quick(lambda: reconstruction(call.engine, hex))
    if kept := if_kept(if_none_match, tag):
        return kept
    data = await call.pictures(picture, 1)
    return Response(data, media_type="image/png", headers=cache_headers(tag))
