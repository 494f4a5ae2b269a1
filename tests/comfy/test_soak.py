"""The short form of `dev.py soak`: a server lives through random workflows, interruptions and changing files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))

from soaking import Result, judged_error, soak  # noqa: E402


@pytest.mark.slow
def test_a_soaked_server_answers_like_a_fresh_one(tmp_path: Path):
    result = soak(20, 0, tmp_path)
    assert not result.problems
    assert result.counted.total() == 20
    assert result.counted["made"] >= 5 and result.counted["refused by a sentence"]
    assert result.disturbed.total() >= 3


OURS = '  File "/c/custom_nodes/moa-attention/nodes/prompt.py", line 1, in execute\n'
THEIRS = '  File "/c/comfy/model_base.py", line 1, in apply_model\n'


@pytest.mark.parametrize(
    ("kind", "message", "place", "refusal"),
    [
        ("ValueError", "The region is empty. Paint one.", OURS, True),
        ("comfyui_moa.errors.StoredFileError", "'a' is damaged.\n", OURS, True),
        ("ValueError", "The region is empty. Paint one.", THEIRS, False),
        ("KeyError", "'layers'.", OURS, False),
        ("ValueError", "not enough values to unpack", OURS, False),
    ],
)
def test_only_our_sentences_are_refusals(kind: str, message: str, place: str, refusal: bool):
    error = {"node_type": "ApplyMoA", "exception_type": kind, "exception_message": message, "traceback": ["x", place]}
    assert (judged_error(error) == "refused by a sentence") == refusal


def test_memory_that_is_kept_is_growth_and_one_high_reading_is_not():
    assert Result(mebibytes=[700, 701, 753, 702, 707]).growth == pytest.approx(0.0029, abs=1e-4)
    assert Result(mebibytes=[700, 710, 720, 730, 740]).growth == pytest.approx(0.0286, abs=1e-4)
