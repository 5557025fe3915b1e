"""Faces are found under the names of their libraries, and leave nothing behind."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import pkgutil
import subprocess
import sys
import textwrap
import warnings

import pytest

import camfuse.compat.torchcam as face
from camfuse import compat

# A part of a face that only these tests have: faces may be anything else.
PART = "class Thing:\n    value = 1\n\n\ndef twice(x):\n    return 2 * x\n"


@pytest.fixture(autouse=True)
def uninstalled():
    """Faces are out before and after, and the import system as it was."""
    before = list(sys.meta_path), {k for k in sys.modules if k.partition(".")[0] in LIBRARIES}
    yield
    compat.uninstall()
    assert list(sys.meta_path) == before[0]
    assert {k for k in sys.modules if k.partition(".")[0] in LIBRARIES} == before[1]


LIBRARIES = ("pytorch_grad_cam", "torchcam", "captum")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The face of torchcam has a package ``made_up`` with a module ``part``."""
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").write_text('"""Made up."""\n')
    (tmp_path / "made_up" / "part.py").write_text(PART)
    monkeypatch.setattr(face, "__path__", [*face.__path__, str(tmp_path)])
    yield
    for name in [name for name in sys.modules if ".made_up" in name]:
        del sys.modules[name]
    vars(face).pop("made_up", None)


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A library ``torchcam`` of which a module is imported."""
    compat.uninstall()
    aside = {k: sys.modules.pop(k) for k in [*sys.modules] if k.partition(".")[0] == "torchcam"}
    folder = tmp_path / "site" / "torchcam"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("theirs = True\n")
    (folder / "own.py").write_text("")
    monkeypatch.syspath_prepend(folder.parent)
    yield importlib.import_module("torchcam.own")
    compat.uninstall()
    for name in ("torchcam", "torchcam.own"):
        sys.modules.pop(name, None)
    sys.modules.update(aside)


