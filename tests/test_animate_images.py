"""Many photographs: a video each, in order, whatever happens to some of them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import camfuse
from camfuse.animate_images import find_images, video_names
from small_models import Residual
from videos import processes

STYLE = camfuse.VideoStyle(size=48, normalize="layer")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for i in range(7):
        pixels = noise.integers(0, 256, (30 + i, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def run(model: nn.Module, images, folder: Path, **options) -> list[camfuse.AnimationResult]:
    return list(camfuse.animate_images(model, images, folder, style=STYLE, **options))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_each_video_is_the_one_that_its_photograph_makes_alone(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    results = run(model, photographs, tmp_path, batch=3, ending=".mkv")
    assert [result.path.name for result in results] == [f"{i}.mkv" for i in range(7)]
    for i, result in enumerate(results):
        alone = camfuse.animate(
            model, photographs / f"{i}.png", tmp_path / "alone.mkv", size=48, normalize="layer"
        )
        torch.testing.assert_close(result.stack.flat, alone.stack.flat, rtol=1e-4, atol=1e-6)
        assert result.frames == alone.frames
        assert result.to_dict()["target"]["index"] == alone.to_dict()["target"]["index"]
        assert result.video.height == alone.video.height, "each keeps its own aspect"


def test_maps_are_saved_beside_each_other(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    results = run(model, photographs, tmp_path, save_maps=tmp_path / "maps")
    assert files(tmp_path / "maps") == [f"{i}.safetensors" for i in range(7)]
    kept = camfuse.load_stack(tmp_path / "maps" / "2.safetensors")
    assert torch.equal(kept.flat, results[2].stack.flat)


def test_what_cannot_be_read_is_told_and_left_out(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "3.png").write_text("not a picture")
    (photographs / "5.png").write_bytes((photographs / "5.png").read_bytes()[:200])
    failed: dict[str, str] = {}
    results = run(
        model,
        photographs,
        tmp_path,
        batch=2,
        on_error=lambda path, error: failed.update({path.name: str(error)}),
    )
    assert [result.path.stem for result in results] == ["0", "1", "2", "4", "6"]
    assert failed.keys() == {"3.png", "5.png"}
    assert files(tmp_path) == ["0.mp4", "1.mp4", "2.mp4", "4.mp4", "6.mp4"]


def test_without_anyone_to_tell_the_first_failure_ends_it_and_names_the_photograph(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "3.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"3\.png") as caught:
        run(model, photographs, tmp_path, batch=2)
    assert "3.png" in caught.value.__notes__[0]
    assert set(files(tmp_path)) <= {"0.mp4", "1.mp4", "2.mp4"}
    assert processes(tmp_path) == []


def test_a_photograph_whose_maps_are_not_finite_does_not_take_others_of_its_batch_along(
    photographs: Path, tmp_path: Path
) -> None:
    class Touchy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            score = self.conv(x).mean((2, 3))
            bright = x.mean((1, 2, 3)) > 1.5
            return score * torch.where(bright[:, None], torch.inf, 1.0)

    Image.new("RGB", (40, 30), "white").save(photographs / "4.png")
    failed: list[str] = []
    results = run(
        Touchy().eval(),
        photographs,
        tmp_path,
        on_error=lambda path, error: failed.append(f"{path.name}: {error}"),
    )
    assert [result.path.stem for result in results] == ["0", "1", "2", "3", "5", "6"]
    assert len(failed) == 1
    assert failed[0].startswith("4.png: conv")


def test_a_failing_encoder_fails_its_photograph(
    model: nn.Module, photographs: Path, tmp_path: Path, script
) -> None:
    fake = script("cat >/dev/null; echo out of luck >&2; exit 3")
    failed: list[str] = []
    options = {"ffmpeg": fake, "on_error": lambda path, error: failed.append(str(error))}
    assert run(model, photographs, tmp_path, **options) == []
    assert len(failed) == 7
    assert all("out of luck" in one for one in failed)


def test_leaving_early_leaves_whole_videos_and_no_process(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    before = threading.active_count()
    for result in camfuse.animate_images(model, photographs, tmp_path, style=STYLE, batch=1):
        assert result.path.name == "0.mp4"
        break
    assert processes(tmp_path) == []
    assert threading.active_count() == before
    assert "0.mp4" in files(tmp_path)
    assert all(name.endswith(".mp4") for name in files(tmp_path))


def test_an_interrupt_leaves_whole_videos_and_no_process(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    def interrupted() -> None:
        for i, _ in enumerate(camfuse.animate_images(model, photographs, tmp_path, style=STYLE)):
            if i == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert processes(tmp_path) == []
    assert all(name.endswith(".mp4") for name in files(tmp_path))


def test_arguments_are_checked_before_anything_is_asked_for(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    for options, message in [
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"ending": "mp4"}, "ending: expected .mp4, .webm, .mkv, .gif or .webp, got 'mp4'"),
        ({"question": camfuse.Question(target=[1, 2])}, "target: expected the same for all"),
        ({"style": camfuse.VideoStyle(fps=60), "ending": ".gif"}, "fps must lie in"),
        ({"question": camfuse.Question(method="nocam")}, "method: expected one of"),
        ({"save_maps": tmp_path / "absent"}, "save_maps: expected an existing folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            camfuse.animate_images(model, photographs, tmp_path, **options)
    with pytest.raises(ValueError, match="folder: expected an existing folder"):
        camfuse.animate_images(model, photographs, tmp_path / "absent")


def test_what_is_in_the_place_of_a_video_is_told_before_anything_is_done(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "4.mp4").mkdir()
    with pytest.raises(ValueError, match=r"4\.mp4' is a folder, where a file should go"):
        camfuse.animate_images(model, photographs, tmp_path)


def test_a_photograph_is_never_replaced_by_its_video(model: nn.Module, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.webp")
    before = (tmp_path / "a.webp").read_bytes()
    with pytest.raises(ValueError, match=r"a\.webp' would replace a photograph"):
        camfuse.animate_images(model, tmp_path, tmp_path, ending=".webp")
    with pytest.raises(ValueError, match="out: expected another file than the photograph"):
        camfuse.animate(model, tmp_path / "a.webp", tmp_path / "a.webp")
    assert (tmp_path / "a.webp").read_bytes() == before


def test_a_photograph_without_a_layer_does_not_take_it_from_others(
    photographs: Path, tmp_path: Path
) -> None:
    class Touchy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = (x.mean((1, 2, 3)) > 1.5)[:, None, None, None]
            first = self.first(x)
            return self.last(first * torch.where(bright, torch.inf, 1.0)).mean((2, 3))

    Image.new("RGB", (40, 30), "white").save(photographs / "4.png")
    question = camfuse.Question(on_nonfinite="skip", target=0)
    failed: list[str] = []
    results = run(
        Touchy().eval(),
        photographs,
        tmp_path,
        question=question,
        on_error=lambda path, error: failed.append(path.name),
    )
    assert [result.path.stem for result in results] == ["0", "1", "2", "3", "5", "6"]
    assert all(result.frames == 2 for result in results)
    assert failed == ["4.png"]


def test_smoothing_reaches_every_photograph(
    model: nn.Module, photographs: Path, tmp_path: Path
) -> None:
    results = run(model, photographs, tmp_path, question=camfuse.Question(aug_smooth=True))
    assert all(result.to_dict()["aug_smooth"] for result in results)


def test_a_folder_is_taken_in_order_of_name_and_only_its_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "c.webp", "._a.png"):
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG", "c.webp"]
    assert find_images(["x", "y"]) == [Path("x"), Path("y")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        find_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="expected a folder or several paths"):
        find_images(tmp_path / "a.png")
    with pytest.raises(ValueError, match="images: expected at least one, got none"):
        find_images([])


def test_videos_of_one_name_are_told_apart_or_refused() -> None:
    def names(*images: str) -> list[str]:
        return [path.name for path in video_names([Path(one) for one in images], Path(), ".mp4")]

    assert names("cat.jpg", "dog.jpg") == ["cat.mp4", "dog.mp4"]
    assert names("cat.jpg", "cat.png", "dog.jpg") == ["cat.jpg.mp4", "cat.png.mp4", "dog.mp4"]
    with pytest.raises(ValueError, match=r"'a/cat\.jpg' and 'b/cat\.jpg' would become the same"):
        names("a/cat.jpg", "b/cat.jpg")
