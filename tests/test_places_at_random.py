"""Files that change at random between jobs, and an independent model of what a gallery knows."""

import hashlib
import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hashsearch.errors import InvalidSource
from hashsearch.gallery.changes import (
    Changes,
    Selection,
    apply,
    drop_place,
    has_changed_images,
    move_place,
    put_first,
)
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import FoundPlace
from hashsearch.images import encode_png
from hashsearch.jobs.index import committing, executing, indexing, reading
from hashsearch.jobs.index.prepare import prepare
from hashsearch.jobs.relocating import relocate
from hashsearch.jobs.removing import remove
from hashsearch.sources.folder import Folder
from tests.galleries import records

NAMES = ["a.png", "A.png", "b.png", "50% #1!.png", "\u00fc.png", "u\u0308.png", "caf\udce9.png"]
FOLDERS = ["", "sub", "sub/deep", "sub 2", "Sub"]
SOURCES = ["pics", "pics/sub", "other"]


class WithoutProcesses:
    """Stands in for worker processes, whose start would take most of the time."""

    def __init__(self, count: int, *, thumbnails: bool):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def submit(self, images):
        return prepare(images)

    def result(self, results):
        return results


class Disk:
    """Folders of small pictures, changed at random. Every new content has another date."""

    def __init__(self, root: Path, chance: random.Random):
        self.root, self.chance = root, chance
        self.roots = [root / source for source in SOURCES]
        self.written = 0
        self.pixels: dict[bytes, np.ndarray] = {}
        for source in self.roots:
            source.mkdir(parents=True)
        for _ in range(6):
            self.write()

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.png") if path.is_file())

    def key(self, path: Path) -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()

    def any_file(self) -> Path:
        return self.chance.choice(self.files())

    def any_path(self) -> Path:
        top = self.chance.choice(["pics", "pics", "other"])
        path = self.root / top / self.chance.choice(FOLDERS) / self.chance.choice(NAMES)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self) -> None:
        self.written += 1
        values = np.random.default_rng(self.written).integers(0, 256, (32, 32, 3), np.uint8)
        data = encode_png(values)
        self.pixels[hashlib.sha256(data).digest()] = values
        path = self.any_path()
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(0, self.written))

    def copy(self) -> None:
        source, target = self.any_file(), self.any_path()
        if source != target:
            target.unlink(missing_ok=True)
            shutil.copy2(source, target)

    def link(self) -> None:
        source, target = self.any_file(), self.any_path()
        if source != target:
            target.unlink(missing_ok=True)
            os.link(source, target)

    def move(self) -> None:
        self.any_file().replace(self.any_path())

    def swap(self) -> None:
        one, other = self.any_file(), self.any_file()
        between = self.root / "between"
        one.replace(between)
        if one != other:
            other.replace(one)
        between.replace(other)

    def rotate(self) -> None:
        """Every file of a folder gets the name of the one after it."""
        files = sorted(self.any_file().parent.glob("*.png"))
        between = self.root / "between"
        files[-1].replace(between)
        for one, following in reversed(list(pairwise(files))):
            one.replace(following)
        between.replace(files[0])

    def delete(self) -> None:
        if len(self.files()) > 3:
            self.any_file().unlink()

    def move_folder(self) -> None:
        old = self.root / "pics" / "sub 2"
        if old.exists() and not (self.root / "pics" / "Sub").exists():
            old.rename(self.root / "pics" / "Sub")

    def change(self) -> None:
        ways = [self.write, self.copy, self.link, self.move, self.swap, self.rotate,
                self.delete, self.move_folder]  # fmt: skip
        self.chance.choice(ways)()


@dataclass
class Model:
    """What a gallery should know: every path's content, and every content's id and given label."""

    places: dict[Path, bytes] = field(default_factory=dict)
    ids: dict[bytes, int] = field(default_factory=dict)
    given: dict[bytes, str] = field(default_factory=dict)
    maybe_given: set[bytes] = field(default_factory=set)  # a job was stopped meanwhile

    def index(self, disk: Disk, roots: list[Path], prune: bool, sources: list[Path]) -> int:
        """Returns the number of images that are not pruned though their files are gone."""
        innermost = sorted(sources, key=lambda source: -len(source.parts))

        def source_of(path: Path) -> Path:
            return next(one for one in innermost if path.is_relative_to(one))

        found = {path: disk.key(path) for root in roots for path in root.rglob("*.png")}
        moved = {key for path, key in found.items() if self.places.get(path) != key}
        self.places |= found
        for path, key in list(self.places.items()):
            if key in moved and not path.exists() and exists_in(path.parent):
                del self.places[path]
        gone = {
            path
            for path in self.places.keys() - found.keys()
            for root in roots
            # A source without images may be a disk that is not mounted.
            if path.is_relative_to(root)
            and any(one.is_relative_to(root) for one in found)
            and all(
                any(one.is_relative_to(inner) for one in found) for inner in (source_of(path), root)
            )
        }
        for path in gone if prune else ():
            del self.places[path]
        self.forget()
        alive = {key for path, key in self.places.items() if path.exists()}
        return 0 if prune else len({self.places[path] for path in gone} - alive)

    def remove(self, paths: list[Path]) -> None:
        for path in paths:
            del self.places[path]
        self.forget()

    def relocate(self, disk: Disk, old: Path, new: Path) -> bool:
        """Returns whether it is refused: another image's file was here, and has moved too."""
        moved = {}
        for path in [one for one in self.places if one.is_relative_to(old)]:
            target = new / path.relative_to(old)
            ours, theirs = self.places[path], self.places.get(target)
            here = disk.key(target) if target.exists() else None
            if theirs in (None, ours):
                moved[path] = target
            elif here == ours:
                return True
        if not any(target.exists() for target in moved.values()):
            return True
        for path, target in moved.items():
            self.places[target] = self.places.pop(path)
        self.forget()
        return False

    def forget(self) -> None:
        alive = set(self.places.values())
        self.ids = {key: number for key, number in self.ids.items() if key in alive}
        self.given = {key: label for key, label in self.given.items() if key in alive}
        self.maybe_given &= alive


