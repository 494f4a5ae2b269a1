"""`dev.py migrate`: where every knob of IPAdapter_plus lands, and what is listed because it lands nowhere."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from old_workflows import ADVANCED, Out, Studio, tree

from devtools.migration.graph import Link
from devtools.migration.ours import LAYOUTS
from devtools.migration.page_graph import PageGraph
from devtools.migration.run import MigrationError, migrate

ROOT = Path(__file__).resolve().parents[2]


def as_prompt(page: dict[str, Any]) -> dict[str, Any]:
    """The nodes of this extension in a file of the page, as the API has them; of others the links alone."""
    graph = PageGraph(page)
    prompt = {}
    for node in graph.ids():
        layout, raw = LAYOUTS.get(graph.kind(node)), graph.nodes[node]
        values = dict(zip(layout.widgets if layout else (), raw["widgets_values"], strict=False))
        inputs = {**values, **{n: list(v) for n, v in graph.inputs(node).items() if isinstance(v, Link)}}
        prompt[node] = {"class_type": graph.kind(node), "inputs": inputs}
    return prompt


def migrated(old: Studio) -> tuple[dict[str, Any], list[str]]:
    """The API's format of a migrated workflow, equal in both formats, and the report."""
    api, page = old.api(), old.page()
    lines, same = migrate(api).lines(), migrate(page).lines()
    assert lines == same
    saved = as_prompt(page)
    for node, found in api.items():
        if found["class_type"] == "KSampler":
            assert strip(tree(api, node)) == strip(tree(saved, node))
    check_links(page)
    return api, lines


def strip(found: Any) -> Any:
    """A tree without the widgets of the host's own nodes."""
    kind, slot, inputs = found
    ours = kind in LAYOUTS
    return (
        kind,
        slot,
        {n: strip(v) if isinstance(v, tuple) else v for n, v in inputs.items() if ours or isinstance(v, tuple)},
    )


def check_links(page: dict[str, Any]) -> None:
    """Every link is known at both of its ends, and no other."""
    nodes = {node["id"]: node for node in page["nodes"]}
    ends = {
        (n["id"], i, e["link"])
        for n in page["nodes"]
        for i, e in enumerate(n.get("inputs", []))
        if e.get("link") is not None
    }
    starts = {(n["id"], i, k) for n in page["nodes"] for i, o in enumerate(n["outputs"]) for k in o["links"] or []}
    assert ends == {(link[3], link[4], link[0]) for link in page["links"]}
    assert starts == {(link[1], link[2], link[0]) for link in page["links"]}
    assert len({link[0] for link in page["links"]}) == len(page["links"])
    assert all(nodes[link[1]]["outputs"][link[2]]["type"] == link[5] for link in page["links"])
    assert page["last_node_id"] >= max(nodes) and page["last_link_id"] >= max(link[0] for link in page["links"])


def kinds(prompt: dict[str, Any]) -> list[str]:
    return sorted(node["class_type"] for node in prompt.values())


def only(prompt: dict[str, Any], kind: str) -> dict[str, Any]:
    """The inputs of the one node of a kind."""
    [found] = [node["inputs"] for node in prompt.values() if node["class_type"] == kind]
    return found


def behind(prompt: dict[str, Any], link: list[Any]) -> dict[str, Any]:
    return prompt[link[0]]["inputs"]


