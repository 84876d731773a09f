"""Which device and precision the engine computes with. Imports torch only when asked."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_cellpath.core.errors import DeviceError, UnknownNameError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
BF16_CPU_FEATURES = ("avx512_bf16", "amx_bf16")
AMPERE = 8  # first CUDA compute capability whose tensor cores take bfloat16


@dataclass(frozen=True)
class DeviceChoice:
    """A device that answered, the precision chosen for it, and what the user must hear.

    Attributes
    ----------
    device
        The ``torch.device``.
    precision
        ``fp32`` or ``bf16``.
    name
        The processor's or graphics card's own name.
    notice
        One sentence if ``auto`` had to pass over a graphics card that is there but broken.
    """

    device: torch.device
    precision: str
    name: str
    notice: str = ""


def check_names(device: str, precision: str) -> None:
    """Refuse a device or precision that does not exist, without importing torch.

    Raises
    ------
    UnknownNameError
        Naming the ones there are.
    """
    if device.partition(":")[0] not in DEVICES:
        raise UnknownNameError(f"There is no device '{device}'. Known: {', '.join(DEVICES)}.")
    if precision not in PRECISIONS:
        raise UnknownNameError(
            f"There is no precision '{precision}'. Known: {', '.join(PRECISIONS)}."
        )


def choose_device(device: str = "auto", precision: str = "auto") -> DeviceChoice:
    """Settle device and precision, and prove the device with one small computation.

    ``auto`` takes CUDA, then MPS, then the CPU, and bfloat16 where the hardware computes it:
    CPUs with AVX512_BF16 or AMX, CUDA cards from Ampere on (docs: performance). A device the
    user named is never replaced by another.

    Raises
    ------
    UnknownNameError
        No such device or precision.
    DeviceError
        The named device is not there or does not compute.
    """
    import torch

    check_names(device, precision)
    notice = ""
    if device == "auto":
        chosen, notice = _best_device()
    else:
        chosen = _named_device(device)
    if precision == "auto":
        precision = "bf16" if _computes_bf16(chosen) else "fp32"
    if chosen.type == "cuda" and precision == "fp32":
        # cuDNN otherwise rounds float32 convolutions to TF32's 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
    return DeviceChoice(chosen, precision, _name(chosen), notice)


def cpu_threads() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _best_device() -> tuple[torch.device, str]:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        # torch only warns where a card is present but its driver cannot be used.
        warnings.simplefilter("always")
        has_cuda = torch.cuda.is_available()
    if has_cuda:
        problem = _problem(torch.device("cuda"))
        if not problem:
            return torch.device("cuda"), ""
        return torch.device("cpu"), _passed_over(problem)
    if torch.backends.mps.is_available() and not _problem(torch.device("mps")):
        return torch.device("mps"), ""
    broken = [str(w.message) for w in caught if "CUDA" in str(w.message)]
    return torch.device("cpu"), _passed_over(broken[0]) if broken else ""


def _passed_over(problem: str) -> str:
    first_line = problem.strip().splitlines()[0].rstrip(".")
    return f"The graphics card cannot be used ({first_line}); computing on the CPU instead."


def _named_device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UnknownNameError(
            f"There is no device '{name}'. Known: {', '.join(DEVICES)}, or cuda:1 and so on."
        ) from None
    problem = _problem(device)
    if problem:
        first_line = problem.strip().splitlines()[0].rstrip(".")
        raise DeviceError(
            f"The device '{name}' is not available here ({first_line}). "
            "Use --device auto or --device cpu."
        )
    return device


def _problem(device: torch.device) -> str:
    """Why the device does not compute; empty if it does."""
    import torch

    try:
        if float((torch.ones(2, device=device) + 1).sum()) != 4.0:
            return "it computes wrong sums"
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        return str(error) or type(error).__name__
    return ""


def _computes_bf16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    return device.type == "cpu" and any(_cpu_features().get(f) for f in BF16_CPU_FEATURES)


def _cpu_features() -> dict[str, Any]:
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", None)  # torch 2.11 and later
    return dict(capabilities()) if capabilities is not None else {}


def _name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return str(_cpu_features().get("cpu_name") or "CPU")
    return "Apple GPU"
