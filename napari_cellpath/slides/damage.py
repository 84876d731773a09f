"""Damaged files: turn whatever a decoder raises into one sentence the user can act on.

Decoders raise far more than their documentation names. 13,500 mutated files brought out
SyntaxError, ZeroDivisionError, TypeError, IndexError, KeyError, struct.error, zlib.error and
MemoryError (reliability.md 1), so everything below `Exception` is caught here, in one place,
and nowhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_cellpath.core.errors import CellpathError, ImageTooLargeError, UnreadableImageError

_STRUCTURAL = (ZeroDivisionError, TypeError, LookupError, AttributeError, struct.error)


def unreadable(name: str, reason: str) -> UnreadableImageError:
    """Error saying that the file ``name`` is not a readable image, and why."""
    return UnreadableImageError(f"{name} is not a readable image ({reason}). Nothing was loaded.")


def too_large(name: str, height: int, width: int, needed: int, budget: int) -> ImageTooLargeError:
    """Error for an image that claims ``needed`` bytes where ``budget`` are allowed."""
    return ImageTooLargeError(
        f"{name} claims {height} x {width} pixels ({human_bytes(needed)}); the budget is "
        f"{human_bytes(budget)}. Save it as a tiled, pyramidal TIFF or raise the budget."
    )


def human_bytes(count: int) -> str:
    """Bytes as people read them, in powers of ten: ``10.8 GB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let only `CellpathError` out of the block; the original is kept as the cause.

    Raises
    ------
    UnreadableImageError, ImageTooLargeError
        Anything a decoder raised.
    """
    try:
        yield
    except CellpathError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError(
            f"{path.name} needs more memory than is free. Nothing was loaded; "
            "close other images or save it as a tiled, pyramidal TIFF."
        ) from error
    except Exception as error:
        raise unreadable(path.name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "reading it is not permitted"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, EOFError):
        return "truncated"
    text = " ".join(str(error).split())[:120].rstrip(".")
    if isinstance(error, _STRUCTURAL) or not text:
        detail = text or type(error).__name__
        return f"damaged structure: {detail}"
    return f"damaged: {text}"
