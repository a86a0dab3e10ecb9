"""`gallery`: inspect, check and maintain a gallery."""

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.commands.arguments import (
    WHEN_STOPPED,
    Commands,
    add_command,
    add_gallery,
    add_list,
    model,
    whole,
)
from hashsearch.commands.gallery_info import as_json, as_lines, index_as_json, index_line, unusable
from hashsearch.commands.output import print_entries, readable, shown
from hashsearch.errors import InvalidQuery
from hashsearch.models.card import A_MODEL
from hashsearch.retrieval.kinds import KINDS, RECALL
from hashsearch.stopping import stop_on_sigterm
from hashsearch.wording import counted

if TYPE_CHECKING:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.removing import Selected

_SAMPLE = 256
_FEW = 10  # images that are removed without asking
_SHOWN = 10  # paths that a dry run names


def add(commands: Commands) -> None:
    gallery = commands.add_parser("gallery", help="inspect, check and maintain a gallery")
    parts = gallery.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("info", _info, "show what a gallery holds, and its last job"),
        ("failures", _failures, "list images that could not be read, and why"),
        ("verify", _verify, "check every checksum, and a sample of the codes"),
        ("duplicates", _duplicates, "list groups of near-equal pictures; deletes nothing"),
        ("remove", _remove, "remove images from a gallery"),
        ("relocate", _relocate, "record that files have moved to another folder"),
        ("compact", _compact, "free the space of removed images, and join small shards"),
        ("reencode", _reencode, "compute the codes again from the stored pixels"),
        ("build", _build, "build indexes of the codes, and measure what they find"),
    ):
        command = add_command(parts, name, run, text)
        add_gallery(command, positional=True)
        form = command.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true")
        if name == "duplicates":
            form.add_argument("--csv", action="store_true", help="one row for each file")
            command.add_argument(
                "--radius",
                metavar="R",
                type=whole,
                help="most bits in which two near-equal pictures differ, inclusive "
                "(default: what the model's card says of copies)",
            )
        if name == "verify":
            command.add_argument(
                "--sample",
                metavar="N",
                type=whole,
                default=_SAMPLE,
                help=f"number of codes to compute again (default: {_SAMPLE})",
            )
        if name == "remove":
            chosen = command.add_mutually_exclusive_group(required=True)
            add_list(chosen, "--id", whole, metavar="ID")
            chosen.add_argument(
                "--uri", metavar="PATH", help="a file, a folder, an archive or what is in it"
            )
            chosen.add_argument("--label", metavar="L")
            chosen.add_argument(
                "--shard", metavar="N", type=whole, help="all images of a damaged shard"
            )
            command.add_argument(
                "--dry-run", action="store_true", help="only say what would be removed"
            )
            command.add_argument(
                "--yes", action="store_true", help=f"remove more than {_FEW} without asking"
            )
            command.set_defaults(when_stopped="nothing was removed")
        if name == "relocate":
            command.add_argument(
                "--dry-run", action="store_true", help="only say what would be recorded"
            )
            command.add_argument("old", metavar="OLD", type=Path, help="former path")
            command.add_argument("new", metavar="NEW", type=Path, help="path now")
        if name == "reencode":
            command.set_defaults(when_stopped=WHEN_STOPPED)
            command.add_argument(
                "--model",
                metavar="M",
                type=model,
                help=f"move to this model: {A_MODEL} (default: keep the gallery's own)",
            )
        if name == "build":
            command.set_defaults(when_stopped="stopped; earlier indexes are kept")
            add_list(
                command,
                "--kind",
                str,
                metavar="KIND",
                help=f"{', '.join(KINDS)} (default: all that the gallery has the data for)",
            )
            command.add_argument(
                "--recall",
                metavar="R",
                type=_share,
                default=RECALL,
                help="share of the ten nearest images that an approximate index is to find "
                f"(default: {RECALL})",
            )
            command.add_argument(
                "--drop", action="store_true", help="delete what is stored of these indexes instead"
            )


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1; got {text!r}")


