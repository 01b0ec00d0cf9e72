"""Decides whether a piece of text can be an answer, and finds the value that a sentence states.

In: a clause. Out: the value in it, or None.
"""

from __future__ import annotations

import re

from verifiers.read.dressing import undressed
from verifiers.read.masks import BLOCK, formula_spans, masked, words_of

_FILLERS = re.compile(
    r"(?:that\s|therefore|thus|hence|so\s|then\s|simply|just\s|exactly|precisely|clearly|obviously"
    r"|approximately|about\s|around\s"
    r"|roughly|equal to|equals\s|equal|given by|found to be|indeed|also\s|now\s|in fact"
    r"|of course|actually|only\s|definitely"
    r"|certainly|surely|still\s|always\s|as follows|the following|indeed|finally|ultimately|again"
    r"|once again|it is|it's"
    r"|(?:the|a|an)\s(?:final\s|correct\s|exact\s|whole\s|natural\s|real\s|single\s)?(?:number|value"
    r"|integer|fraction|expression|letter|option|choice|answer|word)(?:\sof)?(?:\s(?:is|being))?\s(?!of\b"
    r"|that\b|in\b|for\b|to\b)|a total of|a grand total of|(?:option|choice|letter"
    r"|answer)\s(?=\W{0,3}[A-Za-z]\b)"
    r"|choice of\s|none other than|nothing but|no more than\s(?!\d)|written as|expressed as|option:)[,:]?\s{0,3}",
    re.IGNORECASE,
)
_WORDS = re.compile(r"(?<![\\A-Za-z{])[^\W\d_]{2,}(?:'[a-z]+)?(?![A-Za-z({^_])")
_PROSE = re.compile(
    r"\b(?:the|is|are|was|were|we|so|thus|therefore|hence|it|it's|that|this|which|answer|find|have"
    r"|has|had|total|she|he|they"
    r"|there|because|since|of|in|than|as|with|our|matrix|can|will|would|must|should|gets?|makes?"
    r"|gives?|needs?|be|been|being|its|his"
    r"|her|their|you|i'm|let|does|do|did|at|on|from)\b",
    re.IGNORECASE,
)
_LINKS = re.compile(
    r"(?:\b(?:is|are|was|were|equals|equal to|be|becomes|gives|makes|totals|being|yields)\b|[:≈]"
    r"|(?<![<>=!])=(?![=]))[*_\s]*(?:exactly|simply|just|only|also|about|approximately|thus|therefore"
    r"|then|now)?\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"(?<![\w.{BLOCK}])(?:[-−+]\s?)?(?:[$€£¥]\s?)?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?\s?%?"
)
_TAIL = re.compile(r"\s{1,4}[^\W\d_][^\W\d_'’-]*(?:\s[^\W\d_][^\W\d_'’-]*)*")
_SCALES = words_of(
    "hundred thousand million billion trillion dozen dozens percent squared cubed factorial and or "
    "by to per over out times plus minus mod choose negative"
)
_TRAILING = words_of(
    "left total altogether overall remaining more in all each remain too there then now only "
    "together here respectively exactly indeed"
)
_NOTHING = frozenset(
    [
        "correct",
        "both",
        "them",
        "these",
        "those",
        "right",
        "wrong",
        "incorrect",
        "clear",
        "obvious",
        "reasonable",
        "consistent",
        "verified",
        "confirmed",
        "above",
        "below",
        "boxed",
        "here",
        "known",
        "unknown",
        "unclear",
        "found",
        "needed",
        "required",
        "given",
        "shown",
        "follows",
        "different",
        "same",
        "true-or-false",
        "it",
        "this",
        "that",
        "them",
        "unique",
        "valid",
        "invalid",
        "not",
        "sure",
        "answer",
        "result",
        "obtained",
        "done",
        "complete",
        "indeed",
        "therefore",
        "thus",
        "so",
        "simple",
        "easy",
        "hard",
        "trivial",
        "evident",
        "immediate",
        "checked",
        "fine",
        "ok",
        "good",
        "plausible",
        "impossible-to-say",
        "derived",
        "calculated",
        "computed",
        "solution",
        "n/a",
        "?",
        "...",
        "…",
        ".",
        "-",
        "_",
        "__",
        "___",
        "your_answer",
        "[answer]",
        "x?",
        "yours",
        "final",
    ]
)
_COUNTED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]{1,12}\s?(?=[-$\\\d])(?<!第)")
_NAMED_DAY = re.compile(
    r"\b(?:on|in|is|falls on|called|named)\s+(?:an?\s+)?(?:the\s+)?((?:Mon|Tues|Wednes|Thurs|Fri"
    r"|Satur|Sun)day|January|February|March|April|May|June|July"
    r"|August|September|October|November|December)s?\s*\Z"
)
_PROPERTY = re.compile(
    r"\b(?:at (?:least|most)|(?:more|less|fewer|greater|larger|smaller|bigger|higher|lower|other"
    r"|rather) than|between|under|over|above|below|up to"
    r"|divisible|multiples?|factors?|close to|near|not|never|no|neither|nor|congruent|digits?|divides|instead of)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?:the|an?|all|every|only|no|any|both|neither|none)\b", re.IGNORECASE)
