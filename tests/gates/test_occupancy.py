"""Occupancy is what NVIDIA's own calculator says, a header of the toolkit."""

import itertools
import shutil
import subprocess

import pytest
from occupancy import MULTIPROCESSORS, resident_blocks

PROGRAM = """
#include <cuda_occupancy.h>
#include <cstdio>

int main() {
  int architecture, warps, registers, threads;
  long multiprocessor_shared, reserved, shared;
  while (scanf("%d %d %ld %ld %d %d %ld", &architecture, &warps, &multiprocessor_shared, &reserved,
               &registers, &threads, &shared) == 7) {
    cudaOccDeviceProp device;
    device.computeMajor = architecture / 10, device.computeMinor = architecture % 10;
    device.maxThreadsPerBlock = 1024, device.maxThreadsPerMultiprocessor = 32 * warps;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32, device.numSms = 1;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = multiprocessor_shared;
    device.sharedMemPerBlockOptin = multiprocessor_shared - reserved;
    device.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = 0;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = multiprocessor_shared - reserved;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    cudaOccResult result;
    const auto error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state,
                                                               threads, shared);
    printf("%d\\n", error ? -1 : result.activeBlocksPerMultiprocessor);
  }
}
"""


def test_it_is_what_nvidias_calculator_says(tmp_path):
    if (nvcc := shutil.which("nvcc")) is None:
        pytest.skip("no nvcc on PATH")
    (tmp_path / "occupancy.cu").write_text(PROGRAM)
    command = [nvcc, "-std=c++17", "-o", tmp_path / "occupancy", tmp_path / "occupancy.cu"]
    subprocess.run(command, check=True)
    cases = list(
        itertools.product(
            MULTIPROCESSORS,
            (8, 32, 37, 40, 64, 70, 96, 110, 128, 168, 255),
            (32, 128, 256),
            (0, 72, 4164, 28400, 31600, 49152, 51201, 60000),
        )
    )
    lines = []
    for architecture, registers, threads, shared in cases:
        has = MULTIPROCESSORS[architecture]
        device = f"{architecture} {has.warps} {has.shared} {has.reserved}"
        lines.append(f"{device} {registers} {threads} {shared}")
    answer = subprocess.run(
        [tmp_path / "occupancy"], input="\n".join(lines), capture_output=True, text=True, check=True
    ).stdout
    for case, told in zip(cases, map(int, answer.split()), strict=True):
        architecture, registers, threads, shared = case
        assert resident_blocks(architecture, registers, threads, shared) == told, case
