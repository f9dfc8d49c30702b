"""fetch_data.py: the sources of data sets, what is fetched of them, and the command line."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from archive_makers import cut, make_7z, make_disks, make_tar, make_zip, pictures, tree_of
from cli_runner import Cli, Done, script
from conftest import ROOT
from huggingface_hub import constants
from web_site import Site, hub, modelscope, services, sha, site, zenodo

from datasets import drct2m
from detectors.cospy import VARIANTS
from engine.config import ConfigError
from engine.evaluation import benchmark
from engine.fetching import catalogue, unpacked
from engine.fetching import fetch as fetch_data_engine
from engine.fetching.archive_names import ARCHIVES
from engine.fetching.catalogue import Family, family_named, fill, read_sources
from engine.fetching.download import FetchError, Remote
from engine.fetching.ledger import Ledger, locked, space
from engine.fetching.plan import Choice, _item, brought, choose, offered
from engine.runtime import progress
from scripts import fetch_data

__all__ = ["services", "site"]  # fixtures


# --- configs/sources.yaml

NAMES = {
    "cospy_bench", "aigcdetect", "cnndet", "drct2m", "genimage", "fake2m", "mpbench", "spai",
    "ldm", "in_the_wild", "flickr30k", "synthbuster", "sd-v1_4", "aesthetic",
}  # fmt: skip


def test_the_sources_are_valid() -> None:
    families = read_sources()
    assert set(families) == NAMES
    for name in benchmark.available():
        content = yaml.safe_load((benchmark.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        assert families[name].root == ROOT / content["root"], name
    # make_csv.py writes paths from the folder of SPAI's CSV files on.
    assert families["synthbuster"].root.is_relative_to(families["spai"].root)
    # Everything comes over TLS.
    origins = [origin for family in families.values() for origin in family.origins]
    assert not [origin for origin in origins if origin.where.startswith("http:")]


PLACES = """
cospy_bench sbu/a@B-1/images_with_metadata.tar.gz synthetic/sbu/a@B-1 a@B-1
cospy_bench real_image_examples.zip real_image_examples real
cospy_bench mscoco2017.zip mscoco2017 real
ldm mscoco2017.zip coco real
drct2m images/sd-turbo.zip sd-turbo sd-turbo
genimage imagenet_ai_0508_adm.zip imagenet_ai_0508_adm adm
genimage imagenet_glide.zip imagenet_glide glide
fake2m ImageData/train/A/B-50-1M.tar.gz ImageData/train/A/B-50-1M A
mpbench ImageData/val/cogview2-22K/B.tar.gz ImageData/val/cogview2-22K/B cogview2-22K
mpbench ImageData/val/Midjourneyv5-5K.tar.gz ImageData/val/Midjourneyv5-5K Midjourneyv5-5K
mpbench MetaData/val/cogview2-22K.csv MetaData/val -
aesthetic AestheticQuality.zip AestheticQuality -
"""


def test_where_files_go() -> None:
    families = read_sources()
    for line in PLACES.strip().splitlines():
        family, name, into, generator = line.split()
        item = _item(families[family].files, name)
        assert item and (item.into.as_posix(), item.generator or "-") == (into, generator), line
    assert _item(families["cospy_bench"].files, "README.md") is None
    assert _item(families["fake2m"].files, "ImageData/val/a/b.tar.gz") is None


ENTRY = {"hub": "a/b", "match": "{generator}.zip", "into": "{generator}"}
FAMILY = {"title": "F", "root": "data/f"}
WRONG: list[tuple[Any, str]] = [
    ({"hub": None}, "hub"), ({"hub": "nobody"}, "hub"), ({"url": "https://a.b/c"}, "one of hub"),
    ({"match": None}, "match"), ({"match": "../x.zip"}, "match"), ({"into": "/x"}, "into"),
    ({"into": "a/../b"}, "into"), ({"into": "{other}"}, "holes of archive, generator"),
    ({"strip": "some"}, "strip"), ({"strip": ["{other}"]}, "holes of archive, generator"),
    ({"more": 1}, "more"), ({"only": "a"}, "only"), ({"sources": "a"}, "sources"),
    ({"only": ["a"], "inside": True}, "inside, only"),
]  # fmt: skip
WRONG = [(FAMILY | {"files": [ENTRY | changes]}, key) for changes, key in WRONG] + [
    (None, "f"), ([], "f"), ({"title": "F"}, "root"), (FAMILY | {"files": []}, "files"),
    (FAMILY | {"files": [None]}, "files.0"),
    (FAMILY | {"root": "../x", "files": [{"hand": "get it"}]}, "root"),
    (FAMILY | {"title": "F\nG", "files": [{"hand": "get it"}]}, "title"),
]  # fmt: skip


def test_wrong_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line refuses each, and names the key."""
    monkeypatch.setattr(catalogue, "FILE", tmp_path / "sources.yaml")
    for family, key in WRONG:
        catalogue.FILE.write_text(yaml.safe_dump({"f": family}), encoding="utf-8")
        with pytest.raises(ConfigError, match=rf"sources.yaml: f.*{key}") as caught:
            read_sources()
        assert "\n" not in str(caught.value), family


