"""The processes that decode pictures: the one maker of such processes, for scoring and training.

A decoder that crashes, takes too long, or takes too much memory ends its process, costs its one
picture, which gets an error, and a new process takes the next. A pool of a library was tried and
left: its processes share one pipe, which a process that is killed while it writes spoils for all.
It must never let an item depend on the number of processes, nor import torch.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import util
from multiprocessing.context import BaseContext
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from typing import Any, BinaryIO

from datasets import Record
from datasets._images import (
    Draw,
    PictureDataset,
    Query,
    Sample,
    Streamed,
    register_formats,
)
from datasets._limits import TIME_IS_UP, UPRIGHT, Limits

from ..config import ConfigError

Batch = Sequence[Query]
Task = tuple[Batch, Future[list[Sample]]]
AHEAD = 2  # batches in work or waiting for the network, per process
# Bytes of a batch that is sent while its process is busy with another: more might not fit into the
# connection, and both sides would wait for each other.
MOST_AHEAD = 1 << 13
READY = "ready"
LAST_SECONDS = 0.5  # for a process that nobody asks any more
MOST_PATIENCE = 5.0  # seconds, with the thread of a process that has been killed
# A fork shares the list of pictures, which may be of millions; only on Linux is it safe.
CONTEXT: BaseContext = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
# Held while a process is started or waited for: a process that is forked meanwhile would inherit
# the other's end of its connection, and keep it open.
_starting = Lock()


@dataclass(frozen=True)
class Workers:
    """The way pictures are decoded: `count` processes, 0 = in this one, where `limits` on memory
    and time do not hold; `decoding`: one of DECODINGS."""

    count: int = 0
    limits: Limits = field(default_factory=Limits)
    decoding: str = UPRIGHT


IN_PROCESS = Workers()


# --- in the process that decodes


class _Pickler(pickle.Pickler):
    """Tensors as arrays, whose memory is written as it lies. Shared memory, which PyTorch would
    take, needs a file each, of which containers have few, and a sender that lives on."""

    def reducer_override(self, value: Any) -> Any:
        """Call that makes a tensor anew from an array; NotImplemented for all else, which pickle
        then does by itself."""
        torch: Any = sys.modules.get("torch")  # without it there are no tensors
        # numpy lacks bfloat16.
        if torch and type(value) is torch.Tensor and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def _send(stream: BinaryIO, value: Any) -> None:
    _Pickler(stream, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    stream.flush()


def _failure(error: Exception) -> Exception:
    """An error of the program, fit to be sent: its traceback as a note, and of a class that can be
    built again on the other side."""
    error.add_note("In a process that decodes pictures:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was just written
    except Exception:
        return RuntimeError("\n".join([repr(error), *error.__notes__]))
    return error


def _fall_silent() -> None:
    """Silences decoders: what they print is of strangers' making, and unasked for."""
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _work(
    dataset: PictureDataset, limits: Limits, own: socket.socket, theirs: socket.socket
) -> None:
    """The life of a process: it answers each query of each batch by an item, until nobody asks.

    Args:
        dataset: inherited by the fork, never sent.
        limits: on each picture.
        own, theirs: ends of the connection; the main process's is closed here, or its end would go
            unnoticed.
    """
    theirs.close()
    _fall_silent()
    # Ctrl-C and a batch system's SIGTERM reach it too, but only the main process decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the threads of the main process do not exist here
    # Daemons may have no children, in which files are inspected; the main process ends this one as
    # a daemon all the same, by its own note.
    multiprocessing.current_process().daemon = False
    register_formats()
    with suppress(EOFError, OSError), own, own.makefile("rb") as asked, own.makefile("wb") as out:
        _send(out, READY)
        while True:
            for query in pickle.load(asked):  # noqa: S301 - from the main process
                try:
                    answer: Sample | Exception = dataset.sample(query, limits.held())
                except Exception as error:
                    answer = _failure(error)
                _send(out, answer)


# --- in the main process


