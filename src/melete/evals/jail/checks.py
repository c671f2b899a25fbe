"""Grades a program that the grader does not trust: the checks run in one process, the program in another.

The checks call the program's function over a pipe. Only plain values travel (numbers, text, bytes, lists, tuples,
sets, dictionaries), so that the program can neither patch `assert`, nor return an object that equals everything, nor
leave with a success code: the verdict is written by the checking process after its last line, and the program's
process never holds the checks, the expected values or the descriptor of the verdict.

Limits: arguments and results are copies, so a check cannot see that an argument was changed in place; a class that
the program defines does not come back as itself; a function that is right on exactly the checked values passes.
"""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any, TextIO

LARGEST_MESSAGE = 16_000_000
"""Characters of one answer; a longer one fails the check."""


class Unknown:
    """A value that is not plain: it has the name of its type and equals nothing."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<a value of type {self.type_name}>"


def encode(value: Any) -> Any:
    """A plain value as JSON with its type in front; subclasses of plain types become the plain type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        plain: type = next(kind for kind in (int, float, str) if isinstance(value, kind))
        return plain(value)
    for tag, kind in (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return [tag, *(encode(item) for item in value)]
    if isinstance(value, dict):
        return ["dict", *([encode(key), encode(item)] for key, item in value.items())]
    if isinstance(value, bytes | bytearray):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if hasattr(value, "__index__"):
        return value.__index__()
    return ["unknown", type(value).__name__]


def decode(message: Any) -> Any:
    """The value that `encode` wrote; a malformed message is a `ValueError`."""
    if not isinstance(message, list):
        return message
    tag, *items = message
    if tag in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, tag)(decode(item) for item in items)
    if tag == "dict":
        return {decode(key): decode(item) for key, item in items}
    if tag == "bytes":
        return bytes.fromhex(items[0])
    if tag == "complex":
        return complex(items[0], items[1])
    if tag == "unknown":
        return Unknown(str(items[0]))
    raise ValueError(f"a message with the tag {tag!r}")


def serve(namespace: dict[str, Any], entry_point: str, questions: TextIO, answers: TextIO) -> None:
    """The program's side: calls the function for each line of `questions` until there are no more."""
    function = namespace.get(entry_point)
    sys.stdout.flush()  # the grader kills this process when its checks are done
    print(json.dumps(["ready", callable(function)]), file=answers, flush=True)
    for line in questions:
        args, kwargs = decode(json.loads(line))
        try:
            answer = ["value", encode(function(*args, **kwargs))]  # type: ignore[misc]
        except Exception as error:
            answer = ["error", type(error).__name__, str(error)[:500]]
        sys.stdout.flush()
        print(json.dumps(answer), file=answers, flush=True)


def run_checks(checks: dict[str, str], questions: TextIO, answers: TextIO) -> dict[str, Any]:
    """The grader's side: runs the checks to their end.

    Args:
        checks: `setup` (definitions the checks may use), `entry_point`, `code` (raises if the program is wrong) and
            `nonce`, which the verdict repeats.
        questions: to the program.
        answers: from the program.

    Returns:
        The verdict: `passed`, `reason`, `nonce`, and `calls`, the number of calls that were answered with a value.
    """
    calls = 0

    def receive() -> list[Any]:
        line = answers.readline(LARGEST_MESSAGE)
        if not line.endswith("\n"):
            raise EOFError("the program's process ended before it answered")
        message = json.loads(line)
        if not isinstance(message, list) or not message:
            raise ValueError("the program's process sent a malformed message")
        return message

    def ask(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        print(json.dumps(encode((args, kwargs))), file=questions, flush=True)
        message = receive()
        if message[0] == "value":
            calls += 1
            return decode(message[1])
        kind = getattr(builtins, str(message[1]), None)
        known = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if known else RuntimeError)(str(message[2]))  # type: ignore[misc]

    name = checks["entry_point"]
    reason = ""
    try:
        sys.set_int_max_str_digits(0)
        if receive() != ["ready", True]:
            raise NameError(f"the program does not define the function {name!r}")
        namespace: dict[str, Any] = {"__name__": "checks"}
        exec(compile(checks["setup"], "<setup>", "exec"), namespace)
        namespace[name] = ask
        exec(compile(checks["code"], "<checks>", "exec"), namespace)
    except Exception as error:  # whatever a check raises is its verdict
        reason = f"{type(error).__name__}: {error}".strip(": ")[:500]
    return {"passed": not reason, "reason": reason, "nonce": checks["nonce"], "calls": calls}
