"""What a principal map must be, judged by an SVD in f64; and layers with singular values of one's
choice."""

import torch

from camfuse import reference


def arguments(terms, layer):
    """Of ``(A, G, weights)``, those that ``terms`` take."""
    A, G, weights = layer
    reads_gradients = terms not in ("activation", "weighted")
    return A, G if reads_gradients else None, weights if terms == "weighted" else None


def assert_principal(result, A, G=None, terms="activation", weights=None):
    """Equal to the reference within 1e-4 (f64: 1e-9) of the map's largest magnitude, where the
    first component stands out; a combination of the first components and as long as the first
    elsewhere; of the right sign. Where centring leaves rounding noise, no more than that."""
    a, g, w = (None if x is None else x.double() for x in (A, G, weights))
    maps, ranges, scales = (x.cpu() for x in result)
    expected, _, expected_scales = reference.principal_map(a, g, terms, weights=w)
    exact = A.dtype == torch.float64
    assert maps.dtype == ranges.dtype == scales.dtype == (torch.float64 if exact else torch.float32)
    torch.testing.assert_close(
        scales.double(), expected_scales, rtol=1e-12 if exact else 1e-5, atol=0
    )
    planes = maps.flatten(1)
    assert torch.equal(ranges, torch.stack([planes.amin(1), planes.amax(1)], 1))
    rows = reference.principal_rows(terms, a, g, w)
    for map_, want, row, scale in zip(planes.double(), expected, rows, scales, strict=True):
        centred = row - row.mean(0)
        values = torch.linalg.svdvals(centred)
        noise = (1e-13 if exact else 3e-6) * scale.item() * len(row) ** 0.5
        assert map_.mean().abs() <= 1e-6 * map_.abs().max() + noise
        assert map_ @ (row.square().sum(1) - row.square().sum(1).mean()) >= -noise * scale**2
        if values[0] <= 100 * noise:
            assert map_.norm() <= 101 * noise
            continue
        second = values[1] if len(values) > 1 else 0
        if values[0] >= 1.0099 * second:
            # A sign that no energy speaks for is free.
            error = min((map_ - s * want.flatten()).abs().max() for s in (1, -1))
            assert error <= (1e-9 if exact else 1e-4) * want.abs().max() + noise
        assert abs(map_.norm() - values[0]) <= (1e-9 if exact else 1e-4) * values[0] + noise
        stretched = (centred.T @ (map_ / map_.norm())).norm()
        assert stretched >= (1 - 1e-4) * values[0] - noise


def assert_equal_map(result, A):
    """Within 1e-4 of the reference, whatever the means: their rounding does not show."""
    want, *_ = reference.principal_map(A.double())
    error = (result[0].double() - want).abs().amax((1, 2))
    assert (error <= 1e-4 * want.abs().amax((1, 2))).all()


def with_means(mean):
    """A layer ``[1, 8, 6, 5]`` in f32 whose channels lie about `mean`."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(1, 8, 6, 5, generator=generator) * torch.linspace(3, 1, 8)[:, None, None]
    return A + mean * torch.linspace(1, 2, 8)[:, None, None]


def spectrum(size, values, seed=0):
    """A sample ``[1, C, h, w]`` in f64 whose centred rows have these singular values."""
    C, h, w = size
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(h * w, len(values), generator=generator, dtype=torch.float64)
    right = torch.randn(C, len(values), generator=generator, dtype=torch.float64)
    U, V = torch.linalg.qr(left - left.mean(0))[0], torch.linalg.qr(right)[0]
    rows = U * torch.tensor(values, dtype=torch.float64) @ V.T + torch.rand(
        C, generator=generator, dtype=torch.float64
    )
    return rows.T.reshape(1, C, h, w)
