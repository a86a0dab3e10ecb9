"""A stretch of training on a borrowed machine, whole, at tiny size."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hashsearch.models.storage import load_saved
from tests.conftest import part_of_cifar10
from training.portable import read_portable
from training.resnet import Teacher
from training.targets import FILE

SCRIPT = Path(__file__).parents[1] / "training" / "stretch.sh"
ARGUMENTS = ["teacher-quarter", "--data", "cifar10", "--minutes", "1.2"]


def stretch(folder, out, work, **options):
    """Start it, as on a machine that has training's packages alone."""
    missing = ("faiss", "fastapi", "pydantic", "uvicorn", "filelock", "pooch", "matplotlib")
    (work / "sitecustomize.py").write_text(
        "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    )
    environment = os.environ | {
        "STRETCH_WORK": str(work / "state"),
        "PYTHON": sys.executable,
        "PYTHONPATH": str(work),
    }
    command = ["bash", str(SCRIPT), str(folder), str(out), *ARGUMENTS]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.soak
def test_a_stretch_that_is_lost_goes_on_elsewhere_and_comes_back_whole(cifar10, tmp_path):
    for name in ("first", "second", "here", "there"):
        (tmp_path / name).mkdir()
    data = part_of_cifar10(cifar10, tmp_path / "first" / "data", train=80, test=10**6)
    (tmp_path / "second" / "data").symlink_to(data)
    lost = stretch(tmp_path / "first", tmp_path / "out1", tmp_path / "here", start_new_session=True)
    checkpoint = tmp_path / "here/state/teacher-quarter.training/checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(8)
    os.killpg(lost.pid, signal.SIGTERM)
    _, printed = lost.communicate(timeout=60)
    assert "stopped; the same command with --resume continues" in printed
    _, about = read_portable(tmp_path / "out1" / "portable")
    assert about["step"] > 0

    (tmp_path / "out1" / "portable").rename(tmp_path / "second" / "portable")
    started = time.monotonic()
    done = stretch(tmp_path / "second", tmp_path / "out2", tmp_path / "there")
    _, printed = done.communicate(timeout=300)
    assert done.returncode == 0, printed
    assert time.monotonic() - started < 72 * 1.1
    parts = sorted((tmp_path / "out2").iterdir())
    assert [part.name for part in parts] == ["teacher-quarter.tar.00"]
    assert all(part.stat().st_size <= 16 * 2**20 for part in parts)
    joined = b"".join(part.read_bytes() for part in parts)
    subprocess.run(["tar", "x", "-C", tmp_path], input=joined, check=True)
    _, card = load_saved(tmp_path / "teacher-quarter", {Teacher.kind: Teacher})
    assert card.training["steps"]["views"] > about["step"]
    assert card.metrics["heldout_features_knn_accuracy"] > 0.1
    assert (tmp_path / "teacher-quarter" / FILE).exists()
    log = (tmp_path / "teacher-quarter" / "report" / "log.csv").read_text().splitlines()
    assert log[1].startswith(f"views,{about['step']},")
    assert (tmp_path / "teacher-quarter" / "portable" / "checkpoint.json").exists()
    assert (tmp_path / "there/state/done/teacher-quarter/card.json").exists()
    assert not (tmp_path / "there/state/teacher-quarter").exists()  # another call trains again
