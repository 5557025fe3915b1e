"""Starts a worker (`worker.py`), talks with it, and tells what it died of."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from build import compilers_library

# Long for any call: a kernel that waits for what never comes is ended.
PATIENCE = 300.0
REPORT = 12_000  # bytes of the worker's last words
ENVIRONMENT = {
    # Python leaks on purpose. Too large allocations are an error as elsewhere.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0:"
    "quarantine_size_mb=64:print_legend=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's, which start with it
}


class EmulatorError(Exception):
    """The op, or a launch of it, said what is wrong."""


class EmulatorCrash(Exception):  # noqa: N818
    """The worker died, of a sanitizer's report, which the text holds."""


class WorkerProcess:
    """A worker for one library."""

    def __init__(self, library: Path):
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        preload = " ".join(map(compilers_library, ("libasan.so", "libstdc++.so.6")))
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("worker.py"), library],
            env={**os.environ, **ENVIRONMENT, "LD_PRELOAD": preload},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def ask(self, request: object) -> object:
        """The worker's answer.

        Raises:
            EmulatorError: the worker could not do as asked.
            EmulatorCrash: it died; it is of no more use.
        """
        before = self._written()
        impatient = threading.Event()

        def lose_patience() -> None:
            impatient.set()
            self._process.kill()

        timer = threading.Timer(PATIENCE, lose_patience)
        timer.start()
        try:
            pickle.dump(request, self._process.stdin, protocol=5)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            status = self._process.wait()
            reason = f"no answer in {PATIENCE} s" if impatient.is_set() else f"exit status {status}"
            raise EmulatorCrash(f"{reason}\n{self._report(before)}") from None
        finally:
            timer.cancel()
        if isinstance(answer, str):
            raise EmulatorError(f"{answer}\n{self._report(before)}".rstrip())
        return answer

    def close(self) -> None:
        """Ends the worker."""
        with contextlib.suppress(BrokenPipeError):  # of a request that a dead one never read
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._stderr.close()

    def _written(self) -> int:
        return os.fstat(self._stderr.fileno()).st_size

    def _report(self, start: int) -> str:
        start = max(start, self._written() - REPORT)
        # Not read(): the file's position is the worker's, too.
        return os.pread(self._stderr.fileno(), REPORT, start).decode(errors="replace")