# --- the command line

FAKES = {("sbu", "gan"): 3, ("sbu", "flow"): 2, ("cc3m", "gan"): 4}


class World:
    """Services, families and a root."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.folder, self.root = site, folder, folder / "root"
        self.families: dict[str, Any] = {}
        self.expected: dict[str, bytes] = {}
        for number, ((source, generator), count) in enumerate(FAKES.items()):
            files = pictures(count, f"{generator}/deep", 2000 + number)
            path = make_tar(folder / f"{number}.tar.gz", files)
            self.expected |= {
                f"synthetic/{source}/{generator}/{name.rpartition('/')[2]}": content
                for name, content in files.items()
            }
            self.tars = getattr(self, "tars", {}) | {
                f"{source}/{generator}/images.tar.gz": path.read_bytes()
            }
        hub(site, "a/bench", self.tars | {"README.md": b"text"}, plain=("README.md",))
        self.reals = pictures(3, "examples/CC3M", 1000)
        hub(site, "a/misc", {"reals.zip": make_zip(folder / "r.zip", self.reals).read_bytes()})
        self.write(
            bench=[
                {"hub": "a/bench", "match": "{source}/{generator}/images.tar.gz",
                 "into": "synthetic/{source}/{generator}", "strip": "all"},
                {"hub": "a/misc", "match": "reals.zip", "into": "reals", "strip": ["examples"],
                 "generator": "real", "sources": ["cc3m"]},
            ],
        )  # fmt: skip
        self.all_of_it = self.expected | {
            f"reals/{name.removeprefix('examples/')}": content
            for name, content in self.reals.items()
        }

    def write(self, **families: Any) -> None:
        """From now on there are these families, by their files or whole."""
        for name, content in families.items():
            known = {"title": name, "root": f"data/{name}"}
            self.families[name] = known | (
                content if isinstance(content, dict) else {"files": content}
            )
        catalogue.FILE.write_text(yaml.safe_dump(self.families, sort_keys=False), encoding="utf-8")

    def tree(self) -> dict[str, bytes]:
        """Files below the root but the script's own."""
        found = tree_of(self.root) if self.root.exists() else {}
        return {name: content for name, content in found.items() if not name.startswith(".fetched")}

    def record(self) -> dict[str, Any]:
        return json.loads((self.root / ".fetched.json").read_text(encoding="utf-8"))

    def downloads(self) -> list[str]:
        return [path for path in self.site.requests() if not path.startswith("/api/")]


