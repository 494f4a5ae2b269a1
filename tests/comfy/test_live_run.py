"""The example workflow through the HTTP API of a real server: it runs, it can be cancelled, and nothing of that remains."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from devtools import demo
from devtools import host as hosts
from devtools.messages import Messages
from devtools.server import Server, failure
from devtools.workflow import to_prompt

WORKFLOW = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))


def example(server: Server, *, steps: int, seed: int) -> dict[str, Any]:
    """The demo's prompt with fewer pictures and steps."""
    prompt = to_prompt(WORKFLOW, server.object_info())
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=steps, seed=seed)
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = 1
    return prompt


def pictures(server: Server, history: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every picture of a run by its node."""
    return {
        key: np.asarray(Image.open(io.BytesIO(server.image(output["images"][0]))).convert("RGB"))
        for key, output in history["outputs"].items()
    }


def test_subjects_change_the_picture_of_the_base_model(server: Server):
    prompt = example(server, steps=4, seed=1)
    shown = pictures(server, server.queue(prompt))
    with_subjects, base = (shown[key] for key, node in prompt.items() if node["class_type"] == "SaveImage")
    assert (with_subjects != base).any()


def test_a_cancelled_run_leaves_no_trace(server: Server, tmp_path: Path):
    messages = Messages(server.port, server.client)
    steps_reported: list[int] = []

    def cancel_from_third(node: str, step: int, steps: int) -> None:  # the server may leave steps out of its report
        if step >= 3 and max(steps_reported, default=0) < 3:
            server.interrupt()
        steps_reported.append(step)

    prompt_id = server.submit(example(server, steps=100, seed=2))
    cancelled = server.finished(prompt_id, messages=messages, progress=cancel_from_third)
    messages.close()
    assert failure(cancelled) == "cancelled"
    assert max(steps_reported) < 100

    after = pictures(server, server.queue(example(server, steps=4, seed=3)))
    with Server(hosts.find(), Path(sys.executable), tmp_path, packs=[demo.ROOT], cpu=True) as fresh:
        expected = pictures(fresh, fresh.queue(example(fresh, steps=4, seed=3)))
    assert after.keys() == expected.keys()
    for key, picture in after.items():
        np.testing.assert_array_equal(picture, expected[key])


def run_again(server: Server, prompt: dict[str, Any], kind: str, **inputs: Any) -> set[str]:
    """Which kinds of nodes work when inputs of the first node of a kind change."""
    node = next(node for node in prompt.values() if node["class_type"] == kind)
    node["inputs"].update(inputs)
    messages = dict(server.queue(prompt)["status"]["messages"])
    return {prompt[key]["class_type"] for key in prompt.keys() - set(messages["execution_cached"]["nodes"])}


def test_a_change_runs_nothing_again_but_what_depends_on_it(server: Server):
    prompt = example(server, steps=2, seed=3)
    server.queue(prompt)
    with Image.open(next((server.base / "input").glob("*.png"))) as picture:
        picture.rotate(90).save(server.base / "input" / "somebody_else.png")
    afterwards = {"KSampler", "VAEDecode", "SaveImage", "RouterVisualize", "PreviewImage"}
    subject = run_again(server, prompt, "LoadImage", image="somebody_else.png")
    assert {"LoadImage", "SubjectEncode", "MoATextEncode", "KSampler"} <= subject
    assert subject <= {"LoadImage", "SubjectEncode", "MoATextEncode", *afterwards}
    strength = run_again(server, prompt, "ApplyMoA", strength=0.7)
    assert {"ApplyMoA", "KSampler"} <= strength <= {"ApplyMoA", *afterwards}
    text = next(n for n in prompt.values() if n["class_type"] == "MoATextEncode")["inputs"]["text"]
    words = run_again(server, prompt, "MoATextEncode", text=f"{text} at night")
    assert {"MoATextEncode", "KSampler"} <= words <= {"MoATextEncode", *afterwards}
