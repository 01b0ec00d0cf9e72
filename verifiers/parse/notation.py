r"""Rewrites notations that have only one meaning into the spelling that the grammar reads.

In: one answer, cleaned by :mod:`verifiers.text`. Out: the same answer with ``\pm`` for ``+/-``, ``\binom`` for
``C_5^2`` and ``5C2``, ``(0, 1)`` for ``]0;1[``, ``\langle`` for ``<1,2>``, ``\angle{ABC}`` for "angle ABC". Nothing is
evaluated; every step is linear in the length of the text.
"""

from __future__ import annotations

import re

from verifiers.parse.qualifiers import with_qualifiers

MAX_ARGUMENT = 24
"""Characters of an upper or lower number of a combination."""


def respelled(text: str) -> str:
    """Returns the answer in the spelling of the grammar; parts that already have that spelling stay unchanged."""
    text = with_combinations(with_plus_minus(text))
    if "(" in text:
        text = _RATIONAL.sub(r"\\frac{\1}{\2}", _MATRIX.sub(r"\1", text))
    if "=" in text:
        text = _LABEL.sub(_label, text)
    if "[" in text or "]" in text:
        text = with_round_brackets(text)
    if "\\" in text:
        text = _UNIT_VECTOR.sub(_unit_vector, text)
    if "begin" in text:
        text = _BRACED_ROWS.sub(r"\\begin{cases}\2\\end{cases}", text)
    text = _SET_WORDS.sub(lambda match: "\\cup " if match[1][0] in "uU" else "\\cap ", text)
    if "\\equiv" in text and "mod" not in text:
        text = text.replace("\\equiv", "=")
    if "<" in text:
        text = _ANGLED.sub(r"\1\\langle \2\\rangle ", text)
    return with_qualifiers(_MEASURE.sub(r"\\angle", _NAMED_FIGURE.sub(_figure, text)))


# ---------------------------------------------------------------------- plus or minus

_PLUS_MINUS_WORDS = re.compile(
    r"\\(?:text|mbox|mathrm)\s*\{\s*plus\s*(?:or|[-/])\s*minus\s*\}|\bplus\s*(?:\bor\b|[-/])\s*minus\b", re.IGNORECASE
)
_TWO_SIGNS = re.compile(r"(?<![+\-])(?:\+\s?/\s?-|-\s?/\s?\+|\+-|-\+)(?![+\-])")
_CLAUSE = re.compile(r"[=,;<>]|\\(?:in|le|ge|leq|geq)\b|\bor\b|\band\b")
_COMMAND = re.compile(r"\\[A-Za-z]+|sqrt|pi")


def with_plus_minus(text: str) -> str:
    r"""Writes ``+/-`` and "plus or minus" as ``\pm``, and also ``+-`` if it does not mean arithmetic."""
    if "minus" in text.lower():
        text = _PLUS_MINUS_WORDS.sub(r"\\pm ", text)
    if "+" not in text or "-" not in text:
        return text
    return _TWO_SIGNS.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    r"""``x + -1`` and ``2x+-3`` are arithmetic; ``+-7``, ``3+-2`` and ``-b+-\sqrt{d}`` are two values."""
    signs, before = match.group(), match.string[: match.start()].rstrip()
    if before[-1:] in ("+", "-", "^", "e", "E"):
        return signs
    command = "\\mp " if signs[0] == "-" else "\\pm "
    clause = _CLAUSE.split(before)[-1].strip("({[ ")
    rest = match.string[match.end() :].lstrip()
    if "/" in signs or not clause or re.match(r"\\?sqrt", rest):
        return command
    follows = re.match(r"[({\[]|\d+\.\d|\{?\s*\\?[a-df-hj-zA-Z]", rest)
    mechanical = follows or re.search(r"[a-df-hj-zA-Z]|\.\d", _COMMAND.sub(" ", clause))
    return signs if mechanical else command


# ---------------------------------------------------------------------- combinations and permutations

