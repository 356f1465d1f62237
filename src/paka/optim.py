"""Schedules as pure functions of the optimizer step, and the optimizer's parameter groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.optim.muon import Muon
from torch import nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from `start` to `end` over the run, after a linear warm-up from 0.

    Attributes:
        start: Value at the end of the warm-up.
        end: Value at the end of the run.
        warmup_steps: Length of the warm-up in optimizer steps.
    """

    start: float
    end: float
    warmup_steps: int = 0

    def __call__(self, step: int, max_steps: int) -> float:
        """Return the value at `step` of `max_steps` optimizer steps, both counted from 0."""
        if step < self.warmup_steps:
            return self.start * (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(max_steps - self.warmup_steps, 1), 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class PolynomialSchedule:
    """A power of the share of the run that is left, from `start` to `end`, after a linear warm-up from 0.

    Attributes:
        start: Value at the end of the warm-up.
        end: Value at the end of the run.
        power: Power of the share that is left.
        warmup_steps: Length of the warm-up in optimizer steps.
    """

    start: float
    end: float
    power: float = 0.9
    warmup_steps: int = 0

    def __call__(self, step: int, max_steps: int) -> float:
        """Return the value at `step` of `max_steps` optimizer steps, both counted from 0."""
        if step < self.warmup_steps:
            return self.start * (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(max_steps - self.warmup_steps, 1), 1.0)
        return self.end + (self.start - self.end) * float((1.0 - progress) ** self.power)


@dataclass(frozen=True)
class OneCycleSchedule:
    """Half a cosine to 0 over the whole run, of which a linear warm-up takes the place of the beginning.

    With s = max(step - 1, 0) of T steps, because the first two are alike: the cosine is that of (s + 1) / T; the
    warm-up of w steps rises from a millionth as s / w, times the share 1 - s / T of the run that is left. So the rate
    jumps where they meet.

    Attributes:
        start: Peak of the cosine.
        warmup_steps: Length of the warm-up in optimizer steps.

    Source: the code of DINOv3 (arXiv 2508.10104).
    """

    start: float
    warmup_steps: int = 0

    def __call__(self, step: int, max_steps: int) -> float:
        """Return the value at `step` of `max_steps` optimizer steps, both counted from 0."""
        late = max(step - 1, 0)
        if late >= self.warmup_steps:
            return self.start * 0.5 * (1.0 + math.cos(math.pi * min((late + 1) / max_steps, 1.0)))
        risen = _LEAST + (1.0 - _LEAST) * late / self.warmup_steps
        return self.start * risen * (1.0 - late / max_steps)


_LEAST = 1e-6
"""Share of the peak that a one-cycle warm-up starts from."""


@dataclass(frozen=True)
class Recipe:
    """Rates, weight decay and teacher momentum of a run, all functions of the optimizer step.

    Attributes:
        max_steps: Optimizer steps in the whole run.
        lr: Peak learning rate of the encoder.
        head_lr: Peak learning rate of the head and of the objective's own parameters.
        lr_schedule: Factor on the peak rates.
        weight_decay: Weight decay of matrices.
        momentum: Momentum of the teacher.
        layer_decay: Factor on the encoder's rate per block below the last, see `paka.tuning.layer_scales`.
    """

    max_steps: int
    lr: float
    head_lr: float
    lr_schedule: CosineSchedule
    weight_decay: CosineSchedule
    momentum: CosineSchedule
    layer_decay: float = 1.0

    def at(self, step: int) -> dict[str, float]:
        """Return the encoder's rate, the factor on all rates, the decay and the momentum of `step`."""
        factor = self.lr_schedule(step, self.max_steps)
        return {
            "lr": self.lr * factor,
            "lr_factor": factor,
            "weight_decay": self.weight_decay(step, self.max_steps),
            "teacher_momentum": self.momentum(step, self.max_steps),
        }


def parameter_groups(
    modules: dict[str, tuple[nn.Module, float]], scales: Mapping[nn.Parameter, float] | None = None
) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and by whether weight decay applies.

    Biases, norms, class and register tokens, position and class embeddings and the factors of low-rank adapters are not
    decayed.

    Args:
        modules: Per name a module and its peak learning rate.
        scales: Factors on the peak rate of single parameters; 1 for those that it does not list.

    Returns:
        Groups for a torch optimizer, each with the extra keys `name`, `peak_lr` and `decays`.
    """
    scales = scales or {}
    groups = []
    for name, (module, peak) in modules.items():
        trainable = [(key, value) for key, value in module.named_parameters() if value.requires_grad]
        for decays in (True, False):
            members = [value for key, value in trainable if _decays(key, value) == decays]
            for scale in sorted({scales.get(value, 1.0) for value in members}, reverse=True):
                suffix = ("" if decays else ".no_decay") + ("" if scale == 1 else f".x{scale:g}")
                lr = peak * scale
                params = [value for value in members if scales.get(value, 1.0) == scale]
                groups.append(
                    {"params": params, "name": name + suffix, "lr": lr, "peak_lr": lr, "decays": decays}
                )
    return groups


def muon(groups: list[dict[str, Any]], **options: Any) -> Optimizer:
    """Return Muon (Jordan et al., 2024) for matrices, with AdamW for everything else.

    Updates are scaled to the size of AdamW's, so rates carry over. Meant for training from scratch: there the
    packaged encoder left its first plateau sooner than under AdamW (`experiments/tiny-encoder/`).

    Args:
        groups: From `parameter_groups`.
        options: Further arguments of `timm.optim.Muon`.
    """
    marked = [{**group, "use_fallback": not group["decays"]} for group in groups]
    return Muon(marked, adjust_lr_fn="match_rms_adamw", **options)


_UNDECAYED = ("cls_token", "reg_token", "pos_embed", "class_embeddings", "lora_a", "lora_b")
"""Ends of the names of parameters that are not decayed although they are no vectors."""


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith(_UNDECAYED)