def test_one_picture():
    old = Studio()
    old.sample(
        old.advanced(
            old.model,
            old.unified(),
            old.picture(),
            combine_embeds="average",
            embeds_scaling="K+V",
            weight_type="ease in",
        )
    )
    prompt, lines = migrated(old)
    apply = only(prompt, "ApplyMoA")
    assert (apply["strength"], apply["router"], apply["model"]) == (1.0, "IPAdapter_plus", ["1", 0])
    loader, encode, settings = (
        only(prompt, kind) for kind in ("MoALoadIPAdapter", "SubjectEncode", "MoASubjectSettings")
    )
    assert loader == {"model": ["1", 0], "preset": old.preset}
    assert encode["images"] == ["6", 0] and encode["adapter"] == apply["adapter"]
    assert encode["clip_vision"] == [apply["adapter"][0], 1]
    assert (encode["fit"], encode["combine"], encode["before_projection"]) == ("crop centre", "mean", True)
    assert behind(prompt, settings["subject"]) == encode
    assert (settings["strength"], settings["start_percent"], settings["end_percent"]) == (0.7, 0.1, 0.9)
    assert (settings["weight_type"], settings["embeds_scaling"]) == ("ease in", "K+V")
    sampler, added = only(prompt, "KSampler"), only(prompt, "MoAAddSubjects")
    assert sampler["positive"][0] not in old.api() and sampler["negative"] == ["3", 0]
    assert added["conditioning"] == ["2", 0] and behind(prompt, added["subjects.subject_0"]) == settings
    assert not any("IPAdapter" in kind for kind in kinds(prompt) if kind != "MoALoadIPAdapter")
    assert lines == [
        "'IPAdapterUnifiedLoader' (5) became MoALoadIPAdapter",
        "'IPAdapterAdvanced' (7) became SubjectEncode, MoASubjectSettings, ApplyMoA, MoAAddSubjects",
    ]


def test_nothing_else_of_the_file_changes():
    old = Studio()
    old.sample(old.advanced(old.model, old.unified(), old.picture()))
    for content in (old.api(), old.page()):
        before = copy.deepcopy(content)
        migrate(content)
        nodes = [{n["id"]: n for n in c["nodes"]} if "nodes" in c else c for c in (before, content)]
        kept = [key for key in nodes[0] if key in nodes[1]]
        assert len(kept) == len(nodes[0]) - 2
        changed = [key for key in kept if nodes[0][key] != nodes[1][key]]
        # Links of the page are stored at both of their ends.
        assert [str(key) for key in changed] == (["8"] if "nodes" not in content else ["1", "2", "6", "8"])
        for key in changed:
            for part in nodes[0][key].keys() - {"inputs", "outputs"}:
                assert nodes[0][key][part] == nodes[1][key][part]


def test_a_file_by_name_with_its_own_clip_vision_model():
    old = Studio()
    file = old.add("IPAdapterModelLoader", ipadapter_file="plus_sd15.bin")
    vision = old.add("CLIPVisionLoader", clip_name="h.safetensors")
    old.sample(old.advanced(old.model, file, old.picture(), clip_vision=vision))
    prompt, _ = migrated(old)
    assert only(prompt, "LoadMoAAdapter") == {"adapter_file": "ipadapter/plus_sd15.bin", "router_file": "own"}
    assert only(prompt, "SubjectEncode")["clip_vision"] == ["6", 0]


def test_a_mask_is_a_region():
    old = Studio()
    mask = Out(old.picture("mask.png").node, 1)
    old.sample(old.advanced(old.model, old.unified(), old.picture(), attn_mask=mask))
    prompt, _ = migrated(old)
    settings = only(prompt, "MoASubjectSettings")
    assert settings["region"] == [str(mask.node), 1]
    assert (settings["strength"], settings["start_percent"], settings["end_percent"]) == (0.7, 0.1, 0.9)
    assert only(prompt, "ApplyMoA")["strength"] == 1.0


def test_a_chain_is_one_apply_with_several_subjects():
    old = Studio()
    loader = old.unified()
    first = old.advanced(Out(loader.node, 0), loader, old.picture("anna.png"), weight=0.5)
    lora = old.add("LoraLoaderModelOnly", model=first, lora_name="x.safetensors", strength_model=1.0)
    old.sample(old.advanced(lora, loader, old.picture("ben.png"), weight=0.8, start_at=0.0))
    prompt, _ = migrated(old)
    assert behind(prompt, only(prompt, "ApplyMoA")["model"])["lora_name"] == "x.safetensors"
    assert only(prompt, "LoraLoaderModelOnly")["model"] == ["1", 0]
    added = only(prompt, "MoAAddSubjects")
    found = [behind(prompt, added[f"subjects.subject_{i}"]) for i in range(2)]
    assert [(s["strength"], s["start_percent"]) for s in found] == [(0.5, 0.1), (0.8, 0.0)]
    pictures = [behind(prompt, behind(prompt, s["subject"])["images"])["image"] for s in found]
    assert pictures == ["anna.png", "ben.png"] and only(prompt, "ApplyMoA")["strength"] == 1.0
    assert kinds(prompt).count("MoALoadIPAdapter") == 1


