"""How far a map may lie from the f64 reference, per rule and dtype."""

import torch

from camfuse import ops, reference

RELATIVE = {torch.float64: 1e-9}  # every other dtype: 1e-5, as sums are taken in f32 or better


def assert_maps_close(maps, ranges, A, G, rules, weights=None):
    """Compares with the reference in f64, relative to max_p sum_k of the summands' magnitude."""
    a, g, w = (None if x is None else x.double() for x in (A, G, weights))
    expected, _ = reference.layer_cam(a, g, rules, weights=w)
    dtype = torch.float64 if A.dtype == torch.float64 else torch.float32
    assert maps.dtype == ranges.dtype == dtype
    assert maps.shape == expected.shape
    magnitudes, _ = reference.layer_cam(
        a, g, [ops.MAGNITUDE_OF.get(rule, rule) for rule in rules], weights=w
    )
    scales = magnitudes.amax((2, 3), keepdim=True)
    for rule, got, want, scale in zip(rules, maps, expected, scales, strict=True):
        limit = RELATIVE.get(A.dtype, 1e-5) * scale + 1e-300
        assert ((got.double() - want).abs() <= limit).all(), rule
    planes = maps.flatten(2)
    assert torch.equal(ranges, torch.stack([planes.amin(-1), planes.amax(-1)], -1))
