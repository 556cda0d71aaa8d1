"""The kernels' sigmoid, tanh and what an sLSTM needs against exact ones, on every instruction set of the machine."""

import mpmath
import numpy as np
import pytest

from gatewise import kernels
from gatewise.errors import DtypeError

ULP = {"sigmoid": 2.5, "tanh": 2.5, "exp_of_negative": 1.5, "log_sigmoid": 4}  # what csrc/math.hpp states
every_function = pytest.mark.parametrize("name", ULP)


def in_domain(name: str, x: np.ndarray) -> np.ndarray:
    return -np.abs(x) if name == "exp_of_negative" else x


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """Compute in float64 with a relative error far below a float32's ulp, near 0 and in the tails too."""
    x = x.astype(np.float64)
    if name == "tanh":
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    if name == "exp_of_negative":
        return e
    if name == "log_sigmoid":
        return np.minimum(x, 0) - np.log1p(e)
    return np.where(x < 0, e, 1) / (1 + e)


def ulps(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Measure |got - expected| in units of the spacing of got's type at expected."""
    spacing = np.spacing(np.abs(expected).astype(got.dtype)).astype(expected.dtype)
    return np.abs(got.astype(expected.dtype) - expected) / spacing


@pytest.mark.parametrize("isa", kernels.available())
@every_function
def test_float32_sweep(isa, name):
    # Every 499th of all finite floats of both signs (8.6 million; 499 is prime to the powers of two that a pattern in
    # the bits would follow), and all of the ones next to where the formulas change.
    bits = np.arange(0, 0x7F800000, 499, dtype=np.uint32)
    x = np.concatenate([bits, bits | np.uint32(0x80000000)]).view(np.float32)
    edges = np.float32([0, 0.34657, 0.6931472, 8.664, 9.0109, 20, 40, 52, 87.33655, 88.72284, 103.27893, 104, 3.4e38])
    around = edges.view(np.uint32)[:, None].astype(np.int64) + np.arange(-200, 201)
    around = np.clip(around, 0, 0x7F7FFFFF).astype(np.uint32).ravel().view(np.float32)
    x = in_domain(name, np.concatenate([x, around, -around]))
    with kernels.using(isa):
        got = getattr(kernels, name)(x)
    error = ulps(got, exact(name, x))
    worst = int(np.argmax(error))
    assert error[worst] <= ULP[name], f"{name}({x[worst]!r}) = {got[worst]!r} is {error[worst]:.2f} ulp off"


@pytest.mark.parametrize("isa", kernels.available())
@every_function
def test_float64_sample(isa, name):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 1, 500), rng.normal(0, 10, 500), rng.uniform(-746, 746, 300)])
    x = in_domain(name, np.concatenate([x, rng.uniform(-1, 1, 300) * 10.0 ** rng.uniform(-320, 0, 300)]))
    with kernels.using(isa):
        got = getattr(kernels, name)(x)
    with mpmath.workprec(200):
        one = mpmath.mpf(1)
        f = {
            "sigmoid": lambda v: one / (one + mpmath.exp(-v)),
            "tanh": mpmath.tanh,
            "exp_of_negative": mpmath.exp,
            "log_sigmoid": lambda v: -mpmath.log1p(mpmath.exp(-v)),
        }[name]
        values = [f(mpmath.mpf(float(v))) for v in x]
        error = [
            float(abs(mpmath.mpf(float(g)) - v) / mpmath.mpf(float(np.spacing(abs(float(v))))))
            for g, v in zip(got, values, strict=True)
        ]
    worst = int(np.argmax(error))
    assert error[worst] <= ULP[name], f"{name}({x[worst]!r}) = {got[worst]!r} is {error[worst]:.2f} ulp off"


@pytest.mark.parametrize("isa", kernels.available())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(isa, dtype):
    # More numbers than lanes, so that NaN and infinity meet ordinary neighbours in a vector.
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, np.nan, -1.0, 2.0] * 3, dtype)
    with kernels.using(isa):
        s, t = kernels.sigmoid(x), kernels.tanh(x)
    assert np.isnan(s[0]) and np.isnan(t[0])
    assert np.isnan(s).sum() == np.isnan(t).sum() == 6
    assert (s[1], s[2], s[3], s[4]) == (1, 0, 0.5, 0.5)
    assert (t[1], t[2], t[3], t[4]) == (1, -1, 0, 0)
    assert not np.signbit(t[3]) and np.signbit(t[4])


def test_twice_sigmoid_would_lose_tanh_near_zero():
    """Why tanh is not 2 sigmoid(2x) - 1, as docs/equations.md says."""
    x = np.float32([1e-6])
    cheap = 2 * kernels.sigmoid(2 * x) - 1
    assert ulps(cheap, exact("tanh", x))[0] > 1e5
    assert ulps(kernels.tanh(x), exact("tanh", x))[0] <= ULP["tanh"]


def test_other_dtypes_are_refused():
    with pytest.raises(DtypeError, match="needed float32 or float64"):
        kernels.tanh(np.zeros(3, np.float16))
