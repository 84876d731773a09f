"""Model folders: complete or not at all, and one changed bit is an error."""

import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.core.errors import (
    CellpathError,
    MissingFileError,
    ModelError,
    OutputError,
    UnknownNameError,
    UnsafeModelError,
)
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import (
    ClassInfo,
    ModelInfo,
    find_model,
    list_models,
    read_card,
    read_info,
    read_tensors,
    save_model,
    verify,
)


def info(**changes):
    values = {
        "name": "tiny",
        "system": System.DEEPPAP,
        "architecture": "squeezenet1_0",
        "classes": (
            ClassInfo(name="normal", colour="#0072b2"),
            ClassInfo(name="abnormal", colour="#d55e00", abnormal=True),
        ),
    }
    return ModelInfo(**(values | changes))


@pytest.fixture
def folder(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(4, np.float32)}
    save_model(tmp_path / "tiny", info(), tensors, "# Tiny\n")
    return tmp_path / "tiny"


def test_round_trip(folder):
    """What was saved is read back: tensors bit for bit, info, card."""
    tensors = read_tensors(folder)
    assert tensors["a"].dtype == np.float16
    np.testing.assert_array_equal(tensors["a"].ravel(), np.arange(6))
    assert read_info(folder).class_names == ("normal", "abnormal")
    assert read_card(folder) == "# Tiny\n"
    assert verify(folder).files.keys() == {"model.safetensors", "card.md"}


def test_a_model_is_never_overwritten(folder):
    """Saving onto an existing folder is refused and leaves it as it was."""
    before = read_info(folder).sha256
    with pytest.raises(OutputError, match="exists already"):
        save_model(folder, info(), {"a": np.zeros(1)}, "")
    assert verify(folder).sha256 == before


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "card.md"])
def test_every_flipped_bit_is_found(folder, name):
    """R2: any one-bit change in any file of the folder is an error, not other weights."""
    path = folder / name
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(original), 60):
        changed = bytearray(original)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(CellpathError):
            read_tensors(folder)
    path.write_bytes(original)
    read_tensors(folder)


def rewrite(folder, **changes):
    """Change model.json and give it a valid hash again, as a foreign program would."""
    content = json.loads((folder / "model.json").read_text()) | changes
    made = ModelInfo.model_validate(content)
    content["sha256"] = made.digest()
    (folder / "model.json").write_text(json.dumps(content))


