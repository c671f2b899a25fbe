"""Files of the user: read one, find one by a word, delete one."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, tool
from melete.datasets.toolcalls.words import GOODS, PEOPLE

STEMS = [
    "notes",
    "report",
    "todo",
    "letter",
    "budget",
    "diary",
    "recipe",
    "plan",
    "list",
    "summary",
    "ideas",
    "invoice",
    "minutes",
    "draft",
]
ENDINGS = ["txt", "md", "csv"]
FOLDERS = ["documents", "work", "home", "archive", "desktop"]


def need(draw: Draw) -> Need:
    """Read a file, or list a folder."""
    return _folder(draw) if draw.pick([False, True]) else _read(draw)


def chain(draw: Draw) -> Chain:
    """Find the file, then read it."""
    find, read = (
        tool("find_file", "Find a file by a word.", word="string"),
        tool("read_file", "Read a text file.", path="string"),
    )
    stem, folder, ending = draw.pick(STEMS), draw.pick(FOLDERS), draw.pick(ENDINGS)
    path, text = f"{folder}/{stem}.{ending}", _text(draw)
    ask = draw.pick(
        [
            "Find my {s} and tell me what it says.",
            "What is in the file with my {s}?",
            "Look for the {s} file and read it to me.",
        ]
    ).format(s=stem)
    return Chain(
        ask,
        [Step(find, {"word": stem}, {"path": path}), Step(read, {"path": path}, text)],
        f"I found {path}. It says: {text}",
    )


def _read(draw: Draw) -> Need:
    key = draw.mostly("path", "file")
    read = tool(draw.mostly("read_file", "open_file"), "Read a text file.", **{key: "string"})
    path, text = f"{draw.pick(STEMS)}.{draw.pick(ENDINGS)}", _text(draw)
    ask = draw.pick(
        [
            "Read {p} to me.",
            "What does {p} say?",
            "Open {p}, please.",
            "Show me the content of {p}.",
            "What is in {p}?",
        ]
    ).format(p=path)
    answer = draw.pick([f"{path} says: {text}", f"It says: {text}", f"Here is {path}: {text}"])
    missing = Missing(
        draw.pick(["Read a file to me.", "Open my file, please."]),
        draw.pick(["Which file?", "What is the file called?"]),
        draw.pick([f"{path}.", f"It is {path}.", f"The file {path}."]),
    )
    failure = ({"error": f"{path} not found"}, f"There is no file {path}.")
    return Need("read files", ask, Step(read, {key: path}, text), answer, failure, missing)


def _folder(draw: Draw) -> Need:
    listing = tool(
        draw.mostly("list_files", "show_folder"),
        "Names of the files in a folder.",
        folder="string",
        hidden="boolean?",
    )
    folder = draw.pick(FOLDERS)
    names = [f"{draw.pick(STEMS)}_{draw.number(1, 9)}.{draw.pick(ENDINGS)}" for _ in range(draw.number(1, 3))]
    hidden = draw.pick([False, False, False, True])
    extra = ", hidden ones too" if hidden else ""
    ask = draw.pick(
        [
            "Which files are in {f}{e}?",
            "List the folder {f}{e}.",
            "What is in my {f} folder{e}?",
            "Show me the files of {f}{e}.",
        ]
    ).format(f=folder, e=extra)
    answer = f"In {folder} there {'is' if len(names) == 1 else 'are'} {', '.join(names)}."
    failure = ({"error": "no such folder"}, f"There is no folder {folder}.")
    arguments: dict[str, object] = {"folder": folder, **({"hidden": True} if hidden else {})}
    return Need("list files", ask, Step(listing, arguments, {"files": names}), answer, failure)


def _text(draw: Draw) -> str:
    return draw.pick(
        [
            "Buy {a} {b}s.",
            "Call {p} about the {b}.",
            "The {b} costs {a} euros.",
            "Meet {p} at {a} o'clock.",
            "{p} has the {b}.",
            "Send {a} {b}s to {p}.",
            "Pay {p} {a} euros.",
        ]
    ).format(a=draw.number(2, 12), b=draw.pick(GOODS), p=draw.pick(PEOPLE))
