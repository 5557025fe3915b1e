"""The native ops with types, names instead of numbers, and documented shapes.

Each op has a plain PyTorch twin of the same name in :mod:`camfuse.reference`. Importing this module
registers ``torch.ops.camfuse.*`` together with their fake kernels (for ``torch.compile`` and
export) and the autograd formula of :func:`layer_cam`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from camfuse import _C, reference
from camfuse.devices import check_device

Rule = Literal[
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "elementwise",
    "layercam",
    "weighted",
    "|gradcam|",
    "|gradcam++|",
    "|xgradcam|",
    "|hirescam|",
    "|weighted|",
]
"""How activations and gradients become a map; formulas in :mod:`camfuse.reference`.

Those in bars add the magnitudes of the terms: what a map's rounding noise is to be measured by.
"""

MAGNITUDE_OF: dict[Rule, Rule] = {
    "gradcam": "|gradcam|",
    "gradcam++": "|gradcam++|",
    "xgradcam": "|xgradcam|",
    "hirescam": "|hirescam|",
    "elementwise": "|hirescam|",
    "layercam": "|hirescam|",
    "weighted": "|weighted|",
}
"""The rule that adds up the magnitudes for each rule."""

Terms = Literal[
    "activation",
    "product",
    "positive_product",
    "positive_gradient",
    "gradient_magnitude",
    "weighted",
]
"""What the rows of :func:`principal_map` are made of; formulas in :mod:`camfuse.reference`."""

PanelKind = Literal["source", "layer", "global"]
PixelFormat = Literal["rgb24", "i420", "nv12"]

RULES: tuple[Rule, ...] = get_args(Rule)
TERMS: tuple[Terms, ...] = get_args(Terms)
_Result: TypeAlias = Any  # of an op: a tensor or a tuple of them
_Context: TypeAlias = Any  # of autograd: holds whatever setup put there

_RULE_CODES: dict[str, int] = {
    "gradcam": int(_C.Rule.GRADCAM),
    "gradcam++": int(_C.Rule.GRADCAM_PLUS_PLUS),
    "xgradcam": int(_C.Rule.XGRADCAM),
    "hirescam": int(_C.Rule.HIRESCAM),
    "elementwise": int(_C.Rule.ELEMENTWISE),
    "layercam": int(_C.Rule.LAYERCAM),
    "weighted": int(_C.Rule.WEIGHTED),
    "|gradcam|": int(_C.Rule.GRADCAM_MAGNITUDE),
    "|gradcam++|": int(_C.Rule.GRADCAM_PLUS_PLUS_MAGNITUDE),
    "|xgradcam|": int(_C.Rule.XGRADCAM_MAGNITUDE),
    "|hirescam|": int(_C.Rule.HIRESCAM_MAGNITUDE),
    "|weighted|": int(_C.Rule.WEIGHTED_MAGNITUDE),
}
_TERMS_CODES: dict[str, int] = {
    "activation": int(_C.Terms.ACTIVATION),
    "product": int(_C.Terms.PRODUCT),
    "positive_product": int(_C.Terms.POSITIVE_PRODUCT),
    "positive_gradient": int(_C.Terms.POSITIVE_GRADIENT),
    "gradient_magnitude": int(_C.Terms.GRADIENT_MAGNITUDE),
    "weighted": int(_C.Terms.WEIGHTED),
}
_PANEL_CODES: dict[str, int] = {
    "source": int(_C.Panel.SOURCE),
    "layer": int(_C.Panel.LAYER),
    "global": int(_C.Panel.GLOBAL),
}
_PIXEL_CODES: dict[str, int] = {
    "rgb24": int(_C.PixelLayout.RGB24),
    "i420": int(_C.PixelLayout.I420),
    "nv12": int(_C.PixelLayout.NV12),
}


def layer_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rules: Sequence[Rule],
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Signed class activation maps of one layer, several rules in one read of the layer.

    Differentiable with respect to ``activations``, ``gradients`` and ``weights`` (the maps are; the
    ranges are not).

    Args:
        activations: ``[B, C, h, w]``, f64, f32, bf16 or f16, any strides (NCHW and channels_last
            are read in place).
        gradients: Of the target score with respect to ``activations``, same shape, dtype and
            device. ``None`` only if every rule is ``"weighted"``.
        rules: One map per rule, in this order.
        weights: ``[B, C]``, same dtype as ``activations``; given if and only if ``rules`` holds
            ``"weighted"``.

    Returns:
        ``maps`` ``[R, B, h, w]`` and ``ranges`` ``[R, B, 2]``, the minimum and maximum of each map;
        f64 for f64 inputs, else f32. Non-finite values pass through and stay in their sample.

    Raises:
        ValueError: If an argument has the wrong shape, dtype, device or name.
    """
    codes = [_code("rules", rule, _RULE_CODES) for rule in rules]
    maps, ranges = _call(
        torch.ops.camfuse.layer_cam.default, activations, gradients, codes, weights
    )
    return maps, ranges


