"""Let a training process keep the memory it frees."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks instead of giving them back after every layer.

    A step frees and asks again for some hundred megabytes; each time the kernel zeroes the
    pages anew. Measured on two cores with SqueezeNet at batch 32: 42 ms an image before, 32
    after. Only Linux with glibc; elsewhere nothing happens.

    Returns
    -------
    bool
        Whether it took effect.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return bool(
        set_option(_MMAP_MAX, 0)
        and set_option(_TRIM_THRESHOLD, 2**31 - 1)
        and set_option(_TOP_PAD, 2**28)
    )
