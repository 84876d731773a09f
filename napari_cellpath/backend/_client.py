"""Dask's client, except that a lost connection is final. Importing this imports Dask."""

from __future__ import annotations

from distributed import Client


class OneConnectionClient(Client):
    """Give up quietly when the scheduler is gone; the dispatcher then makes a new link.

    Dask's own would call for the dead scheduler for ten seconds and print tracebacks into the
    user's console while it is closed. Should Dask rename the method, only that noise returns.
    """

    async def _reconnect(self) -> None:
        await self._close(fast=True)
