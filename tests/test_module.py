"""The LightningModule: the right tokens meet, the teacher follows, controls are what they claim."""

from __future__ import annotations

import functools

import lightning as L
import pytest
import torch
from tests.doubles import NoiseImages, multi_crop, tiny_encoder
from torch import nn

from paka import kernels
from paka.datamodule import PostTrainingData
from paka.head import Branch, ProjectionHead
from paka.module import PostTraining
from paka.objectives.image_tags import ImageTags
from paka.objectives.paka import PaKA
from paka.optim import CosineSchedule, Recipe
from paka.views import Views


def module(
    objective: nn.Module | None = None,
    *,
    momentum: CosineSchedule | None = None,
    permute_teacher: bool = False,
) -> PostTraining:
    torch.manual_seed(0)
    student = Branch(tiny_encoder(), ProjectionHead(16, hidden=12, out=8))
    recipe = Recipe(
        max_steps=4,
        lr=1e-2,
        head_lr=1e-2,
        lr_schedule=CosineSchedule(1.0, 0.0),
        weight_decay=CosineSchedule(0.04, 0.4),
        momentum=momentum or CosineSchedule(0.9, 1.0),
    )
    chosen = objective or PaKA(kernels.linear)
    adamw = functools.partial(torch.optim.AdamW, betas=(0.9, 0.99))
    return PostTraining(student, chosen, adamw, recipe, grid=2, permute_teacher=permute_teacher)


def data(**changes: object) -> PostTrainingData:
    return PostTrainingData(NoiseImages(), multi_crop(**changes), batch_size=4, max_steps=4, seed=0)


def batch(**changes: object) -> Views:
    return next(iter(data(**changes).train_dataloader()))


def fit(model: PostTraining, steps: int = 4, **changes: object) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data(**changes))
    return trainer


def test_identical_branches_on_identical_views_are_fully_aligned() -> None:
    """Without photometric change a global compared with itself has CKA 1, so the loss is 0."""
    views = batch(photometric=None)
    count = len(views.teacher)
    itself = torch.tensor([[image, view, view] for image in range(count) for view in range(2)])
    same = views._replace(global_pairs=itself, local_pairs=views.local_pairs[:0])
    loss, logs = PaKA(kernels.linear)(module().eval().correspond(same))
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert logs["cka"].item() == pytest.approx(1.0, abs=1e-5)


def test_pairs_are_resampled_one_by_one_as_together() -> None:
    model, views = module().eval(), batch()
    together = model.correspond(views)
    listed = [("global_pairs", row) for row in views.global_pairs] + [
        ("local_pairs", row) for row in views.local_pairs
    ]
    for position, (field, row) in enumerate(listed):
        nothing = {"global_pairs": views.global_pairs[:0], "local_pairs": views.local_pairs[:0]}
        alone = model.correspond(views._replace(**{**nothing, field: row[None]}))
        torch.testing.assert_close(
            alone.aligned_student[0], together.aligned_student[position], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            alone.aligned_teacher[0], together.aligned_teacher[position], atol=1e-5, rtol=1e-4
        )
        assert together.image[position] == row[0]


def test_no_gradient_reaches_the_teacher_and_every_student_weight_gets_one() -> None:
    model = module()
    loss, _ = model.objective(model.correspond(batch()))
    loss.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    silent = [
        name for name, p in model.student.named_parameters() if p.grad is None or not p.grad.abs().sum()
    ]
    # A constant added to every token leaves the centred kernel as it is.
    assert silent in ([], ["head.4.bias"])


def test_the_permuted_teacher_shows_another_image_with_the_same_geometry() -> None:
    views = batch()
    model, control = module().eval(), module(permute_teacher=True).eval()
    plain, permuted = model.correspond(views), control.correspond(views)
    torch.testing.assert_close(plain.aligned_student, permuted.aligned_student)
    torch.testing.assert_close(plain.valid, permuted.valid)
    rolled = views._replace(teacher=views.teacher.roll(-1, dims=0))
    torch.testing.assert_close(model.correspond(rolled).aligned_teacher, permuted.aligned_teacher)


def test_the_teacher_follows_after_each_optimizer_step() -> None:
    model = module(momentum=CosineSchedule(0.5, 0.5))
    before = [parameter.clone() for parameter in model.teacher.parameters()]
    fit(model, steps=1)
    for old, mine, theirs in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.5 * old + 0.5 * theirs)


@pytest.mark.parametrize("changes", [{"containment": None}, {"locals": 0}, {"global_pairs": False}], ids=str)
def test_the_share_of_valid_pairs_is_logged(changes: dict[str, object]) -> None:
    views = batch(**changes)
    crossed = 2 if changes.get("global_pairs", True) else 0
    possible = 4 * (views.locals.shape[1] * 2 + crossed)
    metrics = fit(module(), steps=1, **changes).callback_metrics
    counted = len(views.local_pairs) + len(views.global_pairs)
    assert metrics["valid_pairs"].item() == pytest.approx(counted / possible)
    assert metrics["pairs_per_image"].item() == pytest.approx(counted / 4)


def test_rates_and_decay_follow_their_schedules() -> None:
    model = module()
    trainer = fit(model, steps=3)
    for group in trainer.optimizers[0].param_groups:
        assert group["lr"] == pytest.approx(1e-2 * CosineSchedule(1.0, 0.0)(2, 4))
        assert group["weight_decay"] == (
            pytest.approx(CosineSchedule(0.04, 0.4)(2, 4)) if group["decays"] else 0.0
        )


def test_image_tags_needs_no_teacher_and_learns() -> None:
    model = module(ImageTags(16, tags=3))
    options = {"globals": 1, "locals": 0, "global_pairs": False}
    views = batch(**options)
    assert model.correspond(views).teacher is None
    first, _ = model.objective(model.correspond(views))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss, logs = model.objective(model.correspond(views))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first.item()
    assert logs["tag_accuracy"] > 0.8


def test_image_tags_says_what_it_misses() -> None:
    with pytest.raises(ValueError, match="expected a source with image-level tags"):
        ImageTags(16, tags=0)
    model = module(ImageTags(16, tags=3))
    with pytest.raises(ValueError, match="set augmentation=image_level"):
        model.objective(model.correspond(batch(student_globals=False, global_pairs=False)))
