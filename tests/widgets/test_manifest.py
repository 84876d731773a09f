"""The manifest: what napari is told of us is true, light to find out, and opens the dock."""

import subprocess
import sys
from pathlib import Path

import pytest
from npe2 import PluginManifest

from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.widgets.settings import NucleiDefaults, nuclei_defaults

ROOT = Path(__file__).parents[2]


@pytest.fixture
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-cellpath")


@pytest.fixture
def registered(npe2pm, manifest):
    """Our plugin and no other."""
    npe2pm.register(manifest)
    return npe2pm


def test_installed_manifest_is_the_file(manifest):
    """What is installed is the napari.yaml at the top; an editable install keeps a copy."""
    from_file = PluginManifest.from_file(ROOT / "napari.yaml")
    assert manifest.contributions == from_file.contributions, "run pip install -e . again"


def test_every_command_can_be_imported(manifest):
    """Every function and class that the manifest names exists."""
    manifest.validate_imports()


def test_finding_the_plugin_imports_no_torch_and_no_qt():
    """Importing the package and reading the manifest imports neither torch, Dask nor Qt."""
    code = (
        "import sys, napari_cellpath;"
        "from npe2 import PluginManifest;"
        "PluginManifest.from_distribution('napari-cellpath');"
        "bad = {'torch', 'distributed', 'qtpy', 'napari'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dock", ["nuclei", "review", "red_cells", "tissue"])
def test_dock_imports_no_torch(dock):
    """Opening a dock imports no torch and no Dask into napari's own process."""
    code = (
        f"import sys; import napari_cellpath.widgets.{dock};"
        "bad = {'torch', 'distributed'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dock_opens_through_the_manifest(
    registered, make_napari_viewer, monkeypatch, backend, models
):
    """Plugins, Nuclei opens the dock in a viewer, with napari's own way of making widgets."""
    from napari_cellpath.widgets import nuclei

    monkeypatch.setattr(nuclei, "shared_backend", lambda: backend)
    monkeypatch.setattr(nuclei, "list_models", lambda _system, _first=(): models())
    viewer = make_napari_viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Nuclei")
    assert isinstance(dock, nuclei.NucleiDock)
    assert dock.session.method.entry.name == "deeppap-herlev"
    assert backend.warmed


def test_defaults_come_from_napari_settings(registered, plugin_settings):
    """Preferences, Plugins, Cellpath sets what a new dock starts with."""
    from napari.settings import get_plugin_settings

    assert nuclei_defaults() == NucleiDefaults()
    stored = get_plugin_settings("napari-cellpath").nuclei
    stored.preset = "adaptive"
    stored.review_band = 0.2
    stored.default_model = " mine "
    assert nuclei_defaults() == NucleiDefaults("mine", Preset.ADAPTIVE, 0.2)


def test_dock_keeps_to_public_napari(make_napari_viewer_proxy, backend, models, field):
    """The dock works on a viewer that refuses private attributes and other threads."""
    from napari_cellpath.widgets.nuclei import NucleiDock

    viewer = make_napari_viewer_proxy()
    viewer.add_image(field)
    dock = NucleiDock(viewer, backend=backend, models=models)
    viewer.window.add_dock_widget(dock)
    dock.session.set_clicking(True)
    dock.session.nuclei.layer.add([30, 30])
    dock.session.show(0)
    dock.session.close()
