"""An adapter straight from training, in the host's own division of work among several devices.

The second device is the CPU under another index: everything but the transfer runs as with two GPUs.
"""

from __future__ import annotations

import comfy.model_management
import comfy.multigpu
import pytest
import subjects
import torch
from comfyui_moa.nodes.host.model.patch import KEY
from comfyui_moa.nodes.host.training.run import for_sampling
from comfyui_moa.nodes.sockets import LoadedAdapter

SECOND = torch.device("cpu", 1)


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [torch.device("cpu"), SECOND]
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: list(both))


@pytest.fixture(scope="module")
def family() -> subjects.Family:
    made = subjects.make_family("sd15")
    trained = made.adapter.patcher.model.float()
    made.adapter = LoadedAdapter(for_sampling(trained), "fresh from training", subjects.ENCODER)
    return made


def test_a_trained_adapter_is_made_again_with_weights_of_its_own(family: subjects.Family):
    first = family.adapter.patcher
    again = first.deepclone_multigpu(new_load_device=SECOND)
    assert again.model is not first.model and again.load_device == SECOND
    weights, copies = first.model.state_dict(), again.model.state_dict()
    assert weights.keys() == copies.keys() and all(torch.equal(weights[name], copies[name]) for name in weights)
    assert not {t.data_ptr() for t in weights.values()} & {t.data_ptr() for t in copies.values()}
    once_more = again.cached_patcher_init
    assert once_more[0](*once_more[1], disable_dynamic=True).model.state_dict().keys() == weights.keys()


def test_two_devices_give_the_picture_of_one(family: subjects.Family, two_devices: None):
    prompt = family.prompt(subjects={4: 11})
    with subjects.one_by_one(family.model):
        alone = family.sample(family.attach(), prompt)
        plain = family.sample(family.model, family.prompt())
    divided = comfy.multigpu.create_multigpu_deepclones(family.attach(), 2)
    (clone,) = divided.get_additional_models_with_key("multigpu")
    (copied,) = clone.get_additional_models_with_key(KEY)
    assert clone.load_device == copied.load_device == SECOND
    assert copied.model is not family.adapter.patcher.model
    with subjects.counted_calls(family.model) as here, subjects.counted_calls(clone) as there:
        both = family.sample(divided, prompt)
    assert len(here) == len(there) > 0
    assert torch.equal(both, alone) and subjects.difference(alone, plain) > 1e-3
