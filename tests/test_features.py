"""Feature extraction and the training-free changes of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.doubles import NoiseImages, tiny_encoder

from paka.features import TRANSFORMS, DenseFeatures, extract, read_masks, whiten, zscore


def test_tokens_do_not_depend_on_the_batch_and_the_mode_is_restored() -> None:
    encoder = tiny_encoder().train()
    whole = extract(encoder, NoiseImages(), grid=(3, 4), indices=range(5), batch_size=5)
    single = extract(encoder, NoiseImages(), grid=(3, 4), indices=range(5), batch_size=2)
    assert encoder.training
    assert whole.tokens.shape == (5, 3, 4, 16)
    assert whole.labels.shape == (5, 24, 32)
    assert whole.num_classes == 2
    torch.testing.assert_close(whole.tokens, single.tokens, atol=1e-5, rtol=1e-4)


def test_masks_are_resized_to_existing_ids_only() -> None:
    masks = read_masks(NoiseImages(), [0, 3], (24, 20))
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


def test_whitening_makes_the_covariance_of_the_training_tokens_the_identity() -> None:
    train, query = whiten(random_features(0), random_features(1))
    torch.testing.assert_close(train.tokens.flatten(0, 2).T.cov(), torch.eye(6), atol=1e-3, rtol=0)
    assert not torch.allclose(query.tokens.flatten(0, 2).T.cov(), torch.eye(6), atol=1e-3)


@pytest.mark.parametrize("name", ["zscore", "whiten"])
def test_transforms_are_fitted_on_the_training_side_only(name: str) -> None:
    transform = TRANSFORMS[name]
    assert transform is not None
    first, _ = transform(random_features(0), random_features(1))
    second, _ = transform(random_features(0), random_features(2))
    torch.testing.assert_close(first.tokens, second.tokens, rtol=0, atol=0)
