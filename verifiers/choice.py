"""Compares answers to multiple choice, which name an option by its letter or by its text.

In: a reference, an answer and the options, if known. Out: a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from verifiers.api import verify
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.read import extract_answer
from verifiers.text import decoded, plain, tidy
from verifiers.verdict import Verdict

Options = Sequence[str] | Mapping[str, str]

_WRAPPERS = re.compile(r"\\(?:text|mbox|textbf|mathrm|mathbf|textrm|textit|boldsymbol)\s*\{([^{}]*)\}")
_NAMED = re.compile(r"(?:\b(?:option|choice|answer)\s*)?[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:]?", re.IGNORECASE)
_LABELLED = re.compile(r"[(\[]?([A-Z])(?:[)\]][.:]?|[.:])\s*(\S.*)", re.DOTALL)


def verify_choice(
    reference: str | bytes | None,
    answer: str | bytes | None,
    *,
    options: Options | None = None,
    policy: Policy = DEFAULT_POLICY,
) -> Verdict:
    r"""Compare two choices. Each is a letter, ``(B)``, ``\text{(B)}`` or "B. twelve".

    ``options``: the option texts in order (lettered A, B, …), or a mapping from letter to text. With ``options``, a
    choice may also be the text of an option. An answer is ``unparsed`` if its label contradicts the text after it, or
    if it holds two letters.
    """
    left, right = decoded(reference, "reference"), decoded(answer, "answer")
    lettered = _lettered(options)
    read: list[str] = []
    for side, text in (("reference", left), ("answer", right)):
        letter, reason = _letter(text, lettered, policy)
        if letter is None:
            return Verdict("unparsed", None, read[0] if read else None, None, f"the {side} {reason}")
        read.append(letter)
    if read[0] == read[1]:
        return Verdict("equal", "identity", read[0], read[1], "the same option")
    return Verdict("unequal", "identity", read[0], read[1], "different options")


def _lettered(options: Options | None) -> dict[str, str]:
    if options is None:
        return {}
    if isinstance(options, (str, bytes)) or not isinstance(options, (Sequence, Mapping)):
        raise TypeError(f"options must be a sequence or a mapping, not {type(options).__name__}")
    if isinstance(options, Mapping):
        return {str(letter).strip("() .").upper(): text for letter, text in options.items()}
    return {chr(65 + index): text for index, text in enumerate(options[:26])}


def _letter(text: str | None, options: dict[str, str], policy: Policy) -> tuple[str | None, str]:
    if text is None or not text.strip():
        return None, "is missing"
    if len(text) > 200 or "boxed" in text or "\n" in text:
        found = extract_answer(text, "choice")
        if found is None:
            return None, "names no option"
        text = found
    clean = tidy(plain(text))
    for _ in range(3):
        clean = _WRAPPERS.sub(r"\1", clean).strip()
    clean = clean.strip("*_ ")
    named = _NAMED.fullmatch(clean)
    if named and (not options or named.group(1).upper() in options):
        exact = [letter for letter, option in options.items() if option.strip() == clean]
        return (exact[0] if len(exact) == 1 else named.group(1).upper()), ""
    labelled = _LABELLED.fullmatch(clean)
    if labelled:
        letter, rest = labelled.group(1), labelled.group(2)
        if not options:
            return letter, ""
        if letter in options:
            agrees = (
                verify(options[letter], rest, policy=policy) or options[letter].strip().lower() == rest.strip().lower()
            )
            return (letter, "") if agrees else (None, f"labels option {letter} but states another text")
    matches = [letter for letter, option in options.items() if verify(option, clean, policy=policy)]
    if len(matches) == 1:
        return matches[0], ""
    if matches:
        return None, "matches several options"
    prose = extract_answer(text, "answer_is")
    if prose is not None and prose != text:
        return _letter(prose, options, policy)
    return None, "names no option"
