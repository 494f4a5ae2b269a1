"""The config file of a training run: TOML, one table for each class; `python recipes/run.py adapter.settings_table` lists
all fields."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pydantic
import tomli
from pydantic.dataclasses import dataclass

from ...moa_attention.training.config import AdapterConfig, PictureConfig, SheetConfig, TrainConfig
from ...moa_attention.training.datasets.config import DatasetConfig
from ...moa_attention.training.rules import Ranged, setting

STRICT = pydantic.ConfigDict(extra="forbid")
"""Unknown fields are errors, as wrong types are."""
NONE: Mapping[str, Any] = MappingProxyType({})
MINI = "moa-mini"
"""As `checkpoint`: the bundled small model."""


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """[models]: the frozen parts, ordinary ComfyUI files."""

    checkpoint: str = setting(fixed=True)
    """SD1.5 or SDXL checkpoint, or "moa-mini"."""
    vae: str = setting("", fixed=True)
    """VAE file to use instead of the checkpoint's."""
    clip_vision: str = setting("", fixed=True)
    """CLIP vision model that encodes the subjects. "moa-mini" needs none."""
    clip_vision_name: str = setting("clip-vit-large-patch14", fixed=True)
    """Name of that model. It is saved in the adapter file, and messages show it to the adapter's users."""
    prediction: Literal["checkpoint", "noise", "v"] = setting("checkpoint", fixed=True)
    """What the base model predicts. "checkpoint" is what ComfyUI recognises; SD1.5 models with v-prediction carry no mark
    of it and need "v", as they need ComfyUI's ModelSamplingDiscrete in a workflow."""
    zero_snr: bool = setting(False, fixed=True)
    """With prediction "noise" or "v": the last timestep is pure noise (zsnr), as in ModelSamplingDiscrete."""
    weights: Literal["checkpoint", "fp8"] = setting("checkpoint", fixed=True)
    """How the frozen U-Net is held in memory. "checkpoint" is what ComfyUI chooses for the file and the device, "fp8"
    rounds it to 8 bits, in which every layer is converted when it is used. It needs train.checkpointing, because
    otherwise the converted layers are all kept for the backward pass."""


@dataclass(frozen=True, config=STRICT)
class FolderSettings(DatasetConfig):
    """[[data.folders]]: one of several folders of pictures; a table for each."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataSettings(PictureConfig):
    """[data]: the pictures."""

    folder: str = ""
    """Folder of pictures, with captions and masks beside them or in FastComposer's layout of FFHQ. Several folders, and
    other sources of captions, are tables [[data.folders]] instead."""
    licence: str = ""
    """Licence of the pictures. It is saved in the adapter file."""
    description: str = ""
    """One line that describes the pictures. It is saved in the adapter file."""
    held_out: int = setting(0, 0, 100_000, fixed=True)
    """Number of pictures that are not trained on; 0, or at least 2 that show different people. At the steps of
    [validation], the errors with the right and with a wrong reference are measured on them."""
    folders: tuple[FolderSettings, ...] = ()
    """The tables [[data.folders]]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.folder) == bool(self.folders):
            raise ValueError("name one folder of pictures in data.folder, or several in tables [[data.folders]]")
        if self.folder and not self.licence:
            raise ValueError("licence is missing. It is saved in the adapter file")
        if self.folders and (self.licence or self.description):
            raise ValueError(
                "each table [[data.folders]] has its own licence and description. Move those of [data] there"
            )

    @property
    def datasets(self) -> tuple[DatasetConfig, ...]:
        """The folders of pictures."""
        return self.folders or (DatasetConfig(self.folder, self.licence, self.description),)


@dataclass(frozen=True, config=STRICT)
class PrepareSettings(Ranged):
    """[prepare]: the models with which `dev.py prepare` makes missing captions and masks; `eval` uses the segmenter,
    too."""

    captioner: str = ""
    """Folder of a captioning model (BLIP, BLIP-2, GIT ...) in the format of transformers. Without one, no captions are
    made."""
    segmenter: str = ""
    """Folder of a segmentation model (Mask2Former, MaskFormer, SegFormer ...) in the format of transformers. Without one, a
    small model for people is used. It separates people only if there is a gap between them."""
    labels: tuple[str, ...] = ("person",)
    """The segmenter's labels of your subjects."""
    smallest: float = setting(0.02, 0.0, 1.0)
    """Smallest silhouette of a subject, as a fraction of the picture."""
    clip: str = ""
    """Folder of a CLIP model in the format of transformers, which matches silhouettes with words. Without one, both are
    matched from left to right."""


@dataclass(frozen=True, config=STRICT)
class AdapterSettings(AdapterConfig):
    """[adapter]: what is trained."""

    start: str = setting("", fixed=True)
    """Adapter file whose training continues. With train.only_routers, the adapter for which routers are trained; it may
    be an IP-Adapter."""


