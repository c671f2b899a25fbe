"""A harness for tests: answers each task at once, as the word in `HARNESS` tells it to; it calls no model."""

import json
import pathlib
import sys

answered = 0
for line in sys.stdin:
    row = json.loads(line)
    how = row["environment"]["HARNESS"]
    block = pathlib.Path(row["environment"].get("BLOCK", "/nonexistent"))
    if how == "die":
        print("error: out of luck", file=sys.stderr)
        sys.exit(3)
    if how == "silent" or (block.exists() and answered >= 3):
        continue
    if how == "garbage":
        print("no JSON\n" + json.dumps({"session": "s-unknown", "solved": True}) + "\n{}\n[1]")
    if "prompt" in row["task"]:
        pathlib.Path(row["task"]["workdir"], "answer.txt").write_text(row["task"]["prompt"])
        done = {
            "session": row["session"],
            "solved": False,
            "output": "printed",
            "self_reported": {"tokens_in": 9},
        }
        print(json.dumps(done), flush=True)
        continue
    said = {"tool_calls": 4, "tool_calls_ok": 3, "model": row["environment"]["OPENAI_MODEL"], **row["task"]}
    result = {
        "session": row["session"],
        "solved": row["task"]["number"] % 2 == 0,
        "score": 0.5,
        "self_reported": said,
    }
    print(json.dumps(result), flush=True)
    if how == "twice":
        print(json.dumps({**result, "solved": None}), flush=True)
    if how == "answer and die":
        sys.exit(4)
    answered += 1
