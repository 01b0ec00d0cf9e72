"""Finds the turn that answers the question. Marks of turns, and answers to other questions, are not part of its answer.

In: a text. Out: the text of the turn, and its parts before and after questions that the policy has made up.
"""

from __future__ import annotations

import re

from verifiers.read.masks import words_of
from verifiers.read.thoughts import lowered

_SPECIAL = re.compile(
    r"<[|｜][^<>|｜\n]{1,48}[|｜]?>|</?s>|<(?:eos|bos|pad|unk|end_of_turn|end_of_utterance|endoftext|eot|sep)>"
    r"|<start_of_turn>(?:user|model)?|\[/?INST\]|<\|im_(?:start|end)\|?|<end_of_sentence>|\[(?:EOS|BOS|UNK|PAD)\]"
)
_ENDS = re.compile(r"end|eo[sturm]|</s>|return|/INST\]|sep|_eo", re.IGNORECASE)
_SKIPPED = re.compile(r"end_header|begin|bos|end_of_thought", re.IGNORECASE)
_GOES_ON = re.compile(r"\s{0,8}(?:<[^<>\n]{1,48}>\s{0,8}){0,3}(?:assistant|model\b|\Z|<\|channel\|?>|<\|message\|?>)")
_STARTS_USER = re.compile(r"<start_of_turn>user|\[INST\]|<[|｜](?:user|human)[|｜]?>", re.IGNORECASE)
_ROLE = re.compile(r"\s{0,8}(user|system|tool|human)\b", re.IGNORECASE)
_NEXT = re.compile(
    r"(?:\n|\A)[ \t>*#_]{0,12}(?:(?:Next|New|Another|Follow-?up)\s)?"
    r"(Question|Problem|Exercise|Q|Human|User|Instruction|Task|Example|Student|Input|问题|题目|問題|Pregunta|Problema|Frage"
    r"|Aufgabe|Вопрос|Задача|Domanda|Pergunta|Exercice|Swali|คำถาม|প্রশ্ন|ప్రశ్న|문제|질문)"
    r"[ \t]{0,3}(?:#?\d{1,3})?[*_ \t]{0,4}[:：][*_]{0,2}"
    r"|\n[ \t]{0,4}#{1,4}[ \t]{0,3}(Instruction|Question|Input|Human|User|Problem|Exercise)\b[^\n]{0,20}(?=\n)"
    r"|\n\n(Problem|Question|Exercise)[ \t]{0,3}(?:\d{0,3}\.?[ \t]{0,3}(?=\n)|\d{1,3}[.)][ \t])",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n\n(?=[A-Z\d])")
_OWN_WORDS = re.compile(r"\b(?:i|we|our|us|let|check|wait|but|step|case|part)\b")
_STORY = re.compile(
    r"(?:(?P<number>\d{1,2}[.)])\s)?(?P<facts>[^?\n]{3,900}[.]\s)?[^?\n]{0,300}\b(?:how|what|which|find|when|who)\b"
    r"[^?\n]{2,300}\?[ \t]{0,3}(?:\n|\Z|(?=the answer))"
)
_STATED = re.compile(r"answer|####|boxed")
_ASKS = words_of(
    "question problem exercise q: q*: q**: q1 q2 q3 human user instruction task example student input"
    " 问题 题目 問題 pregunta"
    " frage aufgabe вопрос задача domanda pergunta exercice swali คำถาม প্রশ্ন ప్రశ్న 문제 질문"
)
MAX_QUESTIONS = 64


def turn_of(text: str) -> str:
    """Return the text up to the end of the turn, without special tokens and without the turns of other roles."""
    if "<" not in text and "[" not in text:
        return text
    kept: list[str] = []
    at, said = 0, False
    for match in _SPECIAL.finditer(text):
        mark, piece = match.group(), text[at : match.start()]
        kept.append(piece)
        said = said or bool(piece.strip())
        at = match.end()
        if said and (_STARTS_USER.match(mark) or _ROLE.match(text, at) or _ends_turn(mark, text, at)):
            return "".join(kept)
        if mark.lower().startswith("<|channel") or mark.startswith("<|start_header"):
            at = _after_header(text, at)
    return "".join((*kept, text[at:]))


def _ends_turn(mark: str, text: str, at: int) -> bool:
    return bool(_ENDS.search(mark)) and not _SKIPPED.search(mark) and not _GOES_ON.match(text, at)


_HEADER = re.compile(r"[a-z]{1,20}(?=<\|)")


def _after_header(text: str, at: int) -> int:
    """Return the index after the name of a channel or role."""
    match = _HEADER.match(text, at)
    return match.end() if match else at


def asked_parts(text: str) -> list[str]:
    """Cut the text before each question that its writer may have made up, at most ``MAX_QUESTIONS`` times.

    If a text begins with a question (it splits a problem into parts), its numbered questions are not cuts.
    """
    low = lowered(text)
    story = _next_story(text, low)
    if story is not None:
        text, low = text[:story], low[:story]
    if not any(map(low.__contains__, _ASKS)):
        return [text]
    parts: list[str] = []
    at = 0
    known: set[str] = set()
    for match in _NEXT.finditer(text):
        name = next(group for group in match.groups() if group).lower()
        if not text[at : match.start()].strip() and not parts:
            known.add(name)
            continue
        if name in known and re.search(r"\d", match.group()):
            continue
        parts.append(text[at : match.start()])
        at = match.start()
        if len(parts) >= MAX_QUESTIONS:
            break
    parts.append(text[at:])
    return parts


def _next_story(text: str, low: str) -> int | None:
    """Return where a made-up word problem begins that has no heading, or None.

    It is a paragraph after an answer that consists of facts and a question.
    """
    mark = _STATED.search(low) if "?" in low else None
    if mark is None:
        return None
    for match, _ in zip(_PARAGRAPH.finditer(text, mark.end()), range(MAX_QUESTIONS), strict=False):
        story = _STORY.match(low, match.end())
        if story is None or not (story["number"] or story["facts"]) or _OWN_WORDS.search(story.group()):
            continue
        if re.search(r"\d", story.group()):
            return match.start()
    return None
