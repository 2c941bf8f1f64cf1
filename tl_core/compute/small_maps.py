"""Convolutions on small maps as matrix products, where a CPU's convolution kernels are slow.

On maps of a few positions the vendor's kernels reach a tenth of the speed of a matrix product, most of all for the
gradient of the weights (docs/experiments.md). There the patches are laid out as the rows of a matrix ("im2col",
Chellapilla et al., 2006), once, for the forward pass and for the gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MAX_POSITIONS = {torch.bfloat16: 64, torch.float32: 16}
"""Height times width of the output map up to which the matrix product wins, by what is multiplied."""


class matrix_convolutions(TorchFunctionMode):  # noqa: N801 - a context manager, used like torch.no_grad
    """Context in which 2-d convolutions to small maps on the CPU are matrix products; all others stay as they are.

    The results are those of `torch.nn.functional.conv2d` up to rounding. Modules need not know.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Intercept `torch.conv2d`, which is what `nn.Conv2d` calls."""
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(  # noqa: PLR0917 - the signature of torch.conv2d
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    plain = isinstance(padding, str) or groups != 1 or _pair(dilation) != (1, 1) or images.ndim != 4
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    if plain or images.device.type != "cpu" or not _pays(images, weight, _pair(stride), _pair(padding), dtype):
        return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled("cpu"):
        images, weight = images.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    maps: Tensor = _MatrixConvolution.apply(images, weight, _pair(stride), _pair(padding))
    return maps if bias is None else maps + bias[:, None, None]


def _pays(
    images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], dtype: torch.dtype
) -> bool:
    height, width = _output_size(images, weight, stride, padding)
    return weight.shape[2] * weight.shape[3] > 1 and 0 < height * width <= MAX_POSITIONS.get(dtype, 0)


class _MatrixConvolution(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        """(n, c, h, w) and (k, c, i, j) to (n, k, h', w'), channels last in memory."""
        patches = _patches(images, weight.shape[2:], stride, padding)
        height, width = _output_size(images, weight, stride, padding)
        ctx.save_for_backward(patches, weight)
        ctx.geometry = (images.shape, stride, padding)
        return _as_maps(patches @ _as_matrix(weight).T, len(images), height, width)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of the images and the weights."""
        patches, weight = ctx.saved_tensors
        shape, stride, padding = ctx.geometry
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, len(weight))
        of_images = of_weight = None
        if ctx.needs_input_grad[1]:
            k, c, i, j = weight.shape
            # A left factor that lies turned in memory costs a product half its speed; turning it costs less.
            of_weight = (rows.T.contiguous() @ patches).view(k, i, j, c).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            of_images = _image_gradient(gradient, rows, weight, shape, stride, padding)
        return of_images, of_weight, None, None


def _image_gradient(
    gradient: Tensor, rows: Tensor, weight: Tensor, shape: Any, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    n, channels, height, width = shape
    i, j = weight.shape[2:]
    if stride == (1, 1) and padding[0] < i and padding[1] < j:
        # Again a convolution, with the kernel turned round and its two channel axes swapped. The axis that lies last in
        # memory is the matrix's last one: a copy across memory took as long as the product.
        turned = weight.permute(2, 3, 0, 1).contiguous().flip(0, 1).view(-1, channels)
        patches = _patches(gradient, (i, j), stride, (i - 1 - padding[0], j - 1 - padding[1]))
        return _as_maps(patches @ turned, n, height, width)
    out_height, out_width = gradient.shape[2:]
    parts = (rows @ _as_matrix(weight)).view(n, out_height, out_width, i, j, channels)
    padded = parts.new_zeros(n, height + 2 * padding[0], width + 2 * padding[1], channels)
    for a in range(i):
        for b in range(j):
            padded[:, a : a + stride[0] * out_height : stride[0], b : b + stride[1] * out_width : stride[1]][
                :, :out_height, :out_width
            ] += parts[:, :, :, a, b]
    inner = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inner.permute(0, 3, 1, 2)


def _patches(images: Tensor, kernel: Any, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """(n, c, h, w) to (n * h' * w', i * j * c): one row per output position."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(1, kernel[0], stride[0]).unfold(2, kernel[1], stride[1])  # n, h', w', c, i, j
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


def _as_matrix(weight: Tensor) -> Tensor:
    """(k, c, i, j) to (k, i * j * c)."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _as_maps(rows: Tensor, n: int, height: int, width: int) -> Tensor:
    """(n * h * w, k) to (n, k, h, w), channels last in memory."""
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


def _output_size(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        (images.shape[axis + 2] + 2 * padding[axis] - weight.shape[axis + 2]) // stride[axis] + 1 for axis in (0, 1)
    )
    return height, width


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[-1])
