"""The part of the share that each subject has."""

from __future__ import annotations

import pytest
import torch
from routed import WHOLE, call_info, spec

from moa_attention.method.attention import subject_attention
from moa_attention.method.layer import Routing
from moa_attention.method.sparse import strongest
from moa_attention.run.listener import CallInfo
from moa_attention.run.subject_parts import LAYERS, SubjectParts, layers_to_read
from moa_attention.run.trace import Trace, average_map

CROSS = spec("output_1_0_attn2", 0, 8, 8, 2, True)
GRID = (4, 6)
SLOTS = torch.tensor([[0, 1, 0, 2, 0]])


def call(**fields: object) -> CallInfo:
    """Subjects 1 and 2 at tokens 1 and 3 of a picture."""
    both = {"slots": SLOTS, "subjects": [[0, 1]], "count": 2, "names": [["man", "woman"]]}
    return call_info(1.0, (WHOLE,), **{**both, **fields})


def routing(**fields: object) -> Routing:
    """Random queries, keys and R_1 of one row."""
    generator = torch.Generator().manual_seed(0)
    query, key = (4 * torch.randn(1, n, 8, generator=generator) for n in (24, 5))
    return Routing(torch.rand(1, 24, generator=generator), query, key, GRID, joint=True)._replace(**fields)


def parts(*routings: Routing, **fields: object) -> torch.Tensor:
    collected = SubjectParts(call(**fields))
    for each in routings:
        collected.observe(CROSS, each)
    found = collected.fix()
    assert found is not None
    return found.float()


def test_attention_to_the_subjects_tokens_divides_the_share():
    one = routing()
    attention = subject_attention(one.query, one.key, SLOTS, 2, CROSS.heads).mean(dim=2)
    expected = (attention / attention.sum(dim=1, keepdim=True)).unflatten(2, GRID)
    torch.testing.assert_close(parts(one), expected, atol=1e-3, rtol=0)


def test_shares_of_their_own_divide_it_too():
    shares = torch.rand(1, 2, 24)
    alone = parts(routing(shares=shares, joint=False))
    torch.testing.assert_close(alone, (shares / shares.sum(dim=1, keepdim=True)).unflatten(2, GRID), atol=1e-3, rtol=0)
    barred = shares.clone()
    barred[:, 1] = 0
    assert torch.equal(parts(routing(shares=barred))[0, 0], torch.ones(GRID))


def test_without_any_weight_the_parts_are_equal():
    assert torch.equal(parts(routing(shares=torch.zeros(1, 2, 24))), torch.full((1, 2, *GRID), 0.5))
    only = parts(routing(shares=torch.zeros(1, 2, 24)), subjects=[[1]])
    assert torch.equal(only[0, :, 0, 0], torch.tensor([0.0, 1.0]))


def test_pixels_that_were_left_to_the_prior_have_equal_parts():
    one = routing()
    chosen = strongest(one.personal, 6)
    sparse = parts(one._replace(query=chosen.take(one.query), chosen=chosen)).flatten(2)
    computed = torch.zeros(24, dtype=torch.bool).index_fill(0, chosen.indices, True)
    torch.testing.assert_close(sparse[..., computed], parts(one).flatten(2)[..., computed], atol=1e-3, rtol=0)
    assert torch.equal(sparse[..., ~computed], torch.full((1, 2, 18), 0.5))


def test_the_finest_grid_of_the_layers_is_kept():
    coarse = routing()._replace(personal=torch.rand(1, 6), query=torch.randn(1, 6, 8), grid=(2, 3))
    for order in ((coarse, routing()), (routing(), coarse)):
        found = parts(*order)
        assert found.shape == (1, 2, *GRID)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(1, *GRID), atol=2e-3, rtol=0)


def test_layers_that_do_not_distinguish_subjects_leave_the_parts_open():
    collected = SubjectParts(call())
    collected.observe(CROSS, routing(joint=False))
    assert collected.fix() is None


@pytest.mark.parametrize("blocks", [1, 3, 40])
def test_few_layers_are_read(blocks: int):
    layers = [spec(f"{stage}_{i}_0_{which}", i, 8, 8, 2, True) for stage in ("input", "output") for i in range(blocks) for which in ("attn1", "attn2")]  # fmt: skip
    read = layers_to_read(layers)
    assert len(read) == min(blocks, LAYERS)
    assert all(name.startswith("output") and name.endswith("attn2") for name in read)


def test_a_row_without_the_subject_has_none_of_its_share():
    trace = Trace((CROSS,))
    rows = call_info(
        1.0, (WHOLE, WHOLE._replace(picture=1)), slots=SLOTS.expand(2, -1), subjects=[[0, 1], [0]], count=2,
        names=[["man", "woman"], ["dog"]],
    )  # fmt: skip
    one = routing()
    two = one._replace(
        **{name: getattr(one, name).expand(2, *getattr(one, name).shape[1:]) for name in ("personal", "query", "key")}
    )
    observe = trace.begin_call(rows)
    assert observe is not None
    observe(CROSS, two)
    trace.end_run()
    assert trace.subjects() == ["man", "woman", "dog"]
    [step] = trace.steps()
    maps = {name: average_map(step, [CROSS.name], 1, GRID, name) for name in trace.subjects()}
    assert not maps["man"].any() and not maps["woman"].any()
