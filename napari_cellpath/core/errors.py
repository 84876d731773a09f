"""Errors a user can read: one sentence that names the thing, what is wrong and the mending.

Every error that leaves one of our public functions is a `CellpathError`. Each also is the
builtin error a Python caller would expect, so ``except FileNotFoundError`` keeps working.
The command line prints the sentence and exits with `CellpathError.exit_code`; the viewer
shows it as a notification. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations


class CellpathError(Exception):
    """Base of all our errors; the message is a complete sentence for the user."""

    exit_code = 2
    """2: the user can mend it. Subclasses that are our own fault say 1."""


class MissingFileError(CellpathError, FileNotFoundError):
    """A file or folder the user named does not exist."""

    def __str__(self) -> str:  # OSError would print its first argument as an errno tuple
        return str(self.args[0]) if self.args else ""


class UnreadableImageError(CellpathError, ValueError):
    """The file is not an image we can read, is damaged, or holds values we refuse (NaN)."""


# MemoryError first: with it second, ImageTooLargeError.__new__ refuses to run, and that is how
# Dask (tblib) rebuilds an error that comes back from the worker.
class ImageTooLargeError(MemoryError, CellpathError):
    """The image claims more memory than the budget; raised before anything is allocated."""


class TableError(CellpathError, ValueError):
    """A CSV of points has the wrong columns, a value that is not finite, or no rows."""


class OutsideImageError(CellpathError, ValueError):
    """A point or box lies outside the image it was given for."""


class ScaleError(CellpathError, ValueError):
    """A pixel size or length that is none, or one at which a cell would be a speck."""


class ModelError(CellpathError, ValueError):
    """A model folder is missing, damaged, of another system, or made by a newer version."""


class UnsafeModelError(ModelError):
    """The file could run code when opened and is therefore not opened."""


class UnknownNameError(CellpathError, KeyError):
    """A model, architecture, preset or system by that name does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr, quotes and all
        return str(self.args[0]) if self.args else ""


class RecipeError(CellpathError, ValueError):
    """A training recipe or its data cannot be used as asked (one class, leakage, no images)."""


class OutputError(CellpathError, OSError):
    """A result could not be written (read-only, full disk); what was there before is intact."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DeviceError(CellpathError, RuntimeError):
    """The device the user named is not there or does not compute."""


class JobCancelledError(CellpathError):
    """The job was cancelled by the user; partial results already delivered stay valid."""

    exit_code = 130


class BackendAddressError(CellpathError, ValueError):
    """The address of a backend is no address, or its credentials are missing."""


class BackendError(CellpathError, RuntimeError):
    """The inference process could not start, was lost for good, or a task failed inside it."""

    exit_code = 1


class ProjectError(CellpathError, ValueError):
    """A project is missing, damaged, made by a newer version, or refuses what was asked."""
