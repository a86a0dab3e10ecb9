"""Galleries to which anything happens, between exports of them."""

import random
import shutil
from pathlib import Path

from hashsearch.gallery.changes import Selection, move_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from tests.exports import TABLE, picture
from tests.galleries import ids


class Life:
    """A gallery to which random things happen, and the table of its exports."""

    def __init__(self, gallery: GalleryFolder, query, models: list[Path], seed: int):
        self.gallery, self.query, self.models = gallery, query, models
        self.chance, self.encoder = random.Random(seed), gallery.encoder()
        self.happenings = [
            *(self.add, self.add, self.remove, self.label, self.move, self.compact),
            *(self.reencode, self.copy, self.put_back, self.drop_index),
        ]

    def happen(self) -> None:
        self.chance.choice(self.happenings)()

    def add(self) -> None:
        """New pictures, and some that were there, or are."""
        for _ in range(self.chance.randrange(1, 9)):
            add_image(self.gallery, self.encoder, picture(self.chance.randrange(60)))

    def remove(self) -> None:
        some = self.chance.sample(ids(self.gallery), self.chance.randrange(0, 6))
        remove(self.gallery.catalog, Selection(ids=some))

    def label(self) -> None:
        label = self.chance.choice(["cat", "a\0b", "ü\n", "", "\\N"])
        add_image(self.gallery, self.encoder, picture(self.chance.randrange(60)), label)

    def move(self) -> None:
        """A file gets another place, as `index` and `relocate` record it."""
        (record,) = self.gallery.catalog.records([self.chance.choice(ids(self.gallery))])
        with self.gallery.catalog.transaction() as db:
            move_place(db, record.uri, f"{record.uri}%{self.chance.randrange(10)}")
            next_generation(db)

    def compact(self) -> None:
        compact(self.gallery)

    def reencode(self) -> None:
        """By another model; then the table is dropped, since an export to it is refused."""
        if self.chance.random() < 0.7:
            return
        reencode(self.gallery, self.chance.choice(self.models))
        self.encoder = self.gallery.encoder()
        self.query(f"DROP TABLE IF EXISTS {TABLE}")

    @property
    def copies(self) -> Path:
        return self.gallery.folder.with_name("copy")

    def copy(self) -> None:
        self.gallery.close()
        shutil.rmtree(self.copies, ignore_errors=True)
        shutil.copytree(self.gallery.folder, self.copies)
        self.gallery = GalleryFolder(self.gallery.folder)

    def put_back(self) -> None:
        if not self.copies.exists():
            return
        fingerprint = self.gallery.fingerprint
        self.gallery.close()
        shutil.rmtree(self.gallery.folder)
        shutil.copytree(self.copies, self.gallery.folder)
        self.gallery = GalleryFolder(self.gallery.folder)
        self.encoder = self.gallery.encoder()
        if self.gallery.fingerprint != fingerprint:
            self.query(f"DROP TABLE IF EXISTS {TABLE}")

    def drop_index(self) -> None:
        self.query(f"DROP INDEX IF EXISTS {TABLE}_code_idx")
