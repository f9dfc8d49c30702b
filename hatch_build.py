"""The wheel: the whole project under one import name of its own.

In a checkout `datasets`, `detectors`, `engine` and `scripts` are top-level packages; installed,
they would shadow others' packages, such as Hugging Face's `datasets`. hatchling calls these hooks
(pyproject.toml), which ship copies whose imports name the wheel's package. They change no file of
the checkout, and lay the copies out as the checkout is, for paths are found from its top.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

NAME = "synthetic_picture_detectors"
TOP = ("datasets", "detectors", "engine", "scripts")
# Only weights that the repository ships: a checkout's pretrained/ also has what was fetched.
SHIPPED = (
    "main.py", "configs/**/*.yaml", "data/examples/**/*", "data/lists/**/*",
    "datasets/**/*", "detectors/**/*", "engine/**/*", "scripts/*.py",
    "pretrained/manifest.yaml", "pretrained/*.md", "pretrained/default*.safetensors",
    "pretrained/default.graph.onnx", "pretrained/clip-vit-b-16.safetensors",
)  # fmt: skip


class Edit(NamedTuple):
    """A change of one line: bytes `start` to `end` of line `number` (from 0) become `text`."""

    number: int
    start: int
    end: int
    text: str


def _is_ours(name: str | None) -> bool:
    return (name or "").partition(".")[0] in TOP


def _statement(alias: ast.alias) -> str:
    """An import of one module, or package, that binds the name that it bound before."""
    if not _is_ours(alias.name):
        return ast.unparse(ast.Import([alias]))
    if alias.asname:
        return f"import {NAME}.{alias.name} as {alias.asname}"
    top = alias.name.partition(".")[0]
    whole = f"import {NAME}.{alias.name}; " if top != alias.name else ""
    return f"{whole}from {NAME} import {top}"


def _edits(tree: ast.AST) -> Iterator[Edit]:
    """The changes of a module: imports, names of loggers, and no entries of sys.path."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=module, level=0) if _is_ours(module):
                start = node.col_offset + len("from ")
                yield Edit(node.lineno - 1, start, start, f"{NAME}.")
            case ast.Import(names=names) if any(_is_ours(alias.name) for alias in names):
                text = "; ".join(map(_statement, names))
                yield Edit(node.lineno - 1, node.col_offset, node.end_col_offset or 0, text)
            case ast.Call(
                func=ast.Attribute(attr="getLogger"), args=[ast.Constant(str(name)) as of]
            ) if _is_ours(name):
                yield Edit(of.lineno - 1, of.col_offset + 1, of.col_offset + 1, f"{NAME}.")
            # Scripts name the checkout; here that would put the packages on the path again.
            case ast.Expr(ast.Call()) if ast.unparse(node).startswith("sys.path.insert("):
                yield Edit(node.lineno - 1, node.col_offset, node.end_col_offset or 0, "pass")


def rewritten(source: bytes) -> bytes:
    """A module with its imports of the checkout's packages led to those of the wheel; lines keep
    their numbers."""
    lines = source.splitlines(keepends=True)
    for edit in sorted(_edits(ast.parse(source)), reverse=True):
        line = lines[edit.number]
        lines[edit.number] = line[: edit.start] + edit.text.encode() + line[edit.end :]
    return b"".join(lines)


class CustomBuildHook(BuildHookInterface[Any]):
    """What hatchling asks while it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Names the files of the wheel, those of Python as rewritten copies."""
        self._copies = tempfile.TemporaryDirectory()
        root, copies = Path(self.root), Path(self._copies.name)
        init = copies / "__init__.py"
        init.write_text(f'"""{self.metadata.core.description}."""\n', encoding="utf-8")
        files = {init: f"{NAME}/__init__.py"}
        for path in sorted({path for pattern in SHIPPED for path in root.glob(pattern)}):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            name = path.relative_to(root)
            target = path
            if path.suffix == ".py":
                target = copies / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(rewritten(path.read_bytes()))
            files[target] = f"{NAME}/{name.as_posix()}"
        build_data["force_include"] = {str(path): name for path, name in files.items()}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Removes the copies."""
        self._copies.cleanup()


class CustomMetadataHook(MetadataHookInterface):
    """The wheel's command. A checkout has none, and uv would warn of that."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Names it."""
        metadata["scripts"] = {NAME.replace("_", "-"): f"{NAME}.main:main"}
