"""The live curve of a training run."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_cellpath.core.vocabulary import CLASS_COLOURS


class Curves(QWidget):
    """Loss by epoch, one line a stage, as a run goes on."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lines: dict[str, list[tuple[float, float]]] = {}
        figure = Figure(figsize=(3.4, 1.7), layout="constrained")
        self._canvas = FigureCanvasQTAgg(figure)
        self._axes = figure.add_subplot()
        self._canvas.setFixedHeight(150)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.hide()

    def clear(self) -> None:
        """Forget a run."""
        self._lines.clear()
        self.hide()

    def add(self, line: dict[str, Any]) -> None:
        """Take a line of a run's progress file; lines without a loss draw nothing."""
        stage, epoch = str(line.get("stage", "")), line.get("epoch")
        if isinstance(line.get("loss"), int | float) and isinstance(epoch, int):
            self._lines.setdefault(stage, []).append((epoch, float(line["loss"])))
            for name, value in dict(line.get("validation") or {}).items():
                if isinstance(value, int | float):
                    self._lines.setdefault(f"{stage}, {name}", []).append((epoch, float(value)))
            self._draw()

    def points(self) -> dict[str, list[tuple[float, float]]]:
        """(epoch, value) of each line."""
        return {name: list(points) for name, points in self._lines.items()}

    def _draw(self) -> None:
        text = self.palette().color(QPalette.ColorRole.WindowText).name()
        back = self.palette().color(QPalette.ColorRole.Window).name()
        axes = self._axes
        axes.clear()
        axes.figure.set_facecolor(back)
        axes.set_facecolor(back)
        for number, (name, points) in enumerate(self._lines.items()):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=CLASS_COLOURS[number % 7], lw=1.4, marker=".", ms=3, label=name)
        axes.set_xlabel("epoch", color=text, fontsize=8)
        axes.set_ylabel("loss", color=text, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(colors=text, labelsize=7)
        for spine in axes.spines.values():
            spine.set_color(text)
            spine.set_alpha(0.3)
        if len(self._lines) > 1:
            legend = axes.legend(fontsize=7, frameon=False)
            for label in legend.get_texts():
                label.set_color(text)
        self.show()
        self._canvas.draw_idle()
