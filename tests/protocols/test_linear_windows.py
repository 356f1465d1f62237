"""The linear decoder on crops: the encoder stays, the quirks of its source move it, and a killed run goes on."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.doubles import tiny_encoder
from tests.protocols.synthetic import PROFILE
from tests.protocols.test_finetune import QUERY, Quadrants, Static, score

from paka.decoders import LinearDecoder
from paka.protocols import Outcome, Profile
from paka.protocols.distortion import Distortion
from paka.protocols.finetune import best_of, finetune, train_segmenter
from paka.protocols.finetune_settings import Finetune
from paka.protocols.linear_windows import LinearWindows, linear_windows
from paka.protocols.segmenter import Segmenter
from paka.protocols.segmenter_training import labelled_loss

BRIEF = LinearWindows(
    steps=60,
    warmup_steps=6,
    batch=6,
    crop=32,
    decoder_lr=3e-2,
    photometric=None,
    scales=(0.75, 1.5),
    accelerator="cpu",
    checkpoint_every=4,
)
SHORT = dataclasses.replace(BRIEF, steps=10, warmup_steps=2)


def of(settings: Finetune) -> Profile:
    return dataclasses.replace(PROFILE, settings={"any": settings})


def run(settings: LinearWindows = BRIEF, *, folder: Path | None = None, **changes: bool) -> Outcome:
    return linear_windows(tiny_encoder(), Quadrants(**changes), QUERY, of(settings), seed=0, folder=folder)


def test_colours_are_learnt_without_training_the_encoder() -> None:
    assert score(run()) > 0.85


def test_masks_of_other_images_teach_nothing() -> None:
    assert score(run(shuffled=True)) < 0.45


def test_noise_stays_at_chance() -> None:
    assert score(linear_windows(tiny_encoder(), Static(), Static(5, seed=1), of(BRIEF), seed=0)) < 0.3


def test_settings_are_those_of_exactly_this_kind() -> None:
    profile = dataclasses.replace(PROFILE, settings={"windows": SHORT, "tuned": Finetune(steps=7)})
    assert profile.of(Finetune).steps == 7
    assert profile.of(LinearWindows).steps == 10
    assert dataclasses.replace(PROFILE, settings={"windows": SHORT}).of(Finetune) == Finetune()


def test_the_defaults_are_the_published_recipe() -> None:
    recipe = LinearWindows()
    assert (recipe.steps, recipe.batch, recipe.warmup_steps, recipe.dropout) == (40_000, 16, 1500, 0.1)
    assert (recipe.decoder_lr, recipe.weight_decay, recipe.window) == (1e-3, 1e-3, 512)
    assert (recipe.scales, recipe.flip, recipe.largest_share) == ((0.5, 2.0), 0.5, 0.75)
    assert recipe.frozen
    assert recipe.photometric == Distortion()


def test_the_encoder_stays_as_it_is_and_in_evaluation_mode() -> None:
    encoder = tiny_encoder()
    before = copy.deepcopy(encoder.state_dict())
    trained = train_segmenter(encoder, Quadrants(), SHORT, seed=0)
    for key, value in trained.encoder.state_dict().items():
        assert torch.equal(value, before[key])
    segmenter = Segmenter(encoder, LinearDecoder(16, 3, batch_norm=True), frozen=True)
    assert segmenter.train().decoder.training
    assert not any(module.training for module in segmenter.encoder.modules())
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    segmenter(images).sum().backward()
    assert all(value.grad is None for value in segmenter.encoder.parameters())
    assert all(value.grad is not None for value in segmenter.decoder.parameters())


@pytest.mark.parametrize("best_every", [None, 3])
def test_a_killed_run_goes_on_as_if_undisturbed(tmp_path: Path, best_every: int | None) -> None:
    settings = dataclasses.replace(SHORT, best_every=best_every, photometric=Distortion())
    whole = run(settings)
    with pytest.raises(KeyError, match="killed"):
        linear_windows(
            tiny_encoder(), Quadrants(dies_after=6 * 7 + 2), QUERY, of(settings), seed=0, folder=tmp_path
        )
    saved = torch.load(tmp_path / "finetune.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(name.startswith("segmenter.decoder.") for name in saved["state_dict"])
    assert sorted(saved["snapshots"]) == ([] if best_every is None else [3])
    resumed = run(settings, folder=tmp_path)
    assert torch.equal(resumed.counts, whole.counts)
    assert resumed.stated == whole.stated


def test_the_best_of_several_decoders_is_kept() -> None:
    settings = dataclasses.replace(SHORT, steps=20, best_every=8)
    segmenter = train_segmenter(tiny_encoder(), Quadrants(), settings, seed=0)
    untrained = Segmenter(tiny_encoder(), LinearDecoder(16, 3, batch_norm=True), frozen=True).decoder
    states = {8: copy.deepcopy(segmenter.decoder.state_dict()), 20: untrained.state_dict()}
    scores = {
        step: best_of(segmenter, {step: state}, QUERY, settings).score for step, state in states.items()
    }
    assert scores[8] > scores[20]
    found = best_of(segmenter, states, QUERY, settings)
    assert found.score == scores[8]
    assert found.stated["note"].endswith("best of 2 scored on the same images: step 8")


def test_decoders_are_kept_every_so_many_steps_and_at_the_end() -> None:
    settings = dataclasses.replace(SHORT, steps=20, best_every=8)
    best = run(settings)
    assert "best of 3 scored on the same images" in best.stated["note"]
    assert best.score >= run(dataclasses.replace(settings, best_every=None)).score


@pytest.mark.parametrize(
    ("quirk", "base"),
    [
        ({"loss_over": "all"}, {}),
        ({"decay_vectors": True, "weight_decay": 1.0}, {"weight_decay": 1.0}),
        ({"dropout": 0.5}, {}),
        ({"dropout": 0.5, "dropout_first": True}, {"dropout": 0.5}),
        ({"schedule": "polynomial"}, {}),
        ({"photometric": Distortion(hue=0.5)}, {"photometric": Distortion()}),
        ({"photometric": Distortion()}, {}),
        ({"interpolation": "bicubic"}, {}),
    ],
)
def test_a_quirk_moves_the_decoder(quirk: dict[str, object], base: dict[str, object]) -> None:
    first, second = (
        train_segmenter(tiny_encoder(), Quadrants(), dataclasses.replace(SHORT, **changes), seed=0)
        for changes in (base, quirk)
    )
    weights = [one.decoder.classify.weight for one in (first, second)]  # type: ignore[union-attr]
    assert not torch.allclose(*weights, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_dropout_before_the_normalisation_counts_in_its_variance() -> None:
    tokens = torch.randn(64, 4, 4, 12, generator=torch.Generator().manual_seed(0)) + 2
    variances = []
    for first in (False, True):
        decoder = LinearDecoder(12, 3, batch_norm=True, dropout=0.4, dropout_first=first).train()
        decoder.norm.momentum = 1.0  # type: ignore[union-attr]
        torch.manual_seed(1)
        decoder(tokens)
        variances.append(float(decoder.norm.running_var.mean()))  # type: ignore[union-attr,operator,arg-type]
    # E[(x d)^2] = E[x^2] / keep for d in {0, 1 / keep}: 5 / 0.6 - 4.
    assert variances[0] == pytest.approx(1.0, abs=0.1)
    assert variances[1] == pytest.approx(5 / 0.6 - 4, rel=0.15)


def test_dropout_drops_channels_and_nothing_in_evaluation() -> None:
    decoder = LinearDecoder(6, 2, dropout=0.5)
    decoder.classify.weight.data.zero_()
    decoder.classify.weight.data[0, 0] = 1.0
    tokens = torch.ones(200, 3, 5, 6)
    found = decoder.train()(tokens)[:, 0]
    assert {*found.unique().tolist()} == {0.0, 2.0}
    assert (found == found[:, :1, :1]).all(), "a channel is dropped in a whole image"
    assert (decoder.eval()(tokens)[:, 0] == 1).all()


def test_the_loss_over_all_pixels_counts_void_ones_as_0() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 4, 5, dtype=torch.uint8)
    labels[:, :1] = 255
    assert float(labelled_loss(logits, labels, over="all")) == pytest.approx(
        float(labelled_loss(logits, labels)) * 3 / 4
    )


def test_windows_follow_the_profile_and_its_filter() -> None:
    settings = dataclasses.replace(SHORT, crop=None)
    encoder, train = tiny_encoder(), Quadrants()
    found = [
        linear_windows(
            encoder,
            train,
            QUERY,
            dataclasses.replace(of(settings), grid=grid, interpolation=interpolation),
            seed=0,
        )
        for grid, interpolation in (([4, 6], "area"), ([6, 4], "area"), ([4, 6], "bicubic"), ([5, 6], "area"))
    ]
    assert "crops of 32 px" in found[0].stated["note"]
    assert torch.equal(found[0].counts, found[1].counts)
    assert not torch.equal(found[0].counts, found[2].counts)
    assert "crops of 40 px" in found[3].stated["note"]


def test_an_encoder_may_be_frozen_in_fine_tuning_too() -> None:
    settings = Finetune(frozen=True, drop_path=0.0, steps=4, batch=6, crop=32, accelerator="cpu")
    found = finetune(tiny_encoder(), Quadrants(), QUERY, of(settings), seed=0)
    assert np.isfinite(found.score)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frozen": False, "best_every": 5}, "best_every to be None unless the encoder is frozen"),
        ({"decoder": "mask_transformer"}, "dropout to be 0 with another decoder"),
        ({"dropout": 1.0}, "dropout to be in"),
        ({"loss_over": "void"}, "loss_over to be labelled or all"),
        ({"schedule": "cosine"}, "schedule to be polynomial or one_cycle"),
        ({"best_every": 0}, "best_every to be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(BRIEF, **changes)  # type: ignore[arg-type]
