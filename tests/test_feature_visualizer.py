"""Pictures while training: they show the run, and the run does not notice them."""

from __future__ import annotations

import functools
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from tests.doubles import NoiseImages, multi_crop, tiny_encoder
from torch import nn

from paka import kernels
from paka.colours import Colouring, pca_rgb
from paka.datamodule import PostTrainingData
from paka.document import Document, Section
from paka.feature_visualizer import KEPT, FeatureVisualizer, figures, kernel_of, thinned
from paka.figures.animation import FRAMES, shown
from paka.figures.moment import Moment
from paka.frames import Frame
from paka.head import Branch, ProjectionHead
from paka.html_report import html
from paka.module import PostTraining
from paka.objectives.image_tags import ImageTags
from paka.objectives.paka import PaKA
from paka.objectives.token_regression import TokenRegression
from paka.objectives.weighted_sum import WeightedSum
from paka.optim import CosineSchedule, Recipe
from paka.smoothed_median import SmoothedMedian


class Watch(L.Callback):
    """Note what a picture must leave alone."""

    def __init__(self) -> None:
        self.states: list[tuple[torch.Tensor, list[bool], torch.Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        del trainer, args
        modes = [part.training for part in pl_module.modules()]
        weights = torch.cat([value.detach().flatten() for value in pl_module.parameters()])
        self.states.append((torch.get_rng_state(), modes, weights))


def fitted(
    folder: Path | None, objective: nn.Module, steps: int = 4
) -> tuple[FeatureVisualizer | None, Watch, PostTraining]:
    torch.manual_seed(0)
    student = Branch(tiny_encoder(), ProjectionHead(16, hidden=12, out=8))
    student.encoder.model.blocks[0].eval()  # a mode of its own, which has to stay
    schedule = CosineSchedule(0.9, 0.9)
    adamw = functools.partial(torch.optim.AdamW, betas=(0.9, 0.99))
    reads = {"globals"} if isinstance(objective, ImageTags) else {"pairs"}
    module = PostTraining(
        student,
        objective,
        adamw,
        Recipe(steps, 1e-2, 1e-2, schedule, schedule, schedule),
        reads=reads,
        grid=2,
    )
    data = PostTrainingData(NoiseImages(), multi_crop(), batch_size=4, max_steps=steps, seed=0)
    watch, visualizer, callbacks = Watch(), None, []
    if folder is not None:
        frame = Frame(4, 4, 8, "keep")
        visualizer = FeatureVisualizer(folder, data.dataset, frame, every=2, branch="teacher", seed=0)
        callbacks = [visualizer]
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, data)
    return visualizer, watch, module


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureVisualizer, Watch]:
    """A run with a kernel that has a state of its own, and what was drawn of it."""
    folder = tmp_path_factory.mktemp("figures")
    visualizer, watch, _ = fitted(folder, PaKA(SmoothedMedian(kernels.rbf)))
    assert visualizer is not None
    return folder, visualizer, watch


def test_a_run_does_not_notice_its_pictures(drawn: tuple[Path, FeatureVisualizer, Watch]) -> None:
    _, plain, module = fitted(None, PaKA(SmoothedMedian(kernels.rbf)))
    for with_pictures, without in zip(drawn[2].states, plain.states, strict=True):
        assert torch.equal(with_pictures[0], without[0])
        assert with_pictures[1] == without[1]
        assert torch.equal(with_pictures[2], without[2])
    assert module.objective.kernel.median > 0


def test_pictures_are_drawn_at_the_start_in_between_and_at_the_end(
    drawn: tuple[Path, FeatureVisualizer, Watch],
) -> None:
    folder, visualizer, _ = drawn
    names = [path.name for path in sorted((folder / "training").iterdir())]
    assert names == [f"step_00000{step}.png" for step in (0, 2, 4)]
    start, *_, end = visualizer.moments
    assert start.kernels.shape == (4, 2, 4, 4)
    assert len(start.cka) == 4
    assert not np.array_equal(start.colours, end.colours)
    peak = [one.similarity[n][place] for one in (start, end) for n, place in enumerate(visualizer.patches)]
    np.testing.assert_allclose(peak, 1, atol=1e-5)
    with Image.open(folder / "training.gif") as animation:
        assert animation.n_frames == 4, "the end first, then all"
        assert animation.info["loop"] == 0
        still = np.asarray(animation.convert("RGB"), dtype=int)
        animation.seek(3)
        assert abs(still - np.asarray(animation.convert("RGB"), dtype=int)).max() == 0, "the still is the end"


