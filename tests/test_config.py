from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, OmegaConf
from tests.configurations import GROUPS, OPTIONS, choosing, composed

from paka.config import CONF_DIR, build, explain, validate
from paka.rules import RULED, RULES, listed


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_is_valid(group: str, option: str):
    cfg = composed(*choosing(group, option))
    assert isinstance(cfg, DictConfig)
    assert validate(cfg) == []


def test_groups_are_the_documented_ones():
    documented = "augmentation backbone benchmark data eval experiment kernel logger objective optim profile sweep teacher trainer tuning"
    assert documented.split() == GROUPS


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("tuning=last_blocks", "tuning.freeze_blocks=1"), "tuning.freeze_blocks: expected 0 with"),
        (("tuning=lora", "tuning.biases_only=true"), "tuning.biases_only: expected false with"),
        (("tuning=lora", "tuning.adapter.rank=0"), "tuning.adapter.rank: expected an integer of at least 1"),
        (("tuning=lora", "tuning.adapter.targets=[]"), "tuning.adapter.targets: expected a list of at least"),
    ],
)
def test_problems_with_what_trains(overrides: tuple[str, ...], problem: str):
    (found,) = validate(composed(*overrides))
    assert found.startswith(problem)


def test_deconfounding_needs_two_images_at_a_time():
    shared = "objective=paka_deconfounded", "trainer.accumulate=2"
    (problem,) = validate(composed(*shared, "backbone.batch_size=2"))
    assert problem.startswith("backbone.batch_size: expected at least 4, two images at a time")
    assert validate(composed(*shared, "backbone.batch_size=4")) == []


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("objective.loss.min_points=3", "expected at least 4 with objective.loss.unbiased=true, got 3"),
        ("objective.loss.max_points=3", "expected at least objective.loss.min_points = 4, got 3"),
        ("objective.loss.scale_bins=9", "expected an integer from 1 to 8, got 9"),
        ("objective.reads=[pair]", "expected a list out of pairs, globals, clean, teacher, images"),
    ],
)
def test_settings_of_the_estimator(override: str, problem: str):
    (found,) = validate(composed("objective.loss.unbiased=true", override))
    assert problem in found


def test_whole_views_have_no_pairs_to_permute():
    (problem,) = validate(composed("objective=image_level", "teacher.permute=true"))
    assert problem.startswith("teacher.permute: expected false with an objective that compares no pairs")


def test_image_level_needs_two_views():
    one = ["augmentation=image_level", "augmentation.globals=1"]
    (problem,) = validate(composed("objective=image_level", *one))
    assert problem.startswith("augmentation.locals: expected at least 1 with one global")
    assert validate(composed("objective=image_level", *one, "augmentation.locals=1")) == []


def test_deconfounding_takes_all_points():
    (problem,) = validate(composed("objective=paka_deconfounded", "objective.loss.max_points=20"))
    assert problem.startswith("objective.loss.max_points: expected null with objective.loss.deconfound=true")


def test_a_queue_holds_the_references():
    (problem,) = validate(composed("objective=neighbour_ordering", "objective.loss.queue=48"))
    assert problem == "objective.loss.queue: expected 0 or at least objective.loss.references = 49, got 48"


def test_a_sum_reads_what_its_parts_read():
    assert validate(composed("objective=paka_gram")) == []
    (problem,) = validate(composed("objective=paka_gram", "objective.reads=[pairs,globals]"))
    assert problem.startswith("objective.reads: expected what its parts read")
    assert problem.endswith("teacher is missing")


@pytest.mark.parametrize("group", ["backbone", "eval", "profile"])
def test_evaluation_shares_the_options_of_training(group: str):
    for option in (option for name, option in OPTIONS if name == group):
        assert validate(composed(*choosing(group, option), name="evaluate")) == []


def test_every_target_exists():
    found: set[str] = set()
    for path in CONF_DIR.rglob("*.yaml"):
        found |= set(targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False)))
    assert "paka.kernels.rbf" in found
    for target in sorted(found):
        assert callable(get_class(target) if target.rpartition(".")[2][0].isupper() else get_method(target))


def test_every_rule_is_about_an_existing_key():
    varied = [
        f"{group}={option}"
        for group, option in OPTIONS
        if group in ("kernel", "logger", "objective", "tuning")
    ]
    cfgs = [composed(), *(composed(name=name) for name in ("evaluate", "doctor")), *map(composed, varied)]
    for key in RULED:
        assert any(OmegaConf.select(cfg, key, default="absent") != "absent" for cfg in cfgs), key


def test_recipe_values_say_where_they_come_from():
    for name in ("augmentation/paka", "optim/adamw", "teacher/ema", "backbone/vitb"):
        text = (CONF_DIR / f"{name}.yaml").read_text()
        assert "# assumed" in text or "# paper" in text, name


def test_paper_setting():
    cfg = composed("backbone=vitb", "kernel=rbf")
    backbone = cfg.backbone
    assert (backbone.global_grid * 14, backbone.local_grid * 14) == (518, 98)
    assert cfg.augmentation.containment == 0.9
    assert (cfg.head.hidden, cfg.head.out) == (2048, 256)
    assert cfg.objective.loss.kernel._target_ == "paka.kernels.rbf"


