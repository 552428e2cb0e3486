"""Threads that each keep one connection to S3, and their way to the trio thread and back.

trio retires threads that idle for 10 s, and their connections with them; these stay. A job
is handed to the worker that was used last, so that its connection is warm. What a worker
has to tell (buffer filled, job done) goes by way of `Notices`.

INVARIANTS
- A worker has one job at a time; `limit` bounds the workers, and who comes later waits.
- A connection is made only when none is idle, neither here nor with `Lines`: so `limit` bounds
  those that are open, too.
- Before a job may write into its caller's buffers it passes `Job.begin_writing`. A caller
  that is cancelled before leaves at once, and the job stops there; one that is cancelled
  later has the connection shut down, and leaves when the worker has let go.
- A resend happens only on a connection that was idle before, and only when not one byte of
  an answer came: S3 closed it just then.

Knows no S3: what is sent and how the answer is read is the job's.
"""

from __future__ import annotations

import queue
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import outcome
import trio

from s3mount.errors import Closed
from s3mount.s3.notices import Caller, Notices
from s3mount.s3.wire import SCRATCH, Address, Connection, Head

T = TypeVar("T")


class Abandoned(Exception):
    """Raised in the worker's thread when the caller has gone away."""


class Job(ABC, Generic[T]):
    """A request and what is made of its answer; subclassed by kind of request.

    The three methods run in a worker's thread.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.cancelled = False
        self.writing = False
        self.whole = False  # set by `receive`: the answer was read to its end
        self.caller: Caller | None = None  # until it leaves; used on the trio thread alone

    @abstractmethod
    def request(self) -> bytes:
        """The request, ready to be sent."""

    @abstractmethod
    def receive(self, connection: Connection, head: Head, tell: Callable[[int], None]) -> T:
        """Read the rest of the answer. `tell(i)` makes `on_told(i)` run on the trio thread."""

    def on_told(self, index: int) -> None:
        """On the trio thread: see `receive`."""

    def begin_writing(self) -> None:
        """Take hold of the caller's buffers, or raise `Abandoned`."""
        with self.lock:
            if self.cancelled:
                raise Abandoned
            self.writing = True


class _Worker:
    def __init__(self, pool: Workers, name: str) -> None:
        self._pool = pool
        self._lock = threading.Lock()  # over _connection, against shutting down a reused fd
        self._connection: Connection | None = None
        self.inbox: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.job: Job[Any] | None = None  # used on the trio thread alone
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def is_connected(self) -> bool:
        """While it is idle: whether it has a connection."""
        return self._connection is not None

    def shut_down(self) -> None:
        """From the trio thread: end what the worker waits for."""
        with self._lock:
            if self._connection is not None:
                self._connection.shut_down()

    def give(self, connection: Connection) -> None:
        """While it is idle: a connection to use next."""
        with self._lock:
            self._connection = connection

    def take(self) -> Connection | None:
        """While it is idle: its connection, if it has one."""
        with self._lock:
            connection, self._connection = self._connection, None
        return connection

    def _run(self) -> None:
        while (job := self.inbox.get()) is not None:
            try:
                result: outcome.Outcome[Any] = outcome.Value(self._perform(job))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's task
                result = outcome.Error(error)
            self._pool.notices.post(self._pool.done, self, job, result)
            del job, result
        self._drop()

    def _perform(self, job: Job[T]) -> T:
        data = job.request()
        keep = False
        try:
            connection, head = self._exchange(job, data)
            try:
                return job.receive(connection, head, partial(self._pool.notices.post, _tell, job))
            finally:
                keep = job.whole and head.keep_alive
        finally:
            if not keep:
                self._drop()

    def _exchange(self, job: Job[Any], data: bytes) -> tuple[Connection, Head]:
        connection = self._connection
        if connection is not None and not connection.is_stale():
            try:
                connection.send(data)
                return connection, connection.read_head()
            except (ConnectionError, ssl.SSLError):
                if connection.heard or job.cancelled:
                    raise
        self._drop()
        connection = Connection(self._pool.address, self._pool.timeout, bytearray(SCRATCH))
        self.give(connection)
        if job.cancelled:
            raise Abandoned
        connection.send(data)
        return connection, connection.read_head()

    def _drop(self) -> None:
        connection = self.take()
        if connection is not None:
            connection.close()


class Workers:
    """At most `limit` connections to `address`; made and used on the trio thread."""

    def __init__(self, address: Address, *, limit: int, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        # `Lines` take from it too, and lend what they do not use.
        self.free = trio.Semaphore(limit)
        self.borrow: Callable[[], Connection | None] = lambda: None
        self._all: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._closed = False
        self.notices = Notices()

    def __repr__(self) -> str:
        busy = len(self._all) - len(self._idle)
        return f"<Workers to {self.address.host}:{self.address.port}, {busy} busy>"

    async def run(self, job: Job[T]) -> T:
        """Run the job in a worker's thread, and give back what `Job.receive` returns.

        Raises what the job raises, `OSError`s of the connection among it, and `Closed`.
        """
        await self.free.acquire()
        if self._closed:
            self.free.release()
            raise Closed
        if self._idle:
            worker = self._idle.pop()
        else:
            worker = _Worker(self, f"s3-{len(self._all)}")
            self._all.append(worker)
        if not worker.is_connected and (connection := self.lend() or self.borrow()) is not None:
            worker.give(connection)
        worker.job = job
        job.caller = caller = Caller()
        worker.inbox.put(job)

        def abort(raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
            if self._let_go(worker, job):
                job.caller = None
                return trio.lowlevel.Abort.SUCCEEDED
            caller.cancel(raise_cancel)
            return trio.lowlevel.Abort.FAILED

        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def lend(self) -> Connection | None:
        """A connection that is idle, and the taker's from now on."""
        for worker in self._idle:  # the one that was used first: the last is the next to be used
            if (connection := worker.take()) is not None:
                if not connection.is_stale():
                    return connection
                connection.close()
        return None

    async def aclose(self) -> None:
        """End all requests with `Closed`, close all connections, end all threads."""
        self._closed = True
        for worker in self._all:
            job = worker.job
            if job is not None and self._let_go(worker, job) and job.caller is not None:
                job.caller.wake(outcome.Error(Closed()))
                job.caller = None
            worker.inbox.put(None)
        for worker in self._all:
            # One that looks up a host or connects ends by itself, within its time-out.
            await trio.to_thread.run_sync(worker.thread.join, 1.0)

    def done(self, worker: _Worker, job: Job[Any], result: outcome.Outcome[Any]) -> None:
        """A worker is: told on the trio thread."""
        worker.job = None
        self._idle.append(worker)
        self.free.release()
        caller, job.caller = job.caller, None
        if caller is not None:
            is_cut_off = self._closed and isinstance(result, outcome.Error)
            caller.wake(outcome.Error(Closed()) if is_cut_off else result)

    def _let_go(self, worker: _Worker, job: Job[Any]) -> bool:
        """Cancel the job; whether it is certain not to touch the caller's buffers."""
        with job.lock:
            job.cancelled = True
            writing = job.writing
        worker.shut_down()
        return not writing


def _tell(job: Job[Any], index: int) -> None:
    if job.caller is not None:
        job.caller.tell(job.on_told, index)
