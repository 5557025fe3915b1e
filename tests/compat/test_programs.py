"""Programs written for other libraries run unmodified on their faces, and find the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


def results(command: list[str], program: Path, folder: Path) -> dict[str, np.ndarray]:
    file = folder / f"{len(command)}.npz"
    done = subprocess.run(
        [sys.executable, *command, str(program), str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with np.load(file) as found:
        return dict(found)


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.stem for program in PROGRAMS])
def test_a_program_finds_the_same_on_the_face(program, tmp_path):
    theirs = results([], program, tmp_path)
    ours = results(["-m", "camfuse.compat", "run"], program, tmp_path)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        assert ours[name].dtype == expected.dtype, name
        assert np.ptp(expected) > 0 or expected.size == 1, name
        # Colors are steps of a table, in which a map's last digit may be the next step.
        bound = 3 if expected.dtype == np.int64 else 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=bound, err_msg=name)
