"""Published weight files: the manifest, downloads, zips, files brought by hand, conversion."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from cli_runner import Cli, script
from conftest import ROOT
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file
from web_site import Site, services, site

import detectors
from datasets import genimage
from detectors._errors import WeightsError
from engine.config import ConfigError
from engine.weights import fetch as fetching
from engine.weights import manifest
from engine.weights.cards import Card, sha256
from engine.weights.fetch import fetch, place
from engine.weights.files import read_weights, save_weights
from engine.weights.manifest import entry_named, find, how_to_get, read_manifest
from scripts import convert_weights, fetch_weights

__all__ = ["services", "site"]  # fixtures

PARTS = ("semantic_weights.pth", "artifact_weights.pth", "fusion_weights.pth")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def weight_file(path: Path, seed: int = 0) -> Path:
    """A small state dict, as .pth or .safetensors."""
    torch.manual_seed(seed)
    state = {"fc.weight": torch.randn(1, 64), "fc.bias": torch.randn(1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def zip_file(path: Path, folder: str = "progan", parts: tuple[str, ...] = PARTS) -> Path:
    """A zip as CO-SPY publishes them, with what macOS adds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{folder}/", "")
        for seed, part in enumerate(parts):
            file = weight_file(path.parent / "parts" / part, seed)
            archive.write(file, f"{folder}/{part}")
            archive.writestr(f"__MACOSX/{folder}/._{part}", "of the Finder")
        archive.writestr(f"{folder}/.DS_Store", "of the Finder")
    shutil.rmtree(path.parent / "parts")
    return path


class World:
    """A manifest, the folder beside it, and a hub with a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.pretrained, self.hub, self.cache = root / "pretrained", root / "hub", root / "cache"
        self.brought = root / "brought"
        for folder in (self.pretrained, self.brought):
            folder.mkdir()
        self.downloads: list[str] = []
        self.entries: dict[str, dict[str, Any]] = {
            "default": {"file": "default.safetensors", "ships": True, "format": "safetensors"},
            "cospy-progan": {
                "folder": "progan", "files": list(PARTS), "unpack": True,
                "hub": {"repo": "a/cospy", "file": "progan.zip"},
            },
            "spai": {"file": "spai/spai.pth", "page": {"url": "https://a.b", "get": "spai.pth"}},
            "vae": {
                "file": "vae/model.safetensors",
                "hub": {"repo": "a/sd", "file": "model.safetensors", "subfolder": "vae"},
            },
            "clip": {
                "file": "clip/model.safetensors",
                "hub": {"repo": "a/clip", "file": "model.safetensors"},
                "also": [{"hub": {"repo": "b/clip", "file": "other.safetensors"}}],
            },
        }  # fmt: skip
        for entry in self.entries.values():
            entry.setdefault("title", "weights")
            entry.setdefault("format", "state dict")
        self.write()

    def write(self) -> None:
        text = yaml.safe_dump(self.entries, sort_keys=False)
        (self.pretrained / "manifest.yaml").write_text(text, encoding="utf-8")

    def know(self, name: str, path: Path, **more: Any) -> None:
        """From now on the manifest has the size and sum of a file."""
        self.entries[name] |= {"size": path.stat().st_size, "sha256": sha256(path)} | more
        self.write()

    def cached(self, repo: str, file: str, revision: str = "main") -> Path:
        """Where the cache has a file; the layout is that of the hub's library."""
        folder = self.cache / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(COMMIT, encoding="utf-8")
        path = folder / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def download(
        self, repo: str, name: str, *, revision: str | None, force_download: bool, **_: Any
    ) -> str:
        """In place of hf_hub_download: copies from the hub's folder into the cache."""
        target = self.cached(repo, name)
        if force_download or not target.exists():
            self.downloads.append(f"{repo}/{name}")
            shutil.copyfile(self.hub / repo / name, target)
        return str(target)

    def left(self) -> set[str]:
        """Everything below pretrained/ but the manifest."""
        files = {str(p.relative_to(self.pretrained)) for p in self.pretrained.rglob("*")}
        return files - {"manifest.yaml"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(manifest, "PRETRAINED", made.pretrained)
    monkeypatch.setattr(manifest, "MANIFEST", made.pretrained / "manifest.yaml")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(made.cache))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    return made


# --- the manifest


