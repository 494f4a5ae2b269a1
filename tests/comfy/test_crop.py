"""Crop Subject (MoA): boxes of core's own detectors, masks, and a real photograph through OpenCV."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
import skimage.data
import subjects
import torch
from comfy_extras.nodes_images import BoundingBox
from comfy_extras.nodes_sdpose import SDPoseFaceBBoxes
from comfyui_moa.moa_attention.subjects.crop import PixelBox
from comfyui_moa.nodes.crop import MoASubjectCrop
from comfyui_moa.nodes.host.pictures.boxes import no_detector, read_boxes
from torch import Tensor

ASTRONAUT = (PixelBox(177, 66, 97, 97), 12)
"""Her face, and the tolerance of a detector in pixels."""
HAS_MEDIAPIPE = importlib.util.find_spec("comfy_extras.nodes_mediapipe") is not None
"""Hosts before 0.23 lack the node."""


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """NASA's portrait of Eileen Collins, public domain: (1,512,512,3)."""
    return torch.from_numpy(skimage.data.astronaut())[None].float() / 255


@pytest.fixture(scope="module")
def coffee() -> Tensor:
    """A cup without any person, as wide as the portrait."""
    return torch.from_numpy(skimage.data.coffee())[None, :400, :512].float() / 255


def noise(batch: int = 1) -> Tensor:
    return torch.rand(batch, 100, 200, 3, generator=torch.Generator().manual_seed(0))


def crop(images: Tensor, if_none: str = "stop", order: str = "largest first", index: int = 1, **options: Any) -> Any:
    """(crops, report)"""
    margin = options.pop("margin", 0.0)
    return MoASubjectCrop.execute(images, order, index, margin, if_none, **options).result


def box(x: float, y: float, width: float, height: float) -> dict[str, float]:
    """As ComfyUI's own nodes write it."""
    return subjects.first(BoundingBox.execute(x, y, width, height))


def test_a_real_face_becomes_a_portrait(astronaut: Tensor):
    crops, report = crop(astronaut, margin=0.6)
    face, tolerance = ASTRONAUT
    assert abs(crops.shape[1] - 2.2 * face.width) < 3 * tolerance and crops.shape[1] == crops.shape[2]
    found, _ = crop(astronaut)
    places = [
        (x, y)
        for x in range(int(face.x) - tolerance, int(face.x) + tolerance)
        for y in range(int(face.y) - tolerance, int(face.y) + tolerance)
        if torch.equal(astronaut[:, y : y + found.shape[1], x : x + found.shape[2]], found)
    ]
    assert len(places) == 1
    assert "picture 1: found 1, used" in report


def test_two_faces_are_selected_by_size_or_place(astronaut: Tensor):
    small = torch.nn.functional.interpolate(astronaut.movedim(-1, 1), scale_factor=0.6, mode="area").movedim(1, -1)
    both = torch.full((1, 512, 820, 3), 0.5)
    both[:, :512, 308:] = astronaut
    both[:, 100 : 100 + small.shape[1], : small.shape[2]] = small
    by_size = [crop(both, index=i)[0] for i in (1, 2)]
    by_place = [crop(both, order="left to right", index=i)[0] for i in (1, 2)]
    assert by_size[0].shape[1] > by_size[1].shape[1]
    assert torch.equal(by_size[0], by_place[1]) and torch.equal(by_size[1], by_place[0])
    with pytest.raises(
        ValueError, match=r"face 3 \(largest first\) in picture 1, but found 2\. Choose a smaller 'index'"
    ):
        crop(both, index=3)


def test_a_large_photograph_is_searched_too(astronaut: Tensor):
    large = torch.nn.functional.interpolate(astronaut.movedim(-1, 1), scale_factor=5, mode="bilinear").movedim(1, -1)
    crops, report = crop(large)
    face, tolerance = ASTRONAUT
    assert "found 1" in report and abs(crops.shape[1] - 5 * face.width) < 5 * tolerance


def test_pictures_without_the_face(astronaut: Tensor, coffee: Tensor):
    images = torch.cat((coffee, astronaut[:, :400, :], coffee))
    alone = crop(astronaut[:, :400])[0]
    kept, report = crop(images, "skip the subject")
    assert torch.equal(kept, alone)
    lines = report.splitlines()
    assert lines[1] == "picture 1: found none, left out" and lines[3] == "picture 3: found none, left out"
    assert lines[2].startswith("picture 2: found 1, used")
    whole, report = crop(images, "whole image")
    assert whole.shape == (3, 512, 512, 3) and torch.equal(whole[0, 56:456], coffee[0])
    assert report.count("found none, used the whole picture") == 2
    none, report = crop(coffee, "skip the subject")
    assert none.shape == (0, 512, 512, 3)
    assert report.endswith("no picture is left: the prompt continues without the subject")
    with pytest.raises(ValueError, match="needs face 1 .* in picture 1, but found none.*'if_none'"):
        crop(images)


