"""Files that change at random between jobs, and an independent model of what a gallery knows."""

import hashlib
import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hashsearch.errors import InvalidSource
from hashsearch.gallery.catalog import FoundPlace
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
from hashsearch.images import encode_png
from hashsearch.jobs.index import committing, indexing, reading
from hashsearch.jobs.index.prepare import prepare
from hashsearch.jobs.relocating import relocate
from hashsearch.jobs.removing import remove
from hashsearch.sources.base import decode_path, encode_path
from hashsearch.sources.folder import Folder
from tests.galleries import records

NAMES = ["a.png", "A.png", "b.png", "50% #1!.png", "\u00fc.png", "u\u0308.png", "caf\udce9.png"]
FOLDERS = ["", "sub", "sub/deep", "sub 2", "Sub"]
SOURCES = ["pics", "pics/sub", "other"]


class WithoutProcesses:
    """Stands in for worker processes, whose start would take most of the time."""

    count = 1

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
        self.written = 0
        self.pixels: dict[bytes, np.ndarray] = {}
        for source in SOURCES:
            (root / source).mkdir(parents=True)
        for _ in range(6):
            self.write()

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.png") if path.is_file())

    def uri(self, model: "Model", path: Path) -> str:
        """Of a path within a source, the innermost that holds it."""
        inner = max((one for one in SOURCES if path.is_relative_to(self.root / one)), key=len)
        return f"{model.names[inner]}/{encode_path(str(path.relative_to(self.root / inner)))}"

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
    """What a gallery should know: the content of every place, and the id of every content."""

    names: dict[str, str]  # of the sources, by folder
    places: dict[str, bytes] = field(default_factory=dict)
    ids: dict[bytes, int] = field(default_factory=dict)

    def index(self, disk: Disk, sources: list[str], prune: bool) -> None:
        for source in sources:
            name, root = self.names[source], disk.root / source
            found = {
                f"{name}/{encode_path(str(path.relative_to(root)))}": hashlib.sha256(
                    path.read_bytes()
                ).digest()
                for path in root.rglob("*.png")
            }
            if prune and found:  # an empty folder may be a disk that is not mounted
                here = {uri for uri in self.places if uri.startswith(name + "/")}
                for uri in here - found.keys():
                    del self.places[uri]
            self.places |= found
        self.forget()

    def remove(self, folder: str) -> None:
        for uri in [uri for uri in self.places if uri.startswith(folder + "/")]:
            del self.places[uri]
        self.forget()

    def relocate(self, old: str, new: str) -> None:
        for uri in sorted(uri for uri in self.places if uri.startswith(old + "/")):
            self.places.setdefault(new + uri.removeprefix(old), self.places[uri])
            del self.places[uri]
        self.forget()

    def forget(self) -> None:
        alive = set(self.places.values())
        self.ids = {key: number for key, number in self.ids.items() if key in alive}


def visible(gallery: GalleryFolder) -> list[tuple]:
    rows = gallery.catalog.rows()
    return [(r.id, r.uri, r.label) for r in gallery.catalog.records(rows.ids.tolist())]


