"""What memory is left: the machine's, the control groups' (both versions), and limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from camfuse.machine import available_memory

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8000 kB left, no swap and no control groups."""
    write(tmp_path, "proc/meminfo", "MemTotal: 16000 kB\nMemAvailable: 8000 kB\nSwapFree: 0 kB\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_machine_leaves_what_linux_calls_available_and_free_swap(root: Path) -> None:
    assert available_memory(CPU, root) == 8000 * 1024
    write(root, "proc/meminfo", "MemAvailable: 8000 kB\nSwapFree: 500 kB\n")
    assert available_memory(CPU, root) == 8500 * 1024


def test_nothing_is_known_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert available_memory(CPU, tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemAvailable: lots\n\n:\nMemFree")
    write(tmp_path, "proc/self/cgroup", "nonsense\n0::\n:::")
    (tmp_path / "sys/fs/cgroup/memory.max").mkdir(parents=True)
    assert available_memory(CPU, tmp_path) is None
    assert available_memory(torch.device("meta"), tmp_path) is None


def test_the_tightest_group_of_version_2_counts_without_its_file_cache(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/outer/inner\n")
    for name, limit, used in (("", "max", 10), ("outer/", 5000, 4000), ("outer/inner/", "max", 9)):
        write(root, f"sys/fs/cgroup/{name}memory.max", f"{limit}\n")
        write(root, f"sys/fs/cgroup/{name}memory.current", f"{used}\n")
    assert available_memory(CPU, root) == 1000
    write(root, "sys/fs/cgroup/outer/memory.stat", "anon 3300\ninactive_file 700\n")
    assert available_memory(CPU, root) == 1700
    write(root, "sys/fs/cgroup/outer/memory.current", "9000\n")
    assert available_memory(CPU, root) == 0


def test_version_1_is_read_from_the_memory_controller(root: Path) -> None:
    write(root, "proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/on/the/host\n0::/\n")
    top = "sys/fs/cgroup/memory"
    write(root, f"{top}/memory.limit_in_bytes", "6000\n")
    write(root, f"{top}/memory.usage_in_bytes", "2000\n")
    write(root, f"{top}/memory.stat", "inactive_file 1\ntotal_inactive_file 50\n")
    assert available_memory(CPU, root) == 4050


def test_this_machine_has_memory_left_and_a_limit_on_addresses_lowers_it() -> None:
    assert available_memory(CPU) > 0
    code = """
import resource, torch
from camfuse.machine import available_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
print(available_memory(torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**27 < int(done.stdout) <= 2**28


@pytest.mark.parametrize(("fraction", "left"), [(1.0, 1200), (0.1, 700)])
def test_a_cuda_device_leaves_what_is_free_or_spare_and_allowed(
    monkeypatch, fraction: float, left: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 8000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: fraction)
    assert available_memory(torch.device("cuda")) == left
