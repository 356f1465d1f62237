"""Fully unsupervised segmentation: parts of objects grow together, labels only name, and what fits which benchmark."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.configurations import composed
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols import objects, synthetic
from tests.protocols.synthetic import PROFILE, predicted, score

from paka import assembly
from paka.applicable import applicable
from paka.features import DenseFeatures
from paka.protocols import Outcome
from paka.protocols.foreground import Foreground
from paka.protocols.profile import Profile
from paka.protocols.unsupervised import Communities, unsupervised
from paka.sources import VOID

PARTS = (objects.CLASSES - 1) * objects.PARTS
"""Parts of all kinds of objects."""


def profile(**changes: object) -> Profile:
    settings = {
        "foreground": Foreground(clusters=objects.CLASSES * objects.PARTS),
        "communities": Communities(**{"clusters": PARTS, **changes}),
    }
    return replace(PROFILE, pca=50, kmeans_restarts=4, settings=settings)


def everything(**changes: object) -> Profile:
    """Settings for the images of two regions, whose tokens are all clustered."""
    return profile(**{"clusters": 20, "threshold": 0.02, **changes})


def of_objects(features: DenseFeatures, settings: Profile | None = None, *, seed: int = 0) -> Outcome:
    return unsupervised(None, features, settings or profile(), seed=seed)


def of_all(features: DenseFeatures, settings: Profile | None = None, *, seed: int = 0) -> Outcome:
    return unsupervised(None, features, settings or everything(), seed=seed, extract=False)


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_objects_grow_together(seed: int) -> None:
    query = objects.features("oracle", images=96, seed=seed)
    joined = score(of_objects(query, seed=seed))
    apart = score(of_objects(query, profile(threshold=1.0), seed=seed))
    assert joined > 0.95
    assert apart < 0.6, "one part of each"


@pytest.mark.parametrize("seed", range(3))
def test_regions_that_fill_images_are_told_apart_without_a_background(seed: int) -> None:
    assert score(of_all(synthetic.features("oracle", images=48, seed=seed), seed=seed)) > 0.95


@pytest.mark.parametrize(("run", "source"), [(of_objects, objects), (of_all, synthetic)])
def test_noise_is_at_chance_and_shuffled_labels_collapse(run, source) -> None:
    assert score(run(source.features("noise", images=48))) < 1 / source.CLASSES
    oracle = source.features("oracle", images=48)
    found = []
    for seed in range(3):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(seed))
        found.append(score(run(replace(oracle, labels=oracle.labels[order]))))
    assert sum(found) / len(found) < 0.35, "background and place are still guessed"


@pytest.mark.parametrize(("run", "source"), [(of_objects, objects), (of_all, synthetic)])
def test_a_seed_reproduces(run, source) -> None:
    noise = source.features("noise", images=6)
    first, second, other = (run(noise, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.counts, second.counts)
    assert torch.equal(predicted(first), predicted(second))
    assert not torch.equal(first.counts, other.counts)


def test_labels_do_nothing_but_name_segments() -> None:
    noise = synthetic.features("noise", images=12)
    order = torch.tensor([3, 0, 4, 2, 1])
    renamed = replace(noise, labels=order[noise.labels.long()].to(torch.uint8))
    first, second = of_all(noise), of_all(renamed)
    assert torch.equal(order[predicted(first).long()], predicted(second).long())


def test_more_segments_than_classes_leave_the_rest_to_the_first() -> None:
    query = synthetic.features("oracle", images=48)
    counts = of_all(query, everything(threshold=1.0)).counts.sum(dim=0)
    matched = counts.diagonal().clone()
    strays = counts[1:].sum(dim=1) - matched[1:]
    assert torch.equal(counts[1:, 0], strays), "20 clusters, none of them linked, for 5 classes"
    assert (strays > 0).all()


def test_without_foreground_everything_is_one_segment() -> None:
    query = objects.features("oracle", images=6)
    flat = replace(query, tokens=torch.full_like(query.tokens, 0.1))
    outcome = of_objects(flat)
    assert (predicted(outcome) == 0).all()
    assert score(outcome) < 1 / objects.CLASSES + 0.05


def test_fewer_tokens_than_clusters_are_refused() -> None:
    query = objects.features("oracle", images=2)
    with pytest.raises(
        ValueError, match=r"at least 500 tokens to divide .* lower profile\.settings\.communities"
    ):
        of_objects(query, profile(clusters=500))
    with pytest.raises(ValueError, match="at least 289 tokens to divide into segments, got 288"):
        of_all(query, profile(clusters=289))


def test_tokens_beyond_an_image_take_no_part() -> None:
    inner = synthetic.features("oracle", images=24)
    valid = torch.zeros(24, 6, 8, dtype=torch.bool)
    valid[:, :, :6] = True
    tokens = torch.nn.functional.pad(inner.tokens, (0, 0, 0, 2), value=9.0)
    labels = torch.nn.functional.pad(inner.labels, (0, 8), value=VOID)
    padded = of_all(replace(inner, tokens=tokens, labels=labels, valid=valid))
    assert torch.equal(padded.counts, of_all(inner).counts)


@pytest.mark.parametrize("run", [of_objects, of_all])
def test_void_images_have_no_score(run) -> None:
    query = objects.features("oracle", images=3)
    void = replace(query, labels=torch.full_like(query.labels, VOID))
    assert run(void).counts.sum() == 0


def test_scores_say_what_they_depend_on() -> None:
    query = objects.features("oracle", images=6)
    plain = profile()
    labelled = replace(
        plain, settings={**plain.settings, "foreground": Foreground(clusters=15, labelled_threshold=True)}
    )
    note = "segments matched one to one"
    assert of_objects(query).stated == {"k": PARTS, "note": note, "upsampling": "nearest"}
    assert of_all(query).stated["note"] == "segments matched one to one; no background extracted"
    found = unsupervised(query, query, labelled, seed=0)
    assert found.stated["note"] == "segments matched one to one; foreground threshold chosen by labels"


def test_settings_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, message in (
        ({"clusters": 0}, "expected clusters and distances of at least 1"),
        ({"distances": ()}, "expected clusters and distances of at least 1"),
        ({"threshold": 0.0}, r"expected a threshold in \(0, 1\]"),
        ({"method": "leiden"}, "expected method to be one of louvain, infomap, got leiden"),
    ):
        with pytest.raises(ValueError, match=message):
            Communities(**changes)
    monkeypatch.setattr("paka.protocols.unsupervised.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected the package infomap .* GPL, suits you, or set .*louvain"):
        Communities(method="infomap")


def test_infomap_is_asked_for_as_many_communities_as_there_are_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr("paka.protocols.unsupervised.find_spec", lambda name: name)
    monkeypatch.setattr(
        "paka.protocols.unsupervised.infomap",
        lambda weights, **options: asked.append(options) or torch.arange(len(weights)),
    )
    query = objects.features("oracle", images=12)
    for run in (of_objects, of_all):
        found = run(query, profile(method="infomap", markov_time=0.4), seed=3)
        assert found.stated["note"].endswith("; communities by infomap")
    assert [one["modules"] for one in asked] == [objects.CLASSES - 1, objects.CLASSES]
    assert all((one["seed"], one["markov_time"]) == (3, 0.4) for one in asked)


class InFront(NoiseImages):
    classes = ("background", "front")


def test_foreground_needs_a_background_and_a_class_token() -> None:
    cfg = composed("eval=unsupervised", name="evaluate")
    entries = {name: assembly.build(node) for name, node in cfg.eval.protocols.items()}
    plain, front, encoder = NoiseImages(), InFront(), tiny_encoder()

    def fitting(source, encoder) -> tuple[list[str], dict[str, str]]:
        found, skipped = applicable(entries, source, source, encoder, PROFILE, changed=False)
        return [*found], skipped

    assert fitting(front, encoder)[0] == ["foreground", "unsupervised", "communities"]
    found, skipped = fitting(plain, encoder)
    assert found == ["communities"]
    assert skipped["unsupervised"] == "noise has no background"
    blind = type("Blind", (), {"has_class_token": False})()
    found, skipped = fitting(front, blind)
    assert found == ["communities"]
    assert "no class token" in skipped["foreground"]


@pytest.mark.parametrize(("name", "reads"), [("clean", False), ("neco", True)])
def test_training_images_are_read_where_the_threshold_is_chosen_by_them(name: str, reads: bool) -> None:
    cfg = composed("eval=unsupervised", f"profile={name}", name="evaluate")
    assert assembly.build(cfg.eval.protocols.unsupervised).trains is reads
    assert assembly.build(cfg.profile).of(Foreground).labelled_threshold is reads
