# ruff: noqa: E501
"""Quantities: units, scale words, numbers in words, compounds, times, dates, ratios; each pair in both directions."""

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers import Policy, verify
from verifiers.quantities.exact import quantity
from verifiers.quantities.unit_table import known
from verifiers.quantities.units import NO_UNIT, parse_unit
from verifiers.quantities.wording import in_digits

EQUAL = [
    ("$3", "300 cents"), ("$3", "3"), ("$3$", "3"), ("$1,200", "1200"), ("$5 apples", "5"),
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
    ("3 bananas", "3 bananas."), ("\\frac{1}{2}元", "0.5"), ("49", "7 squared"), ("8", "two cubed"), ("8", "2 cubed"), ("24", "4 factorial"),
    ("120", "five factorial"), ("9", "3^2"), ("25", "five squared"), ("36", "6^2"), ("100", "ten squared"), ("-5", "negative five"),
    ("-12", "negative twelve"), ("-3.5", "minus 3.5"), ("-0.5", "minus one half"), ("-\\frac{1}{2}", "negative one half"), ("-7", "-7 degrees"),
    ("-7", "7 below zero"), ("2500000", "2.5 million"), ("2500000", "2.5\\text{ million}"), ("2.5 \\times 10^6", "2.5 million"),
    ("3000", "3 thousand"), ("3,000", "three thousand"), ("1500", "1.5 thousand"), ("1500", "15 hundred"), ("1500", "fifteen hundred"),
    ("48", "4 dozen"), ("6", "half a dozen"), ("18", "1.5 dozen"), ("18", "one and a half dozen"), ("24", "2 \\text{ dozen}"),
    ("7000000000", "7 billion"), ("7\\times10^9", "7 billion"), ("2000000000000", "2 trillion"), ("350000", "350 thousand"),
    ("350000", "350K dollars"), ("\\$350000", "\\$350K"), ("4.2 billion", "4200 million"), ("\\$4.2 billion", "4200000000"), ("1000000", "a million"),
    ("1000000", "one million"), ("100", "a hundred"), ("100", "one hundred"), ("12", "a dozen"), ("12", "one dozen"), ("12", "a dozen eggs"),
    ("1,000", "a thousand"), ("20000000", "2 crore"), ("300000", "3 lakh"), ("60", "five dozen"), ("75 minutes", "1 hour 15 minutes"),
    ("75 minutes", "1 hour and 15 minutes"), ("1.25 hours", "1 hour 15 minutes"), ("1 hr 15 min", "75 min"), ("1h 15min", "75 minutes"),
    ("1 h 15 m", "75 minutes"), ("3 hours, 20 minutes", "200 minutes"), ("3 hours, 20 minutes, and 15 seconds", "12015 seconds"), ("1:15", "1:15"),
    ('5\' 10"', '70 inches'), ("5 feet 10 inches", "70 inches"), ('5 ft. 10 in.', '5\'10"'), ("5'10''", '70 in'), ("6'", '6 feet'),
    ("6'", '72 inches'), ("2 m 30 cm", "230 cm"), ("2 meters and 30 centimeters", "2.3 m"), ("1 kg 500 g", "1.5 kg"), ("1 kg 500 g", "1500 grams"),
    ("2 lbs 8 oz", "2.5 pounds"), ("2 lb. 8 oz.", "40 ounces"), ("3 dollars and 25 cents", "3.25 dollars"), ("\\$3.25", "3 dollars 25 cents"),
    ("\\$3.25", "three dollars and twenty-five cents"), ("1 day 6 hours", "30 hours"), ("2 weeks 3 days", "17 days"),
    ("2 years 3 months", "27 months"), ("1 gallon 2 quarts", "6 quarts"), ("two hours and thirty minutes", "2.5 hours"),
    ("two and a half hours", "150 minutes"), ("5 yards 1 foot", "16 feet"), ("1 km 200 m", "1200 m"), ("4 minutes 30 seconds", "4.5 minutes"),
    ("1 minute, 30 seconds", "90 s"), ("45 degrees 30 minutes", "45.5 degrees"), ("45^\\circ30'", '45.5^\\circ'), ("5 mL", "5 cc"),
    ("5 L", "5 liters"), ("5 L", "5000 cm³"), ("1 dm^3", "1 L"), ("250 ml", "0.25 L"), ("1 m³", "1000 L"), ("1000 L", "1 cubic meter"),
    ("1 cubic foot", "1728 cubic inches"), ("100 cm²", "0.01 m²"), ("10000 cm^2", "1 m^2"), ("1 ha", "10000 m²"), ("1 square mile", "640 acres"),
    ("3 square feet", "432 square inches"), ("2 kg", "2000 g"), ("5 t", "5000 kg"), ("1 ton", "2000 pounds"), ("0.5 km", "500 m"),
    ("72 km/h", "20 m/s"), ("2 days", "48 hours"), ("1 week", "168 hours"), ("3 yards", "9 feet"), ("1.5 miles", "7920 feet"), ("500 mg", "0.5 g"),
    ("2 dozen", "24"), ("1 decade", "10 years"), ("3 quarts", "12 cups"), ("1 pint", "2 cups"), ("16 oz", "1 lb"), ("1000 mL", "1 liter"),
    ("3 kW", "3000 W"), ("1 MB", "1000 kB"), ("60 rpm", "60 revolutions per minute"), ("5", "5个"), ("5", "5名学生"), ("5", "5本书"), ("5", "5只鸡"),
    ("5", "5支笔"), ("5", "5 人"), ("5", "5人"), ("5", "五个"), ("12", "十二"), ("12", "十二个"), ("20", "二十元"), ("105", "一百零五"), ("-3", "负三"),
    ("\\frac23", "三分之二"), ("1/2", "一半"), ("1/2", "二分之一"), ("0.5", "半"), ("50\\%", "百分之五十"), ("50\\%", "百分之50"), ("3.5", "三点五"), ("5", "5張"),
    ("5", "5匹"), ("5", "5冊"), ("5", "5回"), ("5", "5歳"), ("5", "5つ"), ("1000", "1000円"), ("1000円", "1000 yen"), ("5 km", "5千米"), ("5 km", "5公里"),
    ("5 cm", "5 公分"), ("5 kg", "5公斤"), ("5 kg", "5千克"), ("5 hours", "5小时"), ("5 minutes", "5分钟"), ("5 m", "5メートル"), ("60 km/h", "60千米每小时"),
    ("60 km/h", "每小时60公里"), ("60 km/h", "60 km/小时"), ("5 m^2", "5平方米"), ("5 m³", "5立方米"), ("5 cm²", "5平方厘米"), ("25", "25℃"), ("25 ℃", "25 degrees C"),
    ("77°F", "77 ℉"), ("30", "30度"), ("90°", "90度"), ("50000", "5万"), ("120000", "12万元"), ("150000000", "1.5亿"), ("5", "5天"), ("5", "5岁"),
    ("5", "5倍"), ("\\$5", "5美元"), ("€5", "5欧元"), ("5", "5개"), ("5", "5명"), ("5000", "5000원"), ("5", "5 часов"), ("5", "5 рублей"), ("5", "5 horas"),
    ("5 hours", "5 horas"), ("5", "5 heures"), ("5", "5 Stunden"), ("5", "5 Äpfel"), ("5 %", "5 Prozent"), ("5", "5 manzanas"), ("5", "5 pommes"),
    ("5 €", "5 euros"), ("5", "5 litros"), ("12", "12 jours"), ("12", "12 días"), ("7", "7 книг"), ("24", "24 元/天"), ("30", "thirty"),
    ("17", "seventeen"), ("100", "one hundred"), ("101", "one hundred one"), ("101", "one hundred and one"), ("1001", "one thousand one"),
    ("999", "nine hundred ninety-nine"), ("999", "nine hundred and ninety nine"), ("0", "Zero"), ("7", "Seven"), ("7", "seven."),
    ("7", "\\text{seven}"), ("7", "seven apples"), ("7", "\\textbf{Seven}"), ("1/3", "one third"), ("1/3", "one-third"), ("1/3", "a third"),
    ("\\frac{3}{4}", "three fourths"), ("\\frac{3}{4}", "three-quarters"), ("\\frac{3}{4}", "\\text{three quarters}"), ("5/8", "five eighths"),
    ("5/8", "five-eighths"), ("1/2", "one half"), ("1/2", "one-half"), ("1/2", "a half"), ("\\frac{1}{10}", "one tenth"),
    ("\\frac{7}{100}", "seven hundredths"), ("1\\frac12", "one and a half"), ("1.5", "one and one half"), ("2.75", "two and three quarters"),
    ("2\\frac{3}{4}", "two and three-quarters"), ("3.5", "three and a half"), ("2.5", "two point five"), ("0.25", "zero point two five"),
    ("0.25", "point two five"), ("3.14", "three point one four"), ("-2", "minus two"), ("-2", "negative two"), ("-21", "minus twenty-one"),
    ("-\\frac{2}{3}", "minus two-thirds"), ("25\\%", "twenty-five percent"), ("25%", "twenty five percent"), ("\\$5", "five dollars"),
    ("\\$0.50", "fifty cents"), ("8", "eight hours"), ("1,200", "one thousand two hundred"), ("1,200", "twelve hundred"),
    ("\\frac{1}{4}", "a quarter"), ("1/4", "one fourth"), ("1/4", "quarter"), ("2", "two solutions"), ("1", "one solution"), ("-5", "minus 5"),
    ("+5", "plus 5"), ("3:30 PM", "3:30 pm"), ("3:30 PM", "3:30PM"), ("3:30 PM", "3:30 P.M."), ("3:30 p.m.", "15:30"),
    ("3:30 p.m.", "half past three"), ("3:00 PM", "3 PM"), ('3:00', "3 o'clock"), ("15:00", "3 p.m."), ("8 AM", "8:00 a.m."), ("8 AM", "08:00"),
    ("8:00 AM", "8am"), ("12:00 PM", "noon"), ("12:00 PM", "12 noon"), ("12:00 AM", "midnight"), ("0:00", "12:00 AM"), ("10:15", "quarter past ten"),
    ("9:45", "quarter to ten"), ("9:45", "a quarter to ten"), ("9:50", "ten minutes to ten"), ("4:20", "twenty past four"),
    ("7:00 p.m.", "7 in the evening"), ("7:00 a.m.", "7 in the morning"), ("7 o'clock", "seven o'clock"), ("\\text{3:30 PM}", "15:30"),
    ("3:30\\text{ PM}", "3:30 p.m."), ("11:05 a.m.", "11:05 AM"), ('5:00 PM', "5 o'clock in the afternoon"), ("2:05", "five past two"),
    ("06:30", "6:30"), ("9 \\text{ a.m.}", "9:00 AM"), ("March 5", "March 5th"), ("5 March", "March 5"), ("March 5", "5th March"),
    ("March 5", "5th of March"), ("March 5", "the fifth of March"), ("March 5", "Mar 5"), ("June 20", "20 June"), ("\\text{June 20}", "June 20th"),
    ("December 25, 2020", "25 December 2020"), ("December 25, 2020", "Dec. 25, 2020"), ("December 25, 2020", "2020-12-25"),
    ("December 25, 2020", "12/25/2020"), ("July 4", "4 July"), ("July 4", "July fourth"), ("July 4, 1776", "4th of July, 1776"),
    ("2020-01-02", "January 2, 2020"), ("3月5日", "3月5号"), ("May 1", "1 May"), ("1:2:3", "1:2:3"), ("1:2:3", "3:6:9"), ("1:2:3", "1 : 2 : 3"),
    ("1:2:3", "\\text{1:2:3}"), ("2:3:4", "2 to 3 to 4"), ("3:5", "3 to 5"), ("3:5", "6:10"), ("3:5", "3/5"), ("3:5", "0.6"), ("1:2:3:4", "2:4:6:8"),
    ("3:5", "3\\colon 5"), ("3:4:5", "6:8:10"), ("1:2", "1 to 2"), ("4:1", "four to one"), ("\\frac{3}{5}", "3:5"), ("5:12:13", "5 : 12 : 13"),
    ("3:2", "1.5:1"), ("1:1:1", "2:2:2"), ("1:2:3", "1∶2∶3"), ("1:2:3", "1：2：3"), ("a circle", "circle"), ("circle", "the circle"),
    ("ellipse", "an ellipse"), ("\\text{a parabola}", "parabola"), ("parabola", "A parabola"), ("\\text{The hyperbola}", "a hyperbola"),
    ("tie", "a tie"), ("straight line", "a straight line"), ("the origin", "origin"), ("the empty set", "empty set"),
    ("\\text{an octagon}", "octagon"), ("18", "\\$18.00"), ("18", "18 dollars"), ("18", "\\$18 per day"), ("18", "18 dollars per day"),
    ("18", "\\$18 every day"), ("18", "18 eggs per day"), ("18", "18 dollars each day"), ("64", "\\$64."), ("460", "460 dollars"),
    ("20", "20 cups of feed"), ("5", "5 pounds of apples"), ("5", "5 pieces"), ("16", "16 glasses"), ("16", "16 hours a week"),
    ("3", "3 bolts total"), ("3", "3 bolts in total"), ("366", "366 total downloads"), ("45", "45 miles from home"), ("45", "45 miles away"),
    ("10", "10 years old"), ("10", "10 years younger"), ("6", "6 feet tall"), ("6", "6 more dogs"), ("6", "6 children"), ("6", "6 boys and girls"),
    ("75", "75%"), ("75", "75 percent"), ("2", "2 times"), ("25", "25 students"), ("25", "25 boys in the class"), ("50", "50 cents"),
    ("98", "98 pencils left"), ("98", "98 people left"), ("7", "7 sandwiches"), ("33", "33 tennis balls"), ("240", "240 square feet"),
    ("5", "5 slices each"), ("60", "60 minutes"), ("1.5", "1.5 hours"), ("13", "13 days"), ("0.5", "0.5 inches"), ("12", "12 ounces of water"),
    ("100", "100 km"), ("26", "26 jewels"), ("104", "104 hours per year"), ("1430", "1430 calories"), ("36", "\\$36 in total"), ("5", "$5 each"),
    ("5", "5 $"), ("5", "5€"), ("5", "5 euros each"), ("5", "5 ft"), ("5", "5 sq ft"), ("3", "3 Pokémon cards"), ("3", "3 T-shirts"),
    ("3", "3 ice-cream cones"), ("40", "40 mph"), ("5", "5 cm²"), ("5", "5cm"), ("5", "5kg"), ("5", "5 hrs"), ("5", "5hrs"), ("15", "15 marbles."),
    ("7", "7 days/week"), ("8", "8 hours/day"), ("8", "8 lb"), ("12", "12 oz"), ("2", "2 units"), ("14", "14 sq. units"), ("14", "14 units^2"),
    ("8", "8 units squared"), ("8", "8 square cm"), ("8", "8 cm squared"), ("8", "8 cubic feet"), ("27", "27 cubes"), ("4", "4 sides"),
    ("4", "4 ways"), ("8", "8 vertices"), ("6", "6 distinct solutions"), ("6", "6 real solutions"), ("4", "4 integers"), ("4", "4 possible values"),
    ("60", "60 different ways"), ("5 cm", "5\\mathrm{~cm}"), ("5 cm^3", "5~\\mathrm{cm}^3"), ("5 cm", "\\text{5 cm}"), ("5 cm", "\\mathrm{5~cm}"),
    ("5 cm", "5\\,\\text{cm}"), ("5 cm", "5\\;\\mathrm{cm}"), ("5 m/s", "5\\,\\mathrm{m/s}"), ("5 m/s", "5\\;\\mathrm{m}\\cdot\\mathrm{s}^{-1}"),
    ("5 m/s", "5\\,\\mathrm{m\\,s^{-1}}"), ("9.8 m/s^2", "9.8\\text{ m/s}^2"), ("9.8 m/s^2", "9.8\\ \\text{m/s}^{2}"),
    ("5 m/s", "5\\ \\frac{\\text{m}}{\\text{s}}"), ("5 m/s", "5\\ \\text{meters per second}"), ("5°C", "5^{\\circ}\\mathrm{C}"),
    ("5°C", "5\\,^\\circ\\text{C}"), ("5°C", "5^\\circ C"), ("5°F", "5^\\circ\\text{F}"), ("30°", "30^{\\circ}"), ("30°", "30\\,^{\\circ}"),
    ("30°", "30 deg"), ("\\$5 million", "\\$5\\text{ million}"), ("5000000", "\\$5\\text{ million}"), ("5", "5\\text{ dollars}"),
    ("\\$5", "5\\text{ dollars}"), ("5", "5\\text{ apples}"), ("\\frac{1}{2}", "\\frac{1}{2}\\text{ cup}"), ("\\frac12 cup", "0.5 cups"),
    ("2\\sqrt{3}", "2\\sqrt{3}\\text{ cm}"), ("12\\pi", "12\\pi\\text{ square inches}"), ("12\\pi", "12\\pi \\text{ cm}^2"),
    ("12\\pi", "12\\pi\\ \\mathrm{cm}^2"), ("12\\pi", "12\\pi cm^2"), ("12\\pi", "12\\pi square units"), ("12\\pi", "12\\pi 平方厘米"),
    ("2\\sqrt3", "2\\sqrt3厘米"), ("\\frac{5}{2}", "\\frac{5}{2} hours"), ("150 minutes", "\\frac{5}{2} hours"), ("150", "150 mi"),
    ("3", "3 \\text{ people}"), ("x", "5x/5"), ("3x", "3x\\text{ dollars}"), ("1.2\\times10^9", "1.2\\text{ billion}"), ("2^{10}", "1024 bytes"),
    ("1{,}200{,}000", "1.2 million"), ("60", "60\\text{ km/h}"), ("60", "60\\ km/h"), ("\\text{12 hours}", "12"), ("15\\%", "15 \\text{ percent}"),
    ("15\\%", "0.15"), ("0.15", "15 percent"), ("3\\frac{1}{2}\\text{ hours}", "3.5"), ("3 1/2", "3\\frac12\\text{ miles}"),
    ("7", "7\\text{ (units)}"), ("4", "4\\text{ units}^2"), ("5 \\text{ kg}", "5000 \\text{ g}"), ("0.5 kg", "500g"), ("5 m", "500cm"),
    ("5 cm", "5 ㎝"), ("5 m^3", "5㎥"), ("5 km^2", "5 ㎢"), ("5 cm^2", "5㎠"), ("5 kg", "5㎏"), ("5 mL", "5㎖"), ("5 cm", "５ｃｍ"), ("5 km/h", "5㎞/h"),
    ("120 sq ft", "120 square feet"), ("120 ft^2", "120 ft²"), ("120 sq. ft.", "120 feet squared"), ("50 mph", "50 miles/hour"),
    ("50 mph", "50 mi/h"), ("45 degrees", "\\frac{\\pi}{4} radians"), ("\\frac{\\pi}{4}", "45 degrees"),
    ("\\frac{\\pi}{2}", "\\frac{\\pi}{2} radians"), ("5 °C", "5 degrees Celsius"), ("50\\%", "50 per cent"), ("0.5 cups", "half a cup"),
    ("1.5 cups", "one and a half cups"), ("\\$5.05", "5 dollars and 5 cents"), ("\\$5.05", "505 cents"), ("\\$0.50", "50¢"), ("500", "Rs. 500"),
    ("500", "Rs 500"), ("500", "USD 500"), ("500", "US\\$500"), ("\\$500", "USD 500"), ("500", "500 USD"), ("€5", "EUR 5"), ("€5.00", "5,00 €"),
    ("500", "RMB 500"), ("15:30", "15:30 Uhr"), ("third", "3rd"), ("twenty-first", "21st"), ("the third", "third"), ("3:4", "3-to-4"),
    ("3:4", "a ratio of 3 to 4"), ("3:4", "ratio of 3:4"), ("3:4:5", "the ratio 3:4:5"), ("3:4", "3 is to 4"), ("32", "2 to the fifth power"),
    ("32", "two to the fifth"), ("x^5", "x to the fifth"), ("x^5", "x to the fifth power"), ("1024", "2 to the 10th power"), ("1/5", "one-fifth"),
    ("4/5", "four-fifths"), ("1.75", "one and three-quarters"), ("2.5", "two-and-a-half"), ("256000", "two hundred and fifty-six thousand"),
    ("3/4", "3 over 4"), ("10", "10 years old"), ("10 years", "10 years old"), ("12 km", "12 km away"), ("\\$12", "12 dollars"), ("3 hours", "3 hrs"),
    ("90 min", "1.5 h"), ("2 h", "120min"), ("7.5", "seven and a half"), ("7.5", "7½"), ("1,000,000", "1 million dollars"), ("6", "six people"),
    ("6", "6 people"), ("21", "twenty one students"), ("0.3", "0.3 liters"), ("48", "48 cookies"), ("48", "48 more cookies"),
    ("10", "10 more minutes"), ("100", "\\$100 more"), ("140", "\\$140 per month"), ("8", "8 hours each day"), ("2", "2 eggs/day"), ("16", "16 oz."),
    ("9", "9 a.m."), ("42", "42 inches tall"), ("1", "1 hour"), ("1", "an hour"), ("1", "1 dog"), ("30", "30 fewer apples"), ("5", "5 empty seats"),
    ("11", "11 hours later"), ("600", "600 m²"), ("15", "15 min."), ("24", "24 hrs."), ("1.8", "1.8 meters tall"), ("50", "50 mL"), ("10", "10 am"),
    ("2", "2 pairs of shoes"), ("6", "6 packs of gum"), ("6", "6 six-packs"), ("15", "15 one-dollar bills"), ("1.22", "1,22"),
    ("1234567.89", "1.234.567,89"), ("1234.56", "1.234,56"), ("1234567", "1.234.567"), ('1234567', "1'234'567"), ("1234567", "12,34,567"),
    ("100000", "1,00,000"), ("1234.56", "1 234,56"), ("2.5 kg", "2,5 kg"), ("2.74", "2,74 €"), ("€1234.56", "€1.234,56"),
    ("1:\\sqrt{3}:2", "\\sqrt3:3:2\\sqrt3"), ("\\sqrt2:1", "2:\\sqrt2"), ("\\sqrt{2}:1", "\\sqrt2"), ("a:b", "\\frac ab"),
    ("1:2:3", "\\frac12:1:\\frac32"), ("\\frac12:\\frac13", "3:2"), ("\\frac12:\\frac13", "3/2"), ("1:\\sqrt4:3", "1:2:3"), ('"3.14"', '3.14'),
    ('42', '"42"'), ("1:1:\\sqrt2", "2:2:2\\sqrt2"), ("3.5", "3,5 m"), ("1,5", "1,5"), ("2 602", "2602"), ("x:y:z", "2x:2y:2z"),
]  # fmt: skip
DIFFERENT = [
    ("$3", "3 cents"), ("3 cents", "$3"), ("-$3", "-3 cents"),
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
    ("4", "4 point 5"), ("2", "2 trillion"), ("2", "2 hundred thousand"), ("7", "7 squared"), ("2", "2 cubed"), ("4", "4 factorial"),
    ("5", "5 negative"), ("5", "5 doubled"), ("5", "5 halved"), ("5", "5 inverse"), ("5", "minus 5"), ("7", "7 below zero"), ("3", "3 tripled"),
    ("5", "5 to the third"), ("5", "5 to the fourth power"), ("5", "five squared"), ("8", "negative eight"), ("5", "5 recurring"), ("2", "2 root"),
    ("9", "9 root"), ("7", "7 reciprocal"), ("5", "5 below"), ("5", "5 under"), ("5", "5 over"), ("5", "5 minus x"), ("4", "4 quarters"),
    ("4", "4 fifths"), ("4", "4 eighths"), ("1", "1 half"), ("3", "3 half"), ("12", "12 thirds"), ("5", "5 eighths of a mile"),
    ("10", "10 basis points"), ("10", "10 bps"), ("10", "10 permille"), ("10", "10 ‰"), ("10", "10 per mille"), ("10", "10 per thousand"),
    ("10", "10 ppm"), ("2.5", "2.5 million"), ("2.5", "2.5\\text{ million}"), ("3", "3 thousand"), ("4", "4 dozen"), ("1", "half a dozen"),
    ("7", "7 billion"), ("2", "2 trillion"), ("350", "350 thousand"), ("350", "350K"), ("350", "\\$350K"), ("4.2", "\\$4.2 billion"),
    ("2", "2 crore"), ("15", "15 hundred"), ("3", "3 hundred"), ("3", "3 hundreds"), ("3", "3 thousands"), ("3", "3 millions"), ("3", "3 tens"),
    ("2", "2 score"), ("3", "3 gross"), ("3", "3 dozens"), ("3", "3 dozen eggs"), ("3", "3 million people"), ("3", "3 million dollars"),
    ("3", "\\$3 million"), ("3", "\\$3M"), ("3", "\\$3m"), ("3", "3 mil"), ("3", "3 grand"), ("5", "5千"), ("5", "5百"), ("5", "5億"), ("5", "5만"),
    ("2", "2 hundred thousand"), ("3", "3.0 million"), ("1.15", "1 hour 15 minutes"), ("1", "1 hour 15 minutes"), ("15", "1 hour 15 minutes"),
    ("1 hour", "1 hour 15 minutes"), ('5.10', '5\'10"'), ('5\'10"', '5\'11"'), ('510', '5\'10"'), ("2 m 30 cm", "2.03 m"), ("1 kg 500 g", "1.05 kg"),
    ("3.25", "3 hours 25 minutes"), ("\\$3.25", "3 dollars and 52 cents"), ("3 dollars", "3 dollars and 25 cents"), ("2 hours 30 minutes", "2 hours"),
    ("2 hours 30 minutes", "30 minutes"), ("90 minutes", "1 hour 20 minutes"), ("2 years 3 months", "2.3 years"), ("6'", '6 inches'),
    ('6"', '6 feet'), ("45^\\circ30'", '45.3^\\circ'), ("5 mL", "5 dm^3"), ("5 L", "5 m^3"), ("5 L", "5 cm^3"), ("1 m^2", "100 cm^2"),
    ("1 m^3", "100 L"), ("2 kg", "2 g"), ("72 km/h", "72 m/s"), ("5 km", "5 mi"), ("1 ton", "1000 pounds"), ("5 cm^2", "5 cm^3"), ("5 cm", "5 cm^2"),
    ("5 m/s", "5 m/s^2"), ("60 mph", "60 km/h"), ("5 hours", "5 days"), ("1 pint", "1 cup"), ("100 g", "1 kg"), ("5 ℃", "5 ℉"), ("5 N", "5 J"),
    ("5 W", "5 V"), ("5", "五十"), ("5", "5万"), ("5", "5亿"), ("5", "十五"), ("12", "二十"), ("3/2", "三分之二"), ("5", "负五"), ("5", "5分之一"), ("5", "5折"),
    ("3", "三十"), ("50", "百分之五十一"), ("5元", "5美元"), ("5 km", "5米"), ("5 kg", "5克"), ("5小时", "5分钟"), ("5", "5成"), ("5", "半"), ("0.5", "一"), ("1", "一半"),
    ("5米", "5平方米"), ("5个", "6个"), ("7", "第七十"), ("105", "一百五"), ("30", "thirteen"), ("13", "thirty"), ("100", "one thousand"), ("21", "twelve"),
    ("1/3", "two thirds"), ("3", "one third"), ("3", "a third"), ("4", "a quarter"), ("1/2", "two"), ("2", "one half"), ("2", "two thirds"),
    ("5", "five eighths"), ("1.5", "two and a half"), ("1", "one and a half"), ("-2", "two"), ("2", "minus two"), ("2.5", "two"),
    ("0.25", "two five"), ("25", "two five"), ("20", "twenty-five"), ("25", "twenty"), ("1200", "one thousand two"), ("1", "one million"),
    ("5", "five hundred"), ("5", "fifty"), ("5", "fifteen"), ("5", "fifth"), ("5", "five or six"), ("5", "not five"), ("5", "five and six"),
    ("7", "seven eighths"), ("6", "half a dozen dozens"), ("12", "twelve thirteen"), ("1", "one in three"), ("3", "three of five"),
    ("5", "fives sixths"), ("3:30 PM", "3:30 AM"), ("3:30", "3:31"), ("3 p.m.", "3 a.m."), ("15:00", "3 a.m."), ("3 PM", "4 PM"),
    ("noon", "midnight"), ("12:00 PM", "12:00 AM"), ("half past three", "half past four"), ("half past three", "3:15"), ("quarter to ten", "10:15"),
    ("9:50", "ten past ten"), ("3:30", "3.3"), ("15:30", "5:30"), ("3 PM", "13:00"), ("March 5", "March 15"), ("March 5", "May 5"),
    ("March 5", "April 5"), ("March 5", "5"), ("5", "March 5"), ("March 5, 2020", "March 5, 2021"), ("June 20", "July 20"), ("June 20", "June"),
    ("3", "March"), ("3/5", "5 March"), ("March 5", "5/3"), ("1:2:3", "1:2"), ("1:2:3", "1:3:2"), ("1:2:3", "6"), ("1:2:3", "1/2"), ("1:2:3", "1/6"),
    ("1:2", "2:1"), ("3:5", "5:3"), ("3 to 5", "5 to 3"), ("1:2:3", "1,2,3"), ("1:2:3", "(1,2,3)"), ("3:5", "3.5"), ("3:5", "35"),
    ("1:2:3", "1:2:3:4"), ("2", "1:2"), ("1", "1:2:3"), ("0:1:2", "0:1:3"), ("a circle", "a square"), ("a", "the"), ("circle", "circles and lines"),
    ("an ellipse", "a parabola"), ("the one", "a two"), ("A", "The A B"), ("12", "12a"), ("12", "12b"), ("12", "12c"), ("12", "12x"), ("12", "12n"),
    ("12", "12 a b"), ("12", "12 x"), ("12", "12k"), ("12", "12π"), ("12", "12 pi"), ("12", "12 i"), ("12", "12e3"), ("12", "12e"), ("12", "12%2"),
    ("12", "12 or more"), ("12", "12 or 13"), ("12", "12 and 5 more"), ("12", "12 plus 3"), ("12", "12 minus 3"), ("12", "12 more than x"),
    ("12", "12 less than x"), ("12", "12 percent less"), ("12", "12 times x"), ("12", "12 times three"), ("12", "12 fewer than x"),
    ("12", "12 squared apples"), ("12", "12 apples and 3 pears"), ("12", "12 apples or 13 apples"), ("12", "not 12 apples"),
    ("12", "12 apples short"), ("12", "12 feet below sea level"), ("12", "12 dollars in debt"), ("12", "12 degrees below zero"), ("12", "12 mod 5"),
    ("12", "12 base 5"), ("12", "12 base ten"), ("12", "12 (mod 7)"), ("12", "12 choose 3"), ("12", "12 nCr 3"), ("12", "12 remainder 3"),
    ("12", "12 R 3"), ("12", "12 r 3"), ("12", "12 r. 3"), ("12", "12th"), ("12", "12th term"), ("12", "12 of 15"), ("12", "12/15 apples"),
    ("12", "12 out of 15"), ("12", "12 : 5"), ("12", "12 to 5"), ("12", "12 by 5"), ("12", "12 x 5"), ("12", "12 × 5"), ("12", "12-5"),
    ("12", "12^2"), ("12", "12!"), ("12", "12 ?"), ("12", "12 <"), ("12 cm", "12 apples"), ("12 apples", "12 pears"), ("12 dollars", "12 euros"),
    ("\\$12", "12 cents"), ("\\$12", "€12"), ("12", "12 hundredths"), ("12", "12 million"), ("12", "12 to the power 2"), ("12", "12 and a half"),
    ("12", "12 and a quarter"), ("12", "12 and three quarters"), ("12", "12½"), ("12", "12 1/2"), ("12", "12.5 apples"), ("12", "-12 apples"),
    ("12", "12 negative"), ("12", "12 nots"), ("12", "12 no"), ("12", "12 wrong"), ("12", "12 is wrong"), ('12', "12 isn't it"), ("12", "12 ish"),
    ("5", "5\\text{ squared}"), ("5", "5\\text{ cubed}"), ("5", "5\\text{th}"), ("5", "5^{\\text{th}}"), ("5", "5\\text{ factorial}"),
    ("5", "5\\text{ negative}"), ("12", "12\\text{ below zero}"), ("5", "5\\text{x}"), ("5", "5\\text{a}"), ("5", "5\\mathrm{e}"),
    ("5", "5\\mathrm{i}"), ("33", "33\\text{a}"), ("33", "33\\text{ a}"), ("12\\pi", "12\\pi\\text{ million}"),
    ("2\\sqrt3", "2\\sqrt3\\text{ hundred}"), ("2\\sqrt3", "2\\sqrt3\\text{ squared}"), ("x", "x\\text{ squared}"), ("x", "x squared"),
    ("x", "minus x"), ("x", "negative x"), ("x", "x million"), ("\\frac12", "\\frac12\\text{ million}"), ("\\frac12", "\\frac12\\text{ dozen}"),
    ("3", "3三角形"), ("3", "三角形"), ("5", "五边形"), ("4", "四边形"), ("5", "5次方"), ("1", "一元二次方程"), ("3", "3位数"), ("3", "三位数"), ("10", "十字"), ("5", "5级"),
    ("3", "第三"), ("3", "第3"), ("5", "5号"), ("2", "2分之1"), ("0.5", "2"), ("5", "5分之3"), ("60", "每60公里"), ("1", "百分之百多"), ("5", "大于5"), ("5", "小于5"),
    ("5", "5以上"), ("5", "不是5"), ("5", "约5"), ("150", "一百零五"), ("105", "一百五"), ("5", "5点5"), ("2", "二〇二四"), ("5", "5万个"), ("5", "5千克克"), ("5", "5m"),
    ("5", "5g"), ("5", "5s"), ("5", "5h"), ("5", "5L"), ("5", "5A"), ("0.5 kg", "500m"), ("10 weeks", "10 days"), ("12 dollars", "12 apples"),
    ("12 miles", "12 miles per hour"), ("5 pounds", "\\$5"), ("third", "3"), ("3", "third"), ("3rd", "4th"), ("third", "1/3"), ("1/3", "third"),
    ("21st", "22nd"), ("21", "21st"), ("5", "5th"), ("fifth", "1/5"), ("3:4", "4-to-3"), ("32", "2 to the fourth power"), ("2", "2 to the fifth"),
    ("5", "2 to the fifth"), ("x", "x to the fifth"), ("5", "5 doubled"), ("6", "6 halved"), ("4", "4 below zero"), ("50", "50¢ and 5"),
    ("5.5", "5 dollars and 5 cents"), ("1.5 h", "1.5 min"), ("5", "€5 million"), ("5", "USD 5 million"), ("5", "Rs 5 lakh"), ("5", "US\\$5k"),
    ("7", "7½"), ("7", "seven and a half"), ("2", "two-and-a-half"), ("1", "one and three-quarters"), ("1", "one-fifth"),
    ("256", "two hundred and fifty-six thousand"), ("200", "two hundred and fifty-six"), ("3", "3 over 4"), ("\\$5", "5 cents"),
    ("5", "five and a half"), ("5", "5 halves"), ("5", "5 half"), ("30", "30 less than x"), ("10", "10 more than y"), ("12", "12 over 5"),
    ("12", "12 divided by 4"), ("12", "12 multiplied by 4"), ("12", "12 raised to 2"), ("12", "12 choose 2"), ("12", "12 percent of 50"),
    ("12", "12 minus"), ("12", "12 nil"), ("12", "12 lots of 3"), ("12", "12 groups of 4"), ("12", "12 sets of 3"), ("12", "12 x"),
    ("12", "12 by 12"), ("12", "12 per 5"), ("12", "12 in 5"), ("12", "12 for 3"), ("12", "12 at 5"), ("12", "12 from 20"), ("12", "12 and counting"),
    ("12", "12 ±1"), ("12", "12 +/- 1"), ("12", "12 plus or minus 1"), ("12", "12 plus change"), ("12", "12 something"), ("12", "12 point five"),
    ("12", "12 and two thirds"), ("12", "12 hundred and five"), ('12', "12 o'clock and"), ("12 AM", "12 PM"), ("12", "12 zeros"),
    ("12", "12 thousandths"), ("12", "12 tenths of a mile"), ("12", "12 dozen and one"), ("12", "12 cubic"), ("12", "12 square"), ("12", "12 root 2"),
    ("12", "12 roots"), ("5", "5 zillion"), ("5", "5 bazillion"), ("5", "5 gazillion"), ("5", "5 quintillion"), ("5", "5 sextillion"),
    ("5", "5 zero"), ("5", "5 zeroes"), ("5", "5 hundredfold"), ("5", "5 fold"), ("5", "5-fold"), ("5", "5 ppb"), ("5", "5 basis point"),
    ("5", "5 percentage of x"), ("5", "5 order of magnitude"), ("5", "5e3"), ("5", "5E3"), ("5", "5 x 10^3"), ("5", "5 × 10³"),
    ("5", "5 million million"), ("5", "5 mill"), ("5", "5 mln"), ("5", "5 bln"), ("5", "5 thou"), ("5", "5 bn"), ("5", "5 tn"), ("42", "4,2"),
    ("1.22", "1,2"), ("1234", "1.234"), ("1,2", "1.2"), ("1:\\sqrt3:2", "1:2:\\sqrt3"), ("1:2:3", "(1/3,2/3)"), ("1:2:3", "\\frac13,\\frac23"),
    ("x:5", "x/4"), ("5", "x:5"), ("5", "y: 5"), ("1,234", "1.234"), ("12,34", "1234"),
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


@pytest.mark.parametrize(
    ("reference", "answer", "comma", "expected"),
    [
        ("1.22", "1,22", "either", True), ("1.22", "1,22", "group", False), ("1,22", "1, 22", "group", True),
        ("1,234", "1234", "group", True), ("1,234", "1234", "decimal", False), ("1.234", "1,234", "decimal", False),
        ("1234", "1.234", "decimal", True), ("3/2", "1,5", "decimal", True), ("2500 g", "2,5 kg", "decimal", True),
        ("2469135/2", "1.234.567,5", "decimal", True), ("(1,5; 2)", "(3/2; 2)", "decimal", True),
    ],
)  # fmt: skip
def test_what_a_comma_is(reference: str, answer: str, comma: str, expected: bool) -> None:
    assert bool(verify(reference, answer, policy=Policy(comma=comma))) is expected


MARKS = [
    "The answer is {}.", "#### {}", "Answer: {}", "So the final answer is **{}**.", "\\boxed{{\\text{{{}}}}}",
    "Therefore, the answer is {}, because that is the sum.",
]  # fmt: skip
STATED = [
    ("200", "two hundred"), ("2.5", "two and a half"), ("2.5", "2 and a half"), ("63 inches", "5 ft 3 in"), ("12", "a dozen"),
    ("63 inches", "5 feet and 3 inches"), ("15:30", "half past three in the afternoon"), ("March 5", "the 5th of March"),
    ("1.5 hours", "an hour and a half"), ("1/6", "1 in 6"), ("1234", "one thousand two hundred thirty-four"), ("25", "5 squared"),
    ("2.5 hours", "2 hours, 30 minutes"), ("3:4", "3 to 4"), ("-5", "5 degrees below zero"), ("18", "18 dollars per day"),
]  # fmt: skip
NOT_STATED = [
    ("2", "two and a half"), ("5", "5 ft 3 in"), ("1", "an hour and a half"), ("1", "1 in 6"), ("3", "3 to 4"), ("5", "5 squared"),
    ("2", "2 hours and 30 minutes"), ("30", "2 hours and 30 minutes"), ("12", "12 thousand five hundred"), ("1", "1 dozen"),
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_a_quantity_of_several_words_is_read_whole_behind_every_mark(mark: str) -> None:
    for reference, words in STATED:
        assert verify(reference, mark.format(words)), (reference, mark.format(words))
    for reference, words in NOT_STATED:
        assert not verify(reference, mark.format(words)), (reference, mark.format(words))


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
        ("a third party", "a third party"), ("a third of a mile", "1/3 mile"), ("three four", "three four"), ("twenty-third", "twenty-third"), ("one-sided", "one-sided"), ("a circle", "a circle"),
    ],
)  # fmt: skip
def test_numbers_in_words(words: str, digits: str) -> None:
    assert in_digits(words) == digits


ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(n: int, joined: str) -> str:
    """An independent speller: 1,234 is one thousand two hundred (and) thirty-four."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            joint = joined if rest and rest < 100 else " "
            return f"{spelled(n // size, joined)} {name}" + (f"{joint}{spelled(rest, joined)}" if rest else "")
    raise AssertionError(n)


@given(st.integers(0, 10**12 - 1), st.sampled_from([" ", " and "]))
@settings(max_examples=300, deadline=None)
def test_every_number_is_read_in_words(n: int, joined: str) -> None:
    words = spelled(n, joined)
    assert verify(str(n), words)
    assert verify(str(-n), f"minus {words}")
    assert not verify(str(n + 1), words)


@given(st.integers(1, 99), st.integers(2, 19))
@settings(max_examples=100, deadline=None)
def test_every_fraction_is_read_in_words(top: int, bottom: int) -> None:
    names = [
        "half",
        "third",
        "quarter",
        *(
            f"{name}th"
            for name in [
                "four",
                "fif",
                "six",
                "seven",
                "eigh",
                "nin",
                "ten",
                "eleven",
                "twelf",
                "thirteen",
                "fourteen",
                "fifteen",
                "sixteen",
                "seventeen",
                "eighteen",
                "nineteen",
            ]
        ),
    ]
    name = names[bottom - 2] if bottom < 5 else names[bottom - 1]
    plural = "halves" if name == "half" else f"{name}s"
    words = f"{spelled(top, ' ')} {name if top == 1 else plural}"
    assert verify(f"{top}/{bottom}", words), words
    assert not verify(f"{top + 1}/{bottom}", words), words
    assert not verify(str(top), words), words


CHANGED = [
    "squared",
    "cubed",
    "factorial",
    "halves",
    "thirds",
    "dozen",
    "hundred",
    "thousand",
    "million",
    "below zero",
    "negative",
    "basis points",
    "and a half",
    "over 7",
    "out of 1000",
    "mod 7",
    "repeating",
    "doubled",
    "万",
    "次方",
    "times 3",
]
COUNTED = [
    "apples",
    "red apples",
    "dollars per day",
    "people",
    "cm",
    "km/h",
    "pieces of cake",
    "years old",
    "hours left",
    "students in total",
    "个",
    "只鸡",
    "元",
    "square feet",
    "books each",
    "more cookies",
]


@given(st.integers(3, 10**6), st.sampled_from(CHANGED), st.sampled_from(COUNTED))
@settings(max_examples=300, deadline=None)
def test_a_word_that_changes_a_number_is_seen_and_what_was_counted_is_not(n: int, changed: str, counted: str) -> None:
    assert not verify(str(n), f"{n} {changed}")
    assert verify(str(n), f"{n} {counted}")
    assert not verify(str(n), f"{n + 1} {counted}")


@given(st.integers(1, 500), st.integers(1, 59))
@settings(max_examples=100, deadline=None)
def test_hours_and_minutes_are_one_quantity(hours: int, minutes: int) -> None:
    for text in (
        f"{hours} hours {minutes} minutes",
        f"{hours}h{minutes}m",
        f"{hours} hours and {minutes} min",
        f"{hours}小时{minutes}分钟",
    ):
        assert verify(f"{hours * 60 + minutes} minutes", text), text
        assert not verify(f"{hours * 60 + minutes + 1} minutes", text), text
        assert not verify(str(hours), text), text


def test_a_scaled_decimal_keeps_its_precision() -> None:
    found = quantity("1.234 \\text{ billion}")
    assert found is not None
    assert (found.value, found.decimals, found.digits) == (1234000000, -6, 4)