def test_benchmark_follows_data_unless_chosen():
    assert composed("data=camvid", "data.root=x").benchmark.source.root == "x"
    assert composed("data=coco", "data.root=x", "benchmark=scenes").benchmark.name == "scenes"
    chosen = composed("data=coco", "data.root=x", "benchmark=camvid", "benchmark.root=y")
    assert (chosen.data.source.root, chosen.benchmark.source.root) == ("x", "y")
    assert composed("benchmark=none").benchmark is None


def test_rules_of_a_part_that_is_left_out_are_passed_over():
    cfg = composed("augmentation.photometric=null")
    assert validate(cfg) == []
    assert build(cfg.augmentation, global_size=32, local_size=16).photometric is None


def test_locals_sized_by_their_parent_are_never_too_large():
    shared = "augmentation.global_scale=[0.2,0.3]", "augmentation.local_scale=[0.1,0.5]"
    assert len(validate(composed(*shared))) == 1
    assert validate(composed(*shared, "augmentation.local_scale_of=parent")) == []


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "augmentation"])
def test_augmentations_build_and_differ_from_the_default(option: str):
    built, default = (
        build(composed(f"augmentation={name}").augmentation, global_size=32, local_size=16)
        for name in (option, "paka")
    )
    assert (built == default) == (option == "paka")


def test_rates_follow_the_backbone():
    assert composed("backbone.lr=0.5").optim.lr == 0.5


def test_sound_configuration_has_no_problems():
    assert validate(composed()) == []


def test_problems_are_found_all_at_once():
    problems = validate(
        composed(
            "kernel=rbf",
            "kernel.bandwidth=0",
            "augmentation.containment=-0.1",
            "augmentation.global_scale=[0.5,0.2]",
            "backbone.global_grid=16",
            "backbone.local_grid=17",
            "trainer.max_steps=0",
            "teacher.momentum.end=1.1",
        )
    )
    keys = {problem.partition(":")[0] for problem in problems}
    assert keys == {
        "kernel.bandwidth",
        "augmentation.containment",
        "augmentation.global_scale",
        "backbone.local_grid",
        "trainer.max_steps",
        "teacher.momentum.end",
    }


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "augmentation.containment=1.01",
            "augmentation.containment: expected null or a number from 0 to 1, got 1.01",
        ),
        ("augmentation.local_scale=[0.1,0.2,0.3]", r"augmentation.local_scale: expected \[low, high\]"),
        ("augmentation.photometric.hue=0.6", "augmentation.photometric.hue: expected a number from 0 to 0.5"),
        ("augmentation.student_globals=false", "augmentation.student_globals: expected true"),
        ("augmentation.least_overlap=1", "augmentation.least_overlap: expected a number from 0 to below 1"),
        (
            "augmentation.pair_with=all",
            "augmentation.pair_with: expected one of containing, parent, got 'all'",
        ),
        ("augmentation.local_scale_of=crop", "augmentation.local_scale_of: expected one of image, parent"),
        ("augmentation.overlap=iou", r"augmentation.overlap: expected containment, .* got 'iou': .* 0.03 %"),
        ("augmentation.overlap=dice", r"augmentation.overlap: expected containment, .* got 'dice'$"),
        (
            "augmentation.photometric.solarize_probability=2",
            "augmentation.photometric.solarize_probability: expected a number from 0 to 1, got 2",
        ),
        ("augmentation.globals=0", "augmentation.globals: expected an integer of at least 1, got 0"),
        ("backbone.lr=0", "backbone.lr: expected a number above 0, got 0"),
        ("backbone.encoder.drop_path=1", "backbone.encoder.drop_path: expected a number from 0 to below 1"),
        ("optim.optimizer.betas=[0.9,1]", "optim.optimizer.betas: expected two numbers from 0 to below 1"),
        ("profile.grid=[16]", r"profile.grid: expected \[rows, columns\]"),
        ("profile.k=200000000", "profile.k: expected at most profile.memory = [0-9]+, got 200000000"),
        ("trainer.accumulate=1009", "backbone.batch_size: expected a multiple of .* = 1 x 1009"),
        ("trainer.devices=1009", "backbone.batch_size: expected a multiple of .* = 1009 x 1"),
        ("trainer.workers=all", "trainer.workers: expected auto or an integer of at least 0, got 'all'"),
        (
            "objective.loss.min_points=10000",
            r"objective.loss.min_points: expected at most objective.grid \*\* 2 = [0-9]+, got 10000",
        ),
        ("objective.loss.deconfound=maybe", "objective.loss.deconfound: expected true or false, got 'maybe'"),
        ("export=both", "export: expected one of teacher, student, got 'both'"),
        ("tuning.train_blocks=0", "tuning.train_blocks: expected null or an integer of at least 1, got 0"),
        ("tuning.layer_decay=1.1", "tuning.layer_decay: expected a number above 0, up to 1, got 1.1"),
        ("eval.every=0", "eval.every: expected null or an integer of at least 1, got 0"),
        ("augmentation=image_level", "augmentation: expected views to compare"),
        ("data=folder", "data.root: expected a value, got none"),
    ],
)
def test_one_problem(override: str, problem: str):
    (found,) = validate(composed(override))
    assert re.match(problem, found), found


