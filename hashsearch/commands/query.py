"""`query`: find an image's neighbours."""

import argparse
import json
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from hashsearch.codes import CODE_BYTES, code_from_hex
from hashsearch.columns import aligned
from hashsearch.commands.arguments import Commands, add_command, add_gallery
from hashsearch.commands.output import shown
from hashsearch.errors import InvalidImage, InvalidQuery
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hashsearch.retrieval.searcher import Ranking

_MAX_ID_DIGITS = 18  # a longer number is a code that happens to have no letter


def add(commands: Commands) -> None:
    query = add_command(commands, "query", _query, "find an image's neighbours")
    query.add_argument("query", metavar="IMAGE|ID|CODE")
    add_gallery(query)
    query.add_argument("-k", type=int, help="most hits (default: 10, or all within --radius)")
    query.add_argument("--radius", metavar="R", type=int, help="greatest distance, inclusive")
    query.add_argument("--method", choices=tuple(SERVED), default=DEFAULT_METHOD)
    query.add_argument("--json", action="store_true")


def _query(options: argparse.Namespace) -> int:
    from hashsearch.face import open as open_gallery

    if Path(options.query).is_file():
        # Torch takes seconds to import; the indexes are built meanwhile.
        Thread(target=import_module, args=("hashsearch.encoder",), daemon=True).start()
    with open_gallery(options.gallery) as gallery:
        query = _parse_query(options.query)
        try:
            ranking = gallery.rank(query, options.k, radius=options.radius, method=options.method)
        except InvalidImage as error:
            if Path(options.query).is_file():
                raise
            raise InvalidQuery(
                f"'{options.query}' is neither an image file, an id of the gallery, the path of "
                f"one of its images, nor a code of {2 * CODE_BYTES} hexadecimal digits"
            ) from error
    if ranking.hits or options.json:
        _print_hits(ranking, as_json=options.json)
    else:
        unit = SERVED[ranking.method].unit.removesuffix("s")
        within = "" if options.radius is None else f" within {counted(options.radius, unit)}"
        print(f"no image found{within}")
    return 0


def _parse_query(text: str) -> "Path | int | NDArray[np.uint8]":
    """Read a query as a path of an image file, an id, a code or another path, in this order."""
    if Path(text).is_file():
        return Path(text)
    if text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS:
        return int(text)
    if len(text) >= CODE_BYTES and all(c in "0123456789abcdefABCDEF" for c in text):
        return code_from_hex(text)
    return Path(text)


def _print_hits(ranking: "Ranking", *, as_json: bool) -> None:
    unit = SERVED[ranking.method].unit
    if as_json:
        answer = {
            "method": ranking.method,
            "unit": unit,
            "latency_ms": round(ranking.latency_ms, 3),
            "hits": [
                {
                    "id": hit.id,
                    "distance": hit.distance,
                    "closeness": hit.closeness,
                    "label": hit.label,
                    "uri": hit.uri,
                    "path": hit.path,
                    "missing": hit.missing,
                }
                for hit in ranking.hits
            ],
        }
        print(json.dumps(answer, indent=2))
        return
    meant = any(hit.closeness for hit in ranking.hits)  # of all hits or of none
    table = [(unit, *(["closeness"] if meant else []), "id", "label", "image")]
    table += [
        (
            f"{hit.distance:,}",
            *([hit.closeness] if hit.closeness else []),
            str(hit.id),
            shown(hit.label or ""),
            shown(hit.path) + (" (gone)" if hit.missing else ""),
        )
        for hit in ranking.hits
    ]
    print("\n".join(aligned(table, "><><<" if meant else ">><<")))
