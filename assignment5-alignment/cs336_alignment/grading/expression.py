r"""A reader of mathematical expressions, LaTeX and plain: recursive descent with bounded depth and size.

Grammar, loosest first: sum, product (by sign or by juxtaposition), sign, power, postfix (factorial), atom.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps

from cs336_alignment.grading.tokens import FUNCTIONS, NotMathematics

MAX_DEPTH = 40
MAX_NODES = 400
_MAX_EXPONENT_DIGITS = 3
_CONSTANTS = {r"\pi": "pi", "e": "e", "i": "i"}
_INVERSES = {name: "a" + name for name in ("sin", "cos", "tan")}
_BRACKETS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_BRACKET_FUNCTIONS = {r"\lfloor": "floor", r"\lceil": "ceil"}
_NOT_A_FACTOR = {r"\le", r"\ge", r"\ne", r"\in", r"\cup", r"\cap", r"\pm", r"\mp", r"\begin", r"\end"} | {
    *("\\", r"\}", r"\langle", r"\rangle", r"\rfloor", r"\rceil")
}
_SYMBOL_COMMANDS = {
    rf"\{name}"
    for name in (
        *(
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "varepsilon",
            "zeta",
            "eta",
            "theta",
            "vartheta",
            "iota",
            "kappa",
        ),
        *("lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "ell"),
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "infty", "emptyset"),
    )
}
_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """An operation on other nodes.

    The operations are number (its `value`), constant and symbol (by `name`), add, multiply, divide, negate, power,
    factorial, binom, and call (of the function `name`; the first argument of `root` and `log_base` is the index).
    """

    operation: str
    arguments: tuple["Node", ...] = ()
    name: str = ""
    value: Fraction | None = None


def parse_expression(tokens: Sequence[str]) -> Node:
    """The expression that the tokens spell.

    Raises:
        NotMathematics: if they spell none, or one that is too large or too deeply nested.
    """
    reader = _Reader(tokens)
    node = reader.sum()
    if reader.here is not None:
        raise NotMathematics(f"{reader.here!r} does not belong there")
    return node


def _nested(method: Callable[["_Reader"], Node]) -> Callable[["_Reader"], Node]:
    """Every way of nesting leads through a method that is decorated so: it bounds the recursion."""

    @wraps(method)
    def bounded(reader: "_Reader") -> Node:
        if reader.depth == MAX_DEPTH:
            raise NotMathematics("the expression is too deep")
        reader.depth += 1
        node = method(reader)
        reader.depth -= 1
        return node

    return bounded


class _Reader:
    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.num_nodes = 0
        self.within_bars = False

    @property
    def here(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self) -> str:
        token = self.here
        if token is None:
            raise NotMathematics("the expression ends too early")
        self.position += 1
        return token

    def take_if(self, *tokens: str) -> bool:
        """Whether exactly these tokens come next; if so, they are taken."""
        found = self.tokens[self.position : self.position + len(tokens)] == list(tokens)
        self.position += len(tokens) * found
        return found

    def expect(self, token: str) -> None:
        if not self.take_if(token):
            raise NotMathematics(f"{token!r} is missing")

    def node(self, operation: str, *arguments: Node, name: str = "", value: Fraction | None = None) -> Node:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise NotMathematics("the expression is too large")
        return Node(operation, arguments, name, value)

    def sum(self) -> Node:
        total = self.product()
        while self.here in ("+", "-"):
            sign = self.take()
            term = self.product()
            total = self.node("add", total, term if sign == "+" else self.node("negate", term))
        return total

    def product(self) -> Node:
        result = self.signed()
        while True:
            if self.take_if("*"):
                result = self.node("multiply", result, self.signed())
            elif self.take_if("/"):
                result = self.node("divide", result, self.signed())
            elif self.starts_factor():
                result = self.node("multiply", result, self.power())
            else:
                return result

    def signed(self) -> Node:
        negative = False
        while self.here in ("+", "-"):
            negative ^= self.take() == "-"
        factor = self.power()
        return self.node("negate", factor) if negative else factor

    def starts_factor(self) -> bool:
        """Whether what comes next is multiplied without a sign: 2x, x(x+1), but not 2 3."""
        token = self.here
        if token is None or token in _NOT_A_FACTOR:
            return False
        if _is_number(token):
            return not _is_number(self.tokens[self.position - 1])
        return token in _BRACKETS or token[0] in '\\"' or token.isalpha() or (token == "|" and not self.within_bars)

    def power(self) -> Node:
        base = self.postfix()
        if not self.take_if("^"):
            return base
        if self.take_if("{", r"\circ", "}") or self.take_if(r"\circ"):
            radians = self.node("multiply", base, self.node("constant", name="pi"))
            return self.node("divide", radians, self.node("number", value=Fraction(180)))
        return self.node("power", base, self.exponent())

    def postfix(self) -> Node:
        node = self.atom()
        while self.take_if("!"):
            node = self.node("factorial", node)
        return node

    @_nested
    def exponent(self) -> Node:
        return self.signed()

    @_nested
    def atom(self) -> Node:
        token = self.take()
        if _is_number(token):
            return self.number(token)
        if token == "|":
            bars, self.within_bars = self.within_bars, True
            inner = self.sum()
            self.within_bars = bars
            self.expect("|")
            return self.node("call", inner, name="abs")
        if token in _BRACKETS:
            return self.bracketed(token)
        if token == r"\frac":
            return self.node("divide", self.argument(), self.argument())
        if token == r"\binom":
            return self.node("binom", self.argument(), self.argument())
        if token == r"\sqrt":
            return self.root()
        if token[0] == "\\" and token[1:] in FUNCTIONS:
            return self.call(token[1:])
        if token in _CONSTANTS and self.here != "_":
            return self.node("constant", name=_CONSTANTS[token])
        if not (token in _SYMBOL_COMMANDS or token.isalpha() or (token[0] == '"' and token[1:].isalpha())):
            raise NotMathematics(f"{token!r} is not read here")
        name = token.casefold() if token[0] == '"' else token
        return self.node("symbol", name=name + self.subscript())

    def bracketed(self, opening: str) -> Node:
        bars, self.within_bars = self.within_bars, False
        inner = self.sum()
        self.within_bars = bars
        self.expect(_BRACKETS[opening])
        function = _BRACKET_FUNCTIONS.get(opening)
        return self.node("call", inner, name=function) if function else inner

    def number(self, numeral: str) -> Node:
        r"""A number; with a base as its subscript it is a symbol: 52_8 equals 52_{8} and nothing else."""
        base = self.subscript()
        if base:
            return self.node("symbol", name=numeral + base)
        exponent = numeral.lower().partition("e")[2].lstrip("+-")
        if len(exponent) > _MAX_EXPONENT_DIGITS:
            raise NotMathematics("the exponent is too large")
        return self.node("number", value=Fraction(numeral))

    def subscript(self) -> str:
        if not self.take_if("_"):
            return ""
        inner = [self.take()]
        if inner == ["{"]:
            inner = []
            while not self.take_if("}"):
                inner.append(self.take().lstrip('"'))
        name = "".join(inner)
        return "_" + _BASES.get(name, name)

    def argument(self) -> Node:
        r"""What a TeX command takes: a group in braces, or one token, a digit of a numeral alone: \frac12."""
        if self.here is not None and _is_number(self.here) and self.here.isdigit():
            digit, rest = self.here[0], self.here[1:]
            self.tokens[self.position : self.position + 1] = [digit, rest] if rest else [digit]
        return self.atom()

    def root(self) -> Node:
        index = None
        if self.take_if("["):
            index = self.sum()
            self.expect("]")
        radicand = self.atom()
        return self.node("call", index or self.node("number", value=Fraction(2)), radicand, name="root")

    def call(self, function: str) -> Node:
        r"""A function's name, the power and the base at it, and its argument: \sin^2 x, \log_2(8), \cos 2x."""
        base = power = None
        while self.here in ("^", "_"):
            if self.take() == "_" and function == "log":
                base = self.argument()
            elif power is None and self.tokens[self.position - 1] == "^":
                power = self.argument() if self.here != "-" else self.exponent()
            else:
                raise NotMathematics(f"{function} has a subscript")
        if self.here in ("(", "{", "["):
            argument = self.atom()
        else:
            argument = self.signed() if self.here in ("+", "-") else self.power()
            while self.starts_factor() and (self.here or "")[1:] not in FUNCTIONS:
                argument = self.node("multiply", argument, self.power())
        if power is not None and _is_minus_one(power) and function in _INVERSES:
            return self.node("call", argument, name=_INVERSES[function])
        arguments = (argument,) if base is None else (base, argument)
        result = self.node("call", *arguments, name=function if base is None else "log_base")
        return result if power is None else self.node("power", result, power)


def _is_number(token: str) -> bool:
    return token[-1] in "0123456789" and (token[0] == "." or token[0] in "0123456789")


def _is_minus_one(node: Node) -> bool:
    return node.operation == "negate" and node.arguments[0].value == 1
