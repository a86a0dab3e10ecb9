"""What a catalog says of the places of images: the uris at which their contents were found."""

import os
from collections.abc import Mapping, Sequence

from hashsearch.gallery.catalog_file import CatalogFile, marks, parts
from hashsearch.gallery.records import KnownFile, Place
from hashsearch.sources.base import added_path, locate, split_uri


class CatalogPlaces(CatalogFile):
    """An image has a first place, in the table `images`, and perhaps others, in `places`."""

    def known_files(self, uris: Sequence[str]) -> dict[str, KnownFile]:
        """The recorded files at these uris, by uri, without uris that the gallery does not hold."""
        found = {}
        for part in parts(uris, 250):
            query = (
                "SELECT uri, size, mtime, key, label, label_given = 2, uri FROM images "
                f"WHERE removed = 0 AND uri IN ({marks(part)}) UNION ALL "
                "SELECT p.uri, p.size, p.mtime, i.key, p.label, p.label_given, i.uri FROM places p "
                f"JOIN images i ON i.id = p.image WHERE p.uri IN ({marks(part)})"
            )
            for uri, size, mtime, key, label, given, first in self._rows(query, (*part, *part)):
                found[uri] = KnownFile(size, mtime, key, label, bool(given), first)
        return found

    def places(self, ids: Sequence[int], most: int | None = None) -> dict[int, list[Place]]:
        """The places of these images' contents, by id, the first place first.

        most: how many places of an image beside its first; None means all.
        """
        roots = dict(self._rows("SELECT name, root FROM sources"))
        found: dict[int, list[Place]] = {}
        for part in parts(ids, 250):
            query = (
                f"SELECT id, 0, uri, label FROM images WHERE removed = 0 AND id IN ({marks(part)})"
                " UNION ALL SELECT i.id, p.id, p.uri, iif(i.label_given, i.label, p.label) "
                "FROM images i CROSS JOIN places p ON p.id IN "  # images first
                "(SELECT id FROM places WHERE image = i.id ORDER BY id LIMIT ?) "
                f"WHERE i.id IN ({marks(part)}) ORDER BY 2"
            )
            values = (*part, -1 if most is None else most, *part)
            for image_id, _, uri, label in self._rows(query, values):
                found.setdefault(image_id, []).append(Place(uri, path_at(uri, roots), label))
        return found

    def sizes_and_times(self, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Size in bytes, and oldest time of change in nanoseconds, of these images, by id."""
        found = {}
        for part in parts(ids):
            query = (
                "SELECT id, size, min(mtime, ifnull((SELECT min(p.mtime) FROM places p "
                "WHERE p.image = images.id), mtime)) FROM images "
                f"WHERE removed = 0 AND id IN ({marks(part)})"
            )
            found.update({number: (size, mtime) for number, size, mtime in self._rows(query, part)})
        return found

    def path(self, uri: str) -> str:
        """The path that a uri stands for, for people."""
        return path_at(uri, dict(self._rows("SELECT name, root FROM sources")))

    def uris_under(self, prefix: str, after: str = "", most: int | None = None) -> list[str]:
        """Uris of all places at or below a prefix that follow `after`, sorted; at most `most`."""
        where, values = at_or_below("uri", prefix, after)
        query = (
            f"SELECT uri FROM images WHERE removed = 0 AND {where} UNION ALL "
            f"SELECT uri FROM places WHERE {where} ORDER BY uri LIMIT ?"
        )
        limit = -1 if most is None else most
        return [uri for (uri,) in self._rows(query, (*values, *values, limit))]

    def count_under(self, prefix: str) -> int:
        """Number of places at or below a prefix."""
        where, values = at_or_below("uri", prefix)
        query = (
            f"SELECT (SELECT count(*) FROM images WHERE removed = 0 AND {where}) + "
            f"(SELECT count(*) FROM places WHERE {where})"
        )
        return int(self._rows(query, (*values, *values))[0][0])

    def first_in_a_folder(self, start: str, end: str, skipped: int) -> str | None:
        """The first uri of a place from start to end, exclusive, that lies in a folder.

        Its first so many characters are skipped; then a separator, with something after it, shows
        a folder, an archive or a file of many images.
        """
        where = "uri >= ? AND uri < ? AND substr(uri, ?) GLOB '*[/!#]?*' ORDER BY uri LIMIT 1"
        query = (
            f"SELECT min(uri) FROM (SELECT * FROM (SELECT uri FROM images WHERE removed = 0 "
            f"AND {where}) UNION ALL SELECT * FROM (SELECT uri FROM places WHERE {where}))"
        )
        values = (start, end, skipped + 1)
        found: str | None = self._rows(query, values * 2)[0][0]
        return found

    def count_between(self, *edges: str) -> int:
        """Number of images that have a place whose uri lies in one of some ranges.

        edges: the start of a range and its end, exclusive, then those of the next range.
        """
        ranges = len(edges) // 2
        once = "(SELECT count(*) FROM images WHERE removed = 0 AND uri >= ? AND uri < ?)"
        first, further = (
            " OR ".join([f"{table}.uri >= ? AND {table}.uri < ?"] * ranges) for table in "ip"
        )
        query = (
            f"SELECT {' + '.join([once] * ranges)} + (SELECT count(DISTINCT i.id) "
            "FROM places p JOIN images i ON i.id = p.image "
            f"WHERE i.removed = 0 AND ({further}) AND NOT ({first}))"
        )
        return int(self._rows(query, edges * 3)[0][0])

    def count_only_under(self, prefixes: Sequence[str]) -> tuple[int, int]:
        """Numbers of the images with places at or below these prefixes alone, and elsewhere too."""
        ranges = [at_or_below("uri", prefix) for prefix in prefixes]
        where = " OR ".join(f"({condition})" for condition, _ in ranges)
        values = [value for _, some in ranges for value in some]
        query = (
            "SELECT coalesce(sum(NOT elsewhere), 0), coalesce(sum(elsewhere), 0) FROM (SELECT "
            f"EXISTS (SELECT 1 FROM images WHERE id = found.id AND NOT ({where})) OR "
            f"EXISTS (SELECT 1 FROM places WHERE image = found.id AND NOT ({where})) AS elsewhere "
            f"FROM (SELECT id FROM images WHERE removed = 0 AND ({where}) "
            f"UNION SELECT image FROM places WHERE {where}) AS found)"
        )
        ((only, elsewhere),) = self._rows(query, values * 4)
        return only, elsewhere

    def ids_at(self, uris: Sequence[str]) -> list[int]:
        """Ids of the images that have a place at these uris, in no order, perhaps repeatedly."""
        found: list[int] = []
        for part in parts(uris, 250):
            query = (
                f"SELECT id FROM images WHERE removed = 0 AND uri IN ({marks(part)}) "
                f"UNION ALL SELECT image FROM places WHERE uri IN ({marks(part)})"
            )
            found += [image_id for (image_id,) in self._rows(query, (*part, *part))]
        return found


def at_or_below(column: str, prefix: str, after: str = "") -> tuple[str, tuple[str | int, ...]]:
    """An SQL condition for uris at or below a prefix that follow `after`, and its parameters.

    A prefix ends where a part of a path ends: `photos/Urlaub` has `photos/Urlaub/1.jpg` below it,
    and neither `photos/Urlaub 2024/1.jpg` nor `photos/Urlaub.jpg`. One range of an index that is
    ordered by uri has them all, and little else.
    """
    first, *values = (">", after) if after >= prefix else (">=", prefix)
    if prefix.endswith(("/", "!", "#")):
        return f"{column} {first} ? AND {column} < ?", (*values, prefix + "\U0010ffff")
    condition = (
        f"{column} {first} ? AND {column} < ? "  # of the three, "/" is the last; "0" follows it
        f"AND ({column} = ? OR substr({column}, ?, 1) IN ('/', '!', '#'))"
    )
    return condition, (*values, prefix + "0", prefix, len(prefix) + 1)


def path_at(uri: str, roots: Mapping[str, bytes]) -> str:
    """The path that a uri stands for, for people. roots: path of each source, by its name."""
    name, place = split_uri(uri)
    return locate(os.fsdecode(roots[name]), place) if name in roots else added_path(uri) or uri
