"""Measure how many searches a second the service answers, in tables.

    python -m benchmarks.service [--seconds S] [--publish]

The exit status is 1 if a target is missed on two cores.
Its gallery of a million rows is made by the first run and kept in the user's cache.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import hashsearch
from benchmarks.machine import hardware, percent_of_others, say, seconds_of_others
from benchmarks.service.gallery import kept_gallery
from benchmarks.service.measure import (
    IDS,
    PHOTOGRAPHS,
    READY,
    Kind,
    Load,
    Stages,
    alone,
    loaded,
    loaded_beside,
    missing_wrk,
    staged,
)
from benchmarks.service.report import CONNECTIONS, SECONDS, Report, missed, publish, to_markdown
from benchmarks.service.servers import Server, started
from hashsearch.hardware import usable_cores
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.sources import DataFolders

_PACKAGES = ("fastapi", "uvicorn", "pydantic", "torch", "faiss-cpu")


class Given(NamedTuple):
    """What is measured with. folder: for files that last as long as the run."""

    gallery: Path
    photographs: Sequence[Path]
    folder: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of the two main loads")
    parser.add_argument("--publish", action="store_true", help="write the tables to docs/")
    options = parser.parse_args()
    if options.publish and options.seconds != SECONDS:
        parser.error(f"only loads of {SECONDS} seconds are published")
    if missing := missing_wrk():
        print(missing)
        return
    folders = DataFolders.of_environment()
    photographs = photographs_in(folders)
    started_at, before = time.perf_counter(), seconds_of_others()
    with tempfile.TemporaryDirectory(prefix="hashsearch-bench-") as folder:
        given = Given(kept_gallery(folders, say), photographs, Path(folder))
        loads, stages = run(given, options.seconds)
    seconds = time.perf_counter() - started_at
    report = Report(
        command=" ".join(["python -m benchmarks.service", *sys.argv[1:]]),
        date=time.strftime("%Y-%m-%d"),
        hardware=hardware(),
        cores=usable_cores(),
        others_percent=percent_of_others(before, seconds),
        versions={name: version(name) for name in _PACKAGES},
        fingerprint=read_card(PRETRAINED).fingerprint,
        seconds=seconds,
        load_seconds=options.seconds,
        photographs=len(photographs),
        image_bytes=round(statistics.median(path.stat().st_size for path in photographs)),
        loads=loads,
        stages=stages,
    )
    print(to_markdown(report))
    if options.publish:
        publish(report)
    if sentences := missed(report):
        raise SystemExit("\n".join(("targets were missed:", *sentences)))


def photographs_in(folders: DataFolders) -> list[Path]:
    """The photographs of the data folder. Raises SystemExit if it has none."""
    found = sorted(folders.data.glob("photos/*.jpg")) if folders.data else []
    if not found:
        raise SystemExit("HASHSEARCH_DATA names no folder with photos/*.jpg, which are sent")
    return found


def run(given: Given, seconds: int) -> tuple[list[Load], list[Stages]]:
    """Measure the library alone, the service, then FastAPI alone; print what is found.

    seconds: of the two main loads; others take a sixth. Raises SystemExit if a request fails, or
    if the service finds other images than the library.
    """
    short = max(1, seconds // 6)
    photographs = [path.read_bytes() for path in given.photographs]
    listed = given.folder / "photographs"
    listed.write_text("".join(f"{path}\n" for path in given.photographs))
    loads: list[Load] = []

    def found(*more: Load) -> None:
        loads.extend(more)
        for load in more:
            say(f"  {load}")

    with hashsearch.open(given.gallery) as gallery:
        ids = random.Random(0).choices(range(1, len(gallery) + 1), k=len(photographs))
        expected = [[hit.id for hit in gallery.search(query)] for query in (*photographs, *ids)]
        of_library = [
            alone(PHOTOGRAPHS, gallery.search, photographs),
            alone(IDS, gallery.search, ids),
        ]
    every = (Kind(PHOTOGRAPHS, str(listed)), Kind(IDS, str(max(ids))), Kind(READY))
    by_photograph, by_id, ready = every
    serve = ("hashsearch.cli", "serve", "--gallery", str(given.gallery), "--port", "0")
    with started("hashsearch serve", *serve) as server:
        stages, answers = _staged(server, photographs, ids)
        require_same(expected, answers)
        for kind in (by_photograph, by_id):
            found(loaded(server, kind, CONNECTIONS, seconds))
        for kind in (by_photograph, by_id):
            found(loaded(server, kind, 1, short))
        found(*loaded_beside(server, by_photograph, CONNECTIONS, (by_id, ready), short))
    answer = given.folder / "answer.json"
    answer.write_bytes(answers[0])
    with started("FastAPI alone", "benchmarks.service.servers", str(answer)) as server:
        stages += _staged(server, photographs, ids)[0]
        for kind in (by_photograph, by_id):
            found(loaded(server, kind, CONNECTIONS, short))
    found(*of_library)
    return loads, stages


def _staged(
    server: Server, photographs: Sequence[bytes], ids: Sequence[int]
) -> tuple[list[Stages], list[bytes]]:
    """The stages of requests by photograph and by id, and the answers to all."""
    of_photographs, answers = staged(server, PHOTOGRAPHS, photographs)
    of_ids, more = staged(server, IDS, [b'{"id": %d}' % one for one in ids])
    return [of_photographs, of_ids], answers + more


def require_same(expected: Sequence[Sequence[int]], answers: Sequence[bytes]) -> None:
    """Raise SystemExit unless the answers hold these ids."""
    for number, (ids, answer) in enumerate(zip(expected, answers, strict=True)):
        found = [hit["id"] for hit in json.loads(answer)["hits"]]
        if found != list(ids):
            raise SystemExit(f"query {number}: the service found {found}, and the library {ids}")


if __name__ == "__main__":
    main()
