"""The command: its output, its errors and its exit status."""

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

import hashsearch as hs
from hashsearch.cli import main
from hashsearch.closeness import MEANINGS
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.models.card import read_card
from tests import forked
from tests.forked import COMMAND, Forked
from tests.test_images import png_header


def run(*arguments) -> subprocess.CompletedProcess:
    """Run a command in this process, in which torch is loaded already."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        status = main([str(argument) for argument in arguments])
    for stream in streams:
        stream.flush()
    output = [os.fsdecode(stream.buffer.getvalue()) for stream in streams]
    return subprocess.CompletedProcess(arguments, status, *output)


def run_process(*arguments) -> subprocess.CompletedProcess:
    """Run a command as a user does."""
    return forked.run([COMMAND, *map(str, arguments)], errors="surrogateescape")


def error_of(done: subprocess.CompletedProcess) -> str:
    """The one line that a failed command prints."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("hashsearch: ")
    return line.removeprefix("hashsearch: ")


@pytest.fixture(scope="module")
def picture(image_files) -> Path:
    return sorted(image_files.rglob("*.*"))[7]


def test_a_gallery_is_indexed_queried_and_described(image_files, model_folder, tmp_path, picture):
    gallery = tmp_path / "gallery"
    done = run_process("index", image_files, "--gallery", gallery, "--model", model_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{gallery}: 300 images; 300 new, 0 already there, 0 duplicates")

    done = run("index", image_files, "--gallery", gallery, "--json")
    summary = json.loads(done.stdout)
    assert (summary["indexed"], summary["unchanged"], summary["total"]) == (0, 300, 300)

    done = run_process("query", picture, "--gallery", gallery, "-k", 3)
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["bits", "id", "label", "image"]
    assert len(rows) == 3
    distance, _, label, path = rows[0].split(maxsplit=3)
    assert (distance, label, path) == ("0", picture.parent.name, str(picture))

    info = json.loads(run("gallery", "info", gallery, "--json").stdout)
    assert (info["images"], info["failures"]) == (300, 0)
    assert info["last_job"]["state"] == "done"
    assert info["last_job"]["counts"]["unchanged"] == 300


@pytest.mark.parametrize("method", ["codes", "pixels"])
def test_a_query_by_image_id_or_code_gives_the_same_neighbours(gallery_folder, method):
    gallery = GalleryFolder(gallery_folder)
    record, code = gallery.catalog.record(20), gallery.code(20).tobytes().hex()
    gallery.close()
    answers = []
    for query in (record.path, "20") + ((code,) if method == "codes" else ()):
        done = run(
            "query", query, "--gallery", gallery_folder, "-k", 8, "--method", method, "--json"
        )
        answer = json.loads(done.stdout)
        assert answer["method"] == method
        answers.append([(hit["id"], hit["distance"]) for hit in answer["hits"]])
    by_image, by_id, *by_code = answers
    assert (20, 0) in by_image
    assert [hit for hit in by_image if hit[0] != 20] == by_id[:7]
    assert by_code in ([], [by_image])


def test_a_query_prints_what_the_distances_mean(measured_gallery_folder):
    def printed(*arguments):
        return run("query", 20, "--gallery", measured_gallery_folder, *arguments).stdout

    words = [hit["closeness"] for hit in json.loads(printed("-k", 300, "--json"))["hits"]]
    header, *lines = printed("-k", 300).splitlines()
    assert header.split() == ["bits", "closeness", "id", "label", "image"]
    assert [line.split()[1] for line in lines] == words
    assert {"near", "alike", "far"} <= set(words) <= MEANINGS.keys()
    assert "closeness" not in printed("--method", "pixels")
    by_pixels = json.loads(printed("--method", "pixels", "--json"))["hits"]
    assert {hit["closeness"] for hit in by_pixels} == {None}


def test_a_query_prints_no_words_where_the_model_was_not_measured(gallery_folder):
    assert run("query", 20, "--gallery", gallery_folder).stdout.split()[:2] == ["bits", "id"]


def test_an_image_is_queried_by_any_path_that_a_command_prints(
    image_files, model_folder, tmp_path, monkeypatch
):
    """Also by the path of an image that has no file of its own, or none any more."""
    files = sorted(image_files.rglob("*.*"))[:12]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in files[:4]:
            archive.write(path, f"in it/{path.name}")
    rows = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "folder").mkdir()
    for path in files[4:]:
        shutil.copy(path, tmp_path / "folder")
    sources = [tmp_path / name for name in ("a.zip", "rows.npy", "folder")]
    gallery = tmp_path / "g"
    run("index", *sources, "--gallery", gallery, "--model", model_folder)

    def hits(query):
        return json.loads(run("query", query, "--gallery", gallery, "--json").stdout)["hits"]

    (tmp_path / "folder" / files[4].name).unlink()
    monkeypatch.chdir(tmp_path)
    paths = {one["path"]: one["id"] for number in (1, 2) for one in hits(number)}
    assert str(tmp_path / "a.zip") + f"!/in it/{files[0].name}" in paths
    assert str(tmp_path / "rows.npy") + "#3" in paths
    for path, number in paths.items():
        if Path(path).exists():
            assert hits(path)[0]["id"] == number  # by the file, so the image finds itself
        else:
            for typed in (path, os.path.relpath(path)):
                itself, *others = hits(typed)
                assert (itself["id"], itself["distance"]) == (number, 0)
                assert others == hits(number)[: len(others)]
    assert hits("rows.npy#3")[0]["id"] == paths[f"{tmp_path / 'rows.npy'}#3"]
    for path in ("rows.npy#4", "a.zip!/in it", "folder", ""):
        message = error_of(run("query", path, "--gallery", gallery))
        assert f"'{path}' is neither an image file, an id of the gallery, the path of" in message
    with hs.open(gallery) as opened:
        assert [hit.id for hit in opened.search("rows.npy#2")] == [
            hit["id"] for hit in hits("rows.npy#2")
        ]


