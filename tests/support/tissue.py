"""An almost free stand-in for HSP-Net, and plans driven by hand."""

import numpy as np
import torch
from torch import nn

from napari_cellpath.systems.hspnet.predict import TissuePredictor

N_CLASSES = 5


class Stub(nn.Module):
    """Classes by colour and by the tile's mean colour: what a tile says depends on the tile.

    Mirror images of tiles give mirrored answers.
    """

    def __init__(self, n_classes: int = N_CLASSES) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.own = nn.Parameter(torch.randn(n_classes, 3, generator=generator) * 4)
        self.mean = nn.Parameter(torch.randn(n_classes, 3, generator=generator) * 40)
        self.tiles = 0

    def normalise(self, images):
        return images.float() / 255 - 0.5

    def forward(self, x):
        self.tiles += len(x)
        logits = torch.einsum("kc,nchw->nkhw", self.own, x)
        whole = torch.einsum("kc,nc->nk", self.mean, x.mean(dim=(2, 3)))
        return torch.softmax(logits + whole[..., None, None], dim=1)


def predictor(network=None, n_classes: int = N_CLASSES) -> TissuePredictor:
    """A predictor on the CPU around a stub."""
    return TissuePredictor(network or Stub(n_classes), torch.device("cpu"), "fp32", n_classes, 64)


def forward(module, batch, stop):
    """The engine's way to run a module, without the engine."""
    from napari_cellpath.core.errors import JobCancelledError

    if stop():
        raise JobCancelledError("The job was cancelled.")
    with torch.inference_mode():
        return module(batch)


def drive(plan, worker, stop=lambda: False, steps=None):
    """Run a plan with a predictor, two tasks under way as in the backend; returns all results."""
    out, results = [], []
    while not plan.finished and (steps is None or steps > 0):
        while len(out) < 2 and (task := plan.take()) is not None:
            out.append(task)
        task = out.pop(0)
        results += plan.give(task, worker.run(task.payload, forward, stop))
        steps = None if steps is None else steps - 1
    return results


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured noise (H, W, 3) uint8: neighbouring tiles differ."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(height, width, 3))
    smooth = ndimage.gaussian_filter(rough, (6, 6, 0))
    smooth = smooth / smooth.std() * 50 + 128 + rng.normal(size=rough.shape) * 5
    return np.clip(smooth, 0, 255).astype(np.uint8)


def reference(image, network, tile, starts_of, weights):
    """Blended probabilities (classes, H, W) by a plain loop in float64."""
    height, width = image.shape[:2]
    sums, norm = np.zeros((N_CLASSES, height, width)), np.zeros((height, width))
    whole = torch.from_numpy(image).permute(2, 0, 1)[None]
    for row in starts_of(height):
        for col in starts_of(width):
            part = network.normalise(whole[..., row : row + tile, col : col + tile])
            with torch.inference_mode():
                found = network(part)[0].double().numpy()
            sums[:, row : row + tile, col : col + tile] += found * weights
            norm[row : row + tile, col : col + tile] += weights
    return sums / norm