_UPRIGHT = r"\\(?:mathrm|text|mathbf|operatorname|mathsf|textrm)\s*\{{\s*{0}\s*\}}|\\rm\s+{0}|{0}"
_WHICH = "(?:" + _UPRIGHT.format("(?:[CPA])") + ")"
_ARGUMENT = rf"(?:\{{\s*[^{{}}\\]{{1,{MAX_ARGUMENT}}}\s*\}}|\d+|[A-Za-z])"
_SCRIPTS = re.compile(
    rf"(?<![A-Za-z\\])({_WHICH})\s*(?:_\s*({_ARGUMENT})\s*\^\s*({_ARGUMENT})|\^\s*({_ARGUMENT})\s*_\s*({_ARGUMENT}))"
)
_PRESCRIPT = re.compile(
    rf"(?:\{{\s*\}}\s*|(?<![A-Za-z0-9)}}\]]))[_^]\s*({_ARGUMENT})\s*({_WHICH})\s*[_^]?\s*({_ARGUMENT})"
)
_INLINE = re.compile(r"(?<![A-Za-z0-9._^{\\])(\d+|n)([CP])(\d+|[rk])(?![A-Za-z0-9._^(])|(?<![\w.])(\d+) ([CP]) (\d+)\Z")
_CALLED = re.compile(
    rf"(?<![A-Za-z\\])(nCr|comb|binom|choose|nPr|perm|{_UPRIGHT.format('(?:[CP])')})\s?"
    rf"\(\s*([^(){{}}\\,;]{{1,{MAX_ARGUMENT}}})\s*[,;]\s*([^(){{}}\\,;]{{1,{MAX_ARGUMENT}}})\s*\)"
)
_CHOOSE = re.compile(
    rf"\{{\s*([^{{}}\\]{{1,{MAX_ARGUMENT}}}?)\s*\\choose\s*([^{{}}\\]{{1,{MAX_ARGUMENT}}}?)\s*\}}"
    r"|(?<![\w.])(\d+|n)\s*(?:\\text\s*\{\s*choose\s*\}|\bchoose\b)\s*(\d+|[rk])(?!\w)"
)
_COUNTING = re.compile(r"[CPA]|choose|comb|binom|perm")


def with_combinations(text: str) -> str:
    r"""Writes ``C_n^k``, ``{}_nC_k``, ``^nC_k``, ``nCk``, ``C(n,k)`` as ``\binom{n}{k}``, and ``P`` as ``\nPr``."""
    if not _COUNTING.search(text):
        return text
    text = _CHOOSE.sub(lambda m: _counted("C", m[1] or m[3], m[2] or m[4]), text)
    text = _PRESCRIPT.sub(lambda m: _counted(m[2], m[1], m[3]), text)
    text = _SCRIPTS.sub(_scripts, text)
    text = _INLINE.sub(_inline, text)
    return _CALLED.sub(_called, text)


def _counted(which: str, total: str, taken: str) -> str:
    letter = re.sub(r"\\[a-z]+|[{}\s]", "", which)
    command = "\\binom" if letter in ("C", "nCr", "comb", "binom", "choose") else "\\nPr"
    return f"{command}{{{total.strip('{} ')}}}{{{taken.strip('{} ')}}}"


def _plausible(total: str, taken: str) -> bool:
    """Whether the two can be the numbers of a combination: ``5, 2``, ``n, 3``, ``n+1, k``; not ``2, 5`` or ``x, y``."""
    total, taken = total.strip("{} "), taken.strip("{} ")
    if not re.fullmatch(r"\d+|[\dnmN]*[nmN][\dnmN+\- ]*", total) or not re.fullmatch(r"[\dnmNkrij+\- ]+", taken):
        return False
    if total.isdigit() and taken.isdigit():
        return len(taken) <= len(total) <= 6 and int(total) >= int(taken)
    return not total.isdigit()


def _scripts(match: re.Match[str]) -> str:
    which, low, high, first_high, second_low = match.groups()
    below, above = (low, high) if low is not None else (second_low, first_high)
    numeric = (below + above).strip("{} ").isdigit() or re.fullmatch(r"[{} \d]+", below + above)
    letters = re.fullmatch(r"[{} ]*[nmN][{} ]*[kmrnN][{} ]*", below + above)
    if "C" not in which and not (numeric or letters):
        return match.group()
    if _plausible(below, above):
        return _counted(which, below, above)
    if low is None and _plausible(above, below):
        return _counted(which, above, below)
    return match.group()


def _inline(match: re.Match[str]) -> str:
    total, which, taken = match.group(1, 2, 3) if match.group(1) else match.group(4, 5, 6)
    if total.isdigit() != taken.isdigit() and total.isdigit():
        return match.group()
    return _counted(which, total, taken) if _plausible(total, taken) else match.group()


def _called(match: re.Match[str]) -> str:
    which, total, taken = match.groups()
    single = len(re.sub(r"\\[a-z]+|[{}\s]", "", which)) == 1
    return match.group() if single and not _plausible(total, taken) else _counted(which, total, taken)


# ---------------------------------------------------------------------- intervals, vectors, figures