def test_branches_keep_their_own_subjects():
    old = Studio()
    loader = old.unified()
    first = old.advanced(old.model, loader, old.picture("anna.png"))
    one, other = old.sample(first), old.sample(old.advanced(first, loader, old.picture("ben.png")))
    plain = old.sample(old.model)
    prompt, _ = migrated(old)
    counts = {}
    for sampler in (one, other, plain):
        given = prompt[str(sampler.node)]["inputs"]
        apply = prompt[given["model"][0]]["class_type"]
        counts[sampler.node] = apply, sum(name.startswith("subjects.") for name in behind(prompt, given["positive"]))
    assert list(counts.values()) == [("ApplyMoA", 1), ("ApplyMoA", 2), ("CheckpointLoaderSimple", 0)]


def test_loaders_that_are_chained_are_one():
    old = Studio()
    first = old.unified()
    second = old.unified(ipadapter=first)
    one = old.advanced(old.model, first, old.picture("anna.png"))
    old.sample(old.advanced(one, second, old.picture("ben.png")))
    prompt, _ = migrated(old)
    assert kinds(prompt).count("MoALoadIPAdapter") == 1 and "IPAdapterUnifiedLoader" not in kinds(prompt)


def two_loaders(old: Studio) -> tuple[Out, Out]:
    """Adapters of two files."""
    first = old.unified()
    plus = old.add("IPAdapterUnifiedLoader", model=old.model, preset="PLUS (high strength)", ipadapter=first)
    return first, Out(plus.node, 1)


def applied(prompt: dict[str, Any], link: list[Any]) -> list[str]:
    """The presets of the Apply MoA nodes in a row, the last first."""
    found = []
    while prompt[link[0]]["class_type"] == "ApplyMoA":
        node = prompt[link[0]]["inputs"]
        found.append(behind(prompt, node["adapter"])["preset"])
        link = node["model"]
    return found


def test_two_adapters_are_applied_one_after_the_other():
    old = Studio()
    first, plus = two_loaders(old)
    one = old.advanced(old.model, first, old.picture("anna.png"))
    old.sample(old.advanced(one, plus, old.picture("ben.png")))
    prompt, lines = migrated(old)
    assert applied(prompt, only(prompt, "KSampler")["model"]) == ["PLUS (high strength)", old.preset]
    added = only(prompt, "MoAAddSubjects")
    settings = [behind(prompt, added[f"subjects.subject_{i}"]) for i in range(2)]
    encoders = [behind(prompt, each["subject"]) for each in settings]
    assert [behind(prompt, each["adapter"])["preset"] for each in encoders] == [old.preset, "PLUS (high strength)"]
    assert not any("IPAdapter" in kind for kind in kinds(prompt) if kind != "MoALoadIPAdapter")
    assert "'IPAdapterAdvanced' (8) became SubjectEncode, MoASubjectSettings, ApplyMoA" in lines
    assert all(" became " in line for line in lines)


def test_an_adapter_is_applied_once_in_a_row():
    old = Studio()
    first, plus = two_loaders(old)
    one = old.advanced(old.model, first, old.picture("anna.png"))
    two = old.advanced(one, plus, old.picture("ben.png"))
    old.sample(old.advanced(two, first, old.picture("carl.png")))
    prompt, _ = migrated(old)
    assert applied(prompt, only(prompt, "KSampler")["model"]) == [old.preset, "PLUS (high strength)"]
    assert len([name for name in only(prompt, "MoAAddSubjects") if name.startswith("subjects.")]) == 3


