"""What pictures go through on their way: filters, memes, screenshots of posts, reposts, print."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from conftest import make_picture
from PIL import Image

from engine.config import ConfigError
from engine.scoring import degradations, lettering, memes, posts

VARIED = ("instagram:random", "repost:3", "screenshot", "print-scan", "meme", "post")
ALL = (*VARIED, "enlarge:2", "enlarge:4", "social:wechat", "meme+jpeg:75")


def derived(text: str, image: Image.Image, seed: int = 0) -> Image.Image:
    chain = degradations.parse(text)
    assert chain is not None
    return chain(image, np.random.default_rng(seed))


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (1, 90), (90, 1), (3, 5)])
def test_any_picture_is_derived_and_stays_as_it_is(text: str, size: tuple[int, int]) -> None:
    image = make_picture(0, fake=False, size=size)
    before = image.tobytes()
    picture = derived(text, image)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 1
    assert image.tobytes() == before
    assert derived(text, image).tobytes() == picture.tobytes()


@pytest.mark.parametrize("text", VARIED)
def test_choices_differ_by_seed_and_by_picture(text: str) -> None:
    image = make_picture(0, fake=False)
    assert len({derived(text, image, seed).tobytes() for seed in range(4)}) > 1
    # All pictures of an evaluation have one seed; here the same picture but for one value.
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    first, second = (derived(text, one) for one in (image, other))
    assert first.size != second.size or (np.asarray(first) != np.asarray(second)).mean() > 0.01


def blended(base: np.ndarray, colour: tuple[int, int, int], alpha: float, mode: str) -> np.ndarray:
    """W3C's blend of a colour over values of 0-255, mixed by alpha."""
    source = np.array(colour, dtype=np.float64)
    if mode == "screen":
        mixed = base + source - base * source / 255
    else:  # overlay = hard light with the layers exchanged
        mixed = np.where(
            base < 128, 2 * base * source / 255, 255 - 2 * (255 - base) * (255 - source) / 255
        )
    return alpha * mixed + (1 - alpha) * base


def contrast(x: np.ndarray, a: float) -> np.ndarray:
    return np.clip(np.round(x * a - 127.5 * a + 127.5), 0, 255)


def saturated(x: np.ndarray, a: float) -> np.ndarray:
    weights = np.array([0.213, 0.715, 0.072])
    return np.clip(np.round(a * x + (1 - a) * (x @ weights)[..., None]), 0, 255)


def test_filters_have_their_published_formulae() -> None:
    """1977: screen (243,106,188) at 0.3, contrast 1.1, brightness 1.1, saturation 1.3. Clarendon:
    overlay (127,187,227) at 0.2, contrast 1.2, saturation 1.35."""
    image = make_picture(3, fake=False)
    base = np.asarray(image).astype(np.float64)
    expected = {
        "1977": saturated(
            (contrast(blended(base, (243, 106, 188), 0.3, "screen"), 1.1) * 1.1).clip(0, 255), 1.3
        ),
        "clarendon": saturated(contrast(blended(base, (127, 187, 227), 0.2, "overlay"), 1.2), 1.35),
    }
    for name, values in expected.items():
        found = np.asarray(derived(f"instagram:{name}", image)).astype(int)
        # Each of four steps rounds to 8 bits, and the factors behind multiply that.
        assert np.abs(found - values).max() <= 6, name
        assert np.abs(found - values).mean() < 1.5, name


def test_every_filter_is_there_and_changes_the_picture() -> None:
    image = make_picture(0, fake=False)
    results = {derived(f"instagram:{name}", image).tobytes() for name in degradations.FILTERS}
    assert len(results) == len(degradations.FILTERS) == 40


def test_a_missing_package_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"instagram expects the package pilgram2.*\[derive\]"):
        degradations.parse("meme+instagram:lark")
    assert degradations.parse("meme") is not None


@pytest.mark.parametrize("size", [(64, 48), (375, 375), (40, 100), (1024, 300)])
def test_a_post_has_its_published_layout(size: tuple[int, int]) -> None:
    image = make_picture(0, fake=True, size=size)
    height = round(375 * size[1] / size[0])
    card = derived("post", image)
    assert card.size == (377, height + 279)
    top = 1 + 28 + 45 + 60
    shown = card.crop((1, top, 376, top + height))
    assert shown.tobytes() == image.resize((375, height), Image.Resampling.LANCZOS).tobytes()
    gap = np.asarray(card.crop((1, top + height, 376, top + height + 4)))
    assert (gap == 255).all()
    frame = np.asarray(card)
    for edge in (frame[0], frame[-1], frame[:, 0], frame[:, -1]):
        assert (edge == 0xCC).all()


def test_a_strip_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="at most 179 megapixels"):
        derived("post", Image.new("RGB", (1, 5000)))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999.9, "999"), (1000, "1.0K"), (12_345, "12.3K"), (1_234_567, "1.2M")],
)
def test_counts_are_shown_as_apps_do(number: float, text: str) -> None:
    assert posts.count(number) == text


def test_a_post_says_what_the_study_lets_it_say() -> None:
    for seed in range(40):
        said = posts.words(np.random.default_rng(seed))
        first, second = said.name.split()
        assert all(re.fullmatch(r"[B-Z]([aeiou][b-z])*[aeiou]?", part) for part in (first, second))
        assert all(4 <= len(part) <= 8 for part in (first, second))
        assert 1 <= len(said.caption) <= 20
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", said.caption)
        assert re.fullmatch(r"(1?\d|2[0-3]):[0-5]\d", said.time)
        assert re.fullmatch(r"[1-9]\d? (minutes|hours|days|weeks|months) ago", said.age)


def test_words_of_a_meme_keep_their_ends() -> None:
    rng = np.random.default_rng(0)
    text = "And the earth was without form, and void; abcdefgh"
    scrambled = memes.scrambled(text, rng)
    assert scrambled.isupper()
    for old, new in zip(text.upper().split(), scrambled.split(), strict=True):
        assert sorted(old) == sorted(new)
        assert (old[0], old[-1]) == (new[0], new[-1])
        if not old.isalpha() or len(old) < 4:
            assert old == new
    assert scrambled != text.upper()


def test_lines_of_a_meme_fit() -> None:
    font = lettering.font(lettering.SANS, 30)
    for verse in lettering.verses():
        lines = memes.wrapped(verse, font, 300)
        assert " ".join(lines) == verse
        assert all(font.getlength(line) <= 270 or " " not in line for line in lines)


def test_a_meme_has_white_letters_with_a_black_outline() -> None:
    grey = Image.new("RGB", (600, 400), (128, 128, 128))
    pixels = np.asarray(derived("meme", grey)).reshape(-1, 3)
    assert (pixels == 255).all(axis=1).sum() > 500
    assert (pixels == 0).all(axis=1).sum() > 500


def test_training_pictures_go_through_one_of_several() -> None:
    image = make_picture(0, fake=False)
    choice = degradations.choice("none flip jpeg:10,20", "train.degrade")
    assert choice is not None
    possible = {derived(name, image).tobytes() for name in ("flip", "jpeg:10", "jpeg:20")}
    possible.add(image.tobytes())
    rng = np.random.default_rng(0)
    assert {choice(image, rng).tobytes() for _ in range(60)} == possible
    assert degradations.choice("none", "train.degrade") is None
    with pytest.raises(ConfigError, match=r"^train\.degrade: expected .*jpg:5"):
        degradations.choice("none jpg:5", "train.degrade")
