"""Leaving out images of a source by patterns of their paths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from pathspec import GitIgnoreSpec
from pathspec.pattern import Pattern

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import Source, SourceImage, decode_path, valid_text
from hashsearch.sources.folder import printable


class Excludes:
    """Patterns of paths within a source, as in a .gitignore file.

    `Screenshots/` matches folders of this name, `*.gif` files, `/a/*.jpg` only files directly in
    the source's folder `a`, and `!a/keep.jpg` takes a file back in. Accented letters match
    however they are composed: macOS stores names in Unicode's NFD, and most keyboards type NFC.
    Raises InvalidSource.
    """

    def __init__(self, patterns: Sequence[str]):
        for pattern in patterns:
            require_pattern(pattern)
        self._spec = GitIgnoreSpec.from_lines(map(_composed, patterns))

    def match(self, place: str) -> bool:
        """Whether the image at a place is left out. place: as in SourceImage."""
        path = _path_of(place)
        return bool(path) and self._spec.match_file(path)


class TriedSource:
    """A source that finds out which patterns match none of the paths that it yields.

    unmatched: the patterns for which no path was found yet; it may be shared with other sources.
    """

    def __init__(self, source: Source, unmatched: dict[str, Pattern]):
        self.root = source.root
        self.passed_over, self.remarks = source.passed_over, source.remarks
        self.is_whole, self.is_folder = source.is_whole, source.is_folder
        self._source, self._unmatched = source, unmatched

    def estimate(self) -> int | None:
        return self._source.estimate()

    def __iter__(self) -> Iterator[SourceImage]:
        for image in self._source:
            path = _path_of(image.place) if self._unmatched else ""
            for text, pattern in list(self._unmatched.items()):
                if pattern.match_file(path):
                    del self._unmatched[text]
            yield image


def pattern_of(text: str) -> Pattern:
    """A pattern that is alone, without regard to a `!` before it. Raises InvalidSource."""
    require_pattern(text)
    (pattern,) = GitIgnoreSpec.from_lines([_composed(text)]).patterns
    return pattern


def _path_of(place: str) -> str:
    return _composed(decode_path(place.partition("#")[0].lstrip("!/")))


def _composed(text: str) -> str:
    return normalize("NFC", text)


def require_pattern(pattern: str) -> None:
    """Raise InvalidSource if a pattern is empty, no valid text, or cannot be understood."""
    if valid_text(pattern) != pattern:
        raise InvalidSource(
            f"{printable(pattern)!r} is not valid UTF-8; in a pattern, ? stands for any character"
        )
    try:
        (one,) = GitIgnoreSpec.from_lines([pattern]).patterns
    except ValueError as error:
        raise InvalidSource(f"{pattern!r} is no pattern of paths") from error
    if one.include is None:
        raise InvalidSource(f"{pattern!r} matches no path; a pattern is such as '*.gif' or 'a/'")


@dataclass(slots=True)
class RestOfSource:
    """The images of a source that no pattern leaves out.

    excluded: number of those left out so far.
    """

    source: Iterable[SourceImage]
    excludes: Excludes
    excluded: int = 0

    def __iter__(self) -> Iterator[SourceImage]:
        self.excluded = 0
        for image in self.source:
            if self.excludes.match(image.place):
                self.excluded += 1
            else:
                yield image
