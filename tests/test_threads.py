"""The team of threads: every part is done once, errors and interrupts reach the caller, nobody waits for ever."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import defaultdict
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest
from compiled import COMPILED

import eqkernel as eq
from eqkernel.cpu import threads
from eqkernel.cpu.threads import WORTH_A_THREAD, spread
from eqkernel.cpu.watch import changes, flag, looks_in

MUCH = 2 * WORTH_A_THREAD


@pytest.fixture(autouse=True)
def three_threads():
    before = eq.get_threads()
    eq.set_threads(3)
    yield
    eq.set_threads(before)


def done(flops=MUCH, parts=3, together=3):
    """(part, parts) of every call, sorted, and how many threads made them: so many at a time, or it would hang."""
    calls, threads, meeting = [], set(), threading.Barrier(together)

    def run(part, of):
        meeting.wait(60)
        calls.append((part, of))
        threads.add(threading.get_ident())

    spread(run, parts, flops)
    return sorted(calls), len(threads)


def of(parts):
    return [(part, parts) for part in range(parts)]


TEAM, ALONE = (of(3), 3), (of(1), 1)


def test_every_part_is_done_once():
    assert done() == TEAM
    assert done(parts=9) == (of(6), 3) and done(parts=2, together=2) == (of(2), 2)
    assert done(flops=WORTH_A_THREAD, together=1) == done(parts=1, together=1) == ALONE


@pytest.fixture
def late(monkeypatch):
    """A team whose workers nobody has woken."""
    team = threads.Team()
    with monkeypatch.context() as patch:
        patch.setattr(threads, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
        assert team.gather(2)
    monkeypatch.setattr(threads, "_team", team)
    return team


def test_a_worker_that_comes_late_is_not_waited_for(late):
    assert done(together=1) == (of(3), 1)
    work = late.works.get()
    work.share()  # one comes: nothing is left
    assert work.run is None


def test_an_interrupt_between_two_parts_leaves_none_to_a_worker_that_comes_late(late, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threads.Work, "share", interrupted)
        spread(lambda part, parts: None, 3, MUCH)
    assert late.works.get().left == []
    assert done(together=1) == (of(3), 1)


def test_an_interrupt_goes_before_errors_and_leaves_the_other_parts(late):
    calls = []

    def run(part, parts):
        calls.append(part)
        raise (ZeroDivisionError, KeyboardInterrupt, AssertionError)[part]

    with pytest.raises(KeyboardInterrupt):
        spread(run, 3, MUCH)
    assert calls == [0, 1]


def test_a_hand_over_never_loses_a_part():
    count = np.zeros(3, int)

    def run(part, parts):
        count[part] += 1

    for _ in range(5000):
        spread(run, 3, MUCH)
    assert count.tolist() == [5000] * 3


def test_waiting_awake_needs_no_gil_and_sees_a_change():
    number = flag()
    assert number.ctypes.data % 64 == 0 and number.nbytes == 64
    assert not changes(number, 0, 1000) and changes(number, 1, 1)
    other = threading.Timer(0.05, lambda: number.__setitem__(0, 7))
    other.start()
    assert changes(number, 0, looks_in(20))


def test_who_waits_awake_hears_the_bell(monkeypatch):
    """And says that he rests: else workers or the caller would wait for 20 seconds in vain, and then sleep."""
    heard, listen, team = defaultdict(list), threads.listen, threads.Team()

    def listening(idle, bell, *arguments):
        rung = listen(idle, bell, *arguments)
        if bell is team.bell:  # another team's workers may still find works of an earlier test
            heard[threading.get_ident()].append(rung)
        return rung

    monkeypatch.setattr(threads, "_team", team)
    monkeypatch.setattr(threads, "listen", listening)
    monkeypatch.setattr(threads, "AWAKE", 20)
    for _ in range(4):
        assert done() == TEAM
    assert [waits[:3] for waits in heard.values()] == [[True] * 3] * 2
    assert all(changes(worker.idle, 0, looks_in(20)) for worker in team.workers)
    team.bell += 1


def test_who_comes_late_hears_of_the_work_after(late, monkeypatch):
    rung, listen = SimpleQueue(), threads.listen
    monkeypatch.setattr(threads, "listen", lambda *arguments: rung.put(listen(*arguments)))
    monkeypatch.setattr(threads, "AWAKE", 20)
    for _ in range(2):
        assert done(together=1) == (of(3), 1)
    threading.Thread(target=late.workers[0]._serve, args=(late.works, late.bell), daemon=True).start()
    assert rung.get(timeout=10)
    late.bell += 1


def test_who_waits_in_vain_sleeps_at_once_ever_more_often(monkeypatch):
    looked, team = defaultdict(list), threads.Team()

    def listening(idle, bell, heard, looks, late):
        mine = looked[threading.get_ident()] if bell is team.bell else []  # as above
        mine.append(looks)
        idle[0] = 1
        return len(mine) == 18  # once he hears

    monkeypatch.setattr(threads, "_team", team)
    monkeypatch.setattr(threads, "listen", listening)
    for _ in range(220):
        assert done() == TEAM
    for looks in looked.values():
        assert list(np.flatnonzero(looks[:219])) == [0, 3, 8, 17, 18, 21, 26, 35, 52, 85, 150, 215]


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_an_error_reaches_the_caller_when_all_parts_are_done(culprit):
    finished = []

    def run(part, parts):
        if part == culprit:
            raise ZeroDivisionError(part)
        time.sleep(0.05)
        finished.append(part)

    with pytest.raises(ZeroDivisionError, match=str(culprit)):
        spread(run, 3, MUCH)
    assert sorted(finished) == sorted({0, 1, 2} - {culprit})
    assert done() == TEAM


def test_work_within_work_is_done_alone():
    inner = []
    spread(lambda part, parts: inner.append(done(together=1)), 3, MUCH)
    assert inner == [ALONE] * 3


def test_two_callers_at_once():
    """One has the team, the other works alone; a network each learns what it learns by itself."""
    rng = np.random.default_rng(0)
    x, y = rng.random((256, 300), np.float32), rng.integers(0, 4, 256)

    def trained(seed):
        net = eq.Network.dense(300, 200, 200, 4, seed=seed, backend="cpu")
        for _ in range(20):
            eq.train_step(net, x, y, lr=0.1)
        return net.buffer

    alone = [trained(seed) for seed in (0, 1)]
    together = [None, None]

    def learn(seed):
        together[seed] = trained(seed)

    callers = [threading.Thread(target=learn, args=(seed,)) for seed in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::eqkernel.UnsettledWarning")
@pytest.mark.parametrize("sizes", [(6, 8, 8, 3), (784, 512, 10)])
@pytest.mark.parametrize("backend", COMPILED)
def test_threads_that_share_a_network_take_turns(backend, sizes):
    """Each has a batch and a schedule of its own; its results are those it would have alone."""
    rng = np.random.default_rng(0)
    net = eq.Network.dense(*sizes, backend=backend, seed=1)
    cases = []
    for size, gamma in ((40, 0.003), (33, 0.03), (17, 0.3), (8, 1.0)):
        x, y = rng.random((size, sizes[0]), np.float32), rng.integers(0, sizes[-1], size)
        plan = eq.SCHEDULES["few-step"].but(gamma=gamma, tolerance=None)
        cases.append((x, y, plan, eq.free_phase(net, x[:4], plan)))

    def results(x, y, plan, free):
        yield eq.predict(net, x, output=True, size=16)
        yield from eq.ep_gradient(net, x, y, schedule=plan)
        yield from eq.settle(net, x, y, 0.1, plan).state
        yield from eq.nudged_phase(net, free, y[:4], 0.1).difference

    alone = [[a.copy() for a in results(*case)] for case in cases]
    wrong, begun = [], threading.Barrier(len(cases))

    def again(index):
        begun.wait(60)
        for number in range(30):
            for a, b in zip(results(*cases[index]), alone[index], strict=True):
                if not np.array_equal(a, b):
                    wrong.append((index, number))
                    return

    callers = [threading.Thread(target=again, args=(index,)) for index in range(len(cases))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


@pytest.mark.parametrize("moment", ["own part", "waiting", "waiting, twice"])
def test_an_interrupt_waits_for_the_workers(moment):
    """Else they would go on writing into arrays that the caller believes to be his again."""
    finished, begun = [], threading.Barrier(3)
    times = 2 if moment == "waiting, twice" else 1

    def run(part, parts):
        begun.wait()
        if part == 0:
            if moment == "own part":
                signal.raise_signal(signal.SIGINT)
            return
        if part == 1 and moment != "own part":
            for _ in range(times):
                time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        finished.append(part)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            spread(run, 3, MUCH)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(finished) == [1, 2]
    assert done() == TEAM


def test_an_idle_worker_keeps_nothing():
    array = np.zeros(5)
    gone = weakref.ref(array)

    def run(part, parts, array=array):
        array[part] = 1

    spread(run, 3, MUCH)
    assert array.sum() == 3
    del array, run
    assert gone() is None


def test_without_threads_the_work_is_done_alone(monkeypatch):
    def none_left(*arguments, **options):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_team", threads.Team())
    monkeypatch.setattr(threads, "Thread", none_left)
    assert done(together=1) == ALONE


AFTERWARDS = """
import atexit, os, sys
import eqkernel as eq
from eqkernel.cpu.threads import WORTH_A_THREAD, spread
eq.set_threads(3)
def work():
    calls = []
    spread(lambda part, parts: calls.append((part, parts)), 3, 2 * WORTH_A_THREAD)
    return sorted(calls)
three, one = [(0, 3), (1, 3), (2, 3)], [(0, 1)]
assert work() == three
{then}
"""
FORK = """
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if work() == three else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
def forks(part, parts):
    if part == 1:  # a worker forks while the team is at work
        child = os.fork()
        if not child:
            os._exit(0 if work() == three else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
spread(forks, 3, 2 * WORTH_A_THREAD)
assert work() == three
"""
EXIT = "atexit.register(lambda: sys.stdout.write('good' if work() in (three, one) else 'bad'))"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_team_of_its_own():
    subprocess.run([sys.executable, "-W", "ignore", "-c", AFTERWARDS.format(then=FORK)], check=True, timeout=60)


def test_the_interpreter_shuts_down_at_once():
    command = [sys.executable, "-c", AFTERWARDS.format(then=EXIT)]
    assert subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout == "good"
