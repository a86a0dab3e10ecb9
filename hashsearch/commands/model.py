"""`model`: inspect a model."""

import argparse

from hashsearch.commands.arguments import Commands, add_command, model
from hashsearch.commands.output import print_entries
from hashsearch.models.card import A_MODEL, BUNDLED


def add(commands: Commands) -> None:
    parser = commands.add_parser("model", help="inspect a model")
    parts = parser.add_subparsers(required=True, metavar="COMMAND")
    info = add_command(parts, "info", _info, "show what a model is and how it was trained")
    info.add_argument(
        "model",
        metavar="M",
        type=model,
        nargs="?",
        default=BUNDLED,
        help=f"{A_MODEL} (default: bundled)",
    )
    info.add_argument("--json", action="store_true")


def _info(options: argparse.Namespace) -> int:
    from hashsearch.models import AUTOENCODERS
    from hashsearch.models.card import read_card
    from hashsearch.models.storage import read_model

    card = read_card(options.model)
    if card.kind in AUTOENCODERS:  # other kinds, such as a teacher, make no codes
        read_model(options.model)  # fails if the weights do not match the card
    if options.json:
        print(card.to_json(), end="")
        return 0
    others = {
        name: card.training.get(name) for name in ("start", "teacher")
    }  # models it was made from
    entries = {
        "kind": card.kind,
        **card.architecture,
        "bits": card.bits,
        "fingerprint": card.fingerprint,
        "closeness": card.closeness.as_dict() if card.closeness else "not measured",
        **{n: value for n, value in card.training.items() if n not in ("settings", *others)},
        **{n: other.get("fingerprint") for n, other in others.items() if isinstance(other, dict)},
        **card.metrics,
    }
    print_entries(entries, as_json=False)
    return 0
