"""The gallery: its size, methods, labels, newest job, folders and failures."""

from collections.abc import Callable

from fastapi import Request

from hashsearch.retrieval.searcher import Searcher
from service.auth import WithKey
from service.gallery import failures_answer, folders_answer, gallery_answer
from service.labels import Labels
from service.parameters import NoParameters, parameters_schema, read_parameters
from service.problems import OF_GALLERY, OF_KEY, problem_responses
from service.routes.call import Call, Router
from service.schemas.gallery import (
    FailuresAnswer,
    FailuresParameters,
    FoldersAnswer,
    FoldersParameters,
    GalleryAnswer,
)
from service.validation import InvalidParameter

router = Router(prefix="/v1/gallery", tags=["gallery"], responses=problem_responses(*OF_GALLERY))


@router.get("", dependencies=[NoParameters], responses=problem_responses(InvalidParameter))
async def get_gallery(request: Request) -> GalleryAnswer:
    """The gallery as it is searched now, and the newest job that wrote to it."""
    call = Call(request)
    writes, originals = bool(call.keys), call.settings.originals

    def described(labels_of: Callable[[Searcher], Labels | None]) -> GalleryAnswer | None:
        def answer(searcher: Searcher) -> GalleryAnswer | None:
            labels = labels_of(searcher)
            if labels is None:
                return None
            return gallery_answer(searcher, labels, originals=originals, writes=writes)

        return call.engine.ask(answer)

    found = await call.quick(lambda: described(call.labels.known))
    if found is None:
        found = await call.slow(lambda: described(call.labels.counted))
        assert found is not None
    return found


@router.get(
    "/folders",
    responses=problem_responses(InvalidParameter),
    openapi_extra={"parameters": parameters_schema(FoldersParameters)},
)
async def list_folders(request: Request) -> FoldersAnswer:
    """The folders, archives and files of many images directly in another, or the sources."""
    call, parameters = Call(request), read_parameters(request, FoldersParameters)
    return await call.slow(
        lambda: call.engine.ask(lambda searcher: folders_answer(searcher, parameters))
    )


@router.get(
    "/failures",
    responses=problem_responses(*OF_KEY, InvalidParameter),
    dependencies=[WithKey],
    openapi_extra={"parameters": parameters_schema(FailuresParameters)},
)
async def list_failures(request: Request) -> FailuresAnswer:
    """The files that could not be read when their source was indexed."""
    call, parameters = Call(request), read_parameters(request, FailuresParameters)
    return await call.slow(
        lambda: call.engine.ask(lambda searcher: failures_answer(searcher, parameters))
    )
