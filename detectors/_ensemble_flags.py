"""What the command line must know of the ensemble without importing torch."""

from __future__ import annotations

from ._flags import OwnFlags

FLAGS = OwnFlags(
    combines=True,
    # Its members are trained already; a few numbers are fitted to their scores.
    refused=(
        *("test_csv", "accumulate", "save_every", "save_all", "epochs"),
        *("weights", "batch_size", "seed", "backbone_weights", "check"),
    ),
)
