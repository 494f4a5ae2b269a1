"""What reads files without ComfyUI, each with a valid file of a few kilobytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastcomposer_files
import ip_files
import mutations
import numpy as np
import torch
from attempts import Reader
from PIL import Image
from routed import spec
from safetensors.torch import save_file
from test_ip_adapter import as_trained
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from moa_attention import MoAAdapter, MoAConfig, load_adapter, save_adapter
from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.fastcomposer import plan_fastcomposer
from moa_attention.formats.ip_adapter.importing import flatten
from moa_attention.formats.plan import check_fit
from moa_attention.formats.registry import load_stored
from moa_attention.formats.routers import attach_routers, expert_name, load_routers, save_routers
from moa_attention.formats.subject import StoredSubject, load_subject, save_subject
from moa_attention.formats.tensors import from_memory, open_stored
from moa_attention.method.factory import Factory
from moa_attention.method.spec import EMBEDDED_ENCODER
from moa_attention.training.data.folder import read_pictures
from moa_attention.training.data.images import read_image, read_masks
from moa_attention.training.data.pictures import BadPicture
from moa_attention.training.saved.log import RunLog, keep_rows, read_losses
from moa_attention.training.saved.settings import RunMismatch, RunSettings, read_run
from moa_attention.training.saved.state import TrainingState


class WithoutInitialValues:
    """torch's layers; their initial values would cost more time than reading a file."""

    class Linear(nn.Linear):
        def reset_parameters(self) -> None:
            pass

    class LayerNorm(nn.LayerNorm):
        def reset_parameters(self) -> None:
            pass

    class GroupNorm(nn.GroupNorm):
        def reset_parameters(self) -> None:
            pass

    class Conv2d(nn.Conv2d):
        def reset_parameters(self) -> None:
            pass


FACTORY = Factory(WithoutInitialValues)
LAYERS = (spec("input_1_0_attn1", 0, 8, 8, 2, False), spec("middle_0_0_attn2", 1, 8, 8, 2, True))
CONFIGS = {
    "moa": MoAConfig("sd15", LAYERS, 8, "clip-vit-large-patch14", 8),
    "moa low rank": MoAConfig("sd15", LAYERS, 8, "clip", 8, "own", rank=2, router="mlp"),
    "moa with an encoder": MoAConfig("moa-mini", LAYERS, 8, EMBEDDED_ENCODER, 8),
    "moa with a tail": MoAConfig("sd15", LAYERS, 8, "clip", 8, router="none", fusion="fastcomposer", encoder_tail=1, encoder_width=64),
}  # fmt: skip
FILE = "file.safetensors"


def small(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float16)


def adapter(name: str) -> MoAAdapter:
    torch.manual_seed(0)
    return MoAAdapter(CONFIGS[name])


def write_adapter(name: str) -> Callable[[Path], None]:
    provenance = {"data": "drawn", "steps": 7, "config": {"rate": 0.1, "names": ["a", "b"]}}
    return lambda folder: save_adapter(adapter(name), folder / FILE, licence="CC0", provenance=provenance)


def load_any(folder: Path) -> Any:
    """As 'Load MoA Adapter' and 'Encode Subject (MoA)' do: the adapter, its identity, and the feature of a picture."""
    made = load_stored(open_stored(folder / FILE), FACTORY).adapter
    assert made.identity
    shapes = {
        name: (3, width, width) if name == "pixels" else (5, width) if name in ("patches", "hidden") else (width,)
        for name, width in made.requires.items()
    }
    inputs: dict[Any, Tensor] = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
    feature = made.float().encode(inputs)
    tokens = 5 if made.feature_is_tokens and not made.config.image_width else 1
    assert feature.shape == (1, made.config.image_width or tokens * made.config.text_width)


