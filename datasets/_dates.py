"""Dates of release as files and flags spell them: a year, or a year and a month.

For CSV files, configs/generators.yaml, benchmarks and `--until`. A year alone may be any of its
months, so that a comparison takes its last one. Standard library only.
"""

from __future__ import annotations

import re

DATE = re.compile(r"[12][0-9]{3}(-(0[1-9]|1[0-2]))?")
WANTED = "YYYY or YYYY-MM"


def date(text: str) -> str:
    """A date as it is spelt. Raises ValueError unless it is YYYY or YYYY-MM."""
    if not DATE.fullmatch(text):
        raise ValueError(f"expected {WANTED}; found {text!r}")
    return text


def _last_month(text: str) -> str:
    return text if "-" in text else f"{text}-12"


def is_by(released: str, until: str) -> bool:
    """Whether a date is certainly not after the end of another: 2023 is by 2023 and by 2023-12, not
    by 2023-06. An unknown one, '', is by none."""
    return bool(released) and _last_month(released) <= _last_month(until)
