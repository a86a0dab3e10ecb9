"""The source files that a module's results depend on, found by its imports."""

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path


def sources_sha256(module: Path) -> str:
    """SHA-256 over the names and bytes of all files that `imported_files` finds."""
    package = _package(module)
    digest = hashlib.sha256()
    for path in imported_files(module):
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def imported_files(module: Path) -> list[Path]:
    """The module's file and every file of its package that it imports, directly or not, sorted.

    Imports inside functions count; those for type checkers alone do not. The __init__.py of
    the whole package is left out: it offers the library to users, and computes nothing.
    """
    package = _package(module)
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            for name in _imported_names(ast.parse(path.read_bytes())):
                waiting += _files(name, package)
    return sorted(found)


def _package(module: Path) -> Path:
    """The folder of the outermost package that a file belongs to."""
    folder = module.parent
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


def _imported_names(node: ast.AST) -> Iterator[str]:
    """Absolute dotted names, of modules and of what is imported from them.

    Texts like "package.module:Name", from which a table imports later, count too.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.fullmatch(r"[\w.]+:\w+", node.value):
            yield node.value.replace(":", ".")
    elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from _imported_names(child)


def _files(name: str, package: Path) -> Iterator[Path]:
    """The module of a dotted name and the packages around it, as far as they are files."""
    first, *parts = name.split(".")
    if first != package.name:
        return
    path = package
    for part in parts:
        path /= part
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.exists():
                yield file
