"""Tiny models of transformers, trained for one task in seconds and saved in folders as published models are.

Their data: boxes on grey; a red box is a man, a blue one a woman.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
)

SIDE = 128
COLOURS = {"man": (200, 40, 40), "woman": (40, 40, 200)}
SMALL = {"height": 32, "width": 32}


def boxes(nouns: list[str], seed: int = 0) -> tuple[Image.Image, list[np.ndarray]]:
    """People from left to right, and where each is, (SIDE,SIDE) bool."""
    chance = np.random.default_rng(seed)
    pixels, masks = np.full((SIDE, SIDE, 3), 128, np.uint8), []
    for place, noun in enumerate(nouns):
        left, top = 8 + 62 * place + int(chance.integers(0, 8)), 30 + int(chance.integers(0, 20))
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top:120, left : left + 44] = True
        pixels[mask] = COLOURS[noun]
        masks.append(mask)
    return Image.fromarray(pixels), masks


def caption(nouns: list[str]) -> str:
    return " and ".join(f"a {noun}" for noun in nouns) + " in a grey room"


CASES = [["man"], ["woman"], ["man", "woman"], ["woman", "man"]]


def fit(model: torch.nn.Module, loss: Callable[[int], Tensor], steps: int, rate: float = 3e-3) -> None:
    optimiser = torch.optim.AdamW(model.train().parameters(), rate)
    for step in range(steps):
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def captioner(folder: Path) -> Path:
    """A captioning model that names the subjects from left to right."""
    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({w for nouns in CASES for w in caption(nouns).split()}),
    ]
    tokenizer = BertTokenizer({word: number for number, word in enumerate(words)})
    processor = BlipProcessor(BlipImageProcessor(size=SMALL), tokenizer)
    size = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**size, **ends, "vocab_size": len(words), "max_position_embeddings": 32, "encoder_hidden_size": 48},
        vision_config={**size, "image_size": 32, "patch_size": 8},
    )  # fmt: skip
    model = BlipForConditionalGeneration(config)
    drawn = [(boxes(nouns, seed)[0], caption(nouns)) for seed in range(16) for nouns in CASES]
    images, texts = zip(*drawn, strict=True)
    inputs = processor(images=list(images), text=list(texts), padding=True, return_tensors="pt")
    fit(model, lambda _: model(**inputs, labels=inputs["input_ids"]).loss, 250)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def segmenter(folder: Path) -> Path:
    """A segmenter of persons, all of them in one class."""
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 24], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=24, drop_path_rate=0.0,
        classifier_dropout_prob=0.0, id2label={0: "wall", 1: "person"}, label2id={"wall": 0, "person": 1},
    )  # fmt: skip
    model, processor = (
        SegformerForSemanticSegmentation(config),
        SegformerImageProcessor(size={"height": 128, "width": 128}),
    )
    drawn = [boxes(nouns, seed) for seed, nouns in enumerate(CASES)]
    inputs = processor(
        [image for image, _ in drawn], [np.sum(m, axis=0).astype(np.uint8) for _, m in drawn], return_tensors="pt"
    )
    fit(model, lambda _: model(**inputs).loss, 60)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def instance_segmenter(folder: Path) -> Path:
    """A segmenter of single persons."""
    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=64, num_queries=4,
        train_num_points=1024, id2label={0: "wall", 1: "person"}, label2id={"wall": 0, "person": 1},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    processor = Mask2FormerImageProcessor(size={"height": SIDE, "width": SIDE})
    drawn = [boxes(nouns, seed) for seed in range(4) for nouns in CASES]
    numbers = [
        np.max([np.full((SIDE, SIDE), 0), *(n * m for n, m in enumerate(masks, 1))], axis=0) for _, masks in drawn
    ]
    kinds = [{0: 0, **{n: 1 for n in range(1, len(masks) + 1)}} for _, masks in drawn]
    inputs = processor([image for image, _ in drawn], numbers, instance_id_to_semantic_id=kinds, return_tensors="pt")

    def loss(step: int) -> Tensor:
        part = slice(step % 4 * 4, step % 4 * 4 + 4)
        return model(
            pixel_values=inputs["pixel_values"][part], mask_labels=inputs["mask_labels"][part], class_labels=inputs["class_labels"][part]
        ).loss  # fmt: skip

    fit(model, loss, 320, 2e-3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def clip(folder: Path, vocabulary: Path) -> Path:
    """A CLIP model trained on two plain colours: a man is red, a woman blue."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(vocabulary)
    processor = CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SMALL), tokenizer)
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "projection_dim": 16,
    }
    config = CLIPConfig(text_config=size, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16)
    model = CLIPModel(config)
    texts, images = (
        [f"a photo of a {noun}" for noun in COLOURS],
        [Image.new("RGB", (64, 64), c) for c in COLOURS.values()],
    )
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    fit(model, lambda _: model(**inputs, return_loss=True).loss, 30, 1e-3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
