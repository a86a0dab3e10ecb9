"""Query by image, id or code: one method's answer, or all of them side by side."""

from typing import Any

from fastapi import Request

from service import searching
from service.body import QUERY_BODY_SCHEMA, reading
from service.parameters import parameters_schema, read_parameters
from service.parsing import query_of
from service.problems import OF_BODY, OF_GALLERY, OF_IMAGE, OF_SEARCH, problem_responses
from service.routes.call import Call, Router
from service.schemas.common import Strict
from service.schemas.search import (
    CompareAnswer,
    CompareParameters,
    SearchAnswer,
    SearchParameters,
)

router = Router(
    prefix="/v1",
    tags=["search"],
    responses=problem_responses(*OF_BODY, *OF_IMAGE, *OF_SEARCH, *OF_GALLERY),
)


def _operation(parameters: type[Strict]) -> dict[str, Any]:
    return {"parameters": parameters_schema(parameters), **QUERY_BODY_SCHEMA}


@router.post("/search", openapi_extra=_operation(SearchParameters))
async def search(request: Request) -> SearchAnswer:
    """Find the gallery's nearest images."""
    call, parameters = Call(request), read_parameters(request, SearchParameters)
    async with reading(request) as (body,):
        asked = await call.parsed(body, lambda: query_of(body))
        answer = await call.search(asked, parameters)
        call.count_partial(answer)
        return answer


@router.post("/compare", openapi_extra=_operation(CompareParameters))
async def compare(request: Request) -> CompareAnswer:
    """Find the nearest images by each method, and how much the methods agree."""
    call, parameters = Call(request), read_parameters(request, CompareParameters)
    async with reading(request) as (body,):
        asked = await call.parsed(body, lambda: query_of(body))
        answer = await call.ask(
            lambda: searching.compare(call.engine, asked, parameters, call.context),
            asked,
            parameters,
        )
        call.count_partial(answer)
        return answer
