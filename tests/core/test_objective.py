"""The losses of a step around the toy base model: prior consistency, and the layers of the object loss."""

import pytest
import torch
from routed import spec
from torch import Tensor, nn
from toy import config, draw, one_lot, setup

from moa_attention.method.layer import Routing
from moa_attention.training.base import Batch
from moa_attention.training.config import ObjectLayers
from moa_attention.training.objective import LayerLosses, Objective, draw_noise, draw_timesteps


def losses(weight: float, unmasked: float = 0.0) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The loss of a batch, its parts, and the gradients of a random adapter."""
    adapter, base = setup()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.2)
    lot = one_lot()
    batch = draw(lot)
    loss, parts = Objective(adapter, base, config(1, consistency_weight=weight, unmasked=unmasked))(
        batch, lot.generators
    )
    loss.backward()
    return loss.detach(), parts, {name: p.grad for name, p in adapter.named_parameters() if p.grad is not None}


def test_without_a_weight_the_objective_is_the_papers():
    loss, parts, _ = losses(0.0)
    assert "consistency" not in parts
    assert torch.equal(loss, parts["reconstruction"] + 3e-4 * parts["router"] + 1e-3 * parts["object"])


def test_consistency_is_the_distance_to_the_prior_outside_the_masks():
    """Its value against a loop over elements, and the other losses as they are without it."""
    (plain, without, _), (loss, parts, _) = losses(0.0), losses(0.5)
    assert all(torch.equal(parts[name], value) for name, value in without.items())
    adapter, base = setup()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.2)
    lot = one_lot()
    batch = draw(lot)
    sigma = base.sigma_at(draw_timesteps(lot.generators, config(1)))
    noisy = base.add_noise(batch.latents, draw_noise(lot.generators, batch.latents), sigma)
    features = adapter.encode({"pixels": batch.references.flatten(0, 1)}).unflatten(0, batch.references.shape[:2])
    ours = base.denoise(noisy, sigma, batch, features, lambda *_: lambda *_: None)
    prior = base.denoise_alone(noisy, sigma, batch)
    error = (ours.detach() - prior) / sigma[:, None, None, None]
    total = 0.0
    for b in range(len(noisy)):
        outside = batch.masks[b].sum(dim=0) == 0
        for c in range(noisy.shape[1]):
            total += float(error[b, c][outside].square().sum())
    expected = total / noisy.numel()
    assert expected > 1e-4
    assert float(parts["consistency"]) == pytest.approx(expected, rel=1e-4)
    assert float(loss - plain) == pytest.approx(0.5 * expected, rel=1e-3)


def test_consistency_reaches_the_adapter_and_is_zero_for_the_prior_itself():
    gradients, heavier = losses(0.0)[2], losses(5.0)[2]
    name = "layers.middle_0_0_attn2.to_v.weight"
    assert not torch.allclose(gradients[name], heavier[name])
    adapter, base = setup()
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if name.endswith("router.project.bias"):
                parameter.copy_(torch.tensor([1e4, -1e4]))  # R_1 is 0
    lot = one_lot()
    _, parts = Objective(adapter, base, config(1, consistency_weight=1.0))(draw(lot), lot.generators)
    assert float(parts["consistency"]) == 0


@pytest.mark.parametrize(
    ("objects", "expected"),
    [(None, []), ("middle", ["input_4_0_attn2"]), ("all", ["input_1_0_attn2", "input_4_0_attn2"])],
)
def test_the_object_loss_takes_the_layers_that_are_chosen(objects: ObjectLayers | None, expected: list[str]):
    specs = [
        spec(f"{place}_{attention}", depth, 16, 16, 2, supervised)
        for depth, (place, supervised) in enumerate((("input_1_0", False), ("input_4_0", True)))
        for attention in ("attn1", "attn2")
    ]
    empty = torch.zeros(1, 1, 4, 4)
    collected = LayerLosses(Batch(empty, empty, empty, empty, empty), objects)
    assert [s.name for s in specs if collected.has_object_loss(s)] == expected


def test_what_a_recomputed_layer_gives_is_not_kept():
    layer = spec("middle_0_0_attn2", 0, 16, 16, 2, True)
    masks, slots = torch.ones(1, 1, 4, 4), torch.tensor([[0, 1]])
    batch = Batch(torch.zeros(1, 4, 4, 4), torch.zeros(1, 2, 16), slots, torch.zeros(1, 1, 8), masks)
    collected = LayerLosses(batch, "middle")
    kept = []
    for share in (0.25, 0.75):
        query, key = (torch.full((1, count, 16), share) for count in (16, 2))
        collected.observe(layer, Routing(torch.full((1, 16), share), query, key, (4, 4)))
        kept.append((collected.prior_maps[layer.name], collected.objects[layer.name]))
    assert float(collected.average_prior().mean()) == pytest.approx(0.75), "R_0 of the first call"
    assert all(second is first for first, second in zip(*kept, strict=True))
