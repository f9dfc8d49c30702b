"""Writes a miniature of every benchmark family, and says what must be listed in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import make_picture

import datasets
from datasets import Label, LayoutError, Record

REAL, FAKE = Label.REAL, Label.FAKE
COSPY_GENERATORS = ("CompVis@stable-diffusion-v1-4", "stabilityai@sdxl-turbo")
LDM_FOLDERS = tuple(f"ldm{number}" for number in range(7))


@dataclass
class Tree:
    """A miniature data set. `pictures`: key -> label, source, generator. `splits`: the keys of each
    split. `files`: where each picture is. `parts`: what lives elsewhere, outside `root`."""

    root: Path
    elsewhere: Path
    count: int
    pictures: dict[str, tuple[Label, str, str]] = field(default_factory=dict)
    splits: dict[str, set[str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    locations: dict[str, str] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def add(
        self,
        key: str,
        label: Label,
        source: str = "",
        generator: str = "",
        splits: tuple[str, ...] = (),
        path: Path | None = None,
    ) -> None:
        """Writes one picture, at `path` where that is not what its key says."""
        path = path or self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(next(self.numbers), label == FAKE, (8, 8)).save(path)
        self.pictures[key] = label, source, generator
        self.files[key] = path
        for split in splits:
            self.splits.setdefault(split, set()).add(key)

    def names(self, suffix: str) -> list[str]:
        """Names of `count` pictures; the second has two dots and capitals."""
        names = [f"{number:05}{suffix}" for number in range(self.count)]
        if self.count > 1:
            names[1] = f"00001.v2{suffix.upper()}"
        return names

    def write(self, path: str, text: str) -> None:
        """A text file below the root."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")


def cospy_bench(tree: Tree, nested: bool) -> None:
    """Nested: no synthetic/, a folder more per generator, mscoco and flickr elsewhere."""
    sources = {"mscoco": "mscoco2017/val2017", "flickr": "flickr30k"}
    sources |= {name.lower(): f"real_image_examples/{name}" for name in ("CC3M", "TextCaps", "SBU")}
    for source, place in sources.items():
        for generator, name in itertools.product(COSPY_GENERATORS, tree.names(".png")):
            below = (
                f"{source.upper()}/{generator}/images"
                if nested
                else f"synthetic/{source}/{generator}"
            )
            tree.add(f"{below}/{name}", FAKE, source, generator)
        for name in tree.names(".jpg"):
            if nested and source in ("mscoco", "flickr"):
                tree.locations[source] = str(tree.elsewhere / source)
                path = tree.elsewhere / source / (place if source == "mscoco" else name)
                path = path / name if source == "mscoco" else path
                tree.add(f"{source}/{name}", REAL, source, path=path)
            else:
                tree.add(f"{place}/{name}", REAL, source)
                tree.write(f"{place}/{name}.json", '{"caption": "a cat"}')


def aigcdetect(tree: Tree, nested: bool) -> None:
    """Nested: no test/, other spellings."""
    folders = {"progan/cat": "progan", "progan/dog": "progan", "ADM": "ADM", "mine": "mine"}
    if nested:
        folders = {"ProGAN/cat": "progan", "adm": "ADM", "stable-diffusion-v-1.4": ""}
        folders["stable-diffusion-v-1.4"] = "stable_diffusion_v_1_4"
    for (folder, name), file in itertools.product(folders.items(), tree.names(".png")):
        start = folder if nested else f"test/{folder}"
        tree.add(f"{start}/0_real/{file}", REAL, name)
        tree.add(f"{start}/1_fake/{file}", FAKE, name, name)


def cnndet(tree: Tree, nested: bool) -> None:
    """Nested: as the archives unpack."""
    for split, kind, name in itertools.product(
        ("train", "val"), ("airplane", "cat"), tree.names(".png")
    ):
        start = f"progan_{split}/{kind}" if nested else f"{split}/{kind}"
        tree.add(f"{start}/0_real/{name}", REAL, splits=(split,))
        tree.add(f"{start}/1_fake/{name}", FAKE, "", "progan", splits=(split,))


