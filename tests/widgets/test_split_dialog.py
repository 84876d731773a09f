"""The split as a table that can be edited until it is used."""

from __future__ import annotations

from napari_cellpath.core.annotations import Annotation, Part
from napari_cellpath.project import Project, ledger
from napari_cellpath.project.images import add_image
from napari_cellpath.widgets.split import GROUP, LABELLED, SIDE, SplitDialog


def test_sides_and_groups_are_edited_until_they_are_used(tmp_path, qtbot):
    with Project.create(tmp_path / "p") as project:
        for n in range(3):
            add_image(project, f"k{n}", f"slide{n}.tif", (30, 40), path=tmp_path / f"slide{n}.tif")
        project.add([Annotation("a" * 16, "k0", geometry=(1.0, 2.0), labels=("normal",))])
        dialog = SplitDialog(project)
        qtbot.addWidget(dialog)
        table = dialog.table
        assert [table.item(r, GROUP).text() for r in range(3)] == ["slide0", "slide1", "slide2"]
        assert [table.cellWidget(r, SIDE).currentText() for r in range(3)] == [
            "train", "frozen", "train",
        ]  # fmt: skip
        assert table.item(0, LABELLED).text() == "1"
        assert dialog.totals.text() == "Labelled: 1 train, 0 validation, 0 frozen."

        combo = table.cellWidget(2, SIDE)
        combo.activated.emit(combo.findText("validation"))
        assert ledger.parts(project)["slide2"] is Part.VALIDATION
        table.item(2, GROUP).setText("slide1")  # the same patient
        assert table.cellWidget(2, SIDE).currentText() == "frozen"

        ledger.mark_used(project, ["slide0"], "run 7")
        dialog.fill()
        assert not table.cellWidget(0, SIDE).isEnabled()
        table.item(0, GROUP).setText("slide1")
        assert "slide0.tif stays in 'slide0': run 7" in dialog.refused.text()
        assert table.item(0, GROUP).text() == "slide0"
        dialog.close()