def ip_adapter(kind: Any, form: str = "") -> dict[str, Tensor]:
    inner = 64 if kind in ("plus", "faceid plus") else 8
    text = 64 if kind == "faceid plus" else 8
    tensors = flatten(ip_files.nested(kind, [8] * 16, 8, text, tokens=2, inner=inner, depth=1, rank=2, make=small))
    return as_trained(tensors, form) if form else tensors


def write_ip_adapter(kind: Any, form: str = "") -> Callable[[Path], None]:
    return lambda folder: save_file({name: t.clone() for name, t in ip_adapter(kind, form).items()}, folder / FILE)


EXPERT = adapter("moa")


def write_routers(folder: Path) -> None:
    routed = copy.deepcopy(EXPERT)
    attach_routers(routed, "mlp")
    save_routers(routed, folder / FILE, expert=expert_name(EXPERT), licence="CC0", provenance={"data": "boxes"})


def read_routers(folder: Path) -> Any:
    return load_routers(copy.deepcopy(EXPERT), folder / FILE, FACTORY)


def write_subject(folder: Path) -> None:
    thumbnail = torch.zeros(16, 16, 3, dtype=torch.uint8)
    save_subject(StoredSubject(torch.ones(1, 16), "clip:abc", "man", 1, 2, thumbnail), folder / FILE)


def write_fastcomposer(folder: Path) -> None:
    """Names and shapes only, as the container of the real one is covered by the pickled IP-Adapter."""
    tensors = fastcomposer_files.tensors(fastcomposer_files.TINY)
    shapes = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()}
    (folder / "shapes.json").write_text(json.dumps(shapes))


def read_fastcomposer(folder: Path) -> Any:
    path = folder / "shapes.json"
    try:
        shapes = json.loads(path.read_bytes())
        tensors = {
            name: torch.empty(shape, dtype=getattr(torch, kind), device="meta")
            for name, (shape, kind) in shapes.items()
        }
    except Exception as error:  # no shapes at all: nothing of the reader is tried
        raise StoredFileError(path, "has no shapes.") from error
    stored = from_memory(path, tensors)
    plan = plan_fastcomposer(stored, FACTORY)
    check_fit(stored, plan.adapter.state_dict(), plan.sources, plan.kind)


def write_dataset(folder: Path) -> None:
    """FastComposer's layout, with one picture of two people."""
    (folder / "00000").mkdir(exist_ok=True)
    (folder / "image_ids_train.txt").write_text("00000001\n")
    segments = np.zeros((12, 16), np.int64)
    segments[:, :5], segments[:, 10:] = 7, 9
    np.save(folder / "00000" / "00000001.npy", segments)
    people = [{"id": 7, "coco_label": "person", "end": 5}, {"id": 9, "coco_label": "person", "end": 17}]
    (folder / "00000" / "00000001.json").write_text(json.dumps({"caption": "a man and a woman", "segments": people}))
    Image.new("RGB", (16, 12), (200, 30, 30)).save(folder / "00000" / "00000001.jpg")


def write_picture(kind: str) -> Callable[[Path], None]:
    """Our layout: a picture, its caption and its mask."""

    def write(folder: Path) -> None:
        Image.new("RGBA" if kind == "png" else "RGB", (16, 12), (200, 30, 30)).save(folder / f"a.{kind}")
        (folder / "a.txt").write_text("a <|image|>man on a beach")
        mask = np.zeros((12, 16), np.uint8)
        mask[2:9, 3:9] = 255
        Image.fromarray(mask).save(folder / "a.mask.png")

    return write


def read_dataset(folder: Path) -> Any:
    """Everything that training reads; the reasons why pictures are left out are lines of the report."""
    reading = read_pictures(folder)
    for picture in list(reading.pictures):
        try:
            image = read_image(picture.path)
            read_masks(picture, (image.shape[-2], image.shape[-1]))
        except BadPicture as reason:
            reading.drop(picture, str(reason))
    lines = [str(remark) for remark in (*reading.dropped, *reading.unused)]
    assert all(len(line.splitlines()) == 1 for line in lines), lines
    return reading


