"""Sums of objectives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from paka.objectives import Correspondences


class WeightedSum(nn.Module):
    """The weighted sum of several objectives on the same views.

    Args:
        objectives: Objectives by name.
        weights: Their weights by the same names.

    Raises:
        ValueError: The names differ.
    """

    def __init__(self, objectives: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if objectives.keys() != weights.keys():
            raise ValueError(
                f"expected a weight for each objective, got objectives {', '.join(objectives)} and weights {', '.join(weights)}"
            )
        self.objectives = nn.ModuleDict(objectives)
        self.weights = dict(weights)

    def forward(self, batch: Correspondences) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum, and the logs of each objective and its unweighted loss under `NAME/`."""
        terms: list[Tensor] = []
        logs: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            loss, found = objective(batch)
            terms.append(self.weights[name] * loss)
            logs |= {f"{name}/{key}": value for key, value in {"loss": loss.detach(), **found}.items()}
        return torch.stack(terms).sum(), logs
