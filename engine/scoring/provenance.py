"""What decides a score: code, libraries, machine, weights and options, as run.json states them.

`--resume` and the score cache compare it, so that no table mixes scores of two kinds. A setting
that moves a score in its last digit belongs here; none that does not, or runs could not be resumed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from ..config import ROOT, Config
from ..runtime.run_folder import differing_entries
from ..weights.cards import sha256
from ..weights.loaded import Loaded, describe_member
from .backend import Computing

# The code between a file's bytes and its logit: a change in it makes earlier scores void.
CODE = (
    "datasets/_images.py",
    "datasets/_limits.py",
    "datasets/_pixels.py",
    "detectors/**/*.py",
    "engine/runtime/confined.py",
    "engine/runtime/device.py",
    "engine/runtime/workers.py",
    "engine/scoring/*.py",
    "engine/scoring/assets/**/*.*",
    "engine/weights/*.py",
)
LIBRARIES = (
    "torch", "torchvision", "numpy", "scipy", "pillow", "pilgram2", "spandrel", "pi-heif",
    "timm", "open-clip-torch", "diffusers", "safetensors", "onnxruntime", "onnxruntime-gpu",
)  # fmt: skip


def code_digest() -> str:
    """A hash over the code that turns a file into a logit."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git_revision() -> str | None:
    """The commit that is checked out; None outside a repository or without git."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _versions() -> dict[str, str]:
    """Versions of Python and of the LIBRARIES that are installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def run_info(config: Config, computing: Computing, loaded: Loaded | None) -> dict[str, Any]:
    """The content of run.json, enough to do the run again.

    Args:
        config: as it was resolved from all layers.
        computing: library, device, precision and threads of the network.
        loaded: the detector and its weights; None in a training, which makes them.
    """
    info: dict[str, Any] = {
        "command": sys.argv,
        "config": config.as_dict(),
        "git_revision": _git_revision(),
        "versions": _versions(),
        "code": code_digest(),
        "platform": platform.platform(),
        **asdict(computing),
    }
    if loaded is not None:
        # Frozen parts come from files of their own, which the weights' sum does not cover.
        frozen = {
            name: {"file": path.name, "sha256": sha256(path)}
            for name, path in sorted(loaded.external.items())
        }
        info["compiled"] = loaded.compiled
        info["trained_on"] = list(loaded.trained_on)
        info["weights"] = {"file": loaded.path.name, "sha256": loaded.sha256}
        if frozen:
            info["weights"]["frozen"] = frozen
        if loaded.members:
            info["weights"]["members"] = [describe_member(member) for member in loaded.members]
    return info


@dataclass(frozen=True)
class Provenance:
    """The conditions of a run of scores. `info`: the content of run.json, of `run_info` and more;
    `also`: dotted names of its entries in which a resumed run must agree beside those that decide
    a score."""

    config: Config
    info: dict[str, Any]
    also: tuple[str, ...] = ()

    @property
    def deciding(self) -> tuple[str, ...]:
        """Dotted names of the entries that a run and one that goes on with it have in common."""
        return (
            *(
                "weights",
                "backend",
                "precision",
                "device",
                "threads",
                "compiled",
                "versions",
                "code",
            ),
            *("decoding", "config.detector", f"config.{self.config.detector}"),
            *("config.score.batch_size", "config.score.seed"),
            *self.also,
        )

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Dotted names of the deciding entries in which another run.json differs."""
        return differing_entries(self.info, other, self.deciding)

    def fingerprint(self, degradation: str) -> str:
        """A hash of all that decides a logit besides the picture: the score cache's key."""
        info = self.info
        conditions = {
            "weights": info["weights"],
            "detector": self.config.as_dict()[self.config.detector],
            "seed": self.config.score.seed,
            "degradation": degradation,
            "decoding": info["decoding"],
            "backend": info["backend"],
            "precision": info["precision"],
            "compiled": info["compiled"],
            "device": info["device"],
            # The last digits depend on it, and a run shall give what it gives without kept scores.
            "threads": info["threads"] if info["device"] == "cpu" else None,
            "versions": info["versions"],
            "code": info["code"],
        }
        text = json.dumps(conditions, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
