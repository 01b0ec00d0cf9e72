"""Reading a forest's records in compiled code: the next sibling, and memory asked for before it is needed.

Going down or up a tree, the next node's address is known only when the last node has been read: one cache miss after
the other. With many trees moved in turn, each one's next line can be on its way while the others are worked on.

In: the arrays `edges` and `records` of a `Forest`. Knows no rule of any search.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from mcts_dpo.search.tree import CACHE_LINE, EDGE, ELSEWHERE, NEXT_ROW, NONE

Records = NDArray[np.void]


@njit(cache=True)
def next_sibling(child: int, edges: Records, records: Records) -> int:  # pragma: no cover  (compiled)
    """Node id; NONE after the last. It is the next row, but where a later expansion added a block."""
    where = edges[child].sibling
    if where == NEXT_ROW:
        return child + 1
    return records[child].next_sibling if where == ELSEWHERE else NONE


def _prefetcher(*offsets: int) -> Any:
    @intrinsic
    def prefetch(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = signature.args[0]
            view = context.make_array(kind)(context, builder, arguments[0])
            element = cgutils.get_item_pointer(context, builder, kind, view, [arguments[1]], wraparound=False)
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
            )
            read, keep, data = (ir.Constant(word, value) for value in (0, 3, 1))
            for offset in offsets:
                ahead = builder.gep(builder.bitcast(element, byte), [ir.Constant(word, offset)])
                builder.call(hint, [ahead, read, keep, data])
            return context.get_dummy_value()

        return types.void(array, types.int64), generate

    return prefetch


prefetch = _prefetcher(0)
"""`prefetch(array, index)` asks for the memory of `array[index]` (1-D, any dtype; compiled code only). A hint: it reads
and changes nothing, and an index outside the array is harmless."""

prefetch_edge = _prefetcher(0, EDGE.itemsize - 1)
"""The same for an edge, which may lie on two cache lines."""

prefetch_family = _prefetcher(*range(0, 4 * CACHE_LINE, CACHE_LINE))
"""The same for four cache lines from an edge on: up to eight siblings."""


@intrinsic
def square_root(typing: Any, value: Any) -> Any:
    """√value, float64: the machine's instruction, where `math.sqrt` would call a library (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        double = ir.DoubleType()
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(double, [double]), "llvm.sqrt.f64")
        return builder.call(root, arguments)

    return types.float64(types.float64), generate
