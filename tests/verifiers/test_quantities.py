# ruff: noqa: E501
"""Quantities: units, scale words, numbers in words, compounds, times, dates, ratios; each pair in both directions."""

import subprocess
import sys
from fractions import Fraction

import pytest

from verifiers import Policy, verify
from verifiers.exact import quantity
from verifiers.unit_table import known
from verifiers.units import NO_UNIT, parse_unit
from verifiers.wording import in_digits

EQUAL = [
    ("5 squared", "25"), ("5 cubed", "125"), ("5 factorial", "120"), ("x squared", "x^2"), ("2 hundred", "200"), ("1 dozen", "12"),
    ("two dozen", "24"), ("3\\text{ dozen}", "36"), ("1.2 \\text{ billion}", "1200000000"), ("1.5\\,\\text{million}", "1500000"),
    ("\\frac12\\text{ million}", "500000"), ("half a million", "500000"), ("5 hundred thousand", "500000"), ("12 halves", "6"),
    ("3 quarters", "0.75"), ("100 basis points", "1\\%"), ("100 basis points", "0.01"), ("12 negative integers", "12"),
    ("5 degrees below zero", "-5"), ("5 below zero", "-5"), ("2 hours 30 minutes", "2.5 hours"), ("2 hours and 30 minutes", "150 min"),
    ("2h30m", "150 minutes"), ("2\\text{ hours }30\\text{ minutes}", "2.5\\text{ hours}"), ("5 ft 3 in", "63 inches"), ('5\'3"', '5.25 feet'),
    ("5 feet, 3 inches", "63 in"), ("6 ft. 2 in.", "74 inches"), ("1 dollar and 50 cents", "\\$1.50"), ("\\$1 and 50 cents", "\\$1.5"),
    ("3 pounds 4 ounces", "52 oz"), ("1 minute 30 seconds", "90 seconds"), ("30^\\circ 15'", '30.25^\\circ'), ("2小时30分钟", "150分钟"), ("1元5角", "1.5元"),
    ("1 year 6 months", "18 months"), ("1 week 2 days", "9 days"), ("an hour and a half", "90 minutes"), ("half an hour", "30 minutes"),
    ("three quarters of an hour", "45 min"), ("2 1/2 hours", "150 minutes"), ("-2 hours 30 minutes", "-150 minutes"), ("5 mL", "5 cm^3"),
    ("1 L", "1000 cm^3"), ("1 L", "1000 mL"), ("5 cc", "5 mL"), ("1 m^3", "1000 L"), ("5℃", "5^\\circ C"), ("5 °C", "5 degrees Celsius"),
    ("5㎡", "5 m^2"), ("5 m2", "5 square meters"), ("5 平方米", "5 m^2"), ("60千米/小时", "60 km/h"), ("60公里每小时", "60 km/h"), ("5个", "5"), ("5 元", "5"),
    ("5只", "5"), ("5人", "5"), ("5円", "5"), ("5千克", "5 kg"), ("5公斤", "5000 g"), ("30度", "30°"), ("3万", "30000"), ("1.2亿", "120000000"), ("20%", "20％"),
    ("5 m/s", "18 km/h"), ("60 mph", "60 miles per hour"), ("1 acre", "43560 square feet"), ("1 hectare", "10000 m^2"), ("12 in", "1 foot"),
    ("1 mile", "5280 ft"), ("1 kWh", "3600000 J"), ("1 N", "1 kg m/s^2"), ("2 tons", "4000 lb"), ("1 gallon", "4 quarts"), ("8 fl oz", "1 cup"),
    ("12 apples", "12"), ("12 dollars per day", "12"), ("\\$12", "12"), ("12 people", "12"), ("12 bolts", "12"), ("366 downloads", "366"),
    ("18 dollars a day", "18"), ("\\$18 per day", "18"), ("12 slices of pizza", "12"), ("12 apples left", "12"), ("12 left", "12"),
    ("12 more apples", "12"), ("1 apple", "1"), ("12 years old", "12"), ("12 cm long", "12"), ("12 red apples", "12"), ("12 km per hour", "12"),
    ("12 in total", "12"), ("12 times", "12"), ("10weeks", "10"), ("12 apples each", "12"), ("$5k", "5000"), ("\\$1.2M", "1200000"),
    ("£3bn", "3000000000 pounds"), ("12 Eier", "12"), ("12 manzanas", "12"), ("12 яблок", "12"), ("5 часов", "5"), ("5 euros", "€5"),
    ("£5", "5 pounds"), ("two hundred", "200"), ("half", "0.5"), ("two-thirds", "2/3"), ("minus 5", "-5"), ("zero", "0"),
    ("three quarters", "\\frac34"), ("minus five", "-5"), ("twenty-one", "21"), ("two and a half", "2.5"), ("negative two thirds", "-\\frac23"),
    ("five apples", "5"), ("\\text{five}", "5"), ("fifty percent", "50\\%"), ("two and three", "2,3"), ("one, two and four", "1,2,4"),
    ("three point one four", "3.14"), ("pi over four", "\\frac{\\pi}{4}"), ("square root of two", "\\sqrt2"), ("one half", "1/2"),
    ("a quarter", "1/4"), ("one hundred and twenty-three", "123"), ("Twenty", "20"), ("minus x", "-x"), ("two pi", "2\\pi"), ("3:30 PM", "15:30"),
    ("3:30 p.m.", "3:30 PM"), ("half past three", "3:30"), ("3 p.m.", "3:00 PM"), ("3pm", "15:00"), ("noon", "12:00"), ("midnight", "0:00"),
    ("quarter to four", "3:45"), ("3 o'clock", '3:00'), ("three o'clock in the afternoon", '3 PM'), ("ten past five", "5:10"), ("3.30 pm", "15:30"),
    ("下午3点半", "15:30"), ("12 noon", "12:00 PM"), ("March 5", "5 March"), ("March 5th", "the 5th of March"), ("Mar. 5", "March 5"),
    ("March 5, 2024", "5 March 2024"), ("March 5, 2024", "2024-03-05"), ("March 5, 2024", "3/5/2024"), ("3月5日", "March 5"),
    ("June twentieth", "June 20"), ("March the 5th", "March 5"), ("1:2:3", "2:4:6"), ("1 : 2 : 3", "1:2:3"), ("1 to 2 to 3", "1:2:3"),
    ("3 to 4", "3:4"), ("3:4", "\\frac34"), ("three to four", "3:4"), ("2:3", "10:15"), ("1 in 6", "1/6"), ("3 out of 4", "0.75"),
    ("0.5:1:1.5", "1:2:3"), ("an ellipse", "ellipse"), ("a circle", "circle"), ("the circle", "a circle"), ("\\text{the origin}", "origin"),
    ("3 bananas", "3 bananas."), ("\\frac{1}{2}元", "0.5"),
]  # fmt: skip
DIFFERENT = [
    ("5", "5 squared"), ("5", "5 cubed"), ("5", "5 factorial"), ("12", "12 negative"), ("12", "12 halves"), ("12", "12 dozen"),
    ("1.2", "1.2 \\text{ billion}"), ("5", "5\\text{ million}"), ("100", "100 basis points"), ("33", "33a"), ("33", "33 a"), ("5", "5 below zero"),
    ("5", "minus five"), ("5", "negative 5"), ("1", "1 dozen"), ("5", "5 hundred"), ("5", "5 thirds"), ("5", "5 tenths"), ("3", "3 quarters"),
    ("2", "2 and a half"), ("2", "two and a half"), ("2", "2 hours 30 minutes"), ("2.3", "2 hours 30 minutes"), ("5", "5 ft 3 in"), ('5', '5\'3"'),
    ("1", "1 dollar and 50 cents"), ("5", "5 repeating"), ("0.3", "0.3 repeating"), ("5", "5 out of 7"), ("1", "1 in 6"), ("5", "5 remainder 2"),
    ("5", "5 mod 7"), ("5", "5 over 7"), ("5", "5 times 3"), ("5", "5 less than x"), ("5", "5 choose 2"), ("5", "5th"), ("5", "5 to the power of 2"),
    ("101", "101 base 2"), ("101", "101 binary"), ("5", "5万"), ("5", "5 万元"), ("5", "5成"), ("5", "5折"), ("3", "3 percent of x"), ("5 cm", "5 m"),
    ("5 L", "5 m^3"), ("5 apples", "5 oranges"), ("5", "5 plus 3"), ("5", "5 minus"), ("5", "5 or 6"), ("5", "5 and 6"), ("5", "5k"), ("5", "$5k"),
    ("5", "\\$5k"), ("5", "5 grand"), ("5", "5 pi"), ("5", "5e"), ("5", "5x"), ("5", "5i"), ("12", "12 hundred"), ("12", "12 score"),
    ("12", "12 gross"), ("3", "3 halves"), ("5", "5 inverse"), ("5", "5 doubled"), ("5", "5 tripled"), ("5", "5 squared meters squared"),
    ("7", "7 tens"), ("5", "5 hundredths"), ("5", "5 billionths"), ("5", "5 ppm"), ("0.5", "half a dozen"), ("20", "twenty-one"), ("3", "thirty"),
    ("2/3", "three halves"), ("200", "two thousand"), ("3/4", "four thirds"), ("-5", "five"), ("3:30 PM", "3:30 AM"), ("3:30 PM", "15:31"),
    ("half past three", "2:30"), ("half past three", "3:15"), ("quarter to four", "4:15"), ("March 5", "May 3"), ("March 5", "3/5"),
    ("March 5", "March 6"), ("March 5, 2024", "March 5, 2023"), ("1:2:3", "1:2:4"), ("1:2:3", "3:2:1"), ("1:2:3", "1/2"), ("1:2:3", "1:2"),
    ("1:3", "1:2:3"), ("3 to 4", "4:3"), ("5 ft 3 in", "5.3 ft"), ("2 hours 30 minutes", "2.3 hours"), ("5 mL", "5 L"), ("5℃", "5℉"), ("5℃", "5 cm"),
    ("5个", "6"), ("5 元", "5 美元"), ("circle", "sphere"), ("a circle", "a square"), ("5", "five hundred"), ("2", "two thirds"), ("1", "one half"),
    ("12", "12 less"), ("3", "3 fewer"), ("5", "5 short"), ("5", "5 more or less"), ("12", "12 am"), ("5", "5 north"), ("5", "5 in 6"),
    ("5", "5 negatives"), ("12", "12 opposites"), ("10", "10 hex"), ("5", "5 cubed meters"), ("6", "half a dozen dozen"), ("5", "5 dozen eggs"),
    ("5", "5 squared apples"), ("9", "9 square roots of 9"), ("3", "3 square roots"), ("5 km", "5 miles"), ("5 hours", "5 minutes"), ("0", "no"),
    ("1", "one or two"), ("4", "4 quarts 3 pints"), ("7", "7 sevenths"), ("7", "7 ninths"), ("8", "8 eighths"), ("5", "五十"), ("5", "5十"),
    ("2", "2 million dollars"), ("2", "\\$2 million"), ("5", "5 lakh"), ("5", "5 percent points over"), ("5", "5 log 2"), ("5", "-5 degrees"),
    ("4", "4 point 5"), ("2", "2 trillion"), ("2", "2 hundred thousand"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_one_quantity_in_two_spellings(reference: str, answer: str) -> None:
    for verdict in (verify(reference, answer), verify(answer, reference)):
        assert verdict.outcome == "equal", verdict


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_what_changes_a_number_is_never_dropped(reference: str, answer: str) -> None:
    for verdict in (verify(reference, answer), verify(answer, reference)):
        assert not verdict, verdict


@pytest.mark.parametrize(
    ("reference", "answer", "policy", "expected"),
    [
        ("March 5", "3/5", Policy(), False),
        ("March 5", "3/5", Policy(dates="month_first"), True),
        ("March 5", "3/5", Policy(dates="day_first"), False),
        ("3 May", "3/5", Policy(dates="day_first"), True),
        ("3 May 2024", "3/5/2024", Policy(dates="day_first"), True),
        ("25 December 2024", "25/12/2024", Policy(), True),
        ("3/5", "6/10", Policy(dates="month_first"), True),
        ("12 apples", "12", Policy(units="required"), False),
        ("3 p.m.", "3", Policy(units="required"), False),
    ],
)
def test_policies_of_dates_and_units(reference: str, answer: str, policy: Policy, expected: bool) -> None:
    assert bool(verify(reference, answer, policy=policy)) is expected


def test_units_have_exact_sizes() -> None:
    assert known("inches") == ((("length", 1),), Fraction(254, 10000))
    assert known("mL") == ((("length", 3),), Fraction(1, 10**6))
    assert known("公里") == known("km")
    assert known("apples") is None


@pytest.mark.parametrize("text", ["__import__('os')", "cm**9", "1/0", "2*cm", "cm;m", "lambda: 0", "meter if m else s"])
def test_a_text_never_reaches_the_units_library(text: str) -> None:
    assert known(text) is None
    assert parse_unit(text) in (None, NO_UNIT)


def test_numbers_alone_do_not_load_the_units_library() -> None:
    code = (
        "import sys, verifiers\n"
        "for a in ('12', '1,200', '0.5', '12 apples', '\\\\$5', '5%', '3:30', 'two hundred'): verifiers.verify('12', a)\n"
        "assert 'pint' not in sys.modules\n"
        "assert verifiers.verify('1 m', '100 cm') and 'pint' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "digits"),
    [
        ("five million two hundred thousand and one", "5200001"), ("seventeen hundred and one", "1701"),
        ("three twenty-fifths", "3/25"), ("one twenty-fifth", "1/25"), ("minus three and a half", "-7/2"),
        ("one thousand, two hundred and thirty-four", "1234"), ("zero point zero five", "0.05"), ("a dozen eggs", "12 eggs"),
        ("three four", "three four"), ("twenty-third", "twenty-third"), ("one-sided", "one-sided"), ("a circle", "a circle"),
    ],
)  # fmt: skip
def test_numbers_in_words(words: str, digits: str) -> None:
    assert in_digits(words) == digits


def test_a_scaled_decimal_keeps_its_precision() -> None:
    found = quantity("1.234 \\text{ billion}")
    assert found is not None
    assert (found.value, found.decimals, found.digits) == (1234000000, -6, 4)
