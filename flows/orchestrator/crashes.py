"""Runs whose process or machine died: the server notices, and has them run again.

Prefect's engine sends a heartbeat when a run begins and every 30 s after that (see prefect.yaml).
A run that begins or sends one, and then nothing at all, has crashed; its slot in the pool is free
again.  A crashed run is scheduled anew if it is tagged for that, and goes on from what the store
has.  Chunks are not tagged: the flow that gave them their shards gives these to another run.
"""

from contextlib import suppress
from datetime import timedelta
from typing import cast

from prefect import runtime
from prefect.automations import Automation, EventTrigger, Posture
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CancelFlowRun, ChangeFlowRunState

SILENT = timedelta(seconds=90)
"""Silence after which a run counts as crashed: three heartbeats, as Prefect's guide for zombie runs
says, so that one lost on its way is no death.  With the server's own delay a dead run is found
within 100 s."""

STUCK = timedelta(minutes=15)
"""How long a run that a worker has taken may take to begin: time enough to pull an image."""

OVERDUE = timedelta(hours=24)
"""Age at which a run is cancelled: its next one goes on from what the store has."""

MOST_RUNS = 5
"""How often a flow run that crashes is run."""

TAG = "raee"
AGAIN = "raee-again"

_OF_A_RUN = {"prefect.resource.id": "prefect.flow-run.*"}
_SIGNS = {f"prefect.flow-run.{sign}" for sign in ("Running", "heartbeat")}
_WAITS = {f"prefect.flow-run.{state}" for state in ("AwaitingConcurrencySlot", "Scheduled")}
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}


def check_run_count() -> None:
    """Raises RuntimeError if a flow run has crashed too often to be worth another try."""
    count = runtime.flow_run.run_count or 0
    if count > MOST_RUNS:
        raise RuntimeError(
            f"this run has crashed {MOST_RUNS} times and is not run again; its log and its "
            "worker's say why, and a new run goes on from what stands in the store"
        )


def automations(
    silent: timedelta = SILENT, stuck: timedelta = STUCK, overdue: timedelta = OVERDUE
) -> list[Automation]:
    """The automations for runs that crash, never begin or never end."""
    return [
        _unless(
            "raee: silent runs have crashed",
            f"A run that begins or sends a heartbeat, and within {silent.seconds} s no other.",
            # A run that dies as it begins has sent no heartbeat yet.
            after=_SIGNS,
            expect={*_SIGNS, *_ENDS},
            within=silent,
            action=_crashed(f"No heartbeat for {silent.seconds} s: its process or machine died."),
        ),
        _unless(
            "raee: runs that never begin have crashed",
            f"A run that a worker has taken and that has not begun within {stuck}.",
            after={"prefect.flow-run.Pending"},
            expect={"prefect.flow-run.Running", *_WAITS, *_ENDS},
            within=stuck,
            action=_crashed(f"It did not begin within {stuck}: its worker died or cannot."),
        ),
        Automation(
            name="raee: crashed runs run again",
            description=f"What has crashed goes on, up to {MOST_RUNS} times.",
            trigger=EventTrigger(
                match=_OF_A_RUN,
                match_related=_tagged(AGAIN),
                for_each={"prefect.resource.id"},
                expect={"prefect.flow-run.Crashed"},
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED,
                    name="AwaitingRetry",
                    message="It crashed, and goes on from what stands in the store.",
                    force=True,
                )
            ],
        ),
        _unless(
            "raee: overdue runs are cancelled",
            f"A run that has not ended {overdue} after it began.",
            after={"prefect.flow-run.Running"},
            expect=_ENDS,
            within=overdue,
            action=CancelFlowRun(),
        ),
    ]


def _unless(
    name: str,
    description: str,
    after: set[str],
    expect: set[str],
    within: timedelta,
    action: ChangeFlowRunState | CancelFlowRun,
) -> Automation:
    """An automation that acts on each of our runs whose expected event does not follow in time."""
    return Automation(
        name=name,
        description=description,
        trigger=EventTrigger(
            match=_OF_A_RUN,
            match_related=_tagged(TAG),
            for_each={"prefect.resource.id"},
            after=after,
            expect=expect,
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[action],
    )


def _crashed(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)


def register(
    silent: timedelta = SILENT, stuck: timedelta = STUCK, overdue: timedelta = OVERDUE
) -> list[str]:
    """Put the automations on the server, replacing those of the same names; returns the names."""
    wanted = automations(silent, stuck, overdue)
    for automation in wanted:
        with suppress(ValueError):  # Prefect raises it if there is none of that name
            cast(Automation, Automation.read(name=automation.name)).delete()
        automation.create()
    return [automation.name for automation in wanted]


def _tagged(tag: str) -> dict[str, str]:
    return {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
