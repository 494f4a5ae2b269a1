"""The three losses against their formulas, written out in loops."""

import pytest
import torch
from torch import Tensor

from moa_attention.method.attention import attention_probabilities, resize, subject_attention
from moa_attention.method.layer import Routing
from moa_attention.method.losses import masked_reconstruction, object_loss, prior_map, router_loss


def routing(grid: tuple[int, int], rows: int = 2, width: int = 16, tokens: int = 6) -> Routing:
    pixels = grid[0] * grid[1]
    personal = torch.sigmoid(3 * torch.randn(rows, pixels))
    return Routing(personal, torch.randn(rows, pixels, width), torch.randn(rows, tokens, width), grid)


def average(maps: list[Routing], grid: tuple[int, int]) -> Tensor:
    """R̄ of the router loss."""
    return torch.stack([prior_map(m, grid) for m in maps]).mean(0)


def test_reconstruction_counts_inside_the_mask_only():
    prediction, target = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 6, 5)
    mask = (torch.rand(2, 1, 6, 5) > 0.5).float()
    expected = sum(
        float((mask[b, 0] * (target[b, c] - prediction[b, c])).square().sum()) for b in range(2) for c in range(4)
    ) / (2 * 4 * 6 * 5)
    assert float(masked_reconstruction(prediction, target, mask)) == pytest.approx(expected, abs=1e-5)
    outside = prediction + 9 * (1 - mask)
    assert torch.equal(masked_reconstruction(outside, target, mask), masked_reconstruction(prediction, target, mask))


def test_router_loss_agrees_with_its_formula():
    maps = [routing((6, 4)), routing((6, 4)), routing((6, 4))]
    mask = torch.rand(2, 1, 6, 4)
    leaked = missed = 0.0
    for b in range(2):
        mean = sum(1 - m.personal[b].reshape(6, 4) for m in maps) / 3
        leaked += float(((1 - mask[b, 0]) * (1 - mean)).square().sum()) / 2
        missed += float((mask[b, 0] * mean).square().sum()) / 2
    scale = 4096 / 24  # 24 pixels count as 64 × 64
    assert float(router_loss(average(maps, (6, 4)), mask)) == pytest.approx(scale * leaked, rel=1e-5)
    assert float(router_loss(average(maps, (6, 4)), mask, 0.5)) == pytest.approx(
        scale * (leaked + 0.5 * missed), rel=1e-5
    )


def test_router_loss_is_the_papers_sum_at_64_and_the_same_at_every_resolution():
    mean, mask = torch.rand(2, 1, 64, 64), (torch.rand(2, 1, 64, 64) > 0.5).float()
    loss = router_loss(mean, mask, 0.5)
    leaked, missed = (1 - mask) * (1 - mean), mask * mean
    assert torch.equal(loss, (leaked.square() + 0.5 * missed.square()).sum(dim=(1, 2, 3)).mean())
    for factor in (2, 4):
        fine_mean, fine_mask = (x.repeat_interleave(factor, 2).repeat_interleave(factor, 3) for x in (mean, mask))
        assert float(router_loss(fine_mean, fine_mask, 0.5)) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(("pixels", "weight"), [(256, 3e-3), (4096, 3e-4)])
def test_a_weight_of_the_former_sum_divided_by_its_scale_gives_the_same_bits(pixels: int, weight: float):
    side = round(pixels**0.5)
    mean, mask = torch.rand(3, 1, side, side), torch.rand(3, 1, side, side)
    summed = ((1 - mask) * (1 - mean)).square().sum(dim=(1, 2, 3)).mean()
    assert torch.equal(weight * pixels / 4096 * router_loss(mean, mask), weight * summed)


def test_layers_are_averaged_before_they_are_squared():
    """Two layers that disagree cancel: 1/|L| stands inside the norm."""
    half = routing((2, 2), rows=1)
    sure = half._replace(personal=torch.zeros(1, 4))
    never = half._replace(personal=torch.ones(1, 4))
    background, both = torch.zeros(1, 1, 2, 2), average([sure, never], (2, 2))
    assert float(router_loss(both, background)) == pytest.approx(4096 * 0.25)
    assert float(router_loss(both, torch.ones(1, 1, 2, 2))) == 0
    assert float(router_loss(average([never], (2, 2)), background)) == pytest.approx(4096.0)


