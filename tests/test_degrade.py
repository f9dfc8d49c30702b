"""Degradations: each step does what its name says, to any picture, and is spelt in one way."""

from __future__ import annotations

import io
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_picture
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from datasets import Record
from datasets._images import PictureDataset
from engine.config import ConfigError
from engine.scoring import degradation_steps, degradations

ONE_OF_EACH = (
    "jpeg:60", "webp:50", "avif:50", "blur:1.5", "noise:8", "resize:0.5", "resize:1.5",
    "longest:40", "crop:40", "crop:100", "crop:0.8", "rotate:15", "flip", "brightness:1.3",
    "contrast:0.6", "saturation:1.8", "sharpen:2", "gamma:1.4", "social:instagram",
    "crop:30+noise:4+jpeg:70", "instagram:random", "enlarge:2", "repost:2", "screenshot",
    "print-scan", "meme", "post",
)  # fmt: skip


def degraded(text: str, image: Image.Image, seed: int = 0) -> Image.Image:
    chain = degradations.parse(text)
    assert chain is not None
    return chain(image, np.random.default_rng(seed))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def grey(value: int, size: tuple[int, int] = (120, 100)) -> Image.Image:
    return Image.new("RGB", size, (value,) * 3)


@pytest.fixture
def picture() -> Image.Image:
    return make_picture(3, fake=False, size=(91, 71))


# --- what each step does


@pytest.mark.parametrize("sigma", [0.8, 3])
def test_blur_is_scipys(sigma: float, picture: Image.Image) -> None:
    expected = gaussian_filter(np.asarray(picture).astype(float), (sigma, sigma, 0))
    assert np.abs(pixels(degraded(f"blur:{sigma}", picture)) - expected).max() <= 0.51


