"""A program: trains an adapter of SD1.5's real width on one batch and prints what that took, beside what was planned.

`python full_width.py HOST STEPS` -> one line of JSON.
"""

import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(Path(__file__).parent)]

from devtools.in_process import import_host, import_pack  # noqa: E402

import_host(Path(sys.argv[1]), base=Path(tempfile.mkdtemp()))
import_pack()

import comfy.model_patcher  # noqa: E402
import comfy.supported_models  # noqa: E402
import host  # noqa: E402
import torch  # noqa: E402
from comfyui_moa.moa_attention.training.base import Batch  # noqa: E402
from comfyui_moa.moa_attention.training.config import TrainConfig  # noqa: E402
from comfyui_moa.moa_attention.training.footprint import footprint  # noqa: E402
from comfyui_moa.moa_attention.training.loop import train  # noqa: E402
from comfyui_moa.moa_attention.training.lots import lots  # noqa: E402
from comfyui_moa.moa_attention.training.objective import Objective  # noqa: E402
from comfyui_moa.moa_attention.training.workers import Alone  # noqa: E402
from comfyui_moa.nodes.layers import fresh_adapter  # noqa: E402
from comfyui_moa.nodes.patch import host_patcher  # noqa: E402
from comfyui_moa.nodes.training import HostBase, checkpointed, training_mode  # noqa: E402

SIDE = 32
CONFIG = TrainConfig(
    steps=int(sys.argv[2]), batch_size=1, learning_rate=1e-4, precision="float32", checkpointing=True, save_every=1000
)


def memory(field: str) -> float:
    """MiB of this process: `VmRSS` now, `VmHWM` at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def batch(device: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    slots, masks = torch.zeros(1, 77, dtype=torch.long), torch.zeros(1, 1, SIDE, SIDE)
    slots[0, 4], masks[0, 0, 8:24, 8:24] = 1, 1
    latents, context, references = (
        torch.randn(shape, generator=generator).to(device) for shape in ((1, 4, SIDE, SIDE), (1, 77, 768), (1, 1, 768))
    )
    return Batch(latents, context, slots, references, masks.to(device))


def plan() -> float:
    """MiB by the plan."""
    meta = torch.device("meta")
    built = host.build(comfy.supported_models.SD15, host.sd15_layout(channels=320, context=768), "meta")
    model = comfy.model_patcher.ModelPatcher(built, load_device=meta, offload_device=meta)
    with meta:
        adapter = fresh_adapter(model, "clip", 768)
    with checkpointed(model.model) if CONFIG.checkpointing else nullcontext():
        objective = Objective(adapter, HostBase(model, host_patcher(adapter)), CONFIG)
        return footprint(objective, model.model.diffusion_model, batch("meta"), CONFIG, fused=False).total / 2**20


def main() -> None:
    planned, before = plan(), memory("VmRSS")
    model = host.sd15(channels=320, context=768)
    adapter = fresh_adapter(model, "clip", 768)

    def loss() -> float:
        with torch.no_grad():
            return float(Objective(adapter, base, CONFIG)(batch("cpu"), next(lots(0, CONFIG, Alone())).generators)[0])

    with training_mode(model, CONFIG):
        base = HostBase(model, host_patcher(adapter))
        first = loss()
        used: list[float] = []  # writing the state at the end takes a copy of it, which is not the step's

        def log(*_: object) -> None:
            used.append(memory("VmHWM") - before)

        with tempfile.TemporaryDirectory() as folder:
            train(adapter, base, lambda _: batch("cpu"), CONFIG, Path(folder) / "state", log)
        last = loss()
    print(json.dumps({"first": first, "last": last, "planned_mib": planned, "used_mib": used[-1]}))


main()
