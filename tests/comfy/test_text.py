"""Which token a word is, by the host's real tokenizers."""

from __future__ import annotations

from typing import Any

import comfy.sd
import host
import pytest
import subjects
import torch
from comfyui_moa.nodes import text
from comfyui_moa.nodes.prompt import MoATextEncode
from comfyui_moa.nodes.sockets import Subject

SUBJECT_CHUNK = 77


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def clip(request: pytest.FixtureRequest) -> comfy.sd.CLIP:
    return host.sd15_clip() if request.param == "sd15" else host.sdxl_clip()


def subject(word: str, occurrence: int = 1, seed: int = 1, encoder: str = subjects.ENCODER) -> Subject:
    return Subject(word, occurrence, subjects.picture(seed), encoder)


def pieces(clip: Any, prompt: str) -> list[str]:
    """The prompt's tokens as text, by position in the context: an independent reading of the vocabulary."""
    vocabulary = {number: piece for piece, number in clip.tokenizer.clip_l.tokenizer.get_vocab().items()}
    return [vocabulary[token] for chunk in clip.tokenize(prompt)["l"] for token, *_ in chunk]


def position(clip: Any, prompt: str, word: str, occurrence: int = 1) -> int:
    [binding] = text.bind(clip, prompt, clip.tokenize(prompt), [subject(word, occurrence)])
    return binding.position


@pytest.mark.parametrize(
    ("prompt", "word", "piece"),
    [
        ("a man on a beach", "man", "man</w>"),
        ("a photo of a (man:1.2) on a beach", "man", "man</w>"),
        ("((man)), smiling", "man", "man</w>"),
        ("a woman, a man.", "man", "man</w>"),
        ("man", "man", "man</w>"),
        ("A MAN on a beach", "man", "man</w>"),
        ("a man on a beach", "Man", "man</w>"),
        ("a man's hat", "man", "man</w>"),
        ("a golden retriever in the snow", "golden retriever", "retriever</w>"),
        (r"a man \(tall\) in snow", "snow", "snow</w>"),
    ],
)
def test_a_word_is_found_at_its_last_token(clip: comfy.sd.CLIP, prompt: str, word: str, piece: str):
    place = position(clip, prompt, word)
    assert pieces(clip, prompt)[place] == piece


def test_a_word_of_several_tokens_sits_on_its_last(clip: comfy.sd.CLIP):
    found = pieces(clip, "a photo of xqzvylk outside")
    place = position(clip, "a photo of xqzvylk outside", "xqzvylk")
    assert found[place + 1] == "outside</w>"
    assert found[place].endswith("</w>") and not found[place - 1].endswith("</w>")


def test_a_word_inside_another_does_not_count(clip: comfy.sd.CLIP):
    assert pieces(clip, "a woman and a man")[position(clip, "a woman and a man", "man")] == "man</w>"
    with pytest.raises(ValueError, match="does not occur"):
        position(clip, "a woman and a snowman", "man")


def test_occurrences_are_counted(clip: comfy.sd.CLIP):
    prompt = "a man and a man and a man"
    places = [position(clip, prompt, "man", n) for n in (1, 2, 3)]
    assert places == [i for i, piece in enumerate(pieces(clip, prompt)) if piece == "man</w>"]


def test_weights_move_no_position(clip: comfy.sd.CLIP):
    assert position(clip, "a (tall:0.5) (man:1.3) here", "man") == position(clip, "a tall man here", "man")


def test_the_second_chunk(clip: comfy.sd.CLIP):
    prompt = "red, " * 45 + "a man on a beach, " + "blue, " * 10
    place = position(clip, prompt, "man")
    assert place > SUBJECT_CHUNK
    assert pieces(clip, prompt)[place] == "man</w>"
    conditioning, [binding] = text.encode_prompt(clip, prompt, [subject("man")])
    context, extra = conditioning[0]
    assert binding.position == place < context.shape[1] == 2 * SUBJECT_CHUNK
    slots = extra["model_conds"][text.SLOTS].cond
    assert slots.shape == (1, 2 * SUBJECT_CHUNK, 1)
    assert slots.flatten().nonzero().flatten().tolist() == [place]


