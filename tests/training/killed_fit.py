"""A training run that is going to be killed: ``python -m tests.training.killed_fit FOLDER``.

It goes on from the checkpoint in FOLDER where there is one, says every step on stdout, and at the
end writes its loss curve to ``FOLDER/curve.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.fit import Fit, cosine_factor, make_fabric

EPOCHS, STEPS, BATCH = 6, 10, 8


def fit(folder: Path | None, *, say: bool = False) -> Fit:
    """A small network on random data; dropout and noise draw from generators of the checkpoint."""
    torch.manual_seed(3)
    data = torch.randn(STEPS * BATCH, 12, generator=torch.Generator().manual_seed(0))
    targets = (data.sum(dim=1) > 0).long()
    module = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    noise = torch.Generator().manual_seed(5)

    def batches(epoch: int) -> list[Tensor]:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
        return list(order.split(BATCH))

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        if say:
            sys.stdout.write("step\n")
            sys.stdout.flush()
        shaken = data[batch] + 0.1 * torch.randn(len(batch), 12, generator=noise)
        return F.cross_entropy(network(shaken), targets[batch])

    return Fit(
        fabric=make_fabric("cpu"), module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=1e-2),
        factor=cosine_factor(EPOCHS * STEPS, 5, 0.02), batches=batches, loss=loss, epochs=EPOCHS,
        checkpoints=folder, generators={"noise": noise}, ema=0.9, save_every=1,
    )  # fmt: skip


if __name__ == "__main__":
    place = Path(sys.argv[1])
    run = fit(place, say=True)
    run.run(resume=True)
    (place / "curve.json").write_text(json.dumps(run.losses))