def drct2m(tree: Tree, nested: bool) -> None:
    """Nested: below images/, with underscores, a folder in itself; the reals elsewhere."""
    folders = {"stable-diffusion-v1-4": "stable-diffusion-v1-4", "sdxl-turbo": "sdxl-turbo"}
    if nested:
        twice = "images/stable_diffusion_v1_4/stable_diffusion_v1_4"
        folders = {twice: "stable-diffusion-v1-4", "images/SDXL_turbo": "sdxl-turbo"}
        tree.locations["mscoco"] = str(tree.elsewhere)
    for year, splits in (("train2017", ("train",)), ("val2017", ("val", "test"))):
        for folder, name in folders.items():
            for file in tree.names(".png"):
                tree.add(f"{folder}/{year}/{file}", FAKE, "", name, splits)
        for file in tree.names(".jpg"):
            if nested:
                path = tree.elsewhere / "mscoco2017" / year / file
                tree.add(f"mscoco/{year}/{file}", REAL, "", "", splits, path)
            else:
                tree.add(f"mscoco2017/{year}/{file}", REAL, splits=splits)


def genimage(tree: Tree, nested: bool) -> None:
    """Nested: one more folder, capitals."""
    folders = {
        "adm": ("imagenet_ai_0508_adm", "ADM/imagenet_ai_0508_adm"),
        "biggan": ("imagenet_ai_0419_biggan", "BigGAN/imagenet_ai_0419_biggan"),
        "glide": ("imagenet_glide", "glide/imagenet_glide"),
        "midjourney": ("imagenet_midjourney", "Midjourney/IMAGENET_midjourney"),
        "sdv4": ("imagenet_ai_0419_sdv4", "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4"),
        "sdv5": ("imagenet_ai_0424_sdv5", "stable_diffusion_v_1_5"),
        "vqdm": ("imagenet_ai_0419_vqdm", "VQDM/imagenet_ai_0419_vqdm"),
        "wukong": ("imagenet_ai_0424_wukong", "wukong"),
    }
    for subset, places in folders.items():
        for split, file in itertools.product(("train", "val"), tree.names(".png")):
            start = f"{places[nested]}/{split}"
            tree.add(f"{start}/ai/{file}", FAKE, subset, subset, (split,))
            tree.add(f"{start}/nature/{file}", REAL, subset, splits=(split,))


def _fake_images(tree: Tree, split: str, sets: dict[str, tuple[str, ...]], nested: bool) -> None:
    """Nested: no lists. Otherwise the paths of each list start from another folder."""
    starts = itertools.cycle((f"ImageData/{split}", split, "", None))
    for name, inner in sets.items():
        start = next(starts)
        lines = []
        for below in inner or ("",):
            folder = "/".join(part for part in (f"ImageData/{split}", name, below) if part)
            for file in tree.names(".png"):
                tree.add(f"{folder}/{file}", FAKE, "", below or name, (split,))
                from_set = f"{below}/{file}" if below else file
                path = from_set if start is None else f"{name}/{from_set}"
                lines.append(f"{start}/{path} 0" if start else f"{path} 0")
        if not nested:
            tree.write(f"MetaData/{split}/{name.replace('v1-', '-')}.csv", "\n".join(lines) + "\n")
    for file, real in itertools.product(tree.names(".jpg"), ("cc3m", "ffhq")):
        path = tree.elsewhere / real / "a b" / file
        tree.add(f"{real}/a b/{file}", REAL, "", "", (split,), path)
    tree.locations["reals"] = ",".join(f"{n}={tree.elsewhere / n}" for n in ("cc3m", "ffhq"))


def fake2m(tree: Tree, nested: bool) -> None:
    sets = {
        "IFv1-CC1M": ("IFv1-dpmsolver++-50-1M",),
        "SDv15R-CC1M": ("SDv15R-dpmsolver-25-1M",),
        "stylegan3-80K": ("stylegan3-r-afhqv2-512x512", "stylegan3-t-ffhqu-1024x1024"),
        "of my own": ("a sub set",),
    }
    _fake_images(tree, "train", sets, nested)


def mpbench(tree: Tree, nested: bool) -> None:
    sets = {
        "IF-CC95K": ("IF-ddim-25-15K", "IF-ddpm-50-15K"),
        "Midjourneyv5-5K": (),
        "SDv21-CC15K": ("SDv2-dpmsolver-25-10K",),
        "cogview2-22K": (),
    }
    _fake_images(tree, "val", sets, nested)


