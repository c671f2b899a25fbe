"""A machine rented through SkyPilot: the child here hands the process over, follows its log and brings the runs back.

`needs: {gpu: "runpod:H100", budget_usd: 12}` names the machine and the most that it may be estimated to cost; that is
the yes that renting needs, since nobody is there to ask. A cluster of your own has no price and needs no budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from melete import find
from melete.errors import ConfigError, MeleteError
from melete.jobs.claims import Claim
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.jobs.states import Step
    from melete.runs.run import Run


FORKS = True


def problem(settings: Settings) -> str | None:
    """Why SkyPilot cannot be used here."""
    try:
        find.load("melete.agents.compute", "sky", "part of SkyPilot").find()
    except MeleteError as error:
        return f"{error.found} {error.next_step or ''}".strip()
    return None


def command(claim: Claim, child: list[str]) -> tuple[list[str], dict[str, str]]:
    """The child itself, which sees no GPU of this machine."""
    return child, {"CUDA_VISIBLE_DEVICES": ""}


def carry_out(step: Step) -> Callable[[Any, Run], None]:
    """Hands a process over to a rented machine.

    Raises:
        ConfigError: (when called) the process does not say on which.
    """

    def rented(config: Any, run: Run) -> None:
        place, _, accelerators = str(step.needs.get("gpu", "")).partition(":")
        if not place:
            raise ConfigError(
                f"{step.name} says 'executor: skypilot' and not what to rent.",
                next_step="Say so in its needs, such as: needs: {gpu: 'runpod:H100', budget_usd: 12}",
            )
        target = find.load("melete.agents.compute.targets", place, "GPU target").target(accelerators)
        budget_usd = float(step.needs.get("budget_usd", 0.0))

        def within_budget(offer: Any) -> bool:
            priced = target.cloud is not None and target.cloud.priced
            fits = not priced or (offer.total is not None and offer.total <= budget_usd)
            if not fits:
                run.say(f"The budget of ${budget_usd:.2f} (needs.budget_usd) does not cover it.")
            return bool(fits)

        target.launch(
            step.process, config.model_dump(mode="json"), run=run, confirm=within_budget, say=run.say
        )

    return rented
