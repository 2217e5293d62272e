"""Commands for people and scripts that ask the running service, over its API, with a key."""

from __future__ import annotations

import sys
from typing import Any

import click

from webhook.cli.service import load_settings

STATUSES = """\b
Exit status:
   0  the risk level is none or low
  10  it is medium, or one that is not known
  20  it is high
  30  the task failed, expired or was canceled
  40  there is no verdict yet, and the time is over
   1  wrong usage, or the service cannot be asked"""


@click.command(epilog=STATUSES)
@click.argument("source", metavar="FILE|URL")
@click.option("--service", help="The platform's service; by default the one for files, or for streams.")
@click.option("--data-id", help="Your name for it, of up to 64 letters, digits and _.-")
@click.option("--referer", help="The Referer that the platform sends when it downloads the URL.")
@click.option("--crypt-type", type=click.Choice(["SHA256", "SM3"]), help="How the platform signs its callback.")
@click.option("--live-id", help="The URL is a live stream of this id: register it, and show its slices as they come.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the verdict, or print the task's id.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait no longer than this once it is submitted; by default as long as it takes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the task and its verdict.")
def submit(
    *, source: str, live_id: str | None, wait: bool, timeout: float | None, as_json: bool, **fields: str | None
) -> None:
    """Have an audio file or URL moderated, and show the verdict.

    WEBHOOK_API_URL and WEBHOOK_API_KEY name the service and a key with the role submitter.
    """
    from webhook.cli import submit

    given = {name: value for name, value in fields.items() if value is not None}
    if "://" not in source:
        if live_id is not None:
            raise click.UsageError("--live-id goes with the URL of a stream, not with a file.")
    elif live_id is None and not source.lower().startswith(("http://", "https://")):
        raise click.UsageError("A stream needs a --live-id; files are submitted from http:// and https:// URLs.")
    submission = submit.Submission(source=source, live_id=live_id, fields=given)
    sys.exit(submit.run(load_settings(), submission, wait=wait, timeout=timeout, as_json=as_json))


@click.command()
@click.argument("live_id")
@click.option(
    "--from-start/--new-only",
    default=True,
    show_default=True,
    help="Show what has come before as well, or only what comes from now on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def watch(*, live_id: str, from_start: bool, as_json: bool) -> None:
    """Show the slices of a live stream as they come, until it ends or Ctrl-C.

    It is the active stream of this live_id, or else the last one.
    """
    from webhook.cli import watch

    sys.exit(watch.run(load_settings(), live_id, from_start=from_start, as_json=as_json))


@click.command()
@click.argument("task_id", required=False)
@click.option("--risk-level", metavar="LEVELS", help="One or more, comma separated: high,medium.")
@click.option("--action", type=click.Choice(["block", "review", "pass"]), help="What to do about it.")
@click.option("--label", help="Exact, or with a star: political_*.")
@click.option("--kind", type=click.Choice(["audio", "live"]), help="Files or streams.")
@click.option("--service", help="The platform's service.")
@click.option("--data-id", help="Your name for it.")
@click.option("--live-id", help="The stream's.")
@click.option("--since", metavar="TIME", help="Updated at this time or later, such as 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Updated before this time.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="How many to show: 50 by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def verdicts(*, task_id: str | None, as_json: bool, **filters: Any) -> None:
    """Show the verdicts there are, newest first; or one, of TASK_ID, with its timeline.

    Where the output is no terminal, each is a line of fields with tabs between them: time, risk level, action,
    kind, state, flagged slices/slices, task, name, labels.
    """
    from webhook.cli import verdicts

    given = {name: value for name, value in filters.items() if value is not None}
    if task_id is None:
        verdicts.show_list(load_settings(), given, as_json=as_json)
    elif given:
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} filters a list; TASK_ID names one verdict.")
    else:
        verdicts.show_one(load_settings(), task_id, as_json=as_json)