def spai(tree: Tree, nested: bool) -> None:
    """Nested: names without their prefix. One picture is named by two files."""
    for name, label in (("sd14", FAKE), ("dalle2", FAKE), ("coco", REAL), ("raise", REAL)):
        stem = name if nested else f"{'real' if label == REAL else 'fake'}_{name}"
        lines = ["image,class,split,spai"]
        for number, file in enumerate([*tree.names(".png"), "shared.webp"]):
            image = f"shared/{label}.webp" if file == "shared.webp" else f"pictures/{name}/{file}"
            split = "val" if number == 0 else "test"
            source, generator = (name, "") if label == REAL else ("", name)
            path = tree.root / image
            tree.add(f"{stem}/{image}", label, source, generator, (split,), path)
            lines.append(f"{image},{int(label)},{split},0.5")
        tree.write(f"{stem}.csv", "\n".join(lines) + "\n")


def ldm(tree: Tree, nested: bool) -> None:
    """Nested: the root is the set itself, valid/, and the parts' own folders are named."""
    top = "" if nested else "latent_diffusion_trainingset/"
    tree.locations["coco"] = str(tree.elsewhere / ("coco/train2017" if nested else "coco"))
    tree.locations["lsun"] = str(tree.elsewhere / ("progan/train" if nested else "progan"))
    for split in ("train", "val"):
        start = f"{top}{'valid' if nested and split == 'val' else split}"
        for folder, file in itertools.product(LDM_FOLDERS, tree.names(".png")):
            tree.add(f"{start}/{folder}/{file}", FAKE, "", folder, (split,))
        names = [f"{split}{file}" for file in tree.names(".jpg")]
        for name in names:
            coco = tree.elsewhere / "coco/train2017" / name
            tree.add(f"coco/{name}", REAL, "", "", (split,), coco)
            lsun = f"cat/0_real/{name}"
            tree.add(f"lsun/{lsun}", REAL, "", "", (split,), tree.elsewhere / "progan/train" / lsun)
        tree.write(f"{start}/real_coco.txt", "\n".join(names) + "\n")
        tree.write(f"{start}/real_lsun.txt", "\n".join(f"cat_{name}" for name in names))


def in_the_wild(tree: Tree, nested: bool) -> None:
    """Nested: other spellings, folders within."""
    names = ("Civitai", "DALL-E 3", "instavibe", "Lexica", "Midjourney-v6")
    if nested:
        names = ("civitai", "dalle3", "InstaVibe", "lexica", "midjourney_v6")
    for name, file in itertools.product(names, tree.names(".png")):
        tree.add(f"{name}/part 1/{file}" if nested else f"{name}/{file}", FAKE, "", name)


WRITERS: dict[str, Callable[[Tree, bool], None]] = {
    writer.__name__: writer
    for writer in (
        aigcdetect, cnndet, cospy_bench, drct2m, fake2m, genimage, in_the_wild, ldm, mpbench, spai,
    )
}  # fmt: skip


def write_tree(family: str, folder: Path, count: int = 2, nested: bool = False) -> Tree:
    """Writes the family's miniature into `folder`/set and `folder`/elsewhere: `count` pictures of
    8 x 8 per generator, class and split. `nested`: in the other spellings and nestings."""
    tree = Tree(folder / "set", folder / "elsewhere", count)
    tree.root.mkdir(parents=True)
    WRITERS[family](tree, nested)
    return tree


def found(
    family: str, tree: Tree, split: str | None = None, sources: tuple[str, ...] = ()
) -> list[Record]:
    """What the family lists."""
    return datasets.load(family).records(tree.root, split, tree.locations, sources)


def described(records: list[Record]) -> dict[str, tuple[Label | None, str, str]]:
    """Key -> label, source, generator, as in `Tree.pictures`."""
    return {r.key: (r.label, r.source, r.generator) for r in records}


def complaint(call: Callable[..., object], *arguments: object) -> str:
    """The one line of a LayoutError."""
    with pytest.raises(LayoutError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wrong(family: str, tree: Tree, split: str | None = None, **changes: object) -> str:
    """The one line with which the family refuses the tree; `changes`: other arguments."""
    arguments = {"locations": tree.locations} | changes
    return complaint(lambda: datasets.load(family).records(tree.root, split, **arguments))
