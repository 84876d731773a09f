"""What has been in sight long enough to count as seen."""

from __future__ import annotations

import time
from collections.abc import Iterable

SEEN_AFTER = 1.0  # seconds in sight


class Dwell:
    """Since when each item has been in sight without a break."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def at(self, uids: Iterable[str]) -> list[str]:
        """Note what is in sight now; returns what has been for `SEEN_AFTER` seconds."""
        now = time.monotonic()
        self._since = {uid: self._since.get(uid, now) for uid in uids}
        return [uid for uid, since in self._since.items() if now - since >= SEEN_AFTER]

    def forget(self) -> None:
        """Nothing is in sight any more."""
        self._since.clear()
