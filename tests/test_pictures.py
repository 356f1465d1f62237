"""The pictures of a benchmark: which images, patches and classes they show, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tests.doubles import NoiseImages, tiny_encoder
from tests.protocols.synthetic import PROFILE

from paka.benchmark import Benchmark
from paka.encoded import Encoded
from paka.feature_store import FeatureCache
from paka.features import DenseFeatures, whiten
from paka.frames import Frame
from paka.outcome_pictures import MOST_BARS, bar, in_frame, most_changed
from paka.per_class import ClassScore
from paka.pictures import Gallery, Side, draw
from paka.protocols import Entry
from paka.protocols.image_level import Knn, global_knn
from paka.protocols.in_context import in_context
from paka.protocols.in_context_depth import in_context_depth
from paka.token_pictures import CONTEXT, TokenPictures, around, frequency

SMALL = replace(PROFILE, grid=[4, 4], k=5, memory=200, bootstrap=20, settings={"knn": Knn(k=3)})
IN_CONTEXT = {"in_context": Entry(in_context, "masks", views="memory")}


class Deep(NoiseImages):
    """Images of which the depth is known, and no class."""

    classes = ()
    has_depth = True

    def depth(self, index: int) -> np.ndarray:
        del index
        return np.linspace(0, 4, 48 * 40, dtype=np.float32).reshape(48, 40)


def benchmark(**changes: object) -> Benchmark:
    options = {
        "train": NoiseImages(),
        "query": NoiseImages(),
        "protocols": IN_CONTEXT,
        "query_images": 3,
        **changes,
    }
    return Benchmark(profile=SMALL, seed=0, **options)  # type: ignore[arg-type]


def drawn(folder: Path, where: Benchmark, others: Mapping[str, int]) -> list[Gallery]:
    """Score an encoder, and those that other seeds make, and draw all of them."""
    encoders = {"before": tiny_encoder(), **{name: tiny_encoder(seed) for name, seed in others.items()}}
    sides = {name: Side(encoder, where.run(encoder)) for name, encoder in encoders.items()}
    start, *rest = sides.values()
    scores = [
        score
        for name, side in zip(others, rest, strict=True)
        for score in where.compare(start.results, side.results, method=name)
    ]
    return draw(folder / "figures", where, sides, scores or where.compare(start.results, None, method=""))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "figures")) for path in (folder / "figures").rglob("*.png")}


PROTOCOL = {"in_context.png", "in_context_classes.png", "in_context_confusion.png"}
TOKENS = {"features.png", "kernels.png", "neighbours.png"}


def test_a_comparison_has_a_figure_of_everything(tmp_path):
    (gallery,) = drawn(tmp_path, benchmark(), {"trained": 1})
    assert files(tmp_path) == {"scores.png", *PROTOCOL, *TOKENS}
    assert gallery.name == "trained"
    figures = [*gallery.overview, *gallery.protocols["in_context"], *gallery.tokens]
    assert {str(figure.path.relative_to(tmp_path / "figures")) for figure in figures} == files(tmp_path)
    assert all(len(figure.caption) > 20 and len(figure.alt) > 20 for figure in figures)
    assert [score.name for score in gallery.classes] == ["left", "right"]
    assert {score.method for score in gallery.classes} == {"trained"}


def test_an_encoder_alone_has_its_own_errors(tmp_path):
    (gallery,) = drawn(tmp_path, benchmark(), {})
    assert files(tmp_path) == {*PROTOCOL, *TOKENS}
    assert gallery.name == ""
    assert all(score.after is None for score in gallery.classes)
    assert imread(tmp_path / "figures" / "in_context.png").shape[1] < 1250, "four columns, not five"


def test_several_candidates_have_a_folder_each(tmp_path):
    galleries = drawn(tmp_path, benchmark(), {"runs/a": 1, "runs a": 2})
    assert [gallery.name for gallery in galleries] == ["runs/a", "runs a"]
    folders = {path.split("/")[0] for path in files(tmp_path)}
    assert folders == {"1-runs-a", "2-runs-a"}
    assert len(files(tmp_path)) == 2 * (1 + len(PROTOCOL) + len(TOKENS))


def test_images_without_labelled_training_images_have_no_neighbours(tmp_path):
    entry = replace(
        IN_CONTEXT["in_context"],
        run=lambda train, query, profile, *, seed: in_context(query, query, profile, seed=seed),
        trains=False,
    )
    drawn(tmp_path, benchmark(train=None, protocols={"in_context": entry}), {})
    assert files(tmp_path) == {*PROTOCOL, "features.png", "kernels.png"}


def test_scores_of_another_kind_have_no_pictures_of_predictions(tmp_path):
    entries = {"knn": Entry(global_knn, "tags")}
    (gallery,) = drawn(tmp_path, benchmark(protocols=entries), {"trained": 1})
    assert gallery.protocols == {"knn": []}
    assert files(tmp_path) == {"scores.png", *TOKENS}


def test_depth_has_pictures_of_its_own(tmp_path):
    entries = {"in_context_depth": Entry(in_context_depth, "depth", views="memory")}
    (gallery,) = drawn(tmp_path, benchmark(train=Deep(), query=Deep(), protocols=entries), {"trained": 1})
    assert files(tmp_path) == {"in_context_depth.png", "features.png", "scores.png"}
    assert gallery.classes == []


def test_features_of_some_images_are_those_of_all(tmp_path):
    encoder, chosen = tiny_encoder(), [1, 4, 6]
    plain = Encoded(benchmark(query_images=8), encoder)
    kept = Encoded(benchmark(query_images=8, cache=FeatureCache(tmp_path, "float32", 10**9)), encoder)
    whole = kept.features("query")
    for found in (plain.part("query", chosen), kept.part("query", chosen)):
        torch.testing.assert_close(found.tokens, whole.tokens[chosen])
        assert torch.equal(found.labels, whole.labels[chosen])
        assert torch.equal(found.sizes, whole.sizes[chosen])
        assert len(found) == 3


def pictures(where: Benchmark) -> TokenPictures:
    return TokenPictures(where, Frame(4, 4, 8, "keep"))


def test_neighbours_are_patches_of_the_training_images():
    scene = pictures(benchmark())
    view = scene.view(tiny_encoder(), None, name="")
    queries = scene.queries(view)
    assert queries == scene.queries(view), "the seed decides"
    assert {patch.label for patch in queries} <= {0, 1}
    found = scene.neighbours(queries, view)
    # The training images are the scored ones here, so each patch is nearest to itself.
    assert [row[0] for row in found] == [patch._replace(image=scene.chosen[patch.image]) for patch in queries]
    assert all(len({patch.image for patch in row}) == len(row) == 5 for row in found)


def test_changed_tokens_are_shown_changed():
    scene = pictures(benchmark())
    plain, changed = (scene.view(tiny_encoder(), transform, name="") for transform in (None, whiten))
    own = changed.train.tokens[changed.train.valid]
    variances = torch.linalg.eigvalsh(torch.cov(own.T))
    torch.testing.assert_close(variances[1:], torch.ones(15), atol=1e-2, rtol=0)  # the norm takes one away
    assert not torch.allclose(plain.query.tokens, changed.query.tokens)


def test_frequency_counts_labelled_pixels():
    labels = torch.tensor([[[0, 1], [1, 255]], [[1, 255], [2, 2]]], dtype=torch.uint8)
    features = DenseFeatures(torch.zeros(2, 1, 1, 3), labels, 4)
    assert frequency(features).tolist() == [1, 3, 2, 0]


def test_kernels_are_of_the_image_with_most_classes():
    scene = pictures(benchmark())
    views = {"Before": scene.view(tiny_encoder(), None, name="")}
    kernels, classes, image = scene.kernels(views)
    assert image == 0
    assert classes.tolist() == sorted(classes.tolist())
    assert kernels["Before"].values.shape == (len(classes), len(classes))


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (5, 7)])
def test_the_box_is_where_the_patch_is(place):
    """The patch is white in the image; the box must hold what is white in the picture."""
    image = np.zeros((60, 160, 3), dtype=np.uint8)
    high, wide = 10, 20
    image[place[0] * high : (place[0] + 1) * high, place[1] * wide : (place[1] + 1) * wide] = 255
    picture, (left, top, width, height) = around(image, (6, 8), place, side=120)
    assert picture.shape == (120, 120, 3)
    rows, columns = np.nonzero(picture[..., 0] > 127)
    np.testing.assert_allclose([columns.min(), rows.min()], [120 * left, 120 * top], atol=2)
    np.testing.assert_allclose([np.ptp(columns) + 1, np.ptp(rows) + 1], [120 * width, 120 * height], atol=3)
    # A picture is at most as high as the image.
    assert (width, height) == pytest.approx((wide / min(CONTEXT * wide, 60), high / min(CONTEXT * wide, 60)))


def test_predictions_are_brought_to_the_frame():
    frame = Frame(4, 4, 8, "keep")
    own = torch.zeros(48, 40, dtype=torch.uint8)
    own[:24] = 1
    placed = in_frame(own, (48, 40), frame)
    assert placed.shape == (32, 32)
    assert (placed[:16, :24] == 1).all()
    assert (placed[:, 24:] == 255).all(), "beside the image is void"
    small = torch.arange(4, dtype=torch.uint8).view(2, 2)
    whole = in_frame(small, (48, 40), frame)
    np.testing.assert_array_equal(whole[:, :24], np.kron(small.numpy(), np.ones((16, 16)))[:, :24])
    assert (whole[:, 24:] == 255).all()
    depth = in_frame(own.float(), (48, 40), frame)
    assert (depth[:, 24:] == 0).all()


def test_of_many_classes_those_that_changed_most_have_bars():
    scores = [
        ClassScore("p", "m", f"{i}", 1.0, 50.0, 50.0 + i, float(i), i - 1, i + 1) for i in range(-40, 41)
    ]
    chosen = most_changed(scores)
    assert len(chosen) == MOST_BARS
    assert {score.delta for score in chosen} == {*range(-40, -20), *range(21, 41)}
    assert most_changed(scores[:3]) == scores[:3]


def test_bars_hold_the_numbers_of_the_table():
    score = ClassScore("p", "m", "sky", 1.0, 40.0, 45.0, 5.0, 4.0, 6.0)
    assert bar(score) == ("sky", 40.0, 45.0, 44.0, 46.0, "+5.00 [+4.00, +6.00]")
    alone = replace(score, after=None, delta=None, ci_low=39.0, ci_high=41.0)
    assert bar(alone) == ("sky", 40.0, None, 39.0, 41.0, "40.00 [39.00, 41.00]")