def test_branches_with_other_adapters_keep_the_one_before():
    old = Studio()
    first, plus = two_loaders(old)
    one = old.advanced(old.model, first, old.picture("anna.png"))
    old.sample(old.advanced(one, plus, old.picture("ben.png")))
    old.sample(old.advanced(one, first, old.picture("carl.png")))
    prompt, _ = migrated(old)
    rows = [applied(prompt, n["inputs"]["model"]) for n in prompt.values() if n["class_type"] == "KSampler"]
    assert rows == [["PLUS (high strength)", old.preset], [old.preset, old.preset]]


def test_regions_with_their_own_prompts():
    old = Studio()
    loader = old.unified()
    params = []
    for name in ("anna.png", "ben.png"):
        mask = Out(old.picture(f"mask_{name}").node, 1)
        region = old.add("IPAdapterRegionalConditioning", image=old.picture(name), mask=mask, positive=old.positive, negative=old.negative,
                         image_weight=0.6, prompt_weight=0.9, weight_type="linear", start_at=0.0, end_at=0.8)  # fmt: skip
        params.append(region)
    both = old.add("IPAdapterCombineParams", params_1=params[0], params_2=params[1])
    apply = old.add(
        "IPAdapterFromParams",
        model=old.model,
        ipadapter=loader,
        ipadapter_params=both,
        combine_embeds="concat",
        embeds_scaling="V only",
    )
    positive, negative = (
        old.add(
            "ConditioningCombine", conditioning_1=Out(params[0].node, slot), conditioning_2=Out(params[1].node, slot)
        )
        for slot in (1, 2)
    )
    old.sample(apply, positive, negative)
    prompt, _ = migrated(old)
    added = only(prompt, "MoAAddSubjects")
    found = [behind(prompt, added[f"subjects.subject_{i}"]) for i in range(2)]
    assert [(s["strength"], s["end_percent"]) for s in found] == [(0.6, 0.8)] * 2
    assert behind(prompt, found[1]["region"])["image"] == "mask_ben.png"
    combine = behind(prompt, added["conditioning"])
    masked = behind(prompt, combine["conditioning_2"])
    assert (masked["strength"], masked["set_cond_area"], masked["mask"]) == (0.9, "default", found[1]["region"])
    assert masked["conditioning"] == ["2", 0] and kinds(prompt).count("ConditioningSetMask") == 4
    assert not any(kind.startswith("IPAdapter") for kind in kinds(prompt))


def test_embeds_are_subjects():
    old = Studio()
    loader = old.unified()
    parts = [
        old.add("IPAdapterEncoder", ipadapter=loader, image=old.picture(n), weight=w)
        for n, w in (("anna.png", 1.0), ("ben.png", 1.5))
    ]
    both = old.add("IPAdapterCombineEmbeds", embed1=parts[0], embed2=parts[1], method="concat")
    none = Out(parts[0].node, 1)
    apply = old.add("IPAdapterEmbeds", model=old.model, ipadapter=loader, pos_embed=both, neg_embed=none, weight=0.4, weight_type="linear",
                    start_at=0.0, end_at=1.0, embeds_scaling="V only")  # fmt: skip
    old.sample(apply)
    old.add("IPAdapterSaveEmbeds", embeds=both, filename_prefix="friends")
    prompt, lines = migrated(old)
    combine = only(prompt, "MoASubjectCombine")
    assert combine["how"] == "concat" and behind(prompt, combine["subjects.subject_1"])["images"] == ["8", 0]
    assert only(prompt, "MoASaveSubject")["filename_prefix"] == "friends"
    assert only(prompt, "MoASubjectSettings")["strength"] == 0.4
    assert [line for line in lines if line.startswith("different")] == [
        "different: 'IPAdapterCombineEmbeds' (10): the weights 1, 1.5 are not carried over"
    ]


