"""The preset beside the real IPAdapter_plus, where its checkout is given; the differences go into docs/from-ipadapter-plus.md.

    IPADAPTER_PLUS=<checkout> python dev.py test comfy -- -k real_pack

Tiny models with the real widths of text, which the extension recognises kinds by. Its FaceID kinds need InsightFace, and are not among them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.subjects.noise import NOISE_KINDS, NoiseKind, add_noise
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.adapters import open_adapter
from comfyui_moa.nodes.host.pictures.vision import clip_squares
from comfyui_moa.nodes.host.prompts.whole_prompt import add_subjects
from comfyui_moa.nodes.settings import MoASubjectSettings
from comfyui_moa.nodes.sockets import LoadedAdapter
from test_image_prompts import FEATURES, file_order, ip_files, random
from torch import Tensor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "from-ipadapter-plus.md"
START, END = "<!-- differences: written by tests/comfy/test_real_pack.py -->", "<!-- end of differences -->"
CHECKOUT = os.environ["IPADAPTER_PLUS"]
LIMIT = 3e-5


class Kind(NamedTuple):
    """A file of one kind as the page names it, with a tiny model."""

    model: Any
    context: int
    pooled: int | None
    file: dict[str, dict[str, Tensor]]
    adapter: LoadedAdapter


class Case(NamedTuple):
    """A setting as the page names it, in the inputs of both."""

    name: str
    node: str = "IPAdapterAdvanced"
    theirs: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    encode: dict[str, Any] = {}
    sample: dict[str, Any] = {}
    pictures: int = 1
    shape: tuple[int, int] = (96, 64)
    negative: bool = False


MASKS = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(2))
MASK = torch.zeros(1, 64, 96)
MASK[:, 8:50, 20:70] = torch.rand(42, 50, generator=torch.Generator().manual_seed(3))
TYPES = [
    "ease in", "ease out", "ease in-out", "reverse in-out", "weak input", "weak output", "weak middle", "strong middle", "style transfer",
    "composition", "strong style transfer", "style and composition", "style transfer precise", "composition precise",
]  # fmt: skip
MODES = {"concat": "concat", "add": "add", "subtract": "subtract", "average": "mean", "norm average": "norm mean"}
FEW = [
    Case("cfg 1", sample={"cfg": 1.0}),
    Case("cfg 7"),
    Case("weight 0.6", theirs={"weight": 0.6}, settings={"strength": 0.6}),
    Case("style transfer", theirs={"weight_type": "style transfer"}, settings={"weight_type": "style transfer"}),
    Case("K+V", theirs={"embeds_scaling": "K+V", "weight": 0.8}, settings={"embeds_scaling": "K+V", "strength": 0.8}),
    Case("mask, batch of 2", theirs={"attn_mask": MASK}, settings={"region": MASK}, sample={"size": (16, 24, 2)}),
]
MANY = [
    *FEW,
    Case("weight −0.5", theirs={"weight": -0.5}, settings={"strength": -0.5}),
    *(Case(t, theirs={"weight_type": t}, settings={"weight_type": t}) for t in TYPES if t != "style transfer"),
    *(
        Case(f"{s}", theirs={"embeds_scaling": s, "weight": 0.8}, settings={"embeds_scaling": s, "strength": 0.8})
        for s in ("K+V w/ C penalty", "K+mean(V) w/ C penalty")
    ),
    Case(
        "from 0.1 to 0.75", theirs={"start_at": 0.1, "end_at": 0.75}, settings={"start_percent": 0.1, "end_percent": 0.75},
        sample={"steps": 4},
    ),
    *(
        Case(f"3 pictures, {theirs}", theirs={"combine_embeds": theirs}, encode={"combine": ours, "before_projection": True}, pictures=3)
        for theirs, ours in MODES.items()
    ),
    Case("negative picture", negative=True),
    Case(
        "2 pictures and weights by frame", "IPAdapterBatch", {"weight": [1.0, 0.5, 0.2]}, {"weights": "1, 0.5, 0.2"},
        {"combine": "one per frame"}, {"size": (8, 8, 3)}, pictures=2,
    ),
    Case("masks by frame", theirs={"attn_mask": MASKS}, settings={"region": MASKS}, sample={"size": (8, 8, 3)}),
    *(
        Case(f"tiles of {w} × {h}", "IPAdapterTiled", {"sharpening": 0.0}, encode={"fit": "tiles"}, sample={"size": (16, 24)}, shape=(h, w))
        for h, w in ((70, 80), (64, 150), (300, 60))
    ),
    Case(
        "tiles with a mask", "IPAdapterTiled", {"sharpening": 0.0, "attn_mask": MASK}, {"region": MASK}, {"fit": "tiles"},
        {"size": (16, 24)}, shape=(64, 96),
    ),
    Case(
        "tiles of 2 pictures, average", "IPAdapterTiled", {"sharpening": 0.0, "combine_embeds": "average"}, {},
        {"fit": "tiles", "combine": "mean", "before_projection": True}, {"size": (16, 24)}, 2, (64, 96),
    ),
]  # fmt: skip


@cache
def pack() -> Any:
    """Its nodes, by name."""
    folder = Path(CHECKOUT)
    spec = importlib.util.spec_from_file_location(
        "real_ipadapter_plus", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


@cache
def kind(name: str) -> Kind:
    base, form = name.split(" ", 1)
    context, pooled = (768, None) if base == "SD1.5" else (2048, host.SDXL_G)
    model = host.sd15(context=context) if base == "SD1.5" else host.sdxl(context=context)
    form = form.split(",")[0]
    inner = {"full": FEATURES, "plus": 768 if base == "SD1.5" else 1280}.get(form, 0)
    shape = {"tokens": 16 if form in ("plus", "faceid portrait") else 4, "inner": inner, "rank": 4, "make": random(3)}
    widths = [layer.spec.hidden for layer in file_order(model)]
    file = ip_files.nested(cast("ip_files.Kind", form), widths, FEATURES, context, **shape)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.bin"
        torch.save(file, path)
        patcher, header = open_adapter(path)
    return Kind(model, context, pooled, file, LoadedAdapter(patcher, path.name, patcher.model.identity, header.licence))


ROWS = {"SD1.5 base, light": MANY, "SD1.5 plus, plus face": MANY, "SD1.5 full": FEW, "SDXL base": FEW, "SDXL plus": FEW}
DIFFERENCES: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="module", autouse=True)
def written() -> Iterator[None]:
    """After all cases the table is in the page."""
    yield
    kind.cache_clear()
    if all(len(DIFFERENCES.get(case.name, {})) for case in MANY):
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        PAGE.write_text(f"{before}{START}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def table() -> str:
    """Settings by kinds, markdown."""
    lines = [f"| | {' | '.join(ROWS)} |", f"|{'---|' * (len(ROWS) + 1)}"]
    for setting, found in DIFFERENCES.items():
        lines.append(f"| {setting} | {' | '.join(f'{found[k]:.0e}' if k in found else '' for k in ROWS)} |")
    return "\n".join(lines)


def pictures(count: int, shape: tuple[int, int] = (96, 64), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("blur", [0, 5])
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_is_that_of_the_real_pack(kind: NoiseKind, blur: int):
    (published,) = pack()["IPAdapterNoise"]().make_noise(kind, 0.4, blur, pictures(1, (300, 260)))
    own = add_noise(clip_squares(pictures(1, (300, 260)), None, "crop centre"), kind, 0.4, bool(blur))
    torch.testing.assert_close(own, published, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, cases in ROWS.items() for case in cases],
    ids=lambda x: getattr(x, "name", x),
)
def test_the_preset_is_the_real_pack(name: str, case: Case):
    made, vision = kind(name), host.clip_vision(FEATURES, FEATURES)
    family = subjects.Family("", made.model, made.context, made.pooled, made.adapter)
    sample: Callable[..., Tensor] = lambda model, prompt: family.sample(model, prompt, **{"cfg": 7.0, **case.sample})  # noqa: E731
    negative = pictures(1, seed=9) if case.negative else None

    given = {
        "weight": 1.0,
        "weight_type": "linear",
        "start_at": 0.0,
        "end_at": 1.0,
        "image_negative": negative,
        **case.theirs,
    }
    node = pack()[case.node]()
    apply, images = getattr(node, node.FUNCTION), pictures(case.pictures, case.shape)
    patched = apply(made.model, made.file, image=images, clip_vision=vision, **given)[0]
    published = sample(patched, family.prompt())

    options = {"clip_vision": vision, "fit": "crop centre"}
    (subject,) = SubjectEncode.execute(made.adapter, images, "man", **{**options, **case.encode}).result
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **case.settings}
    (subject,) = MoASubjectSettings.execute(subject, **settings).result
    by_hand = None if negative is None else SubjectEncode.execute(made.adapter, negative, "man", **options).result[0]
    model, _ = ApplyMoA.execute(made.model, made.adapter, 1.0, router="IPAdapter_plus", negative_subject=by_hand).result
    difference = subjects.rms_difference(published, sample(model, add_subjects(family.prompt(), [subject])))
    DIFFERENCES.setdefault(case.name, {})[name] = difference
    effect = subjects.rms_difference(published, sample(made.model, family.prompt()))
    assert difference < min(LIMIT, effect / 10)


@pytest.mark.parametrize("name", ROWS)
def test_two_files_are_those_of_the_real_pack(name: str):
    """Two nodes in a row, the second with a file of another kind."""
    made, other = kind(name), kind(f"{name.split()[0]} {'base' if 'plus' in name else 'plus'}")
    family = subjects.Family("", made.model, made.context, made.pooled, made.adapter)
    vision, model, published, given = host.clip_vision(FEATURES, FEATURES), made.model, made.model, []
    for seed, (each, weight) in enumerate(((made, 0.8), (other, 0.5))):
        images, options = pictures(1, seed=seed), {"weight_type": "linear", "start_at": 0.0, "end_at": 1.0}
        node = pack()["IPAdapterAdvanced"]()
        apply = getattr(node, node.FUNCTION)
        published = apply(published, each.file, image=images, clip_vision=vision, weight=weight, **options)[0]
        encode = {"clip_vision": vision, "fit": "crop centre"}
        (subject,) = SubjectEncode.execute(each.adapter, images, "man", **encode).result
        given += MoASubjectSettings.execute(subject, weight, 0.0, 1.0).result
        model, _ = ApplyMoA.execute(model, each.adapter, 1.0, router="IPAdapter_plus").result
    expected = family.sample(published, family.prompt(), cfg=7.0)
    difference = subjects.rms_difference(expected, family.sample(model, add_subjects(family.prompt(), given), cfg=7.0))
    DIFFERENCES.setdefault("beside a file of another kind", {})[name] = difference
    assert difference < LIMIT
