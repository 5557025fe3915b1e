"""Tries one wheel with several versions of torch, each in a clean environment.

Usage: python tools/smoke_wheel.py WHEEL TORCH_VERSION...

The environments are made anew in ``build/smoke``. What runs in them, ``wheel_smoke_test.py``, sees
neither this project's folder nor a compiler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = ROOT / "tools" / "wheel_smoke_test.py"


def run(*command: object, **options: object) -> None:
    """Runs a command that must succeed."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, **options)


def smoke(wheel: Path, torch: str) -> None:
    """Installs torch, then the wheel with what it declares, and runs the test."""
    environment = ROOT / "build" / "smoke" / f"torch-{torch}"
    run(sys.executable, "-m", "venv", "--clear", environment)
    python = environment / "bin" / "python"
    install = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*install, f"torch=={torch}")
    run(*install, f"torch=={torch}", wheel)  # named again: it may not be replaced
    with tempfile.TemporaryDirectory() as folder:
        # -I: nothing but the environment is on sys.path.
        clean = {"PATH": str(python.parent), "HOME": folder}
        run(python, "-I", TEST, torch, cwd=folder, env=clean)


def main(wheel: Path, versions: list[str]) -> None:
    """Tries the wheel with each version of torch."""
    for version in versions:
        smoke(wheel.resolve(), version)
    print(f"{wheel.name} works with torch {' and '.join(versions)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
