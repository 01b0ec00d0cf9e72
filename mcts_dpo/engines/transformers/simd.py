"""Vectors of sixteen float32 as values of compiled loops: each function is one or few SIMD instructions.

Numba leaves it to the optimiser whether a loop becomes vector instructions, and often it does not (arrays that might
overlap, sums kept in memory). These functions ask for vectors explicitly, on any CPU: LLVM splits sixteen elements into
the vectors that the CPU has. Each function, and +, - and * between vectors, is plain numpy in Python; numba replaces it
when it compiles the caller. A product and a sum may be rounded once; sums may be taken in any order, the same at every
call. Bounds are not checked.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, overload, register_model

WIDTH = 16
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS, _HALVES = (ir.VectorType(kind, WIDTH) for kind in (_FLOAT, _INT, ir.IntType(16)))
# As in kernels.py: NaN and infinity keep their meaning.
_FAST = ("reassoc", "contract", "nsz", "arcp")
# 2**f on [0, 1) as a polynomial in f, highest power first: relative error below 3e-7.
_POWERS = (1.8775767e-3, 8.9893397e-3, 5.5826318e-2, 2.4015361e-1, 6.9315308e-1, 1.0)


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("Vector16")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def load(array: Any, start: Any) -> Any:
    """array[start : start + 16] of a one-dimensional array of float32, or of uint16 that are the bits of bfloat16."""
    taken = array[start : start + WIDTH]
    return (taken.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else taken.copy()


def store(array: Any, start: Any, vector: Any) -> None:
    """array[start : start + 16] = vector, a one-dimensional array of float32."""
    array[start : start + WIDTH] = vector


def splat(value: Any) -> Any:
    """The float32 `value` in every element."""
    return np.full(WIDTH, value, np.float32)


def larger(a: Any, b: Any) -> Any:
    """a where a > b, else b: with NaN on one side, b."""
    return np.where(a > b, a, b)


def total(a: Any) -> Any:
    """The sum of the elements, float32."""
    return a.sum(dtype=np.float32)


def largest(a: Any) -> Any:
    """The largest element; none is NaN."""
    return a.max()


def power_of_two(a: Any) -> Any:
    """2**a for a ≤ 0; exactly 1 at 0, exactly 0 from -127 down; NaN stays NaN."""
    a = np.where(a < -127, np.float32(-127), a)
    whole = np.floor(a)
    part = a - whole
    power = np.full(WIDTH, _POWERS[0], np.float32)
    for factor in _POWERS[1:]:
        power = power * part + np.float32(factor)
    # Adding 2**23 leaves the whole number in the lowest bits, which are moved to where the exponent is.
    scale = (whole + np.float32(2**23 + 127)).view(np.int32) << 23
    return scale.view(np.float32) * power


def _pointer(context: Any, builder: Any, array: Any, vector: ir.VectorType, value: Any, start: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [start]), vector.as_pointer())


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * WIDTH)


@intrinsic
def _load(typing: Any, array: Any, start: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if array.dtype != types.uint16:
            return builder.load(_pointer(context, builder, array, _FLOATS, *arguments), align=4)
        halves = builder.load(_pointer(context, builder, array, _HALVES, *arguments), align=2)
        bits = builder.shl(builder.zext(halves, _INTS), ir.Constant(_INTS, [16] * WIDTH))
        return builder.bitcast(bits, _FLOATS)

    return _vector(array, types.intp), code


@intrinsic
def _store(typing: Any, array: Any, start: Any, vector: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, array, _FLOATS, *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), code


@intrinsic
def _splat(typing: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_FLOATS, ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(first, nothing, ir.Constant(_INTS, [0] * WIDTH))

    return _vector(types.float32), code


@intrinsic
def _add(typing: Any, a: Any, b: Any) -> Any:
    return _vector(a, b), lambda context, builder, signature, arguments: builder.fadd(*arguments, flags=_FAST)


@intrinsic
def _subtract(typing: Any, a: Any, b: Any) -> Any:
    return _vector(a, b), lambda context, builder, signature, arguments: builder.fsub(*arguments, flags=_FAST)


@intrinsic
def _multiply(typing: Any, a: Any, b: Any) -> Any:
    return _vector(a, b), lambda context, builder, signature, arguments: builder.fmul(*arguments, flags=_FAST)


@intrinsic
def _larger(typing: Any, a: Any, b: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return _vector(a, b), code


@intrinsic
def _total(typing: Any, a: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
        add = cgutils.get_or_insert_function(builder.module, shape, f"llvm.vector.reduce.fadd.v{WIDTH}f32")
        return builder.call(add, [ir.Constant(_FLOAT, 0.0), arguments[0]], fastmath=_FAST)

    return types.float32(a), code


@intrinsic
def _largest(typing: Any, a: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        shape = ir.FunctionType(_FLOAT, [_FLOATS])
        top = cgutils.get_or_insert_function(builder.module, shape, f"llvm.vector.reduce.fmax.v{WIDTH}f32")
        return builder.call(top, [arguments[0]])

    return types.float32(a), code


@intrinsic
def _power_of_two(typing: Any, a: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        least = _constant(-127)
        x = builder.select(builder.fcmp_ordered("<", arguments[0], least), least, arguments[0])
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS]), f"llvm.floor.v{WIDTH}f32"
        )
        whole = builder.call(floor, [x])
        part = builder.fsub(x, whole)
        power = _constant(_POWERS[0])
        for factor in _POWERS[1:]:
            power = builder.fadd(builder.fmul(power, part, flags=_FAST), _constant(factor), flags=_FAST)
        bits = builder.bitcast(builder.fadd(whole, _constant(2**23 + 127)), _INTS)
        scale = builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [23] * WIDTH)), _FLOATS)
        return builder.fmul(scale, power)

    return _vector(a), code


def _both(operation: Any) -> Any:
    """Between vectors only: for other types +, - and * keep their meaning."""
    return lambda a, b: (lambda a, b: operation(a, b)) if a == b == _vector else None


overload(load)(lambda array, start: lambda array, start: _load(array, start))
overload(store)(lambda array, start, vector: lambda array, start, vector: _store(array, start, vector))
overload(splat)(lambda value: lambda value: _splat(value))
overload(larger)(lambda a, b: lambda a, b: _larger(a, b))
overload(total)(lambda a: lambda a: _total(a))
overload(largest)(lambda a: lambda a: _largest(a))
overload(power_of_two)(lambda a: lambda a: _power_of_two(a))
overload(operator.add)(_both(_add))
overload(operator.sub)(_both(_subtract))
overload(operator.mul)(_both(_multiply))