def visible(gallery: GalleryFolder) -> list[tuple]:
    ids = gallery.catalog.rows().ids.tolist()
    places = gallery.catalog.places(ids)
    return [
        (record.id, record.uri, record.label, sorted(place.uri for place in places[record.id]))
        for record in gallery.catalog.records(ids)
    ]


def require_equal(gallery: GalleryFolder, model: Model, disk: Disk, scanned: list[Path]) -> None:
    ids = gallery.catalog.rows().ids.tolist()
    places = gallery.catalog.places(ids)
    records = {record.id: record for record in gallery.catalog.records(ids)}
    every = [place for found in places.values() for place in found]
    known = gallery.catalog.known_files([place.uri for place in every])
    names = {root.name for root in disk.roots}
    assert Counter(Path(place.path) for place in every) == Counter(list(model.places)), (
        "no place is lost, and none belongs to two images"
    )
    assert {Path(place.path): known[place.uri].key for place in every} == model.places
    keys = {number: known[records[number].uri].key for number in ids}
    assert set(keys.values()) == set(model.places.values())
    for key, number in model.ids.items():
        assert keys[number] == key, "an image whose content is still somewhere keeps its id"
    model.ids = {key: number for number, key in keys.items()}
    for number in ids:
        key, record = keys[number], records[number]
        assert places[number][0].uri == record.uri
        assert np.array_equal(gallery.pixels(number), disk.pixels[key])
        paths = [Path(place.path) for place in places[number]]
        assert set(paths) == {path for path, other in model.places.items() if other == key}
        if any(
            path.exists() and any(path.is_relative_to(one) for one in scanned) for path in paths
        ):
            assert paths[0].exists(), "the first place is one that exists"
        folder = paths[0].parent
        # What lies in a source's own folder has no label, and keeps none where that moves to.
        derived = {folder.name} | ({None} if folder.name in names else set())
        given = {model.given[key]} if key in model.given else derived
        assert record.label in (given | derived if key in model.maybe_given else given)
    uris = [place.uri for place in every]
    assert set(gallery.catalog.ids_at(uris)) == set(ids)
    for name in gallery.catalog.sources():
        here = sorted(uri for uri in uris if uri.startswith(name + "/"))
        assert gallery.catalog.uris_under(name) == here
        assert gallery.catalog.count_under(name) == len(here)