_SENTENCE_WORDS = re.compile(
    r"\b(?:is|are|was|were|we|he|she|it|they|must|can|will|would|has|have|had|gives?|makes?|that|this|which|find)\b",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*|(?<![_\w])__([^_\n]{1,200})__(?![_\w])")
_OPERATION = re.compile(
    r"[\d.,]+\s?(?:\\?%|percent)\s+of\s+\W?\d"
    r"|(?:(?:the|an?|one|two|three|\w{4,6}teen)[\s-])?(?:(?:positive|negative|principal|natural|common|absolute|additive"
    r"|multiplicative|arithmetic|geometric|square|cube|cubic|fourth|fifth|\w+th)\s)*"
    r"(?:squares?|cubes?|(?<=\s)roots?|roots? (?=of)|half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?"
    r"|eighths?|ninths?|tenths?|reciprocal|factorial|negative|opposite|inverse|value|log|logarithm|sine|cosine|tangent"
    r"|difference|sum|product|quotient|ratio|average|mean|remainder|double|triple|complement|power)"
    r"\s(?:of|between|from)\s[^\w\s]{0,3}\d[^=]*\Z"
    r"|[-−$]?[\d.,/]+\s(?:\w+\s)?(?:(?:more|less|fewer|greater|larger|smaller|bigger|higher|lower) than"
    r"|with remainder|added to|subtracted from|taken from|away from|short of)\s\W{0,3}\d",
    re.IGNORECASE,
)
_WHERE_FOUND = re.compile(
    r"(?:found|obtained|computed|calculated|determined|derived|shown)\s(?:in|by|from|using|at)\b", re.IGNORECASE
)
_LINKED = re.compile(r"\b(?:is|are|was|equals|gives|makes|yields)\b|=", re.IGNORECASE)
_SAID = re.compile(
    r"(yes|no|true|false)\b(?!\s?[\d/]|\s(?:solutions?|such|real|one|answer|roots?|value|integer|number))",
    re.IGNORECASE,
)


def is_bare(text: str) -> bool:
    """Whether a text is not a sentence: outside mathematics, it has at most four words, and none of ordinary prose."""
    if len(text) > 4_000:
        return False
    shadow = masked(text)
    return not _PROSE.search(shadow) and len(_WORDS.findall(shadow)) <= 4


def is_property(text: str) -> bool:
    """Whether a text says only of which kind an answer is: "an integer", "at least 5", "a multiple of 3"."""
    if re.match(r"\W*(?:an?|some|any|one of)\s", text, re.IGNORECASE):
        return bool(_KINDS.search(text))
    return bool(_PROPERTY.match(text.lstrip(" *_")) and not re.match(r"\W*(?:no|neither|not)\b", text, re.IGNORECASE))


_KINDS = re.compile(
    r"\b(?:integer|number|multiple|fraction|prime|square|value|power|divisor|factor|polynomial"
    r"|function|expression|digit|percentage|decimal|ratio"
    r"|sum|product|word|letter|sentence|name|list|set|matrix|vector|point|interval)s?\b",
    re.IGNORECASE,
)


def is_quality(text: str) -> bool:
    """Whether a text only says what an answer is like: even, positive, finite."""
    return bool(
        re.fullmatch(
            r"\W*(?:an?\s)?(?:even|odd|positive|negative|prime|composite|rational|irrational|real|integral"
            r"|finite|infinite|small|large"
            r"|nonzero|non-zero|nonnegative|non-negative|whole|divisible|bounded|smaller|larger|greater"
            r"|bigger)\W*",
            text,
            re.IGNORECASE,
        )
    )


def is_value(text: str) -> bool:
    """Whether a text can be an answer: it holds a letter, a digit or a symbol, and is not a remark on the answer."""
    low = text.lower().strip(" .,:;!*_\"'")
    if low in _NOTHING or not low:
        return False
    return bool(re.search(r"[^\W_]|[∅∞{}\\]", low)) and low.split()[0] not in (
        "correct",
        "incorrect",
        "unclear",
        "obvious",
        "wrong",
    )


def value_in_prose(text: str) -> tuple[str, bool] | None:
    """Return (the value that a clause states, whether it was found inside a sentence), or None if there is no value."""
    said = _SAID.match(text)
    if said is not None:
        return text[: said.end()], False
    text = without_fillers(text)
    if not is_value(text):
        return None
    if _WHERE_FOUND.match(text) and not _LINKED.search(text):
        return None
    if _OPERATION.match(text) and not _LINKED.search(text):
        return trimmed(text), False
    if text[:1] in "*_" or "**" in text:
        bold = [first or second for first, second in _BOLD.findall(text)]
        bold = [undressed(one) for one in bold if is_value(one)]
        if bold and (not is_bare(text.replace("*", "")) or (len(bold) == 1 and text.startswith("**"))):
            return _measured(bold[-1], text) if text.startswith("**") else bold[-1], not text.startswith("**")
        text = text.replace("**", "").strip()
    cut = _leading_value(text)
    if cut is not None:
        return cut, False
    counted = _COUNTED.match(text)
    if counted is not None and len(re.findall(r"\d+", masked(text))) == 1:
        return trimmed(text[counted.end() :]), True
    if is_bare(text):
        return trimmed(text), False
    return _stated_inside(text)


def without_fillers(text: str) -> str:
    """Remove words before a value that add nothing: exactly, therefore, the number, that."""
    for _ in range(6):
        match = _FILLERS.match(text)
        if match is None or not text[match.end() :].strip():
            return text.strip()
        text = text[match.end() :].strip()
    return text


def _measured(bold: str, text: str) -> str:
    """Return the bold value with the unit that follows it outside the bold text."""
    rest = _BOLD.sub("", text, count=1).strip()
    return (
        f"{bold} {rest}" if rest and is_bare(rest) and not re.search(r"\d", rest) and len(rest.split()) <= 2 else bold
    )


def _leading_value(text: str) -> str | None:
    """Return the number or formula at the start of a clause, with its unit, or None if the clause begins with words."""
    shadow = masked(text)
    start = re.match(rf"[\s$€£¥+\-−–≈~<>≤≥|±]*(?:[\d{BLOCK}.∞√π]|[^\W\d_](?![^\W\d_'’]))", shadow)
    if start is None or re.match(r"[AI]\s[a-z]{2,}", text):
        return None
    if re.match(r"\W*[^\W\d_](?:\(\w\))?\s(?:is|are|was|equals|must|will)\b", shadow):
        return None
    word = re.compile(r"(?<![\\A-Za-z\d_^])[^\W\d_]{2,}").search(shadow, 0)
    functions = re.compile(
        r"(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|inf|infty|arc\w+|abs|mod|gcd|lcm|max|min|cm|mm|km"
        r"|kg|mg|ml|ft|lb|oz|mph)\b"
    )
    while word is not None and functions.match(shadow, word.start()):
        word = re.compile(r"(?<![\\A-Za-z\d_^])[^\W\d_]{2,}").search(shadow, word.end())
    if word is None:
        return trimmed(text)
    value, tail = text[: word.start()], shadow[word.start() :]
    if not re.search(r"[^\W_]|[∞√π]", value) or value.rstrip()[-1:] in "+-*/=<>^":
        return trimmed(text) if is_bare(text) else None
    return trimmed(value + text[word.start() : word.start() + _tail_length(tail)])


def _tail_length(tail: str) -> int:
    """Return how many characters of the words after a value are its unit.

    The unit is all of the words, or it ends before a word of prose or a digit that does not fit.
    """
    kept = 0
    words = list(re.finditer(r"\S+", tail))
    for index, match in enumerate(words):
        word = match.group().strip(".,!?*_\"')").lower()
        if (
            _PROSE.fullmatch(word)
            and word not in _SCALES
            and not (word == "of" and kept and words[index - 1].group() == "out")
        ):
            break
        follows = words[index + 1].group() if index + 1 < len(words) else ""
        if word in _TRAILING and not follows[:1].isdigit():
            break
        if index >= 4:
            return 0 if re.search(r"\d", tail) else kept
        if re.search(r"\d", word) and index and words[index - 1].group().lower() not in _SCALES and index > 1:
            before = [one.group() for one in words[:index]]
            if not all(re.search(r"\d", one) or len(one) < 9 for one in before) or index > 3:
                return 0
        kept = match.end()
    cut = tail[:kept]
    if re.search(r"\d", cut) and not _alternates(cut):
        return 0
    return kept


def _alternates(tail: str) -> bool:
    """Whether the digits in the words after a value belong to it: "hours 30 minutes", "out of 5", "= 12 eggs"."""
    return bool(
        re.fullmatch(r"(?:[^\W\d_]{1,12}\.?\s(?:and\s)?)?[-+]?[\d.,/]+(?:\s?[^\W\d_]{1,12}){0,2}\.?\s?", tail)
        or re.match(
            r"(?:hundred|thousand|million|billion|dozen|and|out of|to|by|per|over|times|plus|minus|mod|choose|or"
            r"|divided by|multiplied by|equals)\b",
            tail,
        )
        or "=" in tail
    )


def _stated_inside(text: str) -> tuple[str, bool] | None:
    """Return the value that a sentence states: after its last "is", its last formula, its only number or bold part."""
    shadow = masked(text)
    for match in reversed(list(_LINKS.finditer(shadow))[-12:]):
        rest = without_fillers(undressed(text[match.end() :].strip()))
        if not rest or not is_value(rest):
            continue
        value = _leading_value(rest) or (trimmed(rest) if is_bare(rest) else None)
        if value is not None:
            return value, True
    formulas = [
        span for span in formula_spans(text) if text[span[0]] in "$\\" and not _is_label(text[span[0] : span[1]])
    ]
    formulas = [span for span in formulas if text[span[0]] == "$" or text.startswith(("\\(", "\\["), span[0])]
    if formulas:
        return trimmed(text[_first_of_list(text, formulas) : formulas[-1][1]]), True
    day = _NAMED_DAY.search(text)
    if day is not None:
        return day.group(1), True
    if _PROPERTY.search(shadow):
        return None
    numbers = list(_NUMBER.finditer(shadow))
    if len(numbers) == 1 and len(re.findall(r"\d+", shadow)) == len(re.findall(r"\d+", numbers[0].group())):
        return _leading_value(text[numbers[0].start() :]) or numbers[0].group().strip(), True
    if (
        _NAMED.match(text)
        and not _SENTENCE_WORDS.search(shadow)
        and len(text.split()) <= 8
        and not re.search(r"\d", text)
    ):
        return trimmed(text), False
    return None


def _first_of_list(text: str, spans: list[tuple[int, int]]) -> int:
    first = len(spans) - 1
    while first and re.fullmatch(r"\s*(?:,|;|and|or|,\s*and|,\s*or)\s*", text[spans[first - 1][1] : spans[first][0]]):
        first -= 1
    return spans[first][0]


def _is_label(formula: str) -> bool:
    inner = formula.strip("$ ").removeprefix("\\(").removesuffix("\\)").strip()
    return re.fullmatch(r"[a-zA-Z]|\\[a-z]+|[A-Z]{2,3}", inner) is not None


def trimmed(text: str) -> str:
    """Remove the quotes, asterisks and full stops around a text."""
    text = text.strip('*_"` \n\t\r')
    tag = re.search(r"</?[a-z]{1,12}>\Z", text)
    text = (text[: tag.start()] if tag else text).rstrip().rstrip(".,;: \n")
    while text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    if text.endswith(("}", "$")) and (
        text.count("}") > text.count("{") or (text.count("$") % 2 and "$" not in text[:-1])
    ):
        text = text[:-1].rstrip(" \"'}")
    return text + " " if text.endswith("\\") else text
