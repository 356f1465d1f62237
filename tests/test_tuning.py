"""What trains: frozen blocks, biases, rates by layer, low-rank adapters and their way back into the weights."""

from __future__ import annotations

import copy
import csv
import functools
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from tests.doubles import NoiseImages, multi_crop, tiny_encoder
from tests.programs import run
from timm.optim import param_groups_layer_decay
from torch import Tensor

from paka import kernels, weights
from paka.datamodule import PostTrainingData
from paka.encoder import Encoder, create_encoder
from paka.head import Branch, ProjectionHead
from paka.module import PostTraining
from paka.objectives.paka import PaKA
from paka.optim import CosineSchedule, Recipe, parameter_groups
from paka.tuning import LowRank, LowRankUpdate, Tuning, layer_scales, merge

DEPTH = 2
STEM = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
NORM = {"norm.weight", "norm.bias"}
ADAPTED = ("attn.qkv", "attn.proj")


def tuned(tuning: Tuning) -> Encoder:
    encoder = tiny_encoder()
    tuning.apply(encoder)
    return encoder


def trained(encoder: Encoder) -> set[str]:
    return {name for name, value in encoder.model.named_parameters() if value.requires_grad}


def of_block(index: int) -> set[str]:
    names = dict(tiny_encoder().model.named_parameters())
    return {name for name in names if name.startswith(f"blocks.{index}.")}


def module(encoder: Encoder, *, layer_decay: float = 1.0) -> PostTraining:
    torch.manual_seed(0)
    recipe = Recipe(
        max_steps=4,
        lr=1e-2,
        head_lr=1e-2,
        lr_schedule=CosineSchedule(1.0, 0.0, warmup_steps=2),
        weight_decay=CosineSchedule(0.04, 0.4),
        momentum=CosineSchedule(0.5, 0.5),
        layer_decay=layer_decay,
    )
    student = Branch(encoder, ProjectionHead(16, hidden=12, out=8))
    adamw = functools.partial(torch.optim.AdamW, betas=(0.9, 0.99))
    return PostTraining(student, PaKA(kernels.linear), adamw, recipe, grid=2)


def fit(model: PostTraining, steps: int = 3, resume: Path | None = None) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = PostTrainingData(NoiseImages(), multi_crop(), batch_size=4, max_steps=4, seed=0)
    trainer.fit(model, data, ckpt_path=resume, weights_only=True)
    return trainer


