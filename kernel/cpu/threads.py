"""Threads for kernels that release the GIL: a team of workers, each handed its work through two locks.

There is one team: whoever finds it at work, be it another thread of Python or a part of the very work, does all of his
alone, to the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock, Thread

from ..errors import EqkernelError, is_whole

Run = Callable[[int, int], None]

WORTH_A_THREAD = 5e7  # operations, 0.25 ms where half of them fall out with their zeros; a worker wakes in 0.05


class Worker:
    """A thread that does one task at a time: `task` until it is done, then None, and `error` if it failed."""

    def __init__(self) -> None:
        self.task: tuple[Run, int, int] | None = None
        self.error: BaseException | None = None
        self._begin, self._end = Lock(), Lock()
        self._begin.acquire()
        self._end.acquire()
        # A daemon: it holds nothing that an interpreter which shuts down would have to wait for.
        Thread(target=self._serve, name="eqkernel", daemon=True).start()

    def wake(self) -> None:
        """Make it look for a task; harmless if there is none."""
        if self._begin.locked():
            self._begin.release()

    def wait(self) -> None:
        """Until it has no task."""
        while self.task is not None:
            self._end.acquire()

    def _serve(self) -> None:
        while True:
            self._begin.acquire()
            if self.task is None:
                continue
            run, part, parts = self.task
            try:
                run(part, parts)
            except BaseException as error:  # the caller's, who raises it
                self.error = error
            del run  # with it the arrays of the caller, which an idle worker must not keep
            self.task = None
            if self._end.locked():  # not if the one who waits has found out already
                self._end.release()


_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_team: list[Worker] = []
_busy = Lock()


def _forget() -> None:
    """In a forked child, which has the objects but not the threads."""
    global _team, _busy
    _team, _busy = [], Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def set_threads(count: int) -> None:
    """Use `count` threads in the CPU kernels from now on; results do not depend on it."""
    global _threads
    if not is_whole(count, 1):
        raise EqkernelError(f"threads must be a whole number of at least 1, not {count!r}")
    _threads = count


def get_threads() -> int:
    """How many threads the CPU kernels use."""
    return _threads


def spread(run: Run, parts: int, flops: float) -> None:
    """Call run(part, parts) for every part, at most one a thread; kernels release the GIL.

    Work of less than WORTH_A_THREAD flops stays on this thread, which calls run(0, 1). Returns when every part is done,
    also when it raises: what a part raised, or the KeyboardInterrupt that came meanwhile.
    """
    parts = min(parts, _threads) if flops > WORTH_A_THREAD else 1
    busy = _busy
    if parts <= 1 or not busy.acquire(blocking=False):
        run(0, 1)
        return
    try:
        if not _gather(parts - 1):
            run(0, 1)
            return
        workers = _team[: parts - 1]
        try:
            for part, worker in enumerate(workers, 1):
                worker.task = run, part, parts
                worker.wake()
            run(0, parts)
        finally:
            _wait(workers)
            errors = [worker.error for worker in workers if worker.error is not None]
            for worker in workers:
                worker.error = None
        if errors:
            raise errors[0]
    finally:
        busy.release()


def _gather(count: int) -> bool:
    """Whether there are so many workers; those that are missing are made, if the system lets one."""
    try:
        while len(_team) < count:
            _team.append(Worker())
    except RuntimeError:  # no thread to be had, or the interpreter is shutting down
        return False
    _wait(_team)
    return True


def _wait(workers: list[Worker]) -> None:
    """Until no worker has a task, whatever interrupts: kernels at work use arrays of the caller's."""
    try:
        for worker in workers:
            worker.wait()
    except BaseException:
        for worker in workers:
            worker.wake()  # the interrupt may have come between a task and its wake
        _wait(workers)
        raise
