"""Finding what is damaged in a gallery, and how to repair it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from hashsearch.encoder import Encoder
from hashsearch.errors import HashSearchError
from hashsearch.gallery.built import damaged_indexes, is_whole, path_of, usable_indexes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.shards import Shard
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.building import repair_of
from hashsearch.jobs.reencoding import ROUNDING_BITS
from hashsearch.progress import progress_report
from hashsearch.wording import counted


@dataclass(frozen=True, slots=True)
class Finding:
    """What is damaged, and what repairs it."""

    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and what is damaged.

    files, file_bytes: number and bytes of whole files. encoded: number of codes that were
    computed again; different: how many of them differ from the stored ones; most_bits: the
    largest difference of a code.
    """

    files: int
    file_bytes: int
    encoded: int
    different: int
    most_bits: int
    findings: list[Finding]


def verify(gallery: GalleryFolder, sample: int) -> Verification:
    """Check every checksum, and compute the codes of a sample of images again.

    sample: number of images, spread evenly over the gallery.
    """
    findings = list(_catalog(gallery))
    files, file_bytes, damaged = _checksums(gallery)
    findings += damaged
    index_files, index_bytes, damaged = _indexes(gallery)
    files, file_bytes, findings = files + index_files, file_bytes + index_bytes, findings + damaged
    encoded = different = most = 0
    try:
        encoder = gallery.encoder()
    except HashSearchError as error:
        findings.append(
            Finding(
                str(error),
                f"copy model {gallery.fingerprint[:12]} to {gallery.model_folder}, or move to "
                f"another: hashsearch gallery reencode {gallery.folder} --model M",
            )
        )
    else:
        encoded, different, most = _codes(gallery, encoder, sample)
        if most > ROUNDING_BITS:
            findings.append(
                Finding(
                    f"{different:,} of {counted(encoded, 'code')} computed again "
                    f"{'differs' if different == 1 else 'differ'} from the stored ones, by up to "
                    f"{counted(most, 'bit')}",
                    f"hashsearch gallery reencode {gallery.folder}",
                )
            )
    return Verification(files, file_bytes, encoded, different, most, findings)


def _catalog(gallery: GalleryFolder) -> Iterator[Finding]:
    remedy = "index the sources into a new gallery"
    for problem in gallery.catalog.integrity_problems():
        yield Finding(f"the catalog is damaged: {problem}", remedy)
    outside = twice = 0
    sizes = gallery.catalog.shard_rows()
    for number in gallery.catalog.live_rows():
        rows = gallery.catalog.rows([number]).rows
        outside += int(np.count_nonzero((rows < 0) | (rows >= sizes.get(number, 0))))
        twice += len(rows) - len(np.unique(rows))
    if outside:
        yield Finding(f"the catalog names {counted(outside, 'row')} that no shard has", remedy)
    if twice:
        yield Finding(f"the catalog names {counted(twice, 'row')} for more than one image", remedy)


def _checksums(gallery: GalleryFolder) -> tuple[int, int, list[Finding]]:
    """Number and bytes of the whole files, and a finding for each damaged one."""
    files = file_bytes = 0
    findings = []
    live = gallery.catalog.live_rows()
    shards = gallery.every_shard()
    with progress_report("checking", sum(shard.rows for shard in shards.values())) as report:
        for number, shard in shards.items():
            for name in shard.checksums:
                if shard.is_whole(name):
                    files += 1
                    file_bytes += (shard.folder / name).stat().st_size
                elif name in gallery.catalog.shard_files().get(number, (0, {}))[1]:
                    # Otherwise its shard was joined to another or reencoded meanwhile.
                    findings.append(_damaged(gallery, shard, name, live.get(number, 0)))
            report.advance(shard.rows)
    return files, file_bytes, findings


def _indexes(gallery: GalleryFolder) -> tuple[int, int, list[Finding]]:
    """As `_checksums`, of what is stored of built indexes."""
    files = file_bytes = 0
    what = "the catalog's record of the index {} is damaged"
    findings = [
        Finding(what.format(kind), repair_of(gallery.folder, kind))
        for kind in damaged_indexes(gallery.catalog)
    ]
    for built in usable_indexes(gallery.catalog):
        for file in built.files.values():
            if is_whole(gallery.folder, file):
                files += 1
                file_bytes += file.size
            elif built in usable_indexes(gallery.catalog):  # otherwise it was built again meanwhile
                path = path_of(gallery.folder, file)
                state = "differs from what was stored" if path.exists() else "is missing"
                mend = repair_of(gallery.folder, built.kind)
                findings.append(Finding(f"{path} {state}", mend))
    return files, file_bytes, findings


def _damaged(gallery: GalleryFolder, shard: Shard, name: str, images: int) -> Finding:
    path = shard.folder / name
    state = "differs from what was committed" if path.exists() else "is missing"
    number = int(shard.folder.name)
    if images == 0:
        mend = f"hashsearch gallery compact {gallery.folder}, which drops it"
    elif name in (shard.file("codes"), shard.file("addresses")) and gallery.keeps("pixels"):
        mend = f"hashsearch gallery reencode {gallery.folder}"
    else:
        mend = (
            f"hashsearch gallery remove {gallery.folder} --shard {number}, then index the sources "
            f"of its images again: {_sources(gallery, number)}"
        )
    return Finding(f"{path} {state} ({counted(images, 'image')})", mend)


def _sources(gallery: GalleryFolder, shard: int) -> str:
    """The sources of a shard's images, as far as they are known."""
    names = gallery.catalog.source_names(shard)
    roots = gallery.catalog.sources()
    return ", ".join(str(roots.get(name, "images added one by one")) for name in names)


def _codes(gallery: GalleryFolder, encoder: Encoder, sample: int) -> tuple[int, int, int]:
    """Number of codes computed again, number of those that differ, and most bits of difference."""
    rows = gallery.catalog.rows()
    count = min(sample, len(rows.ids))
    if count == 0 or not gallery.keeps("pixels"):
        return 0, 0, 0
    stored = []
    for image_id in rows.ids[np.linspace(0, len(rows.ids) - 1, count).astype(np.int64)].tolist():
        with suppress(HashSearchError):  # removed meanwhile, or damaged, which `_checksums` reports
            stored.append(gallery.columns(image_id))
    if not stored:
        return 0, 0, 0
    pixels = np.stack([columns["pixels"] for columns in stored])
    computed = encoder.columns(pixels.reshape(-1, TINY_SIDE, TINY_SIDE, 3))
    bits = np.zeros(len(stored), np.int64)
    for name, values in computed.items():
        for number, columns in enumerate(stored):
            if name in columns:  # galleries of earlier versions have no addresses
                bits[number] += np.bitwise_count(values[number] ^ columns[name]).sum()
    return len(stored), int(np.count_nonzero(bits)), int(bits.max())