@pytest.mark.parametrize("deviation", [2, 7.5, 20])
def test_noise_has_its_deviation_and_no_mean(deviation: float) -> None:
    found = pixels(degraded(f"noise:{deviation}", grey(128, (200, 200)))) - 128
    assert found.std() == pytest.approx(deviation, rel=0.02)
    assert abs(found.mean()) < 0.02 * deviation + 0.05
    channels = np.corrcoef(found.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.03  # not the same in red, green and blue


def test_noise_follows_the_generator(picture: Image.Image) -> None:
    first, second = (degraded("noise:5", picture, seed) for seed in (0, 1))
    assert first.tobytes() != second.tobytes()
    twice = pixels(degraded("noise:5+noise:5", grey(128, (200, 200)))) - 128
    assert twice.std() == pytest.approx(5 * math.sqrt(2), rel=0.03)


@pytest.mark.parametrize("text", ["blur:2.5", "noise:6"])
@pytest.mark.parametrize("band", [1, 300, 2000])
def test_bands_are_the_whole(
    text: str, band: int, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = degraded(text, picture)
    monkeypatch.setattr(degradation_steps, "BAND", band)
    assert degraded(text, picture).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("factor", "size"),
    [("0.5", (46, 36)), ("0.75", (68, 53)), ("1.5", (136, 106)), ("0.01", (1, 1)), ("1", (91, 71))],
)
def test_resize_is_bicubic_of_both_sides(
    factor: str, size: tuple[int, int], picture: Image.Image
) -> None:
    found = degraded(f"resize:{factor}", picture)
    assert found.size == size
    assert found.tobytes() == picture.resize(size, Image.Resampling.BICUBIC).tobytes()


def test_the_longer_side_is_reduced_and_never_enlarged(picture: Image.Image) -> None:
    expected = picture.resize((40, 31), Image.Resampling.BICUBIC)
    assert degraded("longest:40", picture).tobytes() == expected.tobytes()
    for text in ("longest:91", "longest:768"):
        assert degraded(text, picture).tobytes() == picture.tobytes()


def test_reducing_takes_the_mean_of_what_it_leaves_out() -> None:
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    found = pixels(degraded("resize:0.25", Image.fromarray(checks)))
    assert np.abs(found[2:-2, 2:-2] - 100).max() <= 2


def test_a_crop_to_a_share_is_the_middle(picture: Image.Image) -> None:
    found = degraded("crop:0.8", picture)
    assert found.tobytes() == picture.crop((9, 7, 82, 64)).tobytes()
    assert degraded("crop:1.0", picture).tobytes() == picture.tobytes()
    assert degraded("crop:0.01", picture).size == (1, 1)


def test_a_crop_to_a_side_is_a_square(picture: Image.Image) -> None:
    assert degraded("crop:41", picture).tobytes() == picture.crop((25, 15, 66, 56)).tobytes()
    assert degraded("crop:2", picture).size == (2, 2)
    assert degraded("crop:200", picture).size == (200, 200)
    assert pixels(degraded("crop:200", grey(90))).min() == 90  # enlarged, not padded


def encoded(image: Image.Image, coder: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, coder, **options)
    return Image.open(buffer).convert("RGB").tobytes()


def test_encoders_are_pillows(picture: Image.Image) -> None:
    for quality in (20, 80):
        expected = encoded(picture, "WEBP", quality=quality)
        assert degraded(f"webp:{quality}", picture).tobytes() == expected
        expected = encoded(picture, "JPEG", quality=quality, subsampling=2)
        assert degraded(f"jpeg:{quality}", picture).tobytes() == expected


@pytest.mark.parametrize("coder", ["jpeg", "webp", "avif"])
def test_quality_is_what_is_left_of_a_picture(coder: str, picture: Image.Image) -> None:
    losses = [
        np.abs(pixels(degraded(f"{coder}:{quality}", picture)) - pixels(picture)).mean()
        for quality in (10, 50, 90)
    ]
    assert losses[0] > losses[1] > losses[2] > 0


def test_rotate_mirrors_and_rounds() -> None:
    image = make_picture(1, fake=True, size=(12, 9))
    assert degraded("rotate:0", image).tobytes() == image.tobytes()
    turned = image.transpose(Image.Transpose.ROTATE_180)
    assert degraded("rotate:180", image).tobytes() == turned.tobytes()
    angle = math.radians(20)
    y, x = np.mgrid[:9, :12]
    y, x = y - 4, x - 5.5
    source = (
        math.cos(angle) * y + math.sin(angle) * x + 4,
        -math.sin(angle) * y + math.cos(angle) * x + 5.5,
    )
    for channel in range(3):
        plane = np.asarray(image)[..., channel].astype(float)
        expected = map_coordinates(plane, source, order=1, mode="reflect")
        found = pixels(degraded("rotate:20", image))[..., channel]
        assert np.abs(found - expected).max() <= 0.51
    assert pixels(degraded("rotate:37.5", grey(200))).min() == 200  # no dark corners


def test_flip_is_undone_by_another(picture: Image.Image) -> None:
    found = degraded("flip", picture)
    np.testing.assert_array_equal(pixels(found), pixels(picture)[:, ::-1])
    assert degraded("flip+flip", picture).tobytes() == picture.tobytes()


def test_tones_change_as_named(picture: Image.Image) -> None:
    before = pixels(picture)
    level = before @ [0.299, 0.587, 0.114]

    def after(text: str) -> np.ndarray:
        return pixels(degraded(text, picture))

    assert np.abs(after("brightness:0.5") - before / 2).max() <= 1
    assert np.abs(after("contrast:0.5") - (before + level.mean()) / 2).max() <= 1.5
    assert np.abs(after("saturation:0") - level[..., None]).max() <= 1
    assert np.abs(after("gamma:2") - 255 * (before / 255) ** 2).max() <= 0.51
    assert after("sharpen:3").std() > before.std() > after("sharpen:0").std()


NEUTRAL = [
    (name, step.neutral) for name, step in degradations.STEPS.items() if step.neutral is not None
]


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_the_neutral_value_changes_nothing(name: str, value: float, picture: Image.Image) -> None:
    text = "crop:1.0" if name == "crop" else f"{name}:{value}"
    assert degraded(text, picture).tobytes() == picture.tobytes()


PROFILES = {
    "instagram": (1080, 70), "x": (4096, 85), "whatsapp": (1600, 50), "facebook": (2048, 75),
    "telegram": (2560, 80),
    "wechat": (1280, 70),
}  # fmt: skip


def test_every_platform_is_tested() -> None:
    assert PROFILES.keys() == degradations.PLATFORMS.keys()


@pytest.mark.parametrize("name", PROFILES)
def test_platforms_reduce_and_encode(name: str) -> None:
    longest, quality = PROFILES[name]
    image = make_picture(0, fake=False, size=(30, longest + 100))
    width = round(30 * longest / (longest + 100))
    reduced = image.resize((width, longest), Image.Resampling.BICUBIC)
    found = degraded(f"social:{name}", image)
    assert found.size == (width, longest)
    assert found.tobytes() == encoded(reduced, "JPEG", quality=quality, subsampling=2)
    small = image.crop((0, 0, 30, 40))
    assert degraded(f"social:{name}", small).size == small.size


# --- pure functions of any picture


def test_one_of_each_is_tested() -> None:
    named = {part.split(":")[0] for text in ONE_OF_EACH for part in text.split("+")}
    # superres takes weights of a network: tests/test_superres.py has those.
    assert named | {"superres"} == set(degradations.STEPS) == set(degradation_steps.STEPS)


@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_a_degradation_is_pure_and_travels(text: str, picture: Image.Image) -> None:
    picture.info["comment"] = b"kept"
    before = picture.tobytes()
    chain = degradations.parse(text)
    again = pickle.loads(pickle.dumps(chain))  # noqa: S301
    assert again == chain
    found = degraded(text, picture)
    assert found.mode == "RGB"
    assert found.tobytes() == again(picture, np.random.default_rng(0)).tobytes()
    assert (picture.tobytes(), picture.info) == (before, {"comment": b"kept"})
    assert found.tobytes() != before


def test_one_step_at_a_time_is_the_chain(picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    image = picture
    for text in ("crop:30", "noise:4", "jpeg:70"):
        step = degradations.parse(text)
        assert step is not None
        image = step(image, rng)
    assert image.tobytes() == degraded("crop:30+noise:4+jpeg:70", picture).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 3)])
