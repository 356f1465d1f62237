"""The decoders: shapes, what they are blind to, and the mask transformer against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from tests.doubles import draw
from torch.nn import functional as F

from paka.decoders import LinearDecoder, MaskTransformer


def mask_transformer(classes: int = 5, dim: int = 12, **changes: int) -> MaskTransformer:
    torch.manual_seed(3)
    return MaskTransformer(dim, classes, **{"depth": 2, "heads": 3, **changes}).double().eval()


def patches(*shape: int) -> torch.Tensor:
    return draw(*shape, seed=4).double()


@pytest.mark.parametrize("decoder", [LinearDecoder(12, 5), LinearDecoder(12, 5, batch_norm=True)])
def test_the_linear_decoder_gives_one_map_per_class(decoder: LinearDecoder) -> None:
    assert decoder(patches(2, 3, 7, 12).float()).shape == (2, 5, 3, 7)


def test_the_linear_decoder_is_a_matrix_product() -> None:
    decoder = LinearDecoder(12, 5).double()
    tokens = patches(2, 3, 7, 12)
    expected = tokens @ decoder.classify.weight[:, :, 0, 0].T
    torch.testing.assert_close(decoder(tokens), expected.permute(0, 3, 1, 2))


def test_batch_norm_takes_scale_and_offset_of_the_tokens_away() -> None:
    decoder = LinearDecoder(12, 5, batch_norm=True).double()
    tokens = patches(8, 3, 7, 12)
    torch.testing.assert_close(decoder(100.0 * tokens - 30.0), decoder(tokens), atol=1e-4, rtol=1e-4)


def test_the_mask_transformer_takes_grids_of_any_shape() -> None:
    decoder = mask_transformer()
    for rows, columns in ((1, 1), (3, 7), (6, 2)):
        assert decoder(patches(2, rows, columns, 12)).shape == (2, 5, rows, columns)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    decoder, tokens = mask_transformer(), patches(3, 4, 4, 12)
    torch.testing.assert_close(decoder(tokens)[1:2], decoder(tokens[1:2]))


def test_permuted_patches_give_permuted_maps() -> None:
    decoder, tokens = mask_transformer(), patches(2, 4, 5, 12)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    permuted = tokens.flatten(1, 2)[:, order].unflatten(1, (4, 5))
    torch.testing.assert_close(decoder(permuted).flatten(2), decoder(tokens).flatten(2)[..., order])


def test_permuted_classes_give_permuted_maps() -> None:
    decoder, tokens = mask_transformer(), patches(2, 4, 5, 12)
    before = decoder(tokens)
    order = torch.tensor([3, 0, 4, 1, 2])
    decoder.class_embeddings.data = decoder.class_embeddings.data[order]
    torch.testing.assert_close(decoder(tokens), before[:, order])


def test_a_patch_changes_the_maps_of_the_others() -> None:
    decoder, tokens = mask_transformer(), patches(1, 4, 5, 12)
    changed = tokens.clone()
    changed[0, 0, 0] += 5.0
    assert (decoder(changed) - decoder(tokens))[0, :, 3, 4].abs().max() > 1e-4


def test_without_blocks_it_is_the_formula() -> None:
    """Layer normalisation, over the classes, of the cosine similarity of projected patches and classes."""
    decoder, tokens = mask_transformer(depth=0), patches(2, 3, 4, 12)
    found = decoder(tokens)

    def standard(values: torch.Tensor) -> torch.Tensor:
        centred = values - values.mean(dim=-1, keepdim=True)
        return centred / (values.var(dim=-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    project = decoder.project
    left = standard(tokens @ project.weight.T + project.bias) @ decoder.project_patches.weight.T
    right = standard(decoder.class_embeddings) @ decoder.project_classes.weight.T
    cosine = F.cosine_similarity(left[..., None, :], right, dim=-1)
    torch.testing.assert_close(found, standard(cosine).permute(0, 3, 1, 2))


def test_logits_are_normalised_over_the_classes() -> None:
    logits = mask_transformer()(patches(2, 4, 4, 12))
    torch.testing.assert_close(logits.mean(dim=1), torch.zeros(2, 4, 4, dtype=torch.float64))


def test_every_weight_gets_a_gradient() -> None:
    decoder = mask_transformer()
    decoder(patches(2, 3, 3, 12)).square().mul(patches(2, 5, 3, 3)).sum().backward()
    assert all(
        value.grad is not None and value.grad.abs().sum() > 0
        for name, value in decoder.named_parameters()
        if not name.endswith("k.bias")
    )


@pytest.mark.parametrize(("dim", "heads"), [(384, 6), (768, 12), (16, 1), (200, 2)])
def test_heads_have_64_channels_or_more(dim: int, heads: int) -> None:
    assert MaskTransformer(dim, 2, 1).blocks[0].attn.num_heads == heads


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="divide the 12 channels, got 5: take 1"):
        MaskTransformer(12, 3, heads=5)
    with pytest.raises(ValueError, match="at least 2 classes"):
        MaskTransformer(12, 1)
