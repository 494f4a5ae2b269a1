"""Texts that a real server sends to the nodes in the page: what a run did, and why no subject took part in it."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from typing import Any

import pytest

from devtools import demo
from devtools.messages import Messages
from devtools.server import Server
from devtools.workflow import to_prompt

STEPS = 4


class Workflow:
    """The example of two people, with fewer steps and one picture, sent by a page."""

    def __init__(self, server: Server):
        self.server = server
        workflow = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))
        for picture in (demo.EXAMPLES / "references").glob("*.png"):
            shutil.copy(picture, server.base / "input")
        self.prompt = to_prompt(workflow, server.object_info())
        [self.apply], [self.router], [self.text] = map(self.ids, ("ApplyMoA", "RouterVisualize", "MoATextEncode"))
        [self.latent] = self.ids("EmptyLatentImage")
        self.prompt[self.latent]["inputs"]["batch_size"] = 1
        for sampler in self.ids("KSampler"):
            self.prompt[sampler]["inputs"]["steps"] = STEPS
        self.sampler = next(i for i in self.ids("KSampler") if self.prompt[i]["inputs"]["model"][0] == self.apply)

    def ids(self, kind: str) -> list[str]:
        return [key for key, node in self.prompt.items() if node["class_type"] == kind]

    def texts(self, **changes: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        """The texts by node and the outputs of a run, with other inputs of the nodes named `apply`, `sampler` and `text`."""
        prompt = deepcopy(self.prompt)
        for name, inputs in changes.items():
            prompt[getattr(self, name)]["inputs"].update(inputs)
        return send(self.server, prompt)


def send(server: Server, prompt: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The texts by node and the outputs of a prompt."""
    messages = Messages(server.port, server.client)
    history = server.finished(server.submit(prompt), messages=messages, progress=lambda *_: None)
    while messages.next(timeout=0.3):
        pass
    messages.close()
    assert history["status"]["status_str"] == "success", server.log_tail()
    return messages.texts, history["outputs"]


@pytest.fixture(scope="module")
def workflow(server: Server) -> Workflow:
    return Workflow(server)


def test_nodes_show_what_a_run_did(workflow: Workflow):
    texts, outputs = workflow.texts(apply={"start_percent": 0.0})
    assert f"man, woman: active in {STEPS} of {STEPS} evaluations." in texts[workflow.apply]
    shown = texts[workflow.router].splitlines()
    assert "1 man: " in shown[0] and "2 woman: " in shown[1] and all("% share" in line for line in shown[:2])
    assert texts[workflow.apply] in texts[workflow.router]
    assert outputs[workflow.router]["text"] == [texts[workflow.router]]
    assert "subject 1: 'man'" in texts[workflow.text] and "subject 2: 'woman'" in texts[workflow.text]


def test_the_node_notes_a_size_that_mini_does_not_know(workflow: Workflow):
    texts, _ = workflow.texts(latent={"width": 256}, sampler={"steps": 1})
    assert "trained with pictures of 128 × 128 pixels; this run has 256 × 128." in texts[workflow.apply]


def test_the_crop_shows_what_it_fell_back_to(server: Server):
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "MoASubjectCrop",
            "inputs": {
                "images": ["1", 0],
                "order": "largest first",
                "index": 1,
                "margin": 0.6,
                "if_none": "whole image",
            },
        },
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    texts, _ = send(server, prompt)
    assert "picture 1: found none, used the whole picture" in texts["2"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"apply": {"strength": 0.0}}, "'strength' in 'Apply MoA' is 0"),
        (
            {"apply": {"start_percent": 0.7, "end_percent": 0.3}},
            "'start_percent' 0.7 in 'Apply MoA' is not below 'end_percent' 0.3",
        ),
        (
            {"apply": {"end_percent": 0.2}, "sampler": {"denoise": 0.4}},
            "none of its steps lies between 'start_percent' 0.1 and 'end_percent' 0.2 of 'Apply MoA'",
        ),
        ({"text": {"subjects.subject_0": None, "subjects.subject_1": None}}, "no prompt of the run has one"),
    ],
    ids=["strength 0", "empty window", "no step in the window", "no subject connected"],
)  # fmt: skip
def test_nodes_show_why_no_subject_took_part(workflow: Workflow, changes: dict, reason: str):
    texts, outputs = workflow.texts(**changes)
    expected = f"No subject takes part: {reason}"
    assert texts[workflow.apply].startswith(expected)
    assert texts[workflow.router].startswith(expected)
    assert outputs[workflow.router]["text"][0].startswith(expected)
