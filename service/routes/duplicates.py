"""Groups of near-equal pictures."""

from fastapi import Request

from hashsearch.errors import InvalidQuery
from service.duplicates import duplicates_answer
from service.parameters import parameters_schema, read_parameters
from service.problems import OF_GALLERY, BeingComputed, ListChanged, problem_responses
from service.routes.call import Call, Router
from service.schemas.duplicates import DuplicatesAnswer, DuplicatesParameters
from service.validation import InvalidParameter

router = Router(
    prefix="/v1/duplicates",
    tags=["duplicates"],
    responses=problem_responses(
        InvalidQuery, InvalidParameter, BeingComputed, ListChanged, *OF_GALLERY
    ),
)


@router.get("", openapi_extra={"parameters": parameters_schema(DuplicatesParameters)})
async def list_duplicates(request: Request) -> DuplicatesAnswer:
    """Groups of near-equal pictures and of files with the same bytes.

    They are computed in the background when the first page is asked for, and the answer is 503
    meanwhile. Further pages are of the same groups, also if the gallery changes.
    """
    call, parameters = Call(request), read_parameters(request, DuplicatesParameters)
    return await call.slow(
        lambda: call.engine.ask(
            lambda searcher: duplicates_answer(call.duplicates, searcher, parameters, call.context)
        )
    )
