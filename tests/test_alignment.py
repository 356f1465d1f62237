"""Centring, HSIC and CKA against float64 loops, closed forms and their invariances."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from paka.alignment import (
    BINS,
    centre,
    cka,
    deconfounded_cka,
    feature_cka,
    hsic,
    kernel_alignment,
    locality,
    mean_of_other_images,
    pooled_alignment,
)
from paka.kernels import Kernel, cosine, linear, rbf

Array = NDArray[np.float64]
KERNELS: list[Kernel] = [linear, cosine, rbf]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_valid(images: int, tokens: int) -> Tensor:
    return torch.rand(images, tokens, generator=torch.Generator().manual_seed(99)) < 0.7


def everything(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool)


def symmetric(*shape: int, seed: int) -> Tensor:
    kernel = draw(*shape, seed=seed)
    return kernel + kernel.transpose(1, 2)


def similarity(student: Tensor, teacher: Tensor, valid: Tensor, kernel: Kernel = linear) -> Tensor:
    return cka(kernel(student, teacher, valid), kernel(teacher, teacher, valid), valid)


def centre_reference(k: Array) -> Array:
    n = len(k)
    out = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            total = sum(k[a, b] for a in range(n) for b in range(n))
            out[i, j] = k[i, j] - sum(k[i, :]) / n - sum(k[:, j]) / n + total / n**2
    return out


def hsic_reference(a: Array, b: Array) -> float:
    n = len(a)
    h = np.array([[(i == j) - 1 / n for j in range(n)] for i in range(n)])
    return float(np.trace(a @ h @ b @ h)) / (n - 1) ** 2


def cka_reference(a: Array, b: Array) -> float:
    return hsic_reference(a, b) / float(np.sqrt(hsic_reference(a, a) * hsic_reference(b, b)))


def test_centre_equals_its_equation_over_valid_tokens() -> None:
    kernel, valid = symmetric(3, 8, 8, seed=1), some_valid(3, 8)
    out = centre(kernel, valid)
    torch.testing.assert_close(out.sum(dim=1), torch.zeros(3, 8), atol=1e-5, rtol=0)
    for image, kept in enumerate(valid):
        expected = centre_reference(kernel[image][kept][:, kept].double().numpy())
        np.testing.assert_allclose(out[image][kept][:, kept].numpy(), expected, atol=1e-5)
        assert out[image][~kept].abs().sum() == 0
        assert out[image][:, ~kept].abs().sum() == 0


def test_hsic_and_cka_equal_their_equations() -> None:
    valid = some_valid(4, 10)
    one, two = symmetric(4, 10, 10, seed=2) + 5, symmetric(4, 10, 10, seed=3)
    for image, kept in enumerate(valid):
        a, b = (kernel[image][kept][:, kept].double().numpy() for kernel in (one, two))
        assert hsic(one, two, valid)[image].item() == pytest.approx(hsic_reference(a, b), rel=1e-4, abs=1e-5)
        assert cka(one, two, valid)[image].item() == pytest.approx(cka_reference(a, b), rel=1e-4, abs=1e-6)
    ratio = hsic(one, two, valid) / (hsic(one, one, valid) * hsic(two, two, valid)).sqrt()
    torch.testing.assert_close(cka(one, two, valid), ratio)


def test_linear_cka_equals_its_feature_form() -> None:
    """CKA = |X'Y|^2 / (|X'X| |Y'Y|) for centred X, Y: Kornblith et al. 2019, section 3."""
    x, y = draw(20, 6, seed=4, dtype=torch.float64), draw(20, 9, seed=5, dtype=torch.float64)
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    valid = everything(x[None])
    out = cka(linear(x[None], y[None], valid), linear(y[None], y[None], valid), valid)
    torch.testing.assert_close(out[0], expected)


