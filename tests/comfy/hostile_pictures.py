"""The pictures and masks of the hostile folder, and what each of them has to become."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

SIZE = (96, 96)
"""Width and height of most pictures."""
CAPTION = "a man on a beach"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\nshowpage\n"


@dataclass
class HostileFolder:
    """What is in it: relative paths, and regular expressions for lines of the report."""

    root: Path
    used: dict[str, list[str]] = field(default_factory=dict)
    """Pictures to train on, with all files that belong to them."""
    warned: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)

    def use(self, name: str, *files: str, warning: str = "") -> None:
        """These files belong to a picture to train on."""
        self.used[name] = [name, *files]
        if warning:
            self.warned[name] = warning

    def picture(self, name: str, image: Image.Image | None = None, **options: Any) -> None:
        """Save a picture, by default one with a man in it, or a mask, by default his."""
        default = silhouette if ".mask" in name.lower() or name == "beside.png" else scene
        (image or default()).save(self.root / name, **options)

    def text(self, name: str, content: str | bytes = CAPTION) -> None:
        """Write a caption."""
        (self.root / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def leave_out(self, name: str, reason: str) -> None:
        """These files belong to a picture that is left out."""
        self.used.pop(name, None)
        self.left_out[name] = reason

    def complete(self, stem: str, suffix: str = ".jpg", caption: str | bytes = CAPTION, warning: str = "") -> None:
        """A picture with caption and mask, to train on."""
        self.picture(stem + suffix)
        self.text(f"{stem}.txt", caption)
        self.picture(f"{stem}.mask.png")
        self.use(stem + suffix, f"{stem}.txt", f"{stem}.mask.png", warning=warning)


def scene(size: tuple[int, int] = SIZE, people: int = 1) -> Image.Image:
    """People of one colour each on a sloping background."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = np.linspace(90, 160, width)[None]
    pixels[..., 2] = np.linspace(200, 120, height)[:, None]
    for number in range(people):
        pixels[np.asarray(silhouette(size, number, people)) > 0] = ((230, 200, 60), (60, 60, 60))[number % 2]
    return Image.fromarray(pixels)


