r"""Does matrix arithmetic on trees: it computes sums, scalar multiples, products and determinants.

In: a tree. Out: the tree with its matrix expressions evaluated to one matrix.
"""

from __future__ import annotations

from verifiers.limits import TooLarge
from verifiers.parse.tree import Add, Call, Matrix, Mul, Node, is_scalar, negated

MAX_CELLS = 200


def evaluated(node: Node) -> Node:
    """Returns the matrix that an expression of matrices evaluates to, or the node itself."""
    if isinstance(node, Add):
        parts = [evaluated(arg) for arg in node.args]
        matrices = [part for part in parts if isinstance(part, Matrix)]
        if len(matrices) == len(parts) and len({(len(m.rows), len(m.rows[0])) for m in matrices}) == 1:
            rows = zip(*(m.rows for m in matrices), strict=True)
            return Matrix(tuple(tuple(Add(cells) for cells in zip(*group, strict=True)) for group in rows))
        return node
    if isinstance(node, Mul):
        parts = [evaluated(arg) for arg in node.args]
        scalars = tuple(part for part in parts if is_scalar(part))
        matrices = [part for part in parts if isinstance(part, Matrix)]
        if not matrices or len(scalars) + len(matrices) != len(parts):
            return node
        product = matrices[0]
        for other in matrices[1:]:
            if len(product.rows[0]) != len(other.rows):
                return node
            product = _product(product, other)
        if not scalars:
            return product
        return Matrix(tuple(tuple(Mul((*scalars, cell)) for cell in row) for row in product.rows))
    if isinstance(node, Call) and node.name == "det" and len(node.args) == 1:
        inner = evaluated(node.args[0])
        if isinstance(inner, Matrix) and len(inner.rows) == len(inner.rows[0]) <= 5:
            return _determinant(inner.rows)
    return node


def _product(a: Matrix, b: Matrix) -> Matrix:
    if len(a.rows) * len(b.rows[0]) > MAX_CELLS:
        raise TooLarge("a matrix product")
    columns = list(zip(*b.rows, strict=True))
    return Matrix(
        tuple(
            tuple(Add(tuple(Mul((x, y)) for x, y in zip(row, column, strict=True))) for column in columns)
            for row in a.rows
        )
    )


def _determinant(rows: tuple[tuple[Node, ...], ...]) -> Node:
    if len(rows) == 1:
        return rows[0][0]
    terms: list[Node] = []
    for index, cell in enumerate(rows[0]):
        minor = _determinant(tuple(row[:index] + row[index + 1 :] for row in rows[1:]))
        term = Mul((cell, minor))
        terms.append(negated(term) if index % 2 else term)
    return Add(tuple(terms))
