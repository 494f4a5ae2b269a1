"""Windows are parts of the schedule that samples, wherever in the workflow it was chosen."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers.base import ConstantRouter
from comfyui_moa.moa_attention.run.budget import AutomaticBudget
from comfyui_moa.moa_attention.run.schedule import Schedule
from comfyui_moa.moa_attention.run.strength import PRIOR_ONLY
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.sockets import Subject, SubjectSettings
from subjects import Family

MAN = {4: 11}
STEPS, WINDOW = 20, (0.3, 0.8)


@pytest.fixture(scope="module")
def family() -> Family:
    return subjects.make_family("sd15")


def sampling(node: str, *args: Any) -> Callable[[Any], Any]:
    made = getattr(importlib.import_module("comfy_extras.nodes_model_advanced"), node)
    return lambda model: made().patch(model, *args)[0]


SCHEDULES = {
    "continuous": sampling("ModelSamplingContinuousEDM", "v_prediction", 120.0, 0.002),
    "zsnr": sampling("ModelSamplingDiscrete", "v_prediction", True),
}


def expected_steps(model: Any) -> int:
    """The steps of the sampler whose noise level lies in the window of the schedule that samples."""
    schedule = model.get_model_object("model_sampling")
    first, last = (schedule.percent_to_sigma(percent) for percent in WINDOW)
    sigmas = importlib.import_module("comfy.samplers").calculate_sigmas(schedule, "normal", STEPS)[:-1]
    return int(((sigmas <= first) & (sigmas > last)).sum())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_window_follows_a_schedule_chosen_before_or_behind(family: Family, name: str):
    other, calls = SCHEDULES[name], []
    options: dict[str, Any] = {"start": WINDOW[0], "end": WINDOW[1]}
    options["observers"] = [subjects.Recorder(lambda spec, _: calls.append(spec.name))]
    results = {}
    for place, model in {
        "before": family.attach(other(family.model), **options),
        "behind": other(family.attach(**options)),
    }.items():
        calls.clear()
        results[place] = family.sample(model, family.prompt(subjects=MAN), steps=STEPS)
        assert len(calls) == expected_steps(model) * len(family.adapter.patcher.model.layers), place
    assert torch.equal(results["before"], results["behind"])
    plain = family.sample(other(family.model), family.prompt(), steps=STEPS)
    assert subjects.difference(plain, results["behind"]) > 1e-3


def test_a_subjects_own_window_follows_the_schedule(family: Family):
    other, router = SCHEDULES["continuous"], ConstantRouter()  # with it an inactive subject is the base model
    [[context, extra]] = family.prompt()
    subject = Subject("man", 1, subjects.picture(11), subjects.ENCODER, SubjectSettings(1.0, *WINDOW))
    own = [with_subjects(context, extra, [Binding(subject, 4)])]
    whole = family.attach(start=WINDOW[0], end=WINDOW[1], router=router)
    expected = family.sample(other(whole), family.prompt(subjects=MAN), steps=6)
    assert subjects.difference(expected, family.sample(other(family.attach(router=router)), own, steps=6)) < 1e-4
    assert subjects.difference(expected, family.sample(other(family.model), family.prompt(), steps=6)) > 1e-3


@pytest.mark.parametrize(
    ("options", "has_subject", "expected"),
    [
        ({"start": 0.6, "end": 0.4}, True, "'start_percent' 0.6 in 'Apply MoA' is not below 'end_percent' 0.4"),
        ({"prior_bias": PRIOR_ONLY}, True, "'strength' in 'Apply MoA' is 0"),
        ({}, False, "no prompt of the run has one"),
        ({}, True, "personalised branch was computed for 99 %"),
    ],
    ids=["empty window", "strength 0", "no subject", "active"],
)
def test_the_console_tells_where_subjects_were_active(
    family: Family, caplog: pytest.LogCaptureFixture, options: dict, has_subject: bool, expected: str
):
    caplog.set_level(logging.INFO)
    model = family.attach(budget=AutomaticBudget(), **options)
    family.sample(model, family.prompt(subjects=MAN if has_subject else None))
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("MoA:")]
    assert len(lines) == 1 and expected in lines[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"strength": 0.0}, "'dog' took no part: its strength is 0 in 'Subject Settings (MoA)'."),
        (
            {"start": 0.5, "end": 0.5},
            "'dog' took no part: 'start_percent' 0.5 in 'Subject Settings (MoA)' is not below",
        ),
        ({"region": torch.zeros(4, 4)}, "'dog' took no part: its region in 'Subject Settings (MoA)' is empty."),
    ],
    ids=["strength", "window", "region"],
)
def test_a_subject_that_takes_no_part_is_named(family: Family, settings: dict, expected: str):
    """Beside another, in the note after the run; alone, before it."""
    other, notes = Subject("dog", 1, subjects.picture(12), subjects.ENCODER, SubjectSettings(**settings)), []
    man = Subject("man", 1, subjects.picture(11), subjects.ENCODER)
    for bound in ([man, other], [other]):
        [[context, extra]] = family.prompt()
        prompt = [with_subjects(context, extra, [Binding(s, 4 + i) for i, s in enumerate(bound)])]
        family.sample(family.attach(router=ConstantRouter(), notify=notes.append), prompt)
    assert notes[0].startswith("man, dog: active in 2 of 2 evaluations") and expected in notes[0]
    alone = expected.split(": ", 1)[1].rstrip(".")
    assert notes[1].startswith("No subject takes part: 'dog': ") and alone in notes[1]


def test_shares_of_zero_are_noticed_after_the_run(family: Family):
    """The subject's window lies between two steps, which no setting shows before the run."""
    subject = Subject("man", 1, subjects.picture(11), subjects.ENCODER, SubjectSettings(1.0, 0.01, 0.02))
    [[context, extra]] = family.prompt()
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    family.sample(model, [with_subjects(context, extra, [Binding(subject, 4)])])
    assert "each subject had a share of 0 at every pixel" in trace.note


def test_a_noise_level_is_computed_once_a_run():
    class Linear:
        asked = 0

        def percent_to_sigma(self, percent: float, /) -> float:
            self.asked += 1
            return 10 * (1 - percent)

    schedule, one, other = Schedule(), Linear(), Linear()
    assert [schedule.noise_level(one, 0.3), schedule.noise_level(one, 0.3), schedule.noise_level(other, 0.3)] == [
        7.0
    ] * 3
    assert (one.asked, other.asked) == (1, 1)
    schedule.end_run()
    schedule.noise_level(one, 0.3)
    assert one.asked == 2
