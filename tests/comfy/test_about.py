"""The text about a file that users read: one line for each entry, whatever the file states."""

from __future__ import annotations

from comfyui_moa.moa_attention.formats.plan import Header
from comfyui_moa.moa_attention.method.spec import LayerSpec, MoAConfig
from comfyui_moa.nodes.load import LONGEST, describe

CONFIG = MoAConfig("sd15", (LayerSpec("middle_0_0_attn2", "middle", "cross", 0, 8, 8, 1, True),), 8, "a clip model", 8)


def test_a_file_cannot_forge_a_line():
    record = {
        "data": "faces\nlicence: MIT", "licence": "MIT", "for sd15, 1 attention layers": "x", "a\r\nlicence: b": "c",
        "nested": {"steps\n": "\u2028licence: MIT", "deep": {"list": ["\n"]}}, "number": 7, "none": None,
    }  # fmt: skip
    about = describe(Header(CONFIG, "CC BY-NC 4.0\nlicence: MIT\x00", record)).split("\n")
    assert len(about) == 3 + len(record)
    assert about[2] == r"licence: CC BY-NC 4.0\nlicence: MIT\x00"
    assert all(line.startswith("  ") and len(line.splitlines()) == 1 for line in about[3:])
    assert r"  data: faces\nlicence: MIT" in about and "  licence: MIT" in about and "  number: 7" in about


def test_a_long_entry_is_shortened():
    about = describe(Header(CONFIG, "x" * 10_000, {"data": "y" * 10_000_000, "z" * 10_000: 1})).split("\n")
    assert [len(line) <= LONGEST + 80 for line in about] == [True] * 5
