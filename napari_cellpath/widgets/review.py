"""The review dock: a gallery of what was called, to be looked through, labelled and agreed with.

It only wires: the panels' wishes go to the session, the session's news to panels and gallery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_cellpath.backend import shared_backend
from napari_cellpath.bridge.feature_frame import BY_CELL
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.widgets.dwell import Dwell
from napari_cellpath.widgets.frame import GAP, MARGIN, Themed, rule
from napari_cellpath.widgets.gallery import Gallery
from napari_cellpath.widgets.item_faces import ItemFaces
from napari_cellpath.widgets.keys import GalleryKeySheet
from napari_cellpath.widgets.reading import AgreementSheet, BlindReading, ReadingSection, compare
from napari_cellpath.widgets.review_panels import SIDES, LabelSection, ListSection, ProgressLine
from napari_cellpath.widgets.review_session import MOST_MIRRORED, ReviewSession
from napari_cellpath.widgets.sections import Choice, quiet
from napari_cellpath.widgets.thumbnails import Thumbnails
from napari_cellpath.widgets.tiles import cell_size

if TYPE_CHECKING:
    import napari

    from napari_cellpath.backend.job import Backend

SOON = 40  # ms in which news is gathered before it is shown
NOTHING = "Nothing to review yet. Find or mark cells with one of the other docks first."
NO_MATCH = "Nothing here matches what ‘Show’ asks for."
FOLDED, OPEN = "▸  Blind second reading", "▾  Blind second reading"

BLIND_NO_UNDO = "A blind reading is under way: undoing would change labels that nobody sees."


class ReviewDock(Themed):
    """Look through what was called, tile by tile.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    backend
        Where features are computed; by default the one backend that all docks share.
    """

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, *, backend: Backend | None = None
    ) -> None:
        super().__init__()
        self.setWindowTitle("Review")
        self._docked = False
        self._dwell = Dwell()
        self._new = 0
        self._was_reset = False
        self.session = ReviewSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend
        )
        self.blind = BlindReading(self.session)
        self.thumbnails = Thumbnails(self)
        self.list = ListSection()
        self.progress = ProgressLine()
        self.faces = ItemFaces(self.session, self.blind, self.thumbnails, SIDES[1])
        self.gallery = Gallery(self.faces.paint, cell_size(SIDES[1]))
        self.gallery.tip = self.faces.tip
        self.labels = LabelSection()
        self.reading = ReadingSection()
        self._refresh_timer = self._timer(SOON, self._refresh)
        self._look_timer = self._timer(SOON // 2, self._look)
        self._mirror_timer = self._timer(SOON, self._mirror)
        self._seen_timer = QTimer(self)
        self._seen_timer.setInterval(250)
        self._seen_timer.timeout.connect(self._note_seen)
        self._seen_timer.start()
        self._lay_out()
        self._connect()
        self.destroyed.connect(self.session.close)
        self.destroyed.connect(self.thumbnails.close)
        self._show_piles()
        self._take_deck()

    def _timer(self, interval: int, slot: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval)
        timer.timeout.connect(slot)
        return timer

    def _lay_out(self) -> None:
        self.fold = QCollapsible(FOLDED, None, QIcon(), QIcon())
        self.fold.setObjectName("cellpath-more")
        self.fold.setDuration(0)
        self.fold.layout().setContentsMargins(0, 0, 0, 0)
        self.fold.addWidget(self.reading)
        self.fold.collapse(animate=False)
        self.fold.toggled.connect(lambda is_open: self.fold.setText(OPEN if is_open else FOLDED))
        note = quiet(RESEARCH_ONLY)
        note.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN // 2)
        column.setSpacing(GAP)
        column.addWidget(self.list)
        column.addWidget(self.progress)
        column.addWidget(self.gallery, 1)
        column.addWidget(self.labels)
        column.addWidget(rule())
        column.addWidget(self.fold)
        column.addWidget(note)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide enough for four tiles in a row."""
        return QSize(470, 720)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Small: what does not fit is scrolled to."""
        return QSize(300, 160)

    def _connect(self) -> None:
        session, gallery = self.session, self.gallery
        self.list.pile_chosen.connect(session.choose)
        self.list.started.connect(self._start)
        self.list.side_moved.connect(self._set_side)
        self.list.field_chosen.connect(self._set_field)
        gallery.selection_made.connect(self._on_selection)
        gallery.entered.connect(self.go_to)
        gallery.digit_pressed.connect(self._label_by_key)
        gallery.taken_back.connect(lambda: self.label(""))
        gallery.agreed.connect(self.agree_with_page)
        gallery.undone.connect(lambda: session.keeper.undo())
        gallery.redone.connect(lambda: session.keeper.redo())
        gallery.moved.connect(self._on_moved)
        self.labels.class_chosen.connect(self.label)
        self.labels.agreed.connect(self.agree_with_page)
        self.labels.taken_back.connect(lambda: self.label(""))
        self.labels.keys_wanted.connect(self.show_keys)
        self.reading.begun.connect(self.begin_reading)
        self.reading.ended.connect(self.end_reading)
        self.reading.agreement_wanted.connect(self.show_agreement)
        self.thumbnails.arrived.connect(gallery.update_all)
        session.piles_changed.connect(self._show_piles)
        session.deck_changed.connect(self._take_deck)
        session.items_changed.connect(self._soon)
        session.items_reset.connect(self._on_reset)
        session.round_began.connect(self._on_round)
        session.selected.connect(self._follow)
        session.pictures_changed.connect(self._look_soon)
        session.told.connect(self._tell)

    # What is listed.

    def _show_piles(self) -> None:
        session = self.session
        together = session.together()
        choices = [Choice(pile.layer, pile.layer.name) for pile in session.piles]
        if len(together) > 1:
            text = f"all {together[0].kind} of {len(together)} layers"
            choices.insert(0, Choice(None, text))
        only = choices[0].value if len(choices) == 1 else None
        self.list.set_piles(choices, session.chosen or only)

    def _take_deck(self) -> None:
        if self.blind.running:
            self.end_reading()
            self._tell(
                "warning", "Other items are under review; the reading has ended and is kept."
            )
        self._show_piles()
        self._show_classes()
        self.session.start(*self.list.wish)

    def _start(self, order: Any, show: Any, class_name: str) -> None:
        self.session.start(order, show, class_name)
        self.gallery.setFocus()

    @timed
    def _on_round(self) -> None:
        now = self.session.round
        self.list.set_order(now.order)
        self._new = 0
        self._dwell.forget()
        self.gallery.hint = NO_MATCH if len(self.session.deck) else NOTHING
        self.gallery.set_count(len(now.uids))
        self._refresh()

    def _on_reset(self) -> None:
        self._was_reset = True
        self._soon()

    def _soon(self) -> None:
        if not self._refresh_timer.isActive():  # else news without end would put it off for ever
            self._refresh_timer.start()

    def _look_soon(self) -> None:
        if not self._look_timer.isActive():
            self._look_timer.start()

    @timed
    def _refresh(self) -> None:
        """Show what has changed: items that are gone, counts, progress, classes."""
        session, now = self.session, self.session.round
        selected = self._uids(self.gallery.selected)
        before = len(now.uids)
        if self._was_reset:
            self._was_reset = False
            self._new = now.take_in_reset()
        if not before and self._new and not self.blind.running:
            session.start(*self.list.wish)  # there was nothing that could jump about
            return
        if len(now.uids) != before:
            top = self.gallery.verticalScrollBar().value()
            self.gallery.set_count(len(now.uids), map(now.place_of, selected))
            self.gallery.verticalScrollBar().setValue(top)
        self._show_classes()
        self._show_progress()
        self.gallery.update_all()
        self._look_soon()

    def _show_classes(self) -> None:
        deck = self.session.deck
        self.labels.set_classes(deck.classes, deck.colours, several=deck.several)
        self.list.set_classes(deck.classes)

    @timed
    def _show_progress(self) -> None:
        deck, now = self.session.deck, self.session.round
        rows = now.rows
        rows = rows[rows >= 0]
        page = now.rows[list(self.gallery.on_page())] if len(now.rows) else rows
        page = page[page >= 0]
        facts = deck.facts
        if self.blind.running:
            total, done = len(rows), sum(uid in self.blind.mine for uid in now.uids)
            text = f"<b>{done:,} of {total:,} read</b> by {self.blind.reader}"
            text += " · End reading to see the agreement" if done == total else ""
            self.labels.set_counts(None, 0)
        else:
            labelled = facts.labelled
            total, done = len(rows), int(labelled[rows].sum())
            left = int((~labelled[page]).sum())
            text = f"<b>{done:,} of {total:,} labelled</b> · {left} left on this page"
            if self._new:
                text += f" · {self._new:,} not listed yet"
            if now.outdated and total:
                text += " · scores changed, start anew to sort"
            self.labels.set_counts(deck.counts(), int(facts.agreeable[page].sum()))
        self.progress.set_progress(done, total, text if total else "")
        self.labels.set_active(len(self.gallery.selected) > 0)

    # Tiles.

    def _set_side(self, side: int) -> None:
        self.faces.side = side
        self.gallery.set_cell(cell_size(side))

    def _set_field(self, times: float) -> None:
        self.faces.field = times
        self._look()
        self.gallery.update_all()

    @timed
    def _look(self) -> None:
        """Have the pictures of what is in sight read, and of a page before and after."""
        self.faces.pixel_ratio = self.devicePixelRatioF()
        sight, rows = self.gallery.in_sight(), self.session.round.rows
        high = max(1, len(sight))
        after = range(sight.stop, min(sight.stop + high, len(rows)))
        before = range(max(0, sight.start - high), sight.start)
        there = [int(rows[p]) for part in (sight, after, before) for p in part if p < len(rows)]
        self.thumbnails.want(
            [cut for r in there if r >= 0 and (cut := self.faces.cut(r)) is not None]
        )

    # What the user does.

    def _uids(self, places: Any) -> list[str]:
        uids = self.session.round.uids
        return [uids[p] for p in places if p < len(uids)]

    def _on_selection(self) -> None:
        self.labels.set_active(len(self.gallery.selected) > 0)
        self._mirror_timer.start()

    @timed
    def _mirror(self) -> None:
        if not self.blind.running:
            chosen = self.gallery.selected
            self.session.select(self._uids(chosen) if len(chosen) <= MOST_MIRRORED else ())

    def _follow(self, uids: list[str]) -> None:
        if self.blind.running:
            return
        self._mirror_timer.stop()
        self.gallery.select([self.session.round.place_of(uid) for uid in uids], show=True)
        self.labels.set_active(len(self.gallery.selected) > 0)

    def _label_by_key(self, number: int) -> None:
        classes = self.session.deck.classes
        if number <= len(classes):
            self.label(classes[number - 1])

    @timed
    def label(self, label: str) -> None:
        """Give the selected ones a class, or in a blind reading read them so; empty takes back."""
        uids = self._uids(self.gallery.selected)
        if not uids:
            self._tell("info", "Select tiles first; arrows, clicks and a rubber band do.")
            return
        if not self.blind.running:
            self.session.deck.label(uids, label)
            return
        self.blind.read(uids, label)
        if label and len(uids) == 1 and not self.session.deck.several:
            self.gallery.step_on()

    @timed
    def agree_with_page(self) -> int:
        """Take the calls of all unlabelled ones on this page as the person's word; how many."""
        if self.blind.running:
            return 0
        return self.session.deck.agree(self._uids(self.gallery.on_page()))

    def go_to(self, place: int) -> None:
        """Show an item in the viewer."""
        row = int(self.session.round.rows[place])
        if row < 0:
            return
        blind = self.blind.running
        if not blind:
            uids = self._uids([place])
            self.session.select(uids)
            self.session.deck.see(uids)
        self.session.show(row, activate=not blind)

    def show_keys(self) -> None:
        """Show the keys of the gallery."""
        deck = self.session.deck
        GalleryKeySheet(deck.classes, parent=self, several=deck.several).show()

    @timed
    def _note_seen(self) -> None:
        """Mark as seen what has been to be seen whole for a second."""
        if not self.isVisible() or self.window().isMinimized() or self.blind.running:
            self._dwell.forget()
            return
        facts, rows = self.session.deck.facts, self.session.round.rows
        here = [int(rows[place]) for place in self.gallery.on_page() if place < len(rows)]
        seen = self._dwell.at([str(facts.uid[r]) for r in here if self._shows_unseen(r)])
        if seen:
            # The others at the next look: more rows than that are written as whole columns.
            self.session.deck.see(seen[:BY_CELL])

    def _shows_unseen(self, row: int) -> bool:
        """Whether an item that is not seen yet stands there with its picture, not as a frame."""
        if row < 0 or self.session.deck.facts.seen[row]:
            return False
        cut = self.faces.cut(row)
        return cut is not None and self.thumbnails.get(cut[0]) is not None

    def _on_moved(self) -> None:
        self._look_soon()
        self._soon()

    # The blind reading.

    def _hold_undo(self) -> None:
        keeper = self.session.keeper
        keeper.held_back = BLIND_NO_UNDO if self.blind.running else ""

    def begin_reading(self, reader: str, count: int, seed: int) -> None:
        """Hide what is known and deal items out to a reader; what is wrong is told."""
        try:
            self.blind.begin(reader, count, seed)
        except CellpathError as error:
            self._tell("warning", str(error))
            return
        self._hold_undo()
        self._show_blind()
        self.gallery.setFocus()

    def end_reading(self) -> None:
        """Show everything again, and how far readers, labels and model agree."""
        was_running = self.blind.running
        self.blind.end()
        self._hold_undo()
        self._show_blind()
        if was_running and len(self.session.deck):
            self.show_agreement()

    def _show_blind(self) -> None:
        running = self.blind.running
        self.reading.set_running(running)
        self.list.set_open(not running)
        self.gallery.keeps_keys = running  # keys of the layer would show or change what is hidden
        self.fold.expand(animate=False)
        self._refresh()

    def show_agreement(self) -> AgreementSheet:
        """Show kappa of every pair of raters."""
        deck = self.session.deck
        sheet = AgreementSheet(compare(deck.readings(), deck.facts, deck.classes), self)
        sheet.show()
        return sheet

    def _tell(self, severity: str, sentence: str) -> None:
        {"error": show_error, "warning": show_warning}.get(severity, show_info)(sentence)

    # Coming and going.

    def close_session(self) -> None:
        """End everything that goes on; safe to call twice."""
        self.blind.end()
        self._hold_undo()
        for timer in (self._seen_timer, self._look_timer, self._refresh_timer, self._mirror_timer):
            timer.stop()
        self.thumbnails.close()
        self.session.close()

    def event(self, event: QEvent) -> bool:
        """A widget that napari takes out of its dock is closed: that ends the session."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.close_session()
        return super().event(event)
