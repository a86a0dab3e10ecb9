"""Methods measured: against slow loops and scikit-learn, from the cache, and as a command."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_info, threadpool_limits

import hashsearch as hs
from hashsearch.cli import main
from hashsearch.commands import console
from hashsearch.errors import EvaluationError
from hashsearch.evaluation import evaluate as evaluation
from hashsearch.evaluation import measured
from hashsearch.evaluation.comparisons import Euclidean, Hamming, SquaredPixels
from hashsearch.evaluation.imported import imported_files, sources_sha256
from hashsearch.evaluation.measure import intervals, measure
from hashsearch.evaluation.measured import (
    MEASURED,
    Examples,
    Model,
    distinct_models,
    method_named,
    methods_named,
)
from hashsearch.evaluation.report import Report, tables, to_markdown
from hashsearch.evaluation.robustness import changed, evenly
from hashsearch.evaluation.tasks import LabelledImages, split_task
from hashsearch.evaluation.threads import chunks
from hashsearch.extras import install_command
from hashsearch.models.card import PRETRAINED, PRETRAINED_MODELS, read_card
from hashsearch.progress import reports_opened_by
from tests.conftest import part_of_cifar10

ROOT = Path(__file__).parents[1]
KS = [1, 10, 50]
BY_DEFAULT = [name for name, row in MEASURED.items() if row.by_default]
TODAY = "2026-11-26"


@pytest.fixture(scope="module", autouse=True)
def measuring_takes_less():
    """Few images are changed, and the sources of the package are read once."""
    once = cache(sources_sha256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "_CHANGED", 60)
        patch.setattr(
            evaluation,
            "sources_sha256",
            lambda file: once(file) if file.is_relative_to(ROOT) else sources_sha256(file),
        )
        yield


@pytest.fixture(scope="module")
def task(tiny_images):
    """Labels that pixels can find: in which third an image's brightness lies."""
    light = tiny_images.mean(axis=(1, 2, 3))
    labels = np.digitize(light, np.quantile(light, (1 / 3, 2 / 3))).astype(str)
    images = LabelledImages(tiny_images, labels)
    return split_task("light", images, None, n_queries=60, pooled=False, seed=0)


@pytest.fixture(scope="module")
def examples(task):
    return Examples(task.gallery.images, 0)


@pytest.fixture(scope="module")
def model(model_folder):
    return Model(model_folder)


@pytest.fixture(params=BY_DEFAULT)
def method(request, model):
    return method_named(request.param, model, 64, seed=0)


def test_an_index_finds_what_the_distances_say(method, examples, task):
    describe = method.learn(examples)
    gallery, queries = describe(task.gallery.images), describe(task.queries.images)
    _, found = method.comparison.index(gallery).search(queries, 20)
    rows = method.comparison.distances_to(gallery)(queries)
    nearest = np.sort(rows, axis=1)[:, :20]
    if isinstance(method.comparison, Euclidean):
        assert_allclose(found, nearest, rtol=1e-3, atol=1e-3 * nearest.max())
    else:
        assert_array_equal(found, nearest)


def test_a_method_has_the_name_and_the_documentation_of_its_row():
    model, documented = Model(PRETRAINED), (ROOT / "docs/evaluation.md").read_text()
    for name in MEASURED:
        assert method_named(name, model, 64, seed=0).name == name
        assert f"\n| `{name}` | " in documented


def test_hamming_distances_are_counted_bits():
    random = np.random.default_rng(0)
    gallery, queries = (random.integers(0, 256, (n, 4), np.uint8) for n in (500, 300))
    gallery &= 0xF0
    queries &= 0xF0
    slow = np.bitwise_count(queries[:, np.newaxis] ^ gallery).sum(axis=2)
    assert_array_equal(Hamming(32).distances_to(gallery)(queries), slow)


