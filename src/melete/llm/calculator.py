"""Arithmetic that a model may ask for: an expression in text, its value or a plain error as text.

Expressions are parsed to Python's syntax tree and walked by hand, so nothing but numbers, the operators
`+ - * / // % **`, comparisons, parentheses and a few functions exists. Integers stay exact, decimals are decimals
(`0.1 + 0.2` is `0.3`). Every cost is bounded before it is paid (length, depth, digits of a result), so no clock and
no signal is needed and it works the same in any thread.

Limits: real numbers only, results of at most 1,000 digits, fractions rounded to 28 significant digits and shown
with 12.
"""

from __future__ import annotations

import ast
import decimal
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_CHARS = 500
MAX_DEPTH = 50
MAX_DIGITS = 1_000
SHOWN_DIGITS = 12

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
"""The calculator as a tool, in the words that `toolcalls` trains with."""

Number = int | Decimal


class CalculatorError(ValueError):
    """An expression that has no value here; the text is meant for the model that asked."""


def calculate(expression: str) -> str:
    """Value of an arithmetic expression as text; never raises.

    Args:
        expression: such as `(1,200 + 3 ** 2) / 7`.

    Returns:
        The value, or `error: …` with the reason.
    """
    try:
        return show(evaluate(expression))
    except CalculatorError as error:
        return f"error: {error}"


def evaluate(expression: str) -> Number | bool:
    """Value of an arithmetic expression.

    Raises:
        CalculatorError: what is wrong with the expression.
    """
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", expression.strip()).replace("^", "**")
    text = text.replace("×", "*").replace("÷", "/").replace("−", "-").replace("$", "")
    if not text:
        raise CalculatorError("the expression is empty")
    if len(text) > MAX_CHARS:
        raise CalculatorError(f"the expression has {len(text)} characters; at most {MAX_CHARS} are read")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CalculatorError(f"{expression.strip()[:60]!r} is not an arithmetic expression") from None
    context = decimal.Context(prec=28, Emax=MAX_DIGITS, Emin=-MAX_DIGITS)
    # Inexact results round quietly; the rest is an error that is named below.
    context.traps[decimal.Inexact] = context.traps[decimal.Rounded] = False
    with decimal.localcontext(context):
        try:
            result: Number | bool = _value(tree.body, text, 0)
        except (ZeroDivisionError, decimal.DivisionByZero):
            raise CalculatorError("division by zero") from None
        except decimal.DecimalException:
            raise CalculatorError("the result is not a real number of a size that can be shown") from None
    return result


def show(value: Number | bool) -> str:
    """A value as a person would write it: no trailing zeros, 12 significant digits of a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if value == value.to_integral_value():
        return str(int(value)) if abs(value) < Decimal(10) ** 15 else f"{value.normalize():f}"
    rounded = decimal.Context(prec=SHOWN_DIGITS).plus(value)
    text = f"{rounded:f}" if Decimal("1e-6") < abs(rounded) < Decimal("1e15") else f"{rounded:e}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _value(node: ast.expr, text: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise CalculatorError(f"the expression is nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() as value):
            return _bounded(value)
        case ast.Constant(value=float()):
            # The text, not the float: 0.1 is one tenth here.
            return +Decimal((ast.get_source_segment(text, node) or str(node.value)).replace("_", ""))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            inner = _number(operand, text, depth + 1)
            return -inner if isinstance(sign, ast.USub) else inner
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            a, b = _number(left, text, depth + 1), _number(right, text, depth + 1)
            return _bounded(OPERATORS[type(operator)](a, b))
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in COMPARISONS:
            return COMPARISONS[type(operator)](
                _number(left, text, depth + 1), _number(right, text, depth + 1)
            )
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return _call(name, [_number(argument, text, depth + 1) for argument in arguments])
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)):
            raise CalculatorError(f"{name!r} is not known; functions: {', '.join(sorted(FUNCTIONS))}")
        case _:
            pass
    raise CalculatorError(
        f"{ast.unparse(node)[:60]!r} is not arithmetic; operators: + - * / // % ** and comparisons"
    )


def _number(node: ast.expr, text: str, depth: int) -> Any:
    value = _value(node, text, depth)
    if isinstance(value, bool):
        raise CalculatorError("a comparison has no number to calculate with")
    return value


def _call(name: str, values: list[Any]) -> Any:
    least, most, function = FUNCTIONS[name]
    if not least <= len(values) <= most:
        wanted = str(least) if least == most else f"{least} or more" if most > 9 else f"{least} to {most}"
        raise CalculatorError(f"{name} takes {wanted} numbers, not {len(values)}")
    return _bounded(function(*values))


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise CalculatorError(f"the result has more than {MAX_DIGITS} digits")
    return value


def _divide(a: Number, b: Number) -> Number:
    if b == 0:
        raise ZeroDivisionError
    if isinstance(a, int) and isinstance(b, int):
        fraction = Fraction(a, b)
        return int(fraction) if fraction.denominator == 1 else Decimal(a) / Decimal(b)
    return Decimal(a) / Decimal(b)


def _floor_divide(a: Number, b: Number) -> Number:
    if b == 0:
        raise ZeroDivisionError
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return int((Decimal(a) / Decimal(b)).to_integral_value(decimal.ROUND_FLOOR))


def _modulo(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return Decimal(a) - Decimal(b) * _floor_divide(a, b)


def _power(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and b >= 0:
        # Bits of the result are at most those of the base times the exponent: known before it is computed.
        if abs(a) > 1 and b * (abs(a).bit_length() - 1) > MAX_DIGITS * 3.33:
            raise CalculatorError(f"the result has more than {MAX_DIGITS} digits")
        power: int = a**b
        return power
    if a == 0 and b < 0:
        raise ZeroDivisionError
    result = Decimal(a) ** Decimal(b)
    return int(result) if isinstance(a, int) and result == 1 else result


def _square_root(a: Number) -> Number:
    if a < 0:
        raise CalculatorError("sqrt of a negative number is not real")
    root = Decimal(a).sqrt()
    return int(root) if root == root.to_integral_value() and root * root == a else root


def _round(a: Number, digits: Number = 0) -> Number:
    if not isinstance(digits, int) or abs(digits) > 28:
        raise CalculatorError("round takes a whole number of digits, at most 28")
    if isinstance(a, int) and digits >= 0:
        return a
    # Half away from zero, as at school; Python's own rounding goes to the even digit.
    rounded = Decimal(a).quantize(Decimal(1).scaleb(-digits), decimal.ROUND_HALF_UP)
    return int(rounded) if digits <= 0 else rounded


OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: _divide,
    ast.FloorDiv: _floor_divide,
    ast.Mod: _modulo,
    ast.Pow: _power,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, abs),
    "max": (1, 99, max),
    "min": (1, 99, min),
    "round": (1, 2, _round),
    "sqrt": (1, 1, _square_root),
}
"""Name to fewest arguments, most arguments, and what it does."""