STATE, LOG = "state.safetensors", "log.jsonl"


def training_state(folder: Path) -> TrainingState:
    """Of a run of three steps with a layer of eight weights and its average."""
    torch.manual_seed(0)
    layer = nn.Linear(2, 4)
    average = AveragedModel(layer)
    settings = RunSettings({"train.steps": 3, "train.rate": 0.1}, frozenset())
    return TrainingState(folder / STATE, layer, average, torch.optim.AdamW(layer.parameters(), 0.1), settings)


def write_state(folder: Path) -> None:
    state = training_state(folder)
    state.model(torch.ones(1, 2)).sum().backward()
    state.moments.optimiser.step()
    state.save(3)


def read_state(folder: Path) -> None:
    assert read_run(folder / STATE) is not None
    training_state(folder).load(3)


def write_log(folder: Path) -> None:
    log = RunLog(folder / LOG)
    for step in range(1, 4):
        log.step(step, {"loss": 0.5, "rate": 0.1})
    log.note(3, "A sentence.")


def read_run_log(folder: Path) -> None:
    assert all(isinstance(loss, int | float) for loss in read_losses(folder / LOG))
    keep_rows(folder / LOG, 2)


SLOW = ("moa with an encoder", "ip-adapter faceid", "ip-adapter faceid plus", "ip-adapter of the trainer")
SLOW_SHARE = 0.15
"""Their valid files are of megabytes, or of hundreds of tensors."""
KINDS = ("base", "plus", "full", "faceid", "faceid plus", "faceid portrait")


def core_readers() -> list[Reader]:
    """All of them."""

    def tensor_file(name: str, write: Callable[[Path], None], read: Callable[[Path], Any]) -> Reader:
        share = SLOW_SHARE if name in SLOW else 1
        return Reader(name, FILE, write, read, StoredFileError, mutations.SAFETENSORS, share=share)

    def dataset(name: str, file: str, write: Callable[[Path], None], kinds: tuple[mutations.Mutation, ...]) -> Reader:
        largest = 1500 if kinds is mutations.RAW else 256  # a picture of 100 million pixels may be a small file
        return Reader(name, file, write, read_dataset, BadPicture, kinds, names_file=False, mebibytes=largest)

    form = (write_fastcomposer, read_fastcomposer, StoredFileError, mutations.JSON)
    refusals = (StoredFileError, RunMismatch)
    state = Reader("training state", STATE, write_state, read_state, refusals, mutations.SAFETENSORS, names_file=False)
    names = Reader("fastcomposer", "shapes.json", *form, share=SLOW_SHARE)
    return [
        *(tensor_file(name, write_adapter(name), load_any) for name in CONFIGS),
        tensor_file("moa alone", write_adapter("moa"), lambda folder: load_adapter(folder / FILE, FACTORY)),
        *(tensor_file(f"ip-adapter {kind}", write_ip_adapter(kind), load_any) for kind in KINDS),
        tensor_file("ip-adapter of the trainer", write_ip_adapter("faceid", "unet"), load_any),
        tensor_file("routers", write_routers, read_routers),
        tensor_file("subject", write_subject, lambda folder: load_subject(folder / FILE)),
        names,
        state,
        Reader("training log", LOG, write_log, read_run_log, StoredFileError, mutations.LINES, names_file=False),
        dataset("data list", "image_ids_train.txt", write_dataset, mutations.LINES),
        dataset("data record", "00000/00000001.json", write_dataset, mutations.JSON),
        dataset("data segments", "00000/00000001.npy", write_dataset, mutations.ARRAY),
        *(dataset(f"data {kind}", f"a.{kind}", write_picture(kind), mutations.RAW) for kind in ("jpg", "webp", "png")),
        dataset("data mask", "a.mask.png", write_picture("jpg"), mutations.RAW),
        dataset("data caption", "a.txt", write_picture("jpg"), mutations.LINES),
    ]
