"""Idempotency: a call that comes twice under one key acts once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from melete.actions.action import ToolAction
from melete.actions.ledger import Ledger
from melete.actions.tools import Tool, ToolFailure, ToolSet

AMOUNT: dict[str, Any] = {"type": "object", "properties": {"amount": {"type": "integer"}}}


class Account:
    """Counts what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.keys: list[str | None] = []
        self.down = False

    def pay(self, amount: int, idempotency_key: str | None = None) -> str:
        if self.down:
            raise ToolFailure("the bank is closed")
        self.paid.append(amount)
        self.keys.append(idempotency_key)
        return f"paid {amount}"


def tools(account: Account, ledger: Ledger | None = None, **options: Any) -> ToolSet:
    return ToolSet([Tool("pay", "Pays.", AMOUNT, account.pay, **options)], ledger=ledger)


def test_call_with_the_same_key_acts_once_and_gets_the_same_result() -> None:
    account = Account()
    shop = tools(account)
    first = shop.call(ToolAction("pay", {"amount": 5}), idempotency_key="e1/1")
    assert shop.call(ToolAction("pay", {"amount": 5}, "other"), idempotency_key="e1/1") == first
    assert account.paid == [5]


def test_key_is_handed_to_a_tool_that_takes_one_and_not_shown_to_the_model() -> None:
    account = Account()
    tools(account).call(ToolAction("pay", {"amount": 5}), idempotency_key="k")
    assert account.keys == ["k"]
    assert "idempotency_key is no argument" in str(
        tools(account).call(ToolAction("pay", {"amount": 5, "idempotency_key": "mine"})).error
    )


def test_key_of_another_call_is_refused() -> None:
    account = Account()
    shop = tools(account)
    shop.call(ToolAction("pay", {"amount": 5}), idempotency_key="k")
    result = shop.call(ToolAction("pay", {"amount": 50}), idempotency_key="k")
    assert "belongs to another call" in str(result.error)
    assert account.paid == [5]


def test_failure_that_changed_nothing_leaves_the_key_free() -> None:
    account = Account()
    account.down = True
    shop = tools(account)
    assert not shop.call(ToolAction("pay", {"amount": 5}), idempotency_key="k").ok
    account.down = False
    assert shop.call(ToolAction("pay", {"amount": 5}), idempotency_key="k").ok


def test_call_after_a_timeout_is_refused_because_the_first_may_have_acted() -> None:
    stop = threading.Event()
    shop = ToolSet([Tool("wait", "Waits.", AMOUNT, lambda amount: stop.wait(5), timeout_s=0.02)])
    assert "did not answer" in str(shop.call(ToolAction("wait", {"amount": 1}), idempotency_key="k").error)
    stop.set()
    assert "not known whether it acted" in str(
        shop.call(ToolAction("wait", {"amount": 1}), idempotency_key="k").error
    )


def test_calls_with_one_key_from_many_threads_act_once() -> None:
    account = Account()
    shop = tools(account)
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda _: shop.call(ToolAction("pay", {"amount": 5}), idempotency_key="k"), range(40))
        )
    assert account.paid == [5]
    assert {result.content for result in results} == {"paid 5"}


def test_ledger_in_a_file_holds_across_a_restart(tmp_path: Path) -> None:
    account, path = Account(), tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    tools(account, ledger).call(ToolAction("pay", {"amount": 5}), idempotency_key="k")
    ledger.close()
    again = tools(account, Ledger(path)).call(ToolAction("pay", {"amount": 5}), idempotency_key="k")
    assert (again.content, account.paid) == ("paid 5", [5])


KILLED = """
import os, signal, sys
from pathlib import Path
from melete.actions.action import ToolAction
from melete.actions.ledger import Ledger
from melete.actions.tools import Tool, ToolSet
def pay(amount):
    os.kill(os.getpid(), signal.SIGKILL)
schema = {"type": "object", "properties": {"amount": {"type": "integer"}}}
ToolSet([Tool("pay", "Pays.", schema, pay)], ledger=Ledger(Path(sys.argv[1]))).call(
    ToolAction("pay", {"amount": 5}), idempotency_key="k")
"""


def test_call_during_which_the_process_was_killed_is_not_made_again(tmp_path: Path) -> None:
    path, account = tmp_path / "ledger.jsonl", Account()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    result = tools(account, Ledger(path)).call(ToolAction("pay", {"amount": 5}), idempotency_key="k")
    assert "not known whether it acted" in str(result.error)
    assert account.paid == []
