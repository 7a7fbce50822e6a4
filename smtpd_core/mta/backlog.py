"""The tasks of one relay that wait for a session, and when the relay has enough of them.

At task-hiwat tasks the relay goes on hold: an envelope that needs another task is given back to
the queue, which holds it. At task-lowat it is off hold again, and asks for task-release of the
held ones; when nothing waits any more, it asks for all.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Optional

from smtpd_core.mta.task import Task

if TYPE_CHECKING:
    from smtpd_core.config.settings import MtaLimits
    from smtpd_core.mta.task import Item, TaskKey


class Place(enum.Enum):
    """Where an envelope went."""

    JOINED = "a task that waits already"
    NEW = "a task of its own"
    HELD = "the hold queue"


class Taken(NamedTuple):
    """A task for a session; release is how many held envelopes to ask for, 0 for all."""

    task: Task
    off_hold: bool
    release: Optional[int]


class Backlog:
    """Tasks in order of arrival."""

    def __init__(self, limits: MtaLimits) -> None:
        """Begin without tasks."""
        self.on_hold = False
        self.any_held = False
        self._limits = limits
        self._tasks: dict[Task, None] = {}
        self._joinable: dict[TaskKey, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, item: Item, key: TaskKey) -> Place:
        """Take an envelope, unless it has to be held."""
        task = self._joinable.get(key)
        if task is not None and not task.is_full:
            task.add(item)
            return Place.JOINED
        if self.on_hold or len(self._tasks) >= self._limits.task_hiwat:
            self.on_hold = self.any_held = True
            return Place.HELD
        task = Task(key)
        task.add(item)
        self._tasks[task] = None
        self._joinable[key] = task
        return Place.NEW

    def take(self) -> Optional[Taken]:
        """Give the task that waits longest; nobody joins it any more."""
        task = next(iter(self._tasks), None)
        if task is None:
            return None
        del self._tasks[task]
        if self._joinable.get(task.key) is task:
            del self._joinable[task.key]
        waiting = len(self._tasks)
        off_hold = self.on_hold and waiting <= self._limits.task_lowat
        if off_hold:
            self.on_hold = False
        release = None
        if self.any_held and waiting == 0:
            self.any_held = False
            release = 0
        elif self.any_held and waiting == self._limits.task_lowat:
            release = self._limits.task_release
        return Taken(task, off_hold, release)

    def clear(self) -> list[Task]:
        """Give all tasks; held envelopes are to be asked for if any_held says so."""
        tasks = list(self._tasks)
        self._tasks.clear()
        self._joinable.clear()
        self.on_hold = False
        return tasks