def test_pixel_distances_are_exact_to_the_last_grey_level():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 3072), np.uint8)
    images[0], images[1] = 0, 255
    images[2] = images[3] ^ 1
    rows = SquaredPixels().distances_to(images)(images)
    slow = np.square(images[:, np.newaxis].astype(int) - images).sum(axis=2)
    assert_array_equal(rows, slow)
    assert rows[0, 1] == 3072 * 255**2


def test_measures_by_pixels_are_scikit_learns_and_a_slow_loop(task, examples, model):
    result = measure(
        method_named("pixels", model, 64, 0), examples, task, ks=KS, seed=0, date=TODAY
    )
    flat = task.gallery.images.reshape(len(task.gallery), -1).astype(int)
    averages, averages_at, first, recalls = [], [], [], []
    for image, label in zip(task.queries.images, task.queries.labels, strict=True):
        distances = np.square(flat - image.ravel().astype(int)).sum(axis=1)
        assert len(set(distances.tolist())) == len(distances)  # no ties among these
        relevant = task.gallery.labels == label
        averages.append(average_precision_score(relevant, -distances))
        near = np.argsort(distances)[:50]
        averages_at.append(average_precision_score(relevant[near], -distances[near]))
        first.append(relevant[near[:10]].mean())
        recalls.append(relevant[near[:10]].sum() / relevant.sum())
    found = result.measures
    assert found["map"].value == pytest.approx(np.mean(averages))
    assert found["map_at_50"].value == pytest.approx(np.mean(averages_at))
    assert found["precision_at_10"].value == pytest.approx(np.mean(first))
    assert found["recall_at_10"].value == pytest.approx(np.mean(recalls))
    assert found["map_at_50_of_all"].value < found["map_at_50"].value
    assert dict(result.curve)[1] == pytest.approx(found["precision_at_1"].value)
    assert dict(result.curve)[240] == pytest.approx(1 / 3, abs=0.01)  # all there are
    assert (result.n_bits, result.changes, result.ball) == (None, {}, [])


def test_measures_by_codes_do_not_depend_on_the_order_of_the_gallery(task, model):
    """Of 16 bits, so that nearly all distances tie."""
    method = method_named("lsh", model, 16, seed=0)
    turned = replace(task, gallery=task.gallery[np.arange(239, -1, -1)])
    learnt = method.learn(Examples(task.gallery.images, 0))
    fixed = replace(method, learn=lambda _: learnt)
    one, other = (
        measure(fixed, Examples(part.gallery.images, 0), part, ks=KS, seed=0, date=TODAY)
        for part in (task, turned)
    )
    assert_allclose(
        [interval.value for interval in one.measures.values()],
        [interval.value for interval in other.measures.values()],
    )
    assert one.ball == other.ball
    precision, recall, empty = one.ball[-1]
    assert (precision, recall, empty) == (pytest.approx(1 / 3, abs=0.01), 1.0, 0.0)


def test_bits_are_described_by_entropy_and_correlation(task, model):
    method = method_named("lsh", model, 16, seed=0)
    bits = np.zeros((300, 16), np.uint8)
    bits[:, 0] = bits[:, 1] = np.arange(300) % 2  # two alike, the others never 1
    codes = np.packbits(bits, axis=1)
    fixed = replace(method, learn=lambda _: lambda images: codes[: len(images)])
    result = measure(fixed, Examples(task.gallery.images, 0), task, ks=KS, seed=0, date=TODAY)
    assert result.entropy == pytest.approx(2 / 16)
    assert result.correlation == pytest.approx(1.0)


def test_a_picture_that_stays_the_same_is_found_first_and_a_lost_one_by_chance(
    task, model, monkeypatch
):
    method = method_named("codes", model, 64, seed=0)
    describe = method.learn(Examples(task.gallery.images, 0))
    monkeypatch.setattr(measured, "_CHANGED", 1000)
    monkeypatch.setattr(
        measured,
        "changed",
        lambda images, seed: [("same", images), ("black", np.zeros_like(images))],
    )
    result = measure(method, Examples(task.gallery.images, 0), task, ks=KS, seed=0, date=TODAY)
    codes = describe(task.gallery.images)
    copies = [(codes == code).all(axis=1).sum() for code in codes]
    assert result.changes["same"] == (0.0, pytest.approx(np.mean(1 / np.array(copies))))
    flipped, first = result.changes["black"]
    black = describe(np.zeros((1, 32, 32, 3), np.uint8))
    distances = np.bitwise_count(codes ^ black).sum(axis=1)
    assert flipped == pytest.approx(distances.mean())
    assert first == pytest.approx(1 / 240)  # one of them, or several at one distance


