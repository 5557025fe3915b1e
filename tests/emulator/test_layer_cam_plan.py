"""The documentation's account of how layer_cam divides a layer is the launcher's own."""

import itertools

import numpy as np
import pytest
from layer_cam_plan import Layer, plan

from emulation import LARGE, SMALL, Out

CODES = {"double": 0, "float": 1, "BFloat16": 2, "Half": 3}
PATHS = ("small", "planes", "rows")
SIZES = [
    (1, 1),
    (2, 3),
    (7, 7),
    (14, 14),
    (28, 28),
    (32, 32),
    (33, 32),
    (56, 56),
    (57, 3),
    (224, 224),
]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("type", CODES)
def test_the_plan_is_the_launchers(emulator, type, layout):
    run = emulator("layer_cam_plan")
    for (h, w), C, rules in itertools.product(SIZES, (2, 3, 256), (1, 40)):
        for sums, device in itertools.product((False, True), (LARGE, SMALL)):
            layer = Layer(2, C, h, w, type, layout)
            numbers = run(
                **{"B": 2, "C": C, "h": h, "w": w, "rules": rules, "sums": sums},
                rows=layout == "nhwc",
                dtype=CODES[type],
                plan=Out(9, np.int64),
                device=device,
                seeds=(0,),
            )["plan"]
            path, wide, tile, tiles, slab, slabs, at_once, sum_bytes, map_bytes = numbers.tolist()
            told = plan(layer, rules, sums, device.shared_bytes)
            assert told.path == PATHS[path], layer
            assert told.path == "small" or told.wide == bool(wide), layer
            assert (told.tile, told.tiles) == (tile, tiles), layer
            assert (told.slab, told.slabs) == (slab, slabs), layer
            assert told.rules_at_once == at_once, layer
            shared = [launch.shared for launch in told.launches]
            assert shared == [sum_bytes, map_bytes][-len(shared) :], layer
