"""The package from a notebook: modules do without arguments that nobody can guess, and say what they miss."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.version import base_at_least
from tests.configurations import composed
from tests.doubles import multi_crop, tiny_encoder
from torch import Tensor, nn

import paka
from paka import alignment, kernels
from paka.config import CONF_DIR, build
from paka.head import Branch, ProjectionHead
from paka.module import PostTraining
from paka.objectives import Correspondences
from paka.objectives.dense_infonce import DenseInfoNCE
from paka.objectives.frobenius import Frobenius
from paka.objectives.neighbour_ordering import NeighbourOrdering
from paka.objectives.paka import PaKA
from paka.objectives.paka_batch import BatchPaKA
from paka.objectives.token_regression import TokenRegression
from paka.optim import CosineSchedule, Recipe
from paka.patch_alignment import PatchAlignment
from paka.patch_features import PatchFeatures
from paka.presets import OBJECTS, _composed, preset
from paka.smoothed_median import SmoothedMedian
from paka.views import MultiCrop, Views

HALF = (0.5, 0.5, 0.5)
KERNELS = ["linear", "cosine", "polynomial", "arc_cosine", "rbf", "laplacian", "rational_quadratic"]
KERNELS += ["rbf_mixture", "rbf_fourier"]


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def photographs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + 4 * n, 60, 3), dtype=np.uint8) for n in range(count)]


class Patches(nn.Module):
    """A module of somebody's own, which knows nothing of this package."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.vit = tiny_encoder(seed).model

    def forward(self, images: Tensor) -> Tensor:
        return self.vit.forward_features(images)[:, self.vit.num_prefix_tokens :]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, paka; assert 'torch' not in sys.modules and 'hydra' not in sys.modules; "
        "assert 'PatchAlignment' in dir(paka)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(paka, name).__name__ == name for name in paka.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = paka.nothing


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_needs_tokens_alone(name: str) -> None:
    kernel, some = getattr(kernels, name), tokens(2, 9, 6)
    everything = torch.ones(2, 9, dtype=torch.bool)
    assert torch.equal(kernel(some), kernel(some, some, everything))
    assert torch.equal(SmoothedMedian(kernels.rbf)(some), SmoothedMedian(kernels.rbf)(some, some, everything))
    with pytest.raises(ValueError, match=r"expected tokens \(B, N, D\), got shape \(9, 6\): give one image"):
        kernel(some[0])


def test_alignments_take_all_tokens_unless_told_otherwise() -> None:
    k, other = kernels.linear(tokens(3, 9, 6)), kernels.rbf(tokens(3, 9, 6, seed=1))
    everything = torch.ones(3, 9, dtype=torch.bool)
    for measure in (alignment.cka, alignment.hsic):
        assert torch.equal(measure(k, other), measure(k, other, everything))
    assert torch.equal(alignment.centre(k), alignment.centre(k, everything))
    features = kernels.linear.features(tokens(3, 9, 6))
    torch.testing.assert_close(alignment.feature_cka(features, features), torch.ones(3))
    apart = alignment.deconfounded_cka(k, other, everything, torch.arange(3))
    assert torch.equal(alignment.deconfounded_cka(k, other), apart)
    with pytest.raises(ValueError, match=r"expected kernels \(B, N, N\), got shape \(3, 9, 6\): make them"):
        alignment.cka(tokens(3, 9, 6), tokens(3, 9, 6))


