"""What each application's workflow shows, from the file that users open, on the real host.

The bars are what MoA Mini measurably does, with a margin. `docs/applications.md` has the measured figures, which `-s` prints.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from applications import (
    MEN,
    brightness,
    centres,
    embeddings,
    evaluator,
    grown,
    in_sepia,
    likeness,
    outlines,
    overlap,
    recognised,
    reference,
    rises,
    run,
    squared_change,
)

from devtools.server import Server

MAN_2 = MEN["moa_man_2.png"]


@pytest.fixture(scope="module")
def judge() -> Any:
    return evaluator()


def show(name: str, **figures: Any) -> None:
    print(
        f"\n{name}: "
        + ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
        )
    )


def test_swap_changes_the_person_and_keeps_the_scene(server: Server, judge: Any):
    shown = run(server, "swap_mini", masks_of="Router's map of the last")
    people, base, inside = shown["Each person"], shown["Base model alone"], grown(shown["mask"][:, 0], 8)
    outside = squared_change(people, base, 1 - inside)
    between = torch.stack([squared_change(people, people.roll(k, 0), inside) for k in (1, 2)])
    change = max(judge.background_change(person[None], base) for person in people)
    show("swap", outside=outside.max().item(), inside=between.min().item(), background=change)
    assert len(people) == 4
    assert outside.max() < 0.02
    assert between.min() > 3 * outside.max()
    assert change < 0.003


def test_a_region_keeps_the_other_person(server: Server):
    shown = run(server, "swap_one_of_two_mini", masks_of="Router's map of the last")
    people, base, inside = shown["Each person"], shown["Base model alone"], shown["mask"][:, 0]
    right = torch.zeros(1, 128, 128)
    right[..., 64:] = 1
    there, elsewhere = squared_change(people, base, inside), squared_change(people, base, right)
    show("swap one of two", inside=there.min().item(), right=elsewhere.max().item())
    assert not (inside * right).any()
    assert elsewhere.max() < 0.005
    assert there.min() > 3 * elsewhere.max()


def test_a_story_has_one_character_in_six_scenes(server: Server, judge: Any):
    pictures = run(server, "story_mini")["The story"]
    scenes = judge.judges.classify_scene(pictures).tolist()
    known = recognised(judge, pictures, MAN_2)
    show("story", recognised=known, scenes=len(set(scenes)))
    assert len(pictures) == 6
    assert known >= 5
    assert len(set(scenes)) >= 5
    assert list((server.base / "models" / "moa" / "subjects").glob("character_*.safetensors"))


def test_several_seeds_have_the_same_person(server: Server, judge: Any):
    shown = run(server, "seeds_mini")
    ours, alone = (recognised(judge, shown[title], MAN_2) for title in ("Each seed", "Base model alone"))
    change = judge.background_change(shown["Each seed"], shown["Base model alone"])
    show("seeds", recognised=ours, alone=alone, background=change)
    assert ours >= 3 > alone
    assert change < 0.02


def test_a_morph_goes_from_one_to_the_other(server: Server, judge: Any):
    found = embeddings(judge, run(server, "morph_mini")["The strip"])
    way = found @ (found[-1] - found[0])
    show("morph", way=[round(float(x), 2) for x in way])
    assert rises(way)


def test_the_routers_map_is_the_mask_of_the_person(server: Server, judge: Any):
    shown = run(server, "inpaint_mini", masks_of="Router's map")
    first, second, mask = shown["Pass 1"], shown["Pass 2"], shown["mask"][:, 0] > 0.5
    shared = overlap(mask, outlines(judge, first))
    outside, inside = 1 - grown(mask.float(), 20), mask.float()
    kept, repainted = squared_change(second, first, outside), squared_change(second, first, inside)
    before, after = (likeness(judge, pictures, MAN_2) for pictures in (first, second))
    show("inpaint", iou=shared.mean().item(), worst=shared.min().item(), outside=kept.max().item(), inside=repainted.min().item(),
         before=before.mean().item(), after=after.mean().item())  # fmt: skip
    assert shared.mean() > 0.55
    assert kept.max() < 1e-4
    assert repainted.min() > 20 * kept.max()
    assert after.mean() > before.mean()


def test_a_real_picture_comes_back_and_gets_another_person(server: Server, judge: Any):
    shown, original = run(server, "real_picture_mini"), reference("moa_scene.png")[None]
    back, ours = shown["Base model alone"], shown["With the new person"]
    psnr = -10 * (back - original).square().mean().log10().item()
    before, after = (likeness(judge, pictures, MAN_2).item() for pictures in (original, ours))
    change = judge.background_change(ours, original)
    show("real picture", psnr=psnr, before=before, after=after, background=change)
    assert psnr > 27
    assert after > before + 0.4
    assert change < 0.005


def test_a_time_lapse_keeps_the_person(server: Server, judge: Any):
    pictures = run(server, "time_lapse_mini")["The strip"]
    everywhere = torch.ones(1, 128, 128)
    from_first, from_last = (squared_change(pictures, pictures[[k]], everywhere) for k in (0, -1))
    known = recognised(judge, pictures, MAN_2)
    show("time-lapse", recognised=known, change=from_first[-1].item())
    assert rises(from_first) and rises(-from_last)
    assert known >= 3


def test_regional_prompts_keep_their_scenes(server: Server, judge: Any):
    shown = run(server, "regional_prompts_mini")
    ours, alone = shown["With your people"], shown["Base model alone"]
    background = (torch.maximum(outlines(judge, ours), outlines(judge, alone)) < 0.2).float()
    night, day = (brightness(ours[..., half], background[..., half]) for half in (slice(0, 64), slice(64, 128)))
    change = judge.background_change(ours, alone)
    show("regional prompts", night=night.max().item(), day=day.min().item(), background=change)
    assert day.min() > night.max() + 0.1
    assert change < 0.02


def test_a_pose_is_the_persons(server: Server, judge: Any):
    shown = run(server, "pose_mini")
    wanted = torch.stack([reference(f"moa_pose_{place}.png") for place in ("left", "middle", "right")])
    wanted = torch.nn.functional.avg_pool2d(wanted[:, 0], 4)
    ours, base = shown["Each pose"], shown["Base model, each pose"]
    posed = outlines(judge, ours)
    off, shared = (centres(posed) - centres(wanted)).abs().max(), overlap(wanted, posed).mean()
    others = torch.stack([overlap(wanted.roll(k, 0), posed) for k in (1, 2)]).mean()
    known, alone = (recognised(judge, pictures, MAN_2) for pictures in (ours, base))
    show("pose", off=off.item(), iou=shared.item(), others=others.item(), recognised=known, alone=alone)
    assert off < 0.05
    assert shared > 0.75 > others + 0.2
    assert known >= 2 > alone


def test_a_style_reaches_the_prior_and_not_the_person(server: Server, judge: Any):
    shown = run(server, "style_mini")
    styled, plain, base = (shown[f"{which} the style"] for which in ("With", "Without", "Base model with"))
    background = (torch.maximum(outlines(judge, styled), outlines(judge, plain)) < 0.2).float()
    brown, colourful = (in_sepia(pictures, background) for pictures in (styled, plain))
    known, before, alone = (recognised(judge, pictures, MAN_2) for pictures in (styled, plain, base))
    show("style", styled=brown, unstyled=colourful, recognised=known, without=before, alone=alone)
    assert (brown, colourful) == (4, 0)
    assert known >= 3 > alone


def test_training_brings_the_person_closer(server: Server, judge: Any):
    shown, man = run(server, "training_mini"), MEN["moa_man.png"]
    before, after = (shown[f"{when} the training"] for when in ("Before", "After"))
    was, now = (likeness(judge, pictures, man).mean().item() for pictures in (before, after))
    show("training", was=was, now=now, before=recognised(judge, before, man), after=recognised(judge, after, man))
    assert now > was + 0.15
    assert recognised(judge, after, man) >= 3
    assert list((server.base / "models" / "moa").glob("my_adapter_*.safetensors"))
