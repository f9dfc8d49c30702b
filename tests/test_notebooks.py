"""scripts/notebooks: they run as they stand, and are kept without what they show."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "scripts" / "notebooks").glob("*.ipynb"))


def test_outputs_are_not_kept() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        nbformat.validate(nbformat.read(path, as_version=4))
        assert all(not cell.get("outputs") for cell in cells), path.name


def shown(notebook: Any, kind: str) -> list[str]:
    """What cells show of a media type, or print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    if kind == "stdout":
        return [output.text for output in outputs if output.get("name") == kind]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    asyncio.run(NotebookClient(notebook, timeout=280, resources=where).async_execute())
    [table] = shown(notebook, "stdout")
    scores = [float(score) for score in re.findall(r"^ *(\d\.\d{3}) ", table, re.MULTILINE)]
    assert len(scores) == 6 and scores == sorted(scores) and "0 could not be read" in table
    assert len(shown(notebook, "image/png")) == 2  # the histogram and the explanation