@pytest.mark.parametrize(
    ("kernel", "value", "expected"),
    [
        ("polynomial", "degree=0", "an integer of at least 1, got 0"),
        ("polynomial", "offset=-1", "a number of at least 0, got -1"),
        ("laplacian", "bandwidth_rule=mean", "one of median, median_per_side, fixed, got 'mean'"),
        ("rational_quadratic", "alpha=0", "a number above 0, got 0"),
        ("rbf_mixture", "multipliers=[1,0]", r"a list of numbers above 0, got [1, 0]"),
        ("rbf_mixture", "multipliers=[]", "a list of numbers above 0, got []"),
        ("rbf_fourier", "features=7", "an even integer of at least 2, got 7"),
        ("rbf_fourier", "seed=-1", "an integer of at least 0, got -1"),
        ("rbf_smoothed", "momentum=1", "a number from 0 to below 1, got 1"),
    ],
)
def test_one_problem_of_a_kernel(kernel: str, value: str, expected: str):
    key = value.partition("=")[0]
    assert validate(composed(f"kernel={kernel}", f"kernel.{value}")) == [f"kernel.{key}: expected {expected}"]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            [
                "augmentation=augmented_teacher",
                "augmentation.global_pairs=false",
                "augmentation.student_globals=false",
            ],
            "augmentation.student_globals: expected true with augmentation.clean_teacher=false, got False",
        ),
        (
            ["augmentation=no_glim", "augmentation.pair_with=parent"],
            "augmentation.containment: expected a number from 0 to 1 with augmentation.pair_with=parent, got null",
        ),
        (
            ["augmentation=lightly", "augmentation.containment=null", "augmentation.pair_with=containing"],
            "augmentation.containment: expected a number from 0 to 1 with augmentation.local_scale_of=parent",
        ),
        (
            ["augmentation=masked", "objective=masked_features", "augmentation.clean_teacher=false"],
            "augmentation.clean_teacher: expected true with an objective that reads the clean globals, got False",
        ),
    ],
)
def test_views_that_contradict_each_other(overrides: list[str], problem: str):
    (found,) = validate(composed(*overrides))
    assert found.startswith(problem), found


def test_relation_is_passed_over_when_one_of_its_keys_is_wrong():
    (problem,) = validate(composed("backbone.global_grid=0"))
    assert problem.startswith("backbone.global_grid: expected an integer of at least 1")


def test_listed():
    assert listed(["a", "a"]) == "a"
    assert listed(["a", "b"]) == "2 problems with the configuration:\n  - a\n  - b"


def test_rules_agree_with_the_values_they_describe():
    for rule in RULES:
        assert not rule.holds("nonsense"), rule.expected
        assert rule.holds(None) == rule.expected.startswith("null"), rule.expected


def test_build_gives_plain_containers():
    cfg = composed("optim.optimizer.betas=[0.8,0.9]")
    betas = build(cfg.optim.optimizer).keywords["betas"]
    assert type(betas) is list
    assert betas == [0.8, 0.9]


def test_build_takes_further_arguments_and_follows_references():
    cfg = composed(
        "augmentation.locals=3", "augmentation.photometric.hue=0.25", "kernel=rbf", "kernel.bandwidth=2"
    )
    views = build(cfg.augmentation, global_size=128, local_size=56)
    assert (views.global_size, views.locals, views.photometric.hue) == (128, 3, 0.25)
    assert build(cfg.objective.loss).kernel.keywords["bandwidth"] == 2


def test_build_lets_the_objects_own_error_through():
    with pytest.raises(ValueError, match="min_points of at least 2, got 1"):
        build(composed("objective.loss.min_points=1").objective.loss)


def test_explain_tells_input_errors_from_bugs():
    with pytest.raises(ValueError, match="min_points") as ours:
        build(composed("objective.loss.min_points=1").objective.loss)
    assert explain(ours.value) == str(ours.value)
    with pytest.raises(ValueError, match="broadcast") as numpys:
        torch.zeros(2).numpy() + torch.zeros(3).numpy()
    assert explain(numpys.value) is None
    assert explain(KeyError("key")) is None


def test_explain_reads_errors_of_loader_processes():
    package = Path(sys.modules["paka"].__file__ or "").parent
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "torch/fetch.py", line 1, in fetch\n    x\n'
        f'  File "{package}/sources/decode.py", line 2, in read\n    raise ValueError(message)\n'
        "ValueError: image a.jpg: cannot be read\n"
    )
    assert explain(ValueError(text)) == "image a.jpg: cannot be read"
    assert explain(ValueError(text.replace(f"{package}/", "/elsewhere/"))) is None