def test_weighted_embeds_are_weighted_pictures():
    old = Studio()
    loader = old.unified()
    parts = [
        old.add("IPAdapterEncoder", ipadapter=loader, image=old.picture(n), weight=w)
        for n, w in (("anna.png", 0.6), ("ben.png", 1.5))
    ]
    both = old.add("IPAdapterCombineEmbeds", embed1=parts[0], embed2=parts[1], method="average")
    old.sample(old.add("IPAdapterEmbeds", model=old.model, ipadapter=loader, pos_embed=both, weight=0.4))
    prompt, lines = migrated(old)
    combine = only(prompt, "MoASubjectCombine")
    assert (combine["how"], combine["weights"]) == ("mean", "0.6, 1.5")
    assert [line for line in lines if line.startswith("different")] == [
        "different: 'IPAdapterCombineEmbeds' (10): method 'average' becomes 'mean', after the projection"
    ]


def test_a_file_of_embeds():
    old = Studio()
    loader = old.unified()
    saved = old.add("IPAdapterLoadEmbeds", embeds="friends.ipadpt")
    apply = old.add("IPAdapterEmbeds", model=old.model, ipadapter=loader, pos_embed=saved, weight=1.0, weight_type="linear", start_at=0.0,
                    end_at=1.0, embeds_scaling="V only")  # fmt: skip
    old.sample(apply)
    prompt, _ = migrated(old)
    loaded = only(prompt, "MoALoadEmbeds")
    assert loaded["embeds_file"] == "friends.ipadpt" and loaded["clip_vision"] == [loaded["adapter"][0], 1]
    assert "IPAdapterLoadEmbeds" not in kinds(prompt)


def test_faces():
    old = Studio()
    loader = old.add(
        "IPAdapterUnifiedLoaderFaceID", model=old.model, preset="FACEID PLUS V2", lora_strength=0.6, provider="CPU"
    )
    apply = old.add("IPAdapterFaceID", model=Out(loader.node, 0), ipadapter=Out(loader.node, 1), image=old.picture(), weight=0.8,
                    weight_faceidv2=1.5, weight_type="linear", combine_embeds="concat", start_at=0.0, end_at=1.0, embeds_scaling="V only")  # fmt: skip
    old.sample(apply)
    old.add("PreviewImage", images=Out(apply.node, 1))
    prompt, lines = migrated(old)
    encode = only(prompt, "SubjectEncode")
    assert encode["faceid_plus"] == "2" and encode["face"][1] == 0 and encode["images"] == [encode["face"][0], 1]
    assert only(prompt, "PreviewImage")["images"] == encode["images"]
    apply = only(prompt, "ApplyMoA")
    assert (apply["model"], apply["faceid_lora"], encode["faceid_weight"]) == (["1", 0], 0.6, 1.5)
    assert "IPAdapterInsightFaceLoader" in kinds(prompt) and any("InsightFace" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "blur", "wanted", "listed"),
    [
        ("dissolve", 0, "dissolve", []),
        ("shuffle", 4, "shuffle, blurred", []),
        ("fade", 9, "fade, blurred", ["blur 9 becomes 5"]),
    ],
)
def test_a_negative_picture_with_noise(kind: str, blur: int, wanted: str, listed: list[str]):
    old = Studio()
    noise = old.add("IPAdapterNoise", image_optional=old.picture("ben.png"), type=kind, strength=0.3, blur=blur)
    old.sample(old.advanced(old.model, old.unified(), old.picture(), image_negative=noise))
    prompt, lines = migrated(old)
    negative = behind(prompt, only(prompt, "ApplyMoA")["negative_subject"])
    assert (negative["noise"], negative["noise_strength"], negative["images"]) == (wanted, 0.3, ["5", 0])
    assert "IPAdapterNoise" not in kinds(prompt)
    assert [line.partition("(6): ")[2] for line in lines if line.startswith("different")] == listed


