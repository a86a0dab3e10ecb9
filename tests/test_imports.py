"""The house's law: imports run downwards, and light rooms stay light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hashsearch

ROOT = Path(__file__).parents[1]
# From the ground up; a module may import from its own floor and those below.
FLOORS = (
    (
        "errors",
        "codes",
        "crop",
        "metrics",
        "images",
        "imagefiles",
        "closeness",
        "progress",
        "durable",
        "hardware",
        "extras",
        "stopping",
        "columns",
        "wording",
        "inputs",
        "pages",
    ),
    ("sources", "models"),
    ("encoder",),
    ("baselines", "search"),
    ("gallery",),
    ("exports",),
    ("retrieval",),
    ("evaluation",),
    ("jobs",),
    ("distributed",),
    ("search_options",),
    ("open_gallery", "client"),
    ("face",),
    ("demo", "commands", "cli"),
)


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module)
            if node.module == "hashsearch":  # of its modules, or of what __init__ offers
                places = {name: hashsearch._PLACES.get(name) for name in names_in(node)}
                found.update(place or f"hashsearch.{name}" for name, place in places.items())
    return found


def names_in(node: ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names if alias.name != "__version__"]


def floor_of(module: str) -> int:
    (floor,) = [number for number, names in enumerate(FLOORS) if module.split(".")[1] in names]
    return floor


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_imports_within_the_library_run_downwards():
    for path in modules("hashsearch"):
        if path == ROOT / "hashsearch/__init__.py":
            continue
        own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for imported in imports_of(path):
            if imported.startswith("hashsearch."):
                assert floor_of(imported) <= floor_of(own), f"{own} imports {imported}"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("training", "service"), ("service", "training"), ("training", "faiss")],
)
def test_a_package_does_not_import_what_it_must_not(package, forbidden):
    for path in modules(package):
        for imported in imports_of(path):
            assert imported.split(".")[0] != forbidden, f"{path} imports {imported}"


def test_the_library_brings_in_training_and_service_for_its_commands_alone():
    for path in modules("hashsearch"):
        if path.parent.name != "commands":
            for imported in imports_of(path):
                assert imported.split(".")[0] not in ("training", "service", "fastapi"), path


def imports_without(missing: list[str], statement: str) -> subprocess.CompletedProcess:
    """Run an import in a fresh process in which some packages are not to be had."""
    block = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    return subprocess.run(
        [sys.executable, "-c", block + statement], capture_output=True, text=True, cwd=ROOT
    )


def test_the_ground_floor_needs_neither_torch_nor_faiss():
    statement = "import hashsearch.codes, hashsearch.metrics, hashsearch.images, hashsearch.errors"
    done = imports_without(["torch", "faiss"], statement)
    assert done.returncode == 0, done.stderr


def test_training_needs_torch_numpy_pillow_safetensors_and_rich_alone():
    missing = (
        "faiss fastapi pydantic pydantic_settings uvicorn filelock pooch platformdirs requests "
        "pyarrow pillow_heif"
    )
    statement = (
        "import training.job, training.questions, training.pack\n"
        "from hashsearch.sources import open_source"
    )
    done = imports_without(missing.split(), statement)
    assert done.returncode == 0, done.stderr
    command = "from hashsearch.cli import main; sys.exit(main(['train', 'dense256-quick', "
    command += "'--data', 'nowhere', '--out', 'nowhere/model']))"
    done = imports_without(missing.split(), command)
    assert done.stderr.startswith("hashsearch: nowhere does not exist"), done.stderr


def test_clients_need_neither_torch_nor_faiss_nor_scipy_nor_the_service():
    statement = "import hashsearch; hashsearch.Client('http://127.0.0.1:1').close()"
    done = imports_without(["torch", "faiss", "scipy", "fastapi", "uvicorn"], statement)
    assert done.returncode == 0, done.stderr


def test_workers_start_without_torch():
    done = imports_without(["torch", "faiss"], "import hashsearch.jobs.index.prepare")
    assert done.returncode == 0, done.stderr


def test_an_index_command_that_finds_nothing_new_needs_no_torch(gallery, image_files):
    """A nightly job over a folder that did not change is done in a second."""
    command = ["index", str(image_files), "--gallery", str(gallery.folder)]
    statement = f"from hashsearch.cli import main; sys.exit(main({command!r}))"
    done = imports_without(["torch", "faiss"], statement)
    assert done.returncode == 0, done.stderr
    assert "0 new, 300 already there" in done.stdout


@pytest.mark.parametrize("name", ["limits", "uvicorn"])
def test_libraries_whose_inner_parts_are_used_have_an_upper_bound(name):
    """A later version may name those parts otherwise, and the limits would hold no more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = (one for one in map(Requirement, project["dependencies"]) if one.name == name)
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pinned,) = (line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))
    assert wanted.specifier.contains(pinned)
    major, minor = map(int, pinned.split(".")[:2])
    assert not wanted.specifier.contains(f"{major}.{minor + 1}" if major == 0 else f"{major + 1}.0")
