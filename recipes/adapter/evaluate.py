"""Measure a trained adapter: `python dev.py eval config.toml`. Stopped at any moment, the same command resumes.

FastComposer's protocol (identity, prompt consistency), and two claims of the paper without published numbers: the base
model's picture is preserved, and the router localises the subjects. Three columns: the base model alone, MoA, and the
same adapter with its router pinned to the personalised branch.
"""

import json
import sys
from pathlib import Path

import comfy.model_management
import torch
from torch import Tensor
from tqdm import tqdm

from ...moa_attention.run.strength import PRIOR_ONLY, bias_from_strength
from ...nodes.host.files.adapters import load_adapter_patcher
from ...nodes.host.model.layers import layer_paths
from ...nodes.host.pictures.vision import Reference, encode_reference
from ...nodes.host.prompts.prompt_words import bind
from ...nodes.host.training.sampler import HostSampler
from ...nodes.sockets import LoadedAdapter
from .commands import read_request
from .evaluation.checking import adapter_file
from .evaluation.evaluators import embed_references, load_evaluators
from .evaluation.gallery import PRIOR, Gallery
from .evaluation.people import Person, read_people
from .evaluation.protocol import EvaluationCase, all_cases
from .evaluation.report import PINNED, as_json, notes, write_up
from .evaluation.score import MOA, Scores, grouped, score_group
from .evaluation.show import draw_sheet, plot
from .models import FrozenModels, load_frozen
from .settings import EvaluationSettings, Settings, SettingsError

FOLDER = "evaluation"


def main(argv: list[str]) -> None:
    """Sample, measure, report."""
    request = read_request("eval", argv)
    settings = request.settings
    assert settings.evaluation is not None
    try:
        evaluate(settings, settings.evaluation)
    except (ValueError, OSError) as error:  # what users can mend; all other errors are faults of ours
        sys.exit(f"eval: {error}")
    except KeyboardInterrupt:
        sys.exit("eval: stopped. The same command resumes.")


@torch.no_grad()  # the weights of the host's models require gradients
def evaluate(settings: Settings, wanted: EvaluationSettings) -> None:
    """Load what measures first, then sample, measure and report."""
    file = adapter_file(settings, wanted)
    people = read_people(wanted.people)
    singles, pairs = all_cases(people, wanted)
    device = comfy.model_management.get_torch_device()
    evaluators = load_evaluators(settings, wanted, device)
    known = {person.name: embed_references(evaluators, person) for person in people}
    remarks = notes(evaluators, people, known, len(pairs))

    folder = settings.output / FOLDER
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    gallery = open_gallery(settings, wanted, file, people, folder / "pictures")
    sample_missing([*singles, *pairs], gallery)
    comfy.model_management.unload_all_models()

    with tqdm(total=len(singles) + len(pairs), desc="measure", unit="case") as bar:
        scores = (Scores(), Scores())
        for kind, cases in zip(scores, (singles, pairs), strict=True):
            for group in grouped(cases):
                score_group(kind, group, gallery, evaluators, known)
                bar.update(len(group))

    text = write_up(*scores, remarks)
    found = {"base": settings.models.checkpoint, **as_json(wanted, str(file), people, evaluators, *scores, remarks)}
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(text + "\n", encoding="utf-8")
    plot(*scores, people, folder / "plot.png")
    draw_sheet(singles, pairs, gallery, folder / "sheet.png")
    print(f"{text}\n\nThe numbers, the plot and the pictures are in {folder}.")


def open_gallery(
    settings: Settings, wanted: EvaluationSettings, file: Path, people: list[Person], folder: Path
) -> Gallery:
    """Load base model and adapter, encode the references.

    Raises: ValueError when the two do not fit, or the adapter's image encoder is not named.
    """
    frozen = load_frozen(settings.models)
    patcher = load_adapter_patcher(file)
    adapter = LoadedAdapter(patcher, file.name, patcher.model.identity)
    layer_paths(frozen.model.model, patcher.model.config)
    features = {person.name: encode_person(adapter, frozen, person) for person in people}
    scale = int(frozen.vae.spacial_compression_encode())
    side = (wanted.side or settings.data.side) // scale
    sampler = HostSampler(frozen.model, frozen.clip, frozen.vae, (side, side), wanted.steps, wanted.guidance)
    columns = {PRIOR: None, MOA: bias_from_strength(wanted.strength), PINNED: -PRIOR_ONLY}
    return Gallery(folder, sampler, adapter, features, columns, wanted.start)


def encode_person(adapter: LoadedAdapter, frozen: FrozenModels, person: Person) -> Tensor:
    """The image features of a subject, as Encode Subject (MoA) computes them: -> (1,F)

    Raises: SettingsError when the adapter needs a CLIP vision model, ValueError when it needs another.
    """
    images, masks = person.picture.movedim(0, -1)[None], None if person.mask is None else person.mask[None]
    if adapter.patcher.model.encoder is None and frozen.vision is None:
        wanted = adapter.patcher.model.config.image_encoder
        raise SettingsError(
            f"models.clip_vision: the adapter encodes its subjects with '{wanted}'. Set models.clip_vision to the file of that model."
        )
    return encode_reference(adapter, Reference(images, masks, frozen.vision))


def sample_missing(cases: list[EvaluationCase], gallery: Gallery) -> None:
    """Sample the pictures that do not exist yet.

    Raises: ValueError, before the first picture, when a subject's word cannot be found in a prompt.
    """
    clip = gallery.sampler.clip
    for case in cases:
        bind(clip, case.text, clip.tokenize(case.text), gallery.subjects(case))
    missing = gallery.missing(cases)
    for case, column in tqdm(missing, desc="sample", unit="picture", disable=not missing):
        gallery.sample(case, column)
