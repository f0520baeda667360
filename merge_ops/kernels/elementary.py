"""exp, log, tanh, sin, cos and acos in float64, with the same bits on every processor and device.

Those of libm, numpy and torch differ in the last bit with the instructions a processor has, and one
such bit can become another file. These are made of +, −, ×, ÷ and square roots, which round alike
everywhere, one operation at a time, so that nothing is fused. Their error is below two units in the
last place. Polynomials and constants are those of FreeBSD's msun (fdlibm) and, for tanh, of Cephes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Angles = NDArray[np.float64]

Numbers = TypeVar("Numbers", "Tensor", "NDArray[np.float64]")

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
_EXP = (
    1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
    -1.65339022054652515390e-06, 4.13813679705723846039e-08,
)  # fmt: skip
_LOG = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
    1.479819860511658591e-01,
)  # fmt: skip
_SIN = (
    -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
    2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
)  # fmt: skip
_COS = (
    4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
    -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
)  # fmt: skip
_ACOS_ABOVE = (
    1.66666666666666657415e-01, -3.25565818622400915405e-01, 2.01212532134862925881e-01,
    -4.00555345006794114027e-02, 7.91534994289814532176e-04, 3.47933107596021167570e-05,
)  # fmt: skip
_ACOS_BELOW = (
    1.0, -2.40339491173441421878e00, 2.02094576023350569471e00, -6.88283971605453293030e-01,
    7.70381505559019352791e-02,
)  # fmt: skip
_TANH_ABOVE = (-1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1)
_TANH_BELOW = (4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2, 1.0)


def _polynomial(x: Numbers, factors: Sequence[float]) -> Numbers:
    """factors[0] + factors[1] x + factors[2] x² + …, by Horner's rule."""
    value = x * factors[-1]
    for factor in reversed(factors[1:-1]):
        value += factor
        value *= x
    value += factors[0]
    return value


def exponential(x: Tensor) -> Tensor:
    """eˣ of float64 of any shape; 0 below −700, where it would be no normal number."""
    import torch

    halvings = (x * 1.4426950408889634).round().clamp(-1021, 1023)
    high = x - halvings * _LN2_HIGH
    low = halvings * _LN2_LOW
    rest = high - low
    square = rest * rest
    ratio = rest - square * _polynomial(square, _EXP)
    value = 1.0 - ((low - rest * ratio / (2.0 - ratio)) - high)
    power = ((halvings.to(torch.int64) + 1023) << 52).view(torch.float64)
    return torch.where(x < -700, torch.zeros_like(x), value * power)


def logarithm(x: Tensor) -> Tensor:
    """ln x of positive normal float64 of any shape."""
    import torch

    bits = x.view(torch.int64)
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & ((1 << 52) - 1)) | (1023 << 52)).view(torch.float64)  # in [1, 2)
    large = mantissa > 1.4142135623730951
    mantissa = torch.where(large, mantissa * 0.5, mantissa)
    power = (exponent + large).to(torch.float64)
    f = mantissa - 1.0
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    series = z * _polynomial(z, _LOG)
    return power * _LN2_HIGH - ((half - (s * (half + series) + power * _LN2_LOW)) - f)


def hyperbolic_tangent(x: Tensor) -> Tensor:
    """tanh x of float64 of any shape."""
    import torch

    square = x * x
    near = square * _polynomial(square, _TANH_ABOVE) / _polynomial(square, _TANH_BELOW) * x + x
    magnitude = x.abs().clamp_max(20.0)  # beyond it tanh is 1
    far = 1.0 - 2.0 / (exponential(magnitude * 2.0) + 1.0)
    return torch.where(x.abs() < 0.625, near, torch.copysign(far, x))


def sines_and_cosines(x: Angles) -> tuple[Angles, Angles]:
    """sin x and cos x of float64 of any shape; exact to the last place or two for |x| < 10⁵."""
    quarters = np.rint(x * 0.6366197723675814)
    rest = x - quarters * _HALF_PI[0]
    for part in _HALF_PI[1:]:
        rest = rest - quarters * part
    square = rest * rest
    sine = rest + rest * (square * _polynomial(square, _SIN))
    cosine = 1.0 - (square * 0.5 - square * (square * _polynomial(square, _COS)))
    turn = np.mod(quarters, 4.0)
    odd = (turn == 1) | (turn == 3)
    sines, cosines = np.where(odd, cosine, sine), np.where(odd, sine, cosine)
    return (
        np.where(turn >= 2, -sines, sines),
        np.where((turn == 1) | (turn == 2), -cosines, cosines),
    )


def sine(x: float) -> float:
    """sin x of one number."""
    return float(sines_and_cosines(np.array([x]))[0][0])


def cosine(x: float) -> float:
    """cos x of one number."""
    return float(sines_and_cosines(np.array([x]))[1][0])


def arc_cosines(x: Angles) -> Angles:
    """acos x of float64 in [−1, 1], of any shape."""
    magnitude = np.abs(x)
    # acos x = 2 asin √((1 − x) / 2), and π / 2 − asin x near zero.
    far = magnitude >= 0.5
    square = np.where(far, (1.0 - magnitude) * 0.5, x * x)
    root = np.where(far, np.sqrt(square), x)
    ratio = square * _polynomial(square, _ACOS_ABOVE) / _polynomial(square, _ACOS_BELOW)
    arc = root + root * ratio
    half_pi, pi = 1.5707963267948966, 3.141592653589793
    beyond = np.where(x < 0, pi - (2.0 * arc - 1.2246467991473532e-16), 2.0 * arc)
    return np.where(far, beyond, half_pi - (arc - 6.123233995736766e-17))


def arc_cosine(x: float) -> float:
    """acos x of one number in [−1, 1]."""
    return float(arc_cosines(np.array([x]))[0])
