"""Three small face networks of the npm package `@vladmandic/face-api` (MIT), read without pickles and run in torch.

`face_recognition_model`: dlib's ResNet, 128 numbers for a face; two pictures of one person are less than 0.6 apart.
`tiny_face_detector_model`: a small YOLO. `face_landmark_68_tiny_model`: the positions of eyes, nose and mouth in a face.
`npm pack @vladmandic/face-api` fetches them; they are in its folder `model`.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
RECOGNITION, DETECTOR, LANDMARKS = "face_recognition_model", "tiny_face_detector_model", "face_landmark_68_tiny_model"
CHIP = 150
"""Side of the recognition network's input."""
RECOGNITION_MEAN, DETECTOR_MEAN = (122.782, 117.001, 104.298), (117.001, 114.697, 97.404)
"""RGB of 0..255; the landmarks' is the recognition's."""
ANCHORS = ((1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308))
"""Width and height of the detector's five boxes, in cells."""
CELL = 32
"""Pixels of the detector's input to a cell."""


class FaceBox(NamedTuple):
    """The bounding box of a face, in shares of the picture's side."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


def read_network(folder: Path, name: str) -> Weights:
    """The tensors of one network: numbers in bytes, scaled by the factors in the manifest beside them.

    Raises: FileNotFoundError, naming the missing file; ValueError when the file is shorter than its manifest requires.
    """
    manifest = folder / f"{name}-weights_manifest.json"
    if not manifest.is_file():
        raise FileNotFoundError(
            f"There is no file {manifest}. Unpack the npm package @vladmandic/face-api and set evaluation.face to its folder 'model'."
        )
    tensors: Weights = {}
    for group in json.loads(manifest.read_text(encoding="utf-8")):
        stored, offset = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
        for entry in group["weights"]:
            packed = entry.get("quantization")
            dtype = np.dtype(packed["dtype"] if packed else entry["dtype"])
            count = math.prod(entry["shape"])
            values = np.frombuffer(stored, dtype, count, offset).astype(np.float32).reshape(entry["shape"])
            offset += count * dtype.itemsize
            tensors[entry["name"]] = torch.from_numpy(values * packed["scale"] + packed["min"] if packed else values)
    return {key: value.float() for key, value in tensors.items()}


def convolve(
    x: Tensor, filters: Tensor, bias: Tensor | None, stride: int = 1, groups: int = 1, same: bool = True
) -> Tensor:
    """A convolution with TensorFlow's conventions: filters (h,w,in,out), and `same` pads more on the right and below."""
    kernel = filters.permute(3, 2, 0, 1) if groups == 1 else filters.permute(2, 3, 0, 1)
    if same:
        side = kernel.shape[-1]
        y, z = (max((math.ceil(n / stride) - 1) * stride + side - n, 0) for n in x.shape[-2:])
        x = F.pad(x, (z // 2, z - z // 2, y // 2, y - y // 2))
    return F.conv2d(x, kernel, bias, stride, groups=groups)


def descriptors(w: Weights, chips: Tensor) -> Tensor:
    """Faces (N,3,150,150) in [0,1] -> descriptors (N,128), not normalised."""
    mean = torch.tensor(RECOGNITION_MEAN, device=chips.device)[:, None, None]

    def scaled(x: Tensor, name: str, stride: int = 1, same: bool = True) -> Tensor:
        y = convolve(x, w[f"{name}/conv/filters"], w[f"{name}/conv/bias"], stride, same=same)
        return y * w[f"{name}/scale/weights"][:, None, None] + w[f"{name}/scale/biases"][:, None, None]

    def block(x: Tensor, name: str) -> Tensor:
        return F.relu(scaled(F.relu(scaled(x, f"{name}/conv1")), f"{name}/conv2") + x)

    def shrinking(x: Tensor, name: str) -> Tensor:
        """The shortcut is halved and given empty channels; whichever branch is smaller gets an empty border."""
        y = scaled(F.relu(scaled(x, f"{name}/conv1", 2, same=False)), f"{name}/conv2")
        short = F.avg_pool2d(x, 2, 2)
        height, width = (max(a, b) for a, b in zip(y.shape[-2:], short.shape[-2:], strict=True))
        y, short = (F.pad(z, (0, width - z.shape[-1], 0, height - z.shape[-2])) for z in (y, short))
        return F.relu(y + F.pad(short, (0, 0, 0, 0, 0, y.shape[1] - short.shape[1])))

    x = F.max_pool2d(F.relu(scaled((chips * 255 - mean) / 256, "conv32_down", 2, same=False)), 3, 2)
    for name in ("conv32_1", "conv32_2", "conv32_3"):
        x = block(x, name)
    for width, blocks in (("64", 3), ("128", 2), ("256", 2)):
        x = shrinking(x, f"conv{width}_down")
        for number in range(1, blocks + 1):
            x = block(x, f"conv{width}_{number}")
    return shrinking(x, "conv256_down_out").mean(dim=(2, 3)) @ w["fc"]


def landmarks(w: Weights, faces: Tensor) -> Tensor:
    """Faces (N,3,112,112) in [0,1] -> (N,68,2), x and y in shares of the side, in the order of iBUG 300-W."""

    def separable(x: Tensor, name: str, stride: int = 1) -> Tensor:
        y = convolve(x, w[f"{name}/depthwise_filter"], None, stride, groups=x.shape[1])
        return convolve(y, w[f"{name}/pointwise_filter"], w[f"{name}/bias"])

    x = (faces * 255 - torch.tensor(RECOGNITION_MEAN, device=faces.device)[:, None, None]) / 255
    for number in range(3):
        name = f"dense{number}"
        if number == 0:
            first = F.relu(convolve(x, w[f"{name}/conv0/filters"], w[f"{name}/conv0/bias"], 2))
        else:
            first = F.relu(separable(x, f"{name}/conv0", 2))
        second = separable(first, f"{name}/conv1")
        third = separable(F.relu(first + second), f"{name}/conv2")
        x = F.relu(first + second + third)
    return (x.mean(dim=(2, 3)) @ w["fc/weights"] + w["fc/bias"]).unflatten(-1, (68, 2))


def detector_grid(w: Weights, picture: Tensor) -> Tensor:
    """A picture (3,side,side) in [0,1] -> (cells,cells,5,5): for each anchor x, y, width, height and score, all raw."""
    mean = torch.tensor(DETECTOR_MEAN, device=picture.device)[:, None, None]
    x = F.leaky_relu(convolve((picture[None] * 255 - mean) / 255, w["conv0/filters"], w["conv0/bias"]), 0.1)
    for number in range(1, 6):
        x = F.max_pool2d(x, 2, 2)
        depthwise, pointwise = (w[f"conv{number}/{kind}_filter"] for kind in ("depthwise", "pointwise"))
        x = convolve(x, depthwise, None, groups=x.shape[1])
        x = F.leaky_relu(convolve(x, pointwise, w[f"conv{number}/bias"]), 0.1)
    # A pooling of 2 × 2 that moves by one keeps the size: a border of −∞ never wins.
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 2, 1)
    x = convolve(x, w["conv8/filters"], w["conv8/bias"])
    return x[0].unflatten(0, (len(ANCHORS), 5)).permute(2, 3, 0, 1)


def boxes(grid: Tensor, least: float) -> list[FaceBox]:
    """Read the detector's grid, in shares of its side; of boxes that overlap by 0.4 the best stays. Best first."""
    cells = len(grid)
    rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    x, y = ((columns[..., None] + grid[..., 0].sigmoid()) / cells, (rows[..., None] + grid[..., 1].sigmoid()) / cells)
    anchors = torch.tensor(ANCHORS)
    width, height = (grid[..., 2 + i].exp() * anchors[:, i] / cells for i in range(2))
    score = grid[..., 4].sigmoid()
    found = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2, score), dim=-1)[score > least]
    kept: list[FaceBox] = []
    for candidate in sorted((FaceBox(*row) for row in found.tolist()), key=lambda box: -box.score):
        if all(box_overlap(candidate, box) < 0.4 for box in kept):
            kept.append(candidate)
    return kept


def box_overlap(a: FaceBox, b: FaceBox) -> float:
    """Intersection over union."""
    width, height = min(a.right, b.right) - max(a.left, b.left), min(a.bottom, b.bottom) - max(a.top, b.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a.area + b.area - shared)
