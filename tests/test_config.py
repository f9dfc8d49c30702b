"""Options: what each takes, what an error says of it, and which layer wins."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import detectors
from detectors._options import describe_options
from engine.config import ConfigError, parse_override, resolve
from engine.training.schedule import scaled

WRONG = [
    # value, what the line names beside the key
    ("train.epochs=0", "1; found 0"),
    ("train.epochs=true", "integer; found True"),
    ("train.epochs=1.0", "integer; found 1.0"),
    ("train.epochs=1e4", "integer"),
    ("train.lr=true", "number; found True"),
    ("train.lr=fast", "number; found 'fast'"),
    ("train.lr=.inf", "finite"),
    ("train.report=1", "boolean"),
    ("train.betas=[0.9]", "required"),
    ("train.betas=[0.9, 1.0]", "less than 1; found 1.0"),
    ("train.max_bad=2", "Share of unreadable"),  # the description of the key
    ("train.seed=18446744073709551616", "less than"),
    ("train.optimizer=sgd", "'adam' or 'adamw'"),
    ("train.precision=fp8", "'fp32', 'bf16' or 'fp16'"),
    ("data.val_fraction=1", "less than 1"),
    ("data.decoding=sideways", "'upright' or 'published'"),
    ("score.resamples=null", "integer; found None"),
    ("cospy.feat_interp_alpha=0.0", "0.01; found 0.0"),
    ("cospy.train_dataset=cnn", "'sd-v1_4' or 'progan'"),
    ("default.views=2", "1 or 5; found 2"),
    ("default.crop=240", "224, which the encoder sees"),
    ("default.quality=[90, 10]", "the smaller first; found (90, 10)"),
    ("spai.dim=63", "multiple of spai.heads (12); found 63"),
    ("spai.test_blur=4", "odd number; found 4"),
    ("spai.mfm_patches=5", "divisor of 224; found 5"),
    ("spai.ten_crop=sum", "'mean' or 'max'; found 'sum'"),
    ("spai.aug_crop_area=[0.5, 0.2]", "the smaller first; found (0.5, 0.2)"),
    ("spai.aug_jpeg_quality=[0, 100]", "from 1 to 100"),
    ("ssp.patches=65", "1 to 64; found 65"),
    ("ssp.layers=[3, 4, 6]", "required"),
    ("ensemble.members=[cospy, nobody]", "cospy, dda, default"),
    ("ensemble.members=[ensemble]", "npr, rine, spai, ssp"),
    ("ensemble.weights=[a.pth]", "each of 3"),
    ("classifier.network=convnext_smal", "convnext_atto"),
    ("classifier.network=resnet50.tv_in1k", "without a tag"),
]


def resolved(*words: str) -> Any:
    """The configuration of what the first word is about."""
    name = words[0].partition(".")[0]
    return resolve(
        name if name in detectors.available() else "default",
        [("--set", parse_override(word)) for word in words],
    )


@pytest.mark.parametrize(("word", "named"), WRONG)
def test_a_wrong_value_is_one_line_that_says_what_fits(word: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(word)
    line = str(error.value)
    assert word.partition("=")[0] in line
    assert named in line
    assert "\n" not in line


def test_rules_of_several_options() -> None:
    for words in (
        ("ssp.whole_picture=true", "ssp.patches=2"),
        ("spai.mfm_target=masked", "spai.mfm_patches=2"),
        ("default.branch=semantic", "default.size=tiny", "default.crop=50"),
    ):
        with pytest.raises(ConfigError, match=words[-1].partition("=")[0]):
            resolved(*words)
    assert resolved("default.branch=artifact", "default.crop=240").options.crop == 240


@pytest.mark.parametrize("word", ["train.epoch=1", "ssp.patch=1", "score.1=1"])
def test_an_unknown_key_lists_those_there_are(word: str) -> None:
    section = word.partition(".")[0]
    of = {"train": "epochs", "ssp": "patches", "score": "seed"}[section]
    with pytest.raises(
        ConfigError, match=rf"^{word.partition('=')[0]}: unknown key; known: .*{of}"
    ):
        resolved(word)


def test_numbers_and_lists_as_yaml_has_them() -> None:
    train = resolved("train.lr=1e-4", "train.weight_decay=1", "train.betas=[0.5, 0]").train
    assert (train.lr, train.weight_decay, train.betas) == (1e-4, 1.0, (0.5, 0.0))
    assert {type(number) for number in (train.lr, train.weight_decay, *train.betas)} == {float}
    assert resolved("ssp.layers=[1, 2, 3, 4]").options.layers == (1, 2, 3, 4)
    assert resolved("train.warmup=1.5E+2").train.warmup == 150


def test_a_learning_rate_that_grows_with_the_step_stays_a_number() -> None:
    train = resolved("train.lr=1e308", "train.lr_per=1", "train.batch_size=32").train
    with pytest.raises(ConfigError, match=r"train\.lr: .*finite"):
        scaled(train, 1)
    assert scaled(resolved("train.lr=1e-4", "train.lr_per=16").train, 2).lr == 4e-4


def test_later_layers_win_and_the_whole_is_read_back() -> None:
    config = resolved("spai.views=2", "spai.views=3", "train.epochs=7")
    assert (config.options.views, config.train.epochs) == (3, 7)
    assert resolve("spai", [("run.json", config.as_dict())]) == config


@pytest.mark.parametrize("name", detectors.available())
def test_no_impossible_value_reaches_a_network(name: str) -> None:
    options = detectors.load(name).tiny()
    wrong: dict[type, Any] = {str: "nothing", int: -1, float: float("nan"), tuple: (-1, -2)}
    for field in dataclasses.fields(options):
        kind = type(getattr(options, field.name))
        if kind in wrong:
            changed = describe_options(options) | {field.name: wrong[kind]}
            with pytest.raises(ConfigError, match=rf"^{name}\.{field.name}") as error:
                resolve(name, [("", {name: changed})])
            if kind is str and field.name != "network":  # of which timm has over a thousand
                assert getattr(options, field.name) in str(error.value)
