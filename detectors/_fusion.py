"""The last layer of an ensemble: several detectors' logits become one.

Members' logits lie on scales of their own. None of them therefore counts as more certain than one
error in a thousand, or a single saturated member would decide for all. `detectors/ensemble.py` uses
it, and the ensemble's training fits it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIP = 1e-3  # nearest that a member's probability comes to 0 and 1
LIMIT = math.log((1 - CLIP) / CLIP)  # and its logit


class Fusion(nn.Module):
    """Logits of the members (N, members) -> logits (N,).

    A member's calibrated logit is `slope` * logit + `offset` (Platt 1999), clipped. Then the mean
    of the probabilities, or `fc` of the clipped logits. A logit that is NaN is missing: the mean is
    that of the others, and to `fc` the member says neither yes nor no. Without any the result is
    NaN.
    """

    def __init__(self, members: int, kind: str) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(members))
        self.offset = nn.Parameter(torch.zeros(members))
        self.fc = nn.Linear(members, 1) if kind == "fitted" else None
        if self.fc is not None:
            nn.init.constant_(self.fc.weight, 1 / members)
            nn.init.zeros_(self.fc.bias)

    def calibrated(self, logits: Tensor) -> Tensor:
        """(N, members) within -LIMIT and LIMIT."""
        return (self.slope * logits + self.offset).clamp(-LIMIT, LIMIT)

    def forward(self, logits: Tensor) -> Tensor:
        z, missing = self.calibrated(logits), logits.isnan()
        nothing = missing.all(dim=1)
        z = z.masked_fill(missing, 0)
        if self.fc is not None:
            return self.fc(z).squeeze(1).masked_fill(nothing, torch.nan)
        # The odds of the mean are those of the sums; their logarithms lose no digits near 0 and 1.
        sides = (
            F.logsigmoid(side).masked_fill(missing, -torch.inf).logsumexp(dim=1) for side in (z, -z)
        )
        synthetic, real = sides
        return (synthetic - real).masked_fill(nothing, torch.nan)