def test_an_answer_without_images_is_a_sentence(image_files, model_folder, tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(sorted(image_files.rglob("*.*"))[0], one)
    gallery = ("--gallery", tmp_path / "g")
    run("index", one, *gallery, "--model", model_folder)
    for arguments, sentence in (
        (("1",), "no image found"),
        (("0" * 64, "--radius", 0), "no image found within 0 bits"),
        (("f" * 64, "--radius", 1), "no image found within 1 bit"),
        (("1", "--method", "pixels", "--radius", 5), "no image found within 5 squared grey levels"),
    ):
        assert run("query", *arguments, *gallery).stdout == f"{sentence}\n"
        assert json.loads(run("query", *arguments, *gallery, "--json").stdout)["hits"] == []
    assert run("gallery", "failures", tmp_path / "g").stdout == "no failures\n"
    assert json.loads(run("gallery", "failures", tmp_path / "g", "--json").stdout) == []


def test_a_radius_without_k_returns_all_images_within_it(gallery_folder):
    hits = json.loads(run("query", 3, "--gallery", gallery_folder, "-k", 1000, "--json").stdout)
    distances = [hit["distance"] for hit in hits["hits"]]
    assert len(distances) == 299
    radius = distances[40]
    within = json.loads(
        run("query", 3, "--gallery", gallery_folder, "--radius", radius, "--json").stdout
    )
    assert len(within["hits"]) == sum(distance <= radius for distance in distances)


def test_k_above_the_gallerys_size_returns_all_images(gallery_folder):
    done = run("query", 3, "--gallery", gallery_folder, "-k", 1_000_000)
    assert len(done.stdout.splitlines()) == 1 + 299


def test_a_path_that_is_not_utf8_is_printed_as_its_own_bytes(picture, model_folder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(picture, folder / name)
    assert (
        run("index", folder, "--gallery", tmp_path / "g", "--model", model_folder).returncode == 0
    )
    done = run_process("query", folder / name, "--gallery", tmp_path / "g")
    path = done.stdout.splitlines()[1].split(maxsplit=2)[-1]
    assert Path(path).read_bytes() == picture.read_bytes()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "none.jpg",
            b"hello",
            "the 5 bytes are not an image in an accepted format; accepted are JPEG",
        ),
        ("one.jpg", b"h", "the byte is not an image in an accepted format; accepted are JPEG"),
        ("huge.png", png_header(10_000, 10_000), "more than 64,000,000 pixels|10000×10000"),
        ("big.png", png_header(8_001, 8_000), "the image has 8001×8000 pixels; at most 64,000,000"),
    ],
)
def test_a_query_by_an_unusable_image_is_refused(gallery_folder, tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    assert re.search(message, error_of(run("query", path, "--gallery", gallery_folder)))


def test_a_truncated_photograph_is_refused(gallery_folder, tmp_path, photograph):
    path = write(tmp_path / "cut.jpg", photograph[:20_000])
    assert "damaged or cut short" in error_of(run("query", path, "--gallery", gallery_folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3", "-k", "0"], "k is at least 1; got 0"),
        (["3", "--radius", "-1"], "a radius is at least 0; got -1"),
        (["999999"], "the gallery holds no image with this id"),
        (["ab" * 31], "a code is 32 bytes, written as 64 hexadecimal digits; got 62 characters"),
        (["no-such-file.jpg"], "'no-such-file.jpg' is neither an image file, an id of the gallery"),
        (["ab" * 32, "--method", "pixels"], "a query by code has no pixels"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(gallery_folder, arguments, message):
    assert message in error_of(run("query", *arguments, "--gallery", gallery_folder))


def test_a_gallery_made_by_another_model_is_refused_naming_both(
    gallery_folder, model_folder, other_model_folder, image_files
):
    message = error_of(
        run("index", image_files, "--gallery", gallery_folder, "--model", other_model_folder)
    )
    for folder in (model_folder, other_model_folder):
        assert json.loads((folder / "card.json").read_text())["fingerprint"][:12] in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{tmp}/nowhere", "nowhere does not exist"),
        ("{tmp}/empty", "empty holds no image files"),
        ("{notes}", "notes.txt is not a source of images; a source is"),
    ],
)
def test_a_source_without_images_makes_no_gallery(source, message, tmp_path, model_folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("none of these")
    source = source.format(tmp=tmp_path, notes=tmp_path / "notes.txt")
    done = run("index", source, "--gallery", tmp_path / "g", "--model", model_folder)
    assert message in error_of(done)
    assert not (tmp_path / "g").exists()


def test_a_new_gallery_uses_the_model_that_is_named(image_files, model_folder, tmp_path):
    for model, name in (("general", "general"), (model_folder, None)):
        gallery = tmp_path / Path(model).name
        assert run("index", image_files, "--gallery", gallery, "--model", model).returncode == 0
        shown = run("gallery", "info", gallery).stdout
        (line,) = (line for line in shown.splitlines() if line.startswith("model "))
        card = read_card(gallery / "model")
        expected = f"{card.kind}, 256 bits, {card.fingerprint[:12]}, float32"
        assert line.split(maxsplit=1)[1] == (f"{name}, {expected}" if name else expected)


def test_a_new_gallery_uses_the_bundled_model_by_default(image_files, tmp_path):
    gallery = tmp_path / "g"
    assert run("index", image_files, "--gallery", gallery).returncode == 0
    made_by = json.loads(run("gallery", "info", gallery, "--json").stdout)["model"]
    assert (
        made_by["fingerprint"] == json.loads(run("model", "info", "--json").stdout)["fingerprint"]
    )
    assert made_by["name"] == "bundled"
    other = tmp_path / "other"
    message = error_of(run("index", image_files, "--gallery", other, "--model", tmp_path))
    assert "is no model folder" in message
    assert not other.exists()


@pytest.mark.parametrize("command", ["query 1 --gallery", "serve --gallery", "gallery info"])
def test_a_folder_that_is_missing_or_not_a_gallery_is_refused_in_the_same_words(
    command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    makes = "`hashsearch index` or open(…, create=True) makes a gallery"
    assert error_of(run(*command.split(), "nowhere")) == f"nowhere does not exist; {makes}"
    message = error_of(run(*command.split(), "empty"))
    assert message == "empty is not a gallery: it holds no catalog.sqlite"


def test_failures_are_listed_with_their_reasons(image_files, model_folder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"hello")
    done = run("index", folder, "--gallery", tmp_path / "g", "--model", model_folder)
    assert done.returncode == 1  # the gallery is empty
    assert "1 failed" in done.stdout
    assert f"hashsearch gallery failures {tmp_path / 'g'}" in done.stdout
    done = run("gallery", "failures", tmp_path / "g")
    assert f"  {folder}/bad.jpg: the 5 bytes are not an image" in done.stdout
    (failure,) = json.loads(run("gallery", "failures", tmp_path / "g", "--json").stdout)
    assert (failure["uri"], failure["path"]) == ("pictures/bad.jpg", f"{folder}/bad.jpg")


NAME = "Mütze & 50%\x1b[31m é.jpg"


def test_every_command_prints_a_path_as_people_write_it(model_folder, tmp_path, picture):
    folder, gallery = tmp_path / "meine Bilder", tmp_path / "g"
    folder.mkdir()
    good, bad = folder / NAME, folder / f"bad {NAME}"
    good.write_bytes(picture.read_bytes())
    bad.write_bytes(b"hello")
    done = run("index", folder, "--gallery", gallery, "--model", model_folder)
    printed = done.stdout + done.stderr
    for command in (
        ("query", 1, "--gallery", gallery, "-k", 1),
        ("query", good, "--gallery", gallery),
        ("gallery", "failures", gallery),
        ("gallery", "info", gallery),
        ("gallery", "remove", gallery, "--uri", good, "--dry-run"),
        ("gallery", "remove", gallery, "--uri", "meine Bilder"),
    ):
        done = run(*command)
        assert done.returncode == 0, command
        printed += done.stdout + done.stderr
    assert "%20" not in printed
    assert f"{good}\n" in printed  # of the query; standard output is no terminal here
    assert f"{bad}: the 5 bytes" in printed


def test_json_has_an_images_path_and_its_percent_encoded_uri(model_folder, tmp_path, picture):
    folder, gallery = tmp_path / "meine Bilder", tmp_path / "g"
    folder.mkdir()
    (folder / NAME).write_bytes(picture.read_bytes())
    (folder / f"bad {NAME}").write_bytes(b"hello")
    assert run("index", folder, "--gallery", gallery, "--model", model_folder).returncode == 0
    hits = json.loads(run("query", folder / NAME, "--gallery", gallery, "--json").stdout)["hits"]
    failures = json.loads(run("gallery", "failures", gallery, "--json").stdout)
    for entries, name in ((hits, NAME), (failures, f"bad {NAME}")):
        (entry,) = entries
        assert entry["path"] == f"{folder}/{name}"
        assert entry["uri"] == f"meine%20Bilder/{quote(name)}"


def test_failures_are_skipped_until_the_file_changes_or_a_retry_is_asked_for(
    image_files, model_folder, tmp_path, picture
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(picture.read_bytes())
    (folder / "bad.jpg").write_bytes(b"hello")
    (folder / "notes.txt").write_text("passed over")
    command = ("index", folder, "--gallery", tmp_path / "g", "--model", model_folder, "--json")

    def counts(*more):
        summary = json.loads(run(*command, *more).stdout)
        assert summary["passed_over"] == {".txt": 1}
        return tuple(summary[name] for name in ("indexed", "unchanged", "failed", "skipped"))

    assert counts() == (1, 0, 1, 0)
    assert counts() == (0, 1, 0, 1)
    assert counts("--retry-failed") == (0, 1, 1, 0)
    (folder / "bad.jpg").write_bytes(b"other")
    os.utime(folder / "bad.jpg", ns=(1, 1))
    assert counts() == (0, 1, 1, 0)
    (folder / "bad.jpg").unlink()
    assert counts("--retry-failed") == (0, 1, 0, 0)
    assert json.loads(run("gallery", "failures", tmp_path / "g", "--json").stdout) == []


def test_a_job_stops_after_more_failures_than_allowed(image_files, model_folder, tmp_path, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(picture.read_bytes())
    for number in range(3):
        (folder / f"bad-{number}.jpg").write_bytes(b"hello %d" % number)
    command = ("index", folder, "--gallery", tmp_path / "g", "--model", model_folder)
    message = error_of(run(*command, "--max-failures", 2))
    assert "stopped: 3 images could not be read, and the limit of failures is 2" in message
    info = json.loads(run("gallery", "info", tmp_path / "g", "--json").stdout)
    assert (info["images"], info["failures"], info["last_job"]["state"]) == (1, 3, "stopped")
    assert run(*command, "--max-failures", 3, "--retry-failed").returncode == 0


def test_pixels_and_thumbnails_that_a_gallery_was_created_without_stay_out(
    image_files, model_folder, tmp_path, photograph
):
    (tmp_path / "photos").mkdir()
    rocket = tmp_path / "photos" / "rocket.jpg"
    rocket.write_bytes(photograph)
    sources, gallery = (image_files, tmp_path / "photos"), tmp_path / "g"
    command = ("index", *sources, "--gallery", gallery, "--model", model_folder)
    assert run(*command, "--no-pixels", "--no-thumbnails").returncode == 0
    assert {path.name for path in (gallery / "shards" / "1").iterdir()} == {"codes.npy"}
    assert run(*command).returncode == 0  # a later run does not add them
    assert json.loads(run("gallery", "info", gallery, "--json").stdout)["keeps"] == []
    hits = json.loads(run("query", rocket, "--gallery", gallery, "--json").stdout)
    assert hits["hits"][0]["label"] is None
    assert "keeps no pixels" in error_of(
        run("query", rocket, "--gallery", gallery, "--method", "pixels")
    )
    whole = ("index", *sources, "--gallery", tmp_path / "whole", "--model", model_folder)
    assert run(*whole).returncode == 0
    message = error_of(run(*whole, "--no-thumbnails"))
    assert "keeps thumbnails; this cannot be changed, so name a new gallery" in message


def test_a_gallery_keeps_the_precision_it_was_created_with(image_files, model_folder, tmp_path):
    command = ("index", image_files, "--gallery", tmp_path / "g", "--model", model_folder)
    assert run(*command, "--precision", "bfloat16").returncode == 0
    assert run(*command).returncode == 0
    assert "is encoded in bfloat16" in error_of(run(*command, "--precision", "float32"))
    info = json.loads(run("gallery", "info", tmp_path / "g", "--json").stdout)
    assert info["precision"] == "bfloat16"
    # Queries use it too: an image finds itself at distance 0.
    path = sorted(image_files.rglob("*.*"))[5]
    hits = json.loads(run("query", path, "--gallery", tmp_path / "g", "--json").stdout)["hits"]
    assert (hits[0]["path"], hits[0]["distance"]) == (str(path), 0)
    verified = json.loads(run("gallery", "verify", tmp_path / "g", "--json").stdout)
    assert (verified["encoded"], verified["different"]) == (256, 0)


def test_labels_come_from_a_csv_and_change_with_it(image_files, model_folder, tmp_path):
    paths = [str(path.relative_to(image_files)) for path in sorted(image_files.rglob("*.*"))]
    table, gallery = tmp_path / "labels.csv", tmp_path / "g"
    command = ("index", image_files, "--gallery", gallery, "--model", model_folder)

    def labels() -> dict[str, int]:
        return json.loads(run("gallery", "info", gallery, "--json").stdout)["labels"]

    table.write_text("path,label\n" + "".join(f"{path},odd\n" for path in paths[:7]))
    assert run(*command, "--labels", table).returncode == 0
    assert labels()["odd"] == 7
    assert sum(labels().values()) == 300
    table.write_text("path,label\nno/where.jpg,x\n" + "".join(f"{p},even\n" for p in paths[:9]))
    done = run(*command, "--labels", table)
    assert "1 path in" in done.stdout
    assert ("odd" in labels(), labels()["even"]) == (False, 9)
    assert run(*command).returncode == 0  # without a table, labels stay unchanged
    assert labels()["even"] == 9
    table.write_text("name,label\n")
    assert "path and label were wanted" in error_of(run(*command, "--labels", table))


def test_an_error_is_one_line_on_stderr_and_no_traceback(tmp_path):
    assert "is not a gallery" in error_of(run_process("query", "1", "--gallery", tmp_path))


def test_model_info_prints_the_card(model_folder):
    done = run("model", "info", model_folder)
    card = json.loads(run("model", "info", model_folder, "--json").stdout)
    assert card["fingerprint"] in done.stdout
    assert "psnr_db" in done.stdout


def test_a_closed_pipe_ends_the_command_quietly(gallery_folder):
    pipeline = f"{COMMAND} query 3 --gallery {gallery_folder} -k 299 --json | true"
    done = subprocess.run(
        ["bash", "-c", f"{pipeline}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("141\n", "")  # the status after SIGPIPE


def test_commands_that_need_no_torch_start_without_it():
    script = "import sys, hashsearch.cli as c; c._parser(); print(int('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "0\n"


def test_an_image_of_100_megapixels_is_never_decoded(gallery_folder, tmp_path):
    """The image is valid; its pixels would take 300 MB, and the process stays far below."""
    side = 10_000
    with Image.new("1", (side, side)) as image:
        image.save(tmp_path / "huge.png")
    script = (
        "import resource, sys; from hashsearch.images import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from hashsearch.errors import ImageTooLarge\n"
        "try: decode(open(sys.argv[1], 'rb').read())\n"
        "except ImageTooLarge: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "huge.png"], capture_output=True, text=True
    )
    assert int(done.stdout) < 30, done.stderr
    assert "64,000,000" in error_of(
        run("query", tmp_path / "huge.png", "--gallery", gallery_folder)
    )


# The service as a process


@contextlib.contextmanager
def service(gallery: Path, **environment):
    """Run `hashsearch serve` on a free port; yields the process and its port."""
    with Forked(
        [COMMAND, "serve", "--port", "0", *(["--gallery", gallery] if gallery else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process, int(re.search(r":(\d+)/", process.stdout.readline())[1])
        finally:
            if process.poll() is None:
                process.kill()


def test_a_body_that_never_ends_gets_408_and_does_not_delay_the_shutdown(gallery_folder):
    settings = {"HASHSEARCH_GALLERY": str(gallery_folder), "HASHSEARCH_BODY_TIMEOUT_S": "1"}
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    with service(None, **settings) as (process, port):
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(head)
            answer = slow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(head)
            process.terminate()
            process.communicate(timeout=20)


def test_a_client_that_goes_away_leaves_no_traceback(gallery_folder):
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"
    with service(gallery_folder) as (process, port):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(head)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez") as response:
            assert response.status == 200
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert "Traceback" not in log


def test_an_address_in_use_is_an_error_of_one_line(gallery_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = error_of(run("serve", "--gallery", gallery_folder, "--port", port))
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in message


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_an_invalid_port_is_refused(gallery_folder, port, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--gallery", str(gallery_folder), f"--port={port}"])
    assert "--port" in capsys.readouterr().err


def test_invalid_settings_are_named(monkeypatch, gallery_folder):
    monkeypatch.setenv("HASHSEARCH_MAX_BODY_BYTES", "many")
    message = error_of(run("serve", "--gallery", gallery_folder))
    assert "the setting HASHSEARCH_MAX_BODY_BYTES cannot be used: it must be " in message
    assert "a whole number" in message


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("API_KEYS", "short-secret", "at least 16 characters"),
        ("API_KEYS_FILE", "/no/such/file", "cannot be read: No such file or directory"),
        ("KEY_FOR", "reads", "must be 'writes' or 'all'"),
        ("KEY_FOR", "all", "needs a key"),
        ("TRUSTED_PROXIES", "10.0.0.1, proxy", "entry 2 must be an address or a network, such as"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.1 is an address within 10.0.0.0/8; name that"),
        ("TRUSTED_PROXIES", "::1,2001:db8::1/32", "2001:db8::1 is an address within 2001:db8::/32"),
        ("ROOT_PATH", "pictures/", "a path such as /pictures is wanted"),
        (
            "ROOT_PATH",
            "/v1/a",
            "a path such as /pictures is wanted; this one begins like a path of",
        ),
        ("RATE_LIMIT", "many", "a number of requests and a time are wanted, such as 100/minute"),
        ("CORS_ORIGINS", "example.org", "origins such as https://example.org are wanted"),
        ("STOP_TIMEOUT_S", "0", "it must be at least 1"),
    ],
)
def test_a_setting_is_refused_with_its_name_and_what_is_wanted(
    monkeypatch, gallery_folder, name, value, wanted
):
    monkeypatch.setenv(f"HASHSEARCH_{name}", value)
    message = error_of(run("serve", "--gallery", gallery_folder))
    _, found, why = message.partition(f"the setting HASHSEARCH_{name} cannot be used: ")
    assert found
    if name in ("API_KEYS", "API_KEYS_FILE", "KEY_FOR"):
        assert wanted in why
    else:
        assert why.startswith(wanted)
    assert "secret" not in message


@pytest.mark.parametrize("prefix", ["pictures", "/pictures/", "/", "//x", "/a b"])
def test_a_root_path_of_another_form_is_refused(gallery_folder, prefix, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--gallery", str(gallery_folder), f"--root-path={prefix}"])
    assert "--root-path: a path such as /pictures is wanted" in capsys.readouterr().err


def test_control_characters_reach_no_terminal(tmp_path):
    assert error_of(run("query", "a\n\x1b[31mb", "--gallery", tmp_path)).count("\x1b") == 0
