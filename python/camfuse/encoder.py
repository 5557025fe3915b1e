"""An ffmpeg process that we own, and the thread that feeds it; :mod:`camfuse.video` uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO

METADATA = "pipe:metadata"  # in a command: where ffmpeg is to read an Encoder's ``metadata``

_QUEUED_CHUNKS = 3
# The most that Linux gives everyone: with its usual 64 KiB, ffmpeg and we wait for each other.
_PIPE_BYTES = 1 << 20
_LOG_BYTES = 4096
_LOG_LINES_SHOWN = 8
_NOISE = "Thread message queue blocking"  # that the encoder is slower than we are


class VideoError(RuntimeError):
    """ffmpeg could not be run, failed, or died; ``log`` holds the end of what it said."""

    def __init__(self, message: str, log: str = "") -> None:
        """Append the last distinct lines of ``log``, if any, to ``message``."""
        text = re.sub(r"\[[^]\n]+ @ 0x[0-9a-f]+\] ", "", log)  # "[libx264 @ 0x55e5a319a80] "
        lines = dict.fromkeys(line.strip() for line in text.splitlines() if _NOISE not in line)
        said = "; ".join([line for line in lines if line][-_LOG_LINES_SHOWN:])
        super().__init__(f"{message}: {said}" if said else message)
        self.log = log


class Encoder:
    """An ffmpeg process, its unfinished file, and the thread that alone deals with both.

    Ctrl-C is raised in the main thread only, so it can never fall between the start of the process
    and the code that will end it. The thread stops at the sentinel ``None``, and before it when
    ``abort`` is called or ffmpeg fails.

    The two sides share nothing but atomic primitives: one Ctrl-C while another is being handled
    breaks the Python code of ``Semaphore``, ``Event`` and ``Popen.poll`` midway, and before 3.13 an
    interrupted ``Thread.join`` takes the running thread for a finished one.
    """

    def __init__(
        self, command: list[str], unfinished: Path, path: Path, metadata: bytes = b""
    ) -> None:
        """Prepare to run ``command``, which writes ``unfinished``, later renamed to ``path``.

        It may read ``metadata`` from where it says :data:`METADATA`.
        """
        self.bytes_written = 0  # once finished
        self._command = command
        self._metadata = metadata
        self._unfinished = unfinished
        self._path = path
        self._chunks: SimpleQueue[memoryview | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # one item for each chunk that may be queued
        for _ in range(_QUEUED_CHUNKS):
            self._room.put(None)
        self._thread = threading.Thread(target=self._run, name="camfuse-video", daemon=True)
        self._owner: dict[str, str] = {}  # see `_owned_by`
        self._process_group: int | None = None
        self._error: VideoError | None = None
        self._aborted = False
        self._finished = False
        self._finish_line = threading.Lock()  # released when `_finished`
        self._finish_line.acquire()

    def start(self) -> None:
        """Start the thread, which starts ffmpeg; OSError if the folder takes no new file."""
        try:
            self._unfinished.touch(exist_ok=False)
        except OSError as error:
            folder = str(self._path.parent)
            message = f"cannot write to the folder {folder!r}: {error.strerror}"
            raise OSError(error.errno, message) from error
        self._thread.start()

    def put(self, chunk: memoryview) -> None:
        """Queue bytes for ffmpeg, waiting for room; VideoError if it has failed."""
        self._room.get()
        self._raise_error()
        self._chunks.put(chunk)

    def finish(self) -> None:
        """Wait until everything is encoded and the file is in its place; else VideoError."""
        self._chunks.put(None)
        self._wait()
        self._raise_error()

    def abort(self) -> None:
        """End everything now; harmless at any time, and any number of times."""
        self._aborted = True
        try:
            self._chunks.put(None)
            if self._process_group is not None:
                _kill(self._process_group)
            if self._owned_by("abort"):  # an interrupted `start` may still start the thread
                self._remove_unfinished()
            elif self._thread is not threading.current_thread():  # where a collection may run
                self._wait()
        except KeyboardInterrupt:
            self.abort()
            raise

    def _wait(self) -> None:
        while not self._finished:  # the timeout only matters after an interrupt just here
            self._finish_line.acquire(timeout=0.1)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _owned_by(self, side: str) -> bool:
        """Whether ``side``, "thread" or "abort", was the first to ask, and so deals with the file.

        One atomic operation, which may be repeated after an interrupt and answers the same again.
        """
        return self._owner.setdefault("owner", side) == side

    def _run(self) -> None:
        if not self._owned_by("thread"):
            return
        try:
            self._encode()
            size = self._unfinished.stat().st_size
            if not size:
                raise VideoError(f"ffmpeg wrote nothing into {str(self._path)!r}")
            self._unfinished.replace(self._path)
            self.bytes_written = size
        except VideoError as error:
            self._error = error
        except Exception as error:
            self._error = VideoError(f"cannot write {str(self._path)!r}: {error}")
        finally:
            self._remove_unfinished()
            self._room.put(None)  # wakes a waiting `put`, which then finds the error
            self._finished = True
            self._finish_line.release()

    def _remove_unfinished(self) -> None:
        with contextlib.suppress(OSError):  # its folder may be gone, or read-only by now
            self._unfinished.unlink(missing_ok=True)

    def _encode(self) -> None:
        """Feed every chunk to ffmpeg and wait for its success."""
        log = bytearray()
        with (
            _in_memory(self._metadata) as metadata,
            subprocess.Popen(
                [f"pipe:{metadata}" if part == METADATA else part for part in self._command],
                pass_fds=[metadata],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is ours to handle, wrapper scripts die as a group
                env={"SVT_LOG": "1", **os.environ},  # SVT-AV1 would bury errors in information
            ) as process,
        ):
            self._process_group = process.pid
            try:
                _widen(process.stdin)
                drain = threading.Thread(target=_drain, args=(process.stderr, log), daemon=True)
                drain.start()
                fed = self._feed(process)
                if self._aborted:  # perhaps before there was a process to kill
                    _kill(process.pid)
                status = process.wait()
            except BaseException:
                _kill(process.pid)
                raise
            self._process_group = None
            drain.join(timeout=1)  # a stray grandchild could hold the pipe open for good
        if status or not fed or self._aborted:
            raise VideoError(
                f"ffmpeg {_describe(status)} while writing {str(self._path)!r}",
                log.decode(errors="replace"),
            )

    def _feed(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether ffmpeg took every chunk; if not, its status and its log will tell why."""
        assert process.stdin is not None
        try:
            while (chunk := self._chunks.get()) is not None:
                self._room.put(None)
                while chunk and not self._aborted:
                    chunk = chunk[process.stdin.write(chunk) :]
            process.stdin.close()
        except BrokenPipeError:
            return False
        return True


def _widen(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    with contextlib.suppress(OSError):  # whoever has many pipes may get no larger ones
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """The descriptor of a file that holds ``content`` and lies on no disk."""
    with os.fdopen(os.memfd_create("camfuse-metadata"), "wb") as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _drain(stream: IO[bytes], log: bytearray) -> None:
    """Read a process's log to its end, keeping the last bytes: a full pipe would stall ffmpeg."""
    while block := stream.read(_LOG_BYTES):
        log += block
        del log[:-_LOG_BYTES]


def _kill(process_group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process_group, signal.SIGKILL)


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by signal {-status} ({signal.strsignal(-status)})"
    return f"failed with exit status {status}" if status else "stopped reading too early"
