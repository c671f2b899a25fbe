"""The gateway's log: rotated, and without anything that a client or a provider said.

LiteLLM writes errors with the text of the provider, which may repeat a prompt. So of its lines only what is known to
hold no text is kept: level, file and line, and the names of exceptions; the rest is counted and left out. What it says
while it starts is written only if it never served, because then no client was there, with secrets blotted out.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE = "gateway.log"
LARGEST_BYTES = 4_000_000
KEPT_FILES = 4
HELD_LINES = 200
LAST_WORDS_S = 2.0
LINE = re.compile(
    r"^(?P<time>\d\d:\d\d:\d\d) - (?P<logger>LiteLLM[A-Za-z ]{0,12}):(?P<level>[A-Z]{4,8}): "
    r"(?P<place>[a-z0-9_]{1,60}\.py:\d{1,6}) - "
)
EXCEPTIONS = re.compile(
    r"\b(?:litellm\.)?(BadRequestError|AuthenticationError|NotFoundError|Timeout|RateLimitError|InternalServerError"
    r"|ContextWindowExceededError|ContentPolicyViolationError|ServiceUnavailableError|APIConnectionError|APIError"
    r"|PermissionDeniedError|UnprocessableEntityError|BudgetExceededError|ProxyException|HTTPException|ReadError"
    r"|ConnectError|ServerDisconnectedError|KeyError|TypeError|ValueError|AttributeError|RuntimeError|OSError"
    r"|ImportError|JSONDecodeError|ValidationError|OperationalError|MemoryError)\b"
)
DRAWN = re.compile(r"^\s*[\u2500-\u259f\U0001f300-\U0001faff]")
"""Boxes, banners and pictures that LiteLLM draws while it starts."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SECRET = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")


class Log:
    """A rotating file of lines, each with the time.

    Args:
        folder: where it lies.
        secrets: values that are blotted out wherever they turn up.
        shown: whether the lines are printed too.
    """

    def __init__(self, folder: Path, secrets: Iterable[str] = (), *, shown: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = RotatingFileHandler(
            folder / FILE, maxBytes=LARGEST_BYTES, backupCount=KEPT_FILES, encoding="utf-8"
        )
        self.secrets = sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)
        self._shown = shown

    def say(self, text: str) -> None:
        """Writes a line; a disk that is full loses it and nothing else."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"
        self._file.emit(logging.LogRecord("gateway", logging.INFO, "", 0, line, None, None))
        if self._shown:
            print(line, flush=True)

    def of_child(self, lines: Iterable[bytes] | None) -> ChildLog:
        """Writes what a child says, from a thread, until it ends."""
        child = ChildLog(self)
        child.thread = threading.Thread(target=child.read, args=(lines or (),), name="log", daemon=True)
        child.thread.start()
        return child


class ChildLog:
    """What one LiteLLM says: held back while it starts, then written if the start failed, else sifted."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._held: deque[str] | None = deque(maxlen=HELD_LINES)
        self._withheld = 0
        self._lock = threading.Lock()
        self.thread: threading.Thread | None = None

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes line after line until there are no more."""
        for raw in lines:
            text = COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip()
            with self._lock:
                if self._held is not None:
                    self._held.append(text)
                else:
                    self._sift(text)

    def serves(self) -> None:
        """From now on clients may be there; what was held is dropped."""
        with self._lock:
            self._held = None

    def failed(self) -> None:
        """It never served: what it said is written whole, with the values of secrets blotted out."""
        if self.thread is not None:
            self.thread.join(LAST_WORDS_S)
        with self._lock:
            for text in self._held or ():
                if text and not DRAWN.match(text):
                    self._log.say(f"litellm: {blotted(text, self._log.secrets)}")
            self._held = deque(maxlen=HELD_LINES)

    def _sift(self, text: str) -> None:
        kept = known(text)
        if kept:
            more = f" (+{self._withheld} lines withheld)" if self._withheld else ""
            self._log.say(f"litellm: {kept}{more}")
            self._withheld = 0
        elif text:
            self._withheld += 1


def known(line: str) -> str | None:
    """What may be kept of a line that LiteLLM wrote while it served: its place and names of exceptions, else None."""
    found = LINE.match(line)
    if found is None:
        return None
    names = list(dict.fromkeys(EXCEPTIONS.findall(line[found.end() :][:4000])))[:4]
    return f"{found['logger']}:{found['level']}: {found['place']}" + (f" {' '.join(names)}" if names else "")


def blotted(line: str, secrets: Iterable[str]) -> str:
    """A line with the values of secrets, and whatever looks like a key, replaced."""
    for secret in secrets:
        line = line.replace(secret, "***")
    return SECRET.sub("sk-***", line)


def follow(path: Path, lines: int, *, on: bool, pause_s: float = 0.3) -> Iterator[str]:
    """The last lines of the log, then, if `on`, each new one as it comes; a rotated file is followed into the next."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in deque(file, maxlen=lines))
            place, number = file.tell(), path.stat().st_ino
    else:
        place, number = 0, 0
    rest = ""
    while on:
        time.sleep(pause_s)
        if not path.is_file():
            continue
        now = path.stat()
        if now.st_ino != number or now.st_size < place:
            place, number, rest = 0, now.st_ino, ""
        with path.open(encoding="utf-8", errors="replace") as file:
            file.seek(place)
            fresh = rest + file.read()
            place = file.tell()
        *whole, rest = fresh.split("\n")
        yield from whole
