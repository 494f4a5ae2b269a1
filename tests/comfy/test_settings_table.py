"""One text for each setting: in the config classes, in the documentation's table and in the node."""

from __future__ import annotations

from dataclasses import fields

import pytest
from comfyui_moa.moa_attention.training.config import AdapterConfig, PictureConfig, SheetConfig, TrainConfig
from comfyui_moa.moa_attention.training.field_docs import field_docs
from comfyui_moa.moa_attention.training.rules import rule_of
from comfyui_moa.nodes.train import DEFAULTS, INPUTS, MoATrain
from comfyui_moa.recipes.adapter.overrides import table_fields
from comfyui_moa.recipes.adapter.settings_table import PAGE, TABLES, main, settings_page, settings_table

CLASSES = [kind for name, kind in TABLES.items() if name]


@pytest.mark.parametrize("kind", [*CLASSES, TrainConfig, PictureConfig, AdapterConfig, SheetConfig])
def test_every_setting_is_documented(kind: type):
    docs = field_docs(kind)
    assert [field.name for field in fields(kind) if len(docs.get(field.name, "")) < 10] == []


def test_the_node_takes_texts_and_defaults_from_the_config():
    inputs = {entry.id: entry for entry in MoATrain.GET_SCHEMA().inputs}
    docs = {**field_docs(TrainConfig), **field_docs(AdapterConfig), **field_docs(PictureConfig)}
    assert all(inputs[name].tooltip == docs[name] for name in INPUTS)
    own = {"micro_batch": 0, "side": 512, "seed": 0}
    assert {name: inputs[name].default for name in INPUTS} == {**own, **DEFAULTS}
    assert DEFAULTS == {
        "steps": 2000, "batch_size": 16, "learning_rate": 1e-4, "rank": 64, "checkpointing": True
    }  # fmt: skip
    assert [(inputs[name].min, inputs[name].max) for name in ("learning_rate", "side")] == [(1e-9, 1.0), (64, 2048)]
    assert inputs["side"].step == 64


@pytest.mark.parametrize("kind", [*CLASSES, TrainConfig, PictureConfig, AdapterConfig, SheetConfig])
def test_every_number_has_a_range_that_holds_its_default(kind: type):
    for field in fields(kind):
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert rule_of(field).range() and rule_of(field).allows(field.default), field.name


def test_the_table_has_a_line_for_each_setting(capsys: pytest.CaptureFixture[str]):
    main([])
    printed = capsys.readouterr().out
    for name in TABLES:
        table = settings_table(name)
        assert table in printed
        assert len(table.splitlines()) == 2 + len(table_fields(name))
    assert printed == settings_page()
    assert "### [train]" in printed and "| `batch_size`" in printed and r"<\|image\|>" in printed


def test_the_page_of_the_documentation_is_the_one_that_is_made():
    assert PAGE.read_text(encoding="utf-8") == settings_page()