@pytest.fixture
def python(tmp_path):
    """Runs Python on arguments, in a folder of its own where scripts can be written."""

    def run(*arguments, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


RUN = ("-m", "camfuse.compat", "run")


def test_every_way_to_import_yields_the_same_modules(parts):
    compat.install("torchcam")
    import torchcam
    import torchcam.made_up.part as aliased
    from torchcam.made_up import part
    from torchcam.made_up.part import twice

    assert torchcam is face
    assert part is aliased is importlib.import_module("torchcam.made_up.part")
    assert part is importlib.import_module("camfuse.compat.torchcam.made_up.part")
    assert sys.modules["torchcam.made_up.part"] is part
    assert twice is part.twice


@pytest.mark.parametrize("first", ["torchcam.made_up.part", "camfuse.compat.torchcam.made_up.part"])
def test_modules_are_marked_as_camfuse_s_whichever_name_comes_first(parts, first):
    compat.install("torchcam")
    importlib.import_module(first)
    module = importlib.import_module("torchcam.made_up.part")
    name = "camfuse.compat.torchcam.made_up.part"
    assert module.__name__ == module.__spec__.name == module.__loader__.name == name
    assert module.__package__ == "camfuse.compat.torchcam.made_up"


def test_nothing_of_a_face_is_imported_before_it_is_used():
    code = (
        "import sys; from camfuse import compat; compat.install('pytorch_grad_cam', 'torchcam'); "
    )
    code += "print([m for m in sys.modules if 'torch' in m or 'captum' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_can_be_reloaded(parts):
    compat.install("torchcam")
    module = importlib.import_module("torchcam.made_up.part")
    module.Thing.value = 2
    assert importlib.reload(module) is module
    assert module.Thing.value == 1
    assert sys.modules["torchcam.made_up.part"] is module


def test_classes_are_pickled_under_a_name_that_is_always_there(parts):
    compat.install("torchcam")
    thing = pickle.dumps(importlib.import_module("torchcam.made_up.part").Thing)
    compat.uninstall("torchcam")
    assert pickle.loads(thing).value == 1


def test_pickles_of_the_library_s_classes_are_read_as_the_face_s(parts):
    compat.install("torchcam")
    theirs = b"ctorchcam.made_up.part\nThing\n."
    assert pickle.loads(theirs) is importlib.import_module("torchcam.made_up.part").Thing


def test_sources_can_be_inspected(parts):
    compat.install("torchcam")
    module = importlib.import_module("torchcam.made_up.part")
    assert inspect.getsource(module) == PART
    assert inspect.getsource(module.twice) == "def twice(x):\n    return 2 * x\n"


def test_modules_can_be_looked_for_and_listed(parts):
    compat.install("torchcam")
    spec = importlib.util.find_spec("torchcam.made_up")
    assert (spec.name, spec.origin) == ("torchcam.made_up", spec.origin)
    assert spec.origin.endswith("__init__.py")
    assert "camfuse.compat.torchcam.made_up.part" not in sys.modules
    import torchcam.made_up

    walked = pkgutil.walk_packages(torchcam.__path__, "torchcam.")
    names = {one.name for one in walked if one.name.startswith("torchcam.made_up")}
    assert names == {"torchcam.made_up", "torchcam.made_up.part"}


def test_a_module_that_the_face_lacks_is_named():
    compat.install("torchcam")
    with pytest.raises(ModuleNotFoundError, match=r"face of torchcam has no 'torchcam\.nothing'"):
        importlib.import_module("torchcam.nothing")


def test_installing_twice_is_installing_once():
    compat.install("torchcam")
    before = list(sys.meta_path)
    compat.install("torchcam")
    assert sys.meta_path == before
    compat.uninstall("torchcam")
    assert sys.meta_path == before[1:]


def test_a_face_that_is_not_installed_is_left_alone():
    compat.install("torchcam")
    compat.uninstall("pytorch_grad_cam")
    import torchcam

    assert torchcam is face


@pytest.mark.parametrize("change", [compat.install, compat.uninstall])
def test_an_unknown_face_is_refused_before_anything_is_changed(change):
    before = list(sys.meta_path)
    with pytest.raises(ValueError, match=r"expected faces \(pytorch_grad_cam, torchcam, captum\)"):
        change("torchcam", "zennit")
    assert sys.meta_path == before


def test_an_imported_library_is_set_aside_with_a_warning_and_comes_back(peer):
    theirs = sys.modules["torchcam"]
    with pytest.warns(
        UserWarning, match="torchcam: imported before .* stay what they were"
    ) as said:
        compat.install("torchcam")
    assert said[0].filename == __file__
    import torchcam

    assert torchcam is face
    assert "torchcam.own" not in sys.modules
    compat.uninstall("torchcam")
    assert sys.modules["torchcam"] is theirs
    assert sys.modules["torchcam.own"] is peer is theirs.own


def test_a_library_that_is_there_and_not_imported_is_not_imported(peer):
    for name in ("torchcam", "torchcam.own"):
        del sys.modules[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.install("torchcam")
    assert "torchcam" not in sys.modules
    import torchcam

    assert torchcam is face
    compat.uninstall("torchcam")
    assert importlib.import_module("torchcam").theirs


def test_a_script_runs_as_python_runs_it(python):
    script = """
        import sys
        from typing import get_type_hints
        class Annotated:
            x: int
        assert sys.modules["__main__"].__dict__ is globals()
        print(sys.argv, sys.path, __name__, __file__, __package__, __spec__)
        print(Annotated.__annotations__, __builtins__)
    """
    given = ("script.py", "a", "b", "--c", "--help", "-m", "--face", "--", "-h")
    found, expected = python(*RUN, *given, script=script), python(*given)
    assert found.stdout == expected.stdout
    assert found.returncode == expected.returncode == 0, found.stderr


def test_a_script_elsewhere_imports_what_lies_beside_it(python, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("x = 3\n")
    (tmp_path / "folder" / "script.py").write_text("import beside; print(beside.x)")
    assert python(*RUN, "folder/script.py").stdout == "3\n"


def test_a_module_runs_as_python_runs_it(python):
    module = """
        import sys
        print(sys.argv, sys.path, __name__, __file__, __spec__.name)
    """
    given = ("-m", "module", "a", "--help", "-m", "b")
    found, expected = python(*RUN, *given, module=module), python(*given)
    assert found.stdout == expected.stdout
    assert found.returncode == expected.returncode == 0, found.stderr


def test_a_folder_runs_as_python_runs_it(python, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text("import sys; print(__name__, sys.argv)")
    assert python(*RUN, "folder", "a").stdout == python("folder", "a").stdout != ""


@pytest.mark.parametrize(
    "ending",
    [
        "sys.exit(3)",
        "sys.exit()",
        "sys.exit('said')",
        "raise KeyError('lost')",
        "raise KeyboardInterrupt",
        "import typer; raise typer.Exit(4)",
        "import typer; raise typer.BadParameter('wrong')",
        "import atexit; atexit.register(lambda: print(sys.modules['__main__'].sys))",
    ],
)
def test_a_program_ends_as_it_would(python, ending):
    found = python(*RUN, "script.py", script=f"import sys\nprint(1)\n{ending}\n")
    expected = python("script.py")
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_a_program_that_fails_shows_its_own_line(python):
    done = python(*RUN, "script.py", script="x = 1\nraise KeyError('lost')\n")
    assert 'script.py", line 2, in <module>' in done.stderr


def test_a_program_finds_the_faces(python):
    script = (
        "import torchcam, pytorch_grad_cam\nprint(torchcam.__name__, pytorch_grad_cam.__name__)"
    )
    names = "camfuse.compat.torchcam camfuse.compat.pytorch_grad_cam\n"
    assert python(*RUN, "script.py", script=script).stdout == names


@pytest.mark.parametrize("option", [("--face", "torchcam"), ("--face=torchcam",)])
def test_a_program_finds_the_faces_that_were_asked_for(python, option):
    script = """
        import sys
        from camfuse.compat import installation
        print(list(installation._installed), sys.argv)
    """
    done = python(*RUN, *option, "script.py", "--face", "captum", script=script)
    assert done.stdout == "['torchcam'] ['script.py', '--face', 'captum']\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--face", "zennit", "script.py"], "--face: expected one of pytorch_grad_cam, torchcam"),
        (["nothing.py"], "expected a script or -m MODULE, got 'nothing.py'"),
        (["--typo", "x", "script.py"], "--typo"),
        (["-m"], "-m: expected the name of a module"),
        ([], "PROGRAM"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(python, given, message):
    done = python(*RUN, *given, script="")
    assert done.returncode == 2
    assert done.stderr.startswith("camfuse: error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_says_how_it_is_used(python):
    done = python(*RUN, "--help")
    assert done.returncode == 0
    assert "-m MODULE" in done.stdout
    assert "--face" in done.stdout
