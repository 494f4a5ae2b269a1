"""Features of several pictures of one subject: means, and image tokens side by side."""

import math

import pytest
import torch

from moa_attention.method.attention import attend
from moa_attention.subjects.mixing import WIDEST, combine, common_width, repeat_to_common_width


def test_means_are_weighted_and_norm_mean_ignores_lengths():
    one, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 6.0]])
    assert torch.equal(combine([one, other], [1, 1], "mean"), torch.tensor([[1.0, 3.0]]))
    torch.testing.assert_close(combine([one, other], [3, 1], "mean"), torch.tensor([[1.5, 1.5]]))
    norm = combine([one, other], [1, 1], "norm mean")
    torch.testing.assert_close(norm, torch.tensor([[1.0, 1.0]]) / 2**0.5 * 4)
    for mode in ("mean", "norm mean"):
        torch.testing.assert_close(combine([one, other], [2, 0], mode), one)


def test_concat_keeps_all_tokens_in_order():
    one, other = torch.randn(1, 8), torch.randn(1, 4)
    assert torch.equal(combine([one, other], [1, 1], "concat"), torch.cat([one, other], dim=1))


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [math.nan, 1.0], [1.0, math.inf]])
def test_weights_that_are_negative_or_not_finite_and_only_zeros_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="Weights must be 0 or more"):
        combine([torch.ones(1, 2), torch.ones(1, 2)], weights, "mean")


def test_repeated_tokens_change_no_attention():
    torch.manual_seed(0)
    width, query = 8, torch.randn(1, 5, 8)
    short, long = repeat_to_common_width([torch.randn(1, 2 * width), torch.randn(1, 3 * width)])
    assert short.shape == long.shape == (1, 6 * width)
    for repeated in (short, long):
        tokens = repeated.unflatten(1, (6, width))
        count = 2 if repeated is short else 3
        once = tokens[:, :count]
        torch.testing.assert_close(attend(query, tokens, tokens, 2), attend(query, once, once, 2))


def test_a_common_width_that_no_memory_holds_is_refused_before_anything_is_made():
    assert common_width([8, 12]) == 24
    assert common_width([WIDEST]) == WIDEST
    with pytest.raises(ValueError, match=r"features of 65521, 65537 numbers need 4294049777 numbers each"):
        repeat_to_common_width([torch.zeros(1, 65537), torch.zeros(1, 65521)])
    with pytest.raises(ValueError, match=f"allowed are {WIDEST}"):
        combine([torch.zeros(1, 1).expand(1, WIDEST), torch.zeros(1, 1)], [1, 1], "concat")