def test_measuring_computes_on_one_thread_each_and_then_gives_the_threads_back(task, model):
    method, while_learning, while_describing = method_named("lsh", model, 16, seed=0), [], []

    def threads():
        """Of torch and of each BLAS, in the thread that asks."""
        found = {
            library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
        }
        return {torch.get_num_threads(), *found}

    def learn(examples):
        while_learning.append(threads())
        describe = method.learn(examples)

        def recorded(images):
            if threading.current_thread() is not threading.main_thread():
                while_describing.append(threads())
            return describe(images)

        return recorded

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, "blas"):
            fixed = replace(method, learn=learn)
            measure(fixed, Examples(task.gallery.images, 0), task, ks=KS, seed=0, date=TODAY)
            assert threads() == {2}
    finally:
        torch.set_num_threads(before)
    assert while_learning == [{1}]
    assert while_describing
    assert all(found == {1} for found in while_describing)


def test_progress_says_of_what_and_how_much(task, model, capsys, monkeypatch):
    monkeypatch.setattr(console, "_LINE_EVERY_S", 0)
    method = method_named("lsh", model, 16, seed=0)
    with reports_opened_by(console.open_report):
        measure(method, Examples(task.gallery.images, 0), task, ks=KS, seed=0, date=TODAY)
    lines = [
        re.sub(r"[\d,]+ (\w+/s)", r"N \1", line) for line in capsys.readouterr().err.split("\n")
    ]
    for line in (
        "describing light-60-240 by lsh: 300 of 300  N images/s",
        "searching light-60-240 for changed images by lsh: 960 of 960  N images/s",
        "ranking light-60-240 by lsh: 60 of 60  N queries/s",
    ):
        assert line in lines


def test_queries_are_cut_into_chunks_that_give_every_thread_work(monkeypatch):
    monkeypatch.setattr("hashsearch.evaluation.threads.usable_cores", lambda: 4)
    queries = np.arange(1001)
    for n_gallery, n_chunks in ((240, 4), (50_000, 6), (10**9, 1001)):
        parts = chunks(queries, n_gallery)
        assert len(parts) == n_chunks
        assert_array_equal(np.concatenate(parts), queries)
        assert len(parts[0]) == 1 or 4 * n_gallery * len(parts[0]) <= 2**25


def test_changes_are_what_they_are_called(tiny_images):
    after = dict(changed(tiny_images[:6], seed=0))
    before = tiny_images[:6].astype(int)
    assert_array_equal(after["mirrored"], tiny_images[:6, :, ::-1])
    assert_array_equal(after["upside down"], tiny_images[:6, ::-1])
    assert after["darker by a quarter"].mean() == pytest.approx(0.75 * before.mean(), abs=1)
    away = {name: np.abs(images - before).mean() for name, images in after.items()}
    for less, more in (
        ("JPEG, quality 60", "JPEG, quality 30"),
        ("crop to 28 of 32", "crop to 24 of 32"),
        ("blur, radius 0.7", "blur, radius 1.5"),
        ("rotated by 5°", "rotated by 15°"),
        ("noise, deviation 5", "noise, deviation 15"),
    ):
        assert 0 < away[less] < away[more]
    assert all(images.shape == (6, 32, 32, 3) for images in after.values())
    assert_array_equal(
        dict(changed(tiny_images[:6], seed=0))["noise, deviation 5"], after["noise, deviation 5"]
    )


