"""Which token a word is, by the host's real tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.sd
import host
import pytest
import subjects
import torch
from comfyui_moa.nodes.host.prompts import conditioning, prompt_words
from comfyui_moa.nodes.host.prompts.payload_names import FIRST
from comfyui_moa.nodes.prompt import MoATextEncode
from comfyui_moa.nodes.sockets import Subject
from safetensors.torch import save_file

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
    [binding] = conditioning.bind(clip, prompt, clip.tokenize(prompt), [subject(word, occurrence)])
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


@pytest.mark.parametrize(
    ("prompt", "word", "neighbours"),
    [
        ("a salaryman beside a man", "man", "salaryman beside a [man]"),
        ("a strongman, a cavewoman and a woman", "woman", "cavewoman and a [woman]"),
        ("a strongman, a catgirl, a foxgirl and a girl in red", "girl", "foxgirl and a [girl] in red"),
        ("1girl, solo", "girl", "1 [girl] , solo"),
        ("1girl, solo", "1girl", "1 [girl] , solo"),
        ("a man-child with a spider-man", "man", "a [man] - child with"),
        ("a man-child with a spider-man", "spider-man", "a spider - [man]"),
        ("a tall-man's man", "man", "a tall - [man] 's man"),
        ("a_man", "man", "a _ [man]"),
        ("a 男 man", "man", "a 男 [man]"),
        ("a salaryman on a beach", "salaryman", "a [salaryman] on a beach"),
    ],
)
def test_only_whole_words_are_taken_and_shown(clip: comfy.sd.CLIP, prompt: str, word: str, neighbours: str):
    _, report = MoATextEncode.execute(clip, prompt, {"subject_0": subject(word)}).result
    assert report.splitlines()[1].endswith(f": {neighbours}")


@pytest.mark.parametrize(
    "case", json.loads((Path(__file__).parents[1] / "prompt_words.json").read_text("utf-8")), ids=str
)
def test_words_are_found_as_the_page_finds_them(clip: comfy.sd.CLIP, case: dict[str, Any]):
    text, word = case["prompt"], case["word"]
    found = prompt_words.Prompt(clip, clip.tokenize(text)).find(prompt_words.word_tokens(clip, word))
    assert len(found) == case["occurrences"]
    if case["near"]:
        assert prompt_words.near_misses(text, word)[0] == case["near"]
        with pytest.raises(ValueError, match=f"for example to '{case['near']}'"):
            position(clip, text, word)


def test_a_refusal_names_the_longer_word(clip: comfy.sd.CLIP):
    with pytest.raises(ValueError, match="does not occur as a word of its own, but inside 'salaryman' and 'strongman'"):
        position(clip, "a salaryman, a strongman, a salaryman", "man")
    with pytest.raises(ValueError, match=r"occurs 1 time\(s\) as a word of its own, but inside 'strongman'"):
        position(clip, "a strongman beside a man", "man", 2)


def test_a_textual_inversion_is_a_word(clip: comfy.sd.CLIP, tmp_path: Path):
    """Bound to the last of its vectors, as a word to the last of its pieces."""
    widths = {
        name: getattr(clip.tokenizer, name).embedding_size
        for name in ("clip_l", "clip_g")
        if hasattr(clip.tokenizer, name)
    }
    for name in widths:
        getattr(clip.tokenizer, name).embedding_directory = str(tmp_path)
    for file, seed in (("hero", 1), ("villain", 2)):
        make = torch.Generator().manual_seed(seed)
        save_file(
            {name: torch.randn(3, width, generator=make) for name, width in widths.items()},
            tmp_path / f"{file}.safetensors",
        )
    prompt = "a photo of embedding:villain and embedding:hero on a beach"
    place = position(clip, prompt, "embedding:hero")
    assert [token for token, *_ in clip.tokenize(prompt)["l"][0]][place + 1] == vocabulary_ids(clip, "on")[0]
    assert position(clip, prompt, "embedding:villain") == place - 4
    assert position(clip, prompt, "beach") == place + 3
    with pytest.raises(ValueError, match="does not occur"):
        position(clip, "a photo of embedding:villain", "embedding:hero")
    with pytest.raises(ValueError, match="no token in the word 'embedding:missing', and no file of such an embedding"):
        position(clip, prompt, "embedding:missing")


def vocabulary_ids(clip: Any, word: str) -> list[int]:
    """The ids of a word, by the tokenizer itself."""
    return [clip.tokenizer.clip_l.tokenizer.get_vocab()[f"{word}</w>"]]


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
    encoded, [binding] = conditioning.encode_prompt(clip, prompt, [subject("man")])
    context, _ = encoded[0]
    assert binding.position == place < context.shape[1] == 2 * SUBJECT_CHUNK
    slots = conditioning.payload(context.bindings, context.shape[1])[FIRST.slots].cond
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
    [binding] = conditioning.bind(clip, prompt, tokens, [subject("man")])
    assert binding.position == before + 2


def test_encoding_is_the_hosts_own(clip: comfy.sd.CLIP):
    [[context, extra]] = host.encode(clip, "a man and a woman")
    [[ours, ours_extra]], bindings = conditioning.encode_prompt(
        clip, "a man and a woman", [subject("woman", seed=3), subject("man")]
    )
    assert torch.equal(ours, context)
    assert {k: v for k, v in ours_extra.items() if k in extra}.keys() == extra.keys()
    conds = conditioning.payload(ours.bindings, ours.shape[1])
    slots = conds[FIRST.slots].cond.flatten()
    assert [int(slots[b.position]) for b in bindings] == [1, 2]
    assert int(slots.count_nonzero()) == 2
    features = conds[FIRST.features].cond
    assert torch.equal(features, torch.stack([subjects.picture(3)[0], subjects.picture(1)[0]])[None])


def test_without_subjects_it_is_clip_text_encode(clip: comfy.sd.CLIP):
    [[context, extra]] = host.encode(clip, "a man")
    [[ours, ours_extra]], bindings = conditioning.encode_prompt(clip, "a man", [])
    assert torch.equal(ours, context)
    assert ours_extra.keys() == extra.keys()
    assert bindings == []


@pytest.mark.parametrize(
    ("prompt", "words", "message"),
    [
        ("a woman on a beach", [("man", 1)], "'man'.*does not occur.*'a woman on a beach'.*change it"),
        ("a man on a beach", [("man", 2)], r"occurrence 2.*1 time\(s\)"),
        ("a man", [("man", 1), ("man", 1)], "same 'man'.*'occurrence' to 2"),
        ("a golden dog", [("dog", 1), ("golden dog", 1)], "same 'golden dog'"),
        ("", [("man", 1)], "does not occur"),
        ("a man", [("()", 1)], "no token in the word"),
    ],
)
def test_refusals(clip: comfy.sd.CLIP, prompt: str, words: list[tuple[str, int]], message: str):
    with pytest.raises(ValueError, match=message):
        conditioning.encode_prompt(clip, prompt, [subject(*word) for word in words])


def test_subjects_of_two_adapters_may_have_one_word(clip: comfy.sd.CLIP):
    both = [subject("man", encoder="a"), subject("man", encoder="b")]
    _, bindings = conditioning.encode_prompt(clip, "a man and a woman", both)
    assert [(b.subject.encoder, b.position) for b in bindings] == [("a", 2), ("b", 2)]


def test_the_report_names_subjects_and_tokens(clip: comfy.sd.CLIP):
    prompt = "a man and a woman"
    given = {"subject_0": subject("man"), "subject_1": None, "subject_2": subject("woman")}
    _, report = MoATextEncode.execute(clip, prompt, given).result
    man, woman = position(clip, prompt, "man"), position(clip, prompt, "woman")
    assert report.splitlines() == [
        "'a man and a woman'",
        f"subject 1: 'man' → token {man}: a [man] and a woman",
        f"subject 2: 'woman' → token {woman}: man and a [woman]",
    ]
    assert MoATextEncode.execute(clip, prompt).result[1].splitlines() == ["'a man and a woman'", "no subjects"]


def test_no_clip_is_refused():
    with pytest.raises(ValueError, match="no text encoder"):
        MoATextEncode.execute(None, "a man")
