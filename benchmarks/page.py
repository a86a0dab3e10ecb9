"""Measure how soon the page shows the first results, in a real Chromium.

    python -m benchmarks.page [--publish]

The page is that of `hashsearch serve` with all images of CIFAR-10, and pixels and thumbnails. Its
gallery is made by the first run and kept in the user's cache. --publish writes the table to
docs/page.md.
"""

import argparse
import io
import random
import shutil
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import hardware, say
from benchmarks.quoting import replaced
from benchmarks.service.servers import started
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.sources import DataFolders, open_source

DOCS = Path(__file__).parents[1] / "docs/page.md"
NAMES = ("chromium", "chromium-headless-shell", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
TIMES = 50  # that each is measured; the photographs are as many
WIDE = 4000  # pixels, of a large photograph

# Drops a file, and answers with the milliseconds until the hits are drawn, and until the first row
# of their pictures is.
DROP = """async ([bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], name));
  const before = document.querySelector("#found");
  const began = performance.now();
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
  const until = async (isThere) => {
    while (!isThere()) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame); // by then the frame before is drawn
    return performance.now() - began;
  };
  const title = () => document.querySelector("#found");
  const hits = await until(() => title() && title() !== before);
  const row = [...document.querySelectorAll("#results .tile img")].slice(0, 5);
  return [hits, await until(() => row.every((one) => one.complete && one.naturalWidth))];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true", help="write the table to docs/page.md")
    options = parser.parse_args()
    if not CHROMIUM:
        print("Chromium is missing, so the page was not measured")
        return
    folders = DataFolders.of_environment()
    gallery = kept_gallery(folders)
    serve = ("hashsearch.cli", "serve", "--gallery", str(gallery), "--port", "0")
    with started("hashsearch serve", *serve) as server, opened() as page:
        rows = [measured(page, server.port, *kind) for kind in kinds(folders)]
    table = [
        "| a dropped picture | hits, ms | longest | with their pictures, ms | longest |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"`python -m benchmarks.page --publish`, {hardware()}, {time.strftime('%Y-%m-%d')}",
    ]
    print("\n".join(table))
    if options.publish:
        DOCS.write_text(replaced(DOCS.read_text(), "benchmarks.page", "\n".join(table)))


def kept_gallery(folders: DataFolders) -> Path:
    name = f"page-{read_card(PRETRAINED).fingerprint[:12]}"
    kept = folders.cache / "benchmarks" / name
    if not kept.exists():
        say("indexing CIFAR-10, a minute or two")
        unfinished = kept.with_name(f"{name}-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        gallery = GalleryFolder.create(unfinished, PRETRAINED)
        sources = [open_source(f"cifar10:{split}", folders) for split in ("train", "test")]
        index_sources(gallery, sources, workers=usable_cores())
        gallery.close()
        unfinished.rename(kept)
    return kept


def kinds(folders: DataFolders) -> Iterator[tuple[str, list[bytes], bool]]:
    """What is dropped: its name, the files, and whether onto a page that was just loaded."""
    found = sorted(folders.data.glob("photos/*.jpg")) if folders.data else []
    if len(found) < TIMES:
        raise SystemExit("HASHSEARCH_DATA names no folder with photos/*.jpg, which are dropped")
    photographs = [path.read_bytes() for path in random.Random(0).sample(found, TIMES)]
    size = median(map(len, photographs)) / 1000
    yield f"photograph of {size:.0f} kB, onto a page just loaded", photographs, True
    yield f"photograph of {size:.0f} kB, onto former results", photographs, False
    large = [enlarged(photograph) for photograph in photographs[:5]] * (TIMES // 5)
    size = median(map(len, large)) / 1e6
    yield f"photograph of {size:.1f} MB, which the page makes smaller", large, False


def enlarged(photograph: bytes) -> bytes:
    with Image.open(io.BytesIO(photograph)) as image:
        height = round(WIDE * image.height / image.width)
        data = io.BytesIO()
        image.resize((WIDE, height)).save(data, "JPEG", quality=92)
    return data.getvalue()


@contextmanager
def opened() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def measured(page: Page, port: int, name: str, files: Sequence[bytes], anew: bool) -> str:
    """A row of the table. anew: whether the page is loaded before each drop."""
    taken = []
    page.goto(f"http://127.0.0.1:{port}/")
    page.evaluate(DROP, [b64encode(files[-1]).decode(), "x.jpg"])  # the first drop does not count
    for file in files:
        if anew:
            page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_load_state("networkidle")
        taken.append(page.evaluate(DROP, [b64encode(file).decode(), "x.jpg"]))
    hits, pictures = ([times[place] for times in taken] for place in (0, 1))
    cells = [
        name,
        *(f"{one:.0f}" for each in (hits, pictures) for one in (median(each), max(each))),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
