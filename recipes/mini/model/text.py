"""The text encoder in training: the host's SD1 CLIP, made differentiable and with a reduced vocabulary.

Captions use some thirty of 49,408 tokens. Only those have a row of their own in the token table. All others share one row,
which learns to mean any word because a caption's tokens are randomly replaced by it.
"""

import comfy.sd1_clip
import torch
from comfy.clip_model import CLIPLayer, CLIPTextModel_
from comfy.ldm.modules.attention import optimized_attention_for_device
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....nodes.host.files.mini_files import TOKEN_IDS, TOKEN_TABLE, VOCABULARY
from ....nodes.host.model.mini import TEXT_CONFIG, build_text_model
from .session import initialise

PADDING = 49407
UNKNOWN_RATE = 0.02


class TokenTable(nn.Module):
    """Embeddings `[n + 1, width]` of the tokens `ids` `[n]`; every other token has the last row."""

    ids: Tensor
    rows: Tensor

    def __init__(self, ids: Tensor, width: int) -> None:
        super().__init__()
        rows = torch.full((VOCABULARY,), len(ids))
        rows[ids] = torch.arange(len(ids))
        self.weight = nn.Parameter(torch.randn(len(ids) + 1, width) * 0.1)
        self.register_buffer("ids", ids)
        self.register_buffer("rows", rows)

    def forward(self, tokens: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
        """`[..., width]` of host token ids; `out_dtype` is part of the host's signature."""
        rows = self.rows[tokens]
        if self.training:
            swap = (torch.rand(tokens.shape, device=tokens.device) < UNKNOWN_RATE) & (tokens < PADDING - 1)
            rows = rows.masked_fill(swap, len(self.ids))
        return functional.embedding(rows, self.weight)


def tokenise(captions: list[str]) -> Tensor:
    """`[captions, 77]` token ids of the host's tokenizer."""
    tokenizer = comfy.sd1_clip.SD1Tokenizer()
    return torch.tensor([[token for token, _ in tokenizer.tokenize_with_weights(c)["l"][0]] for c in captions])


def new_text_model(ids: Tensor, operations: type) -> nn.Module:
    """The host's text encoder with fresh weights and a table of `ids` only."""
    model = build_text_model(operations)
    initialise(model)
    embeddings = text_transformer(model).embeddings
    embeddings.token_embedding = TokenTable(ids, TEXT_CONFIG["hidden_size"])
    nn.init.normal_(embeddings.position_embedding.weight, std=0.02)
    return model.requires_grad_(True)


def text_transformer(model: nn.Module) -> CLIPTextModel_:
    """The host's transformer inside its text encoder."""
    transformer = model.get_submodule("clip_l.transformer.text_model")
    assert isinstance(transformer, CLIPTextModel_)
    return transformer


def token_table(model: nn.Module) -> TokenTable:
    """The reduced table inside a text encoder in training."""
    table = text_transformer(model).embeddings.token_embedding
    assert isinstance(table, TokenTable)
    return table


def encode_text(model: nn.Module, tokens: Tensor) -> Tensor:
    """`[B, 77, width]`, as the host computes it, without its in-place sums, which autograd rejects."""
    text = text_transformer(model)
    attention = optimized_attention_for_device(tokens.device, mask=True, small_input=True)
    masked = -torch.finfo(torch.float32).max
    mask = torch.full((tokens.shape[1],) * 2, masked, device=tokens.device).triu_(1)
    x = text.embeddings(tokens)
    with sdpa_kernel(SDPBackend.MATH):  # so few tokens train several times faster by two plain products
        for layer in text.encoder.layers:
            assert isinstance(layer, CLIPLayer)
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attention)
            x = x + layer.mlp(layer.layer_norm2(x))
    return text.final_layer_norm(x)


def text_weights(model: nn.Module) -> dict[str, Tensor]:
    """The contents of `clip.safetensors`: the host's keys, the short table and the ids of its rows."""
    weights = dict(model.state_dict())
    folder = TOKEN_TABLE.removesuffix("weight")
    weights.pop(folder + "rows")
    ids = weights.pop(folder + "ids")
    return {**weights, TOKEN_IDS: ids.to(torch.int32)}
