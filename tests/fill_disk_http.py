"""Add images over HTTP to a gallery on a disk that is too small, until the disk is large enough.

unshare --map-root-user --mount python fill_disk_http.py GALLERY FOLDER

FOLDER becomes a file system in memory that only this process sees, with a copy of the gallery. It
grows step by step, so that it is full at another moment of an addition each time. Prints as JSON
how often each status and code was answered, the ids that were given, the number of images, and
what `verify` found.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.verifying import verify
from tests.fill_disk import mount
from tests.galleries import has_no_litter
from tests.test_images_http import photographs, writable

_STEP = 48 * 1024


def main(source: Path, folder: Path) -> None:
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) + 384 * 1024
    mount(folder, size)
    shutil.copytree(source, folder / "gallery")
    answers: Counter[str] = Counter()
    ids = []
    with writable(folder / "gallery") as client:
        for image in photographs(25):
            while (added := client.post("/v1/images", content=image)).status_code != 200:
                assert client.post("/v1/search?k=1", content=image).status_code == 200
                removed = client.delete("/v1/images?id=99999")
                for response in (added, removed):
                    code = response.json().get("code", "removed")
                    answers[f"{response.status_code} {code}"] += 1
                size += _STEP
                mount(folder, size, "remount")
            ids += [one["id"] for one in added.json()["images"]]
            hits = client.post("/v1/search?k=1", content=image).json()["hits"]
            assert (hits[0]["id"], hits[0]["distance"]) == (ids[-1], 0)
    gallery = GalleryFolder(folder / "gallery")
    found = {
        "answers": answers,
        "ids": ids,
        "images": gallery.catalog.count(),
        "findings": [str(one) for one in verify(gallery, 20).findings],
        "is_clean": has_no_litter(gallery),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