def test_a_style_and_a_composition():
    old = Studio()
    apply = old.add("IPAdapterStyleComposition", model=old.model, ipadapter=old.unified(), image_style=old.picture("anna.png"),
                    image_composition=old.picture("ben.png"), weight_style=0.9, weight_composition=0.5, expand_style=True,
                    combine_embeds="average", start_at=0.0, end_at=1.0, embeds_scaling="V only")  # fmt: skip
    old.sample(apply)
    prompt, _ = migrated(old)
    added = only(prompt, "MoAAddSubjects")
    found = [behind(prompt, added[f"subjects.subject_{i}"]) for i in range(2)]
    assert [(s["weight_type"], s["strength"]) for s in found] == [("strong style transfer", 0.9), ("composition", 0.5)]
    pictures = [behind(prompt, behind(prompt, s["subject"])["images"])["image"] for s in found]
    assert pictures == ["anna.png", "ben.png"]


@pytest.mark.parametrize(
    ("boost", "wanted", "listed", "factors"),
    [
        (0.0, "composition", [], None),
        (0.8, "composition precise", [], None),
        (0.2, "composition precise", [], "input: 0.25, middle: 0.25, output: 0.25, input_7: 1, input_8: 1"),
        (-0.3, "composition precise", ["composition_boost -0.3 becomes the weight, 0.8"], None),
    ],
)
def test_a_boost_is_a_strength_of_layers(boost: float, wanted: str, listed: list[str], factors: str | None):
    old = Studio()
    old.sample(old.add("IPAdapterPreciseComposition", model=old.model, ipadapter=old.unified(), image=old.picture(), weight=0.8,
                       composition_boost=boost, combine_embeds="concat", start_at=0.0, end_at=1.0, embeds_scaling="V only"))  # fmt: skip
    prompt, lines = migrated(old)
    settings = only(prompt, "MoASubjectSettings")
    assert settings["weight_type"] == wanted
    assert (behind(prompt, settings["layer_strength"])["single"] if "layer_strength" in settings else None) == factors
    found = [line.rpartition(": ")[2] for line in lines if line.startswith("different")]
    assert found == listed


@pytest.mark.parametrize(("base", "factors"), [("sd15", "input_7: 1.5, input_8: 1.5"), ("sd_xl_base", "input_8: 1.5")])
def test_a_boost_of_the_style_is_one_of_the_composition_blocks(base: str, factors: str):
    old = Studio()
    old.nodes[old.model.node - 1][1]["ckpt_name"] = f"{base}.safetensors"
    old.sample(old.add("IPAdapterPreciseStyleTransfer", model=old.model, ipadapter=old.unified(), image=old.picture(), weight=0.8,
                       style_boost=1.2, combine_embeds="concat", start_at=0.0, end_at=1.0, embeds_scaling="V only"))  # fmt: skip
    assert only(migrated(old)[0], "MoALayerStrength")["single"] == factors


@pytest.mark.parametrize(
    ("position", "nodes", "side"),
    [
        ("center", ["ImageScale"], None),
        ("top", ["ImageScale", "ImageCrop"], 0),
        ("left", ["ImageScale", "ImageCrop"], 1),
        ("bottom", ["ImageRotate", "ImageScale", "ImageCrop", "ImageRotate"], 0),
        ("right", ["ImageRotate", "ImageScale", "ImageCrop", "ImageRotate"], 1),
        ("pad", ["ResizeAndPadImage"], None),
    ],
)
def test_a_square_at_any_place_of_a_picture(position: str, nodes: list[str], side: int | None):
    old = Studio()
    old.sample(old.advanced(old.model, old.unified(), old.prepared(position=position)))
    prompt, lines = migrated(old)
    link, found = only(prompt, "SubjectEncode")["images"], []
    while prompt[link[0]]["class_type"] != "LoadImage":
        found.append(prompt[link[0]]["class_type"])
        link = behind(prompt, link)["image"]
    assert found == nodes and not [line for line in lines if line.startswith("different")]
    if side is not None:
        crop = only(prompt, "ImageCrop")
        assert crop["width"] == crop["height"] == [crop["width"][0], side] and (crop["x"], crop["y"]) == (0, 0)
        assert behind(prompt, crop["width"])["image"] == crop["image"]


