"""The wheel: one import name, beside others' packages of the names that a checkout has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT))
from hatch_build import NAME, rewritten


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from datasets import Record  # of\n", f"from {NAME}.datasets import Record  # of\n"),
        ("def f():\n    from engine.a import (\n        b,\n    )\n",
         f"def f():\n    from {NAME}.engine.a import (\n        b,\n    )\n"),
        ("import detectors\n", f"from {NAME} import detectors\n"),
        ("import detectors._clip\n",
         f"import {NAME}.detectors._clip; from {NAME} import detectors\n"),
        ("import os, datasets._a as a\n", f"import os; import {NAME}.datasets._a as a\n"),
        ('"ü"; logging.getLogger("engine")\n', f'"ü"; logging.getLogger("{NAME}.engine")\n'),
        ("sys.path.insert(0, str(ROOT))\n", "pass\n"),
        # Neither text, nor a name that only begins alike, nor what stands beside a module.
        ('x = "from datasets import a"\nfrom datasets_of import b\nfrom .engine import c\n', None),
    ],
)  # fmt: skip
def test_imports_are_led_into_the_package(source: str, expected: str | None) -> None:
    assert rewritten(source.encode()).decode() == (source if expected is None else expected)


@pytest.mark.slow
def test_the_wheel_scores_beside_a_package_of_the_same_name(tmp_path: Path) -> None:
    def run(*words: object, cwd: Path = ROOT) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    scripts = Path(sys.executable).parent
    run(scripts / "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100e6  # the most that PyPI takes
    home = tmp_path / "venv"
    venv.create(home, with_pip=True, symlinks=True)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    [packages] = (home / "lib").glob("python*/site-packages")
    # The dependencies are those of this Python; datasets is Hugging Face's, or stands for it.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (packages / "datasets").mkdir()
    (packages / "datasets" / "__init__.py").write_text('WHOSE = "theirs"', encoding="utf-8")
    theirs = f"import datasets, {NAME}.datasets as ours; print(datasets.WHOSE, ours.available()[0])"
    assert run(python, "-c", theirs, cwd=tmp_path).split() == ["theirs", "aigcdetect"]
    scored = run(home / "bin" / "synthetic-picture-detectors", "--input", "data/examples")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert scored.splitlines() == [
        line.removeprefix("    ") for line in re.findall(r"^     \d\.\d{3}  .*$", readme, re.M)
    ]
