"""What every phase does around its work: the output folder, the log, what run.json says."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .checkpoint import differing_keys
from .config import ROOT, Config, ConfigError
from .predict import Device
from .weights import Loaded, describe_member, replace_file, sha256

# What a resumed run must have in common with the one it goes on with.
SAME = ("weights", "config", "degradation", "precision")
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "timm", "safetensors")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    text = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    replace_file(temporary, path)


def open_output(folder: Path, owned: Sequence[str], resume: bool, overwrite: bool) -> None:
    """Makes an output folder ready.

    Args:
        folder: made when it is not there.
        owned: names of the files that a run writes into it.
        resume: keep them, the run goes on.
        overwrite: delete them, the run starts afresh.

    Raises:
        ConfigError: it holds an earlier run and neither was asked for, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder}: expected a folder; found a file")
    found = [name for name in owned if (folder / name).exists()]
    if found and not (resume or overwrite):
        raise ConfigError(
            f"{folder} holds an earlier run ({found[0]}): "
            "add --resume to go on with it, --overwrite to start afresh, or name another --output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in found:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def log_to(path: Path) -> logging.Handler:
    """Adds a log file to what goes to standard error."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("engine").addHandler(handler)
    return handler


def _git_revision() -> str | None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _device_name(device: Device) -> str:
    if device.device.type == "cuda":
        return f"{device.device} ({torch.cuda.get_device_name(device.device)})"
    return str(device.device)


def run_info(config: Config, device: Device, loaded: Loaded | None) -> dict[str, Any]:
    """The content of run.json: enough to do the run again."""
    info: dict[str, Any] = {
        "command": sys.argv,
        "config": config.as_dict(),
        "git_revision": _git_revision(),
        "versions": _versions(),
        "platform": platform.platform(),
        "device": _device_name(device),
        "precision": device.precision,
        "threads": torch.get_num_threads(),
    }
    if loaded is not None:
        frozen = {
            name: {"file": path.name, "sha256": sha256(path)}
            for name, path in sorted(loaded.external.items())
        }
        info["weights"] = {"file": loaded.path.name, "sha256": loaded.sha256}
        if frozen:
            info["weights"]["frozen"] = frozen
        if loaded.members:
            info["weights"]["members"] = [describe_member(member) for member in loaded.members]
    return info


def begin(path: Path, info: dict[str, Any], resume: bool, same: Sequence[str] = SAME) -> None:
    """Writes run.json before the first score, and keeps a resumed run from mixing two.

    Raises:
        ConfigError: the run to resume differs in one of `same`; the message says in which.
    """
    if resume and path.exists():
        try:
            earlier = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: is damaged: use --overwrite") from error
        names = [name for name in same if earlier.get(name) != info.get(name)]
        if "config" in names and isinstance(earlier.get("config"), dict):
            names = differing_keys(json.dumps(earlier["config"]), json.dumps(info["config"]))
        if names:
            raise ConfigError(
                f"--resume: the run in {path.parent} had other {', '.join(names)}: "
                "give the same, or use --overwrite or another --output"
            )
    write_json(path, info)
