"""Projects by hand: fields of synthetic cells, labelled, with a split, as a project offers them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Part
from napari_cellpath.core.vocabulary import CLASS_COLOURS, System
from napari_cellpath.models import ClassInfo, ModelInfo, save_model
from napari_cellpath.project import Kind, Project
from napari_cellpath.project.journal import Journal
from napari_cellpath.systems.catalogue import build
from tests.training.conftest import SIDE, draw_cell
from training.datasets import CellRecord
from training.trunk_features import FeatureCache, shipped_features

PER_FIELD = 4


@dataclass
class MadeProject:
    """A project's folder and what `napari_cellpath.project.labelled` gives of it."""

    folder: Path
    labelled: LabelledData

    def relabelled(self, part: Part, label: dict[str, str]) -> MadeProject:
        """The same project with other labels in one part."""
        parts = self.labelled.parts
        images = self.labelled.images
        changed = tuple(
            replace(a, labels=(label[a.labels[0]],)) if parts[images[a.image].group] is part else a
            for a in self.labelled.annotations
        )
        return MadeProject(self.folder, replace(self.labelled, annotations=changed))


def draw_field(rng: np.random.Generator, kinds: list[int], tint: float = 0.0) -> np.ndarray:
    """Cells side by side: 0 small nucleus, 1 large nucleus, 2 small and reddish."""
    cells = []
    for kind in kinds:
        cell = draw_cell(rng, kind == 1)[0].astype(float)
        if kind == 2:
            cell[..., 2] *= 0.45
        cells.append(cell)
    image = np.concatenate(cells, axis=1)
    image[..., 0] *= 1 - tint
    return image.clip(0, 255).astype(np.uint8)


def make_project(
    folder: Path,
    parts: dict[Part, int],
    kinds: tuple[int, ...] = (0, 1, 2),
    names: dict[int, str] | None = None,
    seed: int = 0,
) -> MadeProject:
    """Fields of `PER_FIELD` cells, one a slide; ``parts`` says how many slides each part has."""
    names = names or {0: "normal", 1: "abnormal", 2: "abnormal"}
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations, ledger = {}, [], {}
    number = 0
    for part, n in parts.items():
        for _ in range(n):
            chosen = [kinds[(number + i) % len(kinds)] for i in range(PER_FIELD)]
            path = folder / f"field-{number:03d}.png"
            Image.fromarray(draw_field(rng, chosen)).save(path)
            key, group = f"key-{number:03d}", f"slide-{number:03d}"
            images[key] = ImageFacts(key, path.name, str(path), SIDE, SIDE * PER_FIELD, None, group)
            ledger[group] = part
            for i, kind in enumerate(chosen):
                annotations.append(
                    Annotation(
                        uid=f"{number:03d}-{i}", image=key,
                        geometry=(SIDE / 2, SIDE * i + SIDE / 2), labels=(names[kind],),
                    )
                )  # fmt: skip
            number += 1
    labelled = LabelledData(folder.stem, ("normal", "abnormal"), images, tuple(annotations), ledger)
    return MadeProject(folder, labelled)


def offer(_patch: object, *projects: MadeProject) -> None:
    """Write these projects as real ones, each in its folder; one that stood there is replaced."""
    for made in projects:
        for old in made.folder.glob("project.db*"):
            old.unlink()
        labelled = made.labelled
        with Project(Journal.create(made.folder, labelled.name)) as project:
            facts = {
                key: {
                    "name": i.name, "path": i.path, "height": i.height, "width": i.width,
                    "mpp": i.mpp, "group": i.group,
                }
                for key, i in labelled.images.items()
            }  # fmt: skip
            project.record(Kind.IMAGE, {"images": facts})
            groups = {group: {"part": str(part)} for group, part in labelled.parts.items()}
            project.record(Kind.SPLIT, {"groups": groups})
            project.add(labelled.annotations)
            project.flush()


def write_parent(
    folder: Path,
    taught: list[CellRecord],
    targets: list[int],
    *,
    ship: list[bool] | None = None,
    with_features: bool = True,
    **facts: object,
) -> Path:
    """A parent: a random shrunken trunk, and a head fitted to some cells' features.

    ``ship`` says which cells' features it carries; by default all.
    """
    import torch
    from torch.nn import functional as F

    from training.trunk_features import through_head

    torch.manual_seed(0)
    network = build("convnet-t", n_classes=2, width=0.05)
    for parameter in network.trunk.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    network.eval()
    features = FeatureCache(network).of(taught, "rotations")
    x = torch.from_numpy(features).flatten(0, 1)
    y = torch.from_numpy(np.repeat(np.array(targets), features.shape[1]))
    optimiser = torch.optim.AdamW(network.head.parameters(), lr=1e-3)
    for _ in range(150):
        optimiser.zero_grad()
        F.cross_entropy(through_head(network.head, x), y, label_smoothing=0.05).backward()
        optimiser.step()
    classes = (
        ClassInfo(name="normal", colour=CLASS_COLOURS[0]),
        ClassInfo(name="abnormal", colour=CLASS_COLOURS[1], abnormal=True),
    )
    info = ModelInfo(
        name=folder.name, system=System.DEEPPAP, architecture="convnet-t",
        arguments={"width": 0.05}, classes=classes, **facts,
    )  # fmt: skip
    shipped = None
    if with_features:
        rows = [i for i in range(len(taught)) if ship is None or ship[i]]
        kinds = [targets[i] for i in rows]
        shipped = shipped_features(features[rows], kinds, kinds, [taught[i].group for i in rows])
    tensors = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    save_model(folder, info, tensors, "# parent\n", shipped)
    return folder
