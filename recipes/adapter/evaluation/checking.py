"""What `eval` needs is looked for before the host is imported: the table, the models, the adapter, the subjects, the prompts."""

from pathlib import Path

from ....moa_attention.formats.adapter import read_header
from ..checks import check_files
from ..settings import EvaluationSettings, Settings, SettingsError, check_model_folder
from .people import read_people
from .protocol import all_cases


def check_evaluating(settings: Settings, config: Path) -> None:
    """Raises: SettingsError naming what is missing or wrong; StoredFileError when the adapter's file is none.

    Args: config: the file of the settings.
    """
    wanted = settings.evaluation
    if wanted is None:
        raise SettingsError(f'{config} has no table [evaluation]. Add it, with at least: people = "folder".')
    check_files(settings.models)
    read_header(adapter_file(settings, wanted))
    all_cases(read_people(wanted.people), wanted)
    if wanted.clip:
        check_model_folder("evaluation.clip", wanted.clip, "clip-vit-large-patch14")


def adapter_file(settings: Settings, wanted: EvaluationSettings) -> Path:
    """The adapter that is evaluated.

    Raises: SettingsError when it does not exist.
    """
    file = Path(wanted.adapter) if wanted.adapter else settings.output / "adapter.safetensors"
    if not file.is_file():
        raise SettingsError(
            f"evaluation.adapter: there is no file {file.resolve()}. Train an adapter with `python dev.py train`, or set evaluation.adapter to one."
        )
    return file
