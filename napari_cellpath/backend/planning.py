"""What the planning thread does: everything before a request's first task that may take long.

Reading a model's card, opening an image, even downloading a model must keep neither the GUI
nor the running jobs waiting. Results go to the dispatcher as actions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from napari_cellpath.backend.failures import as_user_error
from napari_cellpath.backend.job import Job, JobState
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.systems.protocol import ModelRef, Plan, entry, load_object, make_plan

log = logging.getLogger(__name__)

Action = Callable[[], None]


def run_actions(todo: SimpleQueue[Action | None]) -> None:
    """Run actions in order until None comes."""
    while (action := todo.get()) is not None:
        try:
            action()
        except Exception:
            log.exception("An action of the backend failed.")


def plan_job(
    job: Job,
    inbox: SimpleQueue[Action | None],
    planned: Callable[[Job, Plan], None],
    end: Callable[[Job, JobState, CellpathError], None],
) -> None:
    """Make a job's plan and have ``planned`` called with it, or ``end`` with the error."""
    if job.state.final:
        return
    try:
        plan = make_plan(job.request)
    except Exception as error:  # whatever it is, the job must end
        failure = as_user_error(error, "The request could not be planned")
        inbox.put(partial(end, job, JobState.FAILED, failure))
    else:
        inbox.put(partial(planned, job, plan))


def find_to_warm(
    model: str,
    inbox: SimpleQueue[Action | None],
    warm: Callable[[System, ModelRef], None],
) -> None:
    """Find a model and have ``warm`` called with it; import its system's plan meanwhile."""
    from napari_cellpath.models import find_model

    try:
        found = find_model(model)
    except CellpathError as error:
        log.warning("No warm-up: %s", error)  # a request for it will say so to the user
        return
    ref = ModelRef(found.name, str(found.folder), found.info.sha256)
    inbox.put(partial(warm, found.info.system, ref))
    load_object(entry(found.info.system).plan)  # a second, else paid by the first request
