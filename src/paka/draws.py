"""Randomness for objectives that a run can be resumed with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Draws(nn.Module):
    """A counted, seeded source of random generators.

    What is drawn is a function of the seed, the number of the call and the type of device, whatever else uses random
    numbers. The count is part of the state dict, as a plain int, so a resumed run goes on where it stopped. All
    processes of a run draw alike.

    Args:
        seed: At least 0.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.count = seed, 0

    def next(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh generator on `device` and count it; the global ones are left alone.

        Args:
            device: Where to draw: a generator on the device needs no copy that waits for it.
        """
        # A plain sum would give the next seed's draws one call later.
        mixed = np.random.SeedSequence([self.seed, self.count]).generate_state(1, np.uint64)
        self.count += 1
        return torch.Generator(device).manual_seed(int(mixed[0]))

    def get_extra_state(self) -> int:
        """Return the count, for the state dict."""
        return self.count

    def set_extra_state(self, state: int) -> None:
        """Go on from a count."""
        self.count = state
