"""Answers that are the same and answers that are not: tables by hand, and every answer of a real test set."""

import json
from itertools import combinations

import pytest

from cs336_alignment.grading.equivalence import answers_equal
from cs336_alignment.grading.grade import is_correct

EQUAL = [
    # numbers
    ("72", "72"), ("+7", "7"), ("-0", "0"), ("007", "7"), ("3.0", "3"), (".5", "0.5"), ("1.250", "1.25"),
    ("−3", "-3"),
    ("1e3", "1000"), (r"6.72 \times 10^{-5}", ".0000672"), ("2^{10}", "1024"), ("2**10", "1024"), ("5!", "120"),
    ("12345678901234567890123", "12345678901234567890123.0"),
    # thousands
    ("10,080", r"10,\!080"), ("10080", r"10,\!080"), ("10{,}080", "10080"), (r"1\,000", "1000"), ("58,500", "58500"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"), ("1,234,567.5", "1234567.5"),
    # fractions
    (r"\frac{14}{3}", r"\dfrac{14}{3}"), (r"\tfrac12", r"\frac{1}{2}"), (r"\frac12", "1/2"), (r"\frac 59", "5/9"),
    (r"\frac9{19}", "9/19"), (r"\frac{9}{1}9", r"9\cdot 9"), ("2/4", r"\frac{1}{2}"), ("0.5", r"\frac{1}{2}"),
    (r"-\frac{24}{25}", r"\frac{-24}{25}"), (r"\frac{24}{-25}", "-0.96"), ("½", "0.5"), ("-5/10", "-.5"),
    (r"\frac{\frac{1}{2}}{3}", "1/6"), ("2(x+3)", "2x+6"), (r"3 \times 10^5", "300000"),
    (r"(1+\sqrt{2})(1-\sqrt{2})", "-1"),
    # mixed numbers
    (r"1\frac{4}{5}", "9/5"), (r"137 \frac{1}{2}", "137.5"), ("1 1/2", "3/2"), (r"-1\frac12", "-1.5"), ("2½", "2.5"),
    # roots, powers, constants
    (r"3\sqrt{13}", r"\sqrt{117}"), (r"11\sqrt2", r"11 \sqrt{2}"), ("sqrt(51)", r"\sqrt{51}"), ("√5", r"\sqrt{5}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), (r"\sqrt[3]{8}", "2"), (r"\sqrt[3]{-8}", "-2"), (r"8^{1/3}", "2"),
    (r"\sqrt{16}", "4"), (r"2\pi", "2π"), ("12pi", r"12\pi"), (r"\frac{\pi}{2}", r"0.5\pi"), (r"e^{2}", "e*e"),
    (r"\log_2 8", "3"), (r"\ln e", "1"), (r"\sin 30^\circ", "1/2"), (r"\sin^2 x + \cos^2 x", "1"),
    (r"\cot x", r"\frac{\cos x}{\sin x}"), (r"\cos^{-1} 0", r"\frac{\pi}{2}"), (r"\arcsin 1", r"\pi/2"),
    (r"\left| -3 \right|", "3"), (r"\lfloor 2.5 \rfloor", "2"), (r"\binom{5}{2}", "10"),
    # decimals
    ("3.141593", r"\pi"), ("0.333333", "1/3"), ("1.414214", r"\sqrt{2}"),
    # percentages, degrees, money, units
    ("50%", "50"), (r"50\%", "50"), ("50%", "0.5"), ("50%", r"\frac{1}{2}"), (r"12.5\%", "12.5%"),
    ("50 percent", "50%"),
    (r"90^\circ", "90"), (r"90^{\circ}", "90°"), ("90 degrees", r"90^\circ"),
    (r"\frac{270}7\text{ degrees}", "270/7"),
    (r"\$18.90", "18.9"), ("$36", "36"), ("36 dollars", r"\$36"), (r"\$32,\!348", "32348"),
    (r"5.4 \text{ cents}", "5.4"), (r"15\mbox{ cm}^2", "15"), (r"864 \mbox{ inches}^2", "864"), ("5 cm", "5"),
    (r"15\text{ cm}^2", "15 square centimeters"), ("72 clips", "72"), (r"3\,\text{m}", "3"), ("10 inches", "10 in"),
    # symbols
    ("2k+2", "2(k+1)"), (r"x^3+3x-6", "3x + x^3 - 6"), (r"(a+5)(b+2)", "(b+2)(a+5)"),
    (r"\frac{11+9a}{20}", "0.55+0.45a"),
    ("xy", "y x"), ("5r^5", r"5 \cdot r^{5}"), ("x**2", "x^2"), ("2*x", "2x"), ("-13x+3", "3-13x"), ("p - q", "-q+p"),
    (r"\frac{x^2-1}{x-1}", "x+1"), (r"8n^2 + 4n + 1", "(2n)^2+(2n+1)^2"), ("6-5i", "-5i + 6"), ("i^2", "-1"),
    (r"n!", r"n\cdot(n-1)!"), (r"\binom{n}{2}", "n(n-1)/2"), (r"3 x_1", r"3x_{1}"), (r"x - x + 1", "1"),
    # equations and inequalities
    ("x=5", "5"), ("5", "x = 5"), ("x=5", "5 = x"), ("y = 2x + 3", "2x+3"), ("y=2x+3", "2x - y + 3 = 0"),
    ("f(x)=2x", "2x"),
    ("5x - 7y + 11z + 4 = 0", "-10x+14y-22z-8=0"), ("36*3 = 108", "108"), ("x > 2", "2 < x"),
    (r"x \ge 3", "[3, \\infty)"),
    (r"-2 \le x \le 7", "[-2,7]"), (r"x \in [-2,7]", "[-2,7]"), ("x+y < 1", "-x-y > -1"), (r"x \ne 2", r"2 \neq x"),
    # points, lists, sets
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"), ("(6,31,-1)", "( 6, 31, -1 )"), ("(15,-29)", "15, -29"),
    ("(15,729)", "(15, 729)"), (r"\langle 1, 2 \rangle", "(1,2)"), ("1,-2", "-2, 1"), ("3, 5, 7", "7,5,3"),
    ("3 and 5", "5, 3"), (r"3 \text{ or } 5", "3,5"), (r"\{1,2,3\}", "{3,2,1}"), ("x=1 or x=-2", "1,-2"),
    ("100, 200", "100,200"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"), (r"\{1\pm\sqrt{5},-2\}", r"-2, 1+\sqrt5, 1-\sqrt5"),
    (r"x = 3 \pm 2 \sqrt{2}", r"3 \pm 2\sqrt{2}"), ("±2", "2, -2"), ("(x,y)=(1,2)", "(1,2)"),
    # intervals
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(0.6, 8/3]"), (r"(-\infty, 0]", "(-inf,0]"), ("(2,∞)", r"(2,\infty)"),
    (r"(3, \infty) \cup (-\infty, 2)", r"(-\infty,2)\cup(3,\infty)"), (r"(0,9) ∪ (9,36)", r"(0,9) \cup (9,36)"),
    # matrices
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{bmatrix} -\frac13 \\ \frac23 \end{bmatrix}"),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\begin{pmatrix}-1&0\\0&-1\end{pmatrix}"),
    (r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\left(\begin{array}{c}1\\2\end{array}\right)", r"\begin{bmatrix} 1 \\[2pt] 2 \end{bmatrix}"),
    # repeating decimals
    (r"0.\overline{3}", "1/3"), (r"0.1\overline{6}", r"\frac16"), (r"1.\overline{27}", "14/11"),
    (r".\overline{9}", "1"),
    # bases
    ("52_8", "52_{8}"), (r"4210_{5}", r"4210_5"), (r"40_{\text{nine}}", "40_9"),
    # words and choices
    (r"\text{Evelyn}", "Evelyn"), ("evelyn", r"\text{Evelyn}"), (r"\text{even}", "Even."),
    ("an ellipse", r"\text{ellipse}"),
    (r"\text{(C)}", "C"), ("(C)", r"\text{(C)}"), ("C.", r"\text{(C)}"), (r"\textbf{(C)}", "(C)"), ("yes", "Yes"),
    (r"\text{5 cm}", "5"), ("100°C", "100"), (r"20^\circ \text{F}", "20"), (r"\text{A and B}", "B, A"),
    # decoration
    ("$72$", "72"), (r"\(72\)", "72"), (r"\[ \frac12 \]", "1/2"), ("**72**", "72"), ("72.", "72"),
    ("The answer is 72.", "72"),
    (r"\displaystyle \frac12", "1/2"), ("The final answer is: $x=5$", "5"), (r"\mathrm{7}", "7"),
]  # fmt: skip

DIFFERENT = [
    ("1", "11"), ("11", "1"), ("12,3", "123"), ("12,34", "1234"), ("", "0"), (" ", "5"), ("x", "y"), ("X", "x"),
    ("0", "O"),
    ("1000000", "1000001"), ("123456789012345678901", "123456789012345678902"), ("1.5", "15"), ("-3", "3"),
    ("3.14", r"\pi"),
    ("0.33", "1/3"), ("0.3333", r"\frac{1}{3}"), ("1.41", r"\sqrt{2}"), ("0.5000001", "0.5"),
    ("1000000.3", "1000000"),
    (r"\frac{3000001}{3}", "1000000"), ("1/2", "2"), ("1/2", "1/3"), (r"\frac{12}{3}", r"\frac{1}{23}"), ("2 3", "6"),
    ("2 3", "23"), (r"2\sqrt{3}", r"3\sqrt{2}"), (r"\sqrt{2}", "2"), (r"\sqrt{10^{20}}", "10^10+1"), ("x^2", "2x"),
    ("x+1", "x-1"), ("x", "|x|"), ("2x", "2"), ("x^2", r"x^3"), ("ab", "a+b"), ("6-5i", "6+5i"),
    (r"\sin x", r"\cos x"),
    (r"\sin x", "x"), ("x_1", "x_2"), ("x_1", "x"), ("e", "2.718"), ("50", "0.5"), ("50%", "5"), ("50%", "0.05"),
    ("5 cm", "5 m"), ("5 cm", "6 cm"), ("5m", "5"), (r"15 \text{ cm}^2", r"15 \text{ cm}^3"), ("90", "91"),
    ("3 dollars", "3 cents"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(0,1]", "[0,1]"), ("(0,1]", "[0,1)"),
    ("[0,1]", "(0,1)"),
    ("(1,2)", r"\{1,2\}"), ("(1,2,3)", "(1,2)"), ("(1,2)", "1"), ("1", "1,2"), ("1,2", "1"), ("1,1", "1"),
    ("1,2", "1,3"),
    ("1, 2", "2, 1, 1"), ("2,1", "(1,2)"), (r"1 \pm \sqrt{19}", r"1 + \sqrt{19}"), (r"\pm 2", "2"),
    (r"(-\infty, 2)", "(2, \\infty)"), (r"(0,9) \cup (9,36)", "(0,36)"), (r"(0,1) \cup (2,3)", r"(0,1) \cup (2,4)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    ("52_8", "52"), ("52_8", "42"), ("52_8", "52_9"), ("52_8", "25_8"), ("x=5", "y=5"), ("x=5", "x=6"), ("x=5", "6"),
    ("5x+1=0", "5x=1"), ("x>2", "x<2"), ("x>2", r"x \ge 2"), ("x>2", "y>2"), ("x>2", "2"), ("x+y<1", "x+y>1"),
    ("x=5", "x>5"),
    ("1=1", "2=2"), ("2+2=5", "5"), (r"-2 \le x \le 7", "(-2,7)"), ("east", "seat"), ("east", "west"),
    ("Evelyn", "Navin"),
    ("even", "odd"), ("no", "on"), (r"\text{(C)}", "B"), (r"\text{(C)}", "c"), ("A", "B"),
    (r"\text{(C)}", "(C) or (D)"),
    (r"0.\overline{3}", "0.3"), (r"0.1\overline{6}", r"0.\overline{16}"), (r"\mathbb{R}", r"\mathbb{Q}"),
    ("48+24", "72"), ("3+4-5", "2"), ("2*36", "72"), (r"9 \times 8", "72"), (r"\frac{100+44}{2}", "72"),
    ("-(1+2)", "-3"), ("0.5+0.5", "1"), (r"\frac{1}{2}\cdot\frac{1}{3}", "1/6"), ("1+1/2+1/4", "1.75"),
    ("x = 1+1", "2"), ("2+34", "x=36"),
    ("none", "0"), ("12:30", "1230"), ("3:4", "4:3"), ("72 or 73", "72"), ("72 73", "72"), ("not 72", "72"),
    ("7.2.1", "7.21"),
    ("1/0", "2/0"), ("0/0", "1"), (r"\infty", r"-\infty"), (r"\infty", "1"), ("1000!", "2000!"),
    ("9^9^9^9", "8^8^8^8"),
    (r"\frac{}{}", "1"), ("\\", "1"), ("{}", "0"), ("()", "0"), (r"\text{}", "0"), (r"\frac{1}{2", "1/2"), (".", "0"),
    (r"n!", r"(n+1)!"), (r"2^n", r"n^2"), ("log(x)", "x"), ("10 or more", "10"), ("about 10", "10"),
    ("1 000 000", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_answers_that_are_the_same(answer, gold):
    assert answers_equal(answer, gold)
    assert answers_equal(gold, answer)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_answers_that_are_not_the_same(answer, gold):
    assert not answers_equal(answer, gold)
    assert not answers_equal(gold, answer)


def test_math_verify_adds_no_wrong_answers():
    assert [pair for pair in DIFFERENT if is_correct(*pair, fast=False)] == []


def test_every_answer_of_a_real_test_set_is_itself_and_no_other(shared_data):
    lines = (shared_data / "alignment/math500_test.jsonl").read_text(encoding="utf-8").splitlines()
    answers = sorted({json.loads(line)["answer"] for line in lines})
    assert all(answers_equal(answer, answer) for answer in answers)
    sample = answers[::4]
    same = {pair for pair in combinations(sample, 2) if answers_equal(*pair)}
    # What is left are other spellings of one value: with a degree sign, a dollar sign, another order of a list.
    assert len(same) <= 5, same
