"""Names the tools that may be called at all; what no allow-list names is refused.

Messages need no entry. Other actions are named like `@continuous` or `@ui.click`.
"""

from __future__ import annotations

from pydantic import Field

from melete.actions.rule import Rule, RuleOptions, named


class Options(RuleOptions):
    """The tools that may be called."""

    tools: tuple[str, ...] | None = Field(..., description="Tools that may be called; * is a wildcard.")


class AllowList(Rule[Options, None]):
    """Lifts the default for its tools; that everything else is refused is the guard's own doing."""

    Options = Options

    def sees(self, subject: str) -> bool:
        """Nothing more to say once a call is allowed."""
        return False

    def allows(self, subject: str) -> bool:
        """Whether the file names the subject."""
        return named(subject, self.options.subjects or ())


RULE = AllowList
EXAMPLE = {"tools": ["get_order", "list_*"]}