def test_tensor_tokens_are_skipped(clip: comfy.sd.CLIP):
    """A textual inversion's vectors stand among the tokens as tensors."""
    prompt = "a photo of a man on a beach"
    tokens = {encoder: [list(chunk) for chunk in chunks] for encoder, chunks in clip.tokenize(prompt).items()}
    before = position(clip, prompt, "man")
    for chunks in tokens.values():
        chunks[0][2:2] = [(torch.randn(8), 1.0), (torch.randn(8), 1.0)]
        del chunks[0][SUBJECT_CHUNK:]
    [binding] = text.bind(clip, prompt, tokens, [subject("man")])
    assert binding.position == before + 2


def test_encoding_is_the_hosts_own(clip: comfy.sd.CLIP):
    [[context, extra]] = host.encode(clip, "a man and a woman")
    [[ours, ours_extra]], bindings = text.encode_prompt(
        clip, "a man and a woman", [subject("woman", seed=3), subject("man")]
    )
    assert torch.equal(ours, context)
    assert {k: v for k, v in ours_extra.items() if k in extra}.keys() == extra.keys()
    slots = ours_extra["model_conds"][text.SLOTS].cond.flatten()
    assert [int(slots[b.position]) for b in bindings] == [1, 2]
    assert int(slots.count_nonzero()) == 2
    features = ours_extra["model_conds"][text.FEATURES].cond
    assert torch.equal(features, torch.stack([subjects.picture(3)[0], subjects.picture(1)[0]])[None])


def test_without_subjects_it_is_clip_text_encode(clip: comfy.sd.CLIP):
    [[context, extra]] = host.encode(clip, "a man")
    [[ours, ours_extra]], bindings = text.encode_prompt(clip, "a man", [])
    assert torch.equal(ours, context)
    assert ours_extra.keys() == extra.keys()
    assert bindings == []


@pytest.mark.parametrize(
    ("prompt", "words", "message"),
    [
        ("a woman on a beach", [("man", 1)], "'man'.*does not occur.*'a woman on a beach'.*change the word"),
        ("a man on a beach", [("man", 2)], r"occurrence 2.*1 time\(s\)"),
        ("a man", [("man", 1), ("man", 1)], "same 'man'.*'occurrence' to 2"),
        ("a golden dog", [("dog", 1), ("golden dog", 1)], "same 'golden dog'"),
        ("", [("man", 1)], "does not occur"),
        ("a man", [("()", 1)], "no word"),
    ],
)
def test_refusals(clip: comfy.sd.CLIP, prompt: str, words: list[tuple[str, int]], message: str):
    with pytest.raises(ValueError, match=message):
        text.encode_prompt(clip, prompt, [subject(*word) for word in words])


def test_subjects_of_two_adapters_are_refused(clip: comfy.sd.CLIP):
    with pytest.raises(ValueError, match=r"different adapters: \['a', 'b'\]"):
        text.encode_prompt(clip, "a man and a woman", [subject("man", encoder="a"), subject("woman", encoder="b")])


def test_the_report_names_subjects_and_tokens(clip: comfy.sd.CLIP):
    prompt = "a man and a woman"
    given = {"subject_0": subject("man"), "subject_1": None, "subject_2": subject("woman")}
    _, report = MoATextEncode.execute(clip, prompt, given).result
    man, woman = position(clip, prompt, "man"), position(clip, prompt, "woman")
    assert report.splitlines() == [
        "'a man and a woman'",
        f"subject 1: 'man' → token {man}",
        f"subject 2: 'woman' → token {woman}",
    ]
    assert MoATextEncode.execute(clip, prompt).result[1].splitlines() == ["'a man and a woman'", "no subjects"]


def test_no_clip_is_refused():
    with pytest.raises(ValueError, match="no text encoder"):
        MoATextEncode.execute(None, "a man")
