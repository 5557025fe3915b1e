"""The main job from end to end: a model and a photograph in, a video out."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

import camfuse
from camfuse.models import LoadedModel, load_model
from camfuse.video import find_ffmpeg
from small_models import Residual

CLASSES = ("crane", "Dog", "Crane")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return data.cat()


def test_the_video_has_a_frame_per_shown_layer(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, ffprobe: Callable[[Path], dict]
) -> None:
    result = camfuse.animate(model, cat, tmp_path / "cat.mp4", size=96)
    report = json.loads(json.dumps(result.to_dict()))
    stream = ffprobe(tmp_path / "cat.mp4")
    shown = result.stack.shown()
    assert int(stream["nb_read_frames"]) == report["frames"] == len(report["layers"]) == len(shown)
    canvas = camfuse.render(shown, cat, size=96, title="a title takes a line").canvas
    assert (stream["width"], stream["height"]) == (canvas.width, canvas.height)
    assert stream["pix_fmt"] == "yuv420p"
    colours = {stream[key] for key in ("color_space", "color_primaries", "color_transfer")}
    assert colours == {"bt709"}
    assert report["bytes_written"] == (tmp_path / "cat.mp4").stat().st_size
    assert set(report["seconds"]) == {"image", "model", "maps", "video"}


def test_rendered_frames_survive_the_pipe_exactly(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    stack = camfuse.layer_cams(model, torch.randn(1, 3, 32, 48)).shown()
    frames = camfuse.render(stack, cat, size=100)
    path = tmp_path / "cat.mkv"
    size = {"width": frames.width, "height": frames.height}
    with camfuse.VideoWriter(path, **size, fps=5, pixel_format="rgb24") as writer:
        for chunk in frames:
            writer.write(chunk)
    command = [find_ffmpeg(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, check=True, capture_output=True).stdout
    assert decoded == b"".join(chunk.numpy().tobytes() for chunk in frames)
    assert len(decoded) == len(frames) * 3 * frames.height * frames.width


def test_paths_pictures_arrays_and_tensors_make_the_same_video(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(cat).save(tmp_path / "cat.png")
    tensor = torch.from_numpy(cat).permute(2, 0, 1)
    sources = [tmp_path / "cat.png", str(tmp_path / "cat.png"), Image.fromarray(cat), cat, tensor]
    stacks = [camfuse.animate(model, s, tmp_path / "x.mp4", size=64).stack for s in sources]
    for stack in stacks[1:]:
        assert torch.equal(stack.flat, stacks[0].flat)


def test_the_callers_preprocessing_and_class_names_are_used(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    preprocessing = camfuse.Preprocessing((30, 40), (0.5,) * 3, (0.25,) * 3, "bicubic")
    classes = ["ant", "bee", "cow", "dog", "eel"]
    choices = {"preprocessing": preprocessing, "classes": classes, "target": 2}
    result = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64, **choices)
    assert result.stack.input_size == (30, 40)
    report = result.to_dict()
    assert report["preprocessing"] == preprocessing.as_dict()
    assert (report["target"]["index"], report["target"]["name"]) == (2, "cow")
    with torch.no_grad():
        expected = model(preprocessing(Image.fromarray(cat))).softmax(1)[0, 2]
    assert report["target"]["probability"] == pytest.approx(float(expected), rel=1e-5)


def test_a_function_target_has_a_score_but_no_class(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    def target(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, 1]

    report = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64, target=target).to_dict()
    assert report["target"]["index"] is report["target"]["name"] is None
    assert report["target"]["probability"] is None
    assert isinstance(report["target"]["score"], float)


def test_progress_is_told_to_the_end(model: nn.Module, cat: np.ndarray, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = camfuse.animate(
        model, cat, tmp_path / "x.mp4", size=64, progress=lambda *args: told.append(args)
    )
    assert ("video", result.frames, result.frames) in told
    assert {stage for stage, _, _ in told} == {"image", "model", "maps", "video"}


def test_smoothing_reaches_the_maps_and_the_report(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    result = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64, aug_smooth=True)
    plain = camfuse.animate(model, cat, tmp_path / "y.mp4", size=64)
    image = LoadedModel.of(model).preprocessing(Image.fromarray(cat))
    expected = camfuse.layer_cams(model, image, aug_smooth=True)
    assert torch.equal(result.stack.flat, expected.flat)
    assert not torch.equal(result.stack.flat, plain.stack.flat)
    assert (result.to_dict()["aug_smooth"], result.to_dict()["eigen_smooth"]) == (True, False)
    assert (plain.to_dict()["aug_smooth"], plain.to_dict()["eigen_smooth"]) == (False, False)


def test_all_that_is_asked_of_the_maps_reaches_them(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **options: object) -> None:
        raise KeyError(str({name: options[name] for name in asked}))

    asked = {"aug_smooth": True, "eigen_smooth": True, "batch_size": 7, "max_memory": "1GB"}
    monkeypatch.setattr("camfuse.question.layer_cams", stop)
    with pytest.raises(KeyError) as found:
        camfuse.animate(model, cat, tmp_path / "x.mp4", **asked)
    assert found.value.args == (str(asked),)


def test_a_contrast_is_named_after_its_class(
    model: nn.Module, cat: np.ndarray, tmp_path: Path
) -> None:
    contrast = camfuse.Contrast("dog", others=["newt", 3])
    result = camfuse.animate(
        model,
        cat,
        tmp_path / "x.mp4",
        size=64,
        method=["gradcam", "finercam"],
        target=contrast,
        classes=["cat", "dog", "newt", "owl", "fox"],
    )
    columns = result.to_dict()["compared"]
    assert [one["target"]["name"] for one in columns] == ["dog", "dog"]
    image = LoadedModel.of(model).preprocessing(Image.fromarray(cat))
    with torch.no_grad():
        logits = model(image)[0]
    expected = float(logits[1] - (logits[2] + logits[3]) / 2)
    assert columns[0]["target"]["score"] == pytest.approx(expected, abs=1e-5)
    assert columns[0]["target"]["probability"] == pytest.approx(float(logits.softmax(0)[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "nope"}, "no layer of the model matches 'nope'"),
        ({"target": 99}, r"expected a class in 0\.\.4, got 99"),
        ({"target": "dog"}, "target: the model's class names are not known"),
        ({"target": "crane", "classes": CLASSES}, "the name of classes 0, 2; pass an index"),
        ({"target": "dogg", "classes": CLASSES}, "no class is called 'dogg'; close: Dog"),
    ],
)
def test_wrong_options_leave_nothing(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        camfuse.animate(model, cat, tmp_path / "x.mp4", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"normalize": "none"}, ValueError, "normalize: expected"),
        ({"on_nonfinite": "keep"}, ValueError, "on_nonfinite: expected"),
        ({"method": "nocam"}, ValueError, "method: expected one of"),
        ({"method": ["gradcam", "nocam"]}, ValueError, "method: expected one of"),
        ({"method": ["gradcam", "gradcam"]}, ValueError, "method: expected each method once"),
        ({"method": []}, ValueError, "method: expected at least one"),
        ({"method": 5}, TypeError, "method: expected str or Sequence, got int"),
        ({"method": "refinecam"}, ValueError, "method: refinecam has no map per layer"),
        ({"aug_smooth": 1}, TypeError, "aug_smooth: expected bool, got int"),
        ({"eigen_smooth": "yes"}, TypeError, "eigen_smooth: expected bool, got str"),
        (
            {"method": ["gradcam", "eigencam"], "eigen_smooth": True},
            ValueError,
            "eigen_smooth: the map of eigencam is no sum over channels",
        ),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
        ({"target": camfuse.Contrast(1.5)}, TypeError, "target: expected a class, a name"),
        ({"keyframes": 0}, ValueError, "keyframes: expected at least 1, got 0"),
        ({"keyframes": 2.5}, TypeError, "keyframes: expected a whole number, got 2.5"),
        ({"curve": 5}, TypeError, "curve: expected str or None, got int"),
        ({"codec": "vp9"}, ValueError, r"codec must be h264 or av1 for \.mp4, got 'vp9'"),
        ({"out": "x.gif", "fps": 60}, ValueError, r"fps must lie in \[1/655, 50\] for gif"),
        ({"out": "x" * 252 + ".mp4"}, OSError, "File name too long"),
        ({"curve": "ybroad"}, ValueError, "curve: expected one of evidence, got 'ybroad'"),
        ({"weights": 5}, TypeError, "weights: expected"),
        ({"classes": [1, 2]}, TypeError, "classes: expected str, got int"),
        ({"out": "x.gif", "crf": 20}, ValueError, "crf means nothing for gif, got 20"),
        ({"effort": "none"}, ValueError, "effort must be fast or small, got 'none'"),
        ({"colormap": "beige"}, ValueError, "beige"),
        ({"colormap": 5}, TypeError, "colormap: expected str or Tensor or ndarray, got int"),
        ({"fps": 0}, ValueError, "fps must"),
        ({"fps": -1}, ValueError, "fps must"),
        ({"fps": "fast"}, ValueError, "fps must"),
        ({"size": 1}, ValueError, "size: expected 16 to"),
        ({"size": "a"}, TypeError, "size: expected a whole number of pixels, got 'a'"),
        ({"preprocessing": "x"}, TypeError, "preprocessing: expected Preprocessing or None"),
        ({"classes": "cat"}, TypeError, "classes: expected a sequence of names"),
        ({"classes": 5}, TypeError, "classes: expected Sequence or None, got int"),
        ({"ffmpeg": "/nowhere/ffmpeg"}, ValueError, "ffmpeg must be an executable"),
        ({"out": "x.avi"}, ValueError, "out must end in"),
        ({"out": "absent/x.mp4"}, ValueError, "folder of out does not exist"),
        ({"out": "/sys/x.mp4"}, OSError, "out: cannot write to the folder '/sys'"),
        ({"save_maps": "x.npz"}, ValueError, "save_maps must end in .safetensors"),
        ({"save_maps": "absent/x.safetensors"}, ValueError, "folder of save_maps does not exist"),
        ({"save_maps": "/sys/x.safetensors"}, OSError, "save_maps: cannot write to"),
        ({"image": "absent.png"}, ValueError, "absent.png"),
        ({"model": 5}, TypeError, "model: expected str or Module or LoadedModel, got int"),
        ({"model": nn.ReLU(), "weights": "random"}, ValueError, "weights: expected None"),
        ({"model": []}, ValueError, "model: expected at least one, got none"),
        (
            {"model": ["a:b", "c:d"], "weights": "x.pt"},
            ValueError,
            "weights: expected one for each of 2 models, got 1",
        ),
        (
            {"model": ["a:b", "c:d"], "save_maps": "x.safetensors"},
            ValueError,
            "save_maps: expected one model, got 2",
        ),
        ({"model": nn.ReLU(), "device": "cpu"}, ValueError, "device: expected None"),
    ],
)
def test_what_needs_no_model_is_checked_before_it_is_loaded(
    cat: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"model": "package_of_nobody:make", "image": cat, "out": "x.mp4"} | options
    with pytest.raises(error, match=message):
        camfuse.animate(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_model_spec_takes_weights_and_a_device(cat: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    choices = {"weights": "random", "device": "cpu", "layers": "features.0", "target": "tench"}
    out = tmp_path / "x.mp4"
    report = camfuse.animate("torchvision:squeezenet1_1", cat, out, size=64, **choices).to_dict()
    assert (report["model"], report["weights"]) == ("torchvision:squeezenet1_1", "random")
    assert report["target"]["index"] == 0


@pytest.mark.parametrize("earlier", [None, b"earlier maps"])
def test_maps_are_kept_with_their_video_only(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, earlier: bytes | None
) -> None:
    maps = tmp_path / "x.safetensors"
    if earlier:
        maps.write_bytes(earlier)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "video" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        camfuse.animate(model, cat, tmp_path / "x.mp4", size=64, save_maps=maps, progress=stop)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {maps.name: earlier} if earlier else {}
    )
    result = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64, save_maps=maps)
    assert torch.equal(camfuse.load_stack(maps).flat, result.stack.flat)
    assert result.bytes_written == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_failure_to_save_the_maps_leaves_no_video(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("camfuse.storage.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        camfuse.animate(
            model, cat, tmp_path / "x.mp4", size=64, save_maps=tmp_path / "x.safetensors"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_dying_ffmpeg_leaves_nothing(model: nn.Module, cat: np.ndarray, tmp_path: Path) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nhead -c 1000 >/dev/null\necho out of luck >&2\nexit 3\n")
    fake.chmod(0o755)
    maps = tmp_path / "x.safetensors"
    with pytest.raises(camfuse.VideoError, match="out of luck"):
        camfuse.animate(model, cat, tmp_path / "x.mp4", ffmpeg=fake, save_maps=maps)
    assert list(tmp_path.iterdir()) == [fake]


def test_deep_layers_of_a_real_network_look_at_the_cat(cat: np.ndarray) -> None:
    """The cat fills the picture but for its right and upper right: there the heat must not be."""
    loaded = load_model("efficientnet-lite:0")
    stack = camfuse.layer_cams(loaded.module, loaded.preprocessing(Image.fromarray(cat)))
    assert float(stack.probabilities[0, 0]) > 0.7
    assert loaded.classes[int(stack.targets[0, 0])] == "Egyptian cat"
    last = [layer.name for layer in stack.layers if layer.size == (7, 7)][-3:]
    for name in last:
        heat = stack.normalized(name, "layer", size=(300, 451))[0, 0, 0]
        face, background = heat[60:260, 40:360], heat[:, 400:]
        assert face.mean() > 3 * background.mean(), name
        y, x = divmod(int(heat.argmax()), 451)
        assert 60 <= y < 260, name
        assert 40 <= x < 360, name


def test_at_its_own_range_every_layer_is_hot_and_at_the_global_one_some_are(
    model: nn.Module, cat: np.ndarray
) -> None:
    stack = camfuse.layer_cams(model, torch.randn(1, 3, 32, 48), method="layercam").shown()
    peak = {
        panel: [float(stack.normalized(i, panel).max()) for i in range(len(stack))]
        for panel in ("layer", "global")
    }
    assert peak["layer"] == [1.0] * len(stack)
    assert sorted(peak["global"])[-1] == 1.0 > 2 * sorted(peak["global"])[0]
    frames = {
        panel: camfuse.render(stack, cat, panels=(panel,), size=48) for panel in ("layer", "global")
    }
    for i, hottest in enumerate(peak["global"]):
        same = torch.equal(*(frames[panel].frame(i)[-32:, 8:-8] for panel in frames))
        assert same == (hottest == 1.0)


def test_ffmpeg_is_found_without_a_system_one(
    model: nn.Module, cat: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **options: None)
    result = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64)
    assert result.path.stat().st_size == result.bytes_written


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_any_precision_is_asked_in_its_own(
    cat: np.ndarray, tmp_path: Path, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = Residual().eval().to(dtype)
    result = camfuse.animate(model, cat, tmp_path / "x.mp4", size=64)
    assert result.stack.flat.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_what_would_be_too_large_to_encode_is_known_before_the_model(
    cat: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"size: frames of \d+ x \d+ pixels .*libx264"):
        camfuse.animate("package_of_nobody:make", cat, tmp_path / "x.mp4", size=8000)


def test_where_no_layer_becomes_a_frame_the_reasons_are_given(
    cat: np.ndarray, tmp_path: Path
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with pytest.raises(ValueError, match=r"none of those selected becomes a frame \(1: returns"):
        camfuse.animate(model, cat, tmp_path / "x.mp4", layers="type:Dropout")
    assert list(tmp_path.iterdir()) == []


def test_models_of_one_name_are_told_apart_by_their_weights(
    cat: np.ndarray, tmp_path: Path
) -> None:
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(camfuse.LoadedModel.of(Residual().eval()))
        object.__setattr__(models[-1], "weights", f"runs/{seed}.pt")
    result = camfuse.animate(models, cat, tmp_path / "x.mp4", size=64)
    assert [one.shown.model for one in result.explained] == ["Residual, 0.pt", "Residual, 1.pt"]
    report = result.to_dict()
    assert [one["weights"] for one in report["compared"]] == ["runs/0.pt", "runs/1.pt"]
    assert [one["model"] for one in report["compared"]] == ["Residual", "Residual"]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (3.5, TypeError, "target: expected a class, a name, a function or Each, got 3.5"),
        (["cat", "dog"], ValueError, r"target: several names go into Each\(\[\.\.\.\]\)"),
        (camfuse.Each([]), ValueError, "target: Each needs a sequence of targets"),
        (camfuse.Each("cat"), ValueError, "target: Each needs a sequence of targets, got 'cat'"),
    ],
)
def test_what_cannot_be_a_target_is_known_before_the_model(
    cat: np.ndarray, tmp_path: Path, target: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        camfuse.animate("package_of_nobody:make", cat, tmp_path / "x.mp4", target=target)
