"""Changes of valid files: bytes, JSON values by type, names, shapes, precisions, and numbers to extremes.

Every function takes a random generator and something valid, and gives something that mostly is not.
"""

from __future__ import annotations

import copy
import io
import json
import math
import random
from collections.abc import Callable
from typing import Any

import torch

Mutation = Callable[[random.Random, bytes], bytes]
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    2**31,
    2**32 + 1,
    2**53,
    2**63,
    -(2**63),
    10**12,
    10**30,
    0.5,
    -0.0,
    1e308,
    math.inf,
    -math.inf,
    math.nan,
)
TEXTS = ("", " ", ".", "..", "x", "x.y", "\n", "a\nlicence: MIT", "\x00", "\u202e", "\ud800", "é" * 300, "a" * 5000, "../../secret", "C:\\x", "none", "linear", "12", "-5", "1e9", "NaN")  # fmt: skip
ITEMSIZE = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
LARGEST = 1 << 21
"""Bytes of the data of a changed file."""
SUBSTITUTES = (
    b"", b"\x00" * 64, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", b"<!DOCTYPE html><html></html>",
    b"\xff" * 200, b"PK\x03\x04", b"\x93NUMPY\x01\x00",
)  # fmt: skip


def any_value(r: random.Random) -> Any:
    """A JSON value of any type, some of them large or deep."""
    deep: Any = r.choice(NUMBERS)
    for _ in range(r.choice((1, 3, 60, 400))):
        deep = [deep] if r.random() < 0.5 else {"a": deep}
    simple = [None, True, False, r.choice(NUMBERS), r.choice(TEXTS), [], {}, deep, [r.choice(NUMBERS)] * 2000]
    return r.choice(simple)


def any_name(r: random.Random, name: str) -> str:
    """A name near this one, or far from it."""
    parts = name.split(".")
    parts[r.randrange(len(parts))] = r.choice(("x", "0", "1", "9999", "", "weight", "to_k_ip", "²", "-1", "\n"))
    at = r.randrange(len(name) + 1)
    changed = [
        ".".join(parts),
        name[:at] + r.choice(("x", ".", "0", "\n", "é")) + name[at:],
        name[:at],
        name.swapcase(),
    ]
    return r.choice([*changed, f"module.{name}", f"unet.{name}", r.choice(TEXTS)])


def change_tree(r: random.Random, tree: Any) -> Any:
    """One change somewhere in a JSON value, which is itself changed."""
    inside: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            inside.append((node, key))
            pending.append(child)
    if not inside or r.random() < 0.02:
        return any_value(r)
    node, key = r.choice(inside)
    action = r.random()
    if action < 0.5:
        node[key] = any_value(r)
    elif action < 0.65:
        del node[key]
    elif action < 0.8 and isinstance(node[key], int | float):
        node[key] = node[key] * r.choice((0, -1, 2, 3, 1000, 10**9)) + r.choice((-1, 0, 1))
    elif isinstance(node, dict):
        node[any_name(r, str(key))] = node.pop(key) if r.random() < 0.7 else node[key]
    else:
        node.extend(copy.deepcopy(node[:1]) * r.choice((1, 3, 1500)))
    return tree


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def flip_bytes(r: random.Random, content: bytes) -> bytes:
    """One to four other bytes."""
    changed = bytearray(content or b"\x00")
    for _ in range(r.randint(1, 4)):
        changed[r.randrange(len(changed))] = r.randrange(256)
    return bytes(changed)


def flip_beginning(r: random.Random, content: bytes) -> bytes:
    """Other bytes in the first part, where headers are."""
    end = min(len(content), r.choice((8, 64, 400, 4000)))
    return flip_bytes(r, content[:end]) + content[end:]


def cut(r: random.Random, content: bytes) -> bytes:
    return content[: r.randrange(len(content) + 1)] if r.random() < 0.8 else content + bytes(r.randrange(1, 200))


def replace_all(r: random.Random, content: bytes) -> bytes:
    return r.choice(SUBSTITUTES)


def move_piece(r: random.Random, content: bytes) -> bytes:
    """A piece of the file somewhere else in it."""
    a, b = sorted(r.randrange(len(content) + 1) for _ in range(2))
    at = r.randrange(len(content) + 1)
    return content[:at] + content[a : min(b, a + 300)] + content[at:]


def change_metadata(r: random.Random, content: bytes) -> bytes:
    """An entry of the metadata: its text, or a value of the JSON in it."""
    header, data = split(content)
    entries = header.get("__metadata__") or {"format": "pt"}
    name = r.choice(list(entries))
    try:
        tree = json.loads(entries[name])
    except (ValueError, RecursionError):
        tree = None
    if isinstance(tree, dict | list) and r.random() < 0.9:
        entries[name] = json.dumps(change_tree(r, tree))
    else:
        entries[name] = r.choice((r.choice(TEXTS), str(r.choice(NUMBERS)), json.dumps(any_value(r)), "[" * 3000))
    if r.random() < 0.1:
        del entries[name]
    header["__metadata__"] = entries
    return joined(header, data)


def change_header(r: random.Random, content: bytes) -> bytes:
    """A value anywhere in the header, without regard to what safetensors allows."""
    header, data = split(content)
    return joined(change_tree(r, header), data)


