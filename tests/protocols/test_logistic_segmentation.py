"""Logistic segmentation against scikit-learn's logistic regression of patches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.preprocessing import StandardScaler
from tests.protocols.synthetic import CLASSES, PROFILE
from tests.protocols.test_knn_segmentation import blurred, macro_jaccard, mode, patches

from paka.protocols import Profile
from paka.protocols import logistic_segmentation as protocol
from paka.protocols.classification import held_out
from paka.protocols.linear_classification import Standard, fit_logistic, least_loss, token_standard
from paka.protocols.logistic_segmentation import LogisticSegmentation, fit_patches, logistic_segmentation
from paka.protocols.patches import labelled_patches, patch_classes
from paka.sources import VOID

CHOICES = LogisticSegmentation(powers=(-4.0, 2.0), strengths=4)


def profile(settings: LogisticSegmentation = CHOICES, **changes: object) -> Profile:
    return dataclasses.replace(PROFILE, settings={"logistic_segmentation": settings}, **changes)


def test_the_grid_is_the_published_one() -> None:
    assert LogisticSegmentation().grid == pytest.approx((10 ** np.linspace(-6, 5, 8)).tolist())


@pytest.mark.parametrize("inverse", [1e-3, 1.0])
@pytest.mark.parametrize("rows", [7, 10_000])
def test_patches_are_fitted_as_scikit_learn_fits_them(
    inverse: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATCHES", rows)
    train = blurred(12)
    images, classes = torch.arange(12), patch_classes(train, void=True)
    standard = token_standard(train.tokens.flatten(1, 2))
    found = labelled_patches(train, images, classes, standard)
    probe = fit_patches(found, train, standard, inverse, 1000)
    reference = Reference(C=inverse, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    reference.fit(found.tokens.double().numpy(), found.classes.numpy())
    expected = reference.predict_log_proba(standard(train.tokens).double().numpy().reshape(-1, 12))
    logits = probe(train.tokens.flatten(0, 2))
    np.testing.assert_allclose(logits.log_softmax(dim=1).numpy(), expected, atol=5e-3)


@pytest.mark.parametrize("void", [False, True])
def test_it_equals_the_protocol_in_scikit_learn(void: bool) -> None:
    train, query = blurred(20), blurred(6, seed=1)
    fit, held = (side.numpy() for side in held_out(20, 0))
    train.tokens[held] *= torch.logspace(
        1, -1, 12
    )  # so that it shows by which images tokens are standardised
    tokens = train.tokens.double().numpy().reshape(20, 36, 12)
    names = mode(patches(train.labels.numpy()), void=void)
    scaler = StandardScaler().fit(tokens[fit].reshape(-1, 12))

    def segment(inverse: float, images: np.ndarray, side: np.ndarray) -> np.ndarray:
        kept = names[images].flatten() != VOID
        model = Reference(C=inverse, solver="newton-cholesky", tol=1e-10, max_iter=1000)
        model.fit(scaler.transform(tokens[images].reshape(-1, 12))[kept], names[images].flatten()[kept])
        found = model.predict(scaler.transform(side.reshape(-1, 12)))
        return found.reshape(-1, 6, 6).repeat(4, axis=1).repeat(4, axis=2)

    truth = train.labels.numpy()[held]
    scores = [macro_jaccard(truth, segment(c, fit, tokens[held])) for c in CHOICES.grid]
    best = CHOICES.grid[int(np.argmax(scores))]
    expected = segment(best, np.arange(20), query.tokens.double().numpy())
    found = logistic_segmentation(
        train, query, profile(patch_void="vote" if void else "skip", absent="drop"), seed=0
    )
    assert found.stated == {"note": f"C = {best:.3g}", "upsampling": "nearest"}
    pictures = np.stack([found.pictures[n].numpy() for n in range(6)])
    assert (pictures != expected).mean() < 0.005, "a patch between two classes may go to either"
    assert found.score == pytest.approx(macro_jaccard(query.labels.numpy(), expected), abs=0.01)


def test_batches_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, truth = torch.randn(90, 5, generator=generator), torch.arange(90) % CLASSES
    whole = fit_logistic(inputs, truth, CLASSES, 1e-2)
    standard = Standard(whole.standard.mean, whole.standard.deviation)
    parts = [(standard(part), labels) for part, labels in zip(inputs.split(40), truth.split(40), strict=True)]
    weight, bias = least_loss(parts, CLASSES, 1e-2, device=torch.device("cpu"))
    torch.testing.assert_close(weight, whole.weight, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(bias, whole.bias, atol=1e-4, rtol=1e-3)


def test_the_standard_is_that_of_the_chosen_images() -> None:
    tokens = torch.randn(9, 4, 5, generator=torch.Generator().manual_seed(0)) + 3
    found = token_standard(tokens, images=torch.tensor([2, 7]), batch=1)
    rows = tokens[[2, 7]].flatten(0, 1)
    torch.testing.assert_close(found.mean, rows.mean(dim=0))
    torch.testing.assert_close(found.deviation, rows.std(dim=0, correction=0))


def test_each_patch_has_one_class() -> None:
    found = logistic_segmentation(blurred(20), blurred(6, seed=1), profile(), seed=0)
    for picture in found.pictures.values():
        assert (patches(picture.numpy()[None]).std(axis=2) == 0).all()


@pytest.mark.parametrize(
    "changes", [{"strengths": 0}, {"iterations": 0}, {"powers": (2.0, -2.0)}], ids=lambda one: next(iter(one))
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="ascending powers"):
        dataclasses.replace(CHOICES, **changes)