def _info(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.gallery.history import last_job

    gallery = GalleryFolder(options.gallery)
    job = last_job(gallery.catalog)
    if options.json:
        print(json.dumps(as_json(gallery, job), indent=2))
    else:
        print_entries(as_lines(gallery, job), as_json=False)
    gallery.close()
    return 0


def _failures(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder

    gallery = GalleryFolder(options.gallery)
    failures = gallery.catalog.failures()
    gallery.close()
    if options.json:
        rows = [
            {"uri": f.uri, "path": f.path, "reason": f.reason, "time": time} for f, time in failures
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not failures:
        print("no failures")
    for failure, time in failures:
        print(f"{time}  {shown(failure.path)}: {shown(failure.reason)}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.verifying import verify

    gallery = GalleryFolder(options.gallery)
    found = verify(gallery, options.sample)
    gallery.close()
    if options.json:
        findings = [{"what": finding.what, "mend": finding.mend} for finding in found.findings]
        counts = {
            name: getattr(found, name)
            for name in ("files", "file_bytes", "encoded", "different", "most_bits")
        }
        print(json.dumps(counts | {"findings": findings}, indent=2))
        return 1 if findings else 0
    are = "is" if found.files == 1 else "are"
    files = f"{counted(found.files, 'file')} of {readable(found.file_bytes)} {are} whole"
    differ = "differs" if found.different == 1 else "differ"
    differ = f"{found.different:,} {differ}, by up to {counted(found.most_bits, 'bit')}"
    result = differ if found.different else "none differs"
    codes = f"of {counted(found.encoded, 'code')} computed again, {result}"
    print(f"{files}; {codes if found.encoded else 'no codes were computed again'}")
    for finding in found.findings:
        print(f"{finding.what}\n  to repair it: {finding.mend}")
    return 1 if found.findings else 0


def _duplicates(options: argparse.Namespace) -> int:
    from hashsearch.commands.duplicates import print_csv, print_groups, print_json
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.retrieval.duplicates import default_radius, find_duplicates

    gallery = GalleryFolder(options.gallery)
    radius = default_radius(gallery.card()) if options.radius is None else options.radius
    groups = find_duplicates(gallery, radius)
    gallery.close()
    if options.json:
        print_json(groups, radius)
    elif options.csv:
        print_csv(groups)
    else:
        print_groups(groups, radius)
    return 0


def _remove(options: argparse.Namespace) -> int:
    from hashsearch.gallery.changes import Selection
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.gallery.places import uris_named
    from hashsearch.jobs.removing import remove, selected
    from hashsearch.sources.folder import printable

    if options.uri == "":
        raise InvalidQuery("an empty path matches every image; name what to remove")
    gallery = GalleryFolder(options.gallery)
    prefixes = None if options.uri is None else uris_named(gallery.catalog, options.uri)
    label = None if options.label is None else printable(options.label)
    selection = Selection(options.id, prefixes, label, options.shard)
    chosen = selected(gallery.catalog, selection, None if options.json else _SHOWN)
    expected = chosen.removal
    if not chosen.paths:
        given = (*(options.id or ()), options.uri, options.label, options.shard)
        asked = ", ".join(str(value) for value in given if value is not None)
        raise InvalidQuery(f"no image matches '{asked}'")
    unknown = len(set(options.id or ())) - expected.images if options.id else 0
    if unknown:
        print(f"not in the gallery: {unknown:,} of these ids", file=sys.stderr)
    if options.dry_run:
        _print_selected(options, chosen)
        return 0
    question = f"remove {counted(expected.images, 'image')}"
    if expected.kept:
        question += f", and these places of {counted(expected.kept, 'image')} found elsewhere too"
    is_large = expected.images + expected.kept > _FEW
    if is_large and not options.yes and not _confirmed(f"{question}?"):
        raise KeyboardInterrupt
    removed = remove(gallery.catalog, selection)
    total = gallery.catalog.count()
    gallery.close()
    if options.json:
        print(json.dumps({"removed": removed.images, "kept": removed.kept, "total": total}))
        return 0
    print(f"{options.gallery}: {counted(total, 'image')}; {removed.images:,} removed")
    if removed.kept:
        print(f"{counted(removed.kept, 'image')} kept, found elsewhere too")
    if removed.images:
        print(f"to free their space: hashsearch gallery compact {options.gallery}")
    return 0


def _print_selected(options: argparse.Namespace, chosen: "Selected") -> None:
    expected = chosen.removal
    if options.json:
        answer = {
            "selected": expected.images,
            "kept": expected.kept,
            "paths": [path for path, stays in chosen.paths.items() if not stays],
            "kept_paths": [path for path, stays in chosen.paths.items() if stays],
        }
        print(json.dumps(answer))
        return
    print(f"{options.gallery}: {counted(expected.images, 'image')} would be removed")
    if expected.kept:
        print(f"{counted(expected.kept, 'image')} would be kept, found elsewhere too")
    for path, stays in chosen.paths.items():
        print(f"  {shown(path)}" + (" (its image is kept)" if stays else ""))
    if chosen.more:
        print(f"  and {chosen.more:,} more")


def _confirmed(question: str) -> bool:
    """Ask on a terminal; without one, a program has decided already."""
    if not sys.stdin.isatty():
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _relocate(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.relocating import relocate

    gallery = GalleryFolder(options.gallery)
    done = relocate(gallery, options.old, options.new, dry_run=options.dry_run)
    gallery.close()
    if options.json:
        entries = {"relocated": done.found, "missing": done.missing, "kept": done.kept}
        print(json.dumps(entries))
        return 0
    would = "would be " if options.dry_run else ""
    print(f"{options.gallery}: {counted(done.found, 'file')} {would}relocated to {options.new}")
    if done.missing:
        print(f"{counted(done.missing, 'file')} {would}recorded there too, but not found there")
    if done.kept:
        print(
            f"{counted(done.kept, 'file')} not relocated: still at the former path, or another "
            "image's file is at the new one"
        )
    return 0


def _compact(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.compacting import compact

    stop_on_sigterm()
    gallery = GalleryFolder(options.gallery)
    before = _shard_bytes(gallery)
    summary = compact(gallery)
    freed = before - _shard_bytes(gallery)
    gallery.close()
    if options.json:
        print(
            json.dumps(
                {
                    "shards_before": summary.shards_before,
                    "shards_after": summary.shards_after,
                    "rows_dropped": summary.rows_dropped,
                    "bytes_freed": freed,
                }
            )
        )
        return 0
    print(
        f"{options.gallery}: {counted(summary.shards_after, 'shard')}, "
        f"{summary.shards_before:,} before; "
        f"{counted(summary.rows_dropped, 'removed row')} dropped, {readable(freed)} freed"
    )
    return 0


def _shard_bytes(gallery: "GalleryFolder") -> int:
    return sum(size for kind, size in gallery.disk_bytes().items() if kind != "catalog")


def _reencode(options: argparse.Namespace) -> int:
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.reencoding import reencode

    stop_on_sigterm()
    gallery = GalleryFolder(options.gallery)
    before = gallery.fingerprint
    encoded = reencode(gallery, options.model)
    after = gallery.fingerprint
    gallery.close()
    if options.json:
        print(json.dumps({"encoded": encoded, "before": before, "after": after}))
        return 0
    moved = f"moved from model {before[:12]} to {after[:12]}" if before != after else "same model"
    print(f"{options.gallery}: {counted(encoded, 'code')} computed again, {moved}")
    return 0


def _build(options: argparse.Namespace) -> int:
    from hashsearch.gallery.built import recorded_kinds
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.jobs.building import build_index, drop_index, lacking, why_lacking

    stop_on_sigterm()
    gallery = GalleryFolder(options.gallery)
    if options.drop:
        kinds = options.kind or recorded_kinds(gallery.catalog)
        dropped = [kind for kind in kinds if drop_index(gallery, kind)]
        gallery.close()
        if options.json:
            print(json.dumps({"dropped": dropped}))
        else:
            print(f"{options.gallery}: dropped {shown(', '.join(dropped)) or 'no index'}")
        return 0
    answers: dict[str, dict[str, Any]] = {}
    for kind, column in (dict.fromkeys(options.kind) if options.kind else lacking(gallery)).items():
        if column is not None:
            why = f"left out: the gallery lacks {column}; {why_lacking(gallery, column)}"
            answers[kind] = unusable(kind, left_out=why)
            if not options.json:
                print(f"{kind}: {why}", flush=True)
            continue
        built = build_index(gallery, kind, options.recall)
        answers[kind] = index_as_json(built, gallery.fingerprint)
        if not options.json:
            line = index_line(gallery, kind, answers[kind])
            print(f"{kind}: {line}, in {built.build_seconds:.1f} s", flush=True)
    gallery.close()
    if options.json:
        print(json.dumps(answers))
    return 0