def perturbed(encoder: Encoder) -> Encoder:
    """Stand in for training: both factors of every adapter are moved, B away from zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if name.endswith(("lora_a", "lora_b")):
                value.add_(0.1 * torch.randn_like(value))
    return encoder


def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(2)).byte()


def tokens(encoder: Encoder) -> Tensor:
    with torch.no_grad():
        return encoder.eval()(images()).patches


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        (Tuning(), STEM | of_block(0) | of_block(1) | NORM),
        (Tuning(freeze_blocks=1), of_block(1) | NORM),
        (Tuning(freeze_blocks=2), NORM),
        (Tuning(train_blocks=1), of_block(1) | NORM),
        (Tuning(train_blocks=2), of_block(0) | of_block(1) | NORM),
        (
            Tuning(freeze_blocks=1, biases_only=True),
            {name for name in of_block(1) | NORM if name.endswith(".bias")},
        ),
        (
            Tuning(biases_only=True),
            {name for name in STEM | of_block(0) | of_block(1) | NORM if name.endswith(".bias")},
        ),
        (
            Tuning(train_blocks=1, adapter=LowRank(rank=2, targets=["qkv", "fc1"])),
            {
                f"blocks.1.{layer}.parametrizations.weight.0.lora_{factor}"
                for layer in ("attn.qkv", "mlp.fc1")
                for factor in "ab"
            },
        ),
    ],
)
def test_exactly_these_parameters_train(tuning: Tuning, expected: set[str]) -> None:
    assert trained(tuned(tuning)) == expected


@pytest.mark.parametrize(
    "tuning",
    [Tuning(freeze_blocks=1), Tuning(biases_only=True), Tuning(adapter=LowRank(rank=2))],
    ids=["freeze_blocks", "biases_only", "adapter"],
)
def test_frozen_weights_stay_in_both_branches_and_all_others_move(tuning: Tuning) -> None:
    model = module(tuned(tuning))
    names = trained(model.student.encoder)
    before = copy.deepcopy(model.student.state_dict())
    trainer = fit(model)
    listed = {id(value) for group in trainer.optimizers[0].param_groups for value in group["params"]}
    teacher = dict(model.teacher.named_parameters())
    for name, value in model.student.named_parameters():
        trains = name.startswith("head.") or name.removeprefix("encoder.model.") in names
        assert (id(value) in listed) == trains, name
        assert value.grad is None or trains, name
        if name == "head.4.bias":  # its gradient is zero but for rounding
            continue
        assert torch.equal(value, before[name]) != trains, name
        assert torch.equal(teacher[name], value) != trains, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Tuning(freeze_blocks=1, train_blocks=1),
            "one of freeze_blocks and train_blocks, got 1 and 1",
        ),
        (lambda: Tuning(biases_only=True, adapter=LowRank()), "one of biases_only and adapter"),
        (lambda: tuned(Tuning(freeze_blocks=3)), "at most 2 blocks.*got 3: lower tuning.freeze_blocks"),
        (lambda: tuned(Tuning(train_blocks=3)), "at most 2 blocks.*got 3: lower tuning.train_blocks"),
        (
            lambda: tuned(Tuning(adapter=LowRank(targets=["qkv", "query"]))),
            "got query: set tuning.adapter.targets to some of fc1, fc2, proj, qkv",
        ),
        (lambda: tuned(Tuning(adapter=LowRank(targets=[]))), "got none: set tuning.adapter.targets"),
        (
            lambda: tuned(Tuning(freeze_blocks=2, adapter=LowRank())),
            "got nothing: lower tuning.freeze_blocks",
        ),
    ],
)
def test_bad_values_say_what_to_set(make: functools.partial[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(adapter=LowRank(rank=2))], ids=["full", "adapter"])
def test_layer_decay_is_timms(tuning: Tuning) -> None:
    encoder = tuned(tuning)
    scales = layer_scales(encoder, 0.75)
    reference = {
        value: group["lr_scale"]
        for group in param_groups_layer_decay(encoder.model, layer_decay=0.75)
        for value in group["params"]
    }
    assert {value: scales[value] for value in reference} == pytest.approx(reference)
    by_name = {name: scales[value] for name, value in encoder.model.named_parameters()}
    assert by_name["patch_embed.proj.weight"] == 0.75**DEPTH
    assert by_name["blocks.0.norm1.weight"] == 0.75
    assert by_name["blocks.1.norm1.weight"] == by_name["norm.weight"] == 1.0


def test_layer_decay_counts_from_the_last_block_whatever_comes_after_it() -> None:
    """SigLIP's pooling after the blocks, which no patch token goes through, costs the blocks no rate."""
    arch = {
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "img_size": 32,
        "global_pool": "map",
    }
    encoder = create_encoder("vit_tiny_patch16_224", arch=arch, pretrained=False)
    scales = layer_scales(encoder, 0.5)
    assert {scales[value] for value in encoder.model.blocks[1].parameters()} == {1.0}
    assert scales[encoder.model.patch_embed.proj.weight] == 0.25


def test_rates_by_layer_follow_the_schedule() -> None:
    model = module(tiny_encoder(), layer_decay=0.5)
    trainer = fit(model, steps=3)
    factor = model.recipe.lr_schedule(2, 4)
    rates = {
        id(value): (group["lr"], group["weight_decay"] > 0)
        for group in trainer.optimizers[0].param_groups
        for value in group["params"]
    }
    blocks = model.student.encoder.model.blocks
    for block, scale in ((blocks[0], 0.5), (blocks[1], 1.0)):
        assert rates[id(block.attn.qkv.weight)] == (pytest.approx(1e-2 * scale * factor), True)
        assert rates[id(block.attn.qkv.bias)] == (pytest.approx(1e-2 * scale * factor), False)
    assert rates[id(model.student.head[0].weight)] == (pytest.approx(1e-2 * factor), True)


def test_one_rate_for_all_makes_the_groups_of_before() -> None:
    encoder = tiny_encoder()
    plain = parameter_groups({"encoder": (encoder, 1e-5)})
    groups = parameter_groups({"encoder": (encoder, 1e-5)}, layer_scales(encoder, 1.0))
    assert [group["name"] for group in groups] == ["encoder", "encoder.no_decay"]
    for one, other in zip(plain, groups, strict=True):
        assert [id(value) for value in one.pop("params")] == [id(value) for value in other.pop("params")]
        assert one == other


