"""The example workflows: each is what its template describes, and the host accepts it once the files it names are there."""

import json
from itertools import combinations

import pytest

from devtools import demo
from devtools.server import Server
from devtools.templates import TEMPLATES, example
from devtools.workflow import to_prompt

FOLDERS = {
    "ckpt_name": "checkpoints",
    "clip_name": "clip_vision",
    "adapter_file": "",
    "control_net_name": "controlnet",
    "lora_name": "loras",
}
"""The model folder below which the file of an input lies."""


TITLE = 30
"""Height of a node's title bar."""
LARGEST = (2000, 1050)
"""Width and height that the page shows at a zoom of 0.6 in a window of 1600 × 900, when the template is opened by its card. Below that zoom it hides titles."""


def workflow(name: str) -> dict:
    return json.loads((demo.EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))


def test_every_example_is_a_template_with_a_thumbnail():
    assert {file.stem for file in demo.EXAMPLES.glob("*.json")} == set(TEMPLATES)
    assert all((demo.EXAMPLES / f"{name}.jpg").is_file() for name in TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_example_is_legible(name: str):
    """It fits into a window, and no node lies on another."""
    boxes = [box(node) for node in workflow(name)["nodes"]]
    left, top, right, bottom = zip(*boxes, strict=True)
    assert max(right) - min(left) <= LARGEST[0] and max(bottom) - min(top) <= LARGEST[1]
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def box(node: dict) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a node with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_example_is_what_its_template_describes(name: str, server: Server):
    """A difference means that a node or a template changed and the workflows were not drawn again."""
    prompt = to_prompt(workflow(name), server.object_info())
    made = example(name).nodes
    assert prompt.keys() == made.keys()
    for key, node in made.items():
        assert node["class_type"] == prompt[key]["class_type"]
        assert node["inputs"].items() <= prompt[key]["inputs"].items()


@pytest.mark.parametrize("name", [name for name in TEMPLATES if not name.endswith("_mini")])
def test_the_host_accepts_an_example_once_its_files_are_there(name: str, server: Server):
    """Empty files of the right names serve: the host checks every name first, and then fails to read the checkpoint."""
    made = example(name).nodes
    for node in made.values():
        for key in FOLDERS.keys() & node["inputs"].keys():
            file = server.base / "models" / FOLDERS[key] / node["inputs"][key]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    history = server.finished(server.submit(made))
    [failed] = [data for kind, data in history["status"]["messages"] if kind == "execution_error"]
    assert failed["node_type"] in ("CheckpointLoaderSimple", "CLIPVisionLoader", "LoadMoAAdapter")