@pytest.mark.parametrize("missing", ["the package", "its cascades"])
def test_without_a_detector_the_report_names_the_alternatives(
    astronaut: Tensor, monkeypatch: pytest.MonkeyPatch, missing: str
):
    if missing == "the package":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        monkeypatch.setattr("cv2.data.haarcascades", "")  # as in OpenCV 5
    crops, report = crop(astronaut, "whole image")
    assert torch.equal(crops, astronaut) and "no face detector is installed" in report and "pip install" in report
    assert len(crop(astronaut, "skip the subject")[0]) == 0
    with pytest.raises(ValueError, match="found none: no face detector is installed.*pip install") as refusal:
        crop(astronaut)
    assert ("'Detect Face Landmarks (MediaPipe)'" in str(refusal.value)) == HAS_MEDIAPIPE
    assert torch.equal(crop(astronaut, boxes=box(10, 20, 30, 30))[0], astronaut[:, 20:50, 10:40])


def test_one_box_serves_every_picture():
    images = noise(2)
    for boxes in (box(50, 40, 20, 20), [box(50, 40, 20, 20)], [[box(50, 40, 20, 20)]]):
        assert torch.equal(crop(images, boxes=boxes)[0], images[:, 40:60, 50:70])
    assert torch.equal(crop(images, boxes=box(50, 40, 20, 20), margin=0.5)[0], images[:, 30:70, 40:80])


def test_boxes_for_each_picture():
    """A person of SDPose whose face is a 40 × 20 patch of points, and a picture without people."""
    face = [value for x in (60, 100) for y in (30, 50) for value in (x, y, 1.0)] * 17 + [80, 40, 1.0] * 2
    frames = [{"canvas_width": 200, "canvas_height": 100, "people": p} for p in ([{"face_keypoints_2d": face}], [])]
    boxes = subjects.first(SDPoseFaceBBoxes.execute(frames, 1.0, False))
    assert [len(of_one) for of_one in boxes] == [1, 0]
    images = noise(2)
    crops, report = crop(images, "skip the subject", boxes=boxes)
    assert len(crops) == 1 and "picture 1: found 1" in report and "picture 2: found none, left out" in report
    with pytest.raises(ValueError, match="3 pictures but boxes for 2"):
        crop(noise(3), boxes=boxes)
    assert crop(images, "whole image", boxes=[[], []])[0].shape == (2, 200, 200, 3)
    assert len(crop(images, "skip the subject", boxes=[])[0]) == 0


@torch.inference_mode()
def test_boxes_of_cores_mediapipe_node():
    """Its own code with random weights: the detections are random, the format of the boxes is real."""
    if not HAS_MEDIAPIPE:  # no such boxes can arrive; the refusal then names no such node, as tested above
        assert "MediaPipe" not in no_detector()
        return
    import comfy_extras.nodes_mediapipe as mediapipe

    torch.manual_seed(0)
    parts = [*mediapipe._CONTOUR_PARTS, "irises", "nose"]
    state = {f"topology.{part}": torch.tensor([[0, 1], [1, 0]]) for part in parts}
    state |= {"canonical_vertices": torch.randn(468, 3), "procrustes_indices": torch.arange(33)}
    landmarker = mediapipe.FaceLandmarkerModel({**state, "procrustes_weights": torch.rand(33)})
    images = noise(2)
    found = mediapipe.MediaPipeFaceLandmarker.execute(landmarker, images, "short", 3, 0.0, "empty").result
    assert found is not None
    boxes = found[1]
    assert all(len(of_one) == 3 for of_one in boxes)
    read = read_boxes(boxes, 2)
    assert [[b.x for b in of_one] for of_one in read] == [[b["x"] for b in of_one] for of_one in boxes]
    inside = [[b for b in of_one if b.overlaps(100, 200) and max(b.width, b.height) >= 8] for of_one in read]
    assert any(b.overlaps(100, 200) for of_one in read for b in of_one)
    crops, _ = crop(images, "skip the subject", boxes=boxes)
    assert len(crops) == sum(bool(of_one) for of_one in inside)


@pytest.mark.parametrize("box", [{"x": 1, "y": 2}, [1, 2, 3, 4], {"x": 1, "y": 2, "width": "wide", "height": 3}])
def test_boxes_of_another_kind_are_refused(box: object):
    with pytest.raises(ValueError, match="expects boxes with x, y, width, height"):
        read_boxes([box, box], 1)


def test_regions_of_a_mask():
    images, mask = noise(2), torch.zeros(1, 50, 100)  # half as large as the pictures
    mask[:, 10:20, 10:20], mask[:, 10:30, 60:80] = 1, 1
    assert torch.equal(crop(images, mask=mask)[0], images[:, 20:60, 120:160])
    assert torch.equal(crop(images, order="left to right", mask=mask)[0], images[:, 20:40, 20:40])
    assert torch.equal(crop(images, index=2, mask=mask)[0], images[:, 20:40, 20:40])
    with pytest.raises(ValueError, match="region 3 .* in picture 1, but found 2"):
        crop(images, index=3, mask=mask)
    with pytest.raises(ValueError, match="2 pictures but masks for 3"):
        crop(images, mask=mask.expand(3, -1, -1))
    assert len(crop(images, "skip the subject", mask=torch.zeros(1, 64, 64))[0]) == 0


def test_boxes_take_precedence_over_the_mask_and_both_over_a_detector(astronaut: Tensor):
    mask = torch.zeros(1, 512, 512)
    mask[:, 300:340, 100:140] = 1
    assert torch.equal(crop(astronaut, mask=mask)[0], astronaut[:, 300:340, 100:140])
    assert torch.equal(crop(astronaut, mask=mask, boxes=box(0, 0, 30, 30))[0], astronaut[:, :30, :30])
    assert len(crop(astronaut, "skip the subject", boxes=[[]])[0]) == 0
