"""The compiled CUDA module, read once; and a compiler for small kernels with faults."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_binary import ToolError, find_tool, read_kernels
from cuda_code import missing_architectures, wanted_architectures
from cuda_gates import facts_of

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("CAMFUSE_CUDA_BUILD", ROOT / "build" / "native"))


def unless_required(reason):
    """Skips, but fails where a CUDA build is required."""
    if os.environ.get("CAMFUSE_REQUIRE_CUDA_BUILD") == "1":
        pytest.fail(f"{reason}, but CAMFUSE_REQUIRE_CUDA_BUILD=1")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tools():
    """Skips where kernels cannot be read."""
    try:
        find_tool("cuobjdump"), find_tool("nvdisasm")
    except ToolError as error:
        unless_required(str(error))


@pytest.fixture(scope="session")
def compiled(tools):
    """The facts of every kernel in the module that `make cuda` builds."""
    modules = list(FOLDER.glob("_C*.so"))
    if not modules:
        unless_required(f"no CUDA module in {FOLDER}: run make cuda")
    sources = list((ROOT / "csrc").rglob("*.cu*"))
    newest = max(path.stat().st_mtime for path in sources)
    if modules[0].stat().st_mtime < newest:
        unless_required(f"{modules[0].name} is older than its sources: run make cuda")
    if missing := missing_architectures(modules[0], wanted_architectures(FOLDER)):
        unless_required(f"{modules[0].name} lacks code for {', '.join(missing)}: run make cuda")
    return [facts_of(kernel) for kernel in read_kernels(modules[0])]


@pytest.fixture(scope="session")
def compile_kernels(tmp_path_factory, tools):
    """A function from CUDA source to its kernels, by name, for one architecture."""
    if (nvcc := shutil.which("nvcc")) is None:
        unless_required("no nvcc on PATH")

    def compile(source, architecture):
        folder = tmp_path_factory.mktemp("kernels")
        (folder / "kernels.cu").write_text(source)
        command = [nvcc, "-std=c++17", "-fmad=false", f"-arch=sm_{architecture}", "-cubin"]
        command += ["-o", folder / "kernels.cubin", folder / "kernels.cu"]
        subprocess.run(command, check=True)
        return {kernel.name: kernel for kernel in read_kernels(folder / "kernels.cubin")}

    return compile