@pytest.mark.parametrize("text", ONE_OF_EACH)
def test_the_smallest_pictures_can_be_degraded(text: str, size: tuple[int, int]) -> None:
    found = degraded(text, grey(100, size))
    assert min(found.size) >= 1
    if text.startswith(("jpeg", "webp", "blur", "noise", "rotate", "flip", "sharpen")):
        assert found.size == size


def test_what_a_file_says_besides_its_pixels_plays_no_part(picture: Image.Image) -> None:
    plain = degraded("jpeg:80", picture)
    picture.info = {"comment": b"x" * 70_000, "icc_profile": b"x" * 99, "transparency": (1, 2, 3)}
    assert degraded("jpeg:80", picture).tobytes() == plain.tobytes()


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("resize:16", (4000, 300), r"at most 179 megapixels after enlarging; found 64000 x 4800"),
        ("resize:16", (1, 1_000_000), "found 16 x 16000000 px"),
        ("crop:8192", (3, 300), r"at most 179 megapixels after enlarging; found 8192 x 819200"),
        ("jpeg:90", (65_501, 1), r"JPEG holds at most 65500 px a side; found 65501 x 1 px"),
        ("webp:90", (1, 16_384), r"WebP holds at most 16383 px a side; found 1 x 16384 px"),
        ("avif:90", (32_769, 1), r"AVIF holds at most 32768 px a side"),
    ],
)
def test_what_would_be_too_large_is_the_pictures_error(
    text: str, size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    image = Image.new("RGB", size)
    with pytest.raises(OSError, match=message):
        degraded(text, image)
    path = tmp_path / "large.png"
    Image.new("1", size).save(path)
    chain = degradations.parse(text)
    [item] = [PictureDataset([Record("large.png", path)], lambda image, _: image, chain)[0]]
    assert item.error.startswith("cannot be processed: ")
    assert (item.value, item.width) == (None, size[0])


def test_the_largest_sides_still_fit_their_encoders() -> None:
    for text, longest in (("jpeg:50", 65_500), ("webp:50", 16_383), ("avif:50", 32_768)):
        assert degraded(text, Image.new("RGB", (longest, 2))).size == (longest, 2)


def test_a_strip_is_cut_before_it_is_enlarged() -> None:
    assert degraded("crop:64", Image.new("RGB", (1, 1_000_000))).size == (64, 64)


# --- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("jpeg:090", "jpeg:90"), ("webp:80", "webp:80"), ("blur:1.0", "blur:1"),
        ("blur:1", "blur:1"), ("blur:0.00001", "blur:0.00001"), ("blur:.50", "blur:0.5"),
        ("noise:2.50", "noise:2.5"), ("resize:1.50", "resize:1.5"), ("crop:0.80", "crop:0.8"),
        ("crop:1.", "crop:1.0"), ("crop:1.00", "crop:1.0"), ("crop:0256", "crop:256"),
        ("rotate:-0.0", "rotate:0"), ("rotate:-7.50", "rotate:-7.5"), ("flip", "flip"),
        ("platform:twitter", "social:x"), ("platform:wechat", "social:wechat"),
        ("crop:64+blur:2.0+flip+jpeg:090", "crop:64+blur:2+flip+jpeg:90"),
    ],
)  # fmt: skip
def test_a_degradation_has_one_spelling(text: str, name: str) -> None:
    parsed = degradations.parse(text)
    assert parsed is not None
    assert parsed.name == name
    assert degradations.parse(name) == parsed


