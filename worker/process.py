"""A child process seen from its supervisor: start, hand over a job, listen without blocking, end.

Nothing the child says is trusted: lines are bounded, must be events that a child may send, and a
child that says too much or anything else has misbehaved.
"""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence

from pydantic import ValidationError

from pruning.events import EVENT, AliveEvent, Event, ProgressEvent, StateEvent, WaitingEvent
from worker import memory, processes, sandbox
from worker.bounds import NAME, bounded, cut
from worker.deaths import Kept
from worker.slots import Slot
from worker.watch import Excess, Watch

MAX_LINE = 1 << 20
MAX_EVENTS = 20_000
MAX_EVENT_BYTES = 8 << 20  # of all of them together, as they are kept
_CHUNK = 1 << 16
_TURN = 1 << 20  # bytes read in one turn, so that a child that never stops can't hold the loop
_LOG_TAIL = 32 << 10
_KILL_WAIT = 30.0


class MisbehavedError(Exception):
    """The child broke the protocol."""


class Child:
    """One child on one slot, started and waiting for its job.

    Args:
        slot: Its folder; HOME, TMPDIR and working directory lie in it.
        program: Absolute path and arguments; the number of the events' descriptor is appended.
        limits: Resource limits.
        closed: The sandbox it runs in.
    """

    def __init__(
        self,
        slot: Slot,
        program: Sequence[str],
        limits: sandbox.Limits,
        closed: sandbox.Sandbox,
    ) -> None:
        self.slot, self.program, self.threads = slot, tuple(program), limits.threads
        self._sandbox = closed
        events, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                closed.command([*program, str(theirs)], limits, slot.folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=slot.folder,
                env=sandbox.environment(slot.folder, limits.threads, level=closed.level),
                pass_fds=(theirs,),
                start_new_session=True,
            )
        except BaseException:
            os.close(events)
            raise
        finally:
            os.close(theirs)
        self.pid = self._process.pid
        self._events = events
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._log = self._process.stdout.fileno()
        self._buffer = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._said = self._said_bytes = 0
        self._selector = selectors.DefaultSelector()
        for fd in (self._events, self._log):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        self._pidfd = self._watch_death()
        self._watch: Watch | None = None
        self._memory: int | None = None
        self._kernel_kills: int | None = None

    def _watch_death(self) -> int | None:
        """A descriptor that becomes readable when the child dies, where the kernel has one."""
        if not hasattr(os, "pidfd_open"):
            return None
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        self._selector.register(fd, selectors.EVENT_READ)
        return fd

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal's number after a signal, None while it lives."""
        return self._sandbox.exit_code(self._process.poll())

    @property
    def log(self) -> str:
        """The end of what the child wrote to stdout and stderr."""
        return b"".join(self._tail).decode(errors="replace")

    @property
    def excess(self) -> Excess | None:
        """The limit that it went over, and was ended for."""
        return None if self._watch is None else self._watch.excess

    @property
    def kept(self) -> Kept:
        """Its memory since it was handed its job."""
        now, before = memory.kernel_kills(), self._kernel_kills
        return Kept(
            limit=self._memory,
            peak=0 if self._watch is None else self._watch.peak,
            kernel_kills=None if now is None or before is None else now - before,
        )

    def hand_over(self, memory_bytes: int | None = None, *, reserves: bool = False) -> None:
        """Give the child the job that lies in its slot; it serves that one and exits.

        Args:
            memory_bytes: What it may keep, None for any.
            reserves: Whether it needs address space beyond that, as with a GPU.
        """
        if memory_bytes is not None and not reserves:
            sandbox.limit_memory(self.pid, memory_bytes)
        self._memory, self._kernel_kills = memory_bytes, memory.kernel_kills()
        self._watch = Watch(self.pid, memory_bytes)
        try:
            self._stdin.write(os.fsencode(self.slot.job) + b"\n")
            self._stdin.close()
        except BrokenPipeError:
            return  # it died; its exit code tells why

    def read(self, timeout: float) -> list[Event]:
        """Events that have arrived, waiting at most `timeout` seconds for the first.

        Raises:
            MisbehavedError: On anything but an event that a child may send.
        """
        if not self._selector.get_map():
            time.sleep(timeout)
            return []
        ready = {key.fd for key, _ in self._selector.select(timeout)}
        if self._log in ready:
            self._read_log()
        if self._pidfd in ready:
            # It stays readable for ever; without it select would never wait again.
            self._forget(self._pidfd)
            self._pidfd = None
        return self._read_events() if self._events in ready else []

    def _forget(self, fd: int | None) -> None:
        if fd is not None and fd in self._selector.get_map():
            self._selector.unregister(fd)
            if fd == self._pidfd:
                os.close(fd)

    def _read_log(self) -> None:
        for _ in range(_TURN // _CHUNK):
            try:
                chunk = os.read(self._log, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self._forget(self._log)
                return
            self._tail.append(chunk)
            self._tail_bytes += len(chunk)
            while self._tail_bytes - len(self._tail[0]) >= _LOG_TAIL:
                self._tail_bytes -= len(self._tail.popleft())

    def _read_events(self) -> list[Event]:
        found: list[Event] = []
        for _ in range(_TURN // _CHUNK):
            try:
                chunk = os.read(self._events, _CHUNK)
            except BlockingIOError:
                break
            if not chunk:
                self._forget(self._events)
                break
            self._buffer += chunk
            *lines, rest = self._buffer.split(b"\n")
            if len(rest) > MAX_LINE:
                raise MisbehavedError(f"a line of more than {MAX_LINE} bytes")
            self._buffer = bytearray(rest)
            found.extend(self._parse(bytes(line)) for line in lines)
        return found

    def _parse(self, line: bytes) -> Event:
        if len(line) > MAX_LINE:
            raise MisbehavedError(f"a line of more than {MAX_LINE} bytes")
        try:
            event = EVENT.validate_json(line)
        except ValidationError as error:
            what = error.errors(include_url=False, include_input=False)[0]
            raise MisbehavedError(f"a line that is no event: {cut(what['msg'], NAME)}") from error
        if isinstance(event, StateEvent | AliveEvent | WaitingEvent):
            raise MisbehavedError(f"an event {event.type}, which only the service may write")
        try:
            event = bounded(event)
        except ValueError as error:
            raise MisbehavedError(f"an event that can't be kept: {error}") from error
        if not isinstance(event, ProgressEvent):
            self._said += 1
            self._said_bytes += len(event.model_dump_json())
            if self._said > MAX_EVENTS:
                raise MisbehavedError(f"more than {MAX_EVENTS} events")
            if self._said_bytes > MAX_EVENT_BYTES:
                raise MisbehavedError(f"events of more than {MAX_EVENT_BYTES} bytes")
        return event

    def end(self, grace: float) -> bool:
        """End the child and everything in its group: SIGTERM, after `grace` seconds SIGKILL.

        Returns:
            True once none of them lives any more.
        """
        if grace > 0 and self._alive():
            processes.signal_group(self.pid, signal.SIGTERM)
            self._wait(grace)
        if self._alive():
            processes.signal_group(self.pid, signal.SIGKILL)
            deadline = time.monotonic() + _KILL_WAIT
            while not self._wait(0.2) and time.monotonic() < deadline:
                processes.signal_group(self.pid, signal.SIGKILL)  # one may have forked in between
        if self._watch is not None:
            self._watch.end()
        processes.sweep(self.slot.folder)
        self._read_log()
        return not self._alive()

    def _alive(self) -> bool:
        return self.returncode is None or processes.group_alive(self.pid)

    def _wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def close(self) -> None:
        """Let go of pipes and descriptors; the child must have ended."""
        self._selector.close()
        os.close(self._events)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._process.stdout is not None:
            self._process.stdout.close()
        if not self._stdin.closed:
            try:
                self._stdin.close()
            except BrokenPipeError:
                return
