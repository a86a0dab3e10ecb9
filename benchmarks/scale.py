"""The sizing model of docs/scale.md: what far more images would take than were ever tried here.

    python -m benchmarks.scale      # writes the tables of docs/scale.md

Every figure is measured (and says where), assumed, or computed from those.
"""

from collections.abc import Callable
from math import ceil, log10
from pathlib import Path
from typing import NamedTuple

from benchmarks.quoting import replaced
from hashsearch.search.ivf import lists_for

PAGE = Path(__file__).parents[1] / "docs/scale.md"


class Figure(NamedTuple):
    """A figure that the model is made of. source: where it was measured; None: it is assumed."""

    value: float
    what: str
    source: str | None


_IVF = "fitted to [benchmarks.md](benchmarks.md): 16 to 128 lists of a million and of 10 million"
_FAN_OUT = "[cluster.md](cluster.md#what-it-costs), all processes on two cores"
FIGURES = {
    "photographs": Figure(
        200, "photographs a second that a core decodes and encodes", "[indexing.md](indexing.md)"
    ),
    "committed": Figure(
        10_900, "images a second that one job commits", "`python -m benchmarks.cluster_indexing`"
    ),
    "results": Figure(8_170, "bytes that a worker sends back of a photograph", "the same command"),
    "file": Figure(110_000, "bytes of a photograph", "[indexing.md](indexing.md)"),
    "disk": Figure(
        7_800,
        "bytes on disk of a photograph: pixels 3,072, thumbnail 4,500, code, address, catalog 200",
        "[indexing.md](indexing.md)",
    ),
    "base_ms": Figure(0.049, "ms of a search by `ivf`", _IVF),
    "list_ms": Figure(5.9e-6, "ms more for each list there is", "the same"),
    "code_ms": Figure(2.4e-6, "ms more for each code that is compared", "the same"),
    "nprobe": Figure(31, "lists to visit of ten million codes for a recall of .95", "the same"),
    "growth": Figure(
        1.7, "times as many lists to visit for ten times the codes", "the same, of one step only"
    ),
    "ask_ms": Figure(2.4, "ms to ask one machine of a cluster", _FAN_OUT),
    "part_ms": Figure(1.8, "ms more for each further machine, at most", _FAN_OUT),
    "cores": Figure(32, "cores of a machine", None),
    "memory": Figure(128e9, "bytes of its memory, of which three quarters are used", None),
    "bandwidth": Figure(150e9, "bytes a second that it reads from memory", None),
    "network": Figure(1.25e9, "bytes a second of its network (10 Gbit/s)", None),
    "replicas": Figure(2, "copies of every code in memory", None),
}
_LOADED = 2  # times that codes and lists are in memory while a gallery that grew is loaded again
_MOST_CODES = 2**32  # of a gallery
SIZES = (10**8, 10**9, 10**10)
_CODE, _LISTED = 32, 40  # bytes of memory of a machine: a code, and its place in a list of ivf
_SERVED = 8 + 6 + 2  # bytes of the service's: an id, where its code is stored, its list
_SECONDS_AN_HOUR = 3600


def _value(name: str) -> float:
    return FIGURES[name].value


def galleries(images: int) -> int:
    """Galleries that hold so many images, of equal size; all are searched at the same time."""
    return ceil(images / _MOST_CODES)


def machines(images: float) -> int:
    """Machines that hold a gallery's codes in memory, as often as there are replicas, with ivf's
    lists; twice, since a gallery that grew is loaded again beside what is searched."""
    room = 0.75 * _value("memory")
    return max(ceil(images * (_CODE + _LISTED) * _value("replicas") * _LOADED / room), 2)


def hours_to_encode(images: int, cores: float) -> float:
    """Hours to decode and encode photographs, at most as fast as one job commits."""
    rate = min(cores * _value("photographs"), _value("committed"))
    return images / rate / _SECONDS_AN_HOUR


def fan_out_ms(count: int) -> float:
    """Milliseconds that asking so many machines takes beside their search, and the network."""
    return _value("ask_ms") + _value("part_ms") * (count - 1)


def exact_ms(images: float, count: int) -> float:
    """Milliseconds of one exact search by so many machines: the codes are read once."""
    return 1000 * images * _CODE / (count * _value("bandwidth")) + fan_out_ms(count)


def visited_lists(images: float) -> float:
    return _value("nprobe") * _value("growth") ** (log10(images) - 7)


def ivf_ms(images: float, count: int) -> float:
    """Milliseconds of one search by ivf, of which every machine does its part in one thread."""
    lists = lists_for(round(images))
    compared = visited_lists(images) * images / lists
    own = _value("list_ms") * lists + _value("code_ms") * compared / count
    return _value("base_ms") + own + fan_out_ms(count)


def rows() -> list[tuple[str, ...]]:
    """The table: a row a quantity, a column a number of images."""
    saturating = ceil(_value("committed") / _value("photographs") / _value("cores"))
    committed = _value("committed")

    def each(what: str, text: Callable[[int], str]) -> tuple[str, ...]:
        return (what, *(text(images) for images in SIZES))

    def of_gallery(what: str, ms: Callable[[float, int], float]) -> tuple[str, ...]:
        def text(images: int) -> str:
            own = images / galleries(images)
            return _ms(ms(own, machines(own)))

        return each(what, text)

    return [
        each("codes", lambda n: _bytes(n * _CODE)),
        each("memory of the service", lambda n: _bytes(n * _SERVED)),
        each("lists of `ivf`", lambda n: _bytes(n * _LISTED)),
        each("disk of the gallery", lambda n: _bytes(n * _value("disk"))),
        each("galleries", lambda n: f"{galleries(n)}"),
        each("machines to search", lambda n: f"{galleries(n) * machines(n / galleries(n)):,}"),
        of_gallery("a fan-out, at most", lambda images, count: fan_out_ms(count)),
        of_gallery("exact search, with it", exact_ms),
        of_gallery("search by `ivf`, with it", ivf_ms),
        each("hours to encode, 2 cores", lambda n: _hours(hours_to_encode(n, 2))),
        each("hours, one machine", lambda n: _hours(hours_to_encode(n, _value("cores")))),
        each(f"hours, {saturating} machines", lambda n: _hours(hours_to_encode(n, 1e9))),
        each(
            "network of the job then, results",
            lambda n: f"{_bytes(committed * _value('results'))}/s",
        ),
        each(
            "and files, if it sends them",
            lambda n: (
                f"{_bytes(committed * _value('file'))}/s, "
                f"{committed * _value('file') / _value('network'):.1f} networks"
            ),
        ),
    ]


def section() -> str:
    """The two tables, as Markdown."""
    heads = ("computed for", *(f"10{_SUPERSCRIPT[round(log10(n))]} images" for n in SIZES))
    model = [heads, ("---",) * len(heads), *rows()]
    figures = [("figure", "", "measured by"), ("---",) * 3]
    for figure in FIGURES.values():
        shown = f"{figure.value:,.7g}" if figure.value < 1e6 else _bytes(figure.value)
        figures.append((figure.what, shown, figure.source or "**assumed**"))
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in t) for t in (model, figures))


_SUPERSCRIPT = {8: "⁸", 9: "⁹", 10: "¹⁰"}


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}"
    return f"{count:,.0f} bytes"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.3g} ms"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"


def main() -> None:
    PAGE.write_text(replaced(PAGE.read_text(), "benchmarks.scale", section()))


if __name__ == "__main__":
    main()
