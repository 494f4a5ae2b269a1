"""The pictures of an evaluation on the disk: each is sampled once, and named by a hash of everything it depends on."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....moa_attention.formats.atomic import replacing
from ....moa_attention.formats.fingerprint import fingerprint
from ....nodes.host.training.sampler import SAMPLER, SCHEDULE, HostSampler
from ....nodes.sockets import LoadedAdapter, Subject
from .protocol import EvaluationCase

PRIOR = "prior"
"""The column without the adapter."""
MAP_SCALE = 65535
"""The value of R_1 = 1 in a stored map."""


class GeneratedPicture(NamedTuple):
    """A picture and its router map."""

    picture: Tensor
    """(3,H,W) in [0,1]"""
    router_map: Tensor | None
    """Mean R_1 (h,w); None without the adapter."""


class Gallery:
    """Samples cases in columns and reads them back.

    Args:
        features: image features (1,F) of each subject, by its name.
        columns: the prior's bias of each column, None for the one without the adapter.
        start: as of the node Apply MoA.
    """

    def __init__(
        self, folder: Path, sampler: HostSampler, adapter: LoadedAdapter, features: Mapping[str, Tensor],
        columns: Mapping[str, float | None], start: float,
    ):  # fmt: skip
        self.folder, self.sampler, self.adapter = folder, sampler, adapter
        self.features, self.columns, self.start = features, columns, start
        models = (sampler.model.model.diffusion_model, sampler.clip.cond_stage_model, sampler.vae.first_stage_model)
        self.base = fingerprint(*models)
        self.added = fingerprint(adapter.patcher.model)

    def path(self, case: EvaluationCase, column: str) -> Path:
        """The path of a picture: a readable name, and a hash of all that it depends on.

        Without the adapter it does not depend on the subjects: all subjects of one word share it.
        """
        bias = self.columns[column]
        inputs = [self.base, self.sampler.shape, self.sampler.steps, self.sampler.guidance, SAMPLER, SCHEDULE]
        inputs += [case.text, case.seed]
        if bias is not None:
            features = [self.features[p.name].numpy().tobytes().hex() for p in case.people]
            inputs += [self.added, bias, self.start, case.occurrences, *features]
        digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]
        names = [] if bias is None else [p.name for p in case.people]
        name = re.sub(r"[^\w.-]+", "_", "-".join([case.text[:48], *names, column, str(case.seed), digest]))
        return self.folder / f"{name}.png"

    def missing(self, cases: list[EvaluationCase]) -> list[tuple[EvaluationCase, str]]:
        """The pictures that do not exist yet, each once."""
        wanted = {self.path(case, column): (case, column) for case in cases for column in self.columns}
        return [entry for path, entry in wanted.items() if not path.is_file()]

    @torch.no_grad()
    def sample(self, case: EvaluationCase, column: str) -> None:
        """Sample and store. The picture is renamed last, so that a stopped run leaves whole pictures only."""
        bias, path = self.columns[column], self.path(case, column)
        options = {} if bias is None else {"adapter": self.adapter.patcher, "prior_bias": bias, "start": self.start}
        subjects = [] if bias is None else self.subjects(case)
        picture, router_map = self.sampler.picture(case.text, subjects, case.seed, **options)
        if router_map is not None:
            Image.fromarray((router_map * MAP_SCALE).round().numpy().astype(np.uint16)).save(map_path(path))
        with replacing(path) as part:
            Image.fromarray((picture * 255).round().byte().numpy()).save(part, format="PNG")

    def subjects(self, case: EvaluationCase) -> list[Subject]:
        """The subjects of a case, bound to their own occurrences of their words."""
        return [
            Subject(person.word, occurrence, self.features[person.name], self.adapter.encoder)
            for person, occurrence in zip(case.people, case.occurrences, strict=True)
        ]

    def read(self, case: EvaluationCase, column: str) -> GeneratedPicture:
        """A picture that exists."""
        path = self.path(case, column)
        picture = torch.from_numpy(np.array(Image.open(path))).movedim(-1, 0).float() / 255
        if self.columns[column] is None:
            return GeneratedPicture(picture, None)
        return GeneratedPicture(
            picture, torch.from_numpy(np.array(Image.open(map_path(path))).astype(np.float32)) / MAP_SCALE
        )


def map_path(path: Path) -> Path:
    """The path of a picture's router map."""
    return path.with_name(f"{path.stem}.router.png")