def fused_cam(
    activations: Tensor,
    gradients: Tensor | None,
    rule: Rule,
    size: tuple[int, int],
    *,
    weights: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    """Finished map of one layer: pooled, weighted, rectified, normalised and upsampled in one call.

    Not differentiable: raises if grad mode is on and an input requires grad.

    Args:
        activations: As for :func:`layer_cam`.
        gradients: As for :func:`layer_cam`.
        rule: The rule.
        size: ``(H, W)`` of the result; bilinear, half-pixel centres, no antialias.
        weights: As for :func:`layer_cam`.
        relu: Whether negative values become 0 before the normalisation to the map's own range.

    Returns:
        ``[B, H, W]`` in [0, 1]; constant maps become 0. f64 for f64 inputs, else f32.
    """
    code = _code("rule", rule, _RULE_CODES)
    result: Tensor = _call(
        torch.ops.camfuse.fused_cam.default,
        activations,
        gradients,
        code,
        list(size),
        weights,
        relu,
    )
    return result


def principal_map(
    activations: Tensor,
    gradients: Tensor | None = None,
    terms: Terms = "activation",
    *,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Projection of a layer onto its first principal component, as of EigenCAM.

    The positions of a sample are the rows of a matrix, its channels the columns, and ``terms`` says
    what each element is. The map is that matrix, less the mean of each column, times its first
    right singular vector. It has the sign that makes it agree with the rows' energy (squared norm):
    their covariance is not negative. Where the largest singular values nearly coincide, the map is
    some combination of their maps.

    Not differentiable: raises if grad mode is on and an input requires grad.

    Args:
        activations: ``A`` ``[B, C, h, w]``, f64, f32, bf16 or f16, any strides (NCHW and
            channels_last are read in place).
        gradients: ``G``, of the target score with respect to ``A``, same shape, dtype and device.
            Given if and only if ``terms`` have a gradient in them.
        terms: ``"activation"`` (``A``), ``"product"`` (``G * A``), ``"positive_product"``
            (``max(G * A, 0)``), ``"positive_gradient"`` (``max(G, 0) * A``),
            ``"gradient_magnitude"`` (``|G| * A``) or ``"weighted"`` (``weights * A``).
        weights: Of the channels, ``[B, C]``, same dtype as ``activations``; given if and only if
            ``terms`` are ``"weighted"``.

    Returns:
        ``maps`` ``[B, h, w]``, ``ranges`` ``[B, 2]``, the minimum and maximum of each map, and
        ``scales`` ``[B]``, the norm of the largest row before the means are taken off: a map far
        below it holds rounding noise alone. f64 for f64 inputs, else f32. A sample with a term that
        is not finite gives NaN, and no other does.

    Raises:
        ValueError: If an argument has the wrong shape, dtype, device or name.
    """
    maps, ranges, scales = _call(
        torch.ops.camfuse.principal_map.default,
        activations,
        gradients,
        _code("terms", terms, _TERMS_CODES),
        weights,
    )
    return maps, ranges, scales


def impute(image: Tensor, masks: Tensor, *, tolerance: float = 5e-4) -> Tensor:
    """Removed pixels filled in from those around them: the linear imputation of ROAD.

    Each removed pixel becomes the mean of its neighbors in the image, 1/6 to each side and 1/12 at
    each corner, renormalized at borders; removed pixels among them are unknowns too. All systems
    are solved at once. An image that is removed whole becomes 0. (Rong et al. 2022, "A Consistent
    and Efficient Evaluation Strategy for Attribution Methods", section 4, whose noise is left to
    the caller.)

    Not differentiable: raises if grad mode is on and the image requires grad.

    Args:
        image: ``[C, H, W]``, f64, f32, bf16 or f16, any strides.
        masks: ``[N, H, W]``, bool, true where a pixel is removed, any strides.
        tolerance: How far pixels may be from the solution, as estimated, in units of the range of
            the pixels that were kept; in (0, 1).

    Returns:
        ``[N, C, H, W]``, dtype of ``image``. Where a pixel that was kept is not finite, all removed
        pixels of that channel become NaN.

    Raises:
        ValueError: If an argument has the wrong shape, dtype, device or value.
        ArithmeticError: If a system was not solved within the bound on iterations.
    """
    given = image.dtype
    if given in (torch.bfloat16, torch.float16):
        image = image.float()
    images, residuals = _call(torch.ops.camfuse.impute.default, image, masks, tolerance)
    worst = float(residuals.max()) if len(residuals) else 0.0
    if not worst <= tolerance:
        raise ArithmeticError(
            f"impute: mask {int(residuals.argmax())} was not solved: expected pixels within "
            f"{tolerance:.1g} of the range, got an estimate of {worst:.1g}"
        )
    imputed: Tensor = images.to(given)
    return imputed


def render_frames(
    maps: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    ranges: Tensor,
    global_ranges: Tensor,
    source: Tensor,
    colours: Tensor,
    panels: Sequence[tuple[PanelKind, int, int, int]],
    canvas: tuple[int, int],
    *,
    background: int = 0,
    blend: float = 0.5,
    relu: bool = True,
    overlay: Tensor | None = None,
    strips: Sequence[tuple[int, int]] = (),
    pixel_format: PixelFormat = "rgb24",
) -> Tensor:
    """Finished video frames from small raw maps, V of them over the same photograph on each frame.

    V > 1 compares methods, targets or models side by side. A map is rectified (if ``relu``),
    upsampled to the panel (bilinear, half-pixel centres), normalised by its own or by its global
    range, clamped to [0, 1], looked up in ``colours`` at the nearest of 256 entries and blended
    over the photograph. Ranges are those of the signed maps; with ``relu`` they are clamped at 0
    first. NaN gives 0, and so does a range that is empty or too narrow for 255 / range to be
    finite.

    All tensors lie on one device, and so do the frames. CUDA gives the bits that the CPU gives.

    Not differentiable: raises if grad mode is on and an input requires grad.

    Args:
        maps: Flat buffer ``[S]``, f32 or f64.
        offsets: N * V offsets into ``maps``, where each map begins; frame by frame.
        sizes: N * V pairs ``(h, w)`` of those maps.
        ranges: ``[N, V, 2]``, each map's minimum and maximum, dtype of ``maps``.
        global_ranges: ``[V, 2]``, V >= 1, each map's range over all layers, dtype of ``maps``.
        source: The photograph at panel size ``[Hp, Wp, 3]``, uint8 RGB.
        colours: Colour table ``[256, 3]``, uint8 RGB.
        panels: ``(kind, map, top, left)`` of each panel on the canvas; each is ``Hp x Wp``. ``map``
            says which of a frame's maps it shows, 0..V-1, and is 0 for a source. Where panels
            overlap, later maps cover earlier ones, and any map the source.
        canvas: ``(H, W)`` of a frame. It, the panels' sides and positions are even for i420, nv12.
        background: Grey level 0..255 where no panel lies.
        blend: Weight of the colour map over the photograph in [0, 1], rounded to 1/256.
        relu: Whether negative evidence becomes 0.
        overlay: Text ``[N, rows, W, 2]``, uint8 (grey, alpha), blended over everything; its rows
            cover the canvas rows that ``strips`` names.
        strips: ``(top, height)`` of the horizontal strips of the canvas that ``overlay`` holds, one
            after another; the heights add up to ``rows``. Even for i420 and nv12.
        pixel_format: ``"rgb24"``, ``"i420"`` (BT.709, limited range, chroma averaged over 2 x 2) or
            ``"nv12"`` (the same values, U and V by turns in one plane ``[H/2, W/2, 2]``).

    Returns:
        ``[N, bytes]``, uint8, bytes = ``3 * H * W`` (rgb24) or ``3 * H * W / 2`` (i420, nv12).

    Raises:
        ValueError: If an argument is not as described; it is named.
    """
    frames: Tensor = _call(
        torch.ops.camfuse.render_frames.default,
        maps,
        list(offsets),
        [side for size in sizes for side in size],
        ranges,
        global_ranges,
        source,
        colours,
        [n for kind, v, y, x in panels for n in (_code("panels", kind, _PANEL_CODES), v, y, x)],
        list(canvas),
        background,
        blend,
        relu,
        overlay,
        [n for strip in strips for n in strip],
        _code("pixel_format", pixel_format, _PIXEL_CODES),
    )
    return frames


def _code(argument: str, name: str, codes: dict[str, int]) -> int:
    try:
        return codes[name]
    except KeyError:
        raise ValueError(f"{argument}: expected one of {', '.join(codes)}, got {name!r}") from None


def _call(op: Callable[..., Any], *args: object) -> _Result:
    """Calls a native op, past the Python half of its autograd formula where nothing needs it."""
    if torch.compiler.is_compiling() or (
        torch.is_grad_enabled()
        and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
    ):
        return op(*args)
    try:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)
    except NotImplementedError:  # torch's is a page about its dispatcher
        for arg in args:
            if isinstance(arg, Tensor):
                check_device("tensors", arg.device, op.name().removeprefix("camfuse::"))  # type: ignore[attr-defined]
        raise
    except RuntimeError as error:  # torch's stable ABI knows no other kind
        if type(error) is RuntimeError and "out of memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from None
        raise


def _map_dtype(activations: Tensor) -> torch.dtype:
    return torch.float64 if activations.dtype == torch.float64 else torch.float32


def _check_devices(**tensors: Tensor | None) -> None:
    """Mixed devices reach the fake kernels when one of them is ``meta``."""
    (first, expected), *others = ((name, x.device) for name, x in tensors.items() if x is not None)
    for name, device in others:
        if device != expected:
            raise ValueError(
                f"{name} must be on the device of {first}: expected {expected}, got {device}"
            )


def _layer_cam_fake(
    activations: Tensor,
    gradients: Tensor | None,
    rules: Sequence[int],
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    _check_devices(activations=activations, gradients=gradients, weights=weights)
    B, _, h, w = activations.shape
    dtype = _map_dtype(activations)
    return (
        activations.new_empty((len(rules), B, h, w), dtype=dtype),
        activations.new_empty((len(rules), B, 2), dtype=dtype),
    )


def _fused_cam_fake(
    activations: Tensor,
    gradients: Tensor | None,
    rule: int,
    size: Sequence[int],
    weights: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    _check_devices(activations=activations, gradients=gradients, weights=weights)
    H, W = size
    return activations.new_empty((activations.shape[0], H, W), dtype=_map_dtype(activations))


def _principal_map_fake(
    activations: Tensor,
    gradients: Tensor | None,
    terms: int,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_devices(activations=activations, gradients=gradients, weights=weights)
    B, _, h, w = activations.shape
    dtype = _map_dtype(activations)
    return (
        activations.new_empty((B, h, w), dtype=dtype),
        activations.new_empty((B, 2), dtype=dtype),
        activations.new_empty((B,), dtype=dtype),
    )


def _impute_fake(image: Tensor, masks: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    _check_devices(image=image, masks=masks)
    return (
        image.new_empty((masks.shape[0], *image.shape)),
        image.new_empty((masks.shape[0],), dtype=torch.float64),
    )


def _render_frames_fake(
    maps: Tensor,
    offsets: Sequence[int],
    sizes: Sequence[int],
    ranges: Tensor,
    global_ranges: Tensor,
    source: Tensor,
    colours: Tensor,
    panels: Sequence[int],
    canvas: Sequence[int],
    background: int,
    blend: float,
    relu: bool,
    overlay: Tensor | None,
    strips: Sequence[int],
    pixel_layout: int,
) -> Tensor:
    _check_devices(
        maps=maps,
        global_ranges=global_ranges,
        ranges=ranges,
        source=source,
        colours=colours,
        overlay=overlay,
    )
    H, W = canvas
    size = 3 * H * W if pixel_layout == _PIXEL_CODES["rgb24"] else 3 * H * W // 2
    return source.new_empty((ranges.shape[0], size))


def _layer_cam_setup(ctx: _Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    activations, gradients, ctx.rules, weights = inputs
    ctx.save_for_backward(activations, gradients, weights)
    ctx.mark_non_differentiable(output[1])


def _layer_cam_backward(ctx: _Context, grad_maps: Tensor, _grad_ranges: Tensor) -> tuple[Any, ...]:
    """Computes the maps again in plain PyTorch and differentiates that, so any order works."""
    A, G, weights = ctx.saved_tensors
    # Trailing arguments left at their default are not listed.
    needs_a, needs_g, _, needs_w = (*ctx.needs_input_grad, False)[:4]
    needs = (needs_a, needs_g, needs_w)
    rules = [RULES[code] for code in ctx.rules]
    # Plane sums need f64, see reference.py; the sums over channels do not.
    exact = any(rule in ("gradcam++", "xgradcam") for rule in rules)
    dtype = torch.float64 if exact else grad_maps.dtype
    again = torch.is_grad_enabled()

    def node(x: Tensor | None, need: bool) -> Tensor | None:
        """A stand-in for ``x``: only what lies between it and the maps is differentiated."""
        if x is None or (again and x.requires_grad):
            return None if x is None else x.view_as(x)
        return x.detach().requires_grad_(need)

    with torch.enable_grad():
        nodes = [node(x, need) for x, need in zip((A, G, weights), needs, strict=True)]
        a, g, w = (None if x is None else x.to(dtype) for x in nodes)
        assert a is not None
        maps, _ = reference.layer_cam(a, g, rules, weights=w)
        if not maps.requires_grad:  # nothing that needs a gradient is read by these rules
            return None, None, None, None
        wanted = [x for x, need in zip(nodes, needs, strict=True) if need and x is not None]
        grads = iter(
            torch.autograd.grad(
                maps, wanted, grad_maps.to(dtype), create_graph=again, allow_unused=True
            )
        )
    grad_a, grad_g, grad_w = (next(grads) if need else None for need in needs)
    return grad_a, grad_g, None, grad_w


def _refuse_autograd(op: str, name: str) -> None:
    """Makes ``op`` raise where a gradient through it would be asked for."""

    def setup_context(ctx: _Context, inputs: tuple[Any, ...], output: _Result) -> None:
        raise RuntimeError(
            f"{name} is not differentiable: call it under torch.no_grad() or on detached tensors"
        )

    def backward(ctx: _Context, *grads: Tensor) -> None:
        raise AssertionError("setup_context always raises")

    torch.library.register_autograd(op, backward, setup_context=setup_context)


torch.library.register_fake("camfuse::layer_cam", _layer_cam_fake)
torch.library.register_fake("camfuse::fused_cam", _fused_cam_fake)
torch.library.register_fake("camfuse::principal_map", _principal_map_fake)
torch.library.register_fake("camfuse::impute", _impute_fake)
torch.library.register_fake("camfuse::render_frames", _render_frames_fake)
torch.library.register_autograd(
    "camfuse::layer_cam", _layer_cam_backward, setup_context=_layer_cam_setup
)
_refuse_autograd("camfuse::fused_cam", "fused_cam")
_refuse_autograd("camfuse::principal_map", "principal_map")
_refuse_autograd("camfuse::impute", "impute")
_refuse_autograd("camfuse::render_frames", "render_frames")
