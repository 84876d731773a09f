"""The table of all benchmarks, from the stored results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = """# Benchmarks

Written by `make bench` from `benchmarks.json`; one column a machine and device. Ratios are taken
within one run, rounds interleaved, the first discarded, the best kept. *Contended* marks a
measurement during which the machine was not quiet: the network alone did not take the same time
before and after within 3 %, or the process did not have its cores (CPU over wall below 0.92 times
the threads). Absolute times hold for the machine and day named; what is wanted are the project's
own goals, on a laptop's processor with bf16.

"""
TAIL = """
P1: a region of 700 x 700 pixels, 16 tiles, from the file to the store; *alone* is the same folded
network and precision on as many tiles that lie ready. P2: an almost free network (one 8 x 8
convolution) on 2000 x 2000 pixels. P3: MONAI as it is, fp32, over the default precision; where a
processor has no bf16 both are fp32. P7: peaks of whole processes with an almost free network, from
a file to the store; a wide region's sums wait in a file (docs/decisions.md). P4: one cell, preset
`paper`, from the file to the call; *alone* is the same network, precision and batches on tensors
that lie ready; the PIL loop rotates, crops and resizes with PIL and feeds the network as trained
one input at a time. P5: press of the mouse button, which comes up at once unless it says held, to
the score on the layer in a real window, preset `fast`, on a screen without a graphics card (Mesa
draws with the processor too); the first answer is a glance of two inputs, in columns from before
2026-11-30 all ten; under load 1000-view jobs run beside it. P6: SqueezeNet cascade, a file to
calls; *alone* are trunk and heads, or the detector, on tensors that lie ready; drawn boxes go
through the worker process. P9: the starter recipe's network, same frozen
layers and batch, our steps in `precision: auto`; the reference trains as torchvision's
classification script does, in fp32. P11: fresh processes; the plugin's
manifest and package, then the modules of the dock.
"""


@dataclass(frozen=True)
class Line:
    """One line: which benchmark, what is measured, the goal, and how it is read off."""

    key: str
    what: str
    goal: str
    value: Callable[[dict[str, Any]], Any]
    ratio: bool = False


def _ms(*path: str) -> Callable[[dict[str, Any]], Any]:
    def value(found: dict[str, Any]) -> Any:
        for name in path:
            found = found[name]
        return found

    return value


def _or_missing(value: Any) -> Any:
    return "MONAI not installed" if value is None else value


LINES = (
    Line("P1", "region, whole / network alone", "≤ 1.05 (GPU 1.10)", _ms("whole_over_pure"), True),
    Line("P1", "its network", "", _ms("architecture")),
    Line("P1", "request to first provisional rows, s", "≤ 3", _ms("first_look_s")),
    Line("P1", "own cost of a tile, ms (P2)", "≤ MONAI's", _ms("own_ms")),
    Line("P1", "the same with file and store, ms", "", _ms("own_with_store_ms")),
    Line("P1", "MONAI's, ms", "", lambda f: _or_missing(f["monai_ms"])),
    Line("P1", "largest difference to MONAI's blend", "≤ 1e-5",
         lambda f: _or_missing(f["blend_difference"])),
    Line("P1", "MONAI in fp32 / default precision (P3)", "≥ 2",
         lambda f: _or_missing(f["monai_over_default"]), True),
    Line("P1", "peak memory, 16,000² / 4,000² (P7)", "≤ 1.1", _ms("memory_ratio")),
    Line("P1", "times each pixel was decoded (P8)", "≤ 1.05", _ms("decoded")),
    Line("P4", "1000 views, whole / network alone", "≤ 1.05", _ms("whole_over_pure"), True),
    Line("P4", "PIL loop / whole", "≥ 4 (fp32 only ≥ 2.2)", _ms("loop_over_whole"), True),
    Line("P4", "1000 views of a cell, s", "≤ 3.5 (GPU 0.03)", _ms("whole_s"), True),
    Line("P4", "precision", "", _ms("precision")),
    Line("P5", "click to first answer, p50 ms", "≤ 150 (GPU 50)", _ms("idle_ms", "p50")),
    Line("P5", "the same, p95 ms", "≤ 150", _ms("idle_ms", "p95")),
    Line("P5", "to the canvas drawn with it, p50 ms", "", _ms("idle_drawn_ms", "p50")),
    Line(
        "P5", "button held 80 ms: from its release to the canvas, p50 ms", "",
        _ms("held_drawn_ms", "p50"),
    ),
    Line("P5", "under load, p95 ms", "≤ 250", _ms("while_1000_view_jobs_run_ms", "p95")),
    Line(
        "P5", "slowest callback of ours, p99 ms CPU, under load", "≤ 16",
        lambda f: max(f["callbacks_p99_cpu_ms_loaded"].values()),
    ),
    Line(
        "P5", "ten inputs, network alone, best ms", "",
        _ms("ten_inputs_forward_fp32_ms", "as computed", "best"),
    ),
    Line(
        "P6", "red-cell patches, whole / network alone", "≤ 1.05",
        _ms("patches_whole_over_pure"), True,
    ),
    Line(
        "P6", "detector of a 640 x 480 field, whole / alone", "≤ 1.3",
        _ms("detector_whole_over_pure"), True,
    ),
    Line("P6", "the same field, whole, ms", "", _ms("detector_640x480_ms"), True),
    Line("P6", "box drawn to answer, p95 ms", "≤ 250", _ms("drawn_to_answer_ms", "p95")),
    Line("P6", "label flipped to verdict, p95 ms", "≤ 50", _ms("flip_to_verdict_ms", "p95")),
    Line("P9", "training, images a second", "", _ms("images_per_s"), True),
    Line("P9", "precision of a step", "", _ms("precision")),
    Line("P9", "training, whole / pure step", "≤ 1.05 (GPU 1.10)", _ms("whole_over_pure"), True),
    Line("P9", "training, ours / torchvision-shaped loop", "≥ 1.8", _ms("over_reference"), True),
    Line("P11", "plugin adds before first use, ms", "≤ 150", _ms("plugin_ms")),
    Line("P11", "torch imported by then", "no", lambda f: "yes" if f["torch_imported"] else "no"),
    Line("P11", "first request (loads the model), ms", "", _ms("first_request_ms")),
    Line("P11", "second request, ms", "no load", _ms("second_request_ms")),
)  # fmt: skip


def write_table(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Write the Markdown file."""
    columns = sorted(results)
    rows = ["| goal | what | wanted | " + " | ".join(columns) + " |"]
    rows.append("|---|---|---|" + "---|" * len(columns))
    for line in LINES:
        cells = [_cell(line, results[column]) for column in columns]
        rows.append(f"| {line.key} | {line.what} | {line.goal} | " + " | ".join(cells) + " |")
    for what in ("date", "cores", "torch", "python"):
        cells = [str(results[column].get("machine", {}).get(what, "")) for column in columns]
        rows.append(f"| | {what} | | " + " | ".join(cells) + " |")
    path.write_text(HEAD + "\n".join(rows) + "\n" + TAIL, encoding="utf-8")


def _cell(line: Line, column: dict[str, Any]) -> str:
    found = column.get(line.key)
    if found is None:
        return "not measured"
    mark = " (contended)" if line.ratio and not found.get("steady", True) else ""
    try:
        return f"{line.value(found)}{mark}"
    except KeyError:  # a column from before this was measured
        return "not measured"
