"""A folder of everything that a training folder should not hold, beside odd files that must be read, with what each of
them has to become. `python hostile_folder.py FOLDER` makes it to look at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from hostile_pictures import CAPTION, HostileFolder, broken, formats, masks, names_of_masks, scene, silhouette

LONG = "a woman in the snow, " + "with many small trees and a grey sky behind her, " * 8 + "and a man"
"""154 tokens with its padding; the second word for a subject is in the second part."""


def make_hostile_folder(root: Path) -> HostileFolder:
    """Make the folder. Cases that this machine cannot make are left out."""
    root.mkdir(parents=True)
    made = HostileFolder(root)
    for cases in (formats, masks, names_of_masks, captions, broken, names, hidden, others, links, protected):
        cases(made)
    return made


def captions(made: HostileFolder) -> None:
    made.complete("bom", caption=b"\xef\xbb\xbf" + CAPTION.encode())
    made.complete("utf16", caption=CAPTION.encode("utf-16"))
    made.complete("utf32", caption=CAPTION.encode("utf-32"))
    made.complete("accents", caption="a man named José in a café (❤), at 60%")
    made.complete("lines", caption="a man on a beach\r\n\r\na man in the sun\n")
    made.complete(
        "line_without", caption="a man on a beach\nquiet waves\n", warning="caption line not used: 1 with too few"
    )
    made.complete("tags", caption="1girl, 2boys, solo, looking_at_viewer, (best quality:1.2)")
    made.complete("underscores", caption="old_man, beach")
    made.picture("long.jpg", scene((200, 96), 2))
    made.text("long.txt", LONG)
    for number in range(2):
        made.picture(f"long.mask{number + 1}.png", silhouette((200, 96), number, 2))
    made.use(
        "long.jpg",
        "long.txt",
        "long.mask1.png",
        "long.mask2.png",
        warning="long caption: more than 75 tokens, encoded in 2 parts",
    )
    made.complete("marked", caption="a robot <|image|> on a hill")
    made.complete("escapes", caption="a man \x1b[31m in red \x07")
    wrong = {
        "latin": ("un garçon, a boy".encode("latin-1"), "unreadable caption: latin.txt is not UTF-8 at byte 6"),
        "utf16_bare": (CAPTION.encode("utf-16-le"), "unreadable caption: utf16_bare.txt contains zero bytes"),
        "empty_text": (b" \n\n", "no caption: empty_text.txt is empty"),
        "wordless": (b"a quiet beach", "no word for a subject: 'a quiet beach'"),
        "plural": (b"2girls, beach", "no word for a subject: '2girls, beach'"),
        "novel": (b"a man and so on " * 9000, "unreadable caption: novel.txt is longer than 64 KiB"),
    }
    for stem, (content, reason) in wrong.items():
        made.complete(stem, caption=content)
        made.leave_out(f"{stem}.jpg", reason)
    for stem in ("captionless", "caption_folder"):
        made.picture(f"{stem}.jpg")
        made.picture(f"{stem}.mask.png")
        made.leave_out(f"{stem}.jpg", f"no caption: {stem}.txt does not exist")
    (made.root / "caption_folder.txt").mkdir()


def names(made: HostileFolder) -> None:
    made.complete("two  spaces and 100% 'quotes'")
    made.complete("カメラ")
    made.complete("version.1.2")
    made.picture("UPPER.JPG")
    made.text("UPPER.TXT")
    made.picture("UPPER.MASK.PNG")
    made.use("UPPER.JPG", "UPPER.TXT", "UPPER.MASK.PNG")
    for folder in ("10_person", "10_person/deeper", "folder.jpg"):
        (made.root / folder).mkdir()
        made.complete(f"{folder}/same")
    if os.name == "posix":
        made.complete("new\nline")
    if sys.platform == "linux":
        made.complete(os.fsdecode(b"caf\xe9"))


def hidden(made: HostileFolder) -> None:
    for folder in (".ipynb_checkpoints", ".Trash-1000", ".Trash-1000/files"):
        (made.root / folder).mkdir()
        made.picture(f"{folder}/beach-checkpoint.jpg")
        made.text(f"{folder}/beach-checkpoint.txt")
    made.text("._beach.jpg", b"resource fork")
    for name in (".ipynb_checkpoints", ".Trash-1000", "._beach.jpg"):
        made.unused[name] = "hidden: names that begin with a dot are not read"


def others(made: HostileFolder) -> None:
    for name in ("notes.md", "Thumbs.db", "raw.cr2", "phone.heic", "beach.npz", "meta.json", "no_suffix"):
        made.text(name, b"\0\1\2")
        made.unused[name] = "not read: neither a picture .* nor a caption"
    if hasattr(os, "mkfifo"):
        os.mkfifo(made.root / "pipe.jpg")
        made.unused["pipe.jpg"] = "not read: it is not an ordinary file"


def links(made: HostileFolder) -> None:
    outside = made.root.with_name(made.root.name + "_outside")
    outside.mkdir()
    scene().save(outside / "private.jpg")
    targets = {
        "out.jpg": (outside / "private.jpg", "link: it leads out of the folder, to"),
        "dangling.jpg": (Path("nowhere.jpg"), "link: it leads to .*nowhere.jpg, which does not exist"),
        "loop.jpg": (Path("loop.jpg"), "link: .*which does not exist"),
        "out_folder": (outside, "link: it leads out of the folder, to"),
        "in_folder": (Path("10_person"), "link: its files are read where they are"),
        "itself": (Path("."), "link: its files are read where they are"),
    }
    make: Callable[[str, Path], None] = lambda name, target: (made.root / name).symlink_to(target)  # noqa: E731
    try:
        make("linked.jpg", Path("beside.jpg"))
    except OSError:  # Windows allows links to developers only
        return
    made.text("linked.txt")
    made.picture("linked.mask.png")
    made.use("linked.jpg", "linked.txt", "linked.mask.png")
    for name, (target, reason) in targets.items():
        make(name, target)
        made.unused[name] = reason


def protected(made: HostileFolder) -> None:
    """Files without permission, which nothing keeps from root."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return
    made.complete("secret")
    (made.root / "secret.txt").chmod(0)
    made.leave_out("secret.jpg", "unreadable caption: secret.txt .Permission denied.")
    (made.root / "closed").mkdir(mode=0)
    made.unused["closed"] = "unreadable folder: Permission denied"


if __name__ == "__main__":
    make_hostile_folder(Path(sys.argv[1]))