def require_equal(gallery: GalleryFolder, model: Model, disk: Disk, scanned: list[str]) -> None:
    rows = gallery.catalog.rows()
    ids = rows.ids.tolist()
    places = gallery.catalog.places(ids)
    records = {record.id: record for record in gallery.catalog.records(ids)}
    known = gallery.catalog.known_files([p.uri for found in places.values() for p in found])
    uris = [place.uri for found in places.values() for place in found]
    assert Counter(uris) == Counter(list(model.places)), "no uri is lost, or belongs to two images"
    assert {uri: file.key for uri, file in known.items()} == model.places
    keys = {number: known[records[number].uri].key for number in ids}
    assert set(keys.values()) == set(model.places.values())
    for key, number in model.ids.items():
        assert keys[number] == key, "an image whose content is still somewhere keeps its id"
    model.ids = {key: number for number, key in keys.items()}
    roots = {model.names[source]: disk.root / source for source in SOURCES}
    for number in ids:
        assert places[number][0].uri == records[number].uri
        assert np.array_equal(gallery.pixels(number), disk.pixels[keys[number]])
        exist = [
            place
            for place in places[number]
            if place.uri.split("/")[0] in [model.names[one] for one in scanned]
            and Path(place.path).exists()
        ]
        if exist:
            assert Path(records[number].path).exists(), "the first place is one that exists"
        for place in places[number]:
            root, path = roots[place.uri.split("/")[0]], Path(place.path)
            label = None if path.parent == root else path.parent.name
            assert place.label == label
        uris_of_key = {uri for uri, key in model.places.items() if key == keys[number]}
        assert {place.uri for place in places[number]} == uris_of_key
    assert set(gallery.catalog.ids_at(uris)) == set(ids)
    for name in model.names.values():
        here = sorted(uri for uri in model.places if uri.startswith(name + "/"))
        assert gallery.catalog.uris_under(name) == here
        assert gallery.catalog.count_under(name) == len(here)


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
    names = {one: gallery.catalog.source_name((root / one).resolve()) for one in SOURCES}
    model = Model(names)
    monkeypatch.setattr(indexing, "Workers", WithoutProcesses)
    for _ in range(rounds):
        for _ in range(chance.randint(1, 5)):
            disk.change()
        monkeypatch.setattr(reading, "CHUNK_IMAGES", chance.choice([1, 2, 3, 256]))
        monkeypatch.setattr(committing, "MAX_ROWS", chance.choice([300, 260, 257, 4, 2]))
        scanned = chance.sample(SOURCES, chance.randint(1, 3))
        sources = [Folder(root / one) for one in scanned]
        prune = chance.random() < 0.3
        former = set(model.places.values())
        model.index(disk, scanned, prune)
        interrupted = chance.random() < 0.3
        if interrupted:
            interrupt(gallery, chance, sources, monkeypatch)
            model.ids.clear()  # an image between two places may have another id after it
        before, generation = visible(gallery), gallery.catalog.generation()
        summary = indexing.index_sources(gallery, sources, workers=1, prune=prune)
        assert interrupted or summary.indexed == len(set(model.places.values()) - former)
        require_equal(gallery, model, disk, scanned)
        assert (gallery.catalog.generation() > generation) == (visible(gallery) != before)
        again = gallery.catalog.generation()
        summary = indexing.index_sources(gallery, sources, workers=1)
        assert summary.unchanged == sum(len(list((root / s).rglob("*.png"))) for s in scanned)
        assert gallery.catalog.generation() == again
        if chance.random() < 0.2:
            move_folder(gallery, model, disk)
        if model.places and chance.random() < 0.2:
            uri = chance.choice(sorted(model.places)).rpartition("/")[0]
            remove(gallery.catalog, Selection(uri_prefixes=[uri]))
            model.remove(uri)
        require_equal(gallery, model, disk, [])


def move_folder(gallery: GalleryFolder, model: Model, disk: Disk) -> None:
    """Move a folder to another source, or within it, and tell the gallery."""
    inside = disk.chance.choice(["Sub", "sub 2"])
    old = disk.root / disk.chance.choice(["pics", "other"]) / inside
    new = disk.root / disk.chance.choice(["pics", "other", "pics/sub"]) / inside
    if old.exists() and not new.exists():
        old.rename(new)
        former, now = disk.uri(model, old), disk.uri(model, new)
        recorded = [
            uri.removeprefix(former) for uri in model.places if uri.startswith(former + "/")
        ]
        refused = ""
        try:
            relocate(gallery, old, new)
        except InvalidSource as error:
            refused = str(error)
        if not refused:
            model.relocate(former, now)
        elif "another image was indexed at" not in refused:  # then none of the files is there
            assert not any((new / decode_path(rest[1:])).exists() for rest in recorded)


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
