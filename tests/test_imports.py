"""Who may import whom, and that asking for help is quick: it loads no torch and no network."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

import detectors

PACKAGES = ("datasets", "detectors", "engine")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
FILES.append(ROOT / "main.py")
# Slow to import, or not installed everywhere: only the function that needs one imports it.
HEAVY = {
    "open_clip", "timm", "diffusers", "transformers", "gradio", "onnx", "onnxruntime", "matplotlib",
    "tensorboard", "huggingface_hub", "lmdb", "pyarrow", "pi_heif", "sklearn",
    "scipy", "py7zr",
}  # fmt: skip
# What a file of datasets may need besides Pillow and numpy.
FORMAT_READERS = {
    "_images.py": {"pi_heif"},
    "lmdb_file.py": {"lmdb"},
    "parquet_file.py": {"pyarrow"},
}


@dataclass(frozen=True)
class Import:
    """One imported module by its absolute dotted name."""

    module: str
    line: int
    top_level: bool

    @property
    def root(self) -> str:
        return self.module.split(".")[0]


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _modules(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """What a statement imports; `from a import b` counts as a.b, which b may or may not be."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def imports(path: Path, root: Path = ROOT) -> list[Import]:
    """Every import of a file at run time; packages are the folders below `root`."""
    package = list(path.relative_to(root).parts[:-1])

    def walk(node: ast.AST, top_level: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for module in _modules(child, package):
                    yield Import(module, child.lineno, top_level)
            elif not _for_types_only(child):
                inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(child, top_level and not inside)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), True))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def in_package(package: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == package]


def test_the_reader_of_imports_sees_all_forms(tmp_path: Path) -> None:
    file = tmp_path / "engine" / "made_up.py"
    file.parent.mkdir()
    file.write_text(
        "import os.path, json as j\n"
        "from . import train\n"
        "from .run import log_to\n"
        "from detectors._base import Detector\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import timm\nexcept ImportError:\n    pass\n"
        "class A:\n    def f(self):\n        from diffusers import B\n",
        encoding="utf-8",
    )
    assert {(i.module, i.top_level) for i in imports(file, tmp_path)} == {
        ("os.path", True), ("json", True), ("engine.train", True), ("engine.run.log_to", True),
        ("detectors._base.Detector", True), ("timm", True), ("diffusers.B", False),
    }  # fmt: skip


@pytest.mark.parametrize("path", in_package("datasets"), ids=name_of)
def test_datasets_need_no_more_than_pillow_and_numpy(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "PIL", "numpy", "datasets"}
    allowed |= FORMAT_READERS.get(path.name, set())
    others = [f"line {i.line}: {i.module}" for i in imports(path) if i.root not in allowed]
    assert others == []


@pytest.mark.parametrize("path", in_package("datasets"), ids=name_of)
def test_only_images_needs_images(path: Path) -> None:
    """Or listing pictures would import torch after all."""
    if path.name != "_images.py":
        assert not [i for i in imports(path) if i.module.startswith("datasets._images")]


@pytest.mark.parametrize("path", in_package("detectors"), ids=name_of)
def test_detectors_know_neither_data_nor_engine_nor_one_another(path: Path) -> None:
    own = path.relative_to(ROOT / "detectors").parts[0].removesuffix(".py")
    forbidden = {"datasets", "engine", "main", "scripts", "tests"}
    for found in imports(path):
        assert found.root not in forbidden, f"line {found.line}: {found.module}"
        parts = found.module.split(".")
        if found.root == "detectors" and len(parts) > 1:
            other = parts[1] in detectors.available() and parts[1] != own
            assert not other, f"line {found.line}: {found.module}; ask detectors.load instead"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_are_imported_where_they_are_needed(path: Path) -> None:
    found = [f"line {i.line}: {i.module}" for i in imports(path) if i.root in HEAVY and i.top_level]
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_imports_scripts_or_tests(path: Path) -> None:
    assert not {i.root for i in imports(path)} & {"scripts", "tests", "conftest"}


# A module of the engine imports from its own room and from those before it.
ROOMS = (
    "config", "runtime", "fetching", "weights", "scoring", "evaluation", "reporting", "training",
    "phases", "pages", "cli",
)  # fmt: skip
OF_CONFIG = ("config", "plain_data")  # lie in engine/ itself


def room_of(parts: tuple[str, ...]) -> int:
    """The place of a module's room in the order, by its path below engine/ or its dotted name."""
    return 0 if parts[0] in OF_CONFIG else ROOMS.index(parts[0])


def test_the_rooms_of_the_engine_import_one_way() -> None:
    offenders = []
    for path in in_package("engine"):
        parts = path.relative_to(ROOT / "engine").with_suffix("").parts
        if parts == ("__init__",):
            continue
        for found in imports(path):
            names = tuple(found.module.split(".")[1:])
            if found.root == "engine" and room_of(names) > room_of(parts):
                offenders.append(f"{name_of(path)}, line {found.line}: {found.module}")
    assert offenders == []


def test_a_room_has_no_modules_of_its_own_and_no_names_of_others() -> None:
    """No underscore modules: the room is the wall. A name is imported from where it is defined."""
    for path in in_package("engine"):
        if path.name == "__init__.py":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), name_of(path)
        else:
            assert not path.stem.startswith("_"), name_of(path)


def test_the_engine_names_no_detector() -> None:
    """What is special about one is a hook; `USUAL`, taken where none is named, is the one name."""
    offenders = []
    for path in in_package("engine"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in detectors.available():
                offenders.append(f"{name_of(path)}, line {node.lineno}: {node.value}")
    assert [line.split(",")[0] for line in offenders] == ["engine/config.py"], offenders


def test_argparse_is_known_to_the_command_line_alone() -> None:
    users = {
        path.parent.name
        for path in in_package("engine")
        if any(found.module == "argparse" for found in imports(path))
    }
    assert users == {"cli"}


def test_engine_takes_families_through_load() -> None:
    """Neither a detector nor a data set is named in the engine; a CSV is a format as well."""
    named = {f"detectors.{name}" for name in detectors.available()}
    for path in in_package("engine"):
        for found in imports(path):
            module = ".".join(found.module.split(".")[:2])
            assert module not in named, f"{name_of(path)}, line {found.line}: {found.module}"


def test_main_imports_nothing_heavy_before_it_must() -> None:
    names = (
        "cli.app",
        "cli.parser",
        "cli.arguments",
        "runtime.program",
        "runtime.text",
        "scoring.probability",
    )
    files = [ROOT / "engine" / f"{name.replace('.', '/')}.py" for name in names]
    for path in [ROOT / "main.py", *files]:
        early = {i.module for i in imports(path) if i.top_level}
        heavy = {name for name in early if name.split(".")[0] not in sys.stdlib_module_names}
        allowed = (*(f"engine.{name}" for name in names), "datasets._limits", "datasets._paths")
        assert not {n for n in heavy if n != "detectors" and not n.startswith(allowed)}, path


WATCHED = """
import runpy, sys
def audit(event, arguments):
    if event.startswith("socket.") or event == "urllib.Request":
        raise SystemExit(f"network: {event} {arguments}")
sys.addaudithook(audit)
sys.argv = ["main.py", "--help"]
try:
    runpy.run_path("main.py", run_name="__main__")
except SystemExit as error:
    if error.code:
        raise
print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_help_loads_no_torch_and_no_network() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown, _, loaded = done.stdout.rpartition("LOADED")
    assert "--phase" in shown
    assert "detectors" in loaded.split()
    slow = {"torch", "torchvision", "numpy", "PIL", "yaml", "safetensors", *HEAVY}
    assert slow & set(loaded.split()) == set()
