"""Runs of phase eval side by side, on the pictures that all of them scored.

`main.py --compare` calls this: it reads the folders, measures the differences and writes the
report. Nothing is scored here, and no run's folder is written to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets._paths import visible

from ..config import ConfigError
from ..evaluation.comparison import cautions, common, measure, names, read_run
from ..reporting.comparison import summary_text, write_comparison

log = logging.getLogger(__name__)


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
    comparison = measure(runs, shared)
    if output is not None:
        write_comparison(output, comparison, notes)
        log.info("the comparison is in %s", output)
    return summary_text(comparison)