def test_the_manifest_is_valid() -> None:
    entries = read_manifest()
    assert set(entries) == {
        "default", "cospy-sd-v1_4", "cospy-progan", "spai", "ssp",
        *(f"ssp-{subset}" for subset in genimage.SUBSETS), "siglip-so400m-384",
        "clip-vit-b-16", "clip-vit-l-14", "convnext-small-imagenet", "sd-v1_4-vae", "mfm-vit-b",
        "resnet50-imagenet",
        "cnndetect", "cnndetect-0.1", "univfd", "npr", "rine", "rine-1class", "rine-2class",
        "rine-ldm", "commfor", "commfor-224", "dda", "ladeda", "tiny-ladeda",
        "dinov2-vit-s-14", "dinov2-vit-l-14",
    }  # fmt: skip
    assert len({entry.path for entry in entries.values()}) == len(entries)
    assert entries["cospy-sd-v1_4"].path.name == "sd-v1_4"
    assert entries["sd-v1_4-vae"].hub == manifest.Hub(
        "CompVis/stable-diffusion-v1-4", "diffusion_pytorch_model.safetensors", "vae"
    )


def test_the_shipped_weights_are_those_of_the_manifest() -> None:
    fetch("default", recheck=True)
    assert find("default") == ROOT / "pretrained" / "default.safetensors"


def test_what_detectors_build_on_is_in_the_manifest() -> None:
    from detectors.cospy import CoSpy

    names = set(read_manifest())
    for name in detectors.available():
        kind = detectors.load(name)
        assert set(kind.external(kind.Options()).values()) <= names
    for variant in ("sd-v1_4", "progan"):
        assert set(CoSpy.external(CoSpy.Options(train_dataset=variant)).values()) <= names


@pytest.mark.slow  # to import the package
def test_the_hub_files_are_those_that_open_clip_takes() -> None:
    from open_clip import get_pretrained_cfg
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME

    for entry, model, tag in (
        ("siglip-so400m-384", "ViT-SO400M-14-SigLIP-384", "webli"),
        ("clip-vit-l-14", "ViT-L-14", "openai"),
    ):
        hub = entry_named(entry).hub
        assert hub is not None
        assert get_pretrained_cfg(model, tag)["hf_hub"] == f"{hub.repo}/"
        assert hub.file == HF_SAFE_WEIGHTS_NAME


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"url": "https://a.b"}, "spai.url: unknown key; known: .*title"),
    ({"title": None}, "spai.title: .*found None"),
    ({"title": "two\nlines"}, "spai.title: expected a line of text"),
    ({"format": "zip"}, "spai.format: .*'safetensors', .*; found 'zip'"),
    ({"file": "../spai.pth"}, r"spai.file: expected a relative path .*; found '\.\./spai.pth'"),
    ({"file": "/etc/spai.pth"}, "spai.file: expected a relative path"),
    ({"file": "a/../../b"}, "spai.file: expected a relative path"),
    ({"file": "a\\..\\b"}, "spai.file: expected a relative path"),
    ({"file": "C:/b"}, "spai.file: expected a relative path"),
    ({"file": None}, "spai: expected either file, or folder and files"),
    ({"folder": "a"}, "spai: expected either file, or folder and files"),
    ({"files": ["a"]}, "spai: expected either file, or folder and files"),
    ({"unpack": True}, "spai: expected unpack: true for a folder, and only for one"),
    ({"unpack": "yes"}, "spai.unpack: .*boolean; found 'yes'"),
    ({"page": None}, "spai: expected one of ships, hub, page"),
    ({"page": {"url": "ftp://a", "get": "x"}}, "spai.page.url: .*found 'ftp://a'"),
    ({"page": {"url": "https://a"}}, "spai.page.get: Field required"),
    ({"ships": True}, "spai: expected one of ships, hub, page"),
    ({"size": "1 GB"}, "spai.size: .*integer; found '1 GB'"),
    ({"size": True}, "spai.size: .*integer"),
    ({"sha256": "abc"}, "spai.sha256: .*64"),
    ({"also": {"hub": 1}}, "spai.also: "),
    ({"also": [{"page": 1}]}, "spai.also.0"),
    ({"also": [{"hub": {"repo": "a/../b", "file": "x"}}]}, "hub.repo: .*found 'a/../b'"),
    ({"also": [{"hub": {"repo": "a/b", "file": "../x"}}]}, "hub.file: expected a relative"),
]
WRONG_FOLDERS: list[dict[str, Any]] = [
    {"files": "ab"}, {"files": []}, {"files": ["a", "a"]}, {"files": ["../a"]}, {"files": ["b/a"]},
    {"files": [None]}, {"folder": "/a"}, {"unpack": False},
]  # fmt: skip


