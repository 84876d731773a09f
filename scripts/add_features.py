r"""Give a model folder what older runs did not write: trunk features, image hashes, calibration.

::

    python scripts/add_features.py weights/deeppap-herlev --data herlev --out OUT \\
        [--run runs/deeppap-herlev]

The weights are those of the model; the new folder has another SHA-256, and its entry for
``napari_cellpath/models/starters.json`` is printed. ``--run`` is the training run's folder: its
out-of-fold scores (``fold-N.json``) give the calibration.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from napari_cellpath.models import read_card, read_tensors, save_model
from napari_cellpath.systems.deeppap.predict import load_network
from training.calibration import fit_calibration
from training.datasets import CellData, read_cells, targets_of
from training.deeppap_recipe import Data
from training.provenance import image_hashes, seen_by_name
from training.trunk_features import FeatureCache, shipped_features


def add_features(model: Path, data: CellData, out: Path, run: Path | None = None) -> None:
    """Write ``out``: the model with the features of those of the cells it was trained on."""
    network, info = load_network(model)
    learnt = seen_by_name(info, data)
    records = [data.records[i] for i in learnt]
    trained = set(info.data["trained_on"])
    key = "image" if info.data.get("split_by") == "cell" else "group"
    rows = [
        n for n, r in enumerate(records)
        if (r.image.name if key == "image" else r.group) in trained
    ]  # fmt: skip
    cells = [records[n] for n in rows]
    targets = targets_of(data, info)[learnt][rows].tolist()
    features = FeatureCache(
        network, out.with_name(f"{out.name}-features"), on_progress=_tell
    ).of(cells)  # fmt: skip
    shipped = shipped_features(
        features, targets, [r.fine_class for r in cells], [r.group for r in cells]
    )
    calibration = None
    if run is not None:
        scores = [json.loads(p.read_text()) for p in sorted(run.glob("fold-*.json"))]
        of = np.concatenate([s["rows"] for s in scores])
        calibration, why = fit_calibration(
            data.abnormal[of], np.concatenate([s["as_marked"] for s in scores]),
            [data.groups[i] for i in of], f"the validation folds of {data.name}",
        )  # fmt: skip
        print(why)
    facts = {**info.data, "images": image_hashes(records)}
    info = info.model_copy(update={"data": facts, "calibration": calibration or info.calibration})
    save_model(out, info, read_tensors(model), read_card(model), shipped)


def _tell(done: int, of: int) -> None:
    if done % 50 == 0 or done == of:
        print(f"{done} of {of} cells")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="Folder, or its name inside CELLPATH_DATA.")
    parser.add_argument("--layout", default="herlev", choices=("herlev", "folders"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    labelled = read_cells(Data(layout=asked.layout, folder=asked.data))
    add_features(asked.model, labelled, asked.out, asked.run)
    print(
        json.dumps(
            {
                p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(asked.out.iterdir())
            },
            indent=1,
        )
    )