@pytest.mark.parametrize(
    "objective",
    [
        PaKA(),
        PaKA(functools.partial(kernels.rbf, bandwidth=0.5), deconfound=True),
        BatchPaKA(),
        Frobenius(),
        DenseInfoNCE(),
        NeighbourOrdering(references=5),
        TokenRegression(),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_an_objective_takes_two_tensors(objective: nn.Module) -> None:
    student, teacher = tokens(4, 9, 6).requires_grad_(), tokens(4, 9, 6, seed=1).requires_grad_()
    loss, _ = objective(Correspondences.of(student, teacher))
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    with pytest.raises(ValueError, match="row n of pair p has to be the same point"):
        Correspondences.of(student, teacher[:, :5])


def test_what_python_leaves_out_is_what_the_files_say() -> None:
    cfg = composed()
    sizes = {"global_size": 128, "local_size": 56}
    from_file, plain = (
        json.dumps(asdict(one)) for one in (build(cfg.augmentation, **sizes), MultiCrop(**sizes))
    )
    assert from_file == plain
    assert build(cfg.head, dim=4)[0].out_features == ProjectionHead(4)[0].out_features
    assert build(cfg.head, dim=4)[4].out_features == ProjectionHead(4)[4].out_features
    configured, default = build(cfg.objective.loss), PaKA()
    assert configured.kernel.func is default.kernel
    for name in ("unbiased", "deconfound", "scale_bins", "pooled", "max_points", "min_points"):
        assert getattr(configured, name) == getattr(default, name), name
    assert cfg.teacher.momentum.start == PatchAlignment.update_teacher.__defaults__[0]
    assert cfg.objective.grid == PatchAlignment.__init__.__kwdefaults__["grid"]


def test_views_of_a_batch_depend_on_the_seed_alone() -> None:
    crop, images = MultiCrop(global_size=32, local_size=16), photographs(3)
    views, again, other = (crop.batch(images, seed=seed) for seed in (1, 1, 2))
    assert views.teacher.shape == (3, 2, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))
    assert not torch.equal(views.boxes, other.boxes)
    with pytest.raises(
        ValueError, match=r"expected images \(H, W, 3\) uint8, got \(3, 8, 8\) float32 at place 0"
    ):
        crop.batch([np.zeros((3, 8, 8), np.float32)], seed=0)
    with pytest.raises(ValueError, match="expected at least one image"):
        crop.batch([], seed=0)


def test_options_of_the_configuration_are_had_by_name() -> None:
    assert preset("profile", "hummingbird").aspect == "stretch"
    assert preset("profile", "compact", memory=500).memory == 500
    assert preset("kernel", "rbf", bandwidth=0.25).keywords["bandwidth"] == 0.25
    assert preset("objective", "paka_deconfounded").deconfound
    assert preset("augmentation", "no_flip", global_size=32, local_size=16).flip == 0
    assert preset("tuning", "bias").biases_only
    assert preset("data", "voc", root="here").keywords["root"] == "here"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        preset("backbone", "tiny", weights="nowhere.safetensors")


def test_a_script_or_notebook_may_be_in_a_hydra_of_its_own() -> None:
    _composed.cache_clear()
    with initialize_config_dir(str(CONF_DIR), job_name="theirs", version_base="1.2"):
        hydra = GlobalHydra.instance().hydra
        assert preset("kernel", "rbf", bandwidth=0.25).keywords["bandwidth"] == 0.25
        assert GlobalHydra.instance().hydra is hydra
        assert JobRuntime.instance().get("name") == "theirs"
        assert not base_at_least("1.3")


@pytest.mark.parametrize(
    ("group", "option", "changes", "message"),
    [
        ("kernels", "rbf", {}, f"expected one of the groups {', '.join(OBJECTS)}, got 'kernels'"),
        ("kernel", "rfb", {}, "expected an option of kernel, one of arc_cosine, .* got 'rfb'"),
        ("data", "voc", {}, "data=voc: expected more arguments, got none: .*data.root"),
        ("profile", "compact", {"memry": 3}, "profile=compact: .*memry"),
        ("profile", "compact", {"memory": 0}, "expected profile.memory to be at least 1"),
    ],
)
def test_a_wrong_name_is_one_sentence(group: str, option: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset(group, option, **changes)


def test_features_are_those_of_the_encoder() -> None:
    encoder = tiny_encoder().eval()
    found = PatchFeatures(Patches().eval(), patch_size=8, mean=HALF, std=HALF, size=32)
    own = encoder.normalised_by(blue_std=float(encoder.std[0, 2]) / 255)
    own.mean, own.std = found.mean, found.std
    images = torch.randint(0, 256, (2, 3, 24, 40), dtype=torch.uint8)
    assert found.dim == encoder.dim
    assert torch.equal(found(images).patches, own(images).patches)
    assert found(images).prefix.shape == (2, 0, 16)
    blue = found.normalised_by(blue_std=0.25)
    assert blue.model is found.model
    assert blue.std.flatten().tolist() == pytest.approx([127.5, 127.5, 63.75])


def test_features_that_are_no_patches_are_refused() -> None:
    vit = tiny_encoder().model
    with pytest.raises(
        ValueError, match=r"expected tokens \(1, 16, D\) .* got \(1, 17, 16\): leave out class"
    ):
        PatchFeatures(vit.forward_features, patch_size=8, size=32)


def test_a_function_is_given_images_where_its_model_is() -> None:
    seen: set[torch.device] = set()

    def function(images: Tensor) -> Tensor:
        seen.add(images.device)
        return images.unfold(2, 8, 8).unfold(3, 8, 8)[:, 0].flatten(1, 2).flatten(2)

    found = PatchFeatures(function, patch_size=8, size=32, device="meta")  # there is no GPU where tests run
    assert {str(device) for device in seen} == {"meta"}
    assert str(found.device) == "meta"
    assert str(found(torch.zeros(1, 3, 32, 32, device="meta")).patches.device) == "meta"


def branch(encoder: object, head: nn.Module) -> Branch:
    return Branch(encoder, head)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [False, True], ids=["encoder", "own module"])
def test_loss_and_gradients_are_those_of_the_lightning_module(own: bool) -> None:
    """A module of one's own in a plain loop, against the program's module with an encoder of this package."""
    encoder, head = tiny_encoder(), ProjectionHead(16, hidden=12, out=8)
    encoder.mean.fill_(127.5), encoder.std.fill_(127.5)
    started = {name: value.clone() for name, value in head.state_dict().items()}
    schedule = CosineSchedule(0.5, 0.5)
    recipe = Recipe(4, 1e-2, 1e-2, schedule, schedule, schedule)
    trained = PostTraining(branch(encoder, head), PaKA(kernels.rbf), torch.optim.AdamW, recipe, grid=2)
    views: Views = multi_crop().batch(photographs(3), seed=0)
    expected, _ = trained.objective(trained.correspond(views))
    expected.backward()

    module = Patches()
    features = PatchFeatures(module, patch_size=8, mean=HALF, std=HALF, size=32) if own else tiny_encoder()
    features.mean.fill_(127.5), features.std.fill_(127.5)
    other_head = ProjectionHead(16, hidden=12, out=8)
    other_head.load_state_dict(started)
    aligned = PatchAlignment(features, multi_crop(), PaKA(kernels.rbf), head=other_head, grid=2)
    loss, logs = aligned(views)
    loss.backward()
    assert torch.equal(loss, expected)
    assert logs["cka"] == pytest.approx(1 - loss.item(), abs=1e-6)
    gradients = dict(encoder.model.named_parameters())
    for name, value in aligned.student.encoder.model.named_parameters():
        assert torch.equal(value.grad, gradients[name.removeprefix("vit.")].grad), name
    assert all(value.grad is None for value in aligned.teacher.parameters())
    for mine, theirs in zip(other_head.parameters(), head.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_a_plain_loop_lowers_the_loss_and_trains_the_module_itself() -> None:
    torch.manual_seed(0)
    module = Patches()
    before = [value.clone() for value in module.parameters()]
    features = PatchFeatures(module, patch_size=8, size=32)
    aligned = PatchAlignment(features, multi_crop(), head=ProjectionHead(16, hidden=32, out=8), grid=2)
    still = aligned.views.batch(photographs(6), seed=9)
    optimizer = torch.optim.AdamW(aligned.parameters(), lr=1e-2)
    first = aligned(still)[0].item()
    for _ in range(12):
        loss, _ = aligned(photographs(6))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        aligned.update_teacher(momentum=0.9)
    assert aligned(still)[0].item() < first - 0.02
    assert aligned.drawn == 12
    assert not any(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    averaged = aligned.teacher.encoder.model.parameters()
    assert not any(torch.equal(own, mine) for own, mine in zip(averaged, module.parameters(), strict=True))


def test_a_head_without_layers_is_the_identity() -> None:
    aligned = PatchAlignment(tiny_encoder(), multi_crop(), head=nn.Sequential())
    assert len(aligned.student.head) == 0


def test_what_cannot_be_trained_is_refused() -> None:
    function = Patches().forward
    with pytest.raises(ValueError, match="give PatchFeatures a module, not a function"):
        PatchAlignment(PatchFeatures(function, patch_size=8, size=32), multi_crop())
    with pytest.raises(ValueError, match="whole patches of 8 pixels, got 30: take 32"):
        PatchAlignment(tiny_encoder(), multi_crop(global_size=30))