def test_wrong_manifests(world: World) -> None:
    """One line refuses each, and names the key."""
    cases = [("spai", *case) for case in WRONG]
    for name, changes, message in (*cases, *(("cospy-progan", c, "cospy") for c in WRONG_FOLDERS)):
        entries = world.entries | {name: world.entries[name] | changes}
        manifest.MANIFEST.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
        with pytest.raises(ConfigError, match=message) as caught:
            read_manifest()
        assert str(caught.value).startswith("manifest.yaml: ") and "\n" not in str(caught.value)
    for name in ("../a", "", "a b", 3):
        text = yaml.safe_dump({name: world.entries["spai"]})
        manifest.MANIFEST.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"name: .*found"):
            read_manifest()
    manifest.MANIFEST.write_text("spai: [1]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"spai: .*; found \[1\]"):
        read_manifest()


def test_unknown_names_list_the_known_ones(world: World) -> None:
    for use in (find, fetch, entry_named, lambda name: place(name, Path("x"))):
        with pytest.raises(ConfigError, match=r"expected one of clip, .*, vae; found 'vea'"):
            use("vea")


# --- where files are


def test_files_below_pretrained_come_first(world: World) -> None:
    assert find("vae") is None
    cached = weight_file(world.cached("a/sd", "vae/model.safetensors"))
    assert find("vae") == cached
    here = weight_file(world.pretrained / "vae" / "model.safetensors")
    assert find("vae") == here


def test_another_copy_in_the_cache_serves_as_well(world: World) -> None:
    other = weight_file(world.cached("b/clip", "other.safetensors"))
    assert find("clip") == fetch("clip") == other and world.downloads == []
    first = weight_file(world.cached("a/clip", "model.safetensors"))
    assert find("clip") == first
    weight_file(world.cached("a/sd", "vae/model.safetensors", "fp16"))
    assert find("vae") is None  # another revision does not
    world.entries["vae"]["hub"]["revision"] = "fp16"
    world.write()
    assert find("vae") is not None


def test_a_folder_counts_when_it_is_complete(world: World) -> None:
    for part in PARTS:
        assert find("cospy-progan") is None
        weight_file(world.pretrained / "progan" / part)
    assert find("cospy-progan") == world.pretrained / "progan"


def test_how_to_get_says_the_command(world: World) -> None:
    lines = {name: how_to_get(entry) for name, entry in read_manifest().items()}
    assert lines["default"] == "git checkout pretrained/default.safetensors"
    assert lines["vae"] == "python scripts/fetch_weights.py vae"
    assert lines["spai"] == (
        "get spai.pth (https://a.b), then python scripts/fetch_weights.py spai --from PATH"
    )


# --- downloads


def test_a_single_file_stays_in_the_cache(world: World) -> None:
    weight_file(world.hub / "a/sd/vae/model.safetensors")
    for _ in range(2):
        assert fetch("vae") == world.cached("a/sd", "vae/model.safetensors")
    assert world.downloads == ["a/sd/vae/model.safetensors"]
    assert world.left() == set()
    fetch("vae", force=True)
    assert len(world.downloads) == 2


def test_a_zip_is_unpacked_once(world: World) -> None:
    zip_file(world.hub / "a/cospy/progan.zip")
    for _ in range(2):
        assert fetch("cospy-progan") == world.pretrained / "progan"
    assert world.downloads == ["a/cospy/progan.zip"]
    assert world.left() == {"progan", *(f"progan/{part}" for part in PARTS)}
    for part in PARTS:
        path = world.pretrained / "progan" / part
        assert read_weights(path)[0]["fc.weight"].shape == (1, 64)
        assert path.stat().st_mode & 0o444 == 0o444


def test_a_missing_file_of_a_folder_is_replaced_and_others_stay(world: World) -> None:
    zip_file(world.hub / "a/cospy/progan.zip")
    own = weight_file(world.pretrained / "progan" / "own.pth")
    fetch("cospy-progan")
    (world.pretrained / "progan" / PARTS[0]).unlink()
    fetch("cospy-progan")
    assert world.left() == {"progan", "progan/own.pth", *(f"progan/{part}" for part in PARTS)}
    assert own.is_file()


@pytest.mark.parametrize("wrong", ["size", "sha256"])
@pytest.mark.parametrize("name", ["vae", "cospy-progan"])
def test_another_file_than_the_manifests(world: World, name: str, wrong: str) -> None:
    zip_file(world.hub / "a/cospy/progan.zip")
    weight_file(world.hub / "a/sd/vae/model.safetensors")
    known = world.hub / ("a/cospy/progan.zip" if name != "vae" else "a/sd/vae/model.safetensors")
    world.know(name, known)
    fetch(name, recheck=True)
    shutil.rmtree(world.pretrained / "progan", ignore_errors=True)
    world.entries[name][wrong] = 7 if wrong == "size" else "0" * 64
    world.write()
    wanted = "expected 7 bytes" if wrong == "size" else "expected sha256 0000"
    with pytest.raises(WeightsError, match=f"{wanted}.*; found .*: get it again") as caught:
        fetch(name, recheck=True)
    assert "\n" not in str(caught.value)
    assert world.left() == set()


def test_a_copys_own_sum_counts(world: World) -> None:
    first = weight_file(world.hub / "a/clip/model.safetensors", 1)
    other = weight_file(world.cached("b/clip", "other.safetensors"), 2)
    world.know("clip", first)
    fetch("clip", recheck=True)  # the other copy has no sum, so it may be anything
    world.entries["clip"]["also"][0]["sha256"] = sha256(other)
    world.write()
    fetch("clip", recheck=True)
    weight_file(other, 3)
    with pytest.raises(WeightsError, match=r"expected sha256 .* or .*; found"):
        fetch("clip", recheck=True)


def test_what_is_there_is_read_again_only_on_demand(world: World) -> None:
    here = weight_file(world.pretrained / "vae" / "model.safetensors")
    world.know("vae", here, sha256="0" * 64)
    assert fetch("vae") == here
    with pytest.raises(WeightsError, match="expected sha256 0000"):
        fetch("vae", recheck=True)


def test_the_sum_of_what_came_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    path = weight_file(world.hub / "a/sd/vae/model.safetensors")
    with caplog.at_level("INFO", "engine"):
        fetch("vae")
    assert f"sha256 {sha256(path)} (none published to compare with)" in caplog.text


@pytest.mark.parametrize("name", ["default", "spai"])
def test_what_is_on_no_hub(world: World, name: str) -> None:
    for force in (False, True):
        with pytest.raises(WeightsError, match=f"{name}: cannot be downloaded") as caught:
            fetch(name, force)
        assert how_to_get(entry_named(name)) in str(caught.value)


# --- downloads that fail


def hub_error(kind: str) -> Exception:
    """An error of the hub's library; some want a response, which is not needed here."""
    made = getattr(errors, kind)
    error = made.__new__(made)
    error.args = ("404 Client Error.\nLook here",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_error("GatedRepoError"), "a/sd wants its terms accepted: do so at https.*hf auth"),
        (hub_error("RepositoryNotFoundError"), "found no repository a/sd"),
        (hub_error("LocalEntryNotFoundError"), "cannot reach https.*: check the connection"),
        (hub_error("EntryNotFoundError"), "found no vae/model.safetensors of a/sd"),
        (hub_error("RevisionNotFoundError"), "found no vae/model.safetensors of a/sd"),
        (OSError(errno.ENOSPC, "No space left"), "no space left in .*cache: .* HF_HOME"),
        (RuntimeError("xet:\nbroken pipe"), r"broke off \(xet: broken pipe\): the same command"),
        (RuntimeError(), r"broke off \(RuntimeError\)"),
    ],
)
def test_failed_downloads_say_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=message) as caught:
        fetch("vae")
    assert str(caught.value).startswith("vae: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("force", [False, True])
def test_offline(world: World, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    """With the hub's own library."""
    from huggingface_hub.file_download import hf_hub_download

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set, and .*: unset it, or bring"):
        fetch("vae", force)
    assert world.left() == set()


def test_without_a_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library would try for half a minute."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(WeightsError, match=r"cannot reach .*, or bring the file by .* vae --from"):
        fetch("vae")
    assert world.downloads == [] and sum(slept) <= 2


@pytest.mark.parametrize("lengths", [True, False])
def test_never_more_bytes_than_the_manifest_says(
    world: World, services: Site, monkeypatch: pytest.MonkeyPatch, lengths: bool
) -> None:
    """With the hub's own library, which takes what it is given."""
    from huggingface_hub.file_download import hf_hub_download

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(world.cache))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    file = weight_file(world.hub / "model.safetensors")
    world.know("vae", file)
    name = "/a/sd/resolve/main/vae/model.safetensors"
    services.files[name] = file.read_bytes()
    services.headers |= {"X-Repo-Commit": COMMIT, "ETag": f'"{"0" * 40}"'}
    services.lengths = lengths
    assert fetch("vae").read_bytes() == file.read_bytes()
    shutil.rmtree(world.cache)
    if lengths:
        services.files[name] += bytes(1 << 20)
    else:
        services.more = bytes(10_000)
    size = file.stat().st_size
    with pytest.raises(WeightsError, match=f"vae: .*expected at most {size} bytes; more came"):
        fetch("vae")
    written = sum(path.stat().st_size for path in world.cache.rglob("*.incomplete"))
    assert written <= size


def test_a_zip_in_the_cache_is_unpacked_offline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.file_download import hf_hub_download

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    zip_file(world.cached("a/cospy", "progan.zip"))
    assert find("cospy-progan") is None
    assert fetch("cospy-progan") == find("cospy-progan") == world.pretrained / "progan"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize("there", [False, True])
def test_interrupted_unpacking_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, there: bool
) -> None:
    zip_file(world.hub / "a/cospy/progan.zip")
    if there:
        weight_file(world.pretrained / "progan" / PARTS[0], seed=9)
    before = world.left()
    old = {path: (world.pretrained / path).stat().st_mtime_ns for path in before}
    copies = 0

    def stop(source: Any, target: Any, length: int) -> None:
        nonlocal copies
        copies += 1
        target.write(source.read(10 if copies == 2 else -1))
        if copies == 2:
            raise error

    monkeypatch.setattr(fetching.shutil, "copyfileobj", stop)
    with pytest.raises((KeyboardInterrupt, WeightsError)) as caught:
        fetch("cospy-progan")
    assert copies == 2
    if isinstance(error, OSError):
        assert "no space left in" in str(caught.value)
    assert world.left() == before
    assert find("cospy-progan") is None
    weights_there = [path for path in before if path.endswith(".pth")]
    assert all((world.pretrained / p).stat().st_mtime_ns == old[p] for p in weights_there)


