"""From the gallery to what goes over the wire: its size and methods, folders and failures."""

from hashsearch.gallery.built import usable_indexes
from hashsearch.gallery.folders import folders_in, images_in
from hashsearch.gallery.history import last_job
from hashsearch.models.card import pretrained_name
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.methods import DEFAULT_METHOD
from hashsearch.retrieval.searcher import Searcher
from hashsearch.search.parts import PartedIndex
from service.answers import part_answer
from service.cursors import page_of, start_of
from service.labels import Labels
from service.questions import uris_of
from service.schemas.gallery import (
    ClosenessAnswer,
    FailureAnswer,
    FailuresAnswer,
    FailuresParameters,
    FolderAnswer,
    FoldersAnswer,
    FoldersParameters,
    GalleryAnswer,
    IndexAnswer,
    JobAnswer,
    LabelAnswer,
    PlacedPartAnswer,
    ReplicaAnswer,
)


def gallery_answer(
    searcher: Searcher, labels: Labels, *, originals: bool, writes: bool
) -> GalleryAnswer:
    closeness = searcher.closeness
    job = last_job(searcher.gallery.catalog)
    return GalleryAnswer(
        images=len(searcher),
        generation=searcher.generation,
        fingerprint=searcher.fingerprint,
        model=pretrained_name(searcher.fingerprint),
        methods=list(searcher.methods),
        indexes=[
            IndexAnswer(
                kind=built.kind,
                title=KINDS[built.kind].title,
                parameters=built.parameters,
                recall=built.recall,
                query_ms=built.query_ms,
                exact_ms=built.exact_ms,
                image_bytes=built.image_bytes,
                images=built.images,
                time=built.time,
                loaded=built.kind == DEFAULT_KIND or searcher.state.built.get(built.kind) == built,
            )
            for built in usable_indexes(searcher.gallery.catalog)
            if built.kind in KINDS
        ],
        closeness=ClosenessAnswer(**closeness.as_dict()) if closeness else None,
        parts=_parts(searcher),
        picture_bits=searcher.encoder.model.picture_bits,
        job=None if job is None else JobAnswer(**job.as_dict()),
        labels=[LabelAnswer(label=name, images=n) for name, n in labels.images.items()],
        n_labels=labels.number,
        thumbnails=searcher.gallery.keeps("thumbnails"),
        originals=originals,
        writes=writes,
    )


def _parts(searcher: Searcher) -> list[PlacedPartAnswer] | None:
    """Where the codes are; None if they are here."""
    codes = searcher.state.live.base.indexes[DEFAULT_METHOD]
    if not isinstance(codes, PartedIndex):
        return None
    return [
        PlacedPartAnswer(
            **dict(part_answer(state.part)),
            images=state.images,
            replicas=[
                ReplicaAnswer(node=one.node, codes_from=one.codes_from, up=one.is_up)
                for one in state.replicas
            ],
        )
        for state in codes.part_states()
    ]


def folders_answer(searcher: Searcher, parameters: FoldersParameters) -> FoldersAnswer:
    """A page of the folders in another. Raises InvalidParameter."""
    catalog, name = searcher.gallery.catalog, "folders"
    after = start_of(parameters.after, name, "")
    named = {prefix.rstrip("/!#") for prefix in uris_of(parameters.prefix)}
    counted = [(images_in(catalog, prefix), prefix) for prefix in sorted(named)]
    images, prefix = max(counted, key=lambda one: one[0] > 0)
    found = folders_in(catalog, prefix, after, parameters.limit + 1)
    shown, following = page_of(found, parameters.limit, name, lambda folder: folder.end)
    return FoldersAnswer(
        prefix=prefix,
        images=images,
        folders=[
            FolderAnswer(prefix=one.prefix, name=one.name, images=one.images) for one in shown
        ],
        next=following,
        generation=catalog.generation(),
    )


def failures_answer(searcher: Searcher, parameters: FailuresParameters) -> FailuresAnswer:
    """A page of the files that could not be read. Raises InvalidParameter."""
    catalog, name = searcher.gallery.catalog, "failures"
    after = start_of(parameters.after, name, "")
    found = catalog.failures_after(after, parameters.limit + 1)
    shown, following = page_of(found, parameters.limit, name, lambda failure: failure[0])
    return FailuresAnswer(
        failures=[FailureAnswer(uri=uri, reason=reason, time=time) for uri, reason, time in shown],
        next=following,
        generation=catalog.generation(),
    )
