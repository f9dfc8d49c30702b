"""What the command line must know of the few-shot detector without importing torch."""

from __future__ import annotations

from ._flags import NOT_OF_FITTED, OwnFlags

FLAGS = OwnFlags(refused=NOT_OF_FITTED)
