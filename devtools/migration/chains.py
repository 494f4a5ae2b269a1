"""Chains of IP-Adapter nodes on a model become an Apply MoA for each adapter, and subjects of the samplers' positive prompts."""

from __future__ import annotations

from typing import Any

from .graph import Graph, Link, Use
from .knobs import ROUTER
from .ours import SUBJECTS
from .report import Report
from .subjects import Key, Subjects
from .theirs import APPLY, LEFT, LOADERS

STYLES = {False: "style transfer", True: "strong style transfer"}
"""Weight types of the style's picture, by `expand_style`."""


class Chains:
    """Migrates the apply nodes of a graph."""

    def __init__(self, graph: Graph, report: Report):
        self.graph, self.report, self.subjects = graph, report, Subjects(graph, report)
        self.keys: dict[str, Key] = {}
        """The adapter of each apply node that is migrated."""
        self.prompts: dict[str, list[Link]] = {}
        """Subjects with settings of each apply node, with those of the nodes before it."""
        self.regions: dict[str, Link] = {}
        """Those of regions, by their nodes."""
        self.added: dict[tuple[Link, tuple[Link, ...]], Link] = {}
        """Prompts with subjects, by both."""
        self.uses: dict[str, list[Use]] = {}
        """The prompts of samplers behind each migrated node."""
        self.next_to: dict[str, str | None] = {}
        """The apply node before each of them."""

    def run(self) -> None:
        """Migrate all of them, the first on a model first."""
        for node in self.order():
            self.read(node)
        self.uses = {node: self.reach(Link(node, 0)) for node in self.prompts}
        self.next_to = {node: self.before(node) for node in self.prompts}
        for node in self.prompts:
            self.replace(node)

    def order(self) -> list[str]:
        """The apply nodes, each after those before it on the model."""
        nodes, found = [n for n in self.graph.ids() if self.graph.kind(n) in APPLY and self.graph.active(n)], []

        def visit(node: str) -> None:
            before = self.before(node)
            if before is not None and before not in found:
                visit(before)
            found.extend([node] if node not in found else [])

        for node in nodes:
            visit(node)
        return found

    def before(self, node: str) -> str | None:
        """The apply node before another on its model."""
        seen, source = {node}, self.graph.inputs(node).get("model")
        while isinstance(source, Link) and source.node not in seen:
            if self.graph.kind(source.node) in (*APPLY, *LEFT) and self.graph.active(source.node):
                return source.node if self.graph.kind(source.node) in APPLY else None
            seen.add(source.node)
            inputs = self.graph.inputs(source.node)
            source = inputs.get("model") or next((v for v in inputs.values() if isinstance(v, Link)), None)
        return None

    def read(self, node: str) -> None:
        """Decide whether a node is migrated, and make its subjects."""
        before, loader = self.before(node), self.subjects.loader(node)
        why = self.obstacle(node, loader)
        own = [] if why or loader is None else self.own_subjects(node, loader)
        if why or not own or loader is None:
            return self.report.stays(node, why or "its pictures or embeds come from a node that is not known")
        self.keys[node], self.prompts[node] = self.subjects.key(loader), [*self.prompts.get(before or "", []), *own]
        return None

    def obstacle(self, node: str, loader: str | None) -> str:
        """Why a node cannot be migrated; empty if it can."""
        if loader is None:
            return "its 'ipadapter' comes from no loader of IPAdapter_plus"
        if "kolors" in str(self.graph.inputs(loader)).lower():
            return "Kolors files are not read"
        weight = self.graph.inputs(node).get("weight")
        if (
            isinstance(weight, Link)
            and self.graph.kind(node).endswith("Batch")
            and self.subjects.weights_of_frames(weight) is None
        ):
            return LEFT["IPAdapterCombineWeights"]
        return ""

    def own_subjects(self, node: str, loader: str) -> list[Link]:
        """The subjects of one apply node, with their settings."""
        given, make = self.graph.inputs(node), self.subjects.with_settings
        mask, embeds = given.get("attn_mask"), given.get("pos_embed")
        if self.graph.kind(node) == "IPAdapterFromParams":
            return [
                s
                for region in self.params(given.get("ipadapter_params"))
                for s in self.of_region(region, loader, given)
            ]
        if isinstance(embeds, Link):
            subject = self.subjects.embeds(embeds, loader, given.get("clip_vision"))
            return [make(node, subject, given, given.get("weight", 1.0), mask)] if subject else []
        if isinstance(style := given.get("image_style"), Link):
            types = {"style": STYLES[bool(given.get("expand_style"))], "composition": "composition"}
            pictures = {"style": style, "composition": given.get("image_composition") or style}
            return [
                make(
                    node,
                    self.subjects.encode(node, loader, pictures[part]),
                    {**given, "weight_type": types[part]},
                    given[f"weight_{part}"],
                    mask,
                )
                for part in types
            ]
        if not isinstance(given.get("image"), Link):
            return []
        return [make(node, self.subjects.encode(node, loader, given["image"]), given, given.get("weight", 1.0), mask)]

    def params(self, source: Any) -> list[str]:
        """The nodes of regions behind a list of parameters."""
        if not isinstance(source, Link):
            return []
        if self.graph.kind(source.node) == "IPAdapterRegionalConditioning":
            return [source.node]
        inputs = self.graph.inputs(source.node)
        return [node for i in range(1, 6) for node in self.params(inputs.get(f"params_{i}"))]

    def of_region(self, region: str, loader: str, apply: dict[str, Any]) -> list[Link]:
        """The subject of a region."""
        given = {**self.graph.inputs(region), "embeds_scaling": apply.get("embeds_scaling", "V only")}
        if not isinstance(given.get("image"), Link):
            return []
        subject = self.subjects.encode(region, loader, given["image"])
        self.regions[region] = self.subjects.with_settings(
            region, subject, given, given.get("image_weight", 1.0), given.get("mask")
        )
        return [self.regions[region]]

    def ends(self, node: str, key: Key) -> bool:
        """Whether the model behind an apply node is used without another node for the same adapter."""
        after = [other for other in self.prompts if self.next_to[other] == node]
        return bool(self.uses[node]) or not after or any(self.keys[n] != key and self.ends(n, key) for n in after)

    def replace(self, node: str) -> None:
        """Put Apply MoA in the place of an apply node, unless a later one on the model has its adapter and subjects, too."""
        given, subjects, uses = self.graph.inputs(node), self.prompts[node], self.uses[node]
        model = self.subjects.source_of_model(given.get("model"))
        if not self.ends(node, self.keys[node]):
            return self.graph.redirect(Link(node, 0), model)
        models = self.subjects.models_of(self.subjects.loader(node) or "")
        inputs: dict[str, Any] = {"model": model, "adapter": models.adapter, "router": ROUTER}
        inputs |= {"faceid_lora": models.lora} if models.face else {}
        inputs |= self.negative(node, given)
        made = self.graph.add("ApplyMoA", "Apply MoA", inputs, node)
        self.report.became(node, "ApplyMoA", *(["MoAAddSubjects"] if uses else []))
        self.graph.redirect(Link(node, 0), Link(made, 0))
        self.without_tiles(node, given)
        if not uses and node not in self.next_to.values():
            self.report.differs(
                node, ["no sampler was found behind it; add its subjects to the prompt with 'Add Subjects (MoA)'"]
            )
        for use in uses:
            source = self.graph.inputs(use.node)[use.name]
            if (source, tuple(subjects)) not in self.added:
                filled = {"conditioning": source, **{f"{SUBJECTS}{i}": s for i, s in enumerate(subjects)}}
                added = self.graph.add("MoAAddSubjects", "Add Subjects (MoA)", filled, use.node)
                self.added[source, tuple(subjects)] = Link(added, 0)
            self.graph.connect(use, self.added[source, tuple(subjects)])
        return None

    def without_tiles(self, node: str, given: dict[str, Any]) -> None:
        """What shows the tiles of a picture gets the picture."""
        outputs = (
            {"tiles": given.get("image"), "masks": given.get("attn_mask")} if "Tiled" in self.graph.kind(node) else {}
        )
        for slot, (name, source) in enumerate(outputs.items(), start=1):
            if self.graph.users(Link(node, slot)):
                self.graph.redirect(Link(node, slot), source)
                self.report.differs(node, [f"the output '{name}' is the whole {'picture' if slot == 1 else 'mask'}"])

    def negative(self, node: str, given: dict[str, Any]) -> dict[str, Any]:
        """The negative picture of an apply node, as an input of Apply MoA."""
        loader, image, embeds = self.subjects.loader(node) or "", given.get("image_negative"), given.get("neg_embed")
        subject = self.subjects.encode(node, loader, image) if isinstance(image, Link) else None
        if isinstance(embeds, Link):
            subject = self.subjects.embeds(embeds, loader)
        return {"negative_subject": subject} if subject else {}

    def reach(self, model: Link, seen: tuple[str, ...] = ()) -> list[Use]:
        """The positive prompts of the samplers that a model reaches without another migrated apply node between."""
        found: list[Use] = []
        for use in self.graph.users(model):
            if use.node in self.prompts or use.node in seen:
                continue
            if self.graph.kind(use.node) in LOADERS:
                found += self.reach(Link(use.node, 0), (*seen, use.node)) if use.name == "model" else []
                continue
            prompts = [
                Use(use.node, n)
                for n in self.graph.inputs(use.node)
                if self.graph.type_of(Use(use.node, n)) == "CONDITIONING"
            ]
            found += [p for p in prompts if "negative" not in p.name]
            if not prompts:
                slots = sorted({self.graph.inputs(u.node)[u.name].slot for u in self.graph.outputs_in_use(use.node)})
                found += [u for slot in slots for u in self.reach(Link(use.node, slot), (*seen, use.node))]
        return list(dict.fromkeys(found))
