"""Fine-tuning of a minute encoder: it learns, goes on after a kill as if undisturbed, and changes nothing outside."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.doubles import tiny_encoder
from tests.protocols.synthetic import PROFILE
from timm.layers import DropPath

from paka.decoders import MaskTransformer
from paka.encoder import Encoder
from paka.optim import PolynomialSchedule
from paka.protocols import Outcome, Profile
from paka.protocols import finetune as protocol
from paka.protocols.finetune import finetune, train_segmenter
from paka.protocols.finetune_settings import Finetune
from paka.protocols.segmenter import Segmenter, segment
from paka.protocols.segmenter_training import Feed, Rates, SegmenterTraining, labelled_loss
from paka.protocols.training_crops import CropDataset
from paka.sources import Source
from paka.statistics import bootstrap, confusion_matrices, mean_iou

BRIEF = Finetune(
    steps=60,
    batch=6,
    crop=32,
    lr=3e-3,
    decoder_lr=3e-3,
    drop_path=0.1,
    scales=(0.75, 1.5),
    accelerator="cpu",
    checkpoint_every=4,
)
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.int16)


class Quadrants(Source):
    """Four flat, slightly noisy quadrants of three classes, whose colours are their classes'; 40 x 56 pixels."""

    name, split, classes = "quadrants", "train", ("red", "green", "blue")

    def __init__(
        self, count: int = 12, seed: int = 0, *, shuffled: bool = False, dies_after: int = -1
    ) -> None:
        self.count, self.seed, self.shuffled, self.dies_after = count, seed, shuffled, dies_after

    def __len__(self) -> int:
        return self.count

    def item(self, index: int) -> str:
        return f"quadrants {index}"

    def image(self, index: int) -> np.ndarray:
        if self.dies_after == 0:
            raise KeyError("killed")
        self.dies_after -= 1
        noise = np.random.default_rng([self.seed, index, 1]).integers(-20, 20, (40, 56, 3))
        return (COLOURS[self._classes(index)] + noise).clip(0, 255).astype(np.uint8)

    def mask(self, index: int) -> np.ndarray:
        mask = self._classes((index + self.shuffled * 5) % self.count).astype(np.uint8)
        mask[:2] = 255
        return mask

    def _classes(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index])
        return rng.integers(0, 3, (2, 2)).repeat(20, axis=0).repeat(28, axis=1)


class Static(Quadrants):
    """The same masks of images that show nothing of them."""

    def image(self, index: int) -> np.ndarray:
        return np.random.default_rng([self.seed, index, 2]).integers(0, 256, (40, 56, 3), dtype=np.uint8)


QUERY = Quadrants(5, seed=1)


def of(settings: Finetune) -> Profile:
    return dataclasses.replace(PROFILE, settings={"finetune": settings})


def score(outcome: Outcome) -> float:
    return float(mean_iou(outcome.counts.sum(dim=0)))


@pytest.mark.parametrize("decoder", ["mask_transformer", "linear"])
def test_colours_are_learnt(decoder: str) -> None:
    settings = dataclasses.replace(BRIEF, decoder=decoder)
    outcome = finetune(tiny_encoder(), Quadrants(), QUERY, of(settings), seed=0)
    assert score(outcome) > 0.85
    assert [metric.name for metric in outcome.metrics] == ["mIoU"]
    interval = bootstrap(outcome.counts, resamples=50, seed=0)
    assert interval.low <= score(outcome) <= interval.high
    assert sorted(outcome.pictures) == list(range(len(QUERY)))
    for index, prediction in outcome.pictures.items():
        assert prediction.shape == (40, 56)
        truth = torch.from_numpy(QUERY.mask(index))[None]
        assert torch.equal(confusion_matrices(prediction[None], truth, 3)[0], outcome.counts[index])


@pytest.mark.parametrize("decoder", ["mask_transformer", "linear"])
def test_masks_of_other_images_teach_nothing(decoder: str) -> None:
    settings = of(dataclasses.replace(BRIEF, decoder=decoder))
    assert score(finetune(tiny_encoder(), Quadrants(shuffled=True), QUERY, settings, seed=0)) < 0.45


