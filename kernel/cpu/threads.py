"""Threads for kernels that release the GIL: a team of workers, who take the parts of a work one by one with the caller.

There is one team: whoever finds it at work, be it another thread of Python or a part of the very work, does all of his
alone, to the same bits. A worker that comes late, as on a busy machine, finds that the others have done his parts too.

Between two works threads stay awake for a moment, as the next one often comes at once. Who is awake must not meet
another at the GIL, where he would be put to sleep: a worker leaves it to the caller until he is in his own part, and
the caller waits without it until the worker has given it back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

from numpy.typing import NDArray

from ..errors import EqkernelError, is_whole
from .watch import changes, flag, listen, looks_in

Run = Callable[[int, int], None]

WORTH_A_THREAD = 5e7  # operations, 0.25 ms where half of them fall out with their zeros; a worker wakes in 0.05
AWAKE = 1e-3  # seconds that a thread waits awake: more than there is between two training steps
HEAD_START = 3e-6  # seconds from the bell until the caller has come to his own part, and the GIL is free
NAPS = 64  # works, at most, after which a worker sleeps at once, having waited awake in vain
MOST_THREADS = 1024
SHARES = 2  # parts a thread, at most: more even the ends out, and cost a call each


class Work:
    """The parts of a work that nobody has taken yet, and what those raised that failed."""

    def __init__(self, run: Run, parts: int, number: int) -> None:
        self.run: Run | None = run
        self.number = number  # what the bell shows when it has rung for this work
        self.parts = parts
        self.left = [*range(parts)][::-1]
        self.errors: list[BaseException] = []

    def share(self) -> None:
        """Take parts and do them until none is left; an interrupt leaves the rest."""
        while self.left:
            try:
                part = self.left.pop()
            except IndexError:  # another thread was faster
                return
            assert self.run is not None
            try:
                self.run(part, self.parts)
            except BaseException as error:  # the caller's, who raises it when nobody has a part any more
                self.errors.append(error)
                if isinstance(error, KeyboardInterrupt):
                    self.left.clear()

    def end(self) -> list[BaseException]:
        """Nobody has a part any more: what failed. Who still holds the work holds no array of the caller's with it."""
        errors, self.errors, self.run = self.errors, [], None
        return errors


class Worker:
    """A thread that shares in the works it is offered; it holds `busy` while it may have a part of one."""

    def __init__(self, works: SimpleQueue[Work], bell: NDArray) -> None:
        self.busy, self.idle = Lock(), flag()
        # A daemon: it holds nothing that an interpreter which shuts down would have to wait for.
        Thread(target=self._serve, args=(works, bell), name="eqkernel", daemon=True).start()

    def _serve(self, works: SimpleQueue[Work], bell: NDArray) -> None:
        awake, late = looks_in(AWAKE), looks_in(HEAD_START)
        vain = naps = 0
        while True:
            work = works.get()
            with self.busy:
                self.idle[0] = 0
                work.share()
            if listen(self.idle, bell, work.number, 0 if naps else awake, late):
                vain = 0
            elif naps:
                naps -= 1
            else:
                vain += 1
                naps = min(2**vain, NAPS)

    def rest(self) -> None:
        """Until he has no part of a work, whose caller this is."""
        if self.busy.locked():
            changes(self.idle, 0, looks_in(AWAKE))
        with self.busy:
            pass


class Team:
    """Workers, the queue in which they find works and the bell that tells of one; `taken` while one is being done."""

    def __init__(self) -> None:
        self.taken, self.bell = Lock(), flag()
        self.works: SimpleQueue[Work] = SimpleQueue()
        self.workers: list[Worker] = []

    def offer(self, work: Work, count: int) -> None:
        """Tell so many workers of a work."""
        for _ in range(count):
            self.works.put(work)
        self.bell[0] = work.number  # the last of it: who hears that will want the GIL

    def gather(self, count: int) -> bool:
        """Whether there are so many workers; those that are missing are made, if the system lets one."""
        try:
            while len(self.workers) < count:
                self.workers.append(Worker(self.works, self.bell))
        except RuntimeError:  # no thread to be had, or the interpreter is shutting down
            return False
        return True

    def wait(self) -> None:
        """Until no worker has a part, whatever interrupts: kernels at work use arrays of the caller's."""
        try:
            for worker in self.workers:
                worker.rest()
        except BaseException:
            self.wait()
            raise


_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_team = Team()


def _forget() -> None:
    """In a forked child, which has the objects but not the threads."""
    global _team
    _team = Team()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def set_threads(count: int) -> None:
    """Use `count` threads in the CPU kernels from now on, MOST_THREADS at most; results do not depend on it."""
    global _threads
    if not is_whole(count, 1) or count > MOST_THREADS:
        raise EqkernelError(f"threads must be a whole number from 1 to {MOST_THREADS}, not {count!r}")
    _threads = count


def get_threads() -> int:
    """How many threads the CPU kernels use."""
    return _threads


def spread(run: Run, parts: int, flops: float) -> None:
    """Call run(part, parts) for every part, at most SHARES a thread; kernels release the GIL.

    Work of less than WORTH_A_THREAD flops stays on this thread, which calls run(0, 1). Returns when every part is done,
    also when it raises: what a part raised, or the KeyboardInterrupt that came meanwhile, which may leave parts undone.
    """
    threads = min(parts, _threads) if flops > WORTH_A_THREAD else 1
    team = _team
    if threads <= 1 or not team.taken.acquire(blocking=False):
        run(0, 1)
        return
    try:
        if not team.gather(threads - 1):
            run(0, 1)
            return
        work = Work(run, min(parts, SHARES * threads), int(team.bell[0]) + 1)
        try:
            team.offer(work, threads - 1)
            work.share()
        finally:
            work.left.clear()
            team.wait()
            errors = work.end()
        if errors:
            raise max(errors, key=lambda error: isinstance(error, KeyboardInterrupt))
    finally:
        team.taken.release()
