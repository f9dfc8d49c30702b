"""The errors of a detector's use, told from all others by whoever answers a person.

Detectors and the engine raise them, the command line shows them in one line. Apart from the
contract, which imports torch, so that scoring without it raises the same.
"""

from __future__ import annotations


class OptionError(ValueError):
    """An option of a detector has a value it does not take; the message lists what it takes."""


class WeightsError(ValueError):
    """Weights are missing, or not those of the detector; the message says which were expected."""
