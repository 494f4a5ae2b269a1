"""Train MoA Adapter: training inside ComfyUI, with the loop of the command line."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from comfy_api.latest import io

from ..moa_attention.adapters.moa import MoAAdapter
from ..moa_attention.formats.fingerprint import fingerprint
from ..moa_attention.training.config import AdapterConfig, PictureConfig, SheetConfig, TrainConfig, check_start
from ..moa_attention.training.data.folder import read_pictures
from ..moa_attention.training.data.listing import folder_fingerprint
from ..moa_attention.training.field_docs import field_docs
from ..moa_attention.training.rules import rule_of
from ..moa_attention.training.saved.log import read_losses
from ..moa_attention.training.saved.settings import RunSettings
from .host.files.folders import inside
from .host.files.input_folders import input_folders
from .host.model.patch import without_adapters
from .host.training.encoders import HostEncoders
from .host.training.run import LOG, PICTURES, HostRun, for_sampling, with_trained_routers
from .host.training.trainable import LoadedModels, models_for_routers, trainable_adapter
from .sockets import CATEGORY, AdapterSocket, LoadedAdapter

LossMap = io.Custom("LOSS_MAP")
"""The host's own: `{"loss": [...]}`, for its node Plot Loss Graph."""
RUNS = "moa_training"
"""Folder of ComfyUI's output folder in which runs keep state, log and cache."""
CONFIGS = (TrainConfig, AdapterConfig, PictureConfig)
DEFAULTS = {"steps": 2000, "batch_size": 16, "learning_rate": 1e-4, "rank": 64, "checkpointing": True}
"""Where the node's defaults differ from those of config files: a first run on one consumer card, of a low rank with the
learning rate that it takes. Saved workflows rely on them."""
INPUTS: dict[str, dict[str, Any]] = {
    "steps": {},
    "batch_size": {},
    "micro_batch": {"advanced": True},
    "learning_rate": {"step": 1e-7, "round": False},
    "rank": {},
    "side": {},
    "checkpointing": {"advanced": True},
    "seed": {"control_after_generate": False},
}
"""The settings that are inputs of the node, in their order, with the options of their widgets."""
LATER_INPUTS: dict[str, dict[str, Any]] = {
    "only_routers": {"advanced": True, "optional": True},
    "router_foreground": {"advanced": True, "optional": True, "step": 0.05},
}
"""The same after all other inputs."""
WIDGETS: dict[type, type] = {int: io.Int.Input, float: io.Float.Input, bool: io.Boolean.Input}


def setting_inputs(inputs: dict[str, dict[str, Any]]) -> list[io.Input]:
    """An input for each of these settings; default, range and tooltip are those of the field of the same name in `CONFIGS`."""
    docs = {name: doc for config in CONFIGS for name, doc in field_docs(config).items()}
    entries = {field.name: field for config in CONFIGS for field in fields(config)}
    defaults = {name: field.default for name, field in entries.items() if field.default is not MISSING} | DEFAULTS
    return [
        WIDGETS[type(defaults[name])](
            name, default=defaults[name], tooltip=docs[name], **widget_range(entries[name]), **options
        )
        for name, options in inputs.items()
    ]


def widget_range(field: Field[Any]) -> dict[str, Any]:
    """The range of a setting as a widget's options."""
    rule = rule_of(field)
    found = {"min": rule.low, "max": rule.high, "step": rule.multiple or None}
    return {name: value for name, value in found.items() if value is not None}


def pictures_folder(name: str) -> Path:
    """A folder of pictures inside ComfyUI's input folder.

    Raises: ValueError as `inside`.
    """
    return inside(folder_paths.get_input_directory(), name)


