"""The job's third stage: decide for each prepared image whether it is new."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from hashsearch.errors import InvalidImage
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import is_gone_at, is_lost
from hashsearch.gallery.records import Failure, FoundPlace, KnownFile, NewImage
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.reading import Chunk, note_label
from hashsearch.sources.base import SourceImage


@dataclass(slots=True)
class Outcome:
    """Outcome of one chunk.

    new: as they were prepared, the new images in `changes`. counts: number of images by outcome.
    """

    changes: Changes = field(default_factory=Changes)
    new: list[Prepared] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Decider:
    """Distinguishes new images from known ones, also among those that are not committed yet.

    One thread decides while another commits.
    """

    def __init__(self, gallery: GalleryFolder):
        self._catalog = gallery.catalog
        self._begun = gallery.catalog.generation()
        self._lock = Lock()  # guards the next three, which hold what is not committed yet
        self._keys: set[bytes] = set()
        self._moved: set[bytes] = set()
        self._places: set[tuple[str, bytes | None]] = set()
        self.failed = 0

    def decide(self, chunk: Chunk, results: list[Prepared | InvalidImage]) -> Outcome:
        """Decide about each image of a chunk; chunks come in the sources' order."""
        keys = [result.key for result in results if isinstance(result, Prepared)]
        with self._lock:  # before the catalog is queried, since a commit may follow
            pending, moved = self._keys.intersection(keys), self._moved.intersection(keys)
            recorded = self._places.intersection(zip(chunk.uris, map(_key, results), strict=True))
        committed = self._catalog.images_of_keys(keys)
        recorded.update((uri, key) for key, (_, uri) in committed.items())
        # Images whose place this job gave to other content; these are restored.
        removed = self._catalog.removed_since(
            [key for key in keys if key not in committed and key not in pending], self._begun
        )
        taken = pending | committed.keys() | removed
        roots = self._catalog.sources()
        lost = removed - moved | self._lost(
            [committed[key][1] for key in committed.keys() - pending - moved], roots
        )
        outcome = Outcome()
        changes = outcome.changes
        changes.gone += [file.key for file in chunk.further if is_gone_at(file.first, roots)]
        changes.relabelled += chunk.relabelled
        changes.labelled += chunk.labelled
        changes.readable += [uri for uri in chunk.unchanged if uri in chunk.failed]
        outcome.counts.update(unchanged=len(chunk.unchanged), skipped=chunk.skipped)
        for image, uri, result in zip(chunk.images, chunk.uris, results, strict=True):
            if isinstance(result, InvalidImage):
                changes.failures.append(Failure(uri, str(result), image.size, image.mtime))
                continue
            if uri in chunk.failed:
                changes.readable.append(uri)
            if uri not in chunk.known and (uri, result.key) in recorded:  # by another source
                outcome.counts["unchanged"] += 1
                note_label(changes, image, uri)
                continue
            if self._is_new(outcome, image, uri, result.key, taken, lost, chunk.known.get(uri)):
                changes.images.append(_new_image(image, uri, result))
                outcome.new.append(result)
                taken.add(result.key)
        outcome.counts.update(indexed=len(changes.images), failed=len(changes.failures))
        self.failed += len(changes.failures)
        with self._lock:
            self._keys.update(image.key for image in changes.images)
            self._moved.update(place.key for place in changes.found if place.is_moved)
            self._places |= _places(changes)
        return outcome

    def committed(self, changes: Changes) -> None:
        """Forget changes that the catalog has by now. Called by the committing thread."""
        with self._lock:
            self._keys.difference_update(image.key for image in changes.images)
            self._moved.difference_update(place.key for place in changes.found)
            self._places -= _places(changes)

    def _lost(self, uris: Sequence[str], roots: Mapping[str, Path]) -> set[bytes]:
        """Keys of the images whose first place, at one of these uris, is lost."""
        recorded = self._catalog.known_files(uris)
        return {file.key for uri, file in recorded.items() if is_lost(uri, file, roots)}

    def _is_new(
        self,
        outcome: Outcome,
        image: SourceImage,
        uri: str,
        key: bytes,
        taken: set[bytes],
        lost: set[bytes],
        old: KnownFile | None,
    ) -> bool:
        """Whether the gallery lacks this content; if not, record the image's outcome.

        taken: keys that the gallery has or will have. lost: those of them whose first place is
        lost; the next place is where they were moved.
        """
        changes = outcome.changes
        if old is not None and old.key == key:
            changes.touched.append((uri, image.size, image.mtime))
            note_label(changes, image, uri, old)
            outcome.counts["unchanged"] += 1
            return False
        if old is not None:
            changes.dropped.append((uri, old.key))
        if key not in taken:
            return True
        is_moved = key in lost
        changes.found.append(
            FoundPlace(key, uri, image.label, image.size, image.mtime, image.label_given, is_moved)
        )
        lost.discard(key)
        outcome.counts["moved" if is_moved else "duplicates"] += 1
        return False


def _key(result: Prepared | InvalidImage) -> bytes | None:
    return result.key if isinstance(result, Prepared) else None


def _places(changes: Changes) -> set[tuple[str, bytes | None]]:
    places = {(image.uri, image.key) for image in changes.images}
    return places | {(place.uri, place.key) for place in changes.found}


def _new_image(image: SourceImage, uri: str, result: Prepared) -> NewImage:
    return NewImage(
        key=result.key,
        uri=uri,
        label=image.label,
        label_given=image.label_given,
        width=result.width,
        height=result.height,
        size=image.size,
        mtime=image.mtime,
    )
