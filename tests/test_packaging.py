"""What an installer, npe2 and a reader of the tree rely on."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parents[1]


def test_installed_manifest_is_the_one_at_the_top():
    """The manifest napari reads is napari.yaml of this checkout (else: pip install -e . again)."""
    installed = PluginManifest.from_distribution("napari-cellpath")
    assert installed.contributions == PluginManifest.from_file(ROOT / "napari.yaml").contributions


def test_every_command_of_the_manifest_can_be_imported():
    """No python_name in the manifest leads nowhere."""
    PluginManifest.from_file(ROOT / "napari.yaml").validate_imports()


def fresh_python(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_import_and_discovery_take_no_torch():
    """Opening napari with the plugin installed imports none of the heavy packages."""
    done = fresh_python(
        "import sys\n"
        "import napari_cellpath\n"
        "from npe2 import PluginManager\n"
        "manager = PluginManager(); manager.discover()\n"
        "assert 'napari-cellpath' in manager\n"
        "heavy = {'torch', 'torchvision', 'lightning', 'distributed', 'sklearn', 'napari'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


def test_import_and_discovery_add_little_time():
    """Importing the package and parsing our manifest add at most 150 ms (best of three)."""
    program = (
        "import time\n"
        "import npe2  # napari has it in any case\n"
        "start = time.process_time()\n"
        "import napari_cellpath\n"
        "from npe2 import PluginManifest\n"
        "PluginManifest.from_distribution('napari-cellpath')\n"
        "print(time.process_time() - start)\n"
    )
    best = min(float(fresh_python(program).stdout) for _ in range(3))
    assert best <= 0.150, f"{best * 1000:.0f} ms"


def test_no_qt_binding_is_a_dependency():
    """The choice of Qt stays with the user; the extra ``all`` brings one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [d for d in project["dependencies"] if d.lower().startswith(("pyqt", "pyside"))]
    assert project["optional-dependencies"]["all"] == ["napari[all]>=0.9"]


def test_no_untrusted_loader_in_the_source():
    """R10: nothing that could run code from a file stands anywhere in our source."""
    banned = (
        "pickle.load",
        "import joblib",
        "joblib.load",
        "torch.jit.load",
        "torch.export.load",
        "yaml.load(",
        "shell=True",
        "extractall",
        " eval(",
    )
    for folder in ("napari_cellpath", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert not [word for word in banned if word in text], path
            for line in text.splitlines():
                assert "torch.load(" not in line or "weights_only=True" in line, path


@pytest.mark.slow
def test_wheel_holds_everything(tmp_path):
    """The wheel carries both packages, the manifest and the starter weights, and no tests."""
    if os.environ.get("CELLPATH_OFFLINE"):
        pytest.skip("building a wheel fetches the build backend, and CELLPATH_OFFLINE is set")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "napari_cellpath/core/errors.py",
        "training/__init__.py",
        "napari_cellpath_manifest/napari.yaml",
        "napari_cellpath_weights/deeppap-herlev/model.safetensors",
    ):
        assert wanted in names
    assert not [n for n in names if n.startswith("tests/")]
