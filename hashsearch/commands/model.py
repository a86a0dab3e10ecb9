"""`model`: look at one."""

import argparse
from pathlib import Path

from hashsearch.commands.arguments import Commands, add_command
from hashsearch.commands.output import print_entries


def add(commands: Commands) -> None:
    model = commands.add_parser("model", help="look at a model")
    parts = model.add_subparsers(required=True, metavar="COMMAND")
    info = add_command(parts, "info", _info, "what it is and how it was trained")
    info.add_argument(
        "model", metavar="M", type=Path, nargs="?", help="the bundled one unless given"
    )
    info.add_argument("--json", action="store_true")


def _info(options: argparse.Namespace) -> int:
    from hashsearch.models import AUTOENCODERS
    from hashsearch.models.card import PRETRAINED, read_card
    from hashsearch.models.storage import load_model

    folder = options.model or PRETRAINED
    card = read_card(folder)
    if card.kind in AUTOENCODERS:  # others, such as a teacher's, have no codes to rely on
        load_model(folder)  # refuses weights that are not the card's
    if options.json:
        print(card.to_json(), end="")
        return 0
    others = {name: card.training.get(name) for name in ("start", "teacher")}  # models
    entries = {
        "kind": card.kind,
        **card.architecture,
        "bits": card.bits,
        "fingerprint": card.fingerprint,
        **{n: value for n, value in card.training.items() if n not in ("settings", *others)},
        **{n: other.get("fingerprint") for n, other in others.items() if isinstance(other, dict)},
        **card.metrics,
    }
    print_entries(entries, as_json=False)
    return 0
