# ruff: noqa: E501
"""Answers that try to hang, crash, blow up or take over a grader: none of them is right.

In: nothing. Out: (kind, reference, answer) triples, the same every time. Code that ran would leave the file ``CANARY``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

CANARY = str(Path(tempfile.gettempdir()) / "verifiers-canary")


def hostile_answers() -> list[tuple[str, str, str]]:
    """All hostile pairs; at least three hundred."""
    found: list[tuple[str, str, str]] = []
    for kind, make in _KINDS.items():
        for item in make():
            reference, answer = item if isinstance(item, tuple) else ("5", item)
            found.append((kind, reference, answer))
    return found


def _towers() -> list[str | tuple[str, str]]:
    plain = [
        "9^9^9^9", "9^{9^{9^9}}", "10^{10^{10^{10}}}", "2**2**2**2**2**2", "9**9**9**9**9", "(9^9)^(9^9)^(9^9)", "1e999999999",
        "1e-999999999", "10^{-10^{10}}", "10^{10^{100}}", "2^{10^{18}}", "e^{e^{e^{e^e}}}", "\\pi^{\\pi^{\\pi^{\\pi^\\pi}}}",
        "i^{i^{i^{i^i}}}", "\\sqrt{9^{9^{9^9}}}", "\\frac{9^{9^{9^9}}}{9^{9^{9^9}}}", "9^{9^{9^9}} - 9^{9^{9^9}} + 5",
        "0^{9^{9^9}} + 5", "1^{9^{9^{9}}} + 3", "(-1)^{9^{9^{9}}}", "x^{9^{9^9}}", "9^{x^{9^{9}}}", "\\log(9^{9^{9^9}})",
        "\\sin(9^{9^{9^9}})", "\\exp(\\exp(\\exp(\\exp(10))))", "e^{10^{30}}", "\\cosh(10^{20})", "\\tan(10^{10^5})",
        "2^{1000000}", "3^{-1000000}", "(1+1/10^{9})^{10^{9}}", "1.0000001^{1e12}", "7^{7^7} \\bmod 10", "\\sqrt[10^{9}]{2}",
        "2^{\\frac{1}{10^{9}}}", "\\infty^\\infty", "10^{1000}!", "0^{0^{0^{0}}} + 0^{-1}",
    ]  # fmt: skip
    equal_looking: list[str | tuple[str, str]] = [
        ("9^{9^{9^9}}", "9^{9^{9^9}+1}"), ("1", "2^{2^{-9000}}"), ("10^{100000}", "10^{100000}+1"), ("1", "\\cos(10^{-400})"),
        ("0", "e^{-10^{7}}"), ("9^{9^9}", "9^{9^9}-1"), ("2^{99999}", "2^{99999}+1"),
    ]  # fmt: skip
    nested = ["^".join(["3"] * n) for n in (6, 12, 24, 50)] + [
        "^{".join(["2"] * n) + "}" * (n - 1) for n in (6, 12, 40, 59)
    ]
    return [*plain, *equal_looking, *nested]


POWER_BASES = [
    "(\\sin 1)", "0.99", "\\frac{99}{100}", "(1+10^{-9})", "(\\sqrt2-1)", "(\\ln 3)", "(\\cos 1+i\\sin 1)", "(-0.99)", "x", "e^{i}",
    "(\\pi/3)", "i", "(-1)", "2", "(x+1)", "(\\sqrt{2})", "\\tan(1)", "|x|", "1.0000001", "\\infty",
]  # fmt: skip
"""Bases of every size: below, above, at and close to one, real, complex and with a symbol."""
POWER_EXPONENTS = [
    "\\pi^{1000000}", "10^{5000}", "10^{300}", "10^{9}", "e^{10^4}", "10^{10^{10}}", "(1000!)", "-10^{5000}", "\\frac{1}{10^{5000}}",
    "\\sqrt{10^{5001}}", "100000", "\\binom{1000}{500}", "x^{1000}", "2^{x}", "9999!", "(\\pi\\cdot 10^{900})", "\\sum_{k=1}^{500} k!",
]  # fmt: skip
POWER_PLACES = [
    "%s",
    "\\sin(%s)",
    "(%s)!",
    "\\binom{1000}{%s}",
    "\\sum_{k=1}^{500} (%s)",
    "\\lfloor %s\\rfloor",
    "e^{%s}",
]


def powers() -> list[tuple[str, str]]:
    """Every base to every exponent in every place: pairs that are decided, or left to a worker, at once."""
    return [
        ("\\sqrt{2}", place % f"{base}^{{{exponent}}}")
        for place in POWER_PLACES
        for base in POWER_BASES
        for exponent in POWER_EXPONENTS
    ]


def _powers() -> list[str | tuple[str, str]]:
    reported = [
        "(\\sin 1)^{\\pi^{1000000}}",
        "0.99^{10^{5000}}",
        "0.99^{10^{4000}}",
        "|e^{((\\gcd(500,400))^{1000+y})^2}|",
    ]
    chosen: list[str | tuple[str, str]] = [*reported]
    chosen += powers()[::61]
    return chosen


def _factorials() -> list[str | tuple[str, str]]:
    return [
        "100000!", "(10!)!", "((5!)!)!", "5!!!!!!!!", "(10^9)!", "170!!", "1000000!!", "\\binom{10^9}{5\\cdot 10^8}",
        "\\binom{100000}{50000}", "\\prod_{k=1}^{10^9} k", "\\sum_{k=1}^{10^{12}} \\frac{1}{k}", "\\sum_{k=1}^{10^9} k^{10^9}",
        "\\sum_{i=1}^{100} \\sum_{j=1}^{100} \\sum_{k=1}^{100} ijk", "\\prod_{k=1}^{60} \\prod_{j=1}^{60} (k+j)!", "(x!)!",
        "(1/2)!", "(-1)!", "(-5)! + 10", "\\frac{100000!}{99999!}", "\\frac{(10^6)!}{(10^6-1)!} - 1", "n!!!!", "\\sum_{k=1}^{n!} k",
        "\\sum_{n=0}^{\\infty} \\frac{1}{n!}", "\\sum_{k=1}^{500} k!", "\\prod_{k=1}^{500} k!", "\\gcd(10^{5000}, 10^{4999})",
        "9999!", "999!^{999!}", "999!^{999}", "\\lfloor 10^{10^{10}} \\rfloor", "\\sum_{k=-10^{9}}^{10^9} k", "\\binom{x}{10^9}",
    ]  # fmt: skip


def _digits() -> list[str | tuple[str, str]]:
    made: list[str | tuple[str, str]] = []
    for n in (1_001, 4_299, 4_301, 5_000, 20_000, 100_000, 1_000_000):
        made += ["9" * n, "0." + "3" * n, "1/" + "7" * n, "-" + "1" * n + ".5"]
    made += ["1" + ",000" * 400, "1" + ",000" * 100_000, "1e" + "9" * 1000, "1e" + "9" * 100_000, "0" * 100_000 + "6"]
    made += [
        "\\frac{" + "8" * 3000 + "}{" + "9" * 3000 + "}",
        "0.\\overline{" + "12345" * 5000 + "}",
        "7_{" + "9" * 5000 + "}",
    ]
    made += ["1 " * 50_000, "1," * 50_000, "1+" * 1900 + "1", "1*" * 1900 + "1", "-" * 3000 + "5", "9" * 999 + "!"]
    made += ["1\\pm +5", "1\\mp -" * 300 + "5", "1\\pm" + "+-" * 1900 + "5", "+-" * 1900 + "4"]
    made += [("9" * 900, "9" * 899 + "8"), ("0." + "1" * 900, "0." + "1" * 899 + "2")]
    return made


def _nesting() -> list[str | tuple[str, str]]:
    shapes = [
        ("(", ")"), ("[", "]"), ("{", "}"), ("\\{", "\\}"), ("\\sqrt{", "}"), ("\\frac{1}{", "}"), ("2^{", "}"), ("|", "|"),
        ("\\left(", "\\right)"), ("\\lfloor ", "\\rfloor "), ("\\sin(", ")"), ("f(", ")"), ("\\boxed{", "}"), ("\\text{", "}"),
        ("x_{", "}"), ("\\begin{pmatrix}", "\\end{pmatrix}"), ("$", "$"), ("-(", ")"), ("\\binom{5}{", "}"), ("(1,", ")"),
    ]  # fmt: skip
    made: list[str | tuple[str, str]] = []
    for opening, closing in shapes:
        made.extend(opening * depth + "1" + closing * depth for depth in (70, 10_000))
        made.append(opening * 5_000)
    return made


def _code() -> list[str | tuple[str, str]]:
    touch = f"touch {CANARY}"
    return [
        f"__import__('os').system('{touch}')", f"__import__('os').system('{touch}') or 5", f"exec(\"import os; os.system('{touch}')\")",
        f"eval(\"__import__('os').system('{touch}')\")", f"open('{CANARY}', 'w').write('x')", f"5 if open('{CANARY}','w') else 5",
        f"(lambda: __import__('os').system('{touch}'))()", f"[__import__('os').system('{touch}') for x in [1]]",
        f"compile('import os; os.system(\"{touch}\")', '', 'exec')", f"print(5); import os; os.system('{touch}')",
        "().__class__.__bases__[0].__subclasses__()", "x.__class__.__mro__", "(1).__class__", "''.__class__.__mro__[1]",
        "Integer(5).__class__", "sympify('5')", "S('5')", "Symbol('x').__init__.__globals__", "x.func.__globals__['__builtins__']",
        f"\\input{{{CANARY}}}", f"\\immediate\\write18{{{touch}}}", f"\\openout1={CANARY}", "\\def\\x{\\x\\x}\\x", "\\csname x\\endcsname",
        "\\catcode`\\@=11", "\\loop\\iftrue\\repeat", f"$(({touch}))", f"`{touch}`", f"$({touch})", f"; {touch}", f"5; {touch} #",
        f"5 && {touch}", f"| {touch}", "{{7*7}}", "${7*7}", "%s%s%s%n", "{0.__class__}", "' OR 1=1 --", "<script>alert(1)</script>",
        "!!python/object/apply:os.system ['true']", "cos\nsystem\n(S'true'\ntR.", "\\x80\\x04\\x95", "import os", "while True: pass",
        "while 1: 1", "raise SystemExit", "exit()", "quit()", "assert False", "yield 5", "del x", "global x", "@x", "x := 5 := x",
        "lambda x: x", "5 .__add__(0)", "f'{5}'", "b'5'", "0x5", "0b101", "5_000_0", "5j", "...", "None", "NaN", "nan", "True", "__debug__",
    ]  # fmt: skip


def _malformed() -> list[str | tuple[str, str]]:
    return [
        "\\frac{1}{", "\\frac", "\\frac{", "\\frac{}{}", "\\frac{1}", "\\sqrt", "\\sqrt[", "\\sqrt[3]", "\\sqrt{", "\\sqrt[x", "{", "}", "{}", "}{",
        "\\", "\\\\", "\\\\\\", "\\begin{pmatrix}", "\\end{pmatrix}", "\\begin{pmatrix}1\\end{bmatrix}", "\\begin{pmatrix}1&2\\\\3\\end{pmatrix}",
        "\\begin{pmatrix}\\end{pmatrix}", "\\begin", "\\begin{", "\\begin{array}{cc}", "^", "_", "^2", "_2", "x^", "x_", "x^^2", "x__2", "x^_2",
        "$", "$$", "$$$", "$$$$", "\\(", "\\)", "\\[", "\\]", "\\left(", "\\right)", "\\left", "\\left.5", "(5", "6)", "[5", "(5]", "5)(", "()", "[]",
        "\\{\\}", "\\boxed{}", "\\boxed{", "\\boxed", "\\boxed{6", "\\text{", "\\text{}", "\\text", "+", "-", "*", "/", "=", "5=", "=5=", "5+", "*5", "/5",
        "5//6", "5**", "5^*2", "5..6", "5.6.7", "1,,2", ",", ",,,", ";", ":", "1:2:3:4", "%", "%%", "5%%", "!", "!!", "5 6 7", "\\over", "1 \\over 2 \\over 3",
        "\\sin", "\\log_", "\\sum", "\\sum_{k}", "\\sum_{k=1}", "\\sum_{k=1}^", "\\int", "\\lim", "\\binom{5}", "\\mathbb", "\\mathbb{Q9}", "|", "||", "|5",
        "\\pm", "\\pm\\pm 5", "\\infty - \\infty", "\\frac{0}{0}", "1/0", "0^{-1}", "\\log 0", "\\ln(-1)", "\\tan\\frac{\\pi}{2}", "\\unknowncommand{5}",
        "5\\\\6", "5&6", "#5", "5#", "~", "5~6", "@", "?", "5?", "¿5?", "<", ">", "<5", "5<", "<>", "1<2<", "\\in", "x\\in", "\\cup", "[1,2]\\cup", "\\emptyset\\emptyset",
    ]  # fmt: skip


def _unicode() -> list[str | tuple[str, str]]:
    return [
        "5\x00", "\x005", "\x00", "\x00" * 1000, "5\x1b[2J", "\x7f", "\ud800", "5\udfff", "\udcff" * 100, "\u202e6", "\u202e" * 5000 + "6", "6\u200f",
        "\u200b" * 5000, "\ufeff6", "e\u0301" * 500, "\u0301" * 5000, "💥", "💥" * 2000, "五", "Ⅴ", "๖", "𝟔", "½½½", "²³", "⁵⁵⁵", "√√√√", "√" * 3000,
        "∛" * 1500 + "8", "∑∑∑", "∞∞", "±±±", "≤≤≤", "°°°", "½" * 1900, "⁹" * 3000, "9⁹⁹⁹⁹⁹⁹⁹⁹", "9⁹^⁹^⁹", "\u2028\u2029", "\x85", "ﷺ" * 1000, "Ａ", "ﬁ",
    ]  # fmt: skip


def _symbolic() -> list[str | tuple[str, str]]:
    many = "".join(f"(x+{k})" for k in range(1, 120))
    letters = "abcdghjklmnopqrstuvwxyz"
    made: list[str | tuple[str, str]] = [
        "(x+y+z)^{200}", "(a+b+c+d+g)^{60}", ("(x+1)^{1000}", "(x+1)^{1000}+1"), ("(x+y)^{500}", "(y+x)^{499}"), (many, many + "+1"),
        ("x", "\\sin(" * 40 + "x" + ")" * 40), ("x", "\\sqrt{" * 40 + "x" + "}" * 40), ("x", "\\log(" * 40 + "x" + ")" * 40),
        ("x", "|" * 3 + "x" + "|" * 3 + "+1"), ("\\sin x", "\\sin(x+10^{-30})"), ("e^x", "e^{x+10^{-40}}"), ("1", "\\sin^2(10^{50})+\\cos^2(10^{50})+10^{-70}"),
        ("\\zeta(3)", "\\zeta(5)"), ("x^x", "x^{x^x}"), ("x^{y^{z^w}}", "w^{z^{y^x}}"), ("\\cos(1000x)", "\\cos(1001x)"),
        ("\\sum_{k=1}^n k^{20}", "\\sum_{k=1}^n k^{21}"), ("\\prod_{k=1}^n \\sin k", "\\prod_{k=1}^n \\cos k"), ("n!", "(n+1)!"),
        ("\\binom{2n}{n}", "\\binom{2n+1}{n}"), ("\\arctan(\\arctan(\\arctan x))", "x"), ("+".join(letters), "+".join(letters[:-1])),
        ("(" + "+".join(letters) + ")^{8}", "(" + "+".join(letters) + ")^{7}"), ("\\sqrt{" + "+".join(f"\\sqrt{{{p}}}" for p in range(2, 30)) + "}", "13"),
        ("+".join(f"\\sqrt[{k}]{{{k + 1}}}" for k in range(2, 40)), "50"), ("\\sin(" + "+".join(f"{k}x" for k in range(1, 200)) + ")", "\\sin x"),
        ("\\tan(89.9999999999999999999^\\circ)", "1"), ("f(" * 30 + "x" + ")" * 30, "f(x)"), ("\\max(" + ",".join(map(str, range(900))) + ")", "900"),
        (",".join(map(str, range(1000))), ",".join(map(str, range(1, 1001)))), ("\\{" + ",".join(map(str, range(59))) + "\\}", "\\{" + ",".join(map(str, range(1, 60))) + "\\}"),
        (",".join(f"\\sin({k})" for k in range(55)), ",".join(f"\\cos({k})" for k in range(55))), ("[0,1]" + "\\cup[2,3]" * 100, "[0,1]"),
        ("\\begin{pmatrix}" + "\\\\".join("&".join("1" for _ in range(12)) for _ in range(12)) + "\\end{pmatrix}" * 1, "1"),
        ("\\begin{vmatrix}" + "\\\\".join("&".join(f"x^{i}y^{j}" for i in range(5)) for j in range(5)) + "\\end{vmatrix}", "1"),
        ("\\pm " * 30 + "1", "1"), ("\\pm x" * 12, "x"), ("x=" * 500 + "1", "2"), ("1<" * 500 + "x", "x>1"), ("x \\in " * 200 + "[0,1]", "[0,2]"),
        ("\\frac{\\sin x}{1+\\cos x}", "\\tan\\frac{x}{2} + 10^{-30}"), ("(\\sin^2 x + \\cos^2 x)^{300}", "2"), ("e^{\\sin(e^{\\sin(e^{\\sin x})})}", "x"),
    ]  # fmt: skip
    return made


def _long() -> list[str | tuple[str, str]]:
    patterns = [
        "x", "$", " ", "\n", "(", "\\", "{", "9,", "\\boxed{", "\\boxed{6} ", "the answer is ", "the answer is 6. ", "#### ", "#### 6\n",
        "\\(", "\\[", "$x$ ", "is ", "answer:", "Therefore ", "a.b.", "=", "\\frac{1}{2}", "1 and ", "<|", "**", "\\text{", "Note: ",
        "I think it is 6 or 7 or 8 ", "So it is $", "it's ", "\\left(", "1 ", "{,}", "\\,", "~", "\\!", "</a", "6%",
    ]  # fmt: skip
    made: list[str | tuple[str, str]] = []
    for pattern in patterns:
        made += [
            pattern * (199_000 // len(pattern)),
            pattern * (3_990 // len(pattern)),
            "The answer is " + pattern * 120,
        ]
    made += [
        "x" * 1_000_000,
        "the answer is 6. " * 60_000,
        "so it is $" + "x+" * 1_900 + "1$ or so",
        "The answer is " + "(" * 100_000,
    ]
    return made


_KINDS = {
    "towers": _towers,
    "powers": _powers,
    "factorials": _factorials,
    "digits": _digits,
    "nesting": _nesting,
    "code": _code,
    "malformed": _malformed,
    "unicode": _unicode,
    "symbolic": _symbolic,
    "long": _long,
}