class _Process:
    """One process that decodes, and the connection to it.

    Raises:
        ConfigError: it cannot be started.
    """

    def __init__(self, dataset: PictureDataset, limits: Limits) -> None:
        with _starting:
            self._socket, theirs = socket.socketpair()
            self._process = CONTEXT.Process(  # type: ignore[attr-defined]
                target=_work, args=(dataset, limits, theirs, self._socket), daemon=True
            )
            try:
                self._process.start()
            except OSError as error:
                self._socket.close()
                raise ConfigError(
                    f"--workers: a process that decodes pictures cannot be started ({error}): "
                    "use fewer, or 0"
                ) from error
            finally:
                theirs.close()
        self._answers = self._socket.makefile("rb")
        self._ready = False

    def await_ready(self) -> None:
        """Returns when the process can decode. Raises ConfigError when it ended before that: else
        its end would be taken for the first picture's fault."""
        self._ready = self._ready or next(self._received(1), None) == READY
        if not self._ready:
            raise ConfigError(
                f"--workers: a process that decodes pictures ended with status {self.end()} before "
                "the first: use 0"
            )

    def _received(self, count: int) -> Iterator[Any]:
        # Of a process that was killed while it wrote, half an answer may come: that is none.
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            for _ in range(count):
                yield pickle.load(self._answers)  # noqa: S301 - from a process of our own

    def ask(self, batch: Batch, most: int | None = None) -> bool:
        """Sends a batch, to a process that has died in vain: `answers` then gives too few. Whether
        it was sent, for one of over `most` bytes is not."""
        request = pickle.dumps(batch)
        if most is not None and len(request) > most:
            return False
        with suppress(OSError):
            self._socket.sendall(request)
        return True

    def answers(self, count: int) -> Iterator[Sample | Exception]:
        """The next answers, as long as the process lives."""
        return self._received(count)

    @property
    def alive(self) -> bool:
        """Whether the process can be asked."""
        with _starting:
            return bool(self._process.is_alive())

    def end(self) -> int:
        """Ends the process, if it has not ended. Returns its exit status, negative for a signal."""
        self._answers.close()
        self._socket.close()
        with _starting:
            self._process.join(LAST_SECONDS)
            self._process.kill()
            self._process.join()
            return int(self._process.exitcode or 0)

    def kill(self) -> None:
        """Ends the process at once, whatever it does; another thread notices, and calls `end`."""
        self._process.kill()


def _reason(status: int, limits: Limits) -> str:
    """Error of a picture whose process ended with this status."""
    if TIME_IS_UP is not None and status == -TIME_IS_UP:
        return f"takes over {limits.seconds:g} s of processor time (--picture_seconds)"
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", as for want of memory: use fewer --workers" if name == "SIGKILL" else ""
        return f"the process that decoded it was ended by {name}{hint}"
    return f"the process that decoded it ended with status {status}"


class _Worker:
    """A thread of the main process and its process: it hands on the batches of a queue, and starts
    another process when that has died."""

    def __init__(self, dataset: PictureDataset, limits: Limits, tasks: SimpleQueue[Any]) -> None:
        self._dataset, self._limits, self._tasks = dataset, limits, tasks
        self._process: _Process | None = None
        self._following: Task | None = None
        self._asked_ahead = False  # whether the process knows of the following batch already
        self._closed = False
        self._changing = Lock()

    def start(self) -> Thread:
        """The thread, at work until the queue has None. Raises ConfigError: see `_Process`."""
        # Forked by the thread that asks for pictures, and not by the new one: that one would fork
        # while the network computes, and the child inherits every lock that PyTorch or an import
        # holds at that moment, with nobody to let go of it. Only replacements are forked there.
        self._process = _Process(self._dataset, self._limits)
        # A daemon, or a program that ends by an error would wait for all that was asked for.
        thread = Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while task := self._following or self._taken(wait=True):
            self._following = None
            batch, future = task
            try:
                future.set_result(self._items(batch))
            except Exception as error:
                future.set_exception(error)
        self._end()

    def _taken(self, wait: bool) -> Task | None:
        """The next batch that is still wanted; without `wait`, if there is one."""
        with suppress(Empty):
            while task := self._tasks.get(wait):
                batch, future = task
                if future.set_running_or_notify_cancel():
                    return batch, future
            self._tasks.put(None)  # whoever asks again finds the end, too
        return None

    def _ask_ahead(self, process: _Process) -> None:
        """Sends the next batch ahead into the connection: the process need not wait for it."""
        if self._following is None:
            self._following = self._taken(wait=False)
            if self._following is not None:
                self._asked_ahead = process.ask(self._following[0], MOST_AHEAD)

    def close(self) -> None:
        """Ends the process, even in the middle of a picture; for the main thread."""
        with self._changing:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _running(self) -> _Process:
        """The process, ready, and a new one where it has died. Raises ConfigError: see `_Process`;
        after `close`, too."""
        if self._process is not None and not self._process.alive:
            self._end()
        with self._changing:
            if self._closed:
                raise ConfigError("pictures are no longer decoded: the run has ended")
            if self._process is None:
                self._process = _Process(self._dataset, self._limits)
            process = self._process
        process.await_ready()  # with the lock open, so that `close` need not wait
        return process

    def _end(self) -> int:
        """Ends the process. Returns its exit status, 0 where there is none."""
        with self._changing:
            status = self._process.end() if self._process is not None else 0
            self._process, self._asked_ahead = None, False
            return status

    def _items(self, batch: Batch) -> list[Sample]:
        """Items of a batch, by as many processes as its pictures kill. Raises the program's errors
        as they are."""
        items: list[Sample] = []
        while len(items) < len(batch):
            process = self._running()
            if not self._asked_ahead:
                process.ask(batch[len(items) :])
            self._asked_ahead = False
            for answer in process.answers(len(batch) - len(items)):
                if isinstance(answer, Exception):
                    self._end()  # it would go on with the batch
                    raise answer
                items.append(answer)
                if not self._asked_ahead:
                    self._ask_ahead(process)
            if len(items) < len(batch):
                # The first picture without an answer is the one that it died of.
                reason = _reason(self._end(), self._limits)
                items.append(self._dataset.lost(batch[len(items)], reason))
        return items