def test_intervals_are_as_wide_as_the_normal_distributions():
    values = np.random.default_rng(0).random(4000)
    (interval,) = intervals({"x": values}, seed=0).values()
    error = values.std() / np.sqrt(4000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_rows_shown_lie_evenly():
    assert evenly(10, 3).tolist() == [0, 4, 9]
    assert evenly(2, 12).tolist() == [0, 1]


def copy_of_the_package(folder):
    return shutil.copytree(
        ROOT / "hashsearch", folder / "hashsearch", ignore=shutil.ignore_patterns("pretrained")
    )


def test_the_sources_of_a_measurement_are_what_it_imports(tmp_path):
    """The imports that Python itself makes, in a process that imports the same and no more."""
    package = copy_of_the_package(tmp_path)
    statement = "import sys, hashsearch.evaluation.measure\n"
    statement += (
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('hashsearch.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", statement],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    imported = {Path(name) for name in done.stdout.split()}
    found = imported_files(package / "evaluation/measure.py")
    assert imported <= set(found)  # imports inside functions were not made yet
    names = {str(path.relative_to(package)) for path in found}
    assert {"search/exact.py", "hardware.py", "models/convolutional.py"} <= names
    assert not {name for name in names if name.split("/")[0] in ("jobs", "commands", "gallery")}
    assert "evaluation/report.py" not in names


def test_imports_in_functions_are_found_and_those_for_types_alone_are_not(tmp_path):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    texts = {
        "__init__": "from package import unused\n",
        "first": "def f():\n    from package.inner import second\n",
        "inner/__init__": "",
        "inner/second": "if TYPE_CHECKING:\n    import package.types\nelse:\n    import json\n"
        "TABLE = {'row': 'package.table:Row'}\n",
        "table": "",
        "types": "",
        "unused": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    found = [path.relative_to(package) for path in imported_files(package / "first.py")]
    assert [*map(str, found)] == ["first.py", "inner/__init__.py", "inner/second.py", "table.py"]
    before = sources_sha256(package / "first.py")
    (package / "unused.py").write_text("#")
    assert sources_sha256(package / "first.py") == before
    (package / "inner/second.py").write_text("#")
    assert sources_sha256(package / "first.py") != before


@pytest.fixture
def evaluate(task, model, tmp_path):
    """Run by random projections; what differs from the usual is given."""

    def evaluate(of=task, n_bits=64, seed=0, **differing):
        usual = {"ks": KS, "environment": {"on": "a machine"}, "date": TODAY}
        cache = tmp_path / "cache"
        method = method_named("lsh", model, n_bits, seed)
        return evaluation.evaluate(
            of, [method], **usual | {"seed": seed, "cache": cache} | differing
        )

    return evaluate


def test_what_was_measured_is_read_back_until_something_else_is_asked(
    task, evaluate, tmp_path, monkeypatch
):
    counted = []
    original = evaluation.measure

    def measure(*given, **named):
        counted.append(given)
        return original(*given, **named)

    monkeypatch.setattr(evaluation, "measure", measure)
    first = evaluate()
    assert evaluate() == first
    assert evaluate(date="2027-01-01") == first  # its date is of when it was measured
    assert len(counted) == 1
    evaluate(seed=1)
    evaluate(ks=[1, 10])
    evaluate(n_bits=16)
    evaluate(of=replace(task, gallery=task.gallery[np.arange(200)]))
    evaluate(environment={"on": "another machine"})
    assert len(counted) == 6
    sources = copy_of_the_package(tmp_path)
    monkeypatch.setattr(evaluation, "_MEASURING", sources / "evaluation/measure.py")
    (sources / "jobs/adding.py").write_text("# changed")  # which measuring does not import
    (sources / "evaluation/report.py").write_text("# changed")
    evaluate()
    assert len(counted) == 6
    with (sources / "hardware.py").open("a") as file:  # which search/exact.py imports
        file.write("#")
    evaluate()
    assert len(counted) == 7
    for path in (tmp_path / "cache").iterdir():
        path.write_text(path.read_text()[:100])
    assert evaluate()[0].measures == first[0].measures
    assert len(counted) == 8


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(evaluate, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert evaluate(cache=tmp_path / "file" / "cache")[0].measures
    assert "the result of lsh was not kept: " in caplog.text


def test_as_many_images_are_retrieved_as_were_asked_for_or_as_there_are(task):
    assert evaluation.numbers_retrieved(None, task) == [1, 10, 100]
    assert evaluation.numbers_retrieved([5, 1, 5], task) == [1, 5]
    with pytest.raises(EvaluationError, match="240 images to find, fewer than the 1,000 asked for"):
        evaluation.numbers_retrieved([1, 1000], task)


def run_eval(*arguments, data):
    return main(["eval", "--data", str(data), "-k", "1", "10", "--queries", "30", *arguments])


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_command_measures_a_labelled_folder_and_writes_a_report(
    image_files, model_folder, plots, tmp_path, own_cache, capsys
):
    arguments = ("--model", str(model_folder), "--bits", "64", "--out", str(tmp_path / "report"))
    assert run_eval(*arguments, data=image_files) == 0
    shown = capsys.readouterr().out
    assert "pictures-30-270" in shown
    report = Report.from_json((tmp_path / "report/report.json").read_text())
    assert [result.method for result in report.results] == BY_DEFAULT
    assert report.left_out == {}
    for result in report.results:
        assert result.title in shown
        for interval in result.measures.values():
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
        assert len(result.hits) == 12
        assert (result.changes != {}) == (result.n_bits is not None)
    assert (tmp_path / "report/report.md").read_text() == to_markdown(report)
    assert tables(report)["Bits"][0][3] == "correlation of two (0.049 by chance)"
    assert tables(replace(report, gallery=10_000))["Bits"][0][3] == "correlation of two"
    page = (tmp_path / "report/report.html").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 12 * (2 + 8 + 8)
    assert page.count('src="data:image/svg+xml;base64,') == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # it needs nothing beside it
    assert "@media (prefers-color-scheme: dark)" in page
    assert page.count("<table") == len(re.findall(r'<div class="scroll"[^>]*>\s*<table', page)) == 5
    for plot in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page):
        drawn = base64.b64decode(plot)
        assert b"prefers-color-scheme: dark" in drawn
        assert b"#000000" not in drawn  # invisible on a dark page
    assert run_eval("--methods", "pixels", "--json", data=image_files) == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "pictures-30-270"


@pytest.mark.parametrize(
    "lists",
    [
        ["-k", "1", "10", "--methods", "pixels", "lsh"],
        ["-k", "1,10", "--methods", "pixels,lsh"],
        ["-k", "1,", "10", "--methods", "pixels,", "lsh"],
        ["-k", "1, 10,1", "--methods", " pixels ,lsh,pixels"],
    ],
    ids=" ".join,
)
def test_lists_are_separated_by_spaces_or_commas(lists, image_files, own_cache, capsys):
    assert main(["eval", "--data", str(image_files), "--json", *lists]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ks"] == [1, 10]
    assert [result["method"] for result in report["results"]] == ["pixels", "lsh"]


@pytest.mark.parametrize("numbers", [["1,x"], ["1", "x"], ["1,0"], [""], [","]])
def test_a_list_with_what_is_no_number_is_refused(numbers, image_files, capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--data", str(image_files), "-k", *numbers])
    assert "argument -k: " in capsys.readouterr().err


def test_a_gallery_is_measured_by_the_model_that_made_it(
    gallery_folder, model_folder, other_model_folder, own_cache, capsys
):
    assert run_eval("--methods", "codes", "--json", data=gallery_folder) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["fingerprint"] for one in report["models"]] == [
        Model(model_folder).card.fingerprint
    ]
    assert report["queries"] + report["gallery"] == 300
    for others in ([other_model_folder], [model_folder, other_model_folder]):
        arguments = [word for folder in others for word in ("--model", str(folder))]
        assert run_eval(*arguments, data=gallery_folder) == 1
        assert re.search(r"was made by model \w{12}, and \S+ is \w{12}", capsys.readouterr().err)
    assert run_eval("--methods", "lsh", "--model", str(model_folder), data=gallery_folder) == 0


def test_several_models_stand_in_one_table(
    image_files, model_folder, other_model_folder, own_cache, tmp_path, capsys
):
    """Each method that depends on a model once for each; the others once."""
    folders = {"bundled": PRETRAINED, model_folder.name: model_folder}
    alone = {}
    for name, folder in folders.items():
        assert (
            run_eval("--model", str(folder), "--methods", "codes", "--json", data=image_files) == 0
        )
        (alone[name],) = json.loads(capsys.readouterr().out)["results"]
        assert alone[name]["title"] == "model's codes"
        assert alone[name]["model"] == Model(folder).card.fingerprint
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    given = ["--model", "bundled", "--model", str(model_folder), "--model", str(copy)]
    given += ["--methods", "codes,pixels,lsh", "--bits", "64", "--out", str(tmp_path / "out")]
    assert run_eval(*given, data=image_files) == 0
    shown = capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [one["name"] for one in report["models"]] == list(folders)  # a copy is no other model
    titles = [f"codes of {name}" for name in folders]
    assert [one["title"] for one in report["results"]] == [
        *titles,
        "pixels",
        "random projections (LSH)",
    ]
    for name, one in zip(folders, report["results"], strict=False):
        assert one["measures"] == alone[name]["measures"]
        assert one["title"] in shown
    page = (tmp_path / "out/report.html").read_text()
    pictures = re.findall(r'src="(data:image/png;base64,[^"]*)', page)
    assert len(pictures) == 12 * (1 + 2 + 3 * 8)
    for row in range(12):
        query, *decoded = pictures[row * 27 : row * 27 + 3]
        assert len({query, *decoded}) == 3
    for title in titles:
        assert f"nearest by {title}" in page
    assert f"<th>decoded by {model_folder.name}</th>" in page
    assert report["command"].count(" --model ") == 3
    assert f"bundled is {alone['bundled']['model'][:12]}, trained" in page


def test_the_report_says_whose_labels_a_model_has_learned(image_files, own_cache, tmp_path):
    own = shutil.copytree(PRETRAINED, tmp_path / "general")
    given = ["--model", "general", "--model", str(own), "--methods", "codes"]
    assert run_eval(*given, "--out", str(tmp_path / "out"), data=image_files) == 0
    shown = (tmp_path / "out/report.md").read_text()
    general, bundled = (
        read_card(folder).fingerprint[:12] for folder in (PRETRAINED_MODELS["general"], own)
    )
    learned = "with the labels of cifar100, tinyimagenet32."
    assert re.search(rf"\bgeneral is {general}, trained.*, {learned}", shown)
    assert re.search(rf"{re.escape(str(own))} is {bundled}, trained[^.]* cifar100\.", shown)


def test_models_of_one_name_are_told_apart_by_their_fingerprints(model_folder, other_model_folder):
    first, second = distinct_models([("a", model_folder), ("a", other_model_folder)])
    assert (first.name, second.name) == tuple(
        f"a {one.card.fingerprint[:12]}" for one in (first, second)
    )
    assert [one.name for one in distinct_models([("a", model_folder)] * 2)] == [""]
    titles = [method.title for method in methods_named("codes", [first, second], 64, 0)]
    assert titles == [f"codes of {first.name}", f"codes of {second.name}"]
    assert len(methods_named("pixels", [first, second], 64, 0)) == 1


def test_what_cannot_be_measured_is_refused_in_one_sentence(
    image_files, model_folder, tmp_path, own_cache, capsys
):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(image_files.rglob("*.*"))[:40]:
        shutil.copy(path, flat)
    for data, arguments, message in (
        (flat, (), "none of 40 images has a label"),
        (image_files, ("-k", "1000"), "270 images to find, fewer than the 1,000 asked for"),
        (image_files, ("--methods", "codes,sift"), "there is no method sift; there are codes, "),
        (image_files, ("--methods", "phash", "--bits", "50"), "a square number of bits"),
        (image_files, ("--bits", "4"), "codes have 8 to 3,072 bits here"),
        (image_files, ("--methods", "itq", "--bits", "272"), "learns from at least 273 images"),
        (image_files, ("--pool",), "which pictures has not"),
        (image_files, ("--out", str(flat)), ", which is no part of a report"),
        (image_files, ("--methods", "addresses", "--model", str(model_folder)), "no addresses"),
        (tmp_path / "nowhere", (), "does not exist"),
        (sorted(flat.iterdir())[0], (), "none of 1 image has a label"),
        (image_files, ("--model", str(tmp_path / "nowhere")), "nowhere"),
    ):
        made = () if "--out" in arguments else ("--out", str(tmp_path / "report"))
        assert run_eval(*arguments, *made, data=data) == 1
        assert not (tmp_path / "report").exists()
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.startswith("hashsearch: ") or "\nhashsearch: " in shown.err
        assert shown.out == ""
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize("kind", ["npy", "parquet", "tar", "zip", "bin", "image", "gallery"])
def test_without_labels_the_message_says_how_they_are_given_for_that_source(
    kind, image_files, tiny_images, model_folder, tmp_path, own_cache, capsys
):
    pictures = sorted(image_files.rglob("*.*"))[:20]
    path = tmp_path / f"tiny_images.{kind}"
    if kind == "npy":
        np.save(path, tiny_images[:20])
    elif kind == "parquet":
        image_bytes = [picture.read_bytes() for picture in pictures]
        pq.write_table(pa.table({"image": image_bytes, "kind": ["cat"] * 20}), path)
    elif kind == "bin":
        path.write_bytes(tiny_images[:20].tobytes())
    elif kind == "image":
        path = pictures[0]
    else:
        flat = tmp_path / "flat"
        flat.mkdir()
        for picture in pictures:
            shutil.copy(picture, flat)
        if kind == "gallery":
            with hs.open(path, create=True, model=model_folder) as gallery:
                gallery.index(flat)
        else:
            shutil.make_archive(str(path.with_suffix("")), kind, flat)
    assert run_eval(data=path) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "has a label, without which nothing can be measured; " in message
    assert "hashsearch index" in message
    assert "--labels" in message
    assert ("folder" in message) == (kind in ("tar", "zip"))
    assert ("a column label, labels, fine_label or class" in message) == (kind == "parquet")
    assert (".cls" in message) == (kind == "tar")


def test_labels_of_a_list_can_be_measured_in_a_gallery(
    tiny_images, model_folder, tmp_path, own_cache, capsys
):
    """As the message for an array without labels says."""
    np.save(tmp_path / "x.npy", tiny_images[:60])
    rows = [f"x.npy#{row},{('light', 'dark')[row % 2]}" for row in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with hs.open(tmp_path / "g", create=True, model=model_folder) as gallery:
        gallery.index(tmp_path / "x.npy", labels=tmp_path / "labels.csv")
    assert run_eval("--methods", "pixels", "--json", data=tmp_path / "g") == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "g-30-30"


def test_addresses_are_measured_where_they_are_asked_for(image_files, own_cache, capsys):
    assert run_eval("--methods", "addresses", "--json", data=image_files) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["n_bits"], result["image_bytes"], len(result["ball"])) == (28, 4, 29)
    assert result["measures"]["precision_at_10"]["value"] > 0.15  # by chance, .1


def test_cifar10_is_measured_by_its_test_images(cifar10, own_cache, tmp_path, capsys, monkeypatch):
    part = part_of_cifar10(cifar10, tmp_path / "data", train=100, test=100)
    monkeypatch.setenv("HASHSEARCH_DATA", str(part))
    archive = str(part / cifar10.name)
    for data, arguments, name in (
        ("cifar10", (), "cifar10-100-500"),
        (archive, ("--queries", "20"), "cifar10-20-500"),
        ("cifar10", ("--queries", "20", "--pool", "--seed", "3"), "cifar10-20-580-seed3"),
        ("cifar10:test", (), "cifar10-test-10-90"),
        (f"{archive}:train", ("--queries", "50"), "cifar10-train-50-450"),
    ):
        command = ["eval", "--data", data, "--methods", "lsh", "--bits", "16", "--json"]
        assert main([*command, "-k", "10", *arguments]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["protocol"], report["set_apart"]) == (name, ":" not in data)
        assert report["queries"] == int(name.split("-")[1 + (":" in data)])


def test_names_from_outside_are_text_on_the_page(image_files, model_folder, own_cache, tmp_path):
    odd = tmp_path / "<b>&\udcff"
    for number, path in enumerate(sorted(image_files.rglob("*.*"))[:40]):
        (odd / f"<i>{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, odd / f"<i>{number % 2}")
    arguments = ("--methods", "codes", "--model", str(model_folder), "--out", str(tmp_path / "out"))
    assert main(["eval", "--data", str(odd), "-k", "5", *arguments]) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;&amp;\N{REPLACEMENT CHARACTER}-4-36" in page


def test_an_earlier_report_is_replaced(image_files, model_folder, own_cache, tmp_path):
    for bits in ("16", "64"):
        arguments = ("--methods", "lsh", "--bits", bits, "--out", str(tmp_path / "out"))
        assert run_eval(*arguments, data=image_files) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.json",
        "report.md",
    }
    report = Report.from_json((tmp_path / "out/report.json").read_text())
    assert report.results[0].n_bits == 64


def test_without_matplotlib_the_page_says_what_it_lacks(
    image_files, own_cache, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ("--methods", "lsh", "--bits", "16", "--out", str(tmp_path / "out"))
    assert run_eval(*arguments, data=image_files) == 0
    assert "Plots need matplotlib" in (tmp_path / "out/report.html").read_text()


def test_a_method_whose_package_is_missing_is_left_out_unless_it_was_asked_for(
    image_files, model_folder, own_cache, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    arguments = ("--model", str(model_folder), "--bits", "16", "--json")
    assert run_eval(*arguments, data=image_files) == 0
    shown = capsys.readouterr()
    lacks = "this method needs the package pdqhash, which is not installed: "
    assert f"pdq is left out: {lacks}{install_command('pdqhash')}" in shown.err
    assert list(json.loads(shown.out)["left_out"]) == ["pdq"]
    assert run_eval("--methods", "pdq", data=image_files) == 1
    assert lacks in capsys.readouterr().err


def test_the_published_results_are_those_that_were_measured():
    report, transforms, models = (
        Report.from_json((ROOT / "docs" / f"results{part}.json").read_text())
        for part in ("", "-transforms", "-models")
    )
    page = to_markdown(report)
    for other, what in ((transforms, "with transforms of the query"), (models, "by both models")):
        title, rest = to_markdown(other).split("\n", 1)
        page += f"\n{title}, {what}\n{rest}"
        assert other.images_sha256 == report.images_sha256
    assert (ROOT / "docs/results.md").read_text() == page
    fingerprints = {
        name: read_card(folder).fingerprint for name, folder in PRETRAINED_MODELS.items()
    }
    for one in (report, transforms):
        assert [model["fingerprint"] for model in one.models] == [fingerprints["bundled"]]
    assert {model["name"]: model["fingerprint"] for model in models.models} == fingerprints
    assert [result.method for result in report.results] == BY_DEFAULT
    readme = (ROOT / "README.md").read_text()
    (codes_of_general,) = (one for one in models.results if one.title == "codes of general")
    for result in [*report.results, codes_of_general]:
        names = ("precision_at_1", "precision_at_10", "map_at_1000")
        figures = [f"{result.measures[name].value:.3f}".lstrip("0") for name in names]
        assert f"| {result.title} | {result.image_bytes:,} | {' | '.join(figures)} |" in readme
