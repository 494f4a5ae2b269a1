"""The config file of a training run: TOML, one table for each class here, every field explained where it stands."""

from dataclasses import field
from pathlib import Path
from typing import Literal

import pydantic
import tomli

from ...moa_attention.training.config import TrainConfig
from ...moa_attention.training.data.augment import Strength
from ...moa_attention.training.data.words import PERSON_WORDS

checked = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
"""A dataclass that refuses unknown fields and wrong types."""
MINI = "moa-mini"
"""As `checkpoint`: the bundled small model."""


@checked
class Models:
    """[models]: the frozen parts, ordinary ComfyUI files."""

    checkpoint: str
    """SD1.5 or SDXL checkpoint, or "moa-mini"."""
    vae: str = ""
    """Another VAE than the checkpoint's."""
    clip_vision: str = ""
    """CLIP vision model through which the adapter will see its subjects; unused with "moa-mini"."""
    clip_vision_name: str = "clip-vit-large-patch14"
    """What users of the adapter will be told to load."""


@checked
class Data:
    """[data]: the pictures."""

    folder: str
    """Pictures with captions and masks beside them, or FastComposer's layout of FFHQ."""
    licence: str
    """What the pictures allow; written into the adapter file."""
    description: str = ""
    """One line on what they show; written into the adapter file."""
    side: int = 512
    """Pictures get about side² pixels (1024 for SDXL)."""
    views: int = 8
    """Augmented references computed of each subject."""
    augmentation: Strength = "fastcomposer"
    """"fastcomposer", or "gentle": framing, tilt and light only, where colours are the identity."""
    words: tuple[str, ...] = PERSON_WORDS
    """Nouns that may be a subject in captions without <|image|> marks."""


@checked
class Prepare:
    """[prepare]: what `dev.py prepare` makes the missing captions and masks with; `eval` uses the segmenter, too."""

    captioner: str = ""
    """Folder of a captioning model of transformers (BLIP, BLIP-2, GIT ...); without one, nothing is captioned."""
    segmenter: str = ""
    """Folder of a segmentation model of transformers (Mask2Former, MaskFormer, SegFormer ...); without one a small one
    for people, which tells apart only those who stand apart."""
    labels: tuple[str, ...] = ("person",)
    """What the segmenter calls your subjects."""
    smallest: float = 0.02
    """Silhouettes that fill less of the picture are nobody."""
    clip: str = ""
    """Folder of a CLIP model of transformers, to tell which silhouette is which word; without one the words are taken
    from left to right."""


@checked
class Adapter:
    """[adapter]: what is trained."""

    rank: int = 0
    """0 trains whole W_q, W_k, W_v (the paper); r trains differences of rank r to the base model's (ours)."""
    router: Literal["linear", "mlp"] = "linear"
    """f of eq. 5: one linear layer, or two."""
    output_projection: Literal["shared", "own"] = "shared"
    """Whether the personalised branch has a W_o of its own (the equations name none)."""
    start: str = ""
    """An adapter file to go on from; with train.only_routers, the one whose routers are trained: an IP-Adapter, too."""


@checked
class Validation:
    """[validation]: the sheet of pictures that is painted now and then: prior only, personalised, router map."""

    every: int = 500
    """Steps between sheets; 0 for none."""
    prompts: tuple[str, ...] = ("a photo of a man reading in a cafe", "a photo of a woman on a beach")
    """The first word that may be a subject becomes the subject."""
    references: tuple[str, ...] = ()
    """Pictures of subjects; without any, the first pictures of the data."""
    steps: int = 20
    """Sampling steps."""
    guidance: float = 5.0
    """Classifier-free guidance."""


@checked
class Train(TrainConfig):
    """[train]: see `moa_attention/training/config.py`."""


@checked
class Evaluation:
    """[evaluation]: what `dev.py eval config.toml` paints and what it measures with. What is not given is left out."""

    people: str
    """Folder with one picture of each subject: name.jpg, its word in name.txt (such as woman), optionally its mask as in
    the training folder, and name.other.jpg, another picture of the same subject."""
    adapter: str = ""
    """Adapter file; without one, the adapter.safetensors of the output folder."""
    prompts: str = ""
    """Text file with a prompt on each line, {} where the subject's word goes; without one, 40 of our own."""
    pair_prompts: str = ""
    """The same for two subjects, with two {}; without one, 21 of our own."""
    pictures: int = pydantic.Field(default=4, ge=1)
    """Of each prompt, with seeds one after the other."""
    pairs: int | None = pydantic.Field(default=None, ge=0)
    """How many pairs of subjects, evenly chosen; 0 for none, all when left out."""
    steps: int = 50
    """Sampling steps."""
    guidance: float = 5.0
    """Classifier-free guidance."""
    seed: int = 42
    """Of the first picture of each prompt."""
    strength: float = 1.0
    """As of the node Apply MoA."""
    start: float = 0.0
    """From which part of the sampling on the subjects speak: start_percent of Apply MoA."""
    side: int = 0
    """Pixels of a picture's side; 0 for data.side."""
    regions: Literal["segmenter", "router"] = "segmenter"
    """Who says where subjects are: the segmenter of [prepare] (without one there, the small one for people), or MoA's own
    router, which then cannot be wrong."""
    clip: str = ""
    """Folder of a CLIP model of transformers (the protocol: clip-vit-large-patch14): prompt consistency, likeness."""
    face: str = ""
    """Folder `model` of the npm package @vladmandic/face-api: identity of faces."""


@checked
class Settings:
    """A whole config file."""

    output: Path
    """Folder for the adapter, the resumable state, the log, the sheets and the cache."""
    models: Models
    data: Data
    train: Train
    prepare: Prepare = field(default_factory=Prepare)
    adapter: Adapter = field(default_factory=Adapter)
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation | None = None


class SettingsError(ValueError):
    """The file says something that cannot be meant."""


def read_settings(path: Path) -> Settings:
    """Read a config file. Relative paths in it are meant from where the command is run.

    Raises: SettingsError naming the field and what is wrong with it.
    """
    try:
        tables = tomli.loads(path.read_text(encoding="utf-8"))
        return pydantic.TypeAdapter(Settings).validate_python(tables)
    except FileNotFoundError as error:
        raise SettingsError(f"There is no config file {path}.") from error
    except tomli.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except pydantic.ValidationError as error:
        wrong = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SettingsError("\n".join([f"{path} has mistakes:", *wrong])) from error


def check_model_folder(field: str, folder: str, example: str) -> None:
    """Raises: SettingsError when a folder holds no model of transformers: a name is no request to fetch one."""
    if not (Path(folder) / "config.json").is_file():
        raise SettingsError(
            f"{field}: {Path(folder).resolve()} holds no model of transformers. It must be a folder on this machine with "
            f"config.json, weights and processor files, such as {example} has."
        )
