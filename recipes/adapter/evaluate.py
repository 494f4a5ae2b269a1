"""Measure a trained adapter: `python dev.py eval config.toml`. Stopped at any moment, the same command goes on where it was.

FastComposer's protocol (identity, prompt consistency), and what the paper claims but measures nowhere: that the base
model's picture stays, and that the router knows where the subjects are. Three columns: the base model alone, MoA, and the
same adapter with its router pinned to the personalised branch.
"""

import argparse
import json
import sys
from pathlib import Path

import comfy.model_management
from torch import Tensor
from tqdm import tqdm

from ...moa_attention.checkpoint import read_header
from ...nodes.adapter_files import load_adapter_patcher
from ...nodes.apply import bias_from_strength
from ...nodes.call import PRIOR_ONLY
from ...nodes.layers import layer_paths
from ...nodes.load import encoder_identity
from ...nodes.painter import Painter
from ...nodes.sight import Given, see
from ...nodes.sockets import Adapter
from ...nodes.text import bind
from .evaluation.gallery import PRIOR, Gallery
from .evaluation.judges import meet, open_judges
from .evaluation.people import Person, read_people
from .evaluation.protocol import Case, all_cases
from .evaluation.report import PINNED, as_json, notes, write_up
from .evaluation.score import MOA, Scores, grouped, score_group
from .evaluation.show import plot, sheet
from .models import Frozen, load_frozen
from .settings import Evaluation, Settings, SettingsError, read_settings

FOLDER = "evaluation"


def main(argv: list[str]) -> None:
    """Paint, measure, report."""
    parser = argparse.ArgumentParser(prog="eval", description=__doc__)
    parser.add_argument("config", type=Path)
    path = parser.parse_args(argv).config
    try:
        settings = read_settings(path)
        if settings.evaluation is None:
            raise SettingsError(f'{path} has no table [evaluation]. It needs at least: people = "folder".')
        evaluate(settings, settings.evaluation)
    except (ValueError, OSError) as error:  # what a person can mend; anything else is our mistake
        sys.exit(f"eval: {error}")
    except KeyboardInterrupt:
        sys.exit("eval: stopped. The same command goes on where it was.")


def evaluate(settings: Settings, wanted: Evaluation) -> None:
    """All of it, from the cheapest thing that can be wrong to the dearest."""
    file = adapter_file(settings, wanted)
    people = read_people(wanted.people)
    singles, pairs = all_cases(people, wanted)
    device = comfy.model_management.get_torch_device()
    judges = open_judges(settings, wanted, device)
    known = {person.name: meet(judges, person) for person in people}
    said = notes(judges, people, known, len(pairs))

    folder = settings.output / FOLDER
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    gallery = open_gallery(settings, wanted, file, people, folder / "pictures")
    paint([*singles, *pairs], gallery)
    comfy.model_management.unload_all_models()

    with tqdm(total=len(singles) + len(pairs), desc="measure", unit="case") as bar:
        scores = [Scores(), Scores()]
        for kind, cases in zip(scores, (singles, pairs), strict=True):
            for group in grouped(cases):
                score_group(kind, group, gallery, judges, known)
                bar.update(len(group))

    text = write_up(*scores, said)
    found = {"base": settings.models.checkpoint, **as_json(wanted, str(file), people, judges, *scores, said)}
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(text + "\n", encoding="utf-8")
    plot(*scores, people, folder / "plot.png")
    sheet(singles, pairs, gallery, folder / "sheet.png")
    print(f"{text}\n\nNumbers, plot and pictures: {folder}")


def adapter_file(settings: Settings, wanted: Evaluation) -> Path:
    """The adapter that is evaluated.

    Raises: SettingsError when it is not there; AdapterFileError when it is no adapter.
    """
    file = Path(wanted.adapter) if wanted.adapter else settings.output / "adapter.safetensors"
    if not file.is_file():
        raise SettingsError(
            f"evaluation.adapter: there is no file {file.resolve()}. Train one with `python dev.py train`, or name one."
        )
    read_header(file)
    return file


def open_gallery(settings: Settings, wanted: Evaluation, file: Path, people: list[Person], folder: Path) -> Gallery:
    """Load base model and adapter, look at the references.

    Raises: ValueError when the two do not belong together, or nothing says how the adapter is to see.
    """
    frozen = load_frozen(settings.models)
    patcher = load_adapter_patcher(file)
    adapter = Adapter(patcher, file.name, encoder_identity(patcher.model))
    layer_paths(frozen.model.model, patcher.model.config)
    features = {person.name: look(adapter, frozen, person) for person in people}
    scale = int(frozen.vae.spacial_compression_encode())
    side = (wanted.side or settings.data.side) // scale
    painter = Painter(frozen.model, frozen.clip, frozen.vae, (side, side), wanted.steps, wanted.guidance)
    columns = {PRIOR: None, MOA: bias_from_strength(wanted.strength), PINNED: -PRIOR_ONLY}
    return Gallery(folder, painter, adapter, features, columns, wanted.start)


def look(adapter: Adapter, frozen: Frozen, person: Person) -> Tensor:
    """The image features of a subject, as the node Encode Subject makes them: -> (1,F)

    Raises: SettingsError when the adapter needs a CLIP vision model, ValueError when it needs another.
    """
    images, masks = person.picture.movedim(0, -1)[None], None if person.mask is None else person.mask[None]
    if adapter.patcher.model.encoder is None and frozen.vision is None:
        wanted = adapter.patcher.model.config.image_encoder
        raise SettingsError(f"models.clip_vision: the adapter sees through '{wanted}'; name that model's file here.")
    return see(adapter, Given(images, masks, frozen.vision))


def paint(cases: list[Case], gallery: Gallery) -> None:
    """Whatever is not there yet.

    Raises: ValueError, before the first picture, when a subject's word cannot be found in a prompt.
    """
    clip = gallery.painter.clip
    for case in cases:
        bind(clip, case.text, clip.tokenize(case.text), gallery.subjects(case))
    missing = gallery.missing(cases)
    for case, column in tqdm(missing, desc="paint", unit="picture", disable=not missing):
        gallery.paint(case, column)