def _finish(workers: Sequence[_Worker], threads: Sequence[Thread], tasks: SimpleQueue[Any]) -> None:
    """Ends a pool's processes and threads."""
    for worker in workers:
        worker.close()
        tasks.put(None)
    # A thread that is inside of PyTorch when the interpreter goes down aborts the program.
    for thread in threads:
        if thread is not current_thread():  # the garbage collector may call from anywhere
            thread.join(MOST_PATIENCE)


class Pool:
    """Items of a data set's pictures, decoded by processes that live until `close`."""

    def __init__(self, dataset: PictureDataset, workers: Workers) -> None:
        self._dataset = dataset
        self._tasks: SimpleQueue[Any] = SimpleQueue()
        if workers.count:
            register_formats()  # before the fork, once for all of them
        crew = [_Worker(dataset, workers.limits, self._tasks) for _ in range(workers.count)]
        self._ahead = AHEAD * len(crew)
        self._idle = list(crew)  # they start one by one, as the network waits for pictures
        self._threads: list[Thread] = []
        # Also when the pool is forgotten, and at the program's end, before multiprocessing waits
        # for processes that do not heed its SIGTERM.
        self.close = util.Finalize(
            self, _finish, (crew, self._threads, self._tasks), exitpriority=10
        )

    def _start_another(self) -> None:
        if self._idle:
            self._threads.append(self._idle.pop().start())

    def _awaited(self, future: Future[list[Sample]]) -> list[Sample]:
        """The items of a batch. Where they are not there yet, who asks is faster than the processes
        that decode, and another one pays off; a network on the CPU rarely is."""
        if not future.done():
            self._start_another()
        return future.result()

    def batches(self, batches: Iterable[Batch]) -> Iterator[list[Sample]]:
        """The items of each batch, in order, of which the next few are in work meanwhile.

        Raises:
            ConfigError: a process cannot be started. An error of a transform that is the program's,
                not the picture's, is raised as it is.
        """
        if not self._ahead:
            yield from ([self._dataset[query] for query in batch] for batch in batches)
            return
        futures: deque[Future[list[Sample]]] = deque()
        try:
            for batch in batches:
                if not self._threads:
                    self._start_another()
                futures.append(Future())
                self._tasks.put((batch, futures[-1]))
                if len(futures) == self._ahead:
                    yield self._awaited(futures.popleft())
            while futures:
                yield self._awaited(futures.popleft())
        finally:
            for future in futures:
                future.cancel()


def in_turn(
    dataset: PictureDataset, batch_size: int, workers: Workers, validation: bool = False
) -> Iterator[list[Sample]]:
    """Items of all records in order, a batch at a time.

    Args:
        dataset: of the pictures.
        batch_size: of all batches but the last.
        workers: who decodes.
        validation: ask for the Draws of one epoch, each with a seed of its own.

    Raises:
        ConfigError: a process cannot be started.
    """
    count = len(dataset)
    queries: list[Query] = [Draw(i, 0) for i in range(count)] if validation else [*range(count)]
    batches = [queries[first : first + batch_size] for first in range(0, count, batch_size)]
    pool = Pool(dataset, workers)
    try:
        yield from pool.batches(batches)
    finally:
        pool.close()


def streamed(
    dataset: PictureDataset, records: Iterable[Record], batch_size: int, workers: Workers
) -> Iterator[tuple[list[Record], list[Sample]]]:
    """Records that are taken as there is room for them, and their items, a batch at a time and in
    order. An item's `index` is its place in the batch.

    Args:
        dataset: how pictures are made items; its own records are not looked at.
        records: any number of them; at most AHEAD batches for each process are held.
        batch_size: of all batches but the last.
        workers: who decodes.

    Raises:
        ConfigError: a process cannot be started.
    """
    source, held = iter(records), deque[list[Record]]()

    def batches() -> Iterator[Batch]:
        while batch := list(islice(source, batch_size)):
            held.append(batch)
            yield [Streamed(index, record) for index, record in enumerate(batch)]

    pool = Pool(dataset, workers)
    try:
        for items in pool.batches(batches()):
            yield held.popleft(), items
    finally:
        pool.close()