def silhouette(size: tuple[int, int] = SIZE, number: int = 0, people: int = 1) -> Image.Image:
    """The mask of one of the people."""
    width, height = size
    pixels = np.zeros((height, width), np.uint8)
    middle, half = round(width * (number + 0.5) / people), round(width * 0.2 / people)
    pixels[height // 4 : height * 7 // 8, middle - half : middle + half] = 255
    return Image.fromarray(pixels)


def formats(made: HostileFolder) -> None:
    for suffix in (
        ".jpeg",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        *([".avif"] if features.check("avif") else []),
    ):
        made.complete(f"format_{suffix[1:]}", suffix)
    moving = [scene(), Image.new("RGB", SIZE, "black")]
    for suffix in (".gif", ".webp", ".png"):
        stem = f"moving_{suffix[1:]}"
        made.complete(stem, suffix)
        moving[0].save(made.root / (stem + suffix), save_all=True, append_images=moving[1:])
    made.complete("phone")
    moving[0].save(made.root / "phone.jpg", format="MPO", save_all=True, append_images=moving[1:])
    made.complete("cmyk")
    made.picture("cmyk.jpg", scene().convert("CMYK"))
    made.complete("palette", ".png")
    made.picture("palette.png", scene().convert("P"))
    made.complete("deep_grey", ".png")
    made.picture("deep_grey.png", deep(scene().convert("L")))
    made.complete("turned")
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying on its side
    made.picture("turned.jpg", scene().rotate(90), exif=turned)


def deep(image: Image.Image) -> Image.Image:
    """The same in 16 bits."""
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def masks(made: HostileFolder) -> None:
    plain, opaque = silhouette(), Image.new("L", SIZE, 255)
    index = plain.convert("P")
    inverted = Image.fromarray(255 - np.asarray(plain))
    grey = Image.fromarray(np.random.default_rng(0).integers(60, 190, SIZE[::-1], np.uint8))
    kinds: dict[str, tuple[Image.Image, dict[str, object], str]] = {
        "opaque_alpha": (Image.merge("RGBA", [plain] * 3 + [opaque]), {}, ""),
        "unused_index": (index, {"transparency": 77}, ""),
        "deep_mask": (deep(plain), {}, ""),
        "one_bit": (plain.convert("1"), {}, ""),
        "alpha_mask": (Image.merge("RGBA", [opaque] * 3 + [plain]), {}, ""),
        "covering": (opaque, {}, "mask covers everything: .* covers 100%"),
        "inverted": (inverted, {}, "mask looks inverted"),
        "grey_photo": (grey, {}, "mask looks like a photo"),
    }
    for stem, (mask, options, warning) in kinds.items():
        made.complete(stem, warning=warning)
        made.picture(f"{stem}.mask.png", mask, **options)
    wrong = {
        "no_subject": (Image.new("L", SIZE), "empty mask: of subject 1, no_subject.mask.png"),
        "faint": (Image.fromarray(np.asarray(plain) // 255), "empty mask: .* largest value is 0.4% of white"),
        "square": (silhouette((96, 40)), "mask of another shape: square.mask.png is 96 × 40, the picture is 96 × 96"),
        "colourful": (scene(), "no mask: colourful.mask.png has colours"),
    }
    for stem, (mask, reason) in wrong.items():
        made.picture(f"{stem}.jpg")
        made.text(f"{stem}.txt")
        made.picture(f"{stem}.mask.png", mask)
        made.leave_out(f"{stem}.jpg", reason)
    made.picture("own_alpha.png", Image.merge("RGBA", [*scene().split(), plain]))
    made.text("own_alpha.txt")
    made.use("own_alpha.png", "own_alpha.txt")
    made.picture("full_alpha.png", scene().convert("RGBA"))
    made.text("full_alpha.txt")
    made.left_out["full_alpha.png"] = (
        "no mask: neither full_alpha.png nor full_alpha.mask.png, and the picture is opaque"
    )


def names_of_masks(made: HostileFolder) -> None:
    for number, (one, two) in enumerate(((".jpg", ".webp"), (".jpg", ".jpeg"), (".bmp", ".gif"))):
        made.complete(f"twice_{number}", one)
        made.picture(f"twice_{number}{two}")
        del made.used[f"twice_{number}{one}"]
        made.left_out[min(f"twice_{number}{one}", f"twice_{number}{two}")] = (
            f"two pictures of one name: .*twice_{number}"
        )
    made.picture("beside.jpg")
    made.text("beside.txt")
    made.picture("beside.png")
    made.use("beside.jpg", "beside.txt", "beside.png")
    made.picture("second_only.jpg", scene(people=2))
    made.text("second_only.txt", "a woman and a man")
    made.picture("second_only.mask2.png", silhouette(number=1, people=2))
    made.use(
        "second_only.jpg",
        "second_only.txt",
        "second_only.mask2.png",
        warning="subject without a mask: there is no mask1",
    )
    made.picture("crowd.jpg")
    made.text("crowd.txt")
    made.picture("crowd.mask1.png")
    made.picture("crowd.mask2.png")
    made.leave_out("crowd.jpg", "more masks than words: a mask of subject 2, but 1 words")
    made.complete("extra")
    for name in ("extra.mask0.png", "extra.ref0.jpg", "extra.ref3.jpg"):
        made.picture(name)
        made.unused[name] = "not used: its name belongs to no subject of extra.jpg"
    for name in ("orphan.mask1.png", "lonely.ref1.jpg", "stray.txt"):
        (made.text if name.endswith(".txt") else made.picture)(name)
        made.unused[name] = "no picture: the picture that this file belongs to does not exist"


def broken(made: HostileFolder) -> None:
    whole = made.root / "whole.jpg"
    scene((200, 200)).save(whole)
    data = whole.read_bytes()
    whole.unlink()
    for stem, content in {
        "nothing": b"",
        "cut": data[: len(data) // 2],
        "words": b"no picture",
        "bomb": bomb(),
    }.items():
        made.text(f"{stem}.txt")
        made.picture(f"{stem}.mask.png")
        (made.root / f"{stem}.jpg").write_bytes(content)
        made.leave_out(f"{stem}.jpg", f"unreadable picture: {stem}.jpg")
    made.complete("bad_reference")
    (made.root / "bad_reference.ref1.jpg").write_bytes(b"no picture")
    made.leave_out("bad_reference.jpg", "unreadable picture: bad_reference.ref1.jpg")
    sizes = {"dot": (1, 1), "thread": (600, 4), "apart": (600, 90)}
    for stem, size in sizes.items():
        people = 2 if stem == "apart" else 1
        made.picture(f"{stem}.png", scene(size, people))
        made.text(f"{stem}.txt", "a man far from a woman")
        for number in range(people):
            opaque = stem == "dot"
            made.picture(
                f"{stem}.mask{number + 1}.png",
                Image.new("L", size, 255) if opaque else silhouette(size, number, people),
            )
    made.use("dot.png", "dot.txt", "dot.mask1.png", warning="small picture: 1 × 1 pixels are enlarged")
    made.leave_out("thread.png", "too narrow: 600 × 4 pixels")
    made.leave_out("apart.png", "subject outside the crop: subject [12] is not in")


def bomb() -> bytes:
    """A .png of a hundred bytes that claims 3.6 billion pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
