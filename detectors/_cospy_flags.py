"""CO-SPY's own flags, which its published command line has too, and the rules on them.

Plain data without torch: see `_flags`. `cospy.CoSpyOptions` has the options that they set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._flags import Flag, OptionRule, OwnFlags, Published

VARIANT = "sd-v1_4"  # the published default of --train_dataset; that of --mode is fusion
TRAINING = ("train",)


def _switch(help_text: str) -> dict[str, Any]:
    return {"action": "store_true", "help": help_text}


FLAGS = OwnFlags(
    title="CO-SPY",
    flags=(
        Flag(
            "train_dataset",
            {"choices": ("sd-v1_4", "progan"), "help": "variant of CO-SPY (sd-v1_4)"},
        ),
        Flag("mode", {"choices": ("branch", "fusion", "end2end"), "help": "of CO-SPY (fusion)"}),
        Flag(
            "branch",
            {"choices": ("artifact", "semantic"), "help": "in mode branch (artifact)"},
        ),
        Flag("pretrain", _switch("use the published weights, downloaded if they are not there")),
        Flag(
            "ckpt",
            {
                "type": Path,
                "default": Path("ckpt"),
                "metavar": "DIR",
                "help": "where CO-SPY's training puts and finds weights (ckpt)",
            },
        ),
        Flag(
            "feat_interp",
            _switch("phase train, branch semantic: learn from mixed features"),
            TRAINING,
            member=False,
        ),
        Flag(
            "feat_interp_alpha",
            {
                "metavar": "X",
                "help": "of the Beta distribution that the shares follow (0.2)",
            },
            TRAINING,
            member=False,
            range=(0.01, 1000),
        ),
        Flag(
            "feat_interp_ratio",
            {
                "metavar": "X",
                "help": "share of the pictures that are mixed (0.5)",
            },
            TRAINING,
            member=False,
            range=(0, 1),
        ),
        Flag(
            "leak_free",
            _switch(
                "phase train, mode fusion: one half of the val split to train on, the other to "
                "choose by; published: all of it for both"
            ),
            TRAINING,
            member=False,
        ),
    ),
    implies=("train_dataset", "mode", "branch", "pretrain"),
    set=(
        *("train_dataset", "mode", "branch"),
        *("feat_interp", "feat_interp_alpha", "feat_interp_ratio"),
    ),
    rules=(
        OptionRule(
            ("feat_interp_alpha", "feat_interp_ratio"),
            lambda options: not options.feat_interp,
            "expected --feat_interp too; found none",
        ),
        OptionRule(
            ("branch",),
            lambda options: options.mode != "branch",
            "expected --mode branch too; found {options.mode}",
        ),
        OptionRule(
            ("leak_free",),
            lambda options: options.mode != "fusion",
            "expected --mode fusion, whose training and validation pictures are the same; found "
            "{options.part}",
        ),
    ),
    published=Published(
        names=("CO-SPY", VARIANT),
        options={"train_dataset": VARIANT},
        benchmark="cospy_bench",
        weights=f"cospy-{VARIANT}",
        encoders=("siglip-so400m-384", "sd-v1_4-vae"),
        trained=Path(VARIANT, "fusion"),
        family="drct2m",
        # Where the published trainer looks, and what brings it there.
        pictures=Path("data/train", VARIANT),
        fetch=f"python scripts/fetch_data.py {VARIANT}",
        branches=(Path(VARIANT, "artifact"), Path(VARIANT, "semantic")),
        recipe=f"bash train.sh --dataset {VARIANT}",
    ),
)
