"""Who may import whom, and that asking for help is quick: it loads no torch and no network."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import ROOT

import detectors

PACKAGES = ("datasets", "detectors", "engine")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
FILES.append(ROOT / "main.py")
# Slow to import, or not installed everywhere: only the function that needs one imports it.
HEAVY = {
    "open_clip", "timm", "diffusers", "transformers", "gradio", "onnx", "onnxruntime", "matplotlib",
    "tensorboard", "huggingface_hub", "lmdb", "pyarrow", "pi_heif", "sklearn",
    "scipy", "py7zr", "c2pa", "cryptography", "fsspec", "pandas", "ray", "spandrel",
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


@cache
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


def in_package(package: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == package]


def offenders(paths: list[Path], wrong: Callable[[Path, Import], bool]) -> list[str]:
    """Every import of these files that must not be, with its place."""
    return [
        f"{path.relative_to(ROOT)}, line {found.line}: {found.module}"
        for path in paths
        for found in imports(path)
        if wrong(path, found)
    ]


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


def test_datasets_need_no_more_than_pillow_and_numpy() -> None:
    """And none but `_images` needs that, or listing pictures would import torch after all."""
    allowed = {*sys.stdlib_module_names, "PIL", "numpy", "datasets"}

    def wrong(path: Path, found: Import) -> bool:
        images = found.module.startswith("datasets._images") and path.name != "_images.py"
        return images or found.root not in allowed | FORMAT_READERS.get(path.name, set())

    assert offenders(in_package("datasets"), wrong) == []


def test_detectors_know_neither_data_nor_engine_nor_one_another() -> None:
    """One that needs another asks detectors.load for it."""

    def wrong(path: Path, found: Import) -> bool:
        own = path.relative_to(ROOT / "detectors").parts[0].removesuffix(".py")
        others = {f"detectors.{name}" for name in detectors.available() if name != own}
        module = ".".join(found.module.split(".")[:2])
        return found.root in {"datasets", "engine", "main"} or module in others

    assert offenders(in_package("detectors"), wrong) == []


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    assert offenders(FILES, lambda _, found: found.root in HEAVY and found.top_level) == []


def test_nothing_imports_scripts_or_tests() -> None:
    assert offenders(FILES, lambda _, found: found.root in {"scripts", "tests", "conftest"}) == []


# A module of the engine imports from its own room and from those before it.
ROOMS = (
    "config", "runtime", "fetching", "weights", "scoring", "evaluation", "reporting", "training",
    "credentials", "api", "phases", "pages", "cli",
)  # fmt: skip
OF_CONFIG = ("config", "plain_data")  # lie in engine/ itself


def room_of(parts: tuple[str, ...]) -> int:
    """The place of a module's room in the order, by its path below engine/ or its dotted name."""
    return 0 if parts[0] in OF_CONFIG else ROOMS.index(parts[0])


def test_the_rooms_of_the_engine_import_one_way() -> None:
    def wrong(path: Path, found: Import) -> bool:
        own = path.relative_to(ROOT / "engine").with_suffix("").parts
        names = tuple(found.module.split(".")[1:])
        if found.root != "engine" or own == ("__init__",):
            return False
        return room_of(names) > room_of(own)

    assert offenders(in_package("engine"), wrong) == []


def test_a_room_has_no_modules_of_its_own_and_no_names_of_others() -> None:
    """No underscore modules: the room is the wall. A name is imported from where it is defined."""
    for path in in_package("engine"):
        if path.name == "__init__.py":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), path
        else:
            assert not path.stem.startswith("_"), path


def test_the_engine_names_no_detector() -> None:
    """What is special about one is a hook; `USUAL`, taken where none is named, is the one name."""
    names = {*detectors.available()}
    users = {
        str(path.relative_to(ROOT))
        for path in in_package("engine")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert users == {"engine/config.py"}
    modules = {f"detectors.{name}" for name in names}
    engine = in_package("engine")
    assert offenders(engine, lambda _, i: ".".join(i.module.split(".")[:2]) in modules) == []


def test_argparse_is_known_to_the_command_line_alone() -> None:
    engine = [path for path in in_package("engine") if path.parent.name != "cli"]
    assert offenders(engine, lambda _, found: found.module == "argparse") == []


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