_SQUARE = re.compile(r"[\[\]]")
_ANGLED = re.compile(r"(\A\s*|[=,(+]\s*)<([^<>=]{1,200}?,[^<>=]{1,200}?)>(?=\s*(?:\Z|[,;)+]))")
_BOLD = r"\\(?:mathbf|boldsymbol|bm|vec|hat|widehat|overrightarrow)\s*"
_LETTER = r"\\?([ijk])(?:math)?(?![A-Za-z])\s*"
_UNIT_VECTOR = re.compile(
    rf"{_BOLD}\{{\s*{_BOLD}\{{\s*{_LETTER}\}}\s*\}}|{_BOLD}\{{\s*{_BOLD}{_LETTER}\}}|{_BOLD}\{{\s*{_LETTER}\}}"
    rf"|{_BOLD}\{{\s*\{{\s*{_LETTER}\}}\s*\}}|{_BOLD}{_LETTER}"
)
_RATIONAL = re.compile(r"(?<![A-Za-z\\])Rational\(\s*(-?\d{1,40})\s*,\s*(\d{1,40})\s*\)")
_MATRIX = re.compile(r"(?<![A-Za-z\\])Matrix\((\[[^()]{1,400}\])\)")
_LABEL = re.compile(
    r"\A\s*((?:\\Pr|\\mathbb\s*\{?\s*[PE]\s*\}?|P(?=\s*\([^()=]{1,40}=)|n(?=\s*\([^()]{1,40}\\c[ua]p))\s*[(\[][^()\[\]]{1,60}[)\]]"
    r"|\\lim\s*_?[^=<>]{1,80}|\\int(?![A-Za-z])[^=<>]{1,120}|[A-Z]\s*\\c[ua]p\s+[A-Z]"
    r"|\\frac\s*\{\s*d[^{}]{0,8}\}\s*\{\s*d[^{}]{1,8}\}|[fgh]\s*\^\s*\{\s*-1\s*\}\s*\(\s*[a-z]\s*\))\s*=(?=\s*[^=\s])"
)
_SET_WORDS = re.compile(
    r"(?<=[\])}])\s*(?:\\text\s*\{\s*)?\b(union|intersect(?:ion|ed)?)\b\s*\}?\s*(?=[\[({\\])", re.IGNORECASE
)
_BRACED_ROWS = re.compile(
    r"\\\{\s*\\begin\s*\{(array|aligned|matrix|gathered|split)\}(?:\s*\{[lcr|@{} ]{1,12}\})?"
    r"((?:(?!\\begin).)*?)\\end\s*\{\1\}(?!\s*\\\})",
    re.DOTALL,
)
_MEASURE = re.compile(r"(?<![A-Za-z\\])m\s*\\(?:angle|measuredangle)(?![A-Za-z])|\\measuredangle(?![A-Za-z])")
_FIGURES = {"angle": "angle", "segment": "overline", "triangle": "triangle", "ray": "overrightarrow"}
_NAMED_FIGURE = re.compile(
    r"(?<![A-Za-z\\])(?:\\(?:text|mbox|mathrm)\s*\{\s*)?(?:the\s+)?(?:line\s+)?(angle|segment|triangle|ray)\s*\}?\s*"
    r"\{?([A-Z]{2,3})\}?(?![A-Za-z])",
    re.IGNORECASE,
)


def with_round_brackets(text: str) -> str:
    """Writes ``]0;1[`` as ``(0;1)`` and ``[0;1[`` as ``[0;1)``; other square brackets stay."""
    places = [match.start() for match in _SQUARE.finditer(text)]
    out, done, index = [], 0, 0
    while index + 1 < len(places):
        start, end = places[index], places[index + 1]
        ends = _interval_ends(text[start + 1 : end])
        reversed_ends = text[start] == "]" or text[end] == "["
        if ends is None or (reversed_ends and "\\sqrt" in text[max(0, start - 6) : start]):
            index += 1
            continue
        if reversed_ends:
            out += [text[done:start], "[" if text[start] == "[" else "(", ends, "]" if text[end] == "]" else ")"]
            done = end + 1
        index += 2
    return "".join((*out, text[done:]))


def _interval_ends(inner: str) -> str | None:
    """Returns the two ends joined by a semicolon; None if the text between two brackets is not two ends."""
    mark = ";" if ";" in inner else ","
    parts = inner.split(mark)
    if len(parts) != 2 or not all(part.strip() and _balanced(part) for part in parts):
        return None
    if mark == ";":
        parts = [re.sub(r"(?<=\d),(?=\d)", ".", part) for part in parts]
    return "; ".join(part.strip() for part in parts)


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char in "({") - (char in ")}")
        if depth < 0:
            return False
    return depth == 0


def _label(match: re.Match[str]) -> str:
    """Writes the asked quantity as words if the grammar has no value for it: ``P(X=2)``, ``\\\\lim f(x)``."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", match.group(1)).strip()
    return f"\\text{{{words}}} ="


def _unit_vector(match: re.Match[str]) -> str:
    return f"\\hat{{{match.group(match.lastindex or 0)}}}"


def _figure(match: re.Match[str]) -> str:
    word, letters = match.group(1).lower(), match.group(2)
    return f"\\{_FIGURES[word]}{{{letters}}}" if letters.isupper() else match.group()
