"""Checkpoints in parts: whole or refused."""

import json

import pytest
import torch

from hashsearch.errors import TrainingError
from training import portable
from training.portable import has_portable, read_portable, write_portable

ABOUT = {"step": 7, "seconds": 1.5}


@pytest.fixture
def tensors():
    random = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(40, 30, generator=random).bfloat16(),
        "mean": torch.randn(50, generator=random),
        "count": torch.tensor(3),
    }


@pytest.fixture
def folder(tensors, tmp_path, monkeypatch):
    monkeypatch.setattr(portable, "PART_BYTES", 1000)
    write_portable(tmp_path / "portable", tensors, ABOUT)
    return tmp_path / "portable"


def test_it_comes_back_as_it_was(folder, tensors):
    found, about = read_portable(folder)
    assert about == ABOUT
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_no_file_is_larger_than_a_part(folder):
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert len(sizes) == 4
    assert max(sizes) == 1000


def test_a_later_one_takes_the_place_of_an_earlier_one(folder, tensors):
    before = {path.name for path in folder.iterdir()}
    write_portable(folder, tensors | {"mean": torch.zeros(50)}, ABOUT | {"step": 8})
    found, about = read_portable(folder)
    assert about["step"] == 8
    assert not found["mean"].any()
    assert len({path.name for path in folder.iterdir()} & before) == 1  # the index


def test_one_that_could_not_be_written_leaves_the_earlier_one(folder, tensors, monkeypatch):
    def fail(*given):
        raise OSError("the disk is full")

    monkeypatch.setattr(portable, "write_whole", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_portable(folder, tensors | {"mean": torch.zeros(50)}, ABOUT | {"step": 8})
    found, about = read_portable(folder)
    assert about == ABOUT
    assert torch.equal(found["mean"], tensors["mean"])


def parts_of(folder):
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


def test_a_part_that_is_missing_or_changed_is_named(folder):
    part = parts_of(folder)[1]
    data = part.read_bytes()
    part.write_bytes(b"\0" + data[1:])
    with pytest.raises(TrainingError, match=f"{part.name} is damaged"):
        read_portable(folder)
    part.write_bytes(data + b"\0" * 10_000)
    with pytest.raises(TrainingError, match=f"{part.name} is damaged"):
        read_portable(folder)
    part.unlink()
    with pytest.raises(TrainingError, match=f"{part.name} is missing"):
        read_portable(folder)


@pytest.mark.parametrize(
    "index", ["", "[]", '{"about": {}}', '{"about": {}, "parts": 3}', '{"about": 1, "parts": {}}']
)
def test_an_index_of_another_kind_is_refused(folder, index):
    assert has_portable(folder)
    (folder / "checkpoint.json").write_text(index)
    with pytest.raises(TrainingError, match=r"checkpoint\.json is not the index"):
        read_portable(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/b", "a\0b", "0.0", ""])
def test_no_part_comes_from_outside_the_folder(folder, name):
    (folder.parent / "outside").write_bytes(b"secret")
    index = {"about": {}, "parts": {name: "0" * 64}}
    (folder / "checkpoint.json").write_text(json.dumps(index))
    with pytest.raises(TrainingError, match="lists no parts, too many, or invalid names"):
        read_portable(folder)


def test_parts_that_are_no_safetensors_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(portable, "save", lambda tensors: b"not a file of tensors")
    write_portable(tmp_path / "portable", {}, ABOUT)
    with pytest.raises(TrainingError, match="do not form a safetensors file"):
        read_portable(tmp_path / "portable")