@pytest.fixture
def world(services: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(catalogue, "FILE", tmp_path / "sources.yaml")
    return World(services, tmp_path)


@pytest.fixture
def run(world: World, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs fetch_data.py FAMILY with --root."""
    call = script(capsys, "fetch_data.py: ", fetch_data.main)
    return lambda *words: call(*words, "--root", world.root)


def rows_of(done: Done) -> list[dict[str, str]]:
    header, *rows = [re.split(r"  +", line.strip()) for line in done.out.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_everything(world: World, run: Cli) -> None:
    done = run("bench")
    assert done.status == 0, done
    assert world.tree() == world.all_of_it
    assert done.out.splitlines() == [
        str(world.root / place)
        for place in ("synthetic/sbu/gan", "synthetic/sbu/flow", "synthetic/cc3m/gan", "reals")
    ]
    assert len(world.downloads()) == 4
    key = "hub:a/bench/sbu/gan/images.tar.gz"
    content = world.tars["sbu/gan/images.tar.gz"]
    assert world.record()[key] == {"size": len(content), "sum": sha(content), "only": None}
    assert str(world.folder) not in (world.root / ".fetched.json").read_text()


def test_nothing_is_fetched_twice_even_elsewhere(world: World, run: Cli) -> None:
    first = run("bench")
    world.root.rename(world.folder / "moved")
    world.root = world.folder / "moved"
    world.site.asked.clear()
    again = run("bench")
    assert again.status == 0 and world.downloads() == []
    assert len(again.out.splitlines()) == len(first.out.splitlines())
    shutil.rmtree(world.root / "synthetic" / "sbu" / "gan")
    assert run("bench").status == 0
    assert world.downloads() == ["/datasets/a/bench/resolve/main/sbu/gan/images.tar.gz"]
    assert world.tree() == world.all_of_it


def test_a_part_of_it(world: World, run: Cli) -> None:
    for flags, places in (
        ("--generators gan", ["synthetic/sbu/gan", "synthetic/cc3m/gan"]),
        ("--generators gan,real", ["synthetic/sbu/gan", "synthetic/cc3m/gan", "reals"]),
        ("--generators ,flow,", ["synthetic/sbu/flow"]),
        ("--sources sbu", ["synthetic/sbu/gan", "synthetic/sbu/flow"]),
        ("--sources cc3m", ["synthetic/cc3m/gan", "reals"]),
        ("--sources cc3m --generators gan", ["synthetic/cc3m/gan"]),
    ):
        world.site.asked.clear()
        done = run("bench", *flags.split())
        assert done.status == 0
        assert done.out.splitlines() == [str(world.root / place) for place in places]
        assert len(world.downloads()) == len(places)
        asked_misc = any("/api/datasets/a/misc" in path for path in world.site.requests())
        assert asked_misc == ("reals" in places)  # what cannot be wanted is not asked for
        left_out = "note: the real pictures are left out" in done.err
        assert left_out == ("--generators" in flags and "real" not in flags)
        shutil.rmtree(world.root)


def test_wrong_usage(world: World, run: Cli) -> None:
    for arguments, message in (
        ("nothing", "expected one of bench; found 'nothing'"),
        ("bench --generators gna", "--generators: expected some of flow, gan, real; found 'gna'"),
        ("bench --sources sub", "--sources: expected some of cc3m, sbu; found 'sub'"),
        ("bench --generators ,", "expected names with commas between"),
        ("bench --max_size much", "expected a size such as 500GB; found 'much'"),
        ("bench --list --dry_run", "--list: expected without --extract and --dry_run"),
        ("bench --generators flow --sources cc3m", "nothing fits all of that"),
        ("", "expected FAMILY, or --list alone"),
        ("--list", "expected FAMILY, or --list alone"),
        ("bench --extract /no/such", "/no/such: expected an archive or a folder of them"),
    ):
        assert message in run(*arguments.split()).complaint
    assert world.downloads() == [] and world.tree() == {}


def test_lists(world: World, run: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """Of families, of their files, and of what a command would do."""
    run("bench", "--generators", "flow")
    world.site.asked.clear()
    done = run("bench", "--list")
    rows = {row["file"]: row for row in rows_of(done)}
    assert done.status == 0 and set(rows) == {*world.tars, "reals.zip"}
    assert [rows[name]["there"] for name in world.tars] == ["no", "yes", "no"]
    assert rows["sbu/flow/images.tar.gz"] | {"size": ""} == {
        "file": "sbu/flow/images.tar.gz", "parts": "1", "size": "", "generator": "flow",
        "source": "sbu", "there": "yes", "where": "hub:a/bench",
        "folder": str(world.root / "synthetic/sbu/flow"),
    }  # fmt: skip
    assert [row["file"] for row in rows_of(run("bench", "--list", "--sources", "cc3m"))] == [
        "cc3m/gan/images.tar.gz", "reals.zip",
    ]  # fmt: skip
    dry = run("bench", "--dry_run", "--generators", "gan")
    assert dry.status == 0 and "sbu/gan/images.tar.gz" in dry.out
    assert re.search(r"needs \d+ MB, free [\d.]+ [GM]B", dry.out)
    assert world.downloads() == [] and len(world.tree()) == 2
    world.write(other={"notes": ["reals: elsewhere"], "files": [{"hand": "get it"}]})
    families = script(capsys, "fetch_data.py", fetch_data.main)("--list")
    assert (families.status, families.err) == (0, "")
    assert [row["family"] for row in rows_of(families)] == ["bench", "other"]
    assert rows_of(families)[1]["where"] == "by hand"
    assert "fetch_data.py: note: reals: elsewhere" in run("other").err


def test_kept_archives(world: World, run: Cli) -> None:
    assert run("bench", "--generators", "flow", "--keep_archives").status == 0
    kept = world.root / ARCHIVES / "hub/a/bench/sbu/flow/images.tar.gz"
    assert kept.read_bytes() == world.tars["sbu/flow/images.tar.gz"]
    shutil.rmtree(world.root / "synthetic")
    world.site.asked.clear()
    assert run("bench", "--generators", "flow").status == 0
    assert world.downloads() == [] and not (world.root / ARCHIVES).exists()
    assert len(world.tree()) == 2


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Done]) -> None:
    """Interrupts a call when it has unpacked so many files."""
    write, written = unpacked.Target.write, 0

    def stop(target: unpacked.Target, *member: Any) -> Any:
        nonlocal written
        written += 1
        if written > count:
            raise KeyboardInterrupt
        return write(target, *member)

    with monkeypatch.context() as patch:
        patch.setattr(unpacked.Target, "write", stop)
        assert call().status == 130


@pytest.mark.parametrize(("kind", "had"), [("tar.gz", "all"), ("zip", "some"), ("tar.gz", "none")])
def test_an_interrupted_update(
    world: World, run: Cli, kind: str, had: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was there of the old version, with the same sizes, becomes the new one; and the old
    one, where the origin takes it back."""
    old = pictures(8, "set", 2000)
    new = {name: content[::-1] for name, content in old.items()}
    make = make_zip if kind == "zip" else make_tar
    world.write(x=[{"hub": "a/x", "match": f"x.{kind}"}])

    def offer(files: dict[str, bytes]) -> None:
        path = make(world.folder / f"x.{kind}", files)
        hub(world.site, "a/x", {f"x.{kind}": path.read_bytes()})

    def state() -> str:
        return rows_of(run("x", "--list"))[0]["there"]

    offer(old)
    if had == "all":
        assert run("x").status == 0
    elif had == "some":
        stop_after(4, monkeypatch, lambda: run("x"))
        assert state() == "part"
    offer(new)
    stop_after(3, monkeypatch, lambda: run("x"))
    assert state() == ("part" if had == "none" else "changed")
    for files in (new, old)[had == "some" :]:
        offer(files)
        assert run("x").status == 0
        assert world.tree() == files and state() == "yes"


def test_an_update_with_more_parts(world: World, run: Cli) -> None:
    """Of one archive; the other is not asked for."""
    old = pictures(8, "set", 2000)
    new = {name: content[::-1] for name, content in old.items()}
    other = make_zip(world.folder / "y.zip", {"y.png": b"1"}).read_bytes()
    world.write(x=[{"hub": "a/x", "match": "{name}.zip"}])
    for files, size, states in ((old, 9000, {"no"}), (new, 5000, {"changed", "yes"})):
        parts = cut(make_zip(world.folder / "x.zip", files), size, lambda n: f".{n}")
        hub(world.site, "a/x", {part.name: part.read_bytes() for part in parts} | {"y.zip": other})
        assert {row["there"] for row in rows_of(run("x", "--list"))} == states
        assert run("x").status == 0
        assert world.tree() == files | {"y.png": b"1"}
    assert sum(path.endswith("y.zip") for path in world.downloads()) == 1


def test_an_update_of_some_generators_updates_all_that_are_there(world: World, run: Cli) -> None:
    old = {f"{name}/{n}.png": name.encode() * 50 for name in ("gan", "vae", "sd") for n in "12"}
    new = {name: content.upper() for name, content in old.items()}
    world.write(x={"generators": ["gan", "vae", "sd"], "files": [
        {"hub": "a/x", "match": "x.zip", "inside": True}]})  # fmt: skip

    def fetch(files: dict[str, bytes], generators: str) -> None:
        path = make_zip(world.folder / "x.zip", files)
        hub(world.site, "a/x", {"x.zip": path.read_bytes()})
        assert run("x", "--generators", generators).status == 0

    fetch(old, "gan,vae")
    fetch(new, "gan")
    assert world.tree() == {name: data for name, data in new.items() if not name.startswith("sd")}
    fetch(new, "vae,sd")
    assert world.tree() == new


def test_only_some_folders_of_an_archive(world: World, run: Cli) -> None:
    files = {f"coco/{year}/{n}.jpg": year.encode() * 50 for year in ("train", "val") for n in "12"}
    hub(world.site, "a/x", {"x.zip": make_zip(world.folder / "x.zip", files).read_bytes()})
    world.write(x=[{"hub": "a/x", "match": "x.zip", "into": "c", "strip": ["coco"],
                    "only": ["val"]}])  # fmt: skip
    assert run("x").status == 0
    assert set(world.tree()) == {"c/val/1.jpg", "c/val/2.jpg"}
    assert rows_of(run("x", "--list"))[0]["there"] == "yes"


def test_one_failure_does_not_stop_the_others(world: World, run: Cli) -> None:
    path = "/datasets/a/bench/resolve/main/sbu/gan/images.tar.gz"
    good = world.site.files[path]
    world.site.files[path] = bytes(len(good))
    done = run("bench")
    assert done.status == 1 and len(done.out.splitlines()) == 3
    assert "sbu/gan/images.tar.gz: expected sha256:" in done.err
    world.site.files[path] = good
    assert run("bench").status == 0 and world.tree() == world.all_of_it


def test_names_at_the_origin_that_lead_elsewhere(world: World, run: Cli) -> None:
    for name in ("../..", "../gan", "..", "/gan"):
        hub(world.site, "a/bench", {f"{name}/images.tar.gz": b"1", "sbu/x.zip": b"1"})
        done = run("bench", "--generators", "gan")
        assert done.status == 2
    world.write(x=[{"hub": "a/x", "match": "{generator}.zip", "into": "{generator}"}])
    for name in (".archives", ".FETCHED.json"):
        hub(world.site, "a/x", {f"{name}.zip": b"1"})
        assert "has a name that is kept free" in run("x").err
    assert world.downloads() == []


def test_an_origin_without_its_files(world: World, run: Cli) -> None:
    """The others are fetched all the same."""
    moved = "fetch_data.py: hub:a/misc: expected reals.zip; found no such file there any more\n"
    hub(world.site, "a/misc", {"README.md": b"moved"})
    assert moved in run("bench", "--generators", "real").err
    listed = run("bench", "--list")
    assert (listed.status, listed.err) == (1, moved)
    assert [row["file"] for row in rows_of(listed)] == [*world.tars]
    for _ in range(2):
        done = run("bench")
        assert done.status == 1 and done.err.startswith(moved)
        assert len(done.out.splitlines()) == 3 and world.tree() == world.expected


def test_origins_that_cannot_be_asked(world: World, run: Cli) -> None:
    """What lies there is unpacked all the same, and no name is called unknown."""
    entry = {"hand": "get it", "match": "mine.zip", "into": "mine", "generator": "own"}
    world.write(mixed=[*world.families["bench"]["files"], entry])
    make_zip(world.root / "mine.zip", pictures(2, "x"))
    world.site.files.clear()
    done = run("mixed")
    assert done.status == 1 and done.out == f"{world.root / 'mine'}\n"
    assert "a/bench" in done.err and "a/misc" in done.err and "by hand: get it" not in done.err
    done = run("bench", "--generators", "gan")
    assert (done.status, done.out) == (2, "") and "expected some of" not in done.err


def test_space(world: World, run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    items, _ = offered(family_named("bench"), Choice())
    ledger = Ledger(world.root)
    sizes = [item.size or 0 for item in items]
    unpacked = sum(round(size * 1.1) for size in sizes)
    assert space(items, ledger, keep=True).need == unpacked + sum(sizes)
    assert space(items, ledger, keep=False).need == unpacked + max(sizes)
    part = world.root / ARCHIVES / "hub/a/misc/reals.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    assert space(items, ledger, keep=True).need == unpacked + sum(sizes) - 1000
    usage = shutil.disk_usage(world.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    complaint = run("bench").complaint
    assert re.search(r"root: expected \d+ MB free, .*; found 0 MB: free some", complaint)
    assert world.downloads() == []
    assert run("bench", "--generators", "flow").status == 0


def test_space_for_the_rest(
    world: World, run: Cli, split: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was unpacked before an interruption needs no space again."""
    stop_after(3, monkeypatch, lambda: run("gen", "--extract", split[0]))
    family = family_named("gen")
    (item,) = choose(family, brought(family, [split[0]]), Choice())
    need = space([item], Ledger.read(world.root), keep=False).need
    assert need == round((item.size or 0) * 1.1) - 3 * 3000
    assert space([item], Ledger(world.root), keep=False).need == need + 3 * 3000
    usage = shutil.disk_usage(world.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    assert run("gen", "--extract", split[0]).status == 0
    assert len(world.tree()) == 5


def test_the_largest_size(world: World, run: Cli) -> None:
    done = run("bench", "--generators", "gan", "--max_size", "7K")
    assert done.status == 1 and "at most 7000, by --max_size" in done.err
    assert fetch_data.size("1.5 GB") == 1_500_000_000 and fetch_data.size("12") == 12


@pytest.mark.parametrize("when", ["while it downloads", "while it unpacks"])
def test_interrupted(world: World, run: Cli, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "while it downloads":
            patch.setattr("engine.fetching.download.digest", stop)
        else:
            patch.setattr("engine.fetching.unpacked.Target.place", stop)
        done = run("bench", "--generators", "gan", "--sources", "sbu")
    assert done.status == 130
    assert done.err.endswith("fetch_data.py: interrupted; the same command goes on\n")
    assert any("images.tar.gz" in name for name in world.tree())
    world.site.asked.clear()
    assert run("bench").status == 0 and world.tree() == world.all_of_it
    assert not any("sbu/gan" in path for path in world.downloads())  # all of it had come


def test_a_server_that_goes_away(world: World, run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of its files are not tried."""
    away = "http://127.0.0.1:1/{repo_id}/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", away)
    done = run("bench")
    assert done.status == 2 and world.downloads() == []
    assert done.err.count("Connection refused: the same command goes on") == 1
    assert "3 more not tried, because 127.0.0.1:1 did not answer" in done.err


def test_other_hosts_than_the_one_that_went_away(world: World, run: Cli) -> None:
    """Nor does it stop what lies there."""
    content = make_zip(world.folder / "z.zip", pictures(2, "z")).read_bytes()
    zenodo(world.site, "1", {"z.zip": content})
    rows = json.loads(world.site.files["/api/records/1"])
    rows["files"][0]["links"]["self"] = "http://127.0.0.1:1/z.zip"
    world.site.files["/api/records/1"] = json.dumps(rows).encode()
    entry = {"hand": "get it", "match": "mine.zip", "into": "mine", "generator": "own"}
    first = {"zenodo": "1", "match": "z.zip", "into": "z"}
    world.write(mixed=[first, *world.families["bench"]["files"], entry])
    make_zip(world.root / "mine.zip", pictures(2, "x"))
    done = run("mixed")
    assert done.status == 1 and "127.0.0.1:1" in done.err and "not tried" not in done.err
    assert len(done.out.splitlines()) == 5 and (world.root / "mine").is_dir()


def test_two_at_once(world: World, run: Cli) -> None:
    with locked(world.root):
        assert "another fetch_data.py is at work there" in run("bench").complaint
        with pytest.raises(FetchError), locked(world.root):
            pass
        assert run("bench", "--list").status == 0
    assert run("bench").status == 0


def test_a_ledger_or_a_root_that_is_none(world: World, run: Cli) -> None:
    world.root.mkdir()
    for text in ("", "[]", '{"a": 1}', '{"a": {"size": "b"}}', "\xff"):
        (world.root / ".fetched.json").write_text(text, encoding="latin-1")
        assert ".fetched.json: expected" in run("bench").complaint
    shutil.rmtree(world.root)
    world.root.touch()
    assert "root: expected a folder; found a file" in run("bench").complaint


# --- split archives, plain files, archives within archives, several generators in one


def test_split_archives_and_plain_files(world: World, run: Cli) -> None:
    files = pictures(12, "B", 2000)
    parts = cut(make_tar(world.folder / "B.tar.gz", files), 2100, lambda n: f".{n}")
    assert len(parts) > 10
    content = {f"Data/A/{part.name}": part.read_bytes() for part in parts}
    hub(world.site, "a/set", content | {"Meta/A.csv": b"a 0\n"}, plain=("Meta/A.csv",))
    world.write(set=[
        {"hub": "a/set", "match": "Meta/{name}.csv", "into": "Meta"},
        {"hub": "a/set", "match": "Data/{generator}/{subset}.tar.gz",
         "into": "Data/{generator}/{subset}", "strip": ["{subset}"]},
    ])  # fmt: skip
    assert run("set").status == 0
    expected = {f"Data/A/{name}": data for name, data in files.items()} | {"Meta/A.csv": b"a 0\n"}
    assert world.tree() == expected
    listed = rows_of(run("set", "--list"))
    assert [(row["parts"], row["there"]) for row in listed] == [
        (str(len(parts)), "yes"),
        ("1", "yes"),
    ]
    world.site.asked.clear()
    assert run("set", "--generators", "A").status == 0 and world.downloads() == []
    del content["Data/A/B.tar.gz.9"]
    shutil.rmtree(world.root)
    hub(world.site, "a/set", content)
    done = run("set")
    assert done.status == 2 and "Data/A/B.tar.gz.9 is missing" in done.err
    assert world.downloads() == []


def test_several_generators_in_one_archive(world: World, run: Cli) -> None:
    files = {f"set/test/{name}/0_real/1.png": name.encode() * 50 for name in ("Gan", "vae", "sd")}
    whole = make_zip(world.folder / "t.zip", files | {"set/list.csv": b"x" * 30}).read_bytes()
    modelscope(world.site, "a/t", {"in/t.zip": whole})
    entry = {"modelscope": "a/t", "match": "in/t.zip", "into": "test", "strip": ["set", "test"],
             "inside": True}  # fmt: skip
    world.write(t={"generators": ["gan", "vae", "sd"], "files": [entry]})
    path = "/api/v1/datasets/a/t/repo/in/t.zip"
    for wanted, downloads, state in (
        ("gan", 1, "part"),
        ("gan", 1, "part"),
        ("vae", 2, "part"),
        ("", 3, "yes"),
        ("sd", 3, "yes"),
    ):
        assert run("t", *(["--generators", wanted] if wanted else [])).status == 0
        assert world.site.requests().count(path) == downloads
        assert rows_of(run("t", "--list"))[0]["there"] == state
        if downloads == 1:
            assert set(world.tree()) == {"test/Gan/0_real/1.png", "test/list.csv"}
        if wanted == "vae":
            assert rows_of(run("t", "--list", "--generators", "gan,vae"))[0]["there"] == "yes"
    assert len(world.tree()) == 4


def test_a_file_in_the_hubs_cache_serves(
    world: World, run: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = world.tars["sbu/flow/images.tar.gz"]
    commit = "0123456789abcdef0123456789abcdef01234567"
    base = Path(constants.HF_HUB_CACHE) / "datasets--a--bench"
    cached = base / "snapshots" / commit / "sbu/flow/images.tar.gz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    assert run("bench", "--generators", "flow").status == 0
    assert world.downloads() == [] and cached.exists() and len(world.tree()) == 2
    shutil.rmtree(world.root)
    cached.write_bytes(content[::-1])
    moves: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "advance", lambda _, count: moves.append(count))
        patch.setattr(fetch_data_engine, "_unpack", lambda *_: None)
        assert run("bench", "--generators", "flow").status == 0
    assert sum(moves) == len(content)
    assert len(world.downloads()) == 1


def published(family: Family, folder: Path) -> dict[str, bytes]:
    """One archive or file for each entry of a family, by its name at the origin."""
    pytest.importorskip("py7zr")
    files = {}
    for number, entry in enumerate(entry for entry in family.files if entry.match):
        for generator in family.generators or ("Gan-A", "flow_b"):
            values = dict.fromkeys(re.findall(r"{(\w+)}", str(entry.match)), "n")
            name = fill(str(entry.match), values | {"generator": generator})
            top = "/".join(fill(text, values | {"archive": ""}) for text in (entry.strip or ())[:1])
            inner = family.generators if entry.inside else entry.only or ("a",)
            members = {f"{top}/{one}/1.png".strip("/"): one.encode() * 99 for one in inner}
            make = make_tar if name.endswith(".tar.gz") else make_zip
            path = folder / f"{number}" / Path(name).name
            if entry.holds:
                inside = make_zip(folder / "inside.zip", members).read_bytes()
                make_7z(path, {entry.holds: inside}, stored=True)
            elif name.endswith((".zip", ".tar.gz")):
                make(path, members)
            files[name] = path.read_bytes() if path.exists() else b"a 0\n"
    return files


@pytest.mark.parametrize("name", sorted(NAMES - {"spai", "in_the_wild"}))
def test_each_generator_that_is_listed_can_be_had(
    services: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As it is listed, and in other spellings of it."""
    family = family_named(name)
    files = published(family, tmp_path / "origin")
    by_hand = [entry.origin.kind for entry in family.files if entry.match].count("hand")
    for file, content in files.items():
        services.files[f"/{file}"] = content
        path = tmp_path / "brought" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    remote = [Remote(file, f"{services.url}/{file}", len(files[file])) for file in files]
    monkeypatch.setattr("engine.fetching.services.list_files", lambda _: remote)
    monkeypatch.setattr(catalogue, "read_sources", lambda: {name: family})
    extract = ["--extract", str(tmp_path / "brought")] if by_hand else []
    run = script(capsys, "fetch_data.py: ", fetch_data.main)
    done = run(name, "--list", "--root", tmp_path / "none")
    listed = {row["generator"] for row in rows_of(done)} - {"-"} if done.out else set()
    generators = sorted(listed | {*family.generators})
    for generator in generators[:1]:
        spelled = generator.swapcase().replace("_", "-")
        done = run(name, "--generators", spelled, *extract, "--root", tmp_path / generator)
        assert done.status in (0, 1) and done.out, done
        pngs = [path for path in tree_of(tmp_path / generator) if path.endswith(".png")]
        assert pngs, (spelled, done)
    root = tmp_path / "all"
    choice = ["--generators", ",".join(generators)] if generators else []
    done = run(name, *choice, *extract, "--root", root)
    assert done.status in (0, 1) and len(tree_of(root)) > len(generators), done
    if not by_hand:
        rows = rows_of(run(name, "--list", *choice, "--root", root))
        assert {row["there"] for row in rows} == {"yes"}


def test_what_cospy_trains_on(
    services: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One generator of DRCT-2M's, and laid out as the trainer reads it."""
    assert family_named("sd-v1_4").root == ROOT / str(VARIANTS["sd-v1_4"].home.pictures)
    years = ("train2017", "val2017")
    fakes, reals = "images/stable-diffusion-v1-4.zip", "mscoco2017.zip"
    made = [
        make_zip(tmp_path / "f.zip", {f"stable-diffusion-v1-4/{y}/1.png": b"f" for y in years}),
        make_zip(tmp_path / "r.zip", {f"mscoco2017/{y}/1.jpg": b"r" for y in years}),
    ]
    others = {f"images/{name}.zip": b"" for name in ("sdxl-turbo", "sd-turbo")}
    modelscope(services, "BokingChen/DRCT-2M", {fakes: made[0].read_bytes(), **others})
    hub(services, "ruojiruoli/Co-Spy-Misc", {reals: made[1].read_bytes()})
    root = tmp_path / "root"
    done = script(capsys, "fetch_data.py: ", fetch_data.main)("sd-v1_4", "--root", root)
    assert done.status == 0, done
    assert not any("turbo" in path for path in services.requests())
    for split, year in zip(("train", "val"), years, strict=True):
        assert [(r.key, r.label) for r in drct2m.records(root, split)] == [
            (f"mscoco2017/{year}/1.jpg", 0), (f"stable-diffusion-v1-4/{year}/1.png", 1),
        ]  # fmt: skip


# --- by hand


@pytest.fixture
def split(world: World) -> list[Path]:
    """A family of zips over disks that a person downloads, and one of them."""
    text = "the split zip of each generator from the project page"
    world.write(gen={"generators": ["adm", "glide"], "files": [
        {"hand": text, "match": "net_{number}_{generator}.zip", "into": "{archive}",
         "strip": ["{archive}"]},
        {"hand": text, "match": "net_{generator}.zip", "into": "{archive}",
         "strip": ["{archive}"]},
    ]})  # fmt: skip
    files = pictures(5, "net_05_adm/train/ai", 3000)
    return make_disks(world.folder / "Downloads" / "ADM", "net_05_adm", files, 4000)


BY_HAND = "fetch_data.py: by hand: get the split zip of each generator from the project page, put"


def test_archives_by_hand(world: World, run: Cli, split: list[Path]) -> None:
    """Named by any volume or a folder, or lying in the root; a person's files stay."""
    for words in (("gen",), ("gen", "--list")):
        done = run(*words)
        assert done.err.startswith(BY_HAND) and done.err.count("\n") == 1
    assert f"into {world.root} and run this again, or name it by --extract PATH" in done.err
    assert (run("gen").status, run("gen").out) == (1, "")
    for paths in ([split[-1]], [split[0]], split, [split[0].parent.parent], None):
        if paths:
            done = run("gen", "--extract", *paths)
        else:
            shutil.copytree(split[0].parent, world.root / "ADM")
            done = run("gen")
        assert (done.status, done.out) == (0, f"{world.root / 'net_05_adm'}\n"), done
        files = {name for name in world.tree() if not name.startswith("ADM/")}
        assert files == {f"net_05_adm/train/ai/00{n}.png" for n in range(5)}
        assert all(part.exists() for part in split)
        assert (world.root / "ADM").exists() == (paths is None)
        again = run("gen")
        assert again.status == 0 and "by hand" not in again.err
        assert run("gen", "--generators", "adm").err == ""
        assert run("gen", "--generators", "glide").err.startswith(BY_HAND)
        shutil.rmtree(world.root)


def test_archives_by_hand_that_are_others(world: World, run: Cli, split: list[Path]) -> None:
    done = run("gen", "--extract", split[0].parent, "--generators", "glide")
    assert done.status == 0 and world.tree() == {}
    unknown = run("gen", "--extract", split[0].parent, "--generators", "x").complaint
    assert "expected some of adm, glide; found 'x'" in unknown
    other = make_zip(world.folder / "other.zip", {"a": b"1"})
    (world.folder / "empty").mkdir()
    for path in (other, world.folder / "empty"):
        complaint = run("gen", "--extract", path).complaint
        assert "expected archives of gen (net_{number}_{generator}.zip, net_" in complaint
    split[1].unlink()
    done = run("gen", "--extract", split[0])
    assert done.status == 2 and "net_05_adm.z02 is missing" in done.err


def test_links_that_lead_round(world: World, run: Cli, split: list[Path]) -> None:
    """To the folder above, or to themselves; they hide nothing and hold nothing up."""
    folder = split[0].parent
    (folder / "up").symlink_to(folder.parent)
    (folder / "self.zip").symlink_to("self.zip")
    assert run("gen", "--extract", folder.parent).status == 0
    assert len(world.tree()) == 5
    assert "expected an archive" in run("gen", "--extract", folder / "self.zip").complaint
    shutil.rmtree(world.root)
    world.root.symlink_to("root")
    assert "root: expected a folder; found a file or a link" in run("gen").complaint


def test_archives_of_the_net_brought_by_hand(world: World, run: Cli) -> None:
    """With the folders that say what they are; they count as fetched."""
    for name, content in world.tars.items():
        path = world.folder / "brought" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert run("bench", "--extract", world.folder / "brought").status == 0
    assert world.site.asked == [] and world.tree() == world.expected
    assert run("bench").status == 0
    assert len(world.downloads()) == 1 and world.tree() == world.all_of_it


def test_folders_by_hand(world: World, run: Cli) -> None:
    world.write(wild=[{"hand": "pictures of A", "into": "A b", "generator": "A b"},
                      {"hand": "pictures of C", "into": "C", "generator": "C"}])  # fmt: skip
    done = run("wild", "--generators", "C")
    assert done.status == 1
    assert done.err == (
        f"fetch_data.py: by hand: get pictures of C, and put it into {world.root / 'C'}\n"
    )
    (world.root / "C").mkdir(parents=True)
    (world.root / "C" / "1.png").touch()
    assert run("wild", "--generators", "C").status == 0
    assert run("wild").err.count("by hand") == 1


# --- the rest


def test_progress_of_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO), progress.Progress(80_000_000, "x", unit="B") as bar:
        bar.advance(20_000_000)
    assert re.fullmatch(r"x: 20/80, [\d.]+ MB/s, \d+ s left", caplog.messages[0])


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("from scripts import fetch_data as s\ntry: s.main(['--help'])\nexcept SystemExit: 1",
         {"torch", "numpy", "yaml", "pydantic", "huggingface_hub"}),
        ("import engine.fetching.fetch", {"torch"}),
    ],
    ids=["--help", "the work"],
)  # fmt: skip
def test_nothing_heavy_is_loaded(code: str, unwanted: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('LOADED', *sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert loaded and not unwanted & {*loaded}, done.stderr
