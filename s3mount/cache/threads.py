"""Long-lived threads that answer trio: the cache's own, because SQLite's connections are.

diskcache keeps one SQLite connection per thread, and trio retires a thread that was idle
for 10 s; opening a connection again costs more than most reads.

INVARIANT: a job's outcome is handed over on the trio thread, and a job that was
accepted always ends there: nothing is abandoned half way, so buffers that a job
writes into are free again as soon as `run` returns, raises or is cancelled.

Knows nothing of caches: a job is a function without arguments.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class _Job(Generic[T]):
    """A function to call, and who wants to know what it returned or raised."""

    __slots__ = ("call", "done")

    def __init__(self, call: Callable[[], T], done: Callable[[outcome.Outcome[T]], None]) -> None:
        self.call = call
        self.done = done


class Threads:
    """A fixed number of threads that take jobs from one queue, in order."""

    def __init__(self, name: str, count: int, *, at_exit: Callable[[], None]) -> None:
        """`at_exit` is called in each thread as its last act, and must not raise."""
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._at_exit = at_exit
        # daemon: a thread stuck in a dead disk's read must not keep the process alive.
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T], done: Callable[[outcome.Outcome[T]], None]) -> None:
        """Call `call` in a thread, then `done` with its outcome on the trio thread."""
        self._jobs.put(_Job(call, done))  # type: ignore[arg-type]  # a job goes with its own done

    async def run(self, call: Callable[[], T]) -> T:
        """Call `call` in a thread; wait until it ends, even when cancelled meanwhile."""
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()

        def done(result: outcome.Outcome[T]) -> None:
            trio.lowlevel.reschedule(task, result)

        self.submit(call, done)
        result: T = await trio.lowlevel.wait_task_rescheduled(
            lambda _: trio.lowlevel.Abort.FAILED  # the thread holds the caller's buffers
        )
        return result

    async def aclose(self) -> None:
        """End all threads after the jobs that were submitted before; wait for that.

        When cancelled, the threads are left to end by themselves.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = outcome.capture(job.call)
            with contextlib.suppress(trio.RunFinishedError):  # nobody is left to be told
                self._token.run_sync_soon(job.done, result)
            # Otherwise the last job, and the buffers that it holds, would live on while idle.
            del job, result
        self._at_exit()
