"""Random numbers that belong to a cell."""

import subprocess
import sys

from napari_cellpath.core.seeds import generator_for


def test_the_same_cell_draws_the_same_numbers_in_another_process() -> None:
    """Viewer, command line and worker are different processes with different hash salts."""
    code = (
        "from napari_cellpath.core.seeds import generator_for;"
        "print(generator_for(3, 40, 50).integers(2**62))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(other) == generator_for(3, 40, 50).integers(2**62)


def test_every_part_of_the_identity_matters() -> None:
    """Another seed, row or column gives other numbers; row and column are not interchangeable."""
    draws = {
        int(generator_for(*key).integers(2**62))
        for key in [(0, 1, 2), (1, 1, 2), (0, 2, 1), (0, 1, 3), (0, 12, 0), (0, 1, 20)]
    }
    assert len(draws) == 6
