"""What differs between the base models: files, sizes, sampling settings, words of the prompt, and their part of the note."""

from __future__ import annotations

from typing import Any, NamedTuple


class Family(NamedTuple):
    """A base model with its adapter. Without `checkpoint` it is MoA Mini, which needs no files."""

    side: int
    pictures: int
    sampling: dict[str, Any]
    apply: dict[str, Any]
    prompt: str
    negative: str
    note: str
    """`{more}` is the place for further files that a workflow needs, `{loaders}` the number of loaders."""
    stronger: float
    """Strength of a second pass that repaints only the person."""
    control: str
    silhouettes: bool
    """Whether the ControlNet takes silhouettes. If not, it takes edges."""
    lora: str
    checkpoint: str = ""
    adapter: str = ""
    vision: str = ""

    def text(self, people: str, scene: str = "on a beach") -> str:
        """The prompt for people in a scene."""
        return self.prompt.format(people=people, scene=scene)


VISION = "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
FILES = """**Files that this workflow needs**

- `models/checkpoints`: {checkpoint}, or any {family} checkpoint
- `models/ipadapter`: {adapter}
- `models/clip_vision`: {vision}{{more}}

Choose your files in the {{loaders}} loaders, and drop a photo on each *Load Image*. A face that fills the picture works best; *Crop Subject (MoA)* cuts
it out."""
MINI_NOTE = """Ready to run: no download, seconds on a CPU. MoA Mini generates cartoon people only and cannot use photos. Its scenes: *on a
beach, at sunset, in a city at night, in the snow, in a forest, in a desert, under water, in space, in a room, on a stage*."""


def stable_diffusion(family: str, side: int, checkpoint: str, adapter: str, control: str, lora: str) -> Family:
    """SD1.5 or SDXL with an IP-Adapter."""
    return Family(
        side, 1, {"steps": 25, "cfg": 6.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"},
        {"strength": 0.8, "start_percent": 0.0}, "photo of {people} {scene}, natural light, sharp focus",
        "blurry, low quality, deformed",
        FILES.format(family=family, checkpoint=checkpoint, adapter=adapter, vision=VISION), 1.0,
        control, False, lora, checkpoint, f"ipadapter/{adapter}", VISION,
    )  # fmt: skip


FAMILIES = {
    "mini": Family(
        128, 4, {"steps": 30, "cfg": 2.5, "sampler_name": "euler_ancestral", "scheduler": "sgm_uniform"},
        {"strength": 0.25, "start_percent": 0.1}, "{people} {scene}", "", MINI_NOTE, 2.0,
        "moa_mini_silhouettes.safetensors", True, "moa_mini_sepia.safetensors",
        adapter="bundled/mini/adapter.safetensors",
    ),
    "sd15": stable_diffusion(
        "SD1.5", 512, "v1-5-pruned-emaonly-fp16.safetensors", "ip-adapter-plus-face_sd15.safetensors",
        "control_v11p_sd15_canny_fp16.safetensors", "blindbox_V1Mix.safetensors",
    ),
    "sdxl": stable_diffusion(
        "SDXL", 1024, "sd_xl_base_1.0.safetensors", "ip-adapter-plus-face_sdxl_vit-h.safetensors",
        "control-lora-canny-rank256.safetensors", "pixel-art-xl.safetensors",
    ),
}  # fmt: skip
