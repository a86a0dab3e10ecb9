"""The gallery: its size, methods, labels, newest job, folders and failures."""

from collections.abc import Callable

from fastapi import Request

from hashsearch.gallery.folders import folders_in, images_in
from hashsearch.retrieval.searcher import Searcher
from service.answers import gallery_answer
from service.auth import WithKey
from service.cursors import cursor_of, values_of
from service.labels import Labels
from service.parameters import parameters_schema, read_parameters
from service.problems import OF_GALLERY, OF_KEY, problem_responses
from service.questions import uris_of
from service.routes.dependencies import Call, Router
from service.schemas.gallery import (
    FailureAnswer,
    FailuresAnswer,
    FailuresParameters,
    FolderAnswer,
    FoldersAnswer,
    FoldersParameters,
    GalleryAnswer,
)
from service.validation import InvalidParameter

router = Router(prefix="/v1/gallery", tags=["gallery"], responses=problem_responses(*OF_GALLERY))


@router.get("")
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

    def answer(searcher: Searcher) -> FoldersAnswer:
        catalog, after = searcher.gallery.catalog, ""
        if parameters.after is not None:
            (value,) = values_of(parameters.after, (str,))
            after = str(value)
        named = {prefix.rstrip("/!#") for prefix in uris_of(parameters.prefix)}
        counted = [(images_in(catalog, prefix), prefix) for prefix in sorted(named)]
        images, prefix = max(counted, key=lambda one: one[0] > 0)
        found = folders_in(catalog, prefix, after, parameters.limit + 1)
        shown = found[: parameters.limit]
        return FoldersAnswer(
            prefix=prefix,
            images=images,
            folders=[
                FolderAnswer(prefix=one.prefix, name=one.name, images=one.images) for one in shown
            ],
            next=cursor_of(shown[-1].end) if len(found) > len(shown) else None,
            generation=catalog.generation(),
        )

    return await call.slow(lambda: call.engine.ask(answer))


@router.get(
    "/failures",
    responses=problem_responses(*OF_KEY, InvalidParameter),
    dependencies=[WithKey],
    openapi_extra={"parameters": parameters_schema(FailuresParameters)},
)
async def list_failures(request: Request) -> FailuresAnswer:
    """The files that could not be read when their source was indexed."""
    call, parameters = Call(request), read_parameters(request, FailuresParameters)

    def answer(searcher: Searcher) -> FailuresAnswer:
        catalog, after = searcher.gallery.catalog, ""
        if parameters.after is not None:
            (value,) = values_of(parameters.after, (str,))
            after = str(value)
        found = catalog.failures_after(after, parameters.limit + 1)
        shown = found[: parameters.limit]
        return FailuresAnswer(
            failures=[
                FailureAnswer(uri=uri, reason=reason, time=time) for uri, reason, time in shown
            ],
            next=cursor_of(shown[-1][0]) if len(found) > len(shown) else None,
            generation=catalog.generation(),
        )

    return await call.slow(lambda: call.engine.ask(answer))
