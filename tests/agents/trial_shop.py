"""The trial scenario of the practice tests: one tool, one right argument, and a person who says it plainly."""

from __future__ import annotations

from typing import Any

from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.scenario import Criterion, Policy, Scenario, Task, World

WORDS = ("ab", "cd", "ef", "gh", "ij", "kl")


class ShopWorld(World):
    """Sells one thing."""

    def __init__(self, wanted: str) -> None:
        self.state: dict[str, Any] = {"sold": [], "stock": list(WORDS)}
        self._wanted = wanted

    def opening(self) -> str:
        return self._wanted

    def reply(self, text: str) -> str | None:
        return None

    @tool
    def sell(self, item: str) -> str:
        """Sells an item.

        Args:
            item: Its name.
        """
        if item not in self.state["stock"]:
            raise ToolFailure(f"no {item}")
        self.state["sold"] = [*self.state["sold"], item]
        return "sold"

    @tool
    def burn(self) -> str:
        """Burns the shop, which nobody may."""
        raise AssertionError("the guard let it through")


class Shop(Scenario):
    """See the head of this file."""

    name = "trial_shop"
    description = "Sell what the person names."
    max_steps = 4
    toolset = ToolSet.of(ShopWorld)
    guard = Guard.from_dict({"name": "shop", "version": "1", "rules": [{"allow_list": {"tools": ["sell"]}}]})
    system_prompt = "Sell."

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        indexes = range(start, start + (count or 1))
        return [
            Task(f"{split}-{i}", self.name, split, WORDS[(i + seed) % len(WORDS)], {}, i) for i in indexes
        ]

    def world(self, task: Task) -> World:
        return ShopWorld(task.request)

    def success_criteria(self) -> list[Criterion]:
        return [Criterion("sold", "What was asked for is sold.", lambda state: len(state["sold"]) == 1)]

    def expert(self, task: Task) -> Policy:
        actions = iter([ToolAction("sell", {"item": task.request}), Message("ok")])
        return lambda observation: next(actions)

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        wrong = ToolAction("sell", {"thing": task.request}) if seed % 2 else ToolAction("burn", {})
        actions = iter([wrong, ToolAction("sell", {"item": task.request}), Message("ok")])
        return lambda observation: next(actions)


class Careless(Shop):
    """A shop whose reward leaves its range."""

    name = "careless_shop"

    def calculate_reward(self, state: Any, action: Any, next_state: Any) -> float:
        return 7.0


class Endless(Shop):
    """A shop whose person always has one more wish."""

    name = "endless_shop"

    def world(self, task: Task) -> World:
        world = ShopWorld(task.request)
        world.reply = lambda text: "more"  # type: ignore[method-assign]
        return world


class Broken(Shop):
    """A shop that cannot be opened."""

    name = "broken_shop"

    def world(self, task: Task) -> World:
        raise RuntimeError("the door is stuck")


SCENARIO = Shop
