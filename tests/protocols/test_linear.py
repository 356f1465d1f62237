"""The linear probe: its shortcut, and its training against gradient descent written out in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from tests.protocols.synthetic import PROFILE, features, score
from torch.nn import functional as F

from paka.features import DenseFeatures
from paka.protocols.linear import linear, train_probe


def test_upsampling_logits_equals_upsampling_features() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 7, 5, 4, generator=generator, dtype=torch.float64)
    probe = torch.nn.Conv2d(7, 3, 1).double()
    after = F.interpolate(probe(tokens), size=(20, 16), mode="bilinear")
    before = probe(F.interpolate(tokens, size=(20, 16), mode="bilinear"))
    torch.testing.assert_close(after, before)


def test_training_equals_gradient_descent_written_out() -> None:
    """Softmax regression by SGD with momentum and weight decay, a tenth of the rate from 80 % of the epochs."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(5, 3, 3, 4, generator=generator)
    labels = torch.randint(0, 3, (5, 3, 3), generator=generator).to(torch.uint8)
    labels[:, 0] = 255
    settings = dataclasses.replace(
        PROFILE, linear_epochs=5, linear_batch=2, linear_resolution=3, linear_weight_decay=0.1
    )
    probe = train_probe(DenseFeatures(tokens, labels, 3), settings, seed=6)

    draws = torch.Generator().manual_seed(6)
    start = torch.empty(3, 4, 1, 1).normal_(0.0, 0.01, generator=draws)
    weight = np.hstack([start.double().numpy()[:, :, 0, 0], np.zeros((3, 1))])
    velocity = np.zeros_like(weight)
    for epoch in range(5):
        for batch in torch.randperm(5, generator=draws).split(2):
            known = labels[batch].numpy() != 255
            points = tokens[batch].double().numpy()[known]
            points = np.hstack([points, np.ones((len(points), 1))])
            shares = np.exp(points @ weight.T)
            shares /= shares.sum(axis=1, keepdims=True)
            error = shares - np.eye(3)[labels[batch].numpy()[known]]
            velocity = 0.9 * velocity + error.T @ points / len(points) + 0.1 * weight
            weight = weight - (0.5 if epoch < 4 else 0.05) * velocity
    assert probe.bias is not None
    found = torch.cat([probe.weight[:, :, 0, 0], probe.bias[:, None]], dim=1)
    np.testing.assert_allclose(found.detach(), weight, atol=1e-5)


def test_the_probe_does_not_learn_from_void() -> None:
    train = features("oracle")
    void = dataclasses.replace(train, labels=torch.full_like(train.labels, 255))
    free = dataclasses.replace(PROFILE, linear_weight_decay=0.0)
    trained, briefly = (
        train_probe(void, dataclasses.replace(free, linear_epochs=n), seed=0).weight for n in (15, 1)
    )
    assert trained.isfinite().all()
    assert torch.equal(trained, briefly), "gradients of void are zero, so no step moves the probe"


def test_batches_of_void_do_not_spoil_the_probe() -> None:
    train, query = features("oracle"), features("oracle", images=12, seed=1)
    labels = train.labels.clone()
    labels[::3] = 255
    single = dataclasses.replace(PROFILE, linear_batch=1)
    assert score(linear(dataclasses.replace(train, labels=labels), query, single, seed=0)) > 0.99
