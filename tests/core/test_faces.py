"""The ports of face-api's networks: its file layout, TensorFlow's padding, boxes, and a face turned upright."""

import json
import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from devtools.in_process import PACK, import_pack

import_pack()
face_api, faces = (import_module(f"{PACK}.recipes.adapter.evaluation.{name}") for name in ("face_api", "faces"))

CPU = torch.device("cpu")
RESIDUAL = [
    *(f"conv{width}_{number}" for width, count in ((32, 3), (64, 3), (128, 2), (256, 2)) for number in range(1, count + 1)),
    *(f"conv{name}" for name in ("64_down", "128_down", "256_down", "256_down_out")),
]  # fmt: skip


def recognition_layout() -> dict[str, list[int]]:
    shapes = scaled("conv32_down", 7, 3, 32)
    for name in RESIDUAL:
        width = int("".join(c for c in name.split("_")[0] if c.isdigit()))
        narrower = width // 2 if name.endswith("_down") else width
        shapes |= scaled(f"{name}/conv1", 3, narrower, width) | scaled(f"{name}/conv2", 3, width, width)
    return {**shapes, "fc": [256, 128]}


def scaled(name: str, side: int, before: int, after: int) -> dict[str, list[int]]:
    vectors = {f"{name}/{part}": [after] for part in ("conv/bias", "scale/weights", "scale/biases")}
    return {f"{name}/conv/filters": [side, side, before, after], **vectors}


def separable(name: str, before: int, after: int) -> dict[str, list[int]]:
    return {
        f"{name}/depthwise_filter": [3, 3, before, 1],
        f"{name}/pointwise_filter": [1, 1, before, after],
        f"{name}/bias": [after],
    }


def detector_layout() -> dict[str, list[int]]:
    shapes = {"conv0/filters": [3, 3, 3, 16], "conv0/bias": [16]}
    for number in range(1, 6):
        shapes |= separable(f"conv{number}", 8 * 2**number, 16 * 2**number)
    return {**shapes, "conv8/filters": [1, 1, 512, 25], "conv8/bias": [25]}


def landmark_layout() -> dict[str, list[int]]:
    shapes = {"dense0/conv0/filters": [3, 3, 3, 32], "dense0/conv0/bias": [32]}
    for number, (before, after) in enumerate(((3, 32), (32, 64), (64, 128))):
        if number:
            shapes |= separable(f"dense{number}/conv0", before, after)
        shapes |= separable(f"dense{number}/conv1", after, after) | separable(f"dense{number}/conv2", after, after)
    return {**shapes, "fc/weights": [128, 136], "fc/bias": [136]}


def write(folder: Path, name: str, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A file as the package's: bytes with a scale and a minimum, every seventh tensor plain. Returns what it means."""
    chance, stored, entries, meant = np.random.default_rng(0), b"", [], {}
    for number, (key, shape) in enumerate(shapes.items()):
        entry = {"name": key, "shape": shape, "dtype": "float32"}
        spread = 2 / math.sqrt(max(1, math.prod(shape[:-1])))
        if number % 7:
            values = chance.integers(0, 256, shape, np.uint8)
            entry["quantization"] = {"dtype": "uint8", "scale": spread / 256, "min": -spread / 2}
            meant[key] = values.astype(np.float32) * (spread / 256) - spread / 2
        else:
            values = meant[key] = chance.uniform(-spread / 2, spread / 2, shape).astype(np.float32)
        stored += values.tobytes()
        entries.append(entry)
    (folder / f"{name}.bin").write_bytes(stored)
    manifest = [{"paths": [f"{name}.bin"], "weights": entries}]
    (folder / f"{name}-weights_manifest.json").write_text(json.dumps(manifest))
    return meant


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write(tmp_path, face_api.RECOGNITION, recognition_layout())
    write(tmp_path, face_api.DETECTOR, detector_layout())
    write(tmp_path, face_api.LANDMARKS, landmark_layout())
    return tmp_path


def test_weights_are_read_by_the_manifest(tmp_path: Path):
    meant = write(tmp_path, face_api.DETECTOR, detector_layout())
    found = face_api.read_network(tmp_path, face_api.DETECTOR)
    assert found.keys() == meant.keys()
    for key, values in meant.items():
        np.testing.assert_allclose(found[key].numpy(), values, rtol=1e-6, atol=1e-7)


def test_networks_of_the_real_layout_run(package: Path):
    read = face_api.read_network
    torch.manual_seed(0)
    chips = torch.rand(2, 3, face_api.CHIP, face_api.CHIP)
    descriptors = face_api.descriptors(read(package, face_api.RECOGNITION), chips)
    assert descriptors.shape == (2, 128) and descriptors.isfinite().all() and not descriptors[0].equal(descriptors[1])
    assert face_api.landmarks(read(package, face_api.LANDMARKS), chips[:, :, :112, :112]).shape == (2, 68, 2)
    grid = face_api.detector_grid(read(package, face_api.DETECTOR), torch.rand(3, 224, 224))
    assert grid.shape == (7, 7, 5, 5)


def test_faces_come_as_descriptors_the_largest_first(package: Path, monkeypatch: pytest.MonkeyPatch):
    evaluator = faces.FaceEvaluator(package, CPU)
    small, large = face_api.FaceBox(0.1, 0.1, 0.2, 0.2, 0.9), face_api.FaceBox(0.4, 0.4, 0.9, 0.9, 0.6)
    picture = torch.rand(3, 90, 120)
    found: dict[str, torch.Tensor] = {}
    for name, listed in (("both", [small, large]), ("large", [large]), ("none", [])):
        monkeypatch.setattr(faces, "boxes", lambda _grid, _least, listed=listed: listed)
        found[name] = evaluator(picture)
    assert [len(s) for s in found.values()] == [2, 1, 0]
    torch.testing.assert_close(found["both"][:1], found["large"])


def test_a_package_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="Unpack the npm package"):
        faces.FaceEvaluator(tmp_path, CPU)