def test_layers_of_different_grids_count_alike():
    fine, coarse = routing((8, 4)), routing((4, 2))
    mean = average([fine, coarse], (4, 2))
    assert mean.shape == (2, 1, 4, 2)
    shrunk = resize((1 - fine.personal).reshape(2, 1, 8, 4), (4, 2))
    torch.testing.assert_close(mean, (shrunk + (1 - coarse.personal).reshape(2, 1, 4, 2)) / 2)
    assert float(shrunk.mean()) == pytest.approx(float((1 - fine.personal).mean()), abs=0.03)


def reference_object_loss(r: Routing, heads: int, slots: Tensor, masks: Tensor) -> float:
    """mean(background of A_s) − mean(A_s on s), per head; masks of 0 and 1 on the layer's own grid."""
    probabilities, rows = attention_probabilities(r.query, r.key, heads), []
    for b in range(len(slots)):
        terms = []
        for s in range(masks.shape[1]):
            if masks[b, s].sum() == 0:
                continue
            inside = masks[b, s].flatten() > 0
            for head in range(heads):
                attention = probabilities[b, head][:, slots[b] == s + 1].sum(-1)
                terms.append(float(attention[~inside].mean() - attention[inside].mean()))
        rows.append(sum(terms) / len(terms))
    return sum(rows) / len(rows)


def masks_and_slots() -> tuple[Tensor, Tensor]:
    masks = torch.zeros(2, 2, 6, 4)
    masks[:, 0, 1:3, 1:3] = 1
    masks[0, 1, 4:, :] = 1
    slots = torch.tensor([[0, 1, 0, 2, 0, 1], [0, 0, 1, 0, 0, 0]])
    return masks, slots


def test_object_loss_agrees_with_its_formula():
    masks, slots = masks_and_slots()
    layer = routing((6, 4))
    expected = reference_object_loss(layer, 4, slots, masks)
    assert float(object_loss(layer, 4, slots, masks)) == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-4


def test_rows_without_subjects_have_no_object_loss():
    masks, slots = masks_and_slots()
    layer = routing((6, 4))
    assert float(object_loss(layer, 4, torch.full_like(slots, -1), masks)) == 0
    assert float(object_loss(layer, 4, slots, torch.zeros_like(masks))) == 0


def test_object_loss_rewards_attention_to_the_token_inside_the_mask():
    masks, slots = masks_and_slots()
    r = routing((6, 4), width=2)
    key = torch.zeros(2, 6, 2)
    key[0, [1, 5], 0], key[0, 3, 1], key[1, 2, 0] = 4.0, 4.0, 4.0
    query = 8 * masks.flatten(2).transpose(1, 2)
    right = object_loss(r._replace(query=query, key=key), 1, slots, masks)
    wrong = object_loss(r._replace(query=query.flip(-1), key=key), 1, slots, masks)
    assert right < -0.3
    assert wrong > right + 0.2


def test_a_repeated_context_gives_a_subject_the_same_attention():
    r = routing((6, 4), tokens=5)
    twice = r._replace(key=r.key.repeat(1, 2, 1))
    slots = torch.tensor([[0, 1, 0, 0, 0]]).expand(2, -1)
    once = subject_attention(r.query, r.key, slots, 1, 4)
    assert once.shape == (2, 1, 4, 24)
    torch.testing.assert_close(subject_attention(twice.query, twice.key, slots.repeat(1, 2), 1, 4), once)


def test_gradients_reach_router_and_keys():
    masks, slots = masks_and_slots()
    r = routing((6, 4))
    for tensor in (r.personal, r.query, r.key):
        tensor.requires_grad_(True)
    loss = router_loss(average([r], (6, 4)), masks.amax(1, keepdim=True)) + object_loss(r, 4, slots, masks)
    loss.backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (r.personal, r.query, r.key))
