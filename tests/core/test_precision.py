"""bfloat16 is used where the device computes it fast, and only there."""

from __future__ import annotations

import pytest
import torch

from moa_attention.training.precision import has_fast_bfloat16, mixed_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_that_emulates_bfloat16_computes_in_float32(native: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert has_fast_bfloat16(CPU) == native
    with mixed_precision(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)


def test_a_release_that_cannot_tell_computes_in_float32_on_cpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert not has_fast_bfloat16(CPU) and has_fast_bfloat16(torch.device("cuda"))


def test_an_enclosing_autocast_is_switched_off_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    with mixed_precision(CPU), mixed_precision(CPU, wanted=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with mixed_precision(torch.device("meta")):
        assert not torch.is_autocast_enabled("cpu")
