"""Batch norm and its backward pass, derived by hand."""

from typing import Any


def batch_norm(
    xp: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    mean: Any = None,
    var: Any = None,
    axis: Any = None,
    eps: Any = 1e-5,
) -> Any:
    """``y = gamma * x_hat + beta`` with ``x_hat = (x - mu) * inv_std``.

    Args:
        xp: the array module, ``numpy`` or ``cupy``.
        x: (N, C) or (N, C, ...).
        gamma, beta: (C,), aligned with axis 1.
        mean, var: (C,) for evaluation; None means those of ``x``, the variance with divisor N.
        axis: the axes to average over; None means every axis but 1.
        eps: added to the variance.

    Returns:
        An array of the shape of ``x``.
    """
    x_hat, _, _ = _normalized(xp, x, mean, var, axis, eps)
    return _channels(gamma, x) * x_hat + _channels(beta, x)


def batch_norm_vjp(
    xp: Any,
    y_bar: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    mean: Any = None,
    var: Any = None,
    axis: Any = None,
    eps: Any = 1e-5,
) -> tuple[Any, Any, Any]:
    r"""The cotangents of ``x``, ``gamma`` and ``beta``.

    Derivation, for the N values that share one mean, with sums over those N:

    1. ``y_i = gamma x_hat_i + beta`` is affine, so
       ``beta_bar = sum_i y_bar_i``, ``gamma_bar = sum_i y_bar_i x_hat_i``, ``g_i = gamma y_bar_i``
       where g is the cotangent of x_hat.
    2. ``x_hat_i = xc_i r`` with ``xc_i = x_i - mu`` and ``r = inv_std = (var + eps)^(-1/2)`` has
       the differential ``dx_hat_i = r dxc_i + xc_i dr``.
    3. ``dr = -1/2 (var + eps)^(-3/2) dvar = -1/2 r^3 dvar``, and
       ``dvar = 2/N sum_j xc_j dxc_j``; hence ``dr = -r^3/N sum_j xc_j dxc_j`` and, with
       ``xc = x_hat / r``, ``dx_hat_i = r (dxc_i - x_hat_i/N sum_j x_hat_j dxc_j)``.
    4. ``dxc_i = dx_i - 1/N sum_k dx_k``. Since ``sum_j x_hat_j = 0`` the mean drops out of the
       inner sum: ``sum_j x_hat_j dxc_j = sum_j x_hat_j dx_j``. Therefore
       ``dx_hat_i = r (dx_i - 1/N sum_k dx_k - x_hat_i/N sum_j x_hat_j dx_j)``.
    5. The matrix of that map, ``r (I - 1 1^T/N - x_hat x_hat^T/N)``, is symmetric, so its transpose
       pulls g back in the same form:

       ``x_bar = r (g - mean(g) - x_hat mean(g x_hat))``.

    The three terms are the direct path, the mean path and the variance path. Subtracting the mean
    path removes the part of g that is constant over the batch, so ``sum x_bar = 0``. Subtracting
    the variance path removes the part along x_hat, except for a remainder that vanishes with eps:
    ``sum x_bar x_hat = r sum(g x_hat) eps/(var + eps)``.

    If mean and var are given (evaluation), mu and r are constants and ``x_bar = r g``.

    Args:
        xp: the array module, ``numpy`` or ``cupy``.
        y_bar: the cotangent of the output, of the shape of ``x``.
        x, gamma, beta, mean, var, axis, eps: as in ``batch_norm``.

    Returns:
        ``(x_bar, gamma_bar, beta_bar)``, of the shapes of x, gamma and beta.
    """
    x_hat, inv_std, axes = _normalized(xp, x, mean, var, axis, eps)
    all_but_channels = tuple(i for i in range(x.ndim) if i != 1)
    beta_bar = y_bar.sum(axis=all_but_channels)
    gamma_bar = (y_bar * x_hat).sum(axis=all_but_channels)
    g = y_bar * _channels(gamma, x)
    if mean is not None:
        return g * inv_std, gamma_bar, beta_bar
    mean_path = g.mean(axis=axes, keepdims=True)
    variance_path = x_hat * (g * x_hat).mean(axis=axes, keepdims=True)
    return (g - mean_path - variance_path) * inv_std, gamma_bar, beta_bar


def _normalized(xp: Any, x: Any, mean: Any, var: Any, axis: Any, eps: float) -> tuple:
    """x_hat, inv_std and the averaged axes."""
    axes = tuple(i for i in range(x.ndim) if i != 1) if axis is None else axis
    if mean is None:
        xc = x - x.mean(axis=axes, keepdims=True)
        variance = (xc * xc).mean(axis=axes, keepdims=True)
    else:
        xc = x - _channels(mean, x)
        variance = _channels(var, x)
    inv_std = 1 / xp.sqrt(variance + eps)
    return xc * inv_std, inv_std, axes


def _channels(parameter: Any, x: Any) -> Any:
    """(C,) -> (1, C, 1, ...), aligned with axis 1 of x."""
    return parameter.reshape((1, -1) + (1,) * (x.ndim - 2))
