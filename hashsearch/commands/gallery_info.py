"""What `gallery info` shows of a gallery, and `gallery build` of its indexes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hashsearch.codes import CODE_BYTES
from hashsearch.commands.output import readable, shown
from hashsearch.models.card import pretrained_name
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.wording import counted

if TYPE_CHECKING:
    from hashsearch.gallery.built import BuiltIndex
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.gallery.history import Job

_LISTED = 5  # the most labels and sources that are named
_ID_BYTES = 8  # in memory, beside each code


def as_json(gallery: "GalleryFolder", job: "Job | None") -> dict[str, Any]:
    """What `info --json` prints. job: the gallery's last one."""
    from hashsearch.gallery.built import built_indexes, damaged_indexes

    catalog, card = gallery.catalog, gallery.card()
    rows = catalog.shard_rows()
    return {
        "images": catalog.count(),
        "removed_rows": sum(rows.values()) - catalog.count(),
        "failures": catalog.failure_count(),
        "labels": catalog.labels(),
        "sources": {
            name: str(root)
            for name, root in catalog.sources().items()
            if catalog.uris_under(name, most=1) or catalog.failures_under(name)
        },
        "excludes": catalog.excludes(),
        "shards": len(rows),
        "disk_bytes": sum(_disk_bytes(gallery).values()),
        "model": {
            "name": pretrained_name(card.fingerprint),
            "kind": card.kind,
            "bits": card.bits,
            "fingerprint": card.fingerprint,
        },
        "precision": catalog.setting("precision"),
        "keeps": [what for what in ("pixels", "thumbnails") if gallery.keeps(what)],
        "indexes": {
            **{
                kind: index_as_json(built, gallery.fingerprint)
                for kind, built in built_indexes(catalog).items()
            },
            **{kind: unusable(kind, damaged=True) for kind in damaged_indexes(catalog)},
        },
        "generation": catalog.generation(),
        "last_job": job and job.as_dict(),
    }


def as_lines(gallery: "GalleryFolder", job: "Job | None") -> dict[str, str]:
    """The lines that `info` prints, by name."""
    info = as_json(gallery, job)
    images, removed = info["images"], info["removed_rows"]
    rows = counted(removed, "row")
    disk = _disk_bytes(gallery)
    parts = ", ".join(f"{name} {readable(size)}" for name, size in disk.items())
    return {
        "images": f"{images:,}"
        + (f", and {rows} of removed images, which compact deletes" if removed else ""),
        "labels": _some([f"{shown(name)} {n:,}" for name, n in info["labels"].items()]),
        "sources": _some([shown(root) for root in info["sources"].values()]),
        **({"excluded": ", ".join(info["excludes"])} if info["excludes"] else {}),
        "failures": f"{info['failures']:,}",
        "in memory": f"{readable(images * (CODE_BYTES + _ID_BYTES))} of codes and ids",
        "on disk": f"{readable(sum(disk.values()))}: {parts}",
        "shards": f"{info['shards']:,}, keeping " + " and ".join(["codes", *info["keeps"]]),
        "model": _model_line(info["model"], info["precision"]),
        **{
            f"index {shown(kind)}": index_line(gallery, kind, i)
            for kind, i in info["indexes"].items()
        },
        "generation": f"{info['generation']:,}",
        "last job": "none" if job is None else _job_line(job),
    }


def _model_line(model: Mapping[str, Any], precision: str) -> str:
    named = [model["name"]] if model["name"] else []
    parts = [*named, model["kind"], f"{model['bits']} bits", model["fingerprint"][:12], precision]
    return ", ".join(parts)


def _disk_bytes(gallery: "GalleryFolder") -> dict[str, int]:
    from hashsearch.gallery.built import stored_bytes

    indexes = stored_bytes(gallery.catalog)
    of_indexes = {"indexes": indexes} if indexes else {}
    return gallery.disk_bytes() | of_indexes | {"model": gallery.model_bytes()}


def index_as_json(built: "BuiltIndex", fingerprint: str) -> dict[str, Any]:
    """What was measured of an index. fingerprint: of the gallery's model now."""
    return {
        **unusable(built.kind, damaged=False),
        "usable": built.kind in KINDS and built.fingerprint == fingerprint,
        **{
            name: getattr(built, name)
            for name in ("recall", "wanted_recall", "parameters", "query_ms", "exact_ms")
        },
        "image_bytes": built.image_bytes,
        "stored_bytes": built.stored_bytes,
        **{
            name: getattr(built, name) for name in ("images", "generation", "time", "build_seconds")
        },
    }


def unusable(kind: str, **why: bool | str) -> dict[str, Any]:
    """What the JSON of `info` and `build` says of an index that cannot be used, and why."""
    return {"title": KINDS[kind].title if kind in KINDS else None, "usable": False, **why}


def index_line(gallery: "GalleryFolder", kind: str, index: dict[str, Any]) -> str:
    again = f"hashsearch gallery build {gallery.folder} --kind {shown(kind)}"
    if kind not in KINDS:
        return f"not known to this version of hashsearch; to delete it: {again} --drop"
    if index["damaged"]:
        return f"its record is damaged; to build it again: {again}; to delete it, add --drop"
    if not index["usable"]:
        return f"built for another model; to build it again: {again}"
    at = "".join(f" at {name} {value:,}" for name, value in index["parameters"].items())
    below = index["recall"] < index["wanted_recall"]
    short = f" (below the wanted {index['wanted_recall']:g})" if below else ""
    radius = KINDS[kind].radius
    within = "" if radius is None else f" within {counted(radius, 'bit')}"
    time = f"{index['query_ms']:.2g} ms a query{within}"
    line = f"recall@10 {index['recall']:.3f}{short}{at}, {time}"
    if kind != DEFAULT_KIND:
        line += f" where exact takes {index['exact_ms']:.2g} ms"
    return (
        line + f"; {index['image_bytes']:.0f} bytes an image; built of {index['images']:,} images"
    )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more or "none"


def _job_line(job: "Job") -> str:
    counts = ", ".join(
        counted(n, "duplicate") if name == "duplicates" else f"{n:,} {name}"
        for name, n in job.counts.items()
        if n
    )
    line = f"{job.kind}, {job.state}, " + (f"{counts}, " if counts else "")
    if job.state != "running":
        return line + f"{job.started} to {job.ended or job.updated or 'its end'}"
    line += f"{job.images_per_second:,.0f} images/s, " if job.seen else ""
    if job.expected is not None:
        line += f"about {job.expected:,} in all, "
    return line + f"process {job.pid} on {job.host} since {job.started}"
