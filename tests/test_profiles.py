"""Every switch of a profile moves the number it is about, and moves it the way its source says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.configurations import composed
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols.synthetic import PROFILE, features

from paka.applicable import applicable, check_some
from paka.benchmark import Benchmark
from paka.config import build
from paka.features import DenseFeatures, whiten
from paka.protocols import Entry
from paka.protocols.classification import outcome
from paka.protocols.depth_errors import depth_estimate
from paka.protocols.distortion import Distortion
from paka.protocols.finetune import finetune
from paka.protocols.image_level import Knn, global_knn
from paka.protocols.in_context import in_context
from paka.protocols.in_context_depth import in_context_depth
from paka.protocols.knn_segmentation import KnnSegmentation, knn_segmentation
from paka.protocols.linear import linear
from paka.protocols.linear_depth import LinearDepth
from paka.protocols.linear_windows import LinearWindows
from paka.protocols.logistic_segmentation import LogisticSegmentation, logistic_segmentation
from paka.protocols.overclustering import overclustering
from paka.result import Result, printed
from paka.sources import VOID
from paka.statistics import class_iou, iou_metric, matched, mean_iou

SMALL = replace(PROFILE, grid=[6, 4], clusters=2, k=3, memory=2000, bootstrap=20, train_images=8)


class VoidImages(NoiseImages):
    """Noise of which the lower half has no label."""

    def mask(self, index):
        mask = super().mask(index)
        mask[24:] = VOID
        return mask


class HalfVoid(NoiseImages):
    """Noise of which the middle has no label: one row of patches and three quarters of the next."""

    def mask(self, index):
        mask = super().mask(index)
        mask[19:36] = VOID
        return mask


def scored(profile, protocol=in_context, source=NoiseImages, **changes) -> float:
    settings = replace(SMALL, **{**profile, **changes})
    entry = Entry(protocol, "masks", "memory" if protocol is in_context else "plain")
    benchmark = Benchmark(source(), source(), settings, {"it": entry}, seed=0, query_images=8)
    return printed(benchmark.run(tiny_encoder())["it"])


@pytest.mark.parametrize(
    "switch",
    [
        {"aspect": "stretch"},
        {"interpolation": "bicubic", "aspect": "stretch"},
        {"blue_std": 0.255},
        {"memory_passes": 2, "memory_augment": True},
        {"memory_augment": True},
        {"uncounted": 1},
        {"scored_at": 7},
        {"seeds": 3, "memory": 40},
    ],
    ids="-".join,
)
def test_a_switch_moves_in_context(switch) -> None:
    others = ("memory", "aspect", "memory_augment")
    base = {name: switch[name] for name in others if name in switch and len(switch) > 1}
    assert scored(switch) != scored(base)


def test_void_as_the_first_class_moves_in_context() -> None:
    assert scored({"memory_void": "first"}, source=VoidImages) != scored({}, source=VoidImages)


@pytest.mark.parametrize("protocol", [knn_segmentation, logistic_segmentation])
def test_void_that_votes_moves_probes_of_patches(protocol) -> None:
    assert scored({"patch_void": "vote"}, protocol, HalfVoid) != scored({}, protocol, HalfVoid)


def test_published_profiles_have_their_quirks() -> None:
    capi, dinov3 = (
        build(composed(f"profile={name}", name="evaluate").profile) for name in ("capi", "dinov3")
    )
    assert (capi.aspect, capi.interpolation, capi.patch_void) == ("stretch", "bicubic", "vote")
    assert capi.of(KnnSegmentation) == KnnSegmentation([1, 3, 10, 30], ["cosine", "L2"])
    assert capi.of(LogisticSegmentation).grid == LogisticSegmentation().grid
    windows = dinov3.of(LinearWindows)
    published = LinearWindows(
        crop=None,
        scales=[0.5, 2.0],
        photometric=Distortion(32.0, [0.5, 1.5], [0.5, 1.5], 0.5),
        dropout_first=True,
        loss_over="all",
        decay_vectors=True,
        best_every=5000,
        workers=6,
    )
    assert windows == published
    assert (dinov3.interpolation, dinov3.depth_mean) == ("bilinear", "images")
    assert dinov3.of(LinearDepth).eigen_crop


@pytest.mark.parametrize(
    ("name", "quirks"),
    [
        (
            "hummingbird",
            {
                "aspect": "stretch",
                "interpolation": "bilinear",
                "blue_std": 0.255,
                "memory_passes": 2,
                "memory_augment": True,
                "matching": True,
                "absent": "zero",
            },
        ),
        (
            "neco",
            {
                "aspect": "stretch",
                "interpolation": "bilinear",
                "clusters": None,
                "cluster_naming": "hungarian",
                "scored_at": 100,
                "absent": "zero",
            },
        ),
        ("davis", {"aspect": "keep", "matching": False, "absent": "drop"}),
    ],
)
def test_a_published_profile_decides_what_its_source_decided(name, quirks) -> None:
    profile = build(composed(f"profile={name}", name="evaluate").profile)
    assert {quirk: getattr(profile, quirk) for quirk in quirks} == quirks


def test_rules_state_filter_and_void() -> None:
    assert "bicubic images" in replace(SMALL, interpolation="bicubic").rules_of([0])
    assert "void votes" in replace(SMALL, patch_void="vote").rules_of([0])
    assert "images" not in SMALL.rules_of([0])
    assert "votes" not in SMALL.rules_of([0])


def test_passes_alone_change_nothing_but_the_memory() -> None:
    """Twice the same patches: the neighbours are pairs of the same, so the vote of twice as many is the same.

    The images are their own memory, in which each patch is its nearest: only a warm vote hears the others.
    """
    warm = {"temperature": 1.0}
    three, six = (scored(warm, k=k) for k in (3, 6))
    assert scored(warm, memory_passes=2, k=6) == pytest.approx(three, abs=1e-3)
    assert abs(six - three) > 0.5, "how many vote matters"
    assert abs(scored(warm, memory_passes=2, k=3) - three) > 5, "of pairs, half as many different ones vote"


def test_linear_is_scored_at_the_side_that_neco_scores_at() -> None:
    assert scored({"scored_at": 5}, linear) != scored({}, linear)


def test_naming_clusters_one_to_one_is_never_better_than_by_majority() -> None:
    many = features("noise")
    named = [
        float(
            overclustering(many, many, replace(PROFILE, clusters=8, cluster_naming=rule), seed=0)
            .counts.sum(dim=0)
            .diagonal()
            .sum()
        )
        for rule in ("majority", "hungarian")
    ]
    assert named[0] > named[1]


def test_clusters_follow_the_classes() -> None:
    oracle = features("oracle")
    found = overclustering(
        oracle, oracle, replace(PROFILE, clusters=None, cluster_naming="hungarian"), seed=0
    )
    assert float(mean_iou(found.counts.sum(dim=0))) > 0.95


def test_absent_and_uncounted_classes_lower_the_mean() -> None:
    counts = torch.diag(torch.tensor([5, 7, 0]))
    assert float(mean_iou(counts)) == 1.0
    assert float(mean_iou(counts, absent="zero")) == pytest.approx(2 / 3)
    assert float(mean_iou(counts, uncounted=1)) == pytest.approx(2 / 3)
    assert class_iou(counts)[0].isnan().tolist() == [False, False, True]


def test_matching_undoes_a_swap_of_classes() -> None:
    counts = torch.tensor([[0, 9, 1], [8, 0, 0], [0, 1, 6]])
    assert float(mean_iou(matched(counts))) == pytest.approx(float(mean_iou(counts[:, [1, 0, 2]])))
    assert float(iou_metric(matching=True).of(counts)) > 3 * float(iou_metric().of(counts))
    several = torch.stack([counts, counts.T])
    assert torch.equal(matched(several)[0], matched(counts))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [({"matching": False}, 0.0), ({"matching": True}, 1.0), ({"matching": True, "absent": "zero"}, 2 / 3)],
)
def test_a_profile_scores_by_its_own_rules(rules, expected) -> None:
    swapped = torch.tensor([[0, 9, 0], [8, 0, 0], [0, 0, 0]])
    assert float(replace(SMALL, **rules).iou.of(swapped)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", ["clean", "hummingbird", "neco", "capi", "dinov3", "davis", "compact", "camvid", "street"]
)
def test_every_published_profile_is_whole(name) -> None:
    cfg = composed(f"profile={name}", name="evaluate")
    assert cfg.profile.name == name


def test_scores_carry_what_they_depend_on() -> None:
    entries = {"in_context": Entry(in_context, "masks", "memory")}
    benchmark = Benchmark(NoiseImages(), NoiseImages(), SMALL, entries, seed=0, query_images=8)
    results = benchmark.run(tiny_encoder())
    (score,) = benchmark.compare(results, None, method="")
    assert (score.profile, score.size, score.memory, score.k) == ("test", "6x4 tokens", 160, 3), (
        "8 images have 20 patches each"
    )
    assert (score.temperature, score.classes, score.seed) == (0.02, 2, 0)
    for rule in (
        "aspect keep",
        "memory void skip",
        "absent classes drop",
        "1 x seeded",
    ):
        assert rule in score.rules
    assert score.upsampling == "bilinear"
    assert score.ci_low is not None
    assert score.ci_low <= score.before <= score.ci_high


def test_errors_of_depth_are_averaged_over_pixels_or_over_images() -> None:
    depth = torch.full((2, 4, 4), 2.0)
    depth[1, :, 1:] = 0.0
    guess = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 5.0)])
    rooms = DenseFeatures(torch.zeros(2, 1, 1, 1), torch.zeros(2, 0, 0), 0, depth)
    pixels, images = (
        depth_estimate([guess], rooms, replace(PROFILE, depth_mean=mean)) for mean in ("pixels", "images")
    )
    assert pixels.metrics[0].once(pixels.counts) == pytest.approx(((16 * 1 + 4 * 9) / 20) ** 0.5)
    assert images.metrics[0].once(images.counts) == pytest.approx((1 + 3) / 2)


def test_mean_average_precision_is_a_mean_over_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    tags = torch.rand(30, 4, generator=generator) < 0.4
    seeds = tuple(outcome(torch.rand(30, 4, generator=generator), tags) for _ in range(3))
    assert printed(Result(seeds)) == pytest.approx(100 * sum(seed.score for seed in seeds) / 3)


def test_protocols_that_encode_images_are_left_out_where_tokens_are_changed() -> None:
    entries = {
        "probe": Entry(linear, "masks"),
        "tuned": Entry(finetune, "masks", "own"),
        "deep": Entry(in_context_depth, "depth"),
    }
    sides = NoiseImages(), NoiseImages(), tiny_encoder(), SMALL
    fitting, skipped = applicable(entries, *sides, changed=True)
    assert list(fitting) == ["probe"]
    assert "encodes images itself" in skipped["tuned"]
    assert skipped["deep"].endswith("has no depth")
    assert list(applicable(entries, *sides, changed=False)[0]) == ["probe", "tuned"]
    with pytest.raises(ValueError, match=r"expected protocols that fit, got none \(deep: .* has no depth\)"):
        check_some(*applicable({"deep": entries["deep"]}, *sides, changed=False), NoiseImages())
    benchmark = Benchmark(NoiseImages(), NoiseImages(), SMALL, entries, seed=0)
    with pytest.raises(ValueError, match="expected features=none with protocols that encode"):
        benchmark.run(tiny_encoder(), whiten)


def test_rows_say_how_many_neighbours_voted() -> None:
    benchmark = Benchmark(NoiseImages(), NoiseImages(), SMALL, {"knn": Entry(global_knn, "tags")}, seed=0)
    knn = replace(benchmark, profile=replace(SMALL, settings={"knn": Knn(3, 0.1)}))
    (row,) = knn.compare(knn.run(tiny_encoder()), None, method="")
    assert (row.k, row.temperature, row.memory) == (3, 0.1, None)