def test_weights_of_blocks_and_pictures_of_frames():
    old = Studio()
    loader = old.unified()
    first = old.add("IPAdapterMS", model=old.model, ipadapter=loader, image=old.picture(), weight=1.0, weight_faceidv2=1.0, weight_type="ease in",
                    combine_embeds="concat", start_at=0.0, end_at=1.0, embeds_scaling="V only", layer_weights="3:0.8, 6:0.35")  # fmt: skip
    old.sample(first)
    batch = old.add("IPAdapterBatch", model=old.model, ipadapter=loader, image=old.picture("ben.png"), weight=1.0, weight_type="linear",
                    start_at=0.0, end_at=1.0, embeds_scaling="V only", encode_batch_size=0)  # fmt: skip
    old.sample(batch)
    prompt, _ = migrated(old)
    assert only(prompt, "MoALayerStrength")["single"].startswith(
        "input_4: 0.0, input_5: 0.0, input_7: 0.0, input_8: 0.8, middle_0: 0.0, output_0: 0.0, output_1: 0.35,"
    )
    types = {node["inputs"]["weight_type"] for node in prompt.values() if node["class_type"] == "MoASubjectSettings"}
    assert types == {"linear"}
    combined = {node["inputs"]["combine"] for node in prompt.values() if node["class_type"] == "SubjectEncode"}
    assert combined == {"concat", "one per frame"}


@pytest.mark.parametrize(
    ("timing", "slot", "wanted"),
    [
        ("linear", 0, "1, 1, 0.5, 0, 0"), ("custom", 0, "1, 0"), ("custom", 1, "0, 1"), ("ease_in_out", 1, "0, 0, 0.5, 1, 1"),
        ("ease_in", 0, "1, 1, 0.292893, 0, 0"), ("ease_out", 0, "1, 1, 0.707107, 0, 0"), ("random", 0, None),
    ],
)  # fmt: skip
def test_weights_of_frames(timing: str, slot: int, wanted: str | None):
    old = Studio()
    weights = old.add("IPAdapterWeights", weights="1.0,\n0.0", timing=timing, frames=5, start_frame=1, end_frame=4, add_starting_frames=0,
                      add_ending_frames=0, method="full batch")  # fmt: skip
    old.sample(old.add("IPAdapterBatch", model=old.model, ipadapter=old.unified(), image=old.picture(), weight=Out(weights.node, slot),
                       weight_type="linear", start_at=0.0, end_at=1.0, embeds_scaling="V only", encode_batch_size=0))  # fmt: skip
    if wanted is None:
        lines = migrate(old.api()).lines()
        assert "not migrated: 'IPAdapterBatch' (8): weights and embeds of single frames" in lines
        return
    prompt, _ = migrated(old)
    settings = only(prompt, "MoASubjectSettings")
    assert (settings["weights"], settings["strength"]) == (wanted, 1.0) and "IPAdapterWeights" not in kinds(prompt)


@pytest.mark.parametrize(
    ("changed", "listed"),
    [
        ({"weight": -2.5}, "weight -2.5 becomes -1.0"),
        ({"enhance_tiles": 2}, "enhance_tiles and enhance_ratio are not carried over"),
        ({}, None),
    ],
)
def test_knobs_without_a_counterpart_are_listed(changed: dict[str, Any], listed: str | None):
    old = Studio()
    settings = {**ADVANCED, "enhance_tiles": 1, "enhance_ratio": 1.0, **changed}
    old.sample(
        old.add(
            "IPAdapterClipVisionEnhancer", model=old.model, ipadapter=old.unified(), image=old.picture(), **settings
        )
    )
    lines = [line for line in migrated(old)[1] if line.startswith("different")]
    assert lines == ([f"different: 'IPAdapterClipVisionEnhancer' (7): {listed}"] if listed else [])


