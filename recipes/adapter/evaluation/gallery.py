"""The pictures of an evaluation on the disk: each is painted once, and found by everything that it was made from."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....moa_attention.fingerprint import fingerprint
from ....nodes.painter import SAMPLER, SCHEDULE, Painter
from ....nodes.sockets import Adapter, Subject
from .protocol import Case

PRIOR = "prior"
"""The column without the adapter."""
DEEP = 65535
"""What R_1 = 1 is in a stored map."""


class Painted(NamedTuple):
    """A picture and where the personalised branch spoke."""

    picture: Tensor
    """(3,H,W) in [0,1]"""
    spoke: Tensor | None
    """Mean R_1 (h,w); None without the adapter."""


class Gallery:
    """Paints cases in columns and reads them back.

    Args:
        features: image features (1,F) of each subject, by its name.
        columns: the prior's bias of each column, None for the one without the adapter.
        start: as of the node Apply MoA.
    """

    def __init__(
        self, folder: Path, painter: Painter, adapter: Adapter, features: Mapping[str, Tensor],
        columns: Mapping[str, float | None], start: float,
    ):  # fmt: skip
        self.folder, self.painter, self.adapter = folder, painter, adapter
        self.features, self.columns, self.start = features, columns, start
        models = (painter.model.model.diffusion_model, painter.clip.cond_stage_model, painter.vae.first_stage_model)
        self.base = fingerprint(*models)
        self.added = fingerprint(adapter.patcher.model)

    def path(self, case: Case, column: str) -> Path:
        """Where a picture lies: a name for people, and a digest of all that it depends on.

        Without the adapter nobody matters: those pictures are shared by all subjects of one word.
        """
        bias = self.columns[column]
        made_of = [self.base, self.painter.shape, self.painter.steps, self.painter.guidance, SAMPLER, SCHEDULE]
        made_of += [case.text, case.seed]
        if bias is not None:
            seen = [self.features[p.name].numpy().tobytes().hex() for p in case.people]
            made_of += [self.added, bias, self.start, case.occurrences, *seen]
        digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
        who = [] if bias is None else [p.name for p in case.people]
        name = re.sub(r"[^\w.-]+", "_", "-".join([case.text[:48], *who, column, str(case.seed), digest]))
        return self.folder / f"{name}.png"

    def missing(self, cases: list[Case]) -> list[tuple[Case, str]]:
        """What is not painted yet, nothing twice."""
        wanted = {self.path(case, column): (case, column) for case in cases for column in self.columns}
        return [made for path, made in wanted.items() if not path.is_file()]

    @torch.no_grad()
    def paint(self, case: Case, column: str) -> None:
        """Paint and store. The picture is renamed into place last, so a stopped run leaves whole ones or none."""
        bias, path = self.columns[column], self.path(case, column)
        options = {} if bias is None else {"adapter": self.adapter.patcher, "prior_bias": bias, "start": self.start}
        subjects = [] if bias is None else self.subjects(case)
        picture, spoke = self.painter.paint(case.text, subjects, case.seed, **options)
        if spoke is not None:
            Image.fromarray((spoke * DEEP).round().numpy().astype(np.uint16)).save(map_path(path))
        part = path.with_suffix(".part")
        Image.fromarray((picture * 255).round().byte().numpy()).save(part, format="PNG")
        os.replace(part, path)

    def subjects(self, case: Case) -> list[Subject]:
        """Bound to their own occurrences of their words."""
        return [
            Subject(person.word, occurrence, self.features[person.name], self.adapter.encoder)
            for person, occurrence in zip(case.people, case.occurrences, strict=True)
        ]

    def read(self, case: Case, column: str) -> Painted:
        """What was painted."""
        path = self.path(case, column)
        picture = torch.from_numpy(np.array(Image.open(path))).movedim(-1, 0).float() / 255
        if self.columns[column] is None:
            return Painted(picture, None)
        return Painted(picture, torch.from_numpy(np.array(Image.open(map_path(path))).astype(np.float32)) / DEEP)


def map_path(path: Path) -> Path:
    """Where the map of a picture lies."""
    return path.with_name(f"{path.stem}.router.png")
