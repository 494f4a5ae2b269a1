"""Loaders, pictures and embeds of IPAdapter_plus as adapters and subjects of this extension."""

from __future__ import annotations

from typing import Any, NamedTuple

from .graph import Graph, Link
from .knobs import COMBINE, WORD, boosted, encoding, layer_weights, settings, weights_of_frames
from .ours import SUBJECTS
from .report import Report
from .theirs import APPLY, LOADERS

BLUR = 5
"""Of noise with blur, in pixels."""
RECOGNISER = "the InsightFace loader still comes from IPAdapter_plus; that of any pack does"
Key = tuple[Any, ...]


class Models(NamedTuple):
    """A loader's counterpart."""

    key: Key
    """Equal where the files are the same."""
    adapter: Link
    vision: Link | None
    face: bool
    """Whether it reads a face embedding."""
    version: str
    """Of a FaceID Plus file."""
    lora: Any
    """Strength of the LoRA in a FaceID file; 0 where a LoRA loader applies it."""


class Subjects:
    """Makes each counterpart once."""

    def __init__(self, graph: Graph, report: Report):
        self.graph, self.report = graph, report
        self.models: dict[str, Models] = {}
        self.made: dict[Any, Link] = {}
        """Subjects by the embeds, or by the node and picture, that they stand for."""

    def loader(self, node: str) -> str | None:
        """The loader that a node's `ipadapter` comes from."""
        source = self.graph.inputs(node).get("ipadapter")
        while isinstance(source, Link) and self.graph.kind(source.node) not in LOADERS:
            source = next((v for v in self.graph.inputs(source.node).values() if isinstance(v, Link)), None)
        return source.node if isinstance(source, Link) else None

    def key(self, loader: str) -> Key:
        """Equal for loaders of the same file."""
        given = self.graph.inputs(loader)
        return given.get("ipadapter_file"), given.get("preset"), self.root_of_model(given.get("model"))

    def models_of(self, loader: str) -> Models:
        """The counterpart of a loader; loaders of one file have one."""
        key = self.key(loader)
        known = next((found for found in self.models.values() if found.key == key), None)
        if loader not in self.models:
            self.models[loader] = known or self.new_models(loader, key)
            self.report.became(loader, self.graph.kind(self.models[loader].adapter.node))
        return self.models[loader]

    def new_models(self, loader: str, key: Key) -> Models:
        """A new loader."""
        given = self.graph.inputs(loader)
        if self.graph.kind(loader) == "IPAdapterModelLoader":
            file = str(given["ipadapter_file"])
            node = self.graph.add("LoadMoAAdapter", "Load MoA Adapter", {"adapter_file": f"ipadapter/{file}"}, loader)
            version = "2" if "plusv2" in file.lower() else "1"
            return Models(key, Link(node, 0), None, "faceid" in file.lower(), version, 0.0)
        preset, inputs = given["preset"], {"model": self.root_of_model(given["model"]), "preset": given["preset"]}
        node = self.graph.add("MoALoadIPAdapter", "Load IP-Adapter (MoA)", inputs, loader)
        face, version, lora = "FACEID" in preset, "2" if "V2" in preset else "1", given.get("lora_strength", 1.0)
        return Models(key, Link(node, 0), Link(node, 1), face, version, lora)

    def source_of_model(self, link: Any) -> Any:
        """A model behind the loaders that pass it through."""
        while isinstance(link, Link) and self.graph.kind(link.node) in LOADERS:
            link = self.graph.inputs(link.node).get("model")
        return link

    def root_of_model(self, link: Any) -> Any:
        """A model before all nodes with image prompts, whose family decides on the file of a preset."""
        while isinstance(link, Link) and self.graph.kind(link.node) in (*LOADERS, *APPLY):
            link = self.graph.inputs(link.node).get("model")
        return link

    def base_of(self, node: str) -> str:
        """sdxl where the name of a file behind a node's model says so, else sd15."""
        names, link = [], self.graph.inputs(node).get("model")
        while isinstance(link, Link):
            names += [str(value).lower() for value in self.graph.values(link.node)]
            link = self.graph.inputs(link.node).get("model")
        return "sdxl" if any("xl" in name for name in names) else "sd15"

    def encode(self, node: str, loader: str, image: Link, mask: Any = None) -> Link:
        """The subject of pictures.

        Args: node: the node of IPAdapter_plus that encodes them.
        """
        if (node, image) in self.made:
            return self.made[node, image]
        models, given = self.models_of(loader), self.graph.inputs(node)
        inputs = encoding(given, self.graph.kind(node))
        inputs |= {"adapter": models.adapter, "images": image}
        vision = given.get("clip_vision") or models.vision
        inputs |= {"clip_vision": vision} if vision else {}
        inputs |= {"mask": mask} if isinstance(mask, Link) else {}
        inputs |= self.noise(inputs["images"])
        inputs |= self.face(node, image, given, models.version) if models.face else {}
        self.made[node, image] = Link(self.graph.add("SubjectEncode", "Encode Subject (MoA)", inputs, node), 0)
        return self.made[node, image]

    def face(self, node: str, image: Link, given: dict[str, Any], version: str) -> dict[str, Any]:
        """The inputs of a subject of a FaceID file; another pack's recogniser remains."""
        recogniser = given.get("insightface")
        if recogniser is None:
            loaders = [n for n in self.graph.ids() if self.graph.kind(n) == "IPAdapterInsightFaceLoader"]
            loaders = loaders or [
                self.graph.add("IPAdapterInsightFaceLoader", "InsightFace loader of another pack", {}, node)
            ]
            recogniser = Link(loaders[0], 0)
        found = self.graph.add(
            "MoAFaceEmbedding", "Face Embedding (MoA)", {"images": image, "recogniser": recogniser}, node
        )
        self.graph.redirect(Link(node, 1), Link(found, 1))
        self.report.differs(node, [RECOGNISER])
        return {"face": Link(found, 0), "images": Link(found, 1), "faceid_plus": version}

    def noise(self, image: Link) -> dict[str, Any]:
        """The inputs of a subject for a picture with noise; none for any other."""
        if self.graph.kind(image.node) != "IPAdapterNoise":
            return {}
        given = self.graph.inputs(image.node)
        picture = given.get("image_optional") or Link(self.graph.add("EmptyImage", "Black picture", {}, image.node), 0)
        kind, blurred = given.get("type", "fade"), given.get("blur", 0) // 2 * 2 + 1 if given.get("blur") else 0
        self.report.differs(image.node, [f"blur {given['blur']} becomes {BLUR}"] if blurred not in (0, BLUR) else [])
        self.report.became(image.node, "SubjectEncode")
        return {
            "images": picture,
            "noise": f"{kind}, blurred" if blurred else kind,
            "noise_strength": given.get("strength", 1.0),
        }

    def weights_of_frames(self, weight: Any) -> list[float] | None:
        """The weights of single frames; None where it is one weight, or they are not known."""
        if not isinstance(weight, Link) or self.graph.kind(weight.node) != "IPAdapterWeights" or weight.slot > 1:
            return None
        return weights_of_frames(self.graph.inputs(weight.node), reverse=weight.slot == 1)

    def with_settings(self, node: str, subject: Link, given: dict[str, Any], weight: Any, mask: Any) -> Link:
        """A subject with its strength, window, region and weight type."""
        frames = self.weights_of_frames(weight)
        inputs, notes = settings(given, self.graph.kind(node), weight if frames is None else 1.0)
        inputs |= {"weights": ", ".join(f"{round(frame, 6):g}" for frame in frames)} if frames else {}
        self.report.differs(node, notes)
        inputs |= {"subject": subject} | ({"region": mask} if isinstance(mask, Link) else {})
        layers, notes = boosted(given, weight, self.base_of(node))
        self.report.differs(node, notes)
        layers = layer_weights(given["layer_weights"]) if given.get("layer_weights") else layers
        if layers:
            added = self.graph.add("MoALayerStrength", "Layer Strength (MoA)", layers, node)
            inputs["layer_strength"] = Link(added, 0)
        self.report.became(node, self.graph.kind(subject.node), "MoASubjectSettings")
        return Link(self.graph.add("MoASubjectSettings", "Subject Settings (MoA)", inputs, node), 0)

    def embeds(self, source: Link, loader: str | None, vision: Any = None) -> Link | None:
        """The subject of embeds; None for the embeds of an empty picture, and for those of other packs.

        Args: loader: of the adapter for a file of embeds; vision: the CLIP vision model of its node.
        """
        if source in self.made:
            return self.made[source]
        node, given, kind = source.node, self.graph.inputs(source.node), self.graph.kind(source.node)
        subject = None
        if kind == "IPAdapterEncoder" and source.slot == 0 and (own := self.loader(node)):
            subject = self.encode(node, own, given["image"], given.get("mask"))
            masked = ["the picture is cropped to its mask"] if isinstance(given.get("mask"), Link) else []
            single = given.get("weight", 1.0) != 1 and not any(
                self.graph.kind(use.node) == "IPAdapterCombineEmbeds" for use in self.graph.users(source)
            )
            self.report.differs(node, masked + ([f"weight {given['weight']} is not carried over"] if single else []))
        elif kind == "IPAdapterLoadEmbeds" and loader:
            models = self.models_of(loader)
            inputs = {"adapter": models.adapter, "embeds_file": given["embeds"], "word": WORD}
            vision = vision or models.vision
            inputs |= {"clip_vision": vision} if vision else {}
            subject = Link(self.graph.add("MoALoadEmbeds", "Load Embeds (MoA)", inputs, node), 0)
        elif kind == "IPAdapterCombineEmbeds":
            subject = self.combine(node, given, loader, vision)
        if subject is not None:
            self.report.became(node, self.graph.kind(subject.node))
            self.made[source] = subject
        return subject

    def combine(self, node: str, given: dict[str, Any], loader: str | None, vision: Any) -> Link | None:
        """Several embeds as one subject."""
        sources = [given[name] for name in (f"embed{i}" for i in range(1, 6)) if isinstance(given.get(name), Link)]
        found = [part for part in (self.embeds(source, loader, vision) for source in sources) if part is not None]
        if len(found) < 2:
            return found[0] if found else None
        method = str(given.get("method", "concat"))
        how = "mean" if method in ("max", "min") else COMBINE.get(method, method)
        notes = [] if how == "concat" else [f"method '{method}' becomes '{how}', after the projection"]
        weights = [float(self.graph.inputs(source.node).get("weight", 1.0)) for source in sources]
        weighted = how != "concat" and min(weights) >= 0 and len(found) == len(sources) and set(weights) != {1.0}
        if not weighted and set(weights) != {1.0}:
            notes.append(f"the weights {', '.join(f'{w:g}' for w in weights)} are not carried over")
        inputs: dict[str, Any] = {"how": how, **{f"{SUBJECTS}{i}": part for i, part in enumerate(found)}}
        inputs |= {"weights": ", ".join(f"{w:g}" for w in weights)} if weighted else {}
        self.report.differs(node, notes)
        return Link(self.graph.add("MoASubjectCombine", "Combine Pictures (MoA)", inputs, node), 0)