@dataclass(frozen=True, config=STRICT)
class ValidationSettings(SheetConfig):
    """[validation]: the sheet of pictures that is drawn at intervals, with the base model's pictures, the personalised
    pictures and the router's maps; and the steps at which held-out pictures are measured."""

    references: tuple[str, ...] = ()
    """Pictures of subjects. Without any, the subjects of the first training pictures are used."""


@dataclass(frozen=True, config=STRICT)
class TrainSettings(TrainConfig):
    """[train]: the optimisation."""


@dataclass(frozen=True, config=STRICT)
class EvaluationSettings(Ranged):
    """[evaluation]: the pictures that `dev.py eval config.toml` generates, and the models that measure them. Measures
    whose model is not named are left out."""

    people: str
    """Folder with one picture of each subject: name.jpg, and its word (such as woman) in name.txt. Optional are its
    mask, as in the training folder, and another picture of the same subject, name.other.jpg."""
    adapter: str = ""
    """Adapter file. Without one, adapter.safetensors in the output folder is used."""
    prompts: str = ""
    """Text file with one prompt per line and {} for the subject's word. Without one, 40 built-in prompts are used."""
    pair_prompts: str = ""
    """The same for two subjects, with two {}. Without one, 21 built-in prompts are used."""
    pictures: int = setting(4, 1, 1000)
    """Pictures per prompt, with consecutive seeds."""
    pairs: int | None = setting(None, 0, 1_000_000)
    """Number of pairs of subjects, evenly chosen. 0 for none; without a number, all pairs."""
    steps: int = setting(50, 1, 1000)
    """Sampling steps."""
    guidance: float = setting(5.0, 0.0, 100.0)
    """Scale of classifier-free guidance."""
    seed: int = setting(42, 0, 2**53)
    """Seed of the first picture of each prompt."""
    strength: float = setting(1.0, 0.0, 4.0)
    """The strength of Apply MoA."""
    start: float = setting(0.0, 0.0, 1.0)
    """The start_percent of Apply MoA."""
    side: int = setting(0, 0, 4096, multiple=8)
    """Side of the pictures in pixels. 0 for data.side."""
    regions: Literal["segmenter", "router"] = "segmenter"
    """Source of the subjects' regions. "segmenter" is the model of [prepare], or the small model for people if
    [prepare] names none.
    "router" is MoA's own router map; the router measures then agree with it by definition."""
    clip: str = ""
    """Folder of a CLIP model in the format of transformers, for prompt consistency and likeness. The protocol uses
    clip-vit-large-patch14."""
    face: str = ""
    """Folder `model` of the npm package @vladmandic/face-api, which measures the identity of faces."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings:
    """A whole config file."""

    output: Path
    """Folder for the adapter, the resumable state, the log, the sheets and the cache."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where the losses and sheets of a run go beside its log: TensorBoard, in the folder `tensorboard` of the output, or
    Weights & Biases, which needs the package wandb and sends them to its server unless WANDB_MODE is offline."""
    models: ModelSettings
    data: DataSettings
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    train: TrainSettings
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    evaluation: EvaluationSettings | None = None


class SettingsError(ValueError):
    """A setting is missing, wrong, or names a file that does not exist."""


def read_settings(path: Path, overrides: Mapping[str, Any] = NONE) -> Settings:
    """Read a config file. Relative paths in it start at the folder in which the command runs.

    Args: overrides: values that replace those of the file, by `table.field`.
    Raises: SettingsError naming the field and what is wrong with it.
    """
    try:
        tables = with_overrides(tomli.loads(path.read_text(encoding="utf-8-sig")), overrides)
        if tables.get("output") == "":
            raise SettingsError("output is empty. Name a folder for the adapter, the state, the log and the cache.")
        return pydantic.TypeAdapter(Settings).validate_python(tables)
    except FileNotFoundError as error:
        raise SettingsError(
            f"There is no config file {path}. Copy recipes/adapter/example.toml and write your paths into it."
        ) from error
    except OSError as error:
        raise SettingsError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text, which TOML requires. Save it as UTF-8.") from error
    except tomli.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except pydantic.ValidationError as error:
        wrong = [f"  {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        where = f"{path} with the options of the command line" if overrides else str(path)
        raise SettingsError("\n".join([f"{where} has mistakes:", *wrong])) from error


def with_overrides(tables: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config file with other values in it."""
    for name, value in overrides.items():
        *table, field_name = name.split(".")
        target = tables.setdefault(table[0], {}) if table else tables
        if isinstance(target, dict):  # otherwise the file's mistake is reported
            target[field_name] = value
    return tables


def check_model_folder(field: str, folder: str, example: str) -> None:
    """Raises: SettingsError when a folder holds no model of transformers; names are not downloaded."""
    if not (Path(folder) / "config.json").is_file():
        raise SettingsError(
            f"{field}: {Path(folder).resolve()} contains no model of transformers. It must be a local folder with "
            f"config.json, weights and processor files, such as that of {example}."
        )