def test_an_adapter_starts_as_nothing_and_is_the_papers_sum() -> None:
    """W + alpha / rank * B A in float64."""
    encoder = tuned(Tuning(adapter=LowRank(rank=3, alpha=6.0)))
    torch.testing.assert_close(tokens(encoder), tokens(tiny_encoder()), rtol=0, atol=0)
    linear = perturbed(encoder).model.blocks[0].attn.qkv
    update = linear.parametrizations.weight[0]
    a, b, original = (
        value.detach().double().numpy()
        for value in (update.lora_a, update.lora_b, linear.parametrizations.weight.original)
    )
    assert (a.shape, b.shape) == ((3, 16), (48, 3))
    np.testing.assert_allclose(linear.weight.detach(), original + 6.0 / 3 * b @ a, atol=1e-6)
    assert np.abs(b @ a).max() > 0.01


def test_the_adapted_weight_is_not_rounded_under_autocast() -> None:
    linear = perturbed(tuned(Tuning(adapter=LowRank(rank=2)))).model.blocks[0].attn.qkv
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear.weight
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, linear.weight, rtol=0, atol=0)


def test_factors_are_not_decayed() -> None:
    groups = parameter_groups({"encoder": (tuned(Tuning(adapter=LowRank(rank=2))), 1e-3)})
    assert [(group["name"], group["decays"]) for group in groups] == [("encoder.no_decay", False)]


def test_the_first_factor_keeps_the_size_of_its_input() -> None:
    torch.manual_seed(0)
    update = LowRankUpdate(64, 256, rank=32, scale=1.0)
    assert update.lora_a.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert not update.lora_b.any()


def test_the_teacher_averages_the_factors() -> None:
    model = module(tuned(Tuning(adapter=LowRank(rank=2))))
    before = {name: value.clone() for name, value in model.teacher.named_parameters()}
    fit(model, steps=1)
    student = dict(model.student.named_parameters())
    for name, value in model.teacher.named_parameters():
        torch.testing.assert_close(value, 0.5 * before[name] + 0.5 * student[name])
    moved = [name for name, value in student.items() if not torch.equal(value, before[name])]
    assert sum("lora_b" in name for name in moved) == DEPTH * len(ADAPTED)


def test_merged_adapters_load_strictly_into_timm_and_compute_the_same(tmp_path: Path) -> None:
    model = module(tuned(Tuning(adapter=LowRank(rank=2))))
    perturbed(model.student.encoder)
    perturbed(model.teacher.encoder)
    start = tokens(tiny_encoder())
    for branch in (model.student, model.teacher):
        plain = merge(branch.encoder, tiny_encoder(seed=5))
        weights.save(plain.model, tmp_path / "encoder.safetensors")
        state = load_file(tmp_path / "encoder.safetensors")
        assert state.keys() == tiny_encoder().model.state_dict().keys()
        loaded = tiny_encoder(seed=6)
        loaded.model.load_state_dict(state)
        torch.testing.assert_close(tokens(loaded), tokens(branch.encoder), rtol=0, atol=1e-5)
        assert (tokens(loaded) - start).abs().max() > 0.01
    assert any("lora" in name for name, _ in model.student.named_parameters()), "merging leaves the adapters"


def test_merging_without_adapters_is_a_copy() -> None:
    encoder = tiny_encoder()
    plain = merge(encoder, tiny_encoder(seed=5))
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[name], value, rtol=0, atol=0)


# The data module itself goes on after the last step; Lightning looks for that in the loader alone.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_adapters_resume_where_they_stopped(tmp_path: Path) -> None:
    tuning = Tuning(adapter=LowRank(rank=2))
    whole, part, rest = (module(tuned(tuning)) for _ in range(3))
    fit(whole, steps=4)
    path = tmp_path / "last.ckpt"
    fit(part, steps=2).save_checkpoint(path)
    assert torch.load(path, weights_only=True)["global_step"] == 2
    fit(rest, steps=4, resume=path)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rest.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["tuning=last_blocks", "tuning.train_blocks=3", "tuning.layer_decay=0.75"],
        ["tuning=bias"],
        ["tuning=lora"],
    ],
    ids=["last_blocks", "bias", "lora"],
)
def test_the_command_line_exports_what_timm_loads(tmp_path: Path, settings: list[str]) -> None:
    fixed = [
        "trainer.max_steps=2",
        "backbone.batch_size=4",
        "eval=none",
        "trainer.workers=0",
        "trainer.log_every=1",
    ]
    done = run("-m", "paka.train", *settings, *fixed, f"hydra.run.dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    arch = {"patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3, "img_size": 128}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, **arch)
    network.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    with (tmp_path / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["loss"]]) == 2
