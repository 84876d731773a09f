"""Images are known by what they hold; their groups keep their side of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cellpath.core.annotations import Annotation, Part
from napari_cellpath.core.errors import MissingFileError, ProjectError
from napari_cellpath.project import Kind, Project, labelled, ledger
from napari_cellpath.project import images as im


def slide(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).integers(0, 255, (30, 40), np.uint8))
    return path


def add(project: Project, path: Path, group: str = "") -> str:
    key = im.key_of_file(path)
    im.add_image(project, key, path.name, (30, 40), path=path, group=group)
    return key


def test_shares_are_kept_and_two_groups_are_on_two_sides() -> None:
    taken: list[Part] = []
    for _ in range(40):
        taken.append(ledger.next_part(taken))
    assert set(taken[:2]) == {Part.TRAIN, Part.FROZEN}
    assert Part.VALIDATION in taken[:5]
    counts = [taken.count(p) for p in (Part.TRAIN, Part.VALIDATION, Part.FROZEN)]
    assert counts == [24, 6, 10]


def test_an_image_keeps_its_side_when_it_is_renamed_or_comes_again(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p") as project:
        for n in range(6):
            add(project, slide(tmp_path / f"s{n}.tif", n))
        before = ledger.parts(project)
        moved = (tmp_path / "s2.tif").rename(tmp_path / "renamed.tif")
        key = add(project, moved)
        assert im.image_facts(project, key).group == "s2"
        assert im.image_facts(project, key).path == str(moved)
        assert ledger.parts(project) == before
    with Project.open(project.folder) as again:
        assert ledger.parts(again) == before
        assert im.find_image(again, "renamed.tif").key == key
        assert im.find_image(again, str(moved)).key == key


def test_a_project_may_be_moved_with_its_images(tmp_path: Path) -> None:
    with Project.create(tmp_path / "a" / "p") as project:
        key = add(project, slide(tmp_path / "a" / "s.tif", 1))
    (tmp_path / "a").rename(tmp_path / "b")
    with Project.open(tmp_path / "b" / "p.cellpath") as project:
        assert im.image_facts(project, key).path == str(tmp_path / "b" / "s.tif")


def test_the_side_may_be_changed_until_it_is_used(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p") as project:
        add(project, slide(tmp_path / "s0.tif", 0))
        key = add(project, slide(tmp_path / "s1.tif", 1))
        add(project, slide(tmp_path / "s2.tif", 2), group="s1")
        ledger.move(project, "s1", Part.TRAIN)
        assert ledger.parts(project)["s1"] is Part.TRAIN
        ledger.mark_used(project, ["s1"], "run 1")
        ledger.move(project, "s1", Part.TRAIN)  # it is there already
        with pytest.raises(ProjectError, match="'s1' stays on the train side: run 1 has used it"):
            ledger.move(project, "s1", Part.FROZEN)
        ledger.move(project, "s0", Part.FROZEN)
        with pytest.raises(ProjectError, match=r"s1.tif stays in 's1': run 1.*'s0' is on the froz"):
            im.set_group(project, key, "s0")
        with pytest.raises(ProjectError, match="no slide, patient or specimen 'x'"):
            ledger.move(project, "x", Part.TRAIN)
        with pytest.raises(ProjectError, match="needs a name"):
            im.set_group(project, key, "  ")
        assert {p: [i.name for i in s] for p, s in im.by_part(project).items()} == {
            Part.TRAIN: ["s1.tif", "s2.tif"], Part.VALIDATION: [], Part.FROZEN: ["s0.tif"],
        }  # fmt: skip


def test_training_reads_only_what_a_person_labelled(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p") as project:
        keys = [add(project, slide(tmp_path / f"s{n}.tif", n)) for n in range(2)]
        project.record(Kind.SETTING, {"settings": {"classes/deeppap": {"names": ["no", "yes"]}}})
        project.add([
            Annotation("a" * 16, keys[1], geometry=(1.0, 2.0), labels=("yes",)),
            Annotation("b" * 16, keys[0], geometry=(9.0, 2.0), labels=("odd",)),
            Annotation("c" * 16, keys[0], geometry=(3.0, 2.0), labels=("no",)),
            Annotation("d" * 16, keys[0], geometry=(1.0, 2.0)),
        ])  # fmt: skip
    data = labelled(project.folder, "deeppap")
    assert [a.uid[0] for a in data.annotations] == ["c", "b", "a"]
    assert data.classes == ("no", "yes", "odd")
    assert data.parts == {"s0": Part.TRAIN, "s1": Part.FROZEN}
    assert data.images[keys[0]].height == 30
    assert labelled(project.folder, "hep2").annotations == ()


def test_keys_follow_content(tmp_path: Path) -> None:
    one, two = slide(tmp_path / "1.tif", 1), slide(tmp_path / "2.tif", 2)
    assert im.key_of_file(one) != im.key_of_file(two)
    pixels = tifffile.imread(one)
    assert im.key_of_pixels(pixels) == im.key_of_pixels(pixels.copy())
    assert im.key_of_pixels(pixels) != im.key_of_pixels(pixels[:, :-1])
    with pytest.raises(MissingFileError, match="There is no image"):
        im.key_of_file(tmp_path / "3.tif")