def test_bad_folders_are_refused_in_one_sentence(folder, tmp_path):
    """Missing, truncated, newer, nested 200,000 deep, escaping names: each says what is wrong."""
    text = (folder / "model.json").read_text()
    cases = {
        "": "not readable JSON",
        text[: len(text) // 2]: "not readable JSON",
        "[" * 200_000: "not readable JSON|damaged",
        "[]": "damaged",
        json.dumps(json.loads(text) | {"format": 99}): "newer version",
        json.dumps(json.loads(text) | {"surprise": 1}): "damaged: surprise",
        text.replace("tiny", "tinz"): "has changed",
    }
    for content, expected in cases.items():
        (folder / "model.json").write_text(content)
        start = time.perf_counter()
        with pytest.raises(ModelError, match=expected) as caught:
            read_info(folder)
        assert time.perf_counter() - start < 1.0
        assert "\n" not in str(caught.value)
    (folder / "model.json").write_text(text)
    rewrite(folder, files={"model.safetensors": "0" * 64, "../outside": "0" * 64})
    with pytest.raises(ModelError, match=r"outside its folder|damaged"):
        verify(folder)
    with pytest.raises(MissingFileError, match="not a model folder"):
        read_info(tmp_path / "nothing")


def test_files_that_could_run_code_are_not_opened(tmp_path):
    """A .pth given as a model is refused by name and pointed to `cellpath models import`."""
    path = tmp_path / "model.pth"
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(UnsafeModelError, match=r"model\.pth can run code.*models import"):
        find_model(path)


def test_nan_weights_are_refused(tmp_path):
    """Weights that are not finite name the layer."""
    save_model(tmp_path / "nan", info(name="nan"), {"conv.weight": np.array([1.0, np.nan])}, "")
    with pytest.raises(ModelError, match=r"conv\.weight.*NaN"):
        read_tensors(tmp_path / "nan")


def test_a_huge_header_is_refused_at_once(folder):
    """300,000 empty tensors make a header of megabytes; it is refused before it is parsed."""
    path = folder / "model.safetensors"
    header = json.dumps(
        {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite(folder, files=read_info(folder).files | {"model.safetensors": digest})
    start = time.perf_counter()
    with pytest.raises(ModelError, match="header"):
        read_tensors(folder)
    assert time.perf_counter() - start < 1.0


def test_a_linked_weight_file_is_refused(folder, tmp_path):
    """A link in place of a file could point anywhere."""
    target = tmp_path / "elsewhere"
    (folder / "model.safetensors").rename(target)
    (folder / "model.safetensors").symlink_to(target)
    with pytest.raises(ModelError, match="link"):
        verify(folder)


def test_registry_finds_by_name_hash_and_path(folder, monkeypatch):
    """A name, name@hash and a path lead to the same folder; nothing else does."""
    monkeypatch.setenv("CELLPATH_MODELS", str(folder.parent))
    digest = read_info(folder).sha256
    for name in ("tiny", f"tiny@{digest[:8]}", str(folder)):
        assert find_model(name).folder.samefile(folder)
    assert "tiny" in [entry.name for entry in list_models(System.DEEPPAP)]
    assert "tiny" not in [entry.name for entry in list_models(System.RBC)]


def test_an_unknown_name_is_an_error_and_never_the_default(folder, monkeypatch):
    """The silent model swap of other programs does not happen here."""
    monkeypatch.setenv("CELLPATH_MODELS", str(folder.parent))
    for name in ("tinny", "tiny@ffffffff", "deeppap"):
        with pytest.raises(UnknownNameError, match=f"There is no model '{name}'.*tiny"):
            find_model(name)
    with pytest.raises(UnknownNameError, match="is a deeppap model, not a rbc"):
        find_model("tiny", System.RBC)


def test_saving_into_a_read_only_folder_is_one_sentence(tmp_path, monkeypatch):
    """A failed write leaves no half-made model behind."""

    def full(*_arguments, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(tmp_path / "tiny", info(), {"a": np.zeros(3)}, "")
    assert list(tmp_path.iterdir()) == []


def test_download_names_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch):
    """Without an address, or with an insecure one, the sentence tells what to do."""
    from napari_cellpath.models import download

    monkeypatch.setattr(download, "known_starters", lambda: {"starter": {}})
    monkeypatch.delenv("CELLPATH_WEIGHTS_URL", raising=False)
    with pytest.raises(ModelError, match=r"'starter' is not on this machine.*weights/starter"):
        download.download_starter("starter", tmp_path)
    monkeypatch.setenv("CELLPATH_WEIGHTS_URL", "http://example.org/weights")
    with pytest.raises(ModelError, match="https"):
        download.download_starter("starter", tmp_path)


def test_download_checks_every_byte(folder, tmp_path, monkeypatch):
    """A download whose bytes differ from the pinned hash leaves no model; a right one does."""
    import hashlib
    import shutil

    import pooch

    from napari_cellpath.models import download

    pinned = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "card.md", "model.json")
    }
    monkeypatch.setattr(download, "known_starters", lambda: {"tiny": pinned})
    monkeypatch.setenv("CELLPATH_WEIGHTS_URL", "https://example.org/weights")
    damage = {"on": True}

    class LocalFiles:
        def __init__(self, **_options):
            pass

        def __call__(self, url, output_file, _pooch):
            name = url.rsplit("/", 1)[1]
            shutil.copy(folder / name, output_file)
            if damage["on"] and name == "card.md":
                with Path(output_file).open("ab") as file:
                    file.write(b"x")

    monkeypatch.setattr(pooch, "HTTPDownloader", LocalFiles)
    with pytest.raises(ModelError, match="could not be downloaded"):
        download.download_starter("tiny", tmp_path / "cache")
    assert not (tmp_path / "cache" / "tiny" / "model.json").exists()
    damage["on"] = False
    assert verify(download.download_starter("tiny", tmp_path / "cache")).name == "tiny"
