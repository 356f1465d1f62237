"""Put a pretraining run's encoder into the package: half precision, with its SHA-256."""

import sys
from pathlib import Path

import safetensors.torch

from paka.weights import sha256

run, assets = Path(sys.argv[1]), Path(__file__).parents[2] / "src" / "paka" / "assets"
state = safetensors.torch.load_file(run / "encoder.safetensors")
target = assets / "tiny.safetensors"
safetensors.torch.save_file(
    {name: value.half() for name, value in state.items()}, target, metadata={"format": "pt"}
)
(assets / "tiny.sha256").write_text(f"{sha256(target)}  {target.name}\n")
sys.stdout.write(f"{target}: {target.stat().st_size / 1e6:.1f} MB\n")
