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
    from hashsearch.models.card import PRETRAINED
    from hashsearch.models.folder import load_model

    _, card = load_model(options.model or PRETRAINED)
    if options.json:
        print(card.to_json(), end="")
        return 0
    start = card.training.get("start")  # not in the cards of models before there was one
    entries = {
        "kind": card.kind,
        **card.architecture,
        "bits": card.bits,
        "fingerprint": card.fingerprint,
        **{key: value for key, value in card.training.items() if key not in ("settings", "start")},
        **({"start": start.get("fingerprint")} if isinstance(start, dict) else {}),
        **card.metrics,
    }
    print_entries(entries, as_json=False)
    return 0