def test_same_padding_is_tensorflows():
    """Of 4 pixels with a stride of 2 the windows begin at 0 and 2: what is missing is added behind."""
    line = torch.tensor([1.0, 2, 3, 4]).expand(1, 1, 4, 4)
    row = torch.zeros(3, 3, 1, 1)
    row[0, :, 0, 0] = torch.tensor([100.0, 10, 1])
    assert face_api.convolve(line, row, None, stride=2)[0, 0, 0].tolist() == [123, 340]
    assert face_api.convolve(line, row, None)[0, 0, 1].tolist() == [12, 123, 234, 340]


def test_a_box_follows_from_its_cell_and_anchor():
    grid = torch.zeros(10, 10, 5, 5)
    grid[..., 4] = -9
    grid[3, 6, 0, 4], grid[3, 6, 1, 4] = 2, 1  # one place, two anchors that overlap little
    grid[3, 6, 2, 4] = -1  # too faint
    first, second = face_api.boxes(grid, 0.5)
    width, height = (side / 10 for side in face_api.ANCHORS[0])
    expected = (0.65 - width / 2, 0.35 - height / 2, 0.65 + width / 2, 0.35 + height / 2)
    assert first[:4] == pytest.approx(expected, abs=1e-6) and first.score > second.score
    grid[3, 7, 1, 4] = 1.5  # nearly the second's place, and better
    assert [round(box.score, 3) for box in face_api.boxes(grid, 0.5)] == [0.881, 0.818]


def test_overlap_is_intersection_over_union():
    a, b = face_api.FaceBox(0, 0, 2, 2, 1), face_api.FaceBox(1, 1, 3, 3, 1)
    assert face_api.box_overlap(a, b) == pytest.approx(1 / 7)
    assert face_api.box_overlap(a, face_api.FaceBox(5, 5, 6, 6, 1)) == 0


def test_a_similarity_is_found_from_its_points():
    points = torch.tensor([[0.0, 0], [1, 0], [0, 1], [2, 3]])
    turned = torch.stack((-points[:, 1], points[:, 0]), dim=1) * 2 + torch.tensor([5.0, -1])
    matrix = faces.similarity(points, turned)
    torch.testing.assert_close(matrix, torch.tensor([[0.0, -2, 5], [2, 0, -1]]))


@pytest.mark.parametrize("degrees", [0, 25, -40])
def test_an_inclined_face_is_turned_upright(package: Path, monkeypatch: pytest.MonkeyPatch, degrees: float):
    """Five dots at the landmarks lie in the chip where dlib's mean face has them."""
    turn, size, middle = math.radians(degrees), 120.0, torch.tensor([160.0, 140.0])
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    spots = (torch.tensor(faces.UPRIGHT) - 0.5) @ rotation.T * size + middle
    y, x = torch.meshgrid(torch.arange(320) + 0.5, torch.arange(320) + 0.5, indexing="ij")
    dots = sum(torch.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 8) for spot in spots)
    left, top = (middle - size / 2).tolist()
    box = face_api.FaceBox(left / 320, top / 320, (left + size) / 320, (top + size) / 320, 1.0)
    points = torch.zeros(1, 68, 2)
    points[0, list(faces.CORNERS)] = (spots - middle) / size + 0.5
    monkeypatch.setattr(faces, "landmarks", lambda _weights, _face: points)
    chip = faces.FaceEvaluator(package, CPU).upright(torch.as_tensor(dots).expand(3, -1, -1), box)[0, 0]
    for spot in (torch.tensor(faces.UPRIGHT) + 0.25) / 1.5 * face_api.CHIP:
        column, row = (int(value) for value in spot)
        near = chip[row - 3 : row + 4, column - 3 : column + 4]
        assert near.max() > 0.8 and near.max() == chip[row - 8 : row + 9, column - 8 : column + 9].max()
