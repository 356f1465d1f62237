"""Feature extraction and the training-free changes of tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder

from paka.diagnostics import positional_r2
from paka.features import TRANSFORMS, DenseFeatures, extract, rasa, read_masks, whiten, zscore
from paka.frames import Frame
from paka.workspace import Workspace


def test_tokens_do_not_depend_on_the_batch_and_the_mode_is_restored() -> None:
    encoder = tiny_encoder().train()
    encoder.model.blocks[0].eval()
    whole = extract(
        encoder,
        NoiseImages(),
        frame=Frame(3, 4, 8, "stretch"),
        indices=range(5),
        workspace=Workspace(batch=5),
    )
    single = extract(
        encoder,
        NoiseImages(),
        frame=Frame(3, 4, 8, "stretch"),
        indices=range(5),
        workspace=Workspace(batch=2),
    )
    assert encoder.training
    assert encoder.model.blocks[1].training
    assert not encoder.model.blocks[0].training
    assert whole.tokens.shape == (5, 3, 4, 16)
    assert whole.labels.shape == (5, 24, 32)
    assert whole.num_classes == 2
    torch.testing.assert_close(whole.tokens, single.tokens, atol=1e-5, rtol=1e-4)


def test_masks_are_resized_to_existing_ids_only() -> None:
    masks = read_masks(NoiseImages(), [0, 3], Frame(6, 5, 4, "stretch"))
    assert masks.unique().tolist() == [0, 1]
    np.testing.assert_array_equal(masks[0], NoiseImages().mask(0)[1::2, 1::2])


def random_features(seed: int) -> DenseFeatures:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(9))
    tokens = torch.randn(8, 5, 5, 6, generator=generator) @ mixing + 3.0
    return DenseFeatures(tokens, torch.zeros(8, 5, 5, dtype=torch.uint8), 2)


def test_zscore_standardises_every_channel_of_the_training_tokens() -> None:
    train, _ = zscore(random_features(0), random_features(1))
    flat = train.tokens.flatten(0, 2)
    torch.testing.assert_close(flat.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.ones(6), atol=1e-5, rtol=0)


def own_and_repeated(seed: int) -> DenseFeatures:
    """Features whose frames are filled up, below the images, by tokens unlike theirs."""
    plain = random_features(seed)
    valid = torch.ones(plain.tokens.shape[:3], dtype=torch.bool)
    valid[:, -1] = False
    tokens = plain.tokens.clone()
    tokens[:, -1] = 40 + 3 * tokens[:, -1]
    return replace(plain, tokens=tokens, valid=valid)


@pytest.mark.parametrize("name", ["zscore", "whiten"])
def test_changes_are_fitted_on_the_images_own_tokens(name: str) -> None:
    change, (train, query) = TRANSFORMS[name], (own_and_repeated(0), own_and_repeated(1))
    other = replace(train, tokens=torch.where(train.valid[..., None], train.tokens, -7.0))
    first, second = (change(side, query)[1].tokens for side in (train, other))
    assert torch.equal(first, second)


def test_whitening_makes_the_covariance_of_the_training_tokens_the_identity() -> None:
    train, query = whiten(random_features(0), random_features(1))
    torch.testing.assert_close(train.tokens.flatten(0, 2).T.cov(), torch.eye(6), atol=1e-3, rtol=0)
    assert not torch.allclose(query.tokens.flatten(0, 2).T.cov(), torch.eye(6), atol=1e-3)


@pytest.mark.parametrize("name", ["zscore", "whiten", "rasa"])
def test_transforms_are_fitted_on_the_training_side_only(name: str) -> None:
    transform, features = TRANSFORMS[name], placed_features if name == "rasa" else random_features
    assert transform is not None
    first, _ = transform(features(0), features(1))
    second, _ = transform(features(0), features(2))
    torch.testing.assert_close(first.tokens, second.tokens, rtol=0, atol=0)


def test_rasa_needs_more_channels_than_it_removes() -> None:
    with pytest.raises(ValueError, match="more than 18 channels, got 6"):
        rasa(random_features(0), random_features(1))


def placed_features(seed: int) -> DenseFeatures:
    """Content in two channels of 40, curved functions of the position spread over all of them, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 7), torch.linspace(-1, 1, 7), indexing="ij")
    waves = torch.stack([rows, columns, rows**3, columns**3, rows.sin(), (2 * columns).sin()], dim=-1)
    mixing = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(3))).Q
    content = torch.randn(30, 7, 7, 2, generator=generator)
    noise = 0.05 * torch.randn(30, 7, 7, 40, generator=generator)
    tokens = waves @ mixing[:6] + content @ mixing[6:8] + noise
    return DenseFeatures(tokens, content[..., :1].gt(0)[..., 0].to(torch.uint8), 2)


def test_rasa_removes_position_and_leaves_content() -> None:
    train, query = placed_features(0), placed_features(1)
    assert positional_r2(query.tokens) > 0.95
    _, changed = rasa(train, query)
    assert positional_r2(changed.tokens) < 0.05
    singular = torch.linalg.svdvals(changed.tokens.flatten(0, 2).double())
    assert int((singular > 1e-5 * singular[0]).sum()) == 40 - 18
    kept = torch.linalg.lstsq(changed.tokens.flatten(0, 2), query.tokens.flatten(0, 2)).solution
    mixing = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(3))).Q
    content = query.tokens.flatten(0, 2) @ mixing[6:8].T
    recovered = changed.tokens.flatten(0, 2) @ kept @ mixing[6:8].T
    assert (recovered - content).square().mean() < 0.05 * content.var()