def test_a_full_disk_is_said_before_unpacking(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_file(world.hub / "a/cospy/progan.zip")
    usage = shutil.disk_usage(world.pretrained)._replace(free=1000)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"cospy-progan: no space left in .*: free some"):
        fetch("cospy-progan")


# --- zips that are none


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def add(name: str, content: str = "x", mode: int = 0) -> Callable[[Path], None]:
    """Adds a member to a good zip."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(entry(name, mode), content)

    return change


def truncate(share: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        os.truncate(path, int(share * path.stat().st_size))

    return change


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in PARTS:
            archive.writestr(f"progan/{part}", bytes(3_000_000))


def flipped(path: Path) -> None:
    """A bit within the compressed data of a member."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"progan/{PARTS[1]}")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 200 + info.compress_size // 2] ^= 4
    path.write_bytes(content)


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = content.index(b"PK\x01\x02")
    while position >= 0:
        content[position + 8] |= 1
        position = content.find(b"PK\x01\x02", position + 4)
    path.write_bytes(content)


def hidden_end(path: Path) -> None:
    content = path.read_bytes().replace(b"progan/own_weights.pth", b"progan/fusion\x00ghts.pth")
    path.write_bytes(content)


def other_content(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for part in PARTS:
            archive.writestr(f"progan/{part}", "no weights" * 30)


MALICIOUS: dict[str, tuple[list[Callable[[Path], None]], str]] = {
    "parent": ([add("../canary")], "refused: its member '../canary' is none of semantic_weights"),
    "inner parent": ([add("progan/../../canary")], "is none of"),
    "absolute": ([add("/canary")], "is none of"),
    "backslash": ([add("progan\\..\\canary")], "is none of"),
    "control": ([add("progan/\x1b[31m")], "is none of"),
    "end of text": ([add("progan/own_weights.pth"), hidden_end], "is none of"),
    "link": ([add("progan/link", "/etc/passwd", stat.S_IFLNK | 0o777)], "is none of"),
    "link by a known name": (
        [lambda p: zip_file(p, parts=PARTS[:2]),
         add("progan/fusion_weights.pth", "/etc/passwd", stat.S_IFLNK | 0o777)],
        "is no weight file",
    ),
    "deeper": ([add("progan/a/fusion_weights.pth")], "is none of"),
    "folder": ([add("progan/fusion_weights.pth/")], "is none of"),
    "twice": ([add("fusion_weights.pth")], "refused: it holds fusion_weights.pth twice"),
    "missing": ([lambda p: zip_file(p, parts=PARTS[:2])], "found no fusion_weights.pth"),
    "bomb": ([bomb], r"refused: its \d+ bytes would unpack to 9000000"),
    "cut": ([truncate(0.7)], "damaged or none"),
    "empty": ([truncate(0)], "an empty file"),
    "flipped": ([flipped], "damaged"),
    "encrypted": ([encrypted], "damaged or none: .*encrypted"),
    "web page": ([lambda p: p.write_bytes(b"<html>")], "found a web page"),
    "no weights": ([other_content], "progan.zip: semantic_weights.pth: .* is no weight file"),
    "state dict": ([weight_file], "is none of semantic_weights.pth"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malicious_and_damaged_zips(world: World) -> None:
    path = zip_file(world.hub / "a/cospy/progan.zip")
    good = path.read_bytes()
    for name, (changes, message) in MALICIOUS.items():
        path.write_bytes(good)
        for change in changes:
            change(path)
        before = {str(p) for p in world.pretrained.parent.rglob("*")}
        with pytest.raises(WeightsError, match=message) as caught:
            place("cospy-progan", path) if len(name) % 2 else fetch("cospy-progan")
        assert "\n" not in str(caught.value) and ".part-" not in str(caught.value), name
        after = {p for p in map(str, world.pretrained.parent.rglob("*")) if "/cache" not in p}
        assert after == before, name
        assert not Path("/canary").exists()
        shutil.rmtree(world.cache, ignore_errors=True)


def test_what_the_finder_adds_is_not_written(world: World) -> None:
    path = zip_file(world.hub / "a/cospy/progan.zip")
    add("__MACOSX/../../canary")(path)
    fetch("cospy-progan")
    assert world.left() == {"progan", *(f"progan/{part}" for part in PARTS)}
    assert not list(world.pretrained.parent.rglob("canary"))


def test_the_limit_of_unpacked_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_file(world.hub / "a/cospy/progan.zip")
    with zipfile.ZipFile(path) as archive:
        total = sum(i.file_size for i in archive.infolist() if i.filename.startswith("progan/s"))
    monkeypatch.setattr(fetching, "MAX_UNPACKED", total)
    with pytest.raises(WeightsError, match="would unpack to"):
        fetch("cospy-progan")


def test_a_zip_without_folder_serves_as_well(world: World) -> None:
    with zipfile.ZipFile(world.brought / "x.zip", "w") as archive:
        for part in PARTS:
            archive.write(weight_file(world.brought / part), part)
    assert place("cospy-progan", world.brought / "x.zip") == find("cospy-progan")


# --- files brought by hand


@pytest.mark.parametrize("form", ["zip", "folder", "folder above"])
def test_bringing_a_folder(world: World, form: str) -> None:
    path = world.brought
    if form == "zip":
        path = zip_file(world.brought / "any name.zip")
    else:
        for part in PARTS:
            below = part if form == "folder" else f"progan/{part}"
            weight_file(world.brought / below)
        weight_file(world.brought / "more.pth")
    assert place("cospy-progan", path) == find("cospy-progan") == world.pretrained / "progan"
    assert world.left() == {"progan", *(f"progan/{part}" for part in PARTS)}
    assert path.exists()


def test_bringing_a_file(world: World) -> None:
    path = weight_file(world.brought / "spai (1).pth")
    world.know("spai", path)
    assert place("spai", path) == find("spai") == world.pretrained / "spai" / "spai.pth"
    assert read_weights(world.pretrained / "spai" / "spai.pth")[0].keys() == {
        "fc.weight",
        "fc.bias",
    }
    path.rename(world.brought / "spai.pth")
    assert place("spai", world.brought) == find("spai")
    assert world.left() == {"spai", "spai/spai.pth"}
    weight_file(world.brought / "m.safetensors")
    assert place("vae", world.brought / "m.safetensors").name == "model.safetensors"
    assert fetch("vae") == world.pretrained / "vae" / "model.safetensors"


def test_bringing_a_file_to_itself_and_one_of_the_older_format(world: World) -> None:
    path = weight_file(world.pretrained / "spai" / "spai.pth")
    before = sha256(path)
    assert place("spai", path) == path and sha256(path) == before  # to itself
    path = world.brought / "old.pth"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    assert place("spai", path) == find("spai") and sha256(find("spai") or path) != before


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def brought_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Files that are not what they should be: path, entry, message."""
    yield folder / "none", "spai", "expected a file or folder; found no such file"
    (folder / "nothing in it").mkdir()
    yield folder / "nothing in it", "spai", "expected spai.pth in it; found no such file"
    yield folder / "nothing in it", "cospy-progan", "expected semantic_weights.pth, .* in it"
    page = folder / "page.pth"
    page.write_bytes(b"<!DOCTYPE html>\n<html>")
    yield page, "spai", "found a web page: download the file itself, in a browser"
    cut = weight_file(folder / "cut.pth")
    os.truncate(cut, cut.stat().st_size // 2)
    yield cut, "spai", "expected a weight file"
    evil = folder / "evil.pth"
    torch.save({"a": torch.ones(1), "b": Evil(folder / "canary")}, evil)
    yield evil, "spai", "refused: it names"
    text = folder / "text.pth"
    torch.save({"a": "text"}, text)
    yield text, "spai", "expected a state dict of tensors; found str at 'a'"
    changed = weight_file(folder / "changed.pth")
    content = bytearray(changed.read_bytes())
    content[content.index(b"data/0") + 100] ^= 1
    changed.write_bytes(content)
    yield changed, "spai", "damaged: Bad CRC-32"
    yield weight_file(folder / "a.safetensors"), "spai", "expected a file like spai.pth; found a.s"
    yield weight_file(folder / "a.pth"), "vae", "expected a file like model.safetensors; found a.p"
    fake = folder / "b.safetensors"
    fake.write_bytes(b"no weights at all")
    yield fake, "vae", "expected a safetensors file; found"
    half = weight_file(folder / "c.safetensors")
    os.truncate(half, half.stat().st_size - 4)
    yield half, "vae", "expected a safetensors file; found"


def test_wrong_files_replace_nothing(world: World) -> None:
    old = weight_file(world.pretrained / "spai" / "spai.pth", seed=5)
    before = sha256(old), world.left()
    for path, name, message in brought_files(world.brought):
        with pytest.raises(WeightsError, match=message) as caught:
            place(name, path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value) and ".part-" not in str(caught.value)
        assert (sha256(old), world.left()) == before
        assert not (world.brought / "canary").exists()
    world.know("spai", old)
    other = weight_file(world.brought / "spai.pth", seed=6)
    with pytest.raises(WeightsError, match=f"{other}: expected sha256 {sha256(old)}; found"):
        place("spai", other)
    assert sha256(old) == entry_named("spai").sha256


# --- the command lines

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs fetch_weights.py. -> exit status, standard output, standard error."""
    call = script(capsys, "fetch_weights.py: ", fetch_weights.main)

    def run_it(*arguments: object) -> tuple[int, str, str]:
        done = call(*arguments)
        return done.status, done.out, done.err

    return run_it


def test_list_is_a_table(world: World, run: Run) -> None:
    weight_file(world.pretrained / "vae" / "model.safetensors")
    world.entries["clip"] |= {"size": 1_710_517_724, "licence": "MIT"}
    world.write()
    status, out, err = run("--list")
    assert (status, err) == (0, "")
    header, *rows = [[c.strip() for c in line.split("  ") if c] for line in out.splitlines()]
    assert header == list(fetch_weights.HEADER)
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert table["vae"]["there"] == "yes" and table["vae"]["path"] == str(find("vae"))
    assert table["clip"] | {"what": ""} == {
        "name": "clip", "there": "no", "size": "1.71 GB", "licence": "MIT", "where": "hub a/clip",
        "what": "", "path": "-",
    }  # fmt: skip
    assert table["spai"]["where"] == "page https://a.b" and table["default"]["where"] == "ships"


def test_results_go_to_standard_output_alone(world: World, run: Run) -> None:
    weight_file(world.hub / "a/sd/vae/model.safetensors")
    zip_file(world.hub / "a/cospy/progan.zip")
    status, out, err = run("vae", "cospy-progan")
    assert (status, out.splitlines()) == (0, [str(find("vae")), str(find("cospy-progan"))])
    assert "sha256" in err
    assert run("vae")[0] == 0 and len(world.downloads) == 2
    assert run("vae", "--force")[0] == 0 and len(world.downloads) == 3


def test_from(world: World, run: Run) -> None:
    path = weight_file(world.brought / "s.pth")
    assert run("spai", "--from", path)[:2] == (0, f"{find('spai')}\n")
    assert find("spai") is not None


def test_verify_looks_at_what_is_here(world: World, run: Run) -> None:
    """By the manifest's sums, or, where it has none, by those within the files."""
    vae = weight_file(world.pretrained / "vae" / "model.safetensors")
    world.know("vae", vae)
    spai = weight_file(world.pretrained / "spai" / "spai.pth")
    assert run("--verify")[:2] == (0, f"{spai}\n{vae}\n")
    for path in (vae, spai):
        value = read_weights(path)[0]["fc.weight"].numpy().tobytes()
        content = bytearray(path.read_bytes())
        content[content.index(value)] ^= 1
        path.write_bytes(content)
    status, out, err = run("--verify")
    assert (status, out) == (2, "")
    assert re.search(r"vae/model.safetensors: expected sha256", err)
    assert re.search(r"spai/spai.pth: .*damaged: Bad CRC-32", err)
    assert run("--verify", "clip")[0] == 2
    assert world.downloads == []


def test_all_fetches_and_lists_the_rest(world: World, run: Run) -> None:
    weight_file(world.pretrained / "default.safetensors")
    weight_file(world.hub / "a/sd/vae/model.safetensors")
    weight_file(world.hub / "a/clip/model.safetensors")
    zip_file(world.hub / "a/cospy/progan.zip")
    status, out, err = run("--all")
    assert status == 0
    assert out.split() == [str(find(n)) for n in ("default", "cospy-progan", "vae", "clip")]
    assert err.splitlines()[-1] == f"by hand: spai: {how_to_get(entry_named('spai'))}"
    (world.hub / "a/sd/vae/model.safetensors").unlink()
    status, out, err = run("--all", "--force")
    assert status == 2 and str(find("clip")) in out
    assert err.count("fetch_weights.py: vae: ") == 1


def test_errors_are_one_line(world: World, run: Run) -> None:
    weight_file(world.hub / "a/sd/vae/model.safetensors")
    for arguments, message in (
        ("", "expected NAMEs, --all or --list, one of them"),
        ("--all vae", "expected NAMEs, --all or --list, one of them"),
        ("vae clip --from x", "--from: expected one NAME; found 2"),
        ("--all --from x", "--from: expected one NAME; found 0"),
        ("vae --from x --force", "--from, --force: expected one of them"),
        ("vea", "expected one of clip, .*; found 'vea'"),
        ("vae vea", "found 'vea'"),
        ("spai", "spai: cannot be downloaded by itself: get spai.pth"),
        ("spai --from /none", "/none: expected a file or folder; found no such file"),
        ("--lst", "unrecognized arguments"),
        ("--verify --force", "--verify: expected it alone or with NAMEs"),
    ):
        status, out, err = run(*arguments.split())
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert re.search(message, err) and err.startswith("fetch_weights.py: ")
    assert world.downloads == []


def test_interrupted(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stop)
    assert run("vae") == (130, "", "\nfetch_weights.py: interrupted; the same command goes on\n")


@pytest.mark.parametrize("script", ["fetch_weights", "convert_weights"])
def test_help_loads_no_torch(script: str) -> None:
    code = (
        f"import sys; from scripts import {script} as s\n"
        "try:\n    s.main(['--help'])\nexcept SystemExit:\n    print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    shown, _, loaded = done.stdout.rpartition("LOADED")
    assert "--help" in shown, done.stderr
    assert {"torch", "numpy", "yaml", "huggingface_hub"} & set(loaded.split()) == set()


# --- conversion


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "convert_weights.py: ", convert_weights.main)


def test_conversion_keeps_names_and_values(tmp_path: Path, convert: Cli) -> None:
    torch.manual_seed(0)
    shared = torch.randn(4, 4)
    state = {
        "a": shared, "tied": shared, "turned": shared.t(), "part": shared[1:3],
        "n": torch.arange(3),
        "h": torch.ones(2).half(), "empty": torch.empty(0),
    }  # fmt: skip
    files = {"plain": state, "checkpoint": {"model": state, "epoch": 3, "optimizer": {"state": {}}}}
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        out = tmp_path / "new" / f"{name}.safetensors"
        done = convert(tmp_path / f"{name}.pth", out)
        tensors = load_file(out)
        assert done.status == 0 and tensors.keys() == state.keys()
        assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype
                   for k, v in state.items())  # fmt: skip
        assert done.out == f"{out}: 7 tensors, {out.stat().st_size} bytes, sha256 {sha256(out)}\n"
        assert out.stat().st_mode & 0o444 == 0o444
        assert read_weights(out)[1] is None
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "checkpoint.safetensors", "plain.safetensors",
    ]  # fmt: skip


def test_conversion_of_several_state_dicts_and_to_another_precision(
    tmp_path: Path, convert: Cli
) -> None:
    parts = {"sem_fc": {"weight": torch.ones(1, 3)}, "classifier": {"bias": torch.zeros(1)}}
    torch.save(parts, tmp_path / "e.pth")
    assert convert(tmp_path / "e.pth", tmp_path / "e.safetensors").status == 0
    assert set(load_file(tmp_path / "e.safetensors")) == {"sem_fc.weight", "classifier.bias"}
    state = {"a": torch.tensor([1.5, -2.0, float("inf")]).double(), "n": torch.arange(3)}
    save_file(state, tmp_path / "a.safetensors")
    for dtype, kind in (
        ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16),
    ):  # fmt: skip
        out = tmp_path / f"{dtype}.safetensors"
        assert convert(tmp_path / "a.safetensors", out, "--dtype", dtype).status == 0
        tensors = load_file(out)
        assert tensors["a"].dtype == kind and tensors["n"].dtype == torch.int64
        assert tensors["a"].tolist() == [1.5, -2.0, float("inf")]


def test_conversions_that_are_refused(tmp_path: Path, convert: Cli) -> None:
    torch.save({"a": torch.tensor([1e6])}, tmp_path / "large.pth")
    torch.save({"a": Evil(tmp_path / "canary")}, tmp_path / "evil.pth")
    torch.save([1], tmp_path / "list.pth")
    card = Card("default", {})
    save_weights(tmp_path / "own.safetensors", {"a": torch.ones(1)}, card)
    out = tmp_path / "out.safetensors"
    for arguments, message in (
        ((tmp_path / "large.pth", out, "--dtype", "fp16"), "a: expected numbers that fit fp16"),
        ((tmp_path / "evil.pth", out), "refused: it names"),
        ((tmp_path / "list.pth", out), "expected a state dict of tensors; found list"),
        ((tmp_path / "own.safetensors", out), "found one of this project already"),
        ((tmp_path / "none.pth", out), "found none"),
        ((tmp_path / "large.pth", tmp_path / "out.pth"), "ends in .safetensors"),
        ((tmp_path / "large.pth", tmp_path / "own.safetensors"), "not there yet"),
    ):
        assert message in convert(*arguments).complaint
        assert list(tmp_path.glob("*out*")) == []
    assert not (tmp_path / "canary").exists()
