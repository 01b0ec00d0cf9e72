r"""Removes dressing: text around a value that decorates or announces it, and is not part of the value.

In: one answer as text. Out: the answer without colours, sizes, quotes, ticks, HTML, Markdown, "Answer:" and a leading
"=".
"""

from __future__ import annotations

import re

from verifiers.limits import MAX_ANSWER

_COLOURED = re.compile(
    r"\\(?:textcolor|color|colorbox|fcolorbox|bbox|style|class|cssId"
    r"|htmlClass)(?![A-Za-z])\s{0,3}(?:\[[^\[\]]{0,80}\])?\s{0,3}"
)
_NAME = re.compile(r"\{[^{}\\]{0,60}\}\s{0,3}")
_SIZES = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle"
    r"|bfseries|itshape|centering"
    r"|mathstrut|strut|quad|qquad|hspace\{[^{}]{0,20}\}|[vh]?phantom\{[^{}]{0,40}\})(?![A-Za-z])\s{0,3}"
)
_WRAPPED = re.compile(
    r"\\(?:mathbf|boldsymbol|bm|underline|underbrace|ensuremath|mathit|emph|mbox|hbox|uline|pmb|mathcal)\s{0,3}"
    r"(?=\{(?!\s?\\?[ijk](?:math)?\s?\}))"
)
_TICKS = re.compile(
    r"[✓✔✅☑🎉👉🟢■□∎]\ufe0f?|\\(?:checkmark|qed)(?![A-Za-z])|\(\s?✓\s?\)"
    r"|(?<=\S)\s{0,3}\\(?:blacksquare|square|Box|blacktriangle)\s{0,3}\Z"
)
_FORMATTING = re.compile(
    r"</?(?:b|strong|i|em|u|span|font|mark|code|p|div|sub|center|big|br|h[1-6]|ul|ol|li)(?:\s[^<>]{0,120})?\s?/?>",
    re.IGNORECASE,
)
_TAGS = re.compile(
    r"</?(?:b|strong|i|em|u|span|font|mark|code|p|div|sub|center|big|answer|final_answer|solution|box"
    r"|boxed|br|td)(?:\s[^<>]{0,120})?/?>",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(
    r"\s{0,3}(?:\\(?:text|mbox|textbf|mathrm|mathbf|textrm)\s{0,3}\{\s{0,3})?(?:the\s)?(?:final\s"
    r"|correct\s)?(?:answer|ans|result|solution)\}?\s{0,3}"
    r"(?:is(?![A-Za-z])|are(?![A-Za-z])|[:=]|is\s?:)\s{0,3}(?P<rest>[^{}]{0,200}\})?\s{0,3}",
    re.IGNORECASE,
)
_REMARK = re.compile(r"(?<=\S)\s{0,3}\\(?:text|mbox|textrm)\s?\{\s?\((?:since|because|as)\b[^(){}]{2,80}\)\s?\}\Z")
_ALIGNED = re.compile(
    r"\A\\begin\{(?:aligned|align\*?|gathered|equation\*?"
    r"|split)\}([^&\\]{1,300})\\end\{[a-z]{1,12}\*?\}\Z"
)
_EQUALS = re.compile(r"\s{0,3}(?:=|:|&=|\\implies|\\Rightarrow|\\therefore|∴|⇒)(?![=A-Za-z])\s{0,3}")
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "`": "`", "«": "»", "„": "“", "「": "」", "『": "』", "【": "】"}
_SIGNS = re.compile(r"[\\<✓✔✅☑🎉👉🟢■□∎]")


def without_tags(text: str) -> str:
    """Remove HTML tags that only format a text. A tag that ends a line or a paragraph becomes a line break."""
    return _FORMATTING.sub(
        lambda match: "\n" if match.group()[1:4].lower() in ("br>", "br/", "br ", "/p>") else "", text
    )


def undressed(text: str) -> str:
    """Remove the dressing around an answer. The result is empty only if the answer is empty."""
    bare = text.strip()
    if _SIGNS.search(bare):
        bare = _TAGS.sub("", _TICKS.sub("", bare)).strip()
        bare = _SIZES.sub("", _WRAPPED.sub("", bare)) if "\\" in bare else bare
        bare = _ALIGNED.sub(r"\1", bare)
        bare = _uncoloured(bare) if _COLOURED.search(bare) else bare
    bare = _REMARK.sub("", bare) if ")" in bare else bare
    for _ in range(4):
        before = bare
        bare = _unquoted(bare.strip())
        bare = _unannounced(bare)
        if bare == before:
            break
    return bare or text.strip()


def _uncoloured(text: str) -> str:
    """Remove colour commands and the names of the colours. The coloured text stays, with its braces if it has any."""
    for _ in range(8):
        match = _COLOURED.search(text)
        if match is None:
            return text
        end, name = match.end(), _NAME.match(text, match.end())
        while name is not None and text[name.end() : name.end() + 1] == "{":
            end = name.end()
            name = _NAME.match(text, end)
        command = match.group().lstrip("\\")
        if name is not None and (end == match.end() and not command.startswith("bbox")):
            end = name.end()
        text = text[: match.start()] + text[end:]
    return text


def _unquoted(text: str) -> str:
    """Remove pairs of quotes, asterisks, braces or dollar signs that wrap the whole text."""
    for _ in range(8 if len(text) <= MAX_ANSWER else 0):
        if len(text) <= 2:
            break
        if _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
            text = text[1:-1].strip()
        elif text.startswith("**") and text.endswith("**") and "**" not in text[2:-2] and len(text) > 4:
            text = text[2:-2].strip()
        elif text[0] == "{" and text[-1] == "}" and _is_group(text):
            text = text[1:-1].strip()
        else:
            break
    return text


def _is_group(text: str) -> bool:
    r"""Whether braces around a text only group it. They do not if they hold a list (then they are a set), ``\choose``
    or ``\over``."""
    return text[-2] != "\\" and not any(sign in text for sign in (",", "\\choose", "\\over", "\\atop")) and _whole(text)


def _whole(text: str) -> bool:
    """Whether the first brace closes at the last one."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return index == len(text) - 1
    return False


def _unannounced(text: str) -> str:
    match = _ANNOUNCED.match(text)
    if match is not None and match.end() < len(text):
        inner = (match.group("rest") or "").rstrip("} ")
        rest = text[match.end() :]
        if inner.strip() or rest.strip():
            return f"{inner} {rest}".strip()
    elif match is not None and (match.group("rest") or "").rstrip("} "):
        return match.group("rest").rstrip("} ").strip()
    match = _EQUALS.match(text)
    return text[match.end() :] if match is not None and match.end() < len(text) else text
