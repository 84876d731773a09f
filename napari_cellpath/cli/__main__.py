"""``python -m napari_cellpath.cli``: the same as ``cellpath``."""

import sys

from napari_cellpath.cli import main

sys.exit(main())