@pytest.mark.parametrize("masked", [False, True])
def test_biased_linear_cka_equals_an_independent_implementation(masked: bool) -> None:
    """scikit-learn's linear kernel and its centring of it."""
    library = pytest.importorskip("sklearn.preprocessing")
    student, teacher = draw(8, 49, 32, seed=50), draw(8, 49, 32, seed=51) + 2
    student = student + 0.7 * teacher
    valid = some_valid(8, 49) if masked else everything(student)
    out = similarity(student, teacher, valid)
    for image, kept in enumerate(valid):
        x, y = (side[image][kept].double().numpy() for side in (student, teacher))
        k, l = (library.KernelCenterer().fit_transform(z @ z.T) for z in (x, y))  # noqa: E741
        expected = (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
        assert out[image].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e2, 1e4])
def test_cka_of_equal_tokens_is_one_at_any_scale(kernel: Kernel, scale: float) -> None:
    tokens = draw(3, 49, 32, seed=6) * scale
    torch.testing.assert_close(similarity(tokens, tokens, everything(tokens), kernel), torch.ones(3))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_cka_of_rotated_scaled_shifted_tokens_is_one(scale: float) -> None:
    tokens = draw(2, 49, 16, seed=7)
    rotation = torch.linalg.qr(draw(16, 16, seed=8)).Q
    moved = (tokens @ rotation + 5) * scale
    out = similarity(moved, tokens, everything(tokens))
    torch.testing.assert_close(out, torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
def test_cka_and_its_relative_gradient_do_not_depend_on_scale(scale: float) -> None:
    """The gradient d CKA / d log z is the same at every scale, up to the 1e-8 ... 1e8 of its kernels."""
    student, teacher = draw(2, 49, 32, seed=9), draw(2, 49, 32, seed=10)
    small = (student * scale).requires_grad_()
    student.requires_grad_()
    valid = everything(student)
    expected, out = similarity(student, teacher, valid), similarity(small, teacher / scale, valid)
    torch.testing.assert_close(out, expected)
    (one,) = torch.autograd.grad(expected.sum(), student)
    (other,) = torch.autograd.grad(out.sum(), small)
    torch.testing.assert_close(other * scale, one, rtol=1e-3, atol=1e-6)
    assert one.abs().max() > 1e-4


@pytest.mark.parametrize(("tokens", "channels"), [(49, 49), (49, 384), (49, 768), (196, 64)])
def test_cka_of_independent_gaussians(tokens: int, channels: int) -> None:
    """The bias of the biased estimator: close to D / (D + N)."""
    student, teacher = draw(64, tokens, channels, seed=11), draw(64, tokens, channels, seed=12)
    out = similarity(student, teacher, everything(student)).mean().item()
    assert out == pytest.approx(channels / (channels + tokens), abs=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_permuting_tokens_together_changes_nothing_and_apart_lowers_cka(kernel: Kernel) -> None:
    student = draw(4, 49, 4, seed=13)
    teacher = student + 0.1 * draw(4, 49, 4, seed=14)
    valid = everything(student)
    order = torch.randperm(49, generator=torch.Generator().manual_seed(15))
    expected = similarity(student, teacher, valid, kernel)
    torch.testing.assert_close(similarity(student[:, order], teacher[:, order], valid, kernel), expected)
    assert (similarity(student[:, order], teacher, valid, kernel) < expected - 0.3).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_cka_lies_between_zero_and_one(kernel: Kernel) -> None:
    student, teacher = draw(200, 9, 3, seed=16), draw(200, 9, 3, seed=17)
    out = similarity(student, teacher, some_valid(200, 9), kernel)
    assert out.min() > -1e-6
    assert out.max() < 1 + 1e-6


@pytest.mark.parametrize("kernel", KERNELS)
def test_invalid_tokens_are_as_good_as_dropped(kernel: Kernel) -> None:
    student, teacher, valid = draw(3, 20, 5, seed=18), draw(3, 20, 5, seed=19), some_valid(3, 20)
    out = similarity(student, teacher, valid, kernel)
    for image, kept in enumerate(valid):
        few = student[image, kept][None], teacher[image, kept][None]
        torch.testing.assert_close(out[image], similarity(*few, everything(few[0]), kernel)[0])


@pytest.mark.parametrize("kernel", [*KERNELS, partial(rbf, bandwidth=2.0, bandwidth_rule="fixed")])
def test_gradcheck_of_cka_with_a_mask(kernel: Kernel) -> None:
    student = draw(2, 6, 4, seed=20, dtype=torch.float64).requires_grad_()
    teacher, valid = draw(2, 6, 4, seed=21, dtype=torch.float64), some_valid(2, 6)
    assert torch.autograd.gradcheck(lambda z: similarity(z, teacher, valid, kernel), student)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [0.0, 3.7, 1e-4, 1e4])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_a_collapsed_side_has_no_alignment_and_no_gradient(kernel: Kernel, value: float, side: str) -> None:
    flat, lively = torch.full((2, 49, 8), value), draw(2, 49, 8, seed=22)
    student = (lively if side == "teacher" else flat).clone().requires_grad_()
    teacher = lively if side == "student" else flat
    out = similarity(student, teacher, everything(student), kernel)
    (gradient,) = torch.autograd.grad(out.sum(), student)
    assert torch.equal(out, torch.zeros(2))
    assert torch.equal(gradient, torch.zeros_like(student))


@pytest.mark.parametrize("constant", [1.0, 3.7, 1e6])
def test_a_constant_kernel_is_collapsed_whatever_rounding_leaves_of_it(constant: float) -> None:
    kernel = torch.full((1, 49, 49), constant)
    assert cka(kernel, symmetric(1, 49, 49, seed=23), torch.ones(1, 49, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_valid_tokens_align_to_zero(count: int) -> None:
    student, teacher = draw(1, 9, 4, seed=24).requires_grad_(), draw(1, 9, 4, seed=25)
    valid = torch.arange(9)[None] < count
    for kernel in KERNELS:
        out = similarity(student, teacher, valid, kernel)
        k_teacher = kernel(teacher, teacher, valid)
        assert out.item() == 0
        assert hsic(k_teacher, k_teacher, valid).item() == 0
        (gradient,) = torch.autograd.grad(out.sum(), student)
        assert torch.equal(gradient, torch.zeros_like(student))


def test_wide_rbf_aligns_like_linear() -> None:
    student, teacher = draw(3, 49, 16, seed=26), draw(3, 49, 16, seed=27)
    valid = everything(student)
    wide = similarity(student, teacher, valid, partial(rbf, bandwidth=1e3))
    torch.testing.assert_close(wide, similarity(student, teacher, valid), atol=1e-4, rtol=0)
    narrow = similarity(student, teacher, valid, partial(rbf, bandwidth=0.5))
    assert ((narrow - wide).abs() > 0.01).all()


def test_autocast_changes_nothing() -> None:
    student, teacher, valid = draw(2, 12, 64, seed=28), draw(2, 12, 64, seed=29), some_valid(2, 12)
    for kernel in KERNELS:
        expected = similarity(student, teacher, valid, kernel)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = similarity(student, teacher, valid, kernel)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, expected)
    half = linear(student, teacher, valid).bfloat16()
    assert {f(half, half, valid).dtype for f in (cka, hsic)} == {centre(half, valid).dtype} == {torch.float32}


def test_no_pairs_give_no_values() -> None:
    empty = torch.zeros(0, 49, 49)
    assert cka(empty, empty, torch.zeros(0, 49, dtype=torch.bool)).shape == (0,)


def deconfounded_reference(
    student: Array, teacher: Array, valid: NDArray[np.bool_], image: list[int]
) -> list[float]:
    def residuals(kernels: Array) -> list[Array]:
        n = kernels.shape[1]
        units = np.zeros_like(kernels)
        for p in range(len(kernels)):
            chosen = np.ix_(valid[p], valid[p])
            centred = centre_reference(kernels[p][chosen])
            units[p][chosen] = centred / np.linalg.norm(centred)
        left = []
        for p in range(len(kernels)):
            mean = np.zeros((n, n))
            for i in range(n):
                for j in range(n):
                    others = [
                        q for q in range(len(kernels)) if image[q] != image[p] and valid[q, i] and valid[q, j]
                    ]
                    mean[i, j] = np.mean([units[q, i, j] for q in others]) if others else 0
            chosen = np.ix_(valid[p], valid[p])
            confounder = centre_reference(mean[chosen]).ravel()
            own = units[p][chosen].ravel()
            left.append(own - (own @ confounder) / (confounder @ confounder) * confounder)
        return left

    pairs = zip(residuals(student), residuals(teacher), strict=True)
    return [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in pairs]


@pytest.mark.parametrize("masked", [False, True])
def test_deconfounded_cka_equals_its_reference(masked: bool) -> None:
    image = torch.tensor([0, 0, 1, 2, 2])
    student, teacher = symmetric(5, 9, 9, seed=1), symmetric(5, 9, 9, seed=2) + symmetric(1, 9, 9, seed=3)
    valid = some_valid(5, 9) if masked else torch.ones(5, 9, dtype=torch.bool)
    expected = deconfounded_reference(
        student.double().numpy(), teacher.double().numpy(), valid.numpy(), image.tolist()
    )
    result = deconfounded_cka(student, teacher, valid, image)
    torch.testing.assert_close(result, torch.tensor(expected).float(), atol=1e-5, rtol=0)


def test_what_all_images_share_does_not_align_them() -> None:
    position = linear(draw(1, 16, 2), draw(1, 16, 2), torch.ones(1, 16, dtype=torch.bool))
    student, teacher = draw(8, 16, 6, seed=1), draw(8, 16, 6, seed=2)
    valid, image = everything(student), torch.arange(8)
    k_student = linear(student, student, valid) + 100 * position
    k_teacher = linear(teacher, teacher, valid) + 100 * position
    assert (cka(k_student, k_teacher, valid) > 0.9).all()
    shared = deconfounded_cka(k_student, k_teacher, valid, image)
    unshared = deconfounded_cka(
        linear(student, student, valid), linear(teacher, teacher, valid), valid, image
    )
    torch.testing.assert_close(shared, unshared, atol=0.15, rtol=0)


def test_content_that_several_pairs_of_an_image_share_counts() -> None:
    tokens = draw(3, 16, 6).repeat_interleave(4, dim=0)
    k, valid, image = (
        linear(tokens, tokens, everything(tokens)),
        everything(tokens),
        torch.arange(3).repeat_interleave(4),
    )
    torch.testing.assert_close(deconfounded_cka(k, k, valid, image), torch.ones(12))
    alike = linear(tokens[:1], tokens[:1], everything(tokens[:1])).expand(12, -1, -1)
    assert deconfounded_cka(alike, alike, valid, image).abs().max() < 1e-4


def test_gradients_of_deconfounded_cka() -> None:
    valid, image = some_valid(4, 6), torch.tensor([0, 0, 1, 1])
    teacher = symmetric(4, 6, 6, seed=2).double()
    tokens = draw(4, 6, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: deconfounded_cka(linear(z, z, valid), teacher, valid, image), tokens
    )


def song_reference(k: Array, l: Array) -> float:  # noqa: E741
    """Song et al. 2012, the unbiased HSIC as it stands."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    trace = sum(k[i, j] * l[j, i] for i in range(n) for j in range(n))
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((trace + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3)))


@pytest.mark.parametrize("tokens", [4, 5, 12, 49])
def test_unbiased_hsic_and_cka_equal_song_et_al(tokens: int) -> None:
    one, two = symmetric(3, tokens, tokens, seed=2) + 5, symmetric(3, tokens, tokens, seed=3)
    valid = torch.ones(3, tokens, dtype=torch.bool)
    valid[1, 4:] = False
    valid[2] = some_valid(1, tokens)[0] | (torch.arange(tokens) < 4)
    for image, kept in enumerate(valid):
        a, b = (kernel[image][kept][:, kept].double().numpy() for kernel in (one, two))
        expected = song_reference(a, b)
        assert hsic(one, two, valid, unbiased=True)[image].item() == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )
        expected /= np.sqrt(song_reference(a, a) * song_reference(b, b))
        assert cka(one, two, valid, unbiased=True)[image].item() == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )


def test_unbiased_hsic_needs_four_tokens() -> None:
    kernel = symmetric(1, 6, 6, seed=1).requires_grad_()
    for count in range(4):
        valid = torch.arange(6)[None] < count
        assert hsic(kernel, kernel, valid, unbiased=True).item() == 0
        out = cka(kernel, kernel.detach(), valid, unbiased=True)
        assert out.item() == 0
        assert torch.autograd.grad(out.sum(), kernel)[0].abs().sum() == 0


def test_debiased_cka_of_independent_gaussians_is_zero() -> None:
    student, teacher = draw(200, 49, 384, seed=31), draw(200, 49, 384, seed=32)
    valid = everything(student)
    k, l = linear(student, student, valid), linear(teacher, teacher, valid)  # noqa: E741
    out = cka(k, l, valid, unbiased=True)
    assert abs(out.mean()) < 3 * out.std() / 200**0.5
    assert cka(k, l, valid).mean().item() == pytest.approx(384 / (384 + 49), abs=0.01)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("shape", [(49, 384), (300, 32), (4, 3), (64, 64)])
def test_feature_form_equals_gram_form(shape: tuple[int, int], unbiased: bool) -> None:
    student, teacher = (draw(3, *shape, seed=seed, dtype=torch.float64) + 10 for seed in (33, 34))
    valid = some_valid(3, shape[0])
    valid[:, :4] = True
    valid[2, 3:] = False  # three tokens: too few if unbiased
    student.requires_grad_()
    x, y = (centred_tokens(side, valid) for side in (student, teacher))
    features = feature_cka(x, y, valid, unbiased=unbiased)
    gram = cka(x @ x.transpose(1, 2), y @ y.transpose(1, 2), valid, unbiased=unbiased)
    torch.testing.assert_close(features, gram)
    one, two = (torch.autograd.grad(out.sum(), student, retain_graph=True)[0] for out in (features, gram))
    torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-6)
    if shape[0] > 4:  # four tokens have two relations, and lose digits
        torch.testing.assert_close(
            feature_cka(x.float(), y.float(), valid, unbiased=unbiased),
            features.float(),
            atol=1e-5,
            rtol=1e-5,
        )


def centred_tokens(tokens: Tensor, valid: Tensor) -> Tensor:
    tokens = torch.where(valid[:, :, None], tokens, 0)
    mean = tokens.sum(dim=1, keepdim=True) / valid.sum(dim=1)[:, None, None].clamp_min(1)
    return torch.where(valid[:, :, None], tokens - mean, 0)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_feature_form_of_collapsed_tokens_is_zero(unbiased: bool, scale: float) -> None:
    flat = torch.zeros(1, 49, 8, requires_grad=True)
    other = centred_tokens(scale * draw(1, 49, 8, seed=35), everything(flat))
    for a, b in ((flat, other), (other, flat), (flat, flat)):
        out = feature_cka(a, b, everything(flat), unbiased=unbiased)
        assert out.item() == 0
        assert torch.autograd.grad(out.sum(), flat)[0].abs().sum() == 0
    same = feature_cka(other, scale * other, everything(flat), unbiased=unbiased)
    assert same.item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_pooled_alignment_is_a_ratio_of_means(unbiased: bool) -> None:
    one, two = 100 * symmetric(4, 9, 9, seed=36), symmetric(4, 9, 9, seed=37)
    valid = torch.ones(4, 9, dtype=torch.bool)
    valid[1, 6:] = False
    weight = torch.tensor([1.0, 0.5, 0.5, 0.0])
    a, b = (centre(side, valid, unbiased=unbiased) for side in (one, two))
    terms = [hsic(*pair, valid, unbiased=unbiased) @ weight for pair in ((one, two), (one, one), (two, two))]
    out = pooled_alignment(a, b, valid, weight, unbiased=unbiased)
    torch.testing.assert_close(out, terms[0] / (terms[1] * terms[2]).sqrt())
    torch.testing.assert_close(pooled_alignment(1e-6 * a, b, valid, weight, unbiased=unbiased), out)
    assert pooled_alignment(0 * a, b, valid, weight, unbiased=unbiased) == 0
    assert pooled_alignment(a, b, valid, 0 * weight, unbiased=unbiased) == 0
    empty = torch.zeros(0, 9, 9)
    assert pooled_alignment(empty, empty, valid[:0], weight[:0], unbiased=unbiased) == 0


def smooth_fields(images: int, channels: int, length: float, *, seed: int) -> Tensor:
    """Gaussian fields on a 7 x 7 grid with correlation exp(-d^2 / (2 length^2)), (images, 49, channels)."""
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    points = torch.stack([y, x], dim=-1).flatten(0, 1).double()
    covariance = torch.exp(-torch.cdist(points, points).square() / (2 * length**2))
    root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(49))
    return (root @ draw(images, 49, channels, seed=seed, dtype=torch.float64)).float()


@pytest.mark.parametrize("unbiased", [False, True])
def test_deconfounding_tells_shared_locality_from_shared_content(unbiased: bool) -> None:
    """32 images of independent smooth fields: correlation length 1.5 tokens, 256 channels."""
    student, teacher = smooth_fields(32, 256, 1.5, seed=38), smooth_fields(32, 256, 1.5, seed=39)
    valid, image = everything(student), torch.arange(32)

    def score(a: Tensor, b: Tensor) -> float:
        kernels = linear(a, a, valid), linear(b, b, valid)
        return deconfounded_cka(*kernels, valid, image, unbiased=unbiased).mean().item()

    kernels = linear(student, student, valid), linear(teacher, teacher, valid)
    assert cka(*kernels, valid, unbiased=unbiased).mean() > 0.9, "locality alone looks like alignment"
    assert score(student, teacher) == pytest.approx(0, abs=0.05)
    content = (
        draw(32, 49, 4, seed=40) @ draw(4, 256, seed=41) / 2
    )  # four things to see, of variance 1 a channel
    assert score(student + content, teacher + content) > 0.9


def test_pairs_are_deconfounded_by_kind() -> None:
    student, teacher = symmetric(6, 9, 9, seed=42), symmetric(6, 9, 9, seed=43)
    valid, image = torch.ones(6, 9, dtype=torch.bool), torch.tensor([0, 0, 1, 1, 2, 2])
    bins = torch.tensor([0, 1, 0, 1, 0, 1])
    together = deconfounded_cka(student, teacher, valid, image, bins)
    for kind in (0, 1):
        own = bins == kind
        apart = deconfounded_cka(student[own], teacher[own], valid[own], image[own])
        torch.testing.assert_close(together[own], apart)
    alone = deconfounded_cka(student, teacher, valid, image, torch.arange(6) % BINS)
    torch.testing.assert_close(alone, cka(student, teacher, valid))


def test_locality_is_the_part_of_cka_that_other_images_explain() -> None:
    student, teacher = symmetric(5, 9, 9, seed=44), symmetric(5, 9, 9, seed=45) + symmetric(1, 9, 9, seed=46)
    valid, image = torch.ones(5, 9, dtype=torch.bool), torch.arange(5)
    a, b = (centre(side, valid).double() for side in (student, teacher))
    a, b = (side / side.square().sum(dim=(1, 2), keepdim=True).sqrt() for side in (a, b))
    for p, own in enumerate(locality(student, teacher, valid, image)):
        mean = (b.sum(0) - b[p]) / 4
        mean /= mean.norm()
        left = [side[p] - (side[p] * mean).sum() * mean for side in (a, b)]
        explained = (a[p] * mean).sum() * (mean * b[p]).sum()
        assert own.item() == pytest.approx(explained.item(), abs=1e-5)
        assert cka(student, teacher, valid)[p].item() == pytest.approx(
            (explained + (left[0] * left[1]).sum()).item(), abs=1e-5
        )
    shared = symmetric(1, 9, 9, seed=47).expand(5, -1, -1)
    torch.testing.assert_close(locality(shared, shared, valid, image), torch.ones(5))
    assert mean_of_other_images(b.float(), valid, torch.zeros_like(image)).abs().max() == 0


def test_kernel_alignment_is_a_cosine() -> None:
    one, two = symmetric(2, 5, 5, seed=48), symmetric(2, 5, 5, seed=49)
    expected = torch.nn.functional.cosine_similarity(one.flatten(1), two.flatten(1))
    torch.testing.assert_close(kernel_alignment(one * 1e15, two * 1e-15), expected)
