"""Programs written for other libraries run unmodified on their faces, and find the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))

# One process for all: their imports take longer than they do.
RUN_ALL = """
import runpy, sys, traceback
folder, *programs = sys.argv[1:]
for program in programs:
    sys.argv = [program, f"{folder}/{program.rpartition('/')[2]}.npz"]
    try:
        runpy.run_path(program, run_name="__main__")
    except Exception:
        print(program, traceback.format_exc(), file=sys.stderr)
"""


def run_all(folder: Path, *before: str) -> str:
    """Runs the programs, which leave what they find in a folder; returns what they complain of."""
    code = "\n".join([*before, RUN_ALL])
    command = [sys.executable, "-c", code, str(folder), *map(str, PROGRAMS)]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    return folder, run_all(folder)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    return folder, run_all(folder, "import camfuse.compat", "camfuse.compat.install()")


def found_by(program: Path, side: tuple[Path, str]) -> dict[str, np.ndarray]:
    folder, complaints = side
    file = folder / f"{program.name}.npz"
    assert file.exists(), complaints
    with np.load(file) as found:
        return dict(found)


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        assert ours[name].dtype == expected.dtype, name
        assert np.ptp(expected) > 0 or expected.size == 1, name
        # Colors are steps of a table, in which a map's last digit may be the next step.
        bound = 3 if expected.dtype == np.int64 else 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.stem for program in PROGRAMS])
def test_a_program_finds_the_same_on_the_installed_face(program, ours, theirs):
    assert_same(found_by(program, ours), found_by(program, theirs))


def test_a_program_finds_the_same_when_it_is_run_on_the_face(tmp_path, theirs):
    (program,) = (one for one in PROGRAMS if one.stem == "pgc_segmentation")
    file = tmp_path / f"{program.name}.npz"
    command = [sys.executable, "-m", "camfuse.compat", "run", str(program), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(found_by(program, (tmp_path, "")), found_by(program, theirs))