def test_tiles():
    old = Studio()
    tiled = old.add("IPAdapterTiled", model=old.model, ipadapter=old.unified(), image=old.picture("ben.png"), weight=0.7,
                    weight_type="ease in", combine_embeds="average", start_at=0.0, end_at=1.0, sharpening=0.2, embeds_scaling="K+V")  # fmt: skip
    old.sample(tiled)
    old.add("PreviewImage", images=Out(tiled.node, 1))
    prompt, lines = migrated(old)
    encode, settings = only(prompt, "SubjectEncode"), only(prompt, "MoASubjectSettings")
    assert (encode["fit"], encode["combine"], encode["before_projection"]) == ("tiles", "mean", True)
    assert (settings["strength"], settings["weight_type"], settings["embeds_scaling"]) == (0.7, "ease in", "K+V")
    assert only(prompt, "PreviewImage")["images"] == encode["images"] == ["6", 0]
    assert [line.partition("(7): ")[2] for line in lines if line.startswith("different")] == [
        "sharpening 0.2 is not carried over",
        "the output 'tiles' is the whole picture",
    ]
    assert not any("IPAdapter" in kind for kind in kinds(prompt) if kind != "MoALoadIPAdapter")


def test_kolors_stays_and_a_picture_is_cut_by_the_host():
    old = Studio()
    loader = old.unified()
    old.sample(old.advanced(old.model, loader, old.prepared()))
    kolors = old.add(
        "IPAdapterFaceIDKolors", model=old.model, ipadapter=loader, image=old.picture("ben.png"), weight=1.0
    )
    old.sample(kolors)
    prompt, lines = migrated(old)
    scaled = only(prompt, "ImageScale")
    assert (scaled["width"], scaled["height"], scaled["crop"], scaled["upscale_method"]) == (
        224,
        224,
        "center",
        "lanczos",
    )
    assert only(prompt, "IPAdapterFaceIDKolors")["ipadapter"] == ["5", 1]
    assert "not migrated: 'IPAdapterFaceIDKolors' (12): Kolors" in lines


def test_a_bypassed_node_stays():
    old = Studio()
    loader = old.unified()
    first = old.advanced(old.model, loader, old.picture("anna.png"))
    old.sample(old.advanced(first, loader, old.picture("ben.png")))
    page = old.page()
    page["nodes"][first.node - 1]["mode"] = 4
    lines = migrate(page).lines()
    assert "not migrated: 'IPAdapterAdvanced' (7): it is muted or bypassed" in lines
    assert sum(name.startswith("subjects.") for name in only(as_prompt(page), "MoAAddSubjects")) == 1


@pytest.mark.parametrize("content", [[], {}, {"nodes": []}, {"1": {"inputs": {}}}, {"nodes": [], "links": [{}]}])
def test_other_files_are_refused(content: Any):
    with pytest.raises(MigrationError):
        migrate(content)


def test_the_command(tmp_path: Path):
    old = Studio()
    old.sample(old.advanced(old.model, old.unified(), old.picture()))
    source = tmp_path / "old.json"
    source.write_text(json.dumps(old.page()), encoding="utf-8")

    def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", str(ROOT / "dev.py"), "migrate", *map(str, arguments)],
            capture_output=True,
            text=True,
        )

    done = run(source)
    target = tmp_path / "old.moa.json"
    assert done.returncode == 0 and f"Wrote {target}." in done.stdout
    assert json.loads(source.read_text(encoding="utf-8")) == old.page()
    assert only(as_prompt(json.loads(target.read_text(encoding="utf-8"))), "ApplyMoA")["router"] == "IPAdapter_plus"
    again = run(source)
    assert again.returncode and "exists. Name another file" in again.stderr
    assert "takes a workflow" in run().stderr
    source.write_text("{", encoding="utf-8")
    assert "cannot be read as a workflow" in run(source, tmp_path / "new.json").stderr
