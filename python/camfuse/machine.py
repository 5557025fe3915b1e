"""What memory a device has left for this process."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch


def available_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate on ``device``, or None where that is unknown.

    On the CPU that is the least of what the machine, the control groups of the process (both
    versions) and its resource limits leave. Memory that the system would give up, such as the
    files it caches and swap, counts as free. On a CUDA device it is what is free there or held by
    torch's allocator without use, as far as the fraction that the process may have allows.

    Args:
        device: The CPU or a CUDA device.
        root: Where ``/proc`` and ``/sys`` are looked for.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
        return min(free + reserved, allowed) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    left = [_of_machine(root), *_of_limits(root), *_of_groups(root)]
    return min((max(one, 0) for one in left if one is not None), default=None)


def _of_machine(root: Path) -> int | None:
    found = _table(root / "proc/meminfo")
    if "MemAvailable" not in found:
        return None
    return 1024 * (found["MemAvailable"] + found.get("SwapFree", 0))


def _of_limits(root: Path) -> list[int]:
    """What the resource limits on the address space and on data leave."""
    used = _table(root / "proc/self/status")
    left = []
    for limit, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        allowed, _ = resource.getrlimit(limit)
        if allowed != resource.RLIM_INFINITY and key in used:
            left.append(allowed - 1024 * used[key])
    return left


def _of_groups(root: Path) -> list[int]:
    """What each control group that the process is in leaves, from its own up to the outermost."""
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            top, files = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be one that only the host sees: the top is then its own.
        folder = root / top
        for step in (folder, *(folder := folder / part for part in Path(path).parts[1:])):
            limit, usage = (_number(step / name) for name in files[:2])
            if limit is not None and usage is not None:
                left.append(limit - usage + _table(step / "memory.stat").get(files[2], 0))
    return left


def _table(path: Path) -> dict[str, int]:
    """The numbers of a file whose lines begin with a name and a number."""
    rows = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The number that a file holds, if it does: ``max`` stands for no limit."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text()
    return ""
