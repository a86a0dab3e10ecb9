"""`query`: find an image's neighbours."""

import argparse
import json
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from hashsearch.codes import CODE_BYTES, code_from_hex
from hashsearch.columns import aligned
from hashsearch.commands.arguments import Commands, add_command, add_gallery, add_list
from hashsearch.commands.output import shown
from hashsearch.errors import InvalidImage, InvalidQuery
from hashsearch.inputs import shortened
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hashsearch.retrieval.ranking import Ranking

_MAX_ID_DIGITS = 18  # a longer number is a code that happens to have no letter


def add(commands: Commands) -> None:
    query = add_command(commands, "query", _query, "find an image's neighbours")
    query.add_argument(
        "query",
        metavar="IMAGE|ID|CODE",
        nargs="?",
        help="what to search for; it comes before options that take several values",
    )
    add_gallery(query)
    query.add_argument("-k", type=int, help="most hits (default: 10, or all within --radius)")
    query.add_argument(
        "--radius",
        metavar="R",
        type=int,
        help="greatest distance, inclusive, in the unit of the method",
    )
    titles = ", ".join(
        f"{name} ({method.title[0].lower()}{method.title[1:]})" for name, method in SERVED.items()
    )
    query.add_argument(
        "--method",
        choices=tuple(SERVED),
        default=DEFAULT_METHOD,
        help=f"how images are compared: {titles} (default: {DEFAULT_METHOD})",
    )
    query.add_argument(
        "--index",
        choices=tuple(KINDS),
        help="exact (the default), or an index that `gallery build` built",
    )
    query.add_argument("--label", metavar="L", help="only images with this label")
    query.add_argument(
        "--uri-prefix", metavar="P", help="only images of this file, folder or archive, or uri"
    )
    add_list(query, "--ids", int, metavar="ID", help="only these images")
    add_list(query, "--exclude", int, metavar="ID", help="none of these images")
    query.add_argument(
        "--like",
        metavar="IMAGE|ID|CODE",
        nargs="+",
        action="extend",
        default=[],
        help="examples: images are ranked by the sum of distances to the query and these",
    )
    query.add_argument(
        "--unlike",
        metavar="IMAGE|ID|CODE",
        nargs="+",
        action="extend",
        default=[],
        help="counterexamples, whose distances are subtracted",
    )
    query.add_argument(
        "--crop", metavar="L,T,R,B", help="search for a part of an image file, in fractions of it"
    )
    query.add_argument(
        "--transforms",
        action="store_true",
        help="search for the image's mirror image, shifts and crops too",
    )
    query.add_argument("--json", action="store_true")


def _query(options: argparse.Namespace) -> int:
    from hashsearch.face import open as open_gallery

    named = [one for one in (options.query, *options.like, *options.unlike) if one is not None]
    if any(Path(one).is_file() for one in named) or options.transforms:
        # Torch takes seconds to import; the indexes are built meanwhile.
        Thread(target=import_module, args=("hashsearch.encoder",), daemon=True).start()
    with open_gallery(options.gallery) as gallery:
        try:
            ranking = gallery.rank(
                None if options.query is None else _parse_query(options.query),
                options.k,
                radius=options.radius,
                method=options.method,
                index=options.index or DEFAULT_KIND,  # nothing is loaded for one search
                label=options.label,
                uri_prefix=options.uri_prefix,
                ids=options.ids,
                exclude=options.exclude,
                like=[_parse_query(one) for one in options.like],
                unlike=[_parse_query(one) for one in options.unlike],
                crop=options.crop,
                transforms=options.transforms,
            )
        except InvalidImage as error:
            for one in named:
                if not Path(one).is_file() and str(error).startswith(shortened(one)):
                    raise InvalidQuery(
                        f"'{one}' is neither an image file, an id of the gallery, the path of one "
                        f"of its images, nor a code of {2 * CODE_BYTES} hexadecimal digits"
                    ) from error
            raise
    if ranking.hits or options.json:
        unit = SERVED[ranking.method].unit
        if options.like or options.unlike:
            unit = f"sum of {unit}"
        _print_hits(ranking, unit, as_json=options.json)
    else:
        unit = SERVED[ranking.method].unit.removesuffix("s")
        within = "" if options.radius is None else f" within {counted(options.radius, unit)}"
        chosen = options.label, options.uri_prefix, options.ids, options.exclude
        among = " among the chosen ones" if any(chosen) else ""
        print(f"no image found{within}{among}")
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


def _print_hits(ranking: "Ranking", unit: str, *, as_json: bool) -> None:
    if as_json:
        answer = {
            "method": ranking.method,
            "index": ranking.index,
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
            shown(hit.path or hit.uri) + (" (gone)" if hit.missing else ""),
        )
        for hit in ranking.hits
    ]
    print("\n".join(aligned(table, "><><<" if meant else ">><<")))
