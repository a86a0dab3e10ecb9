"""Query by image, id or code: one method's answer, or all of them side by side."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.body import QUERY_BODY_SCHEMA, TheBody
from service.problems import OF_BODY, OF_GALLERY, OF_IMAGE, OF_SEARCH, problem_responses
from service.routes.dependencies import TheCall
from service.schemas.search import (
    CompareAnswer,
    CompareParameters,
    SearchAnswer,
    SearchParameters,
)

router = APIRouter(
    prefix="/v1",
    tags=["search"],
    responses=problem_responses(*OF_BODY, *OF_IMAGE, *OF_SEARCH, *OF_GALLERY),
)


@router.post("/search", openapi_extra=dict(QUERY_BODY_SCHEMA))
async def search(
    call: TheCall, body: TheBody, parameters: Annotated[SearchParameters, Query()]
) -> SearchAnswer:
    """Find the gallery's nearest images."""
    asked = await call.query_of(body)
    return await call.ask(
        lambda: call.engine.search(asked, parameters, call.context),
        asked.images(transforms=parameters.transforms),
    )


@router.post("/compare", openapi_extra=dict(QUERY_BODY_SCHEMA))
async def compare(
    call: TheCall, body: TheBody, parameters: Annotated[CompareParameters, Query()]
) -> CompareAnswer:
    """Find the nearest images by each method, and how much the methods agree."""
    asked = await call.query_of(body)
    return await call.ask(
        lambda: call.engine.compare(asked, parameters, call.context),
        asked.images(transforms=parameters.transforms),
    )