class MoATrain(io.ComfyNode):
    """A folder of pictures -> MOA_ADAPTER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoATrain",
            display_name="Train MoA Adapter",
            category=CATEGORY,
            description="Trains an adapter for this model on a folder of pictures with captions and masks. If a run was cancelled "
            "or killed, queue the node again with the same name: the run continues.",
            search_aliases=["moa train", "train adapter", "finetune", "train subject adapter"],
            is_experimental=True,
            inputs=[
                io.Model.Input("model", tooltip="The base model; it is not changed."),
                io.Clip.Input("clip", tooltip="The base model's text encoder."),
                io.Vae.Input("vae", tooltip="The base model's VAE."),
                io.Combo.Input(
                    "folder",
                    options=input_folders(),
                    tooltip="A folder inside ComfyUI's input folder, at most three levels deep, with a .txt caption and a mask beside every picture (see the "
                    "help page), or in FastComposer's layout.",
                ),
                io.String.Input(
                    "name", default="my_adapter", tooltip="Name of the run, and of the folder with its state and cache."
                ),
                *setting_inputs(INPUTS),
                io.String.Input(
                    "licence",
                    default="not stated",
                    advanced=True,
                    tooltip="Licence of the pictures. It is saved with the adapter.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=250,
                    min=0,
                    max=1_000_000,
                    advanced=True,
                    tooltip="Steps between previews, which show the base model's picture, the personalised one and the router's "
                    "map. 0 gives no previews.",
                ),
                io.String.Input(
                    "preview_prompts",
                    multiline=True,
                    default="a photo of a man on a beach\na photo of a woman in a room",
                    advanced=True,
                    tooltip="One prompt per line, each with a word for a person. In the previews, the first subjects of the folder replace that person.",
                ),
                AdapterSocket.Input(
                    "start",
                    optional=True,
                    tooltip="An adapter whose training continues. 'rank' must be its rank. With 'only_routers', the adapter for which "
                    "routers are trained; it may also be an IP-Adapter.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The CLIP vision model that encodes the subjects. MoA Mini's adapter has its own image encoder.",
                ),
                io.String.Input(
                    "clip_vision_name",
                    default="clip-vit-large-patch14",
                    advanced=True,
                    tooltip="Name of that CLIP vision model. It is saved with the adapter, and messages show it to the adapter's users.",
                ),
                *setting_inputs(LATER_INPUTS),
            ],
            outputs=[
                AdapterSocket.Output(
                    display_name="adapter", tooltip="For Save MoA Adapter, Encode Subject (MoA) and Apply MoA."
                ),
                LossMap.Output(display_name="loss_map", tooltip="For ComfyUI's Plot Loss Graph."),
                io.String.Output(
                    display_name="report", tooltip="How many pictures are used, which are left out, and why."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str, **_: Any) -> str:
        return folder_fingerprint(pictures_folder(folder))

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, folder: str, name: str, steps: int, batch_size: int, micro_batch: int,
        learning_rate: float, rank: int, side: int, checkpointing: bool, seed: int, licence: str, preview_every: int,
        preview_prompts: str, start: LoadedAdapter | None = None, clip_vision: Any = None,
        clip_vision_name: str = "clip-vit-large-patch14", only_routers: bool = False, router_foreground: float = 0.0,
    ) -> io.NodeOutput:  # fmt: skip
        config = TrainConfig(
            steps=steps, batch_size=batch_size, micro_batch=micro_batch, learning_rate=learning_rate,
            checkpointing=checkpointing, seed=seed, only_routers=only_routers, router_foreground=router_foreground,
            precision="float32" if comfy.model_management.cpu_mode() else "bfloat16",
        )  # fmt: skip
        prompts = tuple(line for line in preview_prompts.splitlines() if line.strip())
        output = str(Path(folder_paths.get_output_directory()) / RUNS)
        source, base = pictures_folder(folder), fingerprint(model.model.diffusion_model)
        kept = (
            RunSettings.of(config, AdapterConfig(rank=rank), PictureConfig(side=side))
            .with_values({"folder": folder, "licence": licence, PICTURES: folder_fingerprint(source)})
            .with_values({"model": base, "clip_vision_name": clip_vision_name, "start": start is not None}, fixed=True)
        )
        sheets = SheetConfig(every=preview_every, prompts=prompts)
        run = HostRun(inside(output, name), config, PictureConfig(side=side), sheets, kept)
        changes = run.check()
        models = starting_models(
            (without_adapters(model), clip, vae, clip_vision), clip_vision_name, start, config, rank
        )
        pictures = read_pictures(source)
        cached = run.encode(pictures, models)
        trained = run.train(pictures, models, cached)
        if only_routers or not isinstance(trained, MoAAdapter):
            patcher = with_trained_routers(trained)
        else:
            patcher = for_sampling(trained)
        provenance = {
            "base_fingerprint": base,
            "data": folder,
            "data_licence": licence,
            "pictures": len(cached.entries),
            "config": vars(config),
            "changes": run.changes(),
        }
        made = LoadedAdapter(patcher, name, patcher.model.identity, licence, provenance, models.expert)
        report = "\n".join([*changes, str(cached.report())])
        return io.NodeOutput(made, {"loss": read_losses(run.folder / LOG)}, report)


def starting_models(
    frozen: tuple[Any, Any, Any, Any],
    clip_vision_name: str,
    start: LoadedAdapter | None,
    config: TrainConfig,
    rank: int,
) -> LoadedModels:
    """The encoders and the adapter that is trained.

    Raises: ValueError when `start` is missing, or does not fit the model, the rank or what is trained.
    """
    if config.only_routers:
        if start is None:
            raise ValueError(
                "'only_routers' trains routers for an adapter, and none is connected to 'start' of 'Train MoA Adapter'. "
                "Connect 'Load MoA Adapter' to it."
            )
        return models_for_routers(*frozen, start, AdapterConfig().router)
    if start is not None:
        check_start(start.patcher.model.config, AdapterConfig(rank=rank), ["rank"])
    encoders = HostEncoders(*frozen)
    given = start and start.patcher.model
    adapter = trainable_adapter(frozen[0], encoders, clip_vision_name, given, config.seed, rank=rank)
    return LoadedModels(encoders, adapter, "")
