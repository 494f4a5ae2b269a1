"""Our pack in a real server: it loads, its nodes are there, a prompt runs, and the server stays healthy."""

import time
from typing import Any

from devtools.server import Server

NODES = {
    "LoadMoAAdapter", "SubjectEncode", "MoATextEncode", "ApplyMoA", "RouterVisualize", "MoALoadMini", "MoATrain",
    "MoASaveAdapter", "MoASubjectSettings", "MoASubjectBlend", "MoASubjectCombine", "MoALayerStrength", "MoASaveSubject", "MoALoadSubject",
    "MoASubjectCrop", "MoAFaceEmbedding", "MoALoadFaceEmbedding", "MoALoadIPAdapter", "MoALoadEmbeds", "MoAAddSubjects",
}  # fmt: skip


def picture(size: int = 32) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "harness"}},
    }


def test_the_pack_loads_and_registers_its_nodes(server: Server):
    registered = {name for name, node in server.object_info().items() if "moa-attention" in node["python_module"]}
    assert registered == NODES, server.log_tail(60)


def test_every_input_has_a_tooltip_and_every_node_can_be_searched(server: Server):
    info = server.object_info()
    for name in NODES:
        assert info[name]["description"], name
        inputs = {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
        for key, entry in inputs.items():
            assert len(entry) > 1 and entry[1].get("tooltip"), f"{name}.{key} has no tooltip"


def test_help_pages_are_served(server: Server):
    for name in NODES:
        for page in (f"{name}.md", f"{name}/zh.md"):
            assert len(server.fetch(f"/extensions/moa-attention/docs/{page}")) > 200, page


def test_a_prompt_runs_and_its_picture_can_be_had(server: Server):
    steps: list[tuple[str, int, int]] = []
    history = server.queue(picture(), progress=lambda *step: steps.append(step))
    [image] = history["outputs"]["2"]["images"]
    assert server.image(image).startswith(b"\x89PNG")


def test_cancelling_nothing_leaves_the_server_healthy(server: Server):
    server.interrupt()
    time.sleep(0.2)
    assert server.queue(picture(48))["status"]["status_str"] == "success"
