"""The packages of the lock that a check on a GPU needs and this Python lacks, a requirement a line.

`scripts/gpu_check.sh` installs them, or asks for them. PyTorch and what comes with it are the
machine's own. Needs what pip brings, and nothing else, for nothing else may be there.
"""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    from packaging.markers import Marker
except ModuleNotFoundError:
    from pip._vendor.packaging.markers import Marker  # type: ignore[no-redef]

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"
PROJECT = "synthetic-picture-detectors"
TOOLS = ("psutil", "pytest", "pytest-timeout")
OWN = ("torch", "torchvision")


def needed(lock: dict[str, Any]) -> dict[str, str]:
    """Name -> version of what the project and the tools import, without what PyTorch brings."""

    def is_here(texts: list[str]) -> bool:
        return not texts or any(Marker(text).evaluate() for text in texts)

    packages = {p["name"]: p for p in lock["package"] if is_here(p.get("resolution-markers", []))}
    waiting, versions = [PROJECT, *TOOLS], dict[str, str]()
    while waiting:
        package = packages[waiting.pop()]
        name = package["name"]
        if name in versions or name in OWN:
            continue
        versions[name] = package["version"]
        for dependency in package.get("dependencies", []):
            if is_here([dependency["marker"]] if "marker" in dependency else []):
                waiting.append(dependency["name"])
    del versions[PROJECT]
    return versions


def _is_missing(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return True
    return False


if __name__ == "__main__":
    for name, version in sorted(needed(tomllib.loads(LOCK.read_text(encoding="utf-8"))).items()):
        if _is_missing(name):
            print(f"{name}=={version}")
