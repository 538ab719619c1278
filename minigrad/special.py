"""Special functions that NumPy lacks, vectorized for any array library.

erf and erfc use the rational approximations of W. J. Cody, "Rational Chebyshev approximations for
the error function", Math. Comp. 23(107), 1969, 631-637: three intervals of |x|, each to 1e-18.
In float32 one polynomial serves all of erfc. Large NumPy arrays are computed block by block.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

# Coefficients from the highest power down. erf(x) = x * A(x^2)/B(x^2) for |x| <= 0.46875.
_A = (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
      3.77485237685302021e2, 3.20937758913846947e3)  # fmt: skip
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2,
      1.28261652607737228e3, 2.84423683343917062e3)  # fmt: skip
# erfc(x) = exp(-x^2) * C(x)/D(x) for 0.46875 <= x <= 4.
_C = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
      6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
      1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
_D = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
      1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
      3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip
# erfc(x) = exp(-x^2)/x * (1/sqrt(pi) - P(1/x^2)/Q(1/x^2)/x^2) for x >= 4.
_P = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
      1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
_Q = (1.0, 2.56852019228982242e0, 1.87295284992346725e0,
      5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3)  # fmt: skip
_INV_SQRT_PI = 0.5641895835477562869
# erfc(x) = exp(-x^2) * t * E(t) with t = 1 / (1 + x/2), for 0 <= x <= 10.2: the polynomial E with
# the smallest maximum relative error, 4.4e-8
ERFC_32 = (-0.059121132099, 0.284831493, -0.48773537043, 0.27868486038, -0.027054783657,
           0.20286996797, 0.24305710063, 0.28238177493, 0.28208604622)  # fmt: skip
BLOCK = 16384  # elements that stay in the first-level cache from one pass to the next


def _in_blocks(function: Callable) -> Callable:
    """Apply the elementwise ``function(xp, x)`` to a NumPy array in blocks that stay in cache."""

    @functools.wraps(function)
    def run(xp: Any, x: Any) -> Any:
        if xp is not np or x.size <= BLOCK:
            return function(xp, x)
        with np.nditer(
            [x, None],
            ["external_loop", "buffered"],
            [["readonly"], ["writeonly", "allocate"]],
            op_dtypes=[x.dtype, x.dtype],
            buffersize=BLOCK,
        ) as blocks:
            for x_block, y_block in blocks:
                y_block[...] = function(xp, x_block)
            return blocks.operands[1]

    return run


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    total = coefficients[0] * x + coefficients[1]
    for c in coefficients[2:]:
        total *= x
        total += c
    return total


def _wide(xp: Any, x: Any) -> Any:
    """``x``; float16, which would overflow in the polynomials, is cast to float32."""
    return x.astype(xp.float32) if x.dtype.itemsize < 4 else x


def _small(x: Any) -> Any:
    """erf(x) for |x| <= 0.46875."""
    return x * (_polynomial(_A, x * x) / _polynomial(_B, x * x))


def _tail(xp: Any, a: Any) -> Any:
    """erfc(a) for a >= 0.46875; for a >= 0 in float32."""
    # The rounding error of a^2 would become a relative error of exp(-a^2), so it is corrected to
    # first order. head has so few digits that head^2 is exact; a^2 = head^2 + (a-head)(a+head).
    head, square = xp.trunc(a * 256) / 256, a * a
    rounding_error = head * head - square + (a - head) * (a + head)  # a^2 - square
    gauss = xp.exp(-square) * (1 - rounding_error)
    if a.dtype == np.float32:
        return gauss * _ratio(a)
    middle = xp.minimum(a, 4.0)
    near = _polynomial(_C, middle) / _polynomial(_D, middle)
    if xp is np and (a <= 4.0).all():
        return gauss * near
    large = xp.maximum(a, 4.0)
    z = 1 / (large * large)
    far = (_INV_SQRT_PI - z * (_polynomial(_P, z) / _polynomial(_Q, z))) / large
    return gauss * xp.where(a <= 4.0, near, far)


def _ratio(a: Any) -> Any:
    """``erfc(a) / e^(-a^2)`` for float32, 0 <= a <= 10.2."""
    t = 1 / (1 + 0.5 * a)
    return t * _polynomial(ERFC_32, t)


@_in_blocks
def erf(xp: Any, x: Any) -> Any:
    """Error function of ``x`` (any shape), in the dtype of ``x``."""
    dtype, x = x.dtype, _wide(xp, x)
    a = xp.abs(x)
    inner = _small(xp.minimum(a, 0.46875))
    outer = 1 - _tail(xp, xp.clip(a, 0.46875, 30.0))
    return (xp.where(a <= 0.46875, inner, outer) * xp.sign(x)).astype(dtype)


@_in_blocks
def erfc(xp: Any, x: Any) -> Any:
    """``1 - erf(x)`` of ``x`` (any shape) without cancellation, in the dtype of ``x``."""
    dtype, x = x.dtype, _wide(xp, x)
    a = xp.abs(x)
    if x.dtype == np.float32:
        return xp.abs((x < 0) * x.dtype.type(2) - _tail(xp, xp.minimum(a, 30.0))).astype(dtype)
    inner = 1 - _small(xp.clip(x, -0.46875, 0.46875))
    tail = _tail(xp, xp.clip(a, 0.46875, 30.0))
    outer = xp.where(x > 0, tail, 2 - tail)
    return xp.where(a <= 0.46875, inner, outer).astype(dtype)


def normal(xp: Any, x: Any) -> tuple[Any, Any]:
    """The standard normal CDF at ``x``, and ``e^(-x^2/2)``, in the dtype of ``x``."""
    dtype, x = x.dtype, _wide(xp, x)
    gauss = xp.exp(-0.5 * x * x)
    if x.dtype == np.float32:
        tail = 0.5 * gauss * _ratio(xp.abs(x) * 0.5**0.5)
        below = xp.abs((x > 0) - tail)
    else:
        below = 0.5 * erfc(xp, x * -(0.5**0.5))
    return below.astype(dtype), gauss.astype(dtype)