WRONG = [
    "", "+", "jpeg", "jpeg:", "jpeg:x", "jpeg:0", "jpeg:101", "jpeg:90.5", "jpeg:90:80",
    "jpeg:90+", "+jpeg:90", "jpg:90", "JPEG:90", "None", "none+jpeg:90", "jpeg:90+none", "none:1",
    "webp:-1", "webp:101", "webp:80.0", "avif:101", "blur:nan", "blur:inf", "blur:-1", "blur:51",
    "noise:256", "noise:1e999", "noise:-inf", "resize:0", "resize:0.0", "resize:17", "crop:1",
    "crop:0", "crop:-1", "crop:0.0", "crop:1.5", "crop:256.0", "crop:8193", "crop:1e-1",
    "rotate:181", "flip:", "flip:1", "gamma:0", "brightness:-0.1", "platform:", "platform:myspace",
    "jpeg:9_5", "jpeg:+95", "jpeg: 95", "jpeg:95 ", "jpeg:95\n", "jpeg:\u0669\u0665", "jpeg:1e1",
    "jpeg:95.", "crop:2_56", "crop:0.5_0", "crop:+0.5", "crop:\uff12\uff15\uff16", "blur:1_0",
    "blur:+1", "blur: 1", "blur:1 ", "blur:1e0", "blur:1e-1", "blur:infinity", "blur:\u0661.5",
    "blur:.", "blur:-", "blur:--1", "blur:1.2.3", "rotate:-1e1", "rotate:- 1", "blur:\u22121",
    "platform: twitter", "platform:Instagram", "blur:1\n2", "bl\nur:1", "jpeg:" + 5000 * "9",
    "jpeg:\udcff",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_degradations_are_refused_in_one_line(text: str) -> None:
    for read in (degradations.parse, lambda text: degradations.parse_sweep([text])):
        with pytest.raises(ConfigError, match=r"^--degrade: expected .+; found '") as raised:
            read(text)
        message = str(raised.value)
        assert "\n" not in message
        assert len(message) < 600
        message.encode()  # can be printed


@pytest.mark.parametrize(
    ("text", "ranges"),
    [("jpeg:0", "jpeg:1-100"), ("crop:1", r"crop:2-8192\|0.01-1.0"),
     ("rotate:999", "rotate:-180-180"), ("social:y", r"social:instagram\|x\|"),
     ("sepia:1", "none or a chain of jpeg:1-100, .*, flip, .*gamma:0.1-10")],
)  # fmt: skip
def test_errors_show_what_is_possible(text: str, ranges: str) -> None:
    with pytest.raises(ConfigError, match=f"expected .*{ranges}.*; found '{text}'"):
        degradations.parse(text)


@pytest.mark.parametrize("coder", ["WEBP", "AVIF"])
def test_a_missing_encoder_is_said_before_anything_is_read(
    coder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    monkeypatch.delitem(Image.SAVE, coder)
    with pytest.raises(ConfigError, match=f"{coder.lower()} expects a Pillow with {coder}"):
        degradations.parse(f"blur:1+{coder.lower()}:50")
    assert degradations.parse("jpeg:50") is not None
    assert degradations.axis(f"{coder.lower()}:50") == (coder.lower(), 50)  # a table from elsewhere


# --- sweeps and curves


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["none"]),
        (["none"], ["none"]),
        (["none", "none"], ["none"]),
        (["jpeg:090"], ["jpeg:90"]),
        (["blur:1,1.0,01"], ["blur:1"]),
        (["jpeg:95,75", "webp:80"], ["none", "jpeg:95", "jpeg:75", "webp:80"]),
        (["jpeg:95", "none", "blur:2"], ["none", "jpeg:95", "blur:2"]),
        (["resize:1.50,0.5", "resize:0.5"], ["none", "resize:1.5", "resize:0.5"]),
        (["crop:0.8,256,1.0"], ["none", "crop:0.8", "crop:256", "crop:1.0"]),
        (["flip", "platform:twitter,telegram"],
         ["none", "flip", "social:x", "social:telegram"]),
        (["crop:256,128+flip+jpeg:90,50"],
         ["none", "crop:256+flip+jpeg:90", "crop:256+flip+jpeg:50", "crop:128+flip+jpeg:90",
          "crop:128+flip+jpeg:50"]),
    ],
)  # fmt: skip
def test_a_sweep_is_spelt_out(words: list[str], names: list[str]) -> None:
    assert degradations.parse_sweep(words) == names


