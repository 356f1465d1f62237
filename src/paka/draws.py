"""Random draws of objectives, which depend on a seed and on how often they were asked for, and on nothing else."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Draws(nn.Module):
    """A counted source of randomness.

    The global generators are left alone, and the count is saved in the checkpoint, so a resumed run goes on
    exactly and the weights of a run do not depend on what is logged.

    Args:
        seed: Seed of the draws, at least 0.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.count = seed, 0

    def next(self) -> torch.Generator:
        """Return a fresh generator on the CPU, a function of the seed and of the number of calls before."""
        (state,) = np.random.SeedSequence([self.seed, self.count]).generate_state(1, np.uint64)
        self.count += 1
        return torch.Generator().manual_seed(int(state) >> 1)  # torch takes 63 bits

    def get_extra_state(self) -> int:
        """Return the number of calls, for the checkpoint."""
        return self.count

    def set_extra_state(self, state: int) -> None:
        """Go on after as many calls as `get_extra_state` told."""
        self.count = state
