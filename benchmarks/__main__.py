"""All benchmarks into one table: ``python -m benchmarks [--device cuda] [--only P4,P9]``.

Results of this machine and device are written to ``docs/benchmarks.json``; ``docs/benchmarks.md``
is made from it, one column a machine and device, so a GPU's column can be filled elsewhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import regions, start, tissue, training_speed, views
from benchmarks.measuring import machine
from benchmarks.table import write_table
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models.registry import DEFAULT_MODELS
from training.allocator import keep_freed_memory

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "benchmarks.json"


def click_latency(model: str, device: str, rounds: int) -> dict[str, Any]:
    """P5, in a process of its own with a window."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "click_latency.py"),
         "--clicks", str(10 * rounds), "--model", model],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    text = done.stdout
    result: dict[str, Any] = json.loads(text[text.index("{\n") :])
    return result


BENCHMARKS: dict[str, Callable[[str, str, int], dict[str, Any]]] = {
    # The paper's smaller network with random weights: a starter is another network.
    "P1": lambda _model, device, rounds: tissue.measure(device=device, rounds=rounds),
    "P4": views.measure,
    "P5": click_latency,
    # The starter of another system: --model is DeepPap's.
    "P6": lambda _model, device, rounds: regions.measure("", device, rounds),
    "P9": lambda _model, device, rounds: training_speed.measure(device, rounds),
    "P11": start.measure,
}


def main() -> None:
    """Run what is asked, merge it into the results and write the table again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", default="P1,P4,P5,P6,P9,P11")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="tries to get a steady measurement")
    parser.add_argument("--model", default=DEFAULT_MODELS[System.DEEPPAP])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_freed_memory()
    here = machine()
    name = f"{here['gpu'] if options.device == 'cuda' else here['processor']}"
    known = json.loads(options.out.read_text()) if options.out.is_file() else {}
    column = known.setdefault(f"{options.device}: {name}", {})
    for key in options.only.split(","):
        tries = []
        for _ in range(options.repeats):
            tries.append(BENCHMARKS[key](options.model, options.device, options.rounds))
            print(key, json.dumps(tries[-1]), flush=True)
            if tries[-1].get("steady", True):
                break
        else:  # none was quiet: the one that had most of its cores
            tries.sort(key=lambda found: found.get("busy_cores", found.get("busy", 0.0)))
        column[key] = tries[-1]
        column["machine"] = here
        options.out.write_text(json.dumps(known, indent=1) + "\n")
        write_table(known, options.out.with_suffix(".md"))
    print(f"Written to {options.out} and {options.out.with_suffix('.md')}.")


if __name__ == "__main__":
    main()
