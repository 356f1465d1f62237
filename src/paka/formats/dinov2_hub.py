"""DINOv2's own format: the names of its hub code, for encoders of its kind."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from paka.encoder import create_encoder
from paka.formats import Export, Format, Written
from paka.formats.anatomy import Anatomy, anatomy
from paka.key_tables import DINOV2_HUB, Layout
from paka.layouts import difference, from_timm
from paka.loading import EXPORTED

HUB = {(384, 12, 6): "vits14", (768, 12, 12): "vitb14", (1024, 24, 16): "vitl14", (1536, 40, 24): "vitg14"}
"""Names of DINOv2's models by width, depth and heads."""

LOADING = """
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

{model}
model.load_state_dict(load_file("model.safetensors"))
model.eval()
transform = v2.Compose(
    [
        v2.Resize(({height}, {width}), interpolation=v2.InterpolationMode.BICUBIC),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize({mean}, {std}),
    ]
)
pixels = transform(Image.open("image.jpg").convert("RGB"))[None]
with torch.inference_mode():
    {forward}
"""
FROM_HUB = 'model = torch.hub.load("facebookresearch/dinov2", "dinov2_{name}", pretrained=False)'
FROM_CODE = """from dinov2.models.vision_transformer import DinoVisionTransformer  # of facebookresearch/dinov2

model = DinoVisionTransformer(
    img_size={img_size}, patch_size={patch}, embed_dim={width}, depth={depth}, num_heads={heads},
    mlp_ratio={mlp_ratio}, ffn_layer="{ffn}", init_values=1.0, block_chunks=0,
    num_register_tokens={registers}, interpolate_antialias={antialias}, interpolate_offset={offset},
)"""
LAST = """tokens = model.forward_features(pixels)
    patch_tokens = tokens["x_norm_patchtokens"]  # (1, N, D), row by row
    class_token = tokens["x_norm_clstoken"]"""
SEVERAL = """layers = model.get_intermediate_layers(pixels, n={layers})
    patch_tokens = torch.cat(layers, dim=-1)  # (1, N, D), row by row"""


def refusal(export: Export) -> str | None:
    """Return why an encoder is none of DINOv2's kind, or None."""
    network = export.encoder.model
    if network.no_embed_class and network.reg_token is None and network.cls_token is not None:
        return (
            "its class token has no position, and without registers no name tells its weights from DINOv2's"
        )
    return unlike(export, DINOV2_HUB)


def unlike(export: Export, layout: Layout) -> str | None:
    """Return why an encoder is not of DINOv2's architecture, by the names of a layout; None if it is."""
    network = export.encoder.model
    if found := difference(layout, network, optional=["reg_token"]):
        return f"it is not of DINOv2's architecture: it {found}"
    body = anatomy(network)
    wanted = "silu" if body.mlp == "packed" else "gelu"
    if body.activation != wanted or body.classes != 1:
        return f"it is not of DINOv2's architecture: its activation is {body.activation}, it has {body.classes} class tokens"
    if mlp_ratio(body) is None:
        return (
            f"it is not of DINOv2's architecture: its MLPs are {body.hidden} wide for {body.width} channels"
        )
    return None


def mlp_ratio(body: Anatomy) -> int | None:
    """Return the ratio by which DINOv2's code makes MLPs as wide as these, or None."""
    gated = body.mlp == "packed"
    widths = {ratio: _rounded(body.width * ratio) if gated else body.width * ratio for ratio in range(1, 9)}
    return next((ratio for ratio, width in widths.items() if width == body.hidden), None)


def _rounded(width: int) -> int:
    """Return the width that DINOv2 gives a gated MLP in place of a plain one."""
    return (int(width * 2 / 3) + 7) // 8 * 8


def write(export: Export, folder: Path) -> Written:
    """Write weights under DINOv2's names, read them back, and compare."""
    network = export.encoder.model
    state = from_timm(network.state_dict(), DINOV2_HUB, network)
    body = anatomy(network)
    state["mask_token"] = torch.zeros(1, body.width)
    save_state(state, folder / EXPORTED, export)
    check_exact(export, folder / EXPORTED)
    height, width = export.position_size
    forward = LAST if export.spec.layers is None else SEVERAL.format(layers=export.spec.layers)
    loading = LOADING.format(
        model=_model(export, body),
        forward=forward,
        height=height,
        width=width,
        mean=export.spec.mean,
        std=export.spec.std,
    )
    return Written(
        "pytorch",
        loading.strip(),
        "Read back into timm's names, every weight is the same bit for bit.",
        [
            "`mask_token` is zero: only DINOv2's training needs it.",
            f"At other sizes than {height} x {width} pixels DINOv2's code resamples position embeddings its own way.",
        ],
    )


def save_state(state: dict[str, Tensor], path: Path, export: Export) -> None:
    """Write weights under other names, with the metadata of the export."""
    whole = {key: value.detach().contiguous().clone() for key, value in state.items()}
    safetensors.torch.save_file(whole, path, metadata={"format": "pt", **export.metadata})


def check_exact(export: Export, path: Path) -> None:
    """Read weights back under timm's names.

    Raises:
        ValueError: One of them is not exactly the encoder's.
    """
    spec = export.spec
    again = create_encoder(spec.timm_model, arch=spec.arch, weights_file=path).model.state_dict()
    changed = [
        key for key, value in export.encoder.model.state_dict().items() if not torch.equal(again[key], value)
    ]
    if changed:
        raise ValueError(
            f"expected the same weights back from {path.name}, {changed[0]} differs: nothing was exported"
        )


def _model(export: Export, body: Anatomy) -> str:
    """Return the lines that build the model."""
    patch, (height, width) = export.encoder.patch_size, export.position_size
    name = HUB.get((body.width, body.depth, body.heads))
    plain = {"vitg14": "packed"}.get(name or "", "plain")
    if name and (patch, height, width) == (14, 518, 518) and body.registers in (0, 4) and body.mlp == plain:
        return FROM_HUB.format(name=name + "_reg" * (body.registers == 4))
    return FROM_CODE.format(
        img_size=height if height == width else (height, width),
        patch=patch,
        width=body.width,
        depth=body.depth,
        heads=body.heads,
        mlp_ratio=mlp_ratio(body),
        ffn="swiglufused" if body.mlp == "packed" else "mlp",
        registers=body.registers,
        antialias=body.registers > 0,
        offset=0.0 if body.registers else 0.1,
    )


FORMAT = Format("the format of DINOv2's hub code", refusal, write)