@pytest.mark.parametrize("decoder", ["mask_transformer", "linear"])
def test_noise_stays_at_chance(decoder: str) -> None:
    settings = of(dataclasses.replace(BRIEF, decoder=decoder))
    assert score(finetune(tiny_encoder(), Static(), Static(5, seed=1), settings, seed=0)) < 0.3


SHORT = dataclasses.replace(BRIEF, steps=10)


def weights(segmenter: Segmenter) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in segmenter.parameters()])


@pytest.mark.parametrize("decoder", ["mask_transformer", "linear"])
def test_a_killed_run_goes_on_as_if_undisturbed(tmp_path: Path, decoder: str) -> None:
    settings = dataclasses.replace(SHORT, decoder=decoder)
    whole = train_segmenter(tiny_encoder(), Quadrants(), settings, seed=0)
    with pytest.raises(KeyError, match="killed"):
        train_segmenter(tiny_encoder(), Quadrants(dies_after=6 * 7 + 2), settings, seed=0, folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["finetune.ckpt"]
    saved = torch.load(tmp_path / "finetune.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    rest = Quadrants(dies_after=6 * 8)  # the six steps that are left, and what is fetched ahead
    resumed = train_segmenter(tiny_encoder(), rest, settings, seed=0, folder=tmp_path)
    assert rest.dies_after >= 0
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train_segmenter(tiny_encoder(), Quadrants(), SHORT, seed=0, folder=tmp_path)
    again = train_segmenter(tiny_encoder(), Quadrants(dies_after=0), SHORT, seed=0, folder=tmp_path)
    assert torch.equal(weights(first), weights(again))


@pytest.mark.parametrize(
    ("encoder", "changes", "seed", "word"),
    [(1, {}, 0, "encoder"), (0, {"lr": 0.1}, 0, "lr"), (0, {}, 1, "seed")],
)
def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, encoder: int, changes: dict[str, float], seed: int, word: str
) -> None:
    train_segmenter(tiny_encoder(), Quadrants(), SHORT, seed=0, folder=tmp_path)
    settings = dataclasses.replace(SHORT, **changes)
    with pytest.raises(ValueError, match=f"got one with {word} .*use another folder"):
        train_segmenter(tiny_encoder(encoder), Quadrants(), settings, seed=seed, folder=tmp_path)


def test_a_run_may_go_on_with_other_settings_of_the_machine(tmp_path: Path) -> None:
    train_segmenter(tiny_encoder(), Quadrants(), SHORT, seed=0, folder=tmp_path)
    settings = dataclasses.replace(SHORT, checkpoint_every=7, stride=16)
    train_segmenter(tiny_encoder(), Quadrants(), settings, seed=0, folder=tmp_path)


def test_the_seed_decides_and_nothing_else() -> None:
    first, other = (weights(train_segmenter(tiny_encoder(), Quadrants(), SHORT, seed=s)) for s in (0, 1))
    torch.manual_seed(99)
    encoder = tiny_encoder().requires_grad_(requires_grad=False).eval()
    torch.manual_seed(98)
    assert torch.equal(first, weights(train_segmenter(encoder, Quadrants(), SHORT, seed=0)))
    assert not torch.equal(first, other)


def test_nothing_outside_is_changed() -> None:
    encoder = tiny_encoder().eval()
    before = copy.deepcopy(encoder.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trained = train_segmenter(encoder, Quadrants(), SHORT, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not encoder.training
    assert all(isinstance(block.drop_path1, torch.nn.Identity) for block in encoder.model.blocks)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key])
    moved = [key for key, value in trained.encoder.named_parameters() if not torch.equal(value, before[key])]
    assert {"model.patch_embed.proj.weight", "model.blocks.0.mlp.fc1.weight"} <= {*moved}


def test_rates_fall_by_layer_and_vectors_are_not_decayed() -> None:
    segmenter = Segmenter(tiny_encoder(), MaskTransformer(16, 3))
    rates = Rates(1.0, 5.0, 0.5, 0.1, PolynomialSchedule(1.0, 0.0))
    crops = CropDataset(Quadrants(), 0, 32, 32, (1.0, 1.0), 0.5, 0.75, segmenter.fill)
    optimizer = SegmenterTraining(segmenter, Feed(crops, 6, 10, 0), rates, {}).configure_optimizers()
    found = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    names = {name: found[id(value)] for name, value in segmenter.named_parameters()}
    expected = {
        "encoder.model.patch_embed.proj.weight": (0.25, 0.1),
        "encoder.model.pos_embed": (0.25, 0.0),
        "encoder.model.blocks.0.attn.qkv.weight": (0.5, 0.1),
        "encoder.model.blocks.1.attn.qkv.bias": (1.0, 0.0),
        "decoder.class_embeddings": (5.0, 0.0),
        "decoder.project.weight": (5.0, 0.1),
    }
    assert {name: (names[name]["lr"], names[name]["weight_decay"]) for name in expected} == expected


def test_drop_path_rises_to_the_last_block() -> None:
    encoder = Segmenter(tiny_encoder(), torch.nn.Identity(), drop_path=0.3).encoder
    first, last = encoder.model.blocks
    assert isinstance(first.drop_path1, torch.nn.Identity)
    assert isinstance(last.drop_path2, DropPath)
    assert last.drop_path2.drop_prob == pytest.approx(0.3)


def test_blocks_that_do_not_run_are_not_trained() -> None:
    plain = tiny_encoder()
    flat = lambda tensor: tuple((tensor.flatten() / 255.0).tolist())  # noqa: E731
    early = Encoder(plain.model, mean=flat(plain.mean), std=flat(plain.std), layers=[0])
    blocks = Segmenter(early, torch.nn.Identity()).encoder.model.blocks
    assert all(value.requires_grad for value in blocks[0].parameters())
    assert not any(value.requires_grad for value in blocks[1].parameters())


@pytest.mark.parametrize("shape", [(40, 56), (20, 90), (9, 7), (64, 64)])
def test_images_of_any_size_are_segmented_at_their_own(shape: tuple[int, int]) -> None:
    """An oracle whose logits are the colours, as bright as the encoder's input."""

    class Colours(Segmenter):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float()

    oracle = Colours(tiny_encoder(), torch.nn.Identity()).eval()
    classes = np.arange(shape[1]) * 3 // shape[1]
    image = np.broadcast_to(COLOURS[classes], (*shape, 3)).astype(np.uint8)
    found = segment(oracle, image, short_side=48, window=32, stride=20, batch=4)
    assert found.shape == shape
    assert (found == classes).mean() > 0.9


def test_the_loss_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels[:, :2] = 255
    shares = np.exp(logits.double().numpy())
    shares /= shares.sum(axis=1, keepdims=True)
    taken = np.take_along_axis(shares, labels.long().clamp_max(2)[:, None].numpy(), axis=1)[:, 0]
    expected = -np.log(taken[labels.numpy() != 255]).mean()
    assert float(labelled_loss(logits, labels)) == pytest.approx(expected, rel=1e-6)
    assert float(labelled_loss(logits, torch.full_like(labels, 255))) == 0.0


def test_missing_memory_is_told_by_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(protocol, "train", exhausted)
    with pytest.raises(MemoryError, match=r"batches of 6 crops of 32 x 32 .* lower batch or crop"):
        finetune(tiny_encoder(), Quadrants(), QUERY, of(SHORT), seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": "upernet"}, "mask_transformer or linear"),
        ({"steps": 0}, "steps to be at least 1"),
        ({"warmup_steps": 10}, "below steps=10"),
        ({"stride": 33}, "from 1 to crop=32"),
        ({"scales": (2.0, 0.5)}, "ascending"),
        ({"lr": float("nan")}, "lr to be finite"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"gradient_clip": 0.0}, "gradient_clip"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    class Unlabelled(Quadrants):
        classes = ()

    encoder, train = tiny_encoder(), Quadrants()
    with pytest.raises(ValueError, match="set crop to 32 or 40"):
        finetune(encoder, train, QUERY, of(dataclasses.replace(SHORT, crop=36)), seed=0)
    with pytest.raises(ValueError, match="same classes"):
        finetune(encoder, train, Unlabelled(), of(SHORT), seed=0)
    with pytest.raises(ValueError, match="lower batch"):
        finetune(encoder, Quadrants(5), QUERY, of(SHORT), seed=0)
    with pytest.raises(ValueError, match="query image"):
        finetune(encoder, train, Quadrants(0), of(SHORT), seed=0)
