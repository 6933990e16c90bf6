"""`nettime agent`: an agent that learns a sparsity schedule, judged against opponents."""

from __future__ import annotations

import typer

# They hang themselves on `agent_app`.
from analysis.commands import agent_compare, agent_dsrl, agent_schedules, agent_train  # noqa: F401
from analysis.commands.agent_options import agent_app


def register(app: typer.Typer) -> None:
    """Adds the commands of `nettime agent`."""
    app.add_typer(agent_app)
