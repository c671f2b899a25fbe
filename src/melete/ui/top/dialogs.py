"""Two dialogs of the dashboard: a question before anything is changed, and the keys."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

HELP = """\
 tab        between runs and jobs            ↑ ↓        choose
 m  M       next figure, the one before      /          filter; escape ends it
 s          stop, after a checkpoint         p  r       pause, resume a job
 t          try a job again                  d          dark or light
 ctrl+p     all commands and themes          q          leave

 What is stopped saves a checkpoint first. Leaving ends nothing but this picture."""


class Confirm(ModalScreen[bool]):
    """Asks before something is done.

    Args:
        question: with the name of what it is about.
        action: what the button says.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "answer(True)", "Yes"),
        ("n,escape", "answer(False)", "No"),
    ]
    CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: 60; max-width: 96%; height: auto; border: round $warning; padding: 1 2; }
    Confirm Horizontal { height: auto; margin-top: 1; align-horizontal: right; }
    Confirm Button { margin-left: 2; }
    """

    def __init__(self, question: str, action: str) -> None:
        super().__init__()
        self._question, self._action = question, action

    def compose(self) -> ComposeResult:
        """See Textual."""
        with Vertical():
            yield Static(Text(self._question))
            with Horizontal():
                yield Button(Text(f"{self._action} (y)"), variant="warning", id="yes")
                yield Button(Text("Leave it (n)"), id="no")

    def on_mount(self) -> None:
        """The careful answer has the focus."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """See Textual."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        """Answers."""
        self.dismiss(answer)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,enter", "app.pop_screen", "Close")]
    CSS = """
    Help { align: center middle; }
    Help > Static { width: 78; max-width: 100%; height: auto; border: round $accent; padding: 1 2; }
    """

    def compose(self) -> ComposeResult:
        """See Textual."""
        box = Static(Text(HELP))
        box.border_title = "Keys"
        yield box
