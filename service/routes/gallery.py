"""The gallery: its size, methods, labels, newest job, folders and failures."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request

from hashsearch.gallery.folders import folders_in, images_in
from hashsearch.retrieval.searcher import Searcher
from service.answers import gallery_answer
from service.auth import WithKey
from service.cursors import cursor_of, values_of
from service.labels import LabelCounts, Labels
from service.problems import OF_GALLERY, problem_responses
from service.questions import uris_of
from service.routes.dependencies import TheCall
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

router = APIRouter(prefix="/v1/gallery", tags=["gallery"], responses=problem_responses(*OF_GALLERY))


@router.head("", include_in_schema=False)
@router.get("")
async def get_gallery(request: Request, call: TheCall) -> GalleryAnswer:
    """The gallery as it is searched now, and the newest job that wrote to it."""
    settings = request.app.state.settings
    counts: LabelCounts = request.app.state.labels
    keys = (getattr(settings, name, None) for name in ("api_keys", "api_keys_file"))
    writes = any(map(bool, keys))
    originals = bool(getattr(settings, "originals", False))

    def described(labels_of: Callable[[Searcher], Labels | None]) -> GalleryAnswer | None:
        def answer(searcher: Searcher) -> GalleryAnswer | None:
            labels = labels_of(searcher)
            if labels is None:
                return None
            return gallery_answer(searcher, labels, originals=originals, writes=writes)

        return call.engine.ask(answer)

    found = await call.quick(lambda: described(counts.known))
    if found is None:
        found = await call.slow(lambda: described(counts.counted))
        assert found is not None
    return found


@router.get("/folders", responses=problem_responses(InvalidParameter))
async def list_folders(
    call: TheCall, parameters: Annotated[FoldersParameters, Query()]
) -> FoldersAnswer:
    """The folders, archives and files of many images directly in another, or the sources."""

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


@router.get("/failures", responses=problem_responses(InvalidParameter), dependencies=[WithKey])
async def list_failures(
    call: TheCall, parameters: Annotated[FailuresParameters, Query()]
) -> FailuresAnswer:
    """The files that could not be read when their source was indexed."""

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
