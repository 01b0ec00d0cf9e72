r"""Extracts the answer of a solution; the style says which marks are read.

In: the text of a solution, and the name of a style. Out: the answer as text, or None if the text states none. Several
answers in one conclusion (``\boxed{1} and \boxed{2}``, "4 or 5") come out together. A text that names many answers is
thus not right merely because one of them is right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from verifiers.limits import MAX_TEXT
from verifiers.read.boxes import boxes
from verifiers.read.dressing import without_tags
from verifiers.read.languages import LANGUAGES
from verifiers.read.marks import own_pattern
from verifiers.read.prose import concluded, last_number
from verifiers.read.statements import ALL, Kind, Statement, stated
from verifiers.read.thoughts import lowered, without_thoughts
from verifiers.read.turns import asked_parts, turn_of
from verifiers.read.values import is_value, trimmed
from verifiers.text import decoded

STYLES = ("math", "gsm8k", "boxed", "answer_is", "last_number", "choice")
KINDS: dict[str, tuple[Kind, ...]] = {"boxed": ("box",), "gsm8k": ("hash",), "answer_is": ("phrase",)}
_KEYS = tuple(dict.fromkeys(key for language in LANGUAGES.values() for key in language.keys))
_ASCII_KEYS = tuple(key for key in _KEYS if key.isascii())
_LETTER = re.compile(r"(?<![A-Za-z])\(?\b([A-Z])\b\)?(?!\w)")
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~")
_BLANKS = re.compile(r"\s{200,}")


def extract_answer(text: str | bytes | None, style: str = "math") -> str | None:
    r"""Return the answer that ``text`` states, or None if it states none.

    Styles: ``boxed``: the last ``\boxed{…}``, together with the boxes of the same conclusion. ``gsm8k``: the answer
    after the last ``####`` at the start of a line. ``answer_is``: the answer after the last "the answer is", in any
    language of the table. ``math``: the last of all these marks and of ``<answer>``. ``last_number``: as ``math``,
    otherwise the last number of the text. ``choice``: as ``math``, otherwise the last option letter that the text
    concludes. Thoughts, other turns and questions that the model made up are not read.

    Raises ``ValueError`` for an unknown style, ``TypeError`` for a text of another type.
    """
    reader = _READERS.get(style) if isinstance(style, str) else None
    if reader is None:
        near = difflib.get_close_matches(str(style), STYLES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"style: {style!r} (accepted: {', '.join(STYLES)}){hint}")
    known = decoded(text, "text")
    return (reader(seen(known)) or None) if known else None


def seen(text: str, before: str = "") -> str:
    """Return the part of a text that is read: its end, without thoughts, marks of turns and very long blanks."""
    cut = max(0, len(text) - MAX_TEXT)
    # What is cut off may open a thought that lasts to the end.
    visible = turn_of(without_thoughts(_BLANKS.sub(_shortened, text[cut:]), before + text[:cut]))
    visible = _STRUCK.sub(" ", visible) if "~~" in visible else visible
    return without_tags(visible) if "</" in visible or "<br" in visible else visible


def _shortened(match: re.Match[str]) -> str:
    return "\n\n" if "\n" in match.group() else "  "


def counted(text: str, kinds: tuple[Kind, ...] = ALL) -> Statement | None:
    """Return the statement that counts in the answer to the original question, or None if the text has no mark."""
    if not has_mark(text):
        return None
    first: Statement | None = None
    for part in asked_parts(text):
        found = stated(part, kinds)
        if found is not None and (found.answer is not None or found.kind == "box"):
            return found
        first = first or found
    return first


def has_mark(text: str) -> bool:
    """Whether a text can hold a mark: a quick search for the words and signs of marks."""
    if "box" in text or "oxed" in text or "####" in text or "<" in text or own_pattern() is not None:
        return True
    low = lowered(text)
    return any(map(low.__contains__, _ASCII_KEYS if text.isascii() else _KEYS))


def _marked(kinds: tuple[Kind, ...]) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        found = counted(text, kinds)
        return None if found is None else settled(found.answer)

    return read


def settled(answer: str | None) -> str | None:
    """Read an answer again until it no longer changes, so that a later reading returns the same answer."""
    for _ in range(4):
        if not answer:
            return None
        again = _conclusion(answer)
        if again == answer:
            return answer
        answer = again
    return answer


def conclusion(text: str, reference: bool = False) -> str:
    r"""Return the answer of a text that is a bare answer or a whole solution. It is empty if the text states none.

    The answer is for comparison. A text that is not prose is its own answer. A text with a mark gives what the mark
    states, or nothing if the text takes it back. Any other text gives the value of its last sentence, or else the text
    itself, which then does not parse. ``reference``: a box that is never closed counts to the end of the text. No
    length limit cuts off a reference, so such a box is a misprint.
    """
    visible = seen(text)
    if reference and "boxed" in visible and (unclosed := boxes(visible)) and unclosed[-1].content is None:
        visible = re.sub(r"\\+boxed\s{0,5}\{?", "", visible[unclosed[-1].start :])
    if not has_mark(visible):
        return concluded(visible)
    return settled(_conclusion(visible)) or ""


def _conclusion(text: str) -> str:
    found = counted(text)
    if found is None:
        return concluded(text)
    if found.answer is None and found.kind == "phrase" and not found.firm and found.end < len(text.rstrip()) - 1:
        rest = concluded(text[found.end :].strip(" .,;:!?*\n"))
        return rest if rest != text and is_value(rest) else ""
    return found.answer or ""


def _last_number(text: str) -> str | None:
    found = counted(text)
    if found is not None and (found.answer is not None or found.firm):
        return settled(found.answer)
    return last_number(asked_parts(text)[0])


def _choice(text: str) -> str | None:
    found = counted(text)
    if found is not None and (found.answer is not None or found.firm):
        return found.answer
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines[-1].split()) <= 3:
        return trimmed(lines[-1])
    bracketed = re.findall(r"\(([A-Z])\)", text)
    if bracketed:
        return str(bracketed[-1])
    letters = [letter for letter in _LETTER.findall(lines[-1]) if letter not in "AI"]
    return str(letters[-1]) if letters else None


_READERS: dict[str, Callable[[str], str | None]] = {
    "math": _marked(ALL),
    "gsm8k": _marked(("hash",)),
    "boxed": _marked(("box",)),
    "answer_is": _marked(("phrase",)),
    "last_number": _last_number,
    "choice": _choice,
}
