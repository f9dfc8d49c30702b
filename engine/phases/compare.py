"""Runs side by side: metrics on the pictures that all of them scored, and their differences."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets._paths import visible

from ..config import ConfigError
from ..evaluation.comparison import (
    Comparison,
    cautions,
    common,
    measure,
    names,
    read_run,
)
from ..reporting import sections
from ..reporting.comparison import NAME, _blocks_of, _plots, _summary
from ..reporting.document import to_html, to_markdown
from ..runtime.files import write_file

log = logging.getLogger(__name__)


# Numbers


# Text


def _write(folder: Path, found: Comparison, notes: Sequence[str]) -> None:
    try:
        images, captions = _plots(found)
        plots = list(sections.plots(list(images), captions))
    except ImportError:
        images, plots = {}, list(sections.plots(None, {}))
    title = f"Comparison of {', '.join(run.name for run in found.runs)}"
    blocks = [*_blocks_of(found, notes), *plots]
    files = {
        **images,
        f"{NAME}.md": to_markdown(title, blocks).encode(),
        f"{NAME}.html": to_html(title, blocks, images).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{NAME}_*.png"):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        write_file(folder / name, content)
    log.info("the comparison is in %s", folder)


def compare(folders: Sequence[Path], output: Path | None = None) -> str:
    """Sets runs of phase eval side by side, on the pictures that all of them scored.

    The first run is what the others are compared with; each is read at its own threshold. Writes
    compare.md, compare.html and plots into `output` where that is given.

    Returns:
        The summary table for standard output.

    Raises:
        ConfigError: fewer than two folders, one that holds no run, runs that have no picture in
            common or contradict one another about what is real.
    """
    if len(folders) < 2:
        raise ConfigError(f"--compare: expected two runs or more; found {len(folders)}")
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}: expected a folder; found a file")
    read = [read_run(folder) for folder in folders]
    titles = names(folders)
    runs = [replace(run, name=visible(name)) for run, name in zip(read, titles, strict=True)]
    shared = common(runs)
    notes = list(cautions(runs, shared))
    for note in notes:
        log.warning("%s", note)
    found = measure(runs, shared)
    if output is not None:
        _write(output, found, notes)
    return _summary(found)
