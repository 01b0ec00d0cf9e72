"""Cleans a text: gives one spelling to what Unicode and LaTeX write in many ways. It reads no mathematics.

In: raw text of any origin, which may hold lone surrogates, control characters and right-to-left marks. Out: plain text
in which digits, minus signs, spaces, fractions and delimiters have one spelling.
"""

from __future__ import annotations

import re
import unicodedata

_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_SUPER = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUB = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₖ", "0123456789+-()nik", strict=True))
_SYMBOLS = {
    **dict.fromkeys("−–—‒―﹣－‐‑", "-"),
    **dict.fromkeys("×✕✖⨯∗＊", "\\times "),
    **dict.fromkeys("·⋅•∙‧", "\\cdot "),
    **dict.fromkeys("÷", "\\div "),
    **dict.fromkeys("⁄∕／", "/"),
    **dict.fromkeys([*map(chr, range(0x2000, 0x200B)), "\u00a0", "\u202f", "\u205f", "\u3000", "\t"], " "),
    **dict.fromkeys(map(chr, [*range(0x200B, 0x2010), *range(0x202A, 0x202F)]), ""),
    **dict.fromkeys(map(chr, [*range(0x2060, 0x206A), 0xFEFF, 0xAD]), ""),
    "≤": "\\le ", "≦": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "≧": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ",
    "±": "\\pm ", "∓": "\\mp ", "∞": "\\infty ", "π": "\\pi ", "Π": "\\Pi ", "θ": "\\theta ", "α": "\\alpha ",
    "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "λ": "\\lambda ", "μ": "\\mu ", "µ": "\\mu ", "φ": "\\phi ",
    "ω": "\\omega ", "σ": "\\sigma ", "ρ": "\\rho ", "τ": "\\tau ", "ε": "\\epsilon ", "∪": "\\cup ", "∩": "\\cap ",
    "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}", "°": "^\\circ ", "º": "^\\circ ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...",
    "，": ",", "、": ",", "；": ";", "：": ":", "（": "(", "）": ")",
    "［": "[", "］": "]", "｛": "{", "｝": "}", "＝": "=",
    "＋": "+", "％": "%", "．": ".", "。": ".",
    "＜": "<", "＞": ">", "＾": "^", "＿": "_", "｜": "|", "＄": "\\$", "∶": ":",
    "٪": "%", "٫": ".", "٬": ",", "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "→": "\\to ", "⇒": "\\Rightarrow ",
    "∖": "\\setminus ", "∨": "\\lor ", "∧": "\\land ", "∣": "|", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ",
    "⌉": "\\rceil ", "⟨": "\\langle ", "⟩": "\\rangle ", "﹪": "%", "⊂": "\\subset ", "⊆": "\\subseteq ",
    "∠": "\\angle ", "∡": "\\angle ", "△": "\\triangle ", "∀": "\\forall ",
}  # fmt: skip
_TABLE = str.maketrans(_SYMBOLS)
_SPECIAL = re.compile("[" + re.escape("".join((*_VULGAR, *_SUPER, *_SUB))) + "√∛∜]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_MARKED = re.compile(r"\s*(\d+|[A-Za-z]|\([^()]{0,80}\)|\{[^{}]{0,80}\})?")


def decoded(value: object, argument: str) -> str | None:
    """Return the text of an input argument: a string unchanged, bytes decoded as UTF-8.

    Returns None for None and for undecodable bytes. Raises ``TypeError``, which names ``argument``, for every other
    type.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            return None
    raise TypeError(f"{argument} must be str, bytes or None, not {type(value).__name__}")


def has_damage(text: str) -> bool:
    """Whether the text holds control characters or lone surrogates, which no answer contains."""
    return _CONTROL.search(text) is not None


def plain(text: str) -> str:
    """Replace Unicode digits, signs, spaces, fractions, powers and roots by one ASCII or LaTeX spelling."""
    if text.isascii():
        return text.replace("\t", " ") if "\t" in text else text
    text = _SPECIAL.sub(_spelled, text.translate(_TABLE))
    text = _roots(text)
    if text.isascii():
        return text
    return "".join(_digit(char) for char in text)


def _spelled(match: re.Match[str]) -> str:
    run, out, index = match.group(), [], 0
    if run[0] in "⁰¹²³" and match.start() and match.string[match.start() - 1] == "^":
        return "".join(_SUPER.get(char, char) for char in run)
    while index < len(run):
        char, table, mark = run[index], None, ""
        if char in _VULGAR:
            top, bottom = _VULGAR[char].split("/")
            out.append(f"\\frac{{{top}}}{{{bottom}}}")
            index += 1
            continue
        if char in _SUPER:
            table, mark = _SUPER, "^"
        elif char in _SUB:
            table, mark = _SUB, "_"
        if table is None:
            out.append(char)
            index += 1
            continue
        end = index
        while end < len(run) and run[end] in table:
            end += 1
        out.append(mark + "{" + "".join(table[c] for c in run[index:end]) + "}")
        index = end
    return "".join(out)


def _roots(text: str) -> str:
    for sign, command in (("√", "\\sqrt"), ("∛", "\\sqrt[3]"), ("∜", "\\sqrt[4]")):
        while sign in text:
            at = text.index(sign)
            match = _MARKED.match(text, at + 1)
            argument = match.group(1) if match else None
            if not match or argument is None:
                text = text[:at] + command + " " + text[at + 1 :]
                continue
            inner = argument[1:-1] if argument[0] in "({" else argument
            text = text[:at] + command + "{" + inner + "}" + text[match.end() :]
    return text


def _digit(char: str) -> str:
    if char.isascii():
        return char
    value = unicodedata.decimal(char, None)
    if value is not None:
        return str(value)
    folded = unicodedata.normalize("NFKC", char)
    return folded if folded.isascii() and folded.isalnum() else char


_DELIMITERS = re.compile(r"(?<!\\)\$|(?<!\\)\\[()\[\]]|\\(?:displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])")
_SPACES = re.compile(
    r"(?<!\\)\\[,!;:> ]|\\q?quad|\\(?:enspace|thinspace|hfill|null)(?![a-zA-Z])"
    r"|(?<!\\)~|\s+"
)
_SIZES = re.compile(
    r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|big|Big|bigg|Bigg|middle)(?![a-zA-Z])\s*\.?(?=\s*[\\()\[\]|/{}.]|\s*$)"
)
_FRACTIONS = re.compile(r"\\(?:[dtcsx]|nice)frac(?![a-zA-Z])")
_GROUPED = re.compile(r"(?<=\d)\s*(?:\{\s*,\s*\}|,\s*\\!)\s*(?=\d{3})")
_THIN = re.compile(r"(?<=\d)\\[,;!](?=\s*\d{3}(?!\d))\s*")
_BACKSLASHES = re.compile(r"\\+")
_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\+(?:[A-Za-z]{2}|[{}%$_&#]|[,!](?=\s*\d{3}))")
_ESCAPABLE = re.compile(r"[A-Za-z{}%$_&#,!]")


def undoubled(text: str) -> str:
    r"""Halve the backslashes of a text that was clearly escaped once too often.

    A text was escaped too often if a command follows a doubled backslash and no run of backslashes is odd. Row breaks
    of a matrix stay. In a text without rows (no ``\\begin``), a doubled backslash before a command is never a row
    break. There it becomes a single backslash even if another run is odd.
    """
    for _ in range(3):
        if _ESCAPED_TWICE.search(text) is None:
            break
        rows, runs = "\\begin" in text, [len(run) for run in _BACKSLASHES.findall(text)]
        if any(run % 2 for run in runs):
            return text if rows else re.sub(r"(?<!\\)\\\\+(?=[A-Za-z]{2})", r"\\", text)
        text = _BACKSLASHES.sub(_halved_beside_rows if rows and max(runs) == 2 else _halved, text)
    return text


def _halved(run: re.Match[str]) -> str:
    return "\\" * (len(run.group()) // 2)


def _halved_beside_rows(run: re.Match[str]) -> str:
    return "\\" if _ESCAPABLE.match(run.string, run.end()) else run.group()


def tidy(text: str) -> str:
    """Remove LaTeX that only changes the look: ``$``, ``\\left``, thin spaces, ``\\displaystyle``.

    Outer white space is removed too. Dollar signs written ``\\$`` stay. First, the digit groups ``1{,}000``,
    ``1,\\!000`` and ``1\\,000`` become ``1,000``.
    """
    if "\\" in text or "{" in text:
        text = undoubled(text) if "\\\\" in text else text
        text = _GROUPED.sub(",", text)
        text = _THIN.sub(",", text)
        text = _SIZES.sub("", text)
        text = _FRACTIONS.sub(r"\\frac", text)
    if "$" in text or "\\" in text:
        text = _DELIMITERS.sub(" ", text)
    return _SPACES.sub(" ", text).strip()
