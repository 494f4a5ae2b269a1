"""What a command's settings name is looked for before anything is loaded: files, folders, prompts, libraries, the run itself.

Nothing here imports the host, which takes ten seconds.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ...moa_attention.formats.adapter import read_header
from ...moa_attention.method.spec import EMBEDDED_ENCODER
from ...moa_attention.training.config import check_start
from ...moa_attention.training.data.captions import find_words
from ...moa_attention.training.data.images import read_image
from ...moa_attention.training.data.pictures import BadPicture
from ...moa_attention.training.datasets.reading import check_apart, check_dataset
from ...moa_attention.training.lots import check_division
from ...moa_attention.training.optimisation.optimisers import check_optimiser, installed
from ...moa_attention.training.saved.settings import StoredRun, check_run, read_run
from .run_files import STATE, chosen_states, run_settings
from .settings import MINI, ModelSettings, Settings, SettingsError, check_model_folder


def check_training(settings: Settings, stored: StoredRun | None) -> list[str]:
    """Check a training run. Returns: a sentence for each setting that changed since the last session.

    Args: stored: the state that it resumes from.
    Raises: ValueError as the checks below.
    """
    check_output(settings.output)
    check_files(settings.models)
    check_weights(settings)
    check_image_encoder(settings)
    check_folder(settings)
    check_validation(settings)
    check_held_out(settings)
    check_tracker(settings)
    check_optimiser(settings.train)
    check_division(settings.train, int(os.environ.get("WORLD_SIZE", "1")))  # of a launcher's processes
    if stored is None:
        return []
    return check_run(settings.output / STATE, stored, run_settings(settings), settings.train.steps)


def check_exporting(settings: Settings, steps: Sequence[int]) -> None:
    """Raises: SettingsError when a state or a model does not exist; RunMismatch when the run had other models or another kind
    of adapter.
    """
    check_files(settings.models)
    check_image_encoder(settings)
    path = settings.output / STATE
    for step, file in chosen_states(path, steps).items():
        stored = read_run(file)
        assert stored is not None
        check_run(path, stored, run_settings(settings), max(step, settings.train.steps))


def check_planning(settings: Settings) -> None:
    """Raises: ValueError when the base model or the adapter in adapter.start cannot be read."""
    check_files(ModelSettings(settings.models.checkpoint))
    check_weights(settings)
    check_start_file(settings)


def check_preparing(settings: Settings) -> None:
    """Raises: SettingsError when a folder that `prepare` needs does not exist."""
    check_output(settings.output)
    check_folder(settings)
    wanted = settings.prepare
    for field, folder, example in (
        ("captioner", wanted.captioner, "BLIP"),
        ("segmenter", wanted.segmenter, "Mask2Former"),
        ("clip", wanted.clip, "CLIP ViT-L/14"),
    ):
        if folder:
            check_model_folder(f"prepare.{field}", folder, example)


def check_output(output: Path) -> None:
    """Raises: SettingsError when the folder could not be made or written into."""
    place = output.resolve()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise SettingsError(f"output: {place} is a file. Name a folder, which is made if it does not exist.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise SettingsError(f"output: {place} cannot be written into. Name another folder.")


def check_files(models: ModelSettings) -> None:
    """Raises: SettingsError when a file that is named does not exist."""
    for name in ("checkpoint", "vae", "clip_vision"):
        file = getattr(models, name)
        if file and file != MINI and not Path(file).is_file():
            raise SettingsError(f"models.{name}: there is no file {Path(file).resolve()}.")
    if models.checkpoint == MINI and models.prediction != "checkpoint":
        raise SettingsError('models.prediction: moa-mini is recognised. Leave it at "checkpoint".')
    if models.zero_snr and models.prediction == "checkpoint":
        raise SettingsError('models.zero_snr has an effect only with models.prediction = "noise" or "v".')


def check_weights(settings: Settings) -> None:
    """Raises: SettingsError when a base model in 8 bits would save nothing."""
    if settings.models.weights == "fp8" and settings.models.checkpoint == MINI:
        raise SettingsError('models.weights: moa-mini is too small to need 8 bits. Leave it at "checkpoint".')
    if settings.models.weights == "fp8" and not settings.train.checkpointing:
        raise SettingsError('models.weights = "fp8" saves memory only with train.checkpointing = true. Set both.')


def check_folder(settings: Settings) -> None:
    """Raises: SettingsError naming the folder's table when it does not exist or has settings it cannot have."""
    for number, dataset in enumerate(settings.data.datasets, start=1):
        where = f"data.folders, table {number}" if settings.data.folders else "data.folder"
        try:
            check_dataset(dataset)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
    try:
        check_apart(settings.data.datasets)
    except ValueError as error:
        raise SettingsError(f"data.folders: {error}") from error


def check_start_file(settings: Settings) -> str:
    """The image encoder of the adapter in adapter.start; empty where there is none, or only routers are trained.

    Raises: SettingsError when the file does not exist; ValueError when it is no adapter or of another kind than [adapter].
    """
    start, only_routers = settings.adapter.start, settings.train.only_routers
    if only_routers and not Path(start).is_file():
        raise SettingsError(f"train.only_routers fits routers to adapter.start, but there is no file '{start}'.")
    if start and not Path(start).is_file():
        raise SettingsError(f"adapter.start: there is no file {Path(start).resolve()}.")
    if not start or only_routers:
        return ""
    config = read_header(start).config
    check_start(config, settings.adapter, ("rank", "router", "image_tokens", "output_projection"))
    return config.image_encoder


def check_image_encoder(settings: Settings) -> None:
    """Raises: SettingsError when a new adapter, or the one in adapter.start, has no CLIP vision model."""
    models, started = settings.models, check_start_file(settings)
    if models.clip_vision or settings.train.only_routers:
        return
    if started not in ("", EMBEDDED_ENCODER) or (not started and models.checkpoint != MINI):
        name = started or "for example clip-vit-large-patch14"
        raise SettingsError(
            f"models.clip_vision: the adapter encodes its subjects with a CLIP vision model ({name}), and none is named."
        )


def check_validation(settings: Settings) -> None:
    """Raises: SettingsError when the validation sheet could not be drawn."""
    wanted, words = settings.validation, settings.data.words
    if not wanted.active:
        return
    for prompt in wanted.prompts:
        if not find_words(prompt, words):
            raise SettingsError(
                f"validation.prompts: '{prompt}' has no word that can be a subject. Use one of: {', '.join(words)}."
            )
    for name in wanted.references:
        try:
            read_image(Path(name))
        except BadPicture as reason:
            raise SettingsError(f"validation.references: {reason} {Path(name).resolve()}.") from reason


def check_held_out(settings: Settings) -> None:
    """Raises: SettingsError when the held-out pictures could not be measured."""
    if settings.data.held_out == 1:
        raise SettingsError("data.held_out: a wrong reference needs a second picture. Hold out at least 2, or 0.")
    if settings.data.held_out and not settings.validation.active:
        raise SettingsError(
            "data.held_out: the pictures are measured at the steps of validation.every and validation.at, and there are none."
        )


def check_tracker(settings: Settings) -> None:
    """Raises: SettingsError when the package of the tracker is not installed."""
    if settings.tracker != "none" and not installed(settings.tracker):
        raise SettingsError(
            f"tracker: '{settings.tracker}' needs the package {settings.tracker}, which is not installed. Run "
            f"`pip install {settings.tracker}`, or choose another tracker."
        )
