"""Errors a user can read."""

import inspect
import pickle

import pytest

from napari_cellpath.core import errors
from napari_cellpath.core.errors import CellpathError

ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CellpathError)
]


@pytest.mark.parametrize("kind", ALL)
def test_the_message_is_the_whole_sentence(kind: type[CellpathError]) -> None:
    """No errno tuples and no quotes: what str() gives is what the user reads."""
    assert str(kind("X.tif does not exist.")) == "X.tif does not exist."


@pytest.mark.parametrize("kind", ALL)
def test_errors_survive_the_way_back_from_the_worker(kind: type[CellpathError]) -> None:
    """They arrive pickled; Dask rebuilds them through __new__, the standard way does not."""
    assert type(kind.__new__(kind, "X.tif does not exist.")) is kind
    back = pickle.loads(pickle.dumps(kind("X.tif does not exist.")))  # noqa: S301
    assert type(back) is kind
    assert str(back) == "X.tif does not exist."


def test_builtin_handlers_keep_working() -> None:
    """A Python caller's `except FileNotFoundError` still catches ours."""
    assert issubclass(errors.MissingFileError, FileNotFoundError)
    assert issubclass(errors.ImageTooLargeError, MemoryError)
    assert issubclass(errors.UnreadableImageError, ValueError)
    assert issubclass(errors.OutputError, OSError)


@pytest.mark.parametrize("kind", ALL)
def test_exit_codes_tell_whose_fault_it_is(kind: type[CellpathError]) -> None:
    """1 is ours, 2 the user's, 130 a cancel; nothing else."""
    expected = {errors.BackendError: 1, errors.JobCancelledError: 130}
    assert kind.exit_code == expected.get(kind, 2)
