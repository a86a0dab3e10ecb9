"""Leaving out images of a source by patterns of their paths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import SourceImage, decode_path, valid_text
from hashsearch.sources.folder import printable


class Excludes:
    """Patterns of paths within a source, as in a .gitignore file.

    `Screenshots/` matches folders of this name, `*.gif` files, `/a/*.jpg` only files directly in
    the source's folder `a`, and `!a/keep.jpg` takes a file back in. Raises InvalidSource.
    """

    def __init__(self, patterns: Sequence[str]):
        for pattern in patterns:
            require_pattern(pattern)
        self._spec = GitIgnoreSpec.from_lines(patterns)

    def match(self, place: str) -> bool:
        """Whether the image at a place is left out. place: as in SourceImage."""
        path = decode_path(place.partition("#")[0].lstrip("!/"))
        return bool(path) and self._spec.match_file(path)


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