def exists_in(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


class GivenLabels:
    """A source, of which a person labelled some images by their contents."""

    def __init__(self, source: Folder, disk: Disk, share: float):
        self.root, self.is_whole, self.is_folder = source.root, True, True
        self.passed_over, self.remarks = source.passed_over, source.remarks
        self.source, self.disk, self.share = source, disk, share
        self.given: dict[bytes, str] = {}

    def estimate(self):
        return None

    def __iter__(self):
        for image in self.source:
            if self.disk.chance.random() < self.share:
                key = self.disk.key(image.content)
                self.given[key] = f"given to {key.hex()[:6]}"
                yield replace(image, label=self.given[key], label_given=True)
            else:
                yield image


class Interrupted(Exception):
    """What stops a job between two of its commits."""


def interrupt(gallery: GalleryFolder, chance: random.Random, sources, monkeypatch) -> None:
    """Run a job that ends at one of its commits, before or after it."""
    commit, left, after = gallery.commit, [chance.randint(1, 3)], chance.random() < 0.5

    def interrupted(*arguments, **named):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Interrupted
        commit(*arguments, **named)
        if left[0] == 0:
            raise Interrupted

    with monkeypatch.context() as patched, suppress(Interrupted):
        patched.setattr(gallery, "commit", interrupted)
        indexing.index_sources(gallery, sources, workers=1)


def trial(gallery: GalleryFolder, root: Path, seed: int, rounds: int, monkeypatch) -> None:
    chance = random.Random(seed)
    disk = Disk(root, chance)
    model = Model()
    monkeypatch.setattr(executing, "Workers", WithoutProcesses)
    for _ in range(rounds):
        for _ in range(chance.randint(1, 5)):
            disk.change()
        monkeypatch.setattr(reading, "CHUNK_IMAGES", chance.choice([1, 2, 3, 256]))
        monkeypatch.setattr(committing, "MAX_ROWS", chance.choice([300, 260, 257, 4, 2]))
        scanned = chance.sample(disk.roots, chance.randint(1, 3))
        sources = [Folder(one) for one in scanned]
        prune = chance.random() < 0.3
        former = set(model.places.values())
        interrupted = chance.random() < 0.3
        if interrupted:
            interrupt(gallery, chance, sources, monkeypatch)
            # An image between two places may be another one after it.
            model.ids.clear()
            model.maybe_given |= model.given.keys()
        before, generation = visible(gallery), gallery.catalog.generation()
        labelled = [GivenLabels(one, disk, chance.choice([0, 0, 0.2])) for one in sources]
        summary = indexing.index_sources(gallery, labelled, workers=1, prune=prune)
        roots = list(gallery.catalog.sources().values())
        assert summary.missing == model.index(disk, scanned, prune, roots)
        for source in labelled:
            model.given |= source.given
            model.maybe_given -= source.given.keys()
        assert interrupted or summary.indexed == len(set(model.places.values()) - former)
        require_equal(gallery, model, disk, scanned)
        has_changed = visible(gallery) != before
        is_later = gallery.catalog.generation() > generation
        assert is_later == has_changed or (is_later and any(one.given for one in labelled))
        again, seen = gallery.catalog.generation(), visible(gallery)
        summary = indexing.index_sources(gallery, sources, workers=1)
        assert summary.unchanged == sum(len(list(one.rglob("*.png"))) for one in scanned)
        assert (gallery.catalog.generation(), visible(gallery)) == (again, seen)
        if chance.random() < 0.3:
            move_folder(gallery, model, disk)
        if model.places and chance.random() < 0.2:
            ids = gallery.catalog.rows().ids.tolist()
            every = {
                place.uri: Path(place.path)
                for found in gallery.catalog.places(ids).values()
                for place in found
            }
            folder = chance.choice(sorted(every)).rpartition("/")[0]
            remove(gallery.catalog, Selection(uri_prefixes=[folder]))
            model.remove([path for uri, path in every.items() if uri.startswith(folder + "/")])
        require_equal(gallery, model, disk, [])


def move_folder(gallery: GalleryFolder, model: Model, disk: Disk) -> None:
    """Move a folder to another source, or within it, and tell the gallery."""
    inside = disk.chance.choice(["Sub", "sub 2", "sub"])
    old = disk.root / disk.chance.choice(["pics", "other"]) / inside
    new = disk.root / disk.chance.choice(["pics", "other", "pics/sub"]) / inside
    if not old.exists() or new.exists() or new.is_relative_to(old):
        return
    old.rename(new)
    if old in disk.roots:
        old.mkdir()
    recorded = [path for path in model.places if path.is_relative_to(old)]
    planned = None
    with suppress(InvalidSource):
        planned = relocate(gallery, old, new, dry_run=True)
    require_equal(gallery, model, disk, [])
    is_refused = model.relocate(disk, old, new)
    assert is_refused == (planned is None)
    if planned is not None:
        assert relocate(gallery, old, new) == planned
        assert planned.found + planned.missing + planned.kept == len(recorded)


@pytest.mark.parametrize("seed", range(6))
def test_a_gallery_knows_every_place(seed, empty_gallery, tmp_path, monkeypatch):
    trial(empty_gallery, tmp_path / "disk", seed, 12, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 300))
def test_a_gallery_knows_every_place_in_many_trials(seed, empty_gallery, tmp_path, monkeypatch):
    trial(empty_gallery, tmp_path / "disk", seed, 20, monkeypatch)


def test_no_change_of_a_place_reads_all_images(gallery):
    """At ten million images, that would hold the write lock for seconds at each place."""
    first, second, third = records(gallery)[:3]
    keys = {uri: file.key for uri, file in gallery.catalog.known_files(
        [first.uri, second.uri, third.uri]
    ).items()}  # fmt: skip
    further = FoundPlace(keys[first.uri], "pictures/further.png", None, 1, 1)
    again = FoundPlace(keys[third.uri], second.uri, None, 1, 1)
    statements: list[str] = []
    with gallery.catalog.transaction() as db:
        db.set_trace_callback(statements.append)
        apply(db, Changes(found=[further]))
        put_first(db, first.id, further.uri)
        drop_place(db, first.uri, keys[first.uri])
        move_place(db, further.uri, "pictures/moved.png")
        apply(db, Changes(found=[again], dropped=[(third.uri, keys[third.uri])]))
        assert has_changed_images(db)
        db.set_trace_callback(None)
        assert db.execute("SELECT removed FROM images WHERE id = ?", (second.id,)).fetchone()[0]
        assert len(statements) > 10
        for statement in filter(lambda text: not text.startswith("--"), statements):
            plan = db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            assert not any("SCAN images" in row[3] or "SCAN places" in row[3] for row in plan), (
                statement
            )
