r"""Compares letters as they are written: words, sequences of outcomes, roman numerals, names of figures.

In: two trees. Out: whether they are the same letters, or None if letters do not decide. Letters are a product only if
the form shows it: an operator, a digit, an exponent, a function.
"""

from __future__ import annotations

import re

from verifiers.parse.tree import Call, Mul, Node, Seq, Sym, Text

_MARKED = re.compile(r"(angle|overline|bar|widehat|triangle) ([A-Z]{2,4})")
_TWO_ENDED = ("angle", "overline", "bar", "widehat")


def letters_of(node: Node) -> str:
    """Returns the letters of a node that was written with letters only; empty for every other node."""
    if isinstance(node, Mul):
        return node.spelled
    return node.words if isinstance(node, Text) and re.fullmatch("[A-Za-z]{2,}", node.words) else ""


def same_letters(a: Node, b: Node) -> bool | None:
    r"""Whether the two are the same letters; None if other rules decide. ``a`` is the reference.

    ``HHT`` is not ``HTH``. ``A, C`` is ``AC``. ``\overline{AB}`` is ``BA``. ``2ab`` against ``ba`` stays open, because
    the reference shows a product.
    """
    if not isinstance(a, (Mul, Text, Sym, Seq)) or not isinstance(b, (Mul, Text, Sym, Seq)):
        return None
    x, y = letters_of(a), letters_of(b)
    if isinstance(a, Text) and isinstance(b, Text):
        return None
    if x and y:
        return same_word(x, y)
    if isinstance(a, Seq) != isinstance(b, Seq):
        listed, word = _choices(a if isinstance(a, Seq) else b), x or y
        return True if listed and listed == word else None
    figure, bare = (a, y) if isinstance(a, Sym) else (b, x)
    return _names_figure(figure, bare) if isinstance(figure, Sym) and bare else None


def same_word(x: str, y: str) -> bool:
    """Whether two words are the same. In a word of three letters or more, the case of the first letter is free."""
    return x == y or (len(x) > 2 and x[1:] == y[1:] and x[1:].islower() and x[0].lower() == y[0].lower())


def _choices(node: Node) -> str:
    """Returns the letters of a list of choices, in order; empty if the list is something else."""
    if (
        not isinstance(node, Seq)
        or node.kind not in ("list", "set")
        or node.joint == "or"
        or not 2 <= len(node.items) <= 8
    ):
        return ""
    names = [item.name for item in node.items if isinstance(item, Sym) and re.fullmatch("[A-H]", item.name)]
    names += [item.words for item in node.items if isinstance(item, Text) and re.fullmatch("[A-H]", item.words)]
    return "".join(sorted(names)) if len(set(names)) == len(node.items) else ""


def _names_figure(figure: Sym, bare: str) -> bool | None:
    match = _MARKED.fullmatch(figure.name)
    if match is None:
        return None
    ends = (match.group(2), match.group(2)[::-1]) if match.group(1) in _TWO_ENDED else (match.group(2),)
    return bare in ends


def segment_of(node: Node) -> str:
    r"""The ends of a segment or of its length, in alphabetical order: ``AB``, ``BA``, ``|AB|``, ``\overline{AB}``."""
    if isinstance(node, Call) and node.name == "abs":
        node = node.args[0]
    if isinstance(node, Sym):
        match = _MARKED.fullmatch(node.name)
        letters = match.group(2) if match and match.group(1) in ("overline", "bar") else ""
    else:
        letters = "".join(arg.name for arg in node.args if isinstance(arg, Sym)) if isinstance(node, Mul) else ""
        letters = letters if isinstance(node, Mul) and len(letters) == len(node.args) else ""
    return "".join(sorted(letters)) if re.fullmatch("[A-Z]{2}", letters) else ""