def test_the_report_keeps_them_moving(drawn: tuple[Path, FeatureVisualizer, Watch]) -> None:
    found = figures(drawn[0])
    assert [figure.path.name for figure in found] == ["training.gif", "step_000004.png", "step_000000.png"]
    assert all(len(figure.caption) > 20 and len(figure.alt) > 20 for figure in found)
    assert 'src="data:image/gif;base64,R0lGODlh' in html(
        Document("Run", sections=[Section("Training", found)])
    )
    assert "Before the training, step 0:" in found[2].caption
    assert figures(drawn[0] / "training") == []


def test_a_folder_that_begins_in_the_midst_of_a_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    for name in ("training.gif", "training/step_000004.png", "training/step_000008.png"):
        (tmp_path / name).touch()
    _, end, start = figures(tmp_path)
    assert end.caption.startswith("At the end of the training, step 8:")
    assert start.caption.startswith("Where the run was gone on with, step 4:")


def test_a_resumed_run_goes_on_in_the_same_colours(drawn: tuple[Path, FeatureVisualizer, Watch]) -> None:
    _, visualizer, _ = drawn
    other = FeatureVisualizer(Path(), visualizer.dataset, visualizer.frame, every=2, branch="teacher", seed=0)
    other.load_state_dict({})
    other.load_state_dict(visualizer.state_dict())
    assert np.array_equal(other.colouring.basis, visualizer.colouring.basis)
    assert [one.step for one in other.moments] == [0, 2, 4]
    assert all(
        np.array_equal(a.colours, b.colours) for a, b in zip(other.moments, visualizer.moments, strict=True)
    )
    np.testing.assert_allclose(other.moments[1].similarity, visualizer.moments[1].similarity, atol=1e-3)


def test_objectives_without_pairs_have_no_kernels(tmp_path: Path) -> None:
    visualizer, _, _ = fitted(tmp_path, ImageTags(16, tags=3), steps=1)
    assert visualizer is not None
    assert visualizer.moments[-1].kernels is None
    assert (tmp_path / "training.gif").stat().st_size > 0


def test_the_kernel_is_the_objectives_own() -> None:
    smoothed = SmoothedMedian(kernels.rbf)
    assert kernel_of(PaKA(smoothed)) is smoothed
    both = WeightedSum({"a": TokenRegression(), "b": PaKA(kernels.cosine)}, {"a": 1.0, "b": 1.0})
    assert kernel_of(both) is kernels.cosine
    assert kernel_of(TokenRegression()) is kernels.linear


@pytest.mark.parametrize(("draws", "every", "start"), [(500, 1, 0), (1000, 10, 0), (2000, 100, 37)])
def test_animations_of_long_runs_show_all_of_them(draws: int, every: int, start: int) -> None:
    """In the worst case, the end of the run comes just after moments were dropped."""
    moments: list[Moment] = []
    nothing = np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 1, 1))
    for step in [start, *range(every * (start // every + 1), every * draws + 1, every)]:
        moments = thinned([*moments, Moment(step, *nothing)])
        assert len(moments) <= KEPT
        assert (moments[0].step, moments[-1].step) == (start, step)
    steps = np.array([one.step for one in moments])
    whole = steps[-1] - steps[0]
    assert len(steps) > KEPT // 3
    assert np.diff(steps).max() <= 3 * whole / KEPT
    frames = steps[shown(steps)]
    assert np.diff(frames).max() <= 2 * whole / FRAMES
    assert len(frames) >= FRAMES - 1


def test_colours_keep_their_meaning() -> None:
    tokens = np.random.default_rng(0).normal(size=(2, 4, 4, 8))
    fixed = Colouring.of(tokens)
    np.testing.assert_array_equal(fixed(tokens), pca_rgb(tokens)[0])
    np.testing.assert_allclose(fixed(3 * tokens + 1), fixed(tokens), atol=1e-9)
    assert not np.allclose(fixed(-tokens), fixed(tokens))
