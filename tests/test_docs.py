"""What the docs say: pictures that can be drawn again, flags, options and files that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import script
from conftest import ROOT
from PIL import Image

import detectors
from scripts import draw_methods

METHODS = ROOT / "docs" / "methods"
LARGEST = 60_000  # bytes of a picture


def test_methods_are_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = script(capsys, "draw_methods.py: ", draw_methods.main)
    done = run(ROOT / "data/examples/real/chelsea.png", "--output", tmp_path)
    assert done.status == 0, done.err
    drawn = [Path(line) for line in done.out.splitlines()]
    assert drawn == [tmp_path / f"{name}.png" for name in draw_methods.METHODS]
    for path in drawn:
        with Image.open(path) as image, Image.open(METHODS / path.name) as shipped:
            assert image.size == shipped.size and len(image.getcolors() or ()) > 20
        assert (METHODS / path.name).stat().st_size < LARGEST
        assert path.name in (METHODS / "README.md").read_text(encoding="utf-8")
    assert set(draw_methods.METHODS) <= set(detectors.available())


def test_an_unreadable_picture_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = script(capsys, "draw_methods.py: ", draw_methods.main)
    assert "nothere.jpg" in run(tmp_path / "nothere.jpg", "--output", tmp_path).complaint
