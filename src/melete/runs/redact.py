"""Takes secrets out of what is written down: values under telling names, and what looks like a key, token or card.

Found by name: `password`, `token`, `api_key`, `authorization` and the like, as keys of an object and inside text
(`"password": "…"`, `password=…`). Found by look: `sk-…` and other providers' keys, bearer credentials, JSON web tokens,
private keys, passwords in URLs, and card numbers (13 to 19 digits that pass the Luhn check). A secret that neither
has such a name nor such a look is not found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
_NAMES = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|authorization|credentials?"
    r"|cookie|cvv|cvc|card[_-]?number"
)
_KEY = re.compile(rf"(?:^|[_-])(?:{_NAMES})$", re.I)
_NAMED = re.compile(
    rf"""((?:\b|_)(?:{_NAMES})\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|[^\s,;&"'{{}}\[\]]+)""",
    re.I,
)
_LOOKS = re.compile(
    r"\b(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bxox[abprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{20,}"
    r"|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]{8,}\.eyJ[\w-]+\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.I)
_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])")
_HINTS = (
    "pass", "pwd", "secret", "token", "key", "authorization", "credential", "cookie", "cvv", "cvc", "card",
    "sk-", "sk_", "rk-", "rk_", "pk-", "pk_", "gh", "xox", "hf_", "akia", "aiza", "eyj", "bearer", "basic", "://",
)  # fmt: skip


def redact(value: Any) -> Any:
    """The value with every secret replaced by `[redacted]`; the value itself is not changed."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: _field(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """Text without the secrets in it."""
    lower = text.lower()
    if any(hint in lower for hint in _HINTS):
        text = _LOOKS.sub(HIDDEN, text)
        text = _BEARER.sub(rf"\1 {HIDDEN}", text)
        text = _URL.sub(rf"\1{HIDDEN}@", text)
        text = _NAMED.sub(_hide_named, text)
    return _CARD.sub(_hide_card, text) if len(text) >= 13 else text


def _field(key: str, item: Any) -> Any:
    if item is not None and not isinstance(item, bool) and _KEY.search(key):
        return HIDDEN
    return redact(item)


def _hide_named(found: re.Match[str]) -> str:
    value = found[2]
    if value.lower() in ("null", "none", "true", "false", "bearer", "basic") or HIDDEN in value:
        return found[0]
    quote = re.match(r"""\\?["']|""", value)
    mark = quote[0] if quote else ""
    return f"{found[1]}{mark}{HIDDEN}{mark}"


def _hide_card(found: re.Match[str]) -> str:
    digits = [int(one) for one in found[0] if one.isdigit()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    is_card = digits[0] in (2, 3, 4, 5, 6) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return HIDDEN if is_card else found[0]