def change_tensors(r: random.Random, content: bytes) -> bytes:
    """Names, shapes and precisions in a file that stays valid safetensors."""
    header, _ = split(content)
    metadata = header.pop("__metadata__", None)
    for _ in range(r.choice((1, 1, 1, 3))):
        if not header:
            break
        name = r.choice(list(header))
        action = r.random()
        if action < 0.3:
            header[any_name(r, name)] = header.pop(name)
        elif action < 0.4:
            del header[name]
        elif action < 0.5:
            header[any_name(r, name)] = dict(header[name])
        elif action < 0.6:
            header[name]["dtype"] = r.choice(list(ITEMSIZE))
        else:
            header[name]["shape"] = any_shape(r, header[name]["shape"])
    return laid_out(metadata, header)


def any_shape(r: random.Random, shape: list[int]) -> list[int]:
    """A shape near this one: another length, another number of dimensions, turned round."""
    changed = list(shape)
    if changed and r.random() < 0.6:
        at = r.randrange(len(changed))
        changed[at] = r.choice((0, 1, 2, changed[at] + 1, max(0, changed[at] - 1), changed[at] * 2, 65, 70_000))
        return changed
    return r.choice(([], changed[::-1], [*changed, 1], changed[:-1], [1, *changed], [1] * 9, [0, 2**62], [2, 3, 4, 5]))


def laid_out(metadata: Any, tensors: dict[str, Any]) -> bytes:
    """A valid file of zeros and ones with these names, shapes and precisions; too large ones get a single value."""
    at, header = 0, {} if metadata is None else {"__metadata__": metadata}
    for name, entry in tensors.items():
        size = math.prod(entry["shape"]) * ITEMSIZE[entry["dtype"]]
        if at + size > LARGEST:
            entry, size = {**entry, "shape": [1]}, ITEMSIZE[entry["dtype"]]
        header[name] = {**entry, "data_offsets": [at, at + size]}
        at += size
    return joined(header, bytes(at))


def change_pickle(r: random.Random, content: bytes) -> bytes:
    """Objects of a pickled file: names, other types, tensors of other kinds."""
    tree = torch.load(io.BytesIO(content), weights_only=True)
    inner = tree[r.choice(list(tree))] if isinstance(tree, dict) and r.random() < 0.8 else tree
    if not isinstance(inner, dict) or not inner:
        return flip_bytes(r, content)
    name = r.choice(list(inner))
    action = r.random()
    if action < 0.3:
        inner[any_name(r, str(name))] = inner.pop(name)
    elif action < 0.5:
        inner[r.choice((1, None, (2, 3), 4.5, name))] = any_value(r)
    elif action < 0.6:
        inner.pop(name)
    else:
        inner[name] = any_tensor(r)
    made = io.BytesIO()
    torch.save(r.choice((tree, tree, tree, tree, [tree], {"state_dict": tree}, {"a": tree}, any_value(r))), made)
    return made.getvalue()


def any_tensor(r: random.Random) -> torch.Tensor:
    """A tensor of another shape, precision or layout."""
    shape = any_shape(r, [4, 4])
    kinds: list[Callable[[], torch.Tensor]] = [
        lambda: torch.ones(1).expand(1000, 1000, 1000),
        lambda: torch.zeros(4, 4, dtype=torch.complex64),
        lambda: torch.zeros(4, 4, dtype=torch.int64),
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.empty(4, 4, device="meta"),
        lambda: torch.tensor(1.0),
        lambda: torch.nn.Parameter(torch.ones(4, 4)),
        lambda: torch.ones(shape if math.prod(shape) < 1e5 else [1]),
        lambda: torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8),
        lambda: torch.ones(8, 8).T[::2],
    ]
    return r.choice(kinds)()


def change_json(r: random.Random, content: bytes) -> bytes:
    return json.dumps(change_tree(r, json.loads(content))).encode("utf-8", "surrogatepass")


def change_digits(r: random.Random, content: bytes) -> bytes:
    """A number written in the first kilobyte becomes another of any length, as in headers of .npy files."""
    places = [i for i, byte in enumerate(content[:1000]) if chr(byte).isdigit()]
    if not places:
        return flip_bytes(r, content)
    at = r.choice(places)
    return content[:at] + str(r.choice((0, 9, 99, 10**6, 10**12, 10**20, -1))).encode() + content[at + 1 :]


def change_lines(r: random.Random, content: bytes) -> bytes:
    """A line of a text becomes another, or a path."""
    lines = content.split(b"\n")
    paths = ("../../etc/passwd", "/etc/passwd", "a/b", "00000001\x00", *TEXTS)
    lines.insert(r.randrange(len(lines) + 1), r.choice(paths).encode("utf-8", "surrogatepass"))
    return b"\n".join(lines)


RAW: tuple[Mutation, ...] = (flip_bytes, flip_beginning, cut, replace_all, move_piece)
SAFETENSORS: tuple[Mutation, ...] = (
    *RAW, change_metadata, change_metadata, change_metadata, change_header, change_tensors, change_tensors, change_tensors,
)  # fmt: skip
PICKLE: tuple[Mutation, ...] = (*RAW, change_pickle, change_pickle, change_pickle)
ARRAY: tuple[Mutation, ...] = (*RAW, change_digits, change_digits)
JSON: tuple[Mutation, ...] = (*RAW, change_json, change_json, change_json)
LINES: tuple[Mutation, ...] = (*RAW, change_lines)
