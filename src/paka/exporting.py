"""Exporting: a run's encoder in the formats of other libraries, each a folder that is complete for a hub."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from paka import assembly, terminal
from paka.config_keys import flattened
from paka.digests import sha256, write_digests
from paka.encoder import Encoder
from paka.formats import Export, Format, Written, dinov2_hub, hugging_face, onnx_graph, timm_hub
from paka.formats.anatomy import anatomy
from paka.loading import ENCODER
from paka.model_card import FILE, Licence, ModelCard
from paka.new_folder import check_free, new_folder
from paka.provenance import command_line, private, provenance
from paka.run_encoder import RunEncoder, finished_encoder, open_encoder
from paka.run_folder import RunFolder

FORMATS: dict[str, Format] = {
    "timm": timm_hub.FORMAT,
    "dinov2_hub": dinov2_hub.FORMAT,
    "hf": hugging_face.FORMAT,
    "onnx": onnx_graph.FORMAT,
}
"""Formats by the names that `to=` takes."""

CARD = "README.md"


def export(cfg: DictConfig) -> None:
    """Write a run's encoder in each format that is asked for, with its model card, and say where.

    Args:
        cfg: The composed and validated configuration of an export.

    Raises:
        FileNotFoundError: There is no such run, or it has no encoder.
        ValueError: The weights are damaged, do not fit, or cannot be written in a format; something else is in the way, or the
            disk is full.
    """
    run = RunFolder(cfg.run)
    targets = _targets(cfg, run)
    for target in targets.values():
        check_free(target, overwrite=cfg.overwrite)
    found = open_encoder(run, None if cfg.weights is None else Path(cfg.weights).expanduser(), cfg.branch)
    exported = Export(found.encoder, found.spec, _metadata(run, found), _sizes(cfg.sizes), cfg.opset)
    _check_formats(exported, list(targets))
    console = terminal.standard_output()
    terminal.banner("paka: export of a post-trained encoder", _facts(run, found, exported), console=console)
    checks = {}
    with ExitStack() as folders:  # all are filled before the first is put in its place
        for name, target in targets.items():
            checks[name] = _write(name, folders.enter_context(new_folder(target)), run, found, exported)
    terminal.print_facts(console, {f"checked {name}": said for name, said in checks.items()})
    upload = shlex.join(["hf", "upload", "USER/NAME", str(next(iter(targets.values())))])
    terminal.closing([], targets, upload, console=console)


def _targets(cfg: DictConfig, run: RunFolder) -> dict[str, Path]:
    """Return where each format goes."""
    several = not isinstance(cfg.to, str)
    names = list(dict.fromkeys(cfg.to)) if several else [cfg.to]
    if cfg.output is None:
        return {name: run.path / "export" / name for name in names}
    output = Path(cfg.output).expanduser().resolve()  # `.` has no name to write beside
    return {name: output / name if several else output for name in names}


def _sizes(sizes: Any) -> list[tuple[int, int]] | None:
    """Return sizes as heights and widths."""
    if sizes is None:
        return None
    return [(size, size) if isinstance(size, int) else (size[0], size[1]) for size in sizes]


def _check_formats(exported: Export, names: Sequence[str]) -> None:
    """Refuse formats that the encoder does not fit.

    Raises:
        ValueError: There is one.
    """
    refused = {name: reason for name in names if (reason := FORMATS[name].refusal(exported)) is not None}
    if refused:
        fitting = [name for name, one in FORMATS.items() if one.refusal(exported) is None]
        reasons = "; ".join(f"not {name}: {reason}" for name, reason in refused.items())
        raise ValueError(
            f"to: expected formats that fit {exported.spec.timm_model}, {reasons}; to={_listed(fitting)} fits"
        )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _metadata(run: RunFolder, found: RunEncoder) -> dict[str, str]:
    """Return what travels with the weights."""
    held = {name: private(value) for name, value in found.metadata.items() if name != "format"}
    return {
        "licence_of_start": assembly.licence(run.config, found.encoder),
        **held,
        **found.spec.metadata(),
        "exported": found.said,
    }


def _facts(run: RunFolder, found: RunEncoder, exported: Export) -> dict[str, str]:
    """Return what the banner says."""
    return {
        "run": f"{run.path}, {run.state}",
        "encoder": f"{found.spec.timm_model}, {found.said}",
        "licence": exported.metadata["licence_of_start"],
    }


def _write(name: str, folder: Path, run: RunFolder, found: RunEncoder, exported: Export) -> str:
    """Write one format with its card into a folder, and return how it was checked."""
    written = FORMATS[name].write(exported, folder)
    card = _card(name, run, found, exported, written, folder)
    (folder / CARD).write_text(card.text(), encoding="utf-8")
    _share(folder)
    write_digests(folder, sorted(path.name for path in folder.iterdir()))
    return written.checked


def _share(folder: Path) -> None:
    """Let whoever may read the card read the weights: safetensors writes files for their owner alone."""
    mode = (folder / CARD).stat().st_mode & 0o777
    for path in folder.iterdir():
        path.chmod(mode)


def write_run_card(run: RunFolder, encoder: Encoder) -> None:
    """Write the model card of the encoder that a run left, beside it.

    Args:
        run: The run, which has written weights and scores.
        encoder: What was written.
    """
    found = finished_encoder(run, encoder)
    exported = Export(encoder, found.spec, _metadata(run, found))
    loading = assembly.loading_lines(run.config, Path(ENCODER)).strip()
    written = Written("timm", loading, "These are the weights that the run came to.")
    text = _card("timm", run, found, exported, written, None).text()
    (run.path / FILE).write_text(text, encoding="utf-8")


def _card(
    name: str, run: RunFolder, found: RunEncoder, exported: Export, written: Written, folder: Path | None
) -> ModelCard:
    """Return the model card of a format, whose files are in a folder; or of the run itself, without."""
    cfg, licence = run.config, exported.metadata["licence_of_start"]
    scores = run.scores if found.final else []
    return ModelCard(
        title=cfg.run_name,
        format=FORMATS[name].what,
        library=written.library,
        base_model=_base_model(cfg, found),
        licence=Licence(licence, random=licence.startswith("none")),
        encoder=_encoder_facts(exported),
        training=_training_facts(run, found),
        tagged="tags" in cfg.objective.told,
        choices=_choices(run),
        overrides=[private(override) for override in run.overrides],
        scores=scores,
        unscored=_unscored(run, found),
        loading=written.loading,
        with_paka=name != "onnx",
        checked=written.checked,
        notes=written.notes,
        files={} if folder is None else _files(folder),
        source=(found.file.name, sha256(found.file)),
        commands={
            **_commands(run),
            **({} if folder is None else {"The export": private(command_line())}),
        },
        versions={
            "run": _versions(run.provenance),
            **({} if folder is None else {"export": _versions(provenance())}),
        },
    )


def _commands(run: RunFolder) -> dict[str, str]:
    """Return the commands of a run: the one that began it, and those that went on with it."""
    known = [*run.provenance.get("before", []), run.provenance]
    first, *others = [private(one.get("command", "not recorded")) for one in known]
    again = {f"Gone on with{f', {n}' if n > 1 else ''}": command for n, command in enumerate(others, 1)}
    return {"The run": first, **again}


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    return {path.name: (path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir())}


def _choices(run: RunFolder) -> dict[str, str]:
    """Return the options that were chosen, without those of Hydra itself and groups without one."""
    chosen = {group: option for group, option in run.choices.items() if option != "None"}
    return {group: chosen[group] for group in sorted(chosen) if not group.startswith("hydra/")}


def _base_model(cfg: DictConfig, found: RunEncoder) -> str:
    """Return the name of the start weights on the hub; empty if they are not of it."""
    node = cfg.backbone.encoder
    from_hub = cfg.backbone.pretrained and assembly.taken(cfg) is None and "packaged" not in node
    return str(found.encoder.published.get("hf_hub_id") or "") if from_hub else ""


def _encoder_facts(exported: Export) -> dict[str, str]:
    """Return what the card says of the encoder."""
    body = anatomy(exported.encoder.model)
    millions = sum(value.numel() for value in exported.encoder.model.parameters()) / 1e6
    height, width = exported.position_size
    positions = (
        "rotary" if exported.encoder.model.pos_embed is None else f"learnt at {height} x {width} pixels"
    )
    layers = exported.spec.layers
    return {
        "architecture": f"{exported.spec.timm_model} of timm, {millions:.1f} M parameters, patches of {exported.encoder.patch_size} pixels",
        "tokens": f"{exported.encoder.dim} channels, class tokens: {body.classes}, registers: {body.registers}"
        + (f", of blocks {layers} joined along the channels" if layers else ""),
        "input": f"RGB, height and width in whole patches, post-trained at {exported.image_size} x {exported.image_size} pixels; positions {positions}",
        "pixels": f"in [0, 1], less the mean {exported.spec.mean}, divided by {exported.spec.std}",
    }


def _training_facts(run: RunFolder, found: RunEncoder) -> dict[str, str]:
    """Return what the card says of the training."""
    cfg, choices = run.config, run.choices
    part = f"split {cfg.data.split}, limit {cfg.data.limit or 'none'}, fraction {cfg.data.fraction}"
    return {
        "start": f"{cfg.backbone.name}, {private(assembly.starting_point(cfg))}",
        "images": private(found.metadata.get("images", f"{cfg.data.name}, no mask read")) + f"; {part}",
        "steps": f"{cfg.trainer.max_steps} of {cfg.backbone.batch_size} images, seed {cfg.seed}",
        "exported": found.said,
        "objective": choices.get("objective", cfg.method),
        **({"kernel": choices.get("kernel", "not recorded")} if _has_kernel(cfg) else {}),
        "run": cfg.run_name if found.final else f"{cfg.run_name}, {run.state}",
    }


def _has_kernel(cfg: DictConfig) -> bool:
    """Return whether the objective, or one of those that it is the sum of, compares kernels."""
    loss: Any = OmegaConf.to_container(cfg.objective.loss, resolve=True)
    return any("kernel" in key.split(".") for key in flattened(loss))


def _unscored(run: RunFolder, found: RunEncoder) -> str:
    """Return why there are no scores."""
    if not found.final and run.scores:
        return "Not scored: the run's scores are of its encoder.safetensors, and these are other weights."
    return "Not scored: whether the tokens got better, and at what, is not known."


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    """Return versions of code and packages by name."""
    packages = {name: str(version) for name, version in found.get("packages", {}).items() if version}
    return {
        "commit": str(found.get("git") or "not known"),
        "python": str(found.get("python", "not known")),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()) or "not known",
    }