@pytest.mark.parametrize(
    "word",
    ["jpeg:95,", "jpeg:,95", "jpeg:95,,75", "jpeg:90,crop:64", "none,jpeg:90", "flip,flip",
     "jpeg:95 75", "blur:1,nan", "platform:twitter,myspace"],
)  # fmt: skip
def test_wrong_words_of_a_sweep_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^--degrade: expected .+; found '"):
        degradations.parse_sweep(["none", word])


def test_a_sweep_without_end_is_refused() -> None:
    values = ",".join(map(str, range(1, 101)))
    for words in ([f"jpeg:{values}+webp:{values}+noise:{values}+rotate:{values}+crop:{values}"],
                  [f"jpeg:{values}+noise:{n}" for n in range(11)]):  # fmt: skip
        with pytest.raises(ConfigError, match="expected at most 1000 degradations; found"):
            degradations.parse_sweep(words)


def test_one_value_is_all_that_a_single_degradation_takes() -> None:
    with pytest.raises(ConfigError, match="expected jpeg:1-100; found 'jpeg:90,80'"):
        degradations.parse("jpeg:90,80")


@pytest.mark.parametrize(
    ("base", "name", "both"),
    [("none", "none", "none"), ("jpeg:95", "none", "jpeg:95"), ("none", "blur:2", "blur:2"),
     ("jpeg:95", "blur:2", "jpeg:95+blur:2"), ("jpeg:95", "jpeg:95", "jpeg:95+jpeg:95")],
)  # fmt: skip
def test_a_protocol_comes_before_a_degradation(base: str, name: str, both: str) -> None:
    assert degradations.then(base, name) == both


@pytest.mark.parametrize(
    ("name", "base", "point"),
    [
        ("jpeg:95", "none", ("jpeg", 95)), ("blur:1.5", "none", ("blur", 1.5)),
        ("crop:0.8", "none", ("crop", 0.8)), ("crop:256", "none", ("crop px", 256)),
        ("rotate:-5", "none", ("rotate", -5)), ("jpeg:95+blur:2", "jpeg:95", ("blur", 2)),
        ("crop:256+jpeg:95+blur:2", "crop:256+jpeg:95", ("blur", 2)),
        ("jpeg:95+jpeg:95", "jpeg:95", ("jpeg", 95)),
        ("none", "none", None), ("jpeg:95", "jpeg:95", None), ("blur:2", "jpeg:95", None),
        ("jpeg:95+blur:2", "jpeg:9", None), ("jpeg:95+blur:2", "none", None),
        ("jpeg:95+blur:2+flip", "jpeg:95", None), ("flip", "none", None),
        ("platform:twitter", "none", None), ("jpeg 50", "none", None), ("", "none", None),
        ("jpeg:95+", "jpeg:95", None),
    ],
)  # fmt: skip
def test_a_point_on_a_curve(name: str, base: str, point: tuple[str, float] | None) -> None:
    assert degradations.axis(name, base) == point


def test_curves_are_in_order_of_value() -> None:
    words = ["none", "jpeg:9,95,50", "blur:10,2", "crop:0.5", "crop:64", "flip", "resize:2,0.5"]
    found = degradations.curves(degradations.parse_sweep(words))
    assert found == {
        "jpeg": [(9, "jpeg:9"), (50, "jpeg:50"), (95, "jpeg:95")],
        "blur": [(0, "none"), (2, "blur:2"), (10, "blur:10")],
        "crop": [(0.5, "crop:0.5"), (1, "none")],
        "crop px": [(64, "crop:64")],
        "resize": [(0.5, "resize:0.5"), (1, "none"), (2, "resize:2")],
    }


def test_curves_start_from_a_protocols_own_encoding() -> None:
    names = [
        degradations.then("jpeg:95", name) for name in ("none", "blur:2", "noise:0", "jpeg:50")
    ]
    assert degradations.curves(names, "jpeg:95") == {
        "blur": [(0, "jpeg:95"), (2, "jpeg:95+blur:2")],
        "noise": [(0, "jpeg:95+noise:0")],  # measured at the origin itself
        "jpeg": [(50, "jpeg:95+jpeg:50")],
    }
    assert degradations.curves(["none"]) == {}


def test_the_table_of_steps_needs_no_torch() -> None:
    code = (
        "import sys; from engine.scoring import degradations as degrade; "
        "print(degrade.parse_sweep(['blur:1,2'])); print(degrade.describe()); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in degradations.STEPS:
        assert f"'{name}" in done.stdout
