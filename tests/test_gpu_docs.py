"""docs/gpu.md says what is computed and stated, and its arithmetic is right."""

import pytest
from kernel_figures import KERNELS
from layer_cam_plan import Layer
from roofline import CARDS, RULES, cost, seconds
from write_gpu_docs import PAGE, page

RULE = {rule.name: rule for rule in RULES}
H100, RTX_4090 = CARDS


def test_its_tables_are_current():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python tools/write_gpu_docs.py"


def test_a_table_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="one place for bytes"):
        page("")


def test_it_names_every_kernel():
    text = PAGE.read_text(encoding="utf-8")
    for name in {key.partition("<")[0] for key in KERNELS} - {"sum_indices"}:  # the probe's
        assert f"| `{name}` |" in text


def test_bytes_are_counted():
    layer = Layer(32, 256, 56, 56)  # 102.8 MB each of A and G, maps of 56 x 56 x 32
    maps = 4 * 32 * 56 * 56
    assert layer.bytes == 102_760_448
    two_launches = cost(layer, RULE["gradcam++"])
    assert two_launches.least == 2 * layer.bytes + maps
    # A twice, G once, and 16 slabs of channels' maps written and read.
    assert two_launches.asked == 3 * layer.bytes + 2 * 16 * maps + maps
    assert (two_launches.path, two_launches.launches) == ("planes", 2)
    small = cost(Layer(1, 16, 7, 7), RULE["gradcam++"])  # a single slab
    assert (small.asked, small.launches) == (small.least, 1)


def test_times_are_the_slower_of_memory_and_arithmetic():
    large = Layer(32, 64, 224, 224)
    time, bound = seconds(large, RULE["layercam"], H100)
    assert bound == "memory"
    assert time == pytest.approx(cost(large, RULE["layercam"]).asked / 3.35e12)
    cached = Layer(1, 64, 224, 224)
    time, bound = seconds(cached, RULE["all six"], H100)
    assert bound == "arithmetic"
    assert time == pytest.approx(64 * 224 * 224 * 91 / 33.5e12)
    time, bound = seconds(cached, RULE["all six"], RTX_4090)
    assert bound == "memory"
    assert time == pytest.approx(cost(cached, RULE["all six"]).least / 1.008e12)
