"""Exports: the same tokens in timm, transformers and ONNX, whole folders or none, and a sentence for what cannot be."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from tests.configurations import composed
from tests.runs import SCORES, random_encoder, write_run
from torch import Tensor, nn

import paka
from paka import weights
from paka.config import CONF_DIR, build
from paka.encoder import Encoder
from paka.exporting import FORMATS, export
from paka.key_tables import DINOV2_HUB
from paka.layouts import from_timm
from paka.run_folder import RunFolder
from paka.tuning import merge

SHAPE = "depth: 2, embed_dim: 48, num_heads: 2"
VIT = [
    "backbone=tiny",
    f"backbone.encoder.arch={{{SHAPE}, img_size: 32, patch_size: 8}}",
    "backbone.global_grid=4",
]
MODELS = {
    "vit": VIT,
    "dinov2": ["backbone=dinov2_s", f"backbone.encoder.arch={{{SHAPE}, img_size: 56}}"],
    "dinov2_reg": ["backbone=vits", f"backbone.encoder.arch={{{SHAPE}, img_size: 56}}"],
    "dinov2_giant": ["backbone=vitg", f"backbone.encoder.arch={{{SHAPE}, img_size: 56, mlp_ratio: 5.3334}}"],
    "dinov3": ["backbone=dinov3_s", f"backbone.encoder.arch={{{SHAPE}}}"],
    "dinov3_gated": ["backbone=dinov3_splus", f"backbone.encoder.arch={{{SHAPE}, mlp_ratio: 4}}"],
    "siglip": ["backbone=siglip2_b", f"backbone.encoder.arch={{{SHAPE}, img_size: 64}}"],
}
OTHERS = {
    "deit3": ["backbone=timm", "backbone.name=deit3_small_patch16_224", f"backbone.encoder.arch={{{SHAPE}}}"],
    "registers": [
        "backbone=timm",
        "backbone.name=vit_medium_patch16_reg4_gap_256",
        f"backbone.encoder.arch={{{SHAPE}, img_size: 64}}",
    ],
}
GRID = "backbone.global_grid=4"


def run_of(folder: Path, name: str, *more: str, **options: object) -> Encoder:
    return write_run(folder, *(MODELS | OTHERS)[name], *([] if name == "vit" else [GRID]), *more, **options)  # type: ignore[arg-type]


def exported(run: Path, to: str, *more: str) -> Path:
    export(composed(f"run='{run}'", f"to={to}", *more, name="export"))
    return run / "export" / to


def pixels(encoder: Encoder, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pictures, and the same normalised by the book."""
    images = torch.randint(
        0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    return images, (images.float() - encoder.mean) / encoder.std


@torch.inference_mode()
def tokens(encoder: Encoder, images: Tensor) -> Tensor:
    found = encoder(images)
    return torch.cat([found.prefix, found.patches.flatten(1, 2)], dim=1)


def native(encoder: Encoder) -> tuple[int, int]:
    rows, columns = encoder.model.patch_embed.grid_size
    return rows * encoder.patch_size, columns * encoder.patch_size


@pytest.mark.parametrize("name", MODELS)
def test_timm_alone_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    encoder = run_of(tmp_path / "run", name)
    folder = exported(tmp_path / "run", "timm")
    first = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = json.loads((folder / "config.json").read_text())
    file = str(folder / "model.safetensors")
    second = timm.create_model(config["architecture"], checkpoint_path=file, **config["model_args"]).eval()
    side = encoder.patch_size
    for size in (native(encoder), (3 * side, 5 * side)):
        images, normalised = pixels(encoder, size)
        for model in (first, second):
            with torch.inference_mode():
                found = model.forward_features(normalised)
            torch.testing.assert_close(found, tokens(encoder, images), rtol=0, atol=1e-6)
    options = timm.data.resolve_model_data_config(first)
    assert tuple(options["mean"]) == tuple(encoder.published["mean"])
    assert tuple(options["std"]) == tuple(encoder.published["std"])


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov2_reg", "dinov2_giant", "dinov3", "dinov3_gated"])
@pytest.mark.filterwarnings("ignore")
def test_transformers_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="install the extra dev")
    encoder = run_of(tmp_path / "run", name)
    folder = exported(tmp_path / "run", "hf")
    images, normalised = pixels(encoder, native(encoder))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(pixel_values=normalised).last_hidden_state
    torch.testing.assert_close(found, tokens(encoder, images), rtol=1e-5, atol=2e-5)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = images[0].permute(1, 2, 0).numpy()
    if processor.size["height"] == images.shape[-1]:
        made = processor(picture, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(made, normalised[:1], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens(paka.load(folder), images), tokens(encoder, images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dinov2", "dinov2_reg", "dinov2_giant"])
def test_the_hub_format_has_the_names_of_dinov2_and_comes_back_exactly(name: str, tmp_path: Path) -> None:
    encoder = run_of(tmp_path / "run", name)
    file = exported(tmp_path / "run", "dinov2_hub") / "model.safetensors"
    state = safetensors.torch.load_file(file)
    assert state.keys() == from_timm(encoder.model.state_dict(), DINOV2_HUB, encoder.model).keys() | {
        "mask_token"
    }
    other = random_encoder(composed(*MODELS[name], "backbone.pretrained=false"), seed=1)
    weights.load_file(other.model, file)
    again = other.model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in encoder.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "to", "reason"),
    [
        (
            "vit",
            "dinov2_hub",
            r"not of DINOv2's architecture: it has no blocks\.0\.ls1\.gamma; to=\[timm,hf,onnx\] fits",
        ),
        ("dinov3", "dinov2_hub", r"not of DINOv2's architecture: it has blocks.*; to=\[timm,hf,onnx\] fits"),
        (
            "deit3",
            "dinov2_hub",
            r"not dinov2_hub: its class token has no position.*; to=\[timm,hf,onnx\] fits",
        ),
        (
            "siglip",
            "[timm,hf]",
            r"not hf: no Dinov2.*no ViTModel, it is no plain ViT.*; to=\[timm,onnx\] fits",
        ),
    ],
)
def test_formats_that_do_not_fit_are_refused_and_nothing_is_written(
    name: str, to: str, reason: str, tmp_path: Path
) -> None:
    run_of(tmp_path / "run", name)
    with pytest.raises(ValueError, match=reason):
        exported(tmp_path / "run", to)
    assert not (tmp_path / "run" / "export").exists()


def test_joined_layers_are_timms_intermediates_and_not_transformers(tmp_path: Path) -> None:
    encoder = run_of(tmp_path / "run", "vit", "backbone.layers=[0,1]")
    folder = exported(tmp_path / "run", "timm")
    found = run_lines(folder)["patch_tokens"]
    torch.testing.assert_close(found, tokens(encoder, picture_of(folder, encoder))[:, 1:], rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match=r"its tokens join blocks \[0, 1\]"):
        exported(tmp_path / "run", "hf")


def test_onnx_of_any_size_with_the_authors_positions(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="install the extra onnx")
    encoder = run_of(tmp_path / "run", "dinov2", "backbone.pos_embed=author", "backbone.encoder.arch.depth=1")
    folder = exported(tmp_path / "run", "onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [value.name for value in session.get_outputs()] == ["patch_tokens", "class_token"]
    for size in ((56, 56), (28, 70), (98, 14)):
        images, _ = pixels(encoder, size)
        patches, first = session.run(None, {"images": images.numpy()})
        expected = tokens(encoder, images)
        np.testing.assert_allclose(patches, expected[:, 1:], rtol=0, atol=1e-4)
        np.testing.assert_allclose(first, expected[:, 0], rtol=0, atol=1e-4)
    card = (folder / "README.md").read_text()
    assert "largest difference of any token at each size in pixels: 56 x 56: " in card
    found = run_lines(folder)
    assert (found["patch_tokens"].shape, found["class_token"].shape) == ((1, 16, 48), (1, 48))


def test_onnx_of_fixed_sizes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="install the extra onnx")
    run_of(tmp_path / "run", "siglip", "backbone.encoder.arch.depth=1")
    with pytest.raises(ValueError, match=r"sizes are multiples of the patch, 16, and \(65, 65\) is not"):
        exported(tmp_path / "run", "onnx", "sizes=[65]")
    folder = exported(tmp_path / "run", "onnx", "sizes=[[32,64]]")
    assert [path.name for path in folder.glob("*.onnx")] == ["model_32x64.onnx"]
    assert run_lines(folder)["patch_tokens"].shape == (1, 8, 48)


def picture_of(folder: Path, encoder: Encoder) -> Tensor:
    """`image.jpg` of a folder, as the encoder takes it."""
    return encoder.transform(folder / "image.jpg")


def run_lines(folder: Path) -> dict[str, object]:
    """Run the first Python of a model card in its folder, and return its names."""
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    cv2.imwrite(str(folder / "image.jpg"), image)
    lines = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    found: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(lines, found)  # noqa: S102 - what the card tells its reader to do
    finally:
        os.chdir(before)
    return found


@pytest.mark.filterwarnings("ignore")
def test_the_lines_of_the_cards_do_what_they_say(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="install the extra dev")
    encoder = run_of(tmp_path / "run", "vit")
    for to in ("timm", "hf"):
        folder = exported(tmp_path / "run", to)
        found = run_lines(folder)
        expected = tokens(encoder, picture_of(folder, encoder))
        torch.testing.assert_close(found["patch_tokens"], expected[:, 1:], rtol=0, atol=2e-5)
        torch.testing.assert_close(found["class_token"], expected[:, 0], rtol=0, atol=2e-5)


def test_a_register_is_no_class_token(tmp_path: Path) -> None:
    run_of(tmp_path / "run", "registers")
    assert run_lines(exported(tmp_path / "run", "timm"))["class_token"] is None


@pytest.mark.parametrize("shape", ["small", "vits14_reg"])
def test_the_lines_for_dinov2_fill_its_model(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shape == "vits14_reg"
    arch = ["backbone=vits", "backbone.global_grid=4"] if own else [*MODELS["dinov2_reg"], GRID]
    encoder = write_run(tmp_path / "run", *arch)
    folder = exported(tmp_path / "run", "dinov2_hub")
    asked: dict[str, object] = {}

    class DinoVisionTransformer(nn.Module):
        """Stands in for DINOv2's class: its weights by name, as strict as there."""

        def __init__(self, **options: object) -> None:
            super().__init__()
            asked.update(options)
            state = from_timm(encoder.model.state_dict(), DINOV2_HUB, encoder.model)
            for key, value in {**state, "mask_token": torch.ones(1, encoder.dim)}.items():
                self.register_buffer(key.replace(".", "/"), torch.zeros_like(value))

        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            super().load_state_dict({key.replace(".", "/"): value for key, value in state.items()})

        def forward_features(self, pixels: Tensor) -> dict[str, Tensor]:
            return {"x_norm_patchtokens": pixels, "x_norm_clstoken": pixels}

    class Module:
        pass

    module = Module()
    module.DinoVisionTransformer = DinoVisionTransformer  # type: ignore[attr-defined]
    for name in ("dinov2", "dinov2.models", "dinov2.models.vision_transformer"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        torch.hub, "load", lambda *names, **options: DinoVisionTransformer(names=names, **options)
    )
    found = run_lines(folder)
    assert found["pixels"].shape[-2:] == native(encoder)
    if own:
        assert asked == {"names": ("facebookresearch/dinov2", "dinov2_vits14_reg"), "pretrained": False}
    else:
        assert (asked["img_size"], asked["mlp_ratio"], asked["num_register_tokens"]) == (56, 4, 4)


def test_runs_files_and_exports_are_loaded_with_their_transform(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    encoder = run_of(run, "dinov2", "backbone.pos_embed=author", "backbone.layers=[-2,-1]")
    images, _ = pixels(encoder, (28, 70))
    for path in (run, str(run / "encoder.safetensors"), exported(run, "timm")):
        loaded = paka.load(path)
        assert not loaded.training
        assert torch.equal(tokens(loaded, images), tokens(encoder, images))
        assert (loaded.transform.patch, loaded.transform.size) == (14, 56)
    made = loaded.transform(np.zeros((100, 200, 3), dtype=np.uint8))
    assert loaded(made).patches.shape == (1, 4, 8, 96)


def test_weights_of_older_runs_are_loaded_by_the_runs_configuration(tmp_path: Path) -> None:
    encoder = run_of(tmp_path / "run", "vit")
    file = tmp_path / "run" / "encoder.safetensors"
    weights.save(encoder.model, file, timm_model="vit_tiny_patch16_224")
    (tmp_path / "run" / "SHA256SUMS").unlink()
    images, _ = pixels(encoder, (32, 32))
    assert torch.equal(tokens(paka.load(tmp_path / "run"), images), tokens(encoder, images))
    alone = tmp_path / "alone.safetensors"
    file.rename(alone)
    with pytest.raises(ValueError, match=r"its metadata lack arch, .*: name the folder of the run"):
        paka.load(alone)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def of_another_model(file: Path) -> None:
    other = random_encoder(composed(*VIT, "backbone.pretrained=false", "backbone.encoder.arch.depth=3"))
    held = file.parent / "SHA256SUMS"
    weights.save(other.model, file)
    held.unlink()


@pytest.mark.parametrize(
    ("damage", "with_digest", "sentence"),
    [
        (
            truncated,
            True,
            r"expected .*encoder\.safetensors with SHA-256 \w+ of SHA256SUMS, found \w+: the file is damaged",
        ),
        (
            truncated,
            False,
            r"expected whole weights in .*encoder\.safetensors, got a damaged or truncated file",
        ),
        (flipped, True, r"the file is damaged or was changed; copy it again"),
        (of_another_model, True, r"does not fit this backbone: blocks 3 for 2"),
    ],
)
def test_damaged_weights_are_a_sentence(damage, with_digest: bool, sentence: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(run, "vit")
    damage(run / "encoder.safetensors")
    if not with_digest:
        (run / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match=sentence):
        exported(run, "timm")
    with pytest.raises(ValueError, match=sentence):
        paka.load(run)
    assert not (run / "export").exists()


def checkpoint(run: Path, *, adapted: bool) -> dict[str, Encoder]:
    """Leave a checkpoint in place of the encoder, and return its encoders as they are to come out."""
    cfg = RunFolder(run).config
    found, state = {}, {}
    for seed, branch in enumerate(("teacher", "student"), start=5):
        encoder = random_encoder(cfg, seed)
        held = copy.deepcopy(encoder)
        if adapted:
            build(cfg.tuning).apply(held)
            torch.manual_seed(seed)
            for name, value in held.named_parameters():
                if "lora" in name:
                    value.data = torch.randn_like(value) / 10
            merge(held, encoder)
        found[branch] = encoder
        state |= {f"{branch}.encoder.{key}": value for key, value in held.state_dict().items()}
    (run / "checkpoints").mkdir()
    torch.save({"state_dict": state, "global_step": 2}, run / "checkpoints" / "last.ckpt")
    (run / "encoder.safetensors").unlink()
    return found


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_run_that_was_stopped_is_exported_from_its_checkpoint(tuning: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(run, "vit", f"tuning={tuning}", scores=SCORES)
    sides = checkpoint(run, adapted=tuning == "lora")
    with pytest.raises(FileNotFoundError, match=r"which a run writes when it ends; .*python -m paka\.export"):
        paka.load(run)
    images, _ = pixels(sides["teacher"], (32, 32))
    for branch, more in (("teacher", []), ("student", ["branch=student", "overwrite=true"])):
        folder = exported(run, "timm", *more)
        assert torch.equal(tokens(paka.load(folder), images), tokens(sides[branch], images))
        card = (folder / "README.md").read_text()
        assert f"{branch} after step 2 of 1000, from last.ckpt" in card
        assert "these are other weights" in card
    with pytest.raises(ValueError, match=r"\.ckpt: export one of its encoders with python -m paka\.export"):
        paka.load(run / "checkpoints" / "last.ckpt")
    truncated(run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"expected a readable checkpoint in .*last\.ckpt"):
        exported(run, "timm", "overwrite=true")
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"whose run is finished: there is no encoder\.safetensors"):
        exported(run, "timm", "overwrite=true")


def test_a_branch_is_taken_or_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    teacher = run_of(run, "vit")
    own = ["weights=" + str(run / "encoder.safetensors"), "overwrite=true"]
    exported(run, "timm", *own, "branch=teacher")
    with pytest.raises(ValueError, match=r"holds one encoder, the teacher's: leave branch out"):
        exported(run, "timm", *own, "branch=student")
    student = random_encoder(RunFolder(run).config, seed=4)
    both = {"teacher": teacher.model.state_dict(), "student": student.model.state_dict()}
    torch.save(both, tmp_path / "both.pth")
    images, _ = pixels(student, (32, 32))
    folder = exported(run, "timm", f"weights={tmp_path}/both.pth", "branch=student", "overwrite=true")
    assert torch.equal(tokens(paka.load(folder), images), tokens(student, images))


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(run, "vit")
    folder = exported(run, "timm")
    (folder / "model.safetensors").write_bytes(b"old")
    with pytest.raises(
        ValueError, match=r"found an export there: set output=FOLDER to another, or overwrite=true"
    ):
        exported(run, "timm")
    (folder / "image.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"found image\.jpg beside it: move it elsewhere"):
        exported(run, "timm", "overwrite=true")
    (folder / "image.jpg").unlink()
    exported(run, "timm", "overwrite=true")
    assert len(safetensors.torch.load_file(folder / "model.safetensors")) > 10
    with pytest.raises(ValueError, match=r"found something else there"):
        exported(run, "timm", f"output='{run}'", "overwrite=true")
    assert (run / "config.yaml").is_file()


def test_the_current_folder_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path / "run", "vit")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    exported(tmp_path / "run", "timm", "output=.")
    assert (Path.cwd() / "model.safetensors").is_file()
    assert Path("README.md").is_file()  # also for the shell that is in it


def test_several_formats_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(export: object, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_of(tmp_path / "run", "vit")
    monkeypatch.setitem(FORMATS, "hf", FORMATS["timm"]._replace(write=full))
    with pytest.raises(
        ValueError, match=r"cannot write .*/export/hf: the disk is full.*; nothing of it is left"
    ):
        exported(tmp_path / "run", "[timm,hf]")
    assert not [*(tmp_path / "run" / "export").iterdir()]


@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk_leaves_no_half_export(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_of(run, "vit")
    if again:
        exported(run, "timm")
        before = (run / "export" / "timm" / "model.safetensors").read_bytes()

    def full(state: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(
        ValueError, match=r"cannot write .*timm: the disk is full; make room, or set output=FOLDER"
    ):
        exported(run, "timm", f"overwrite={str(again).lower()}")
    left = [path.name for path in (run / "export").iterdir()]
    assert left == (["timm"] if again else [])
    if again:
        assert (run / "export" / "timm" / "model.safetensors").read_bytes() == before


def test_folders_of_other_programs_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ValueError, match=r"expected the folder of a training"):
        exported(tmp_path, "timm")
    with pytest.raises(FileNotFoundError, match=r"found nothing there"):
        paka.load(tmp_path / "absent")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected encoder\.safetensors or model\.safetensors in"):
        paka.load(tmp_path)


def test_the_command_says_where_everything_is(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run_of(run, "vit")
    command = [sys.executable, "-m", "paka.export", f"run='{run}'", f"output='{tmp_path}/my/new export'"]
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src"), "OMP_NUM_THREADS": "1"}
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hf upload USER/NAME" in done.stdout
    assert {path.name for path in (tmp_path / "my" / "new export").iterdir()} == {
        "README.md",
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    }
    assert not [*cwd.iterdir()]
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "my" / "new export", check=False)
    assert check.returncode == 0
    done = subprocess.run(
        [*command[:3], "run=absent"], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: expected the folder of a run at absent")


def test_importing_paka_stays_light() -> None:
    script = "import sys, paka; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
