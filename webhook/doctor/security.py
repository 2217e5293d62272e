"""`webhook doctor --security`: how the vendor's security asks are met, each with what shows it.

The same as `GET /v1/posture` has, and more thorough: the whole audit log is verified, all rows are looked at, and the
connection that callbacks come by is tried. The service need not run; nothing is written.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from webhook import bootstrap, clock, logs, posture
from webhook import settings as settings_module
from webhook.api.posture import answer_headers, shape
from webhook.checks import count
from webhook.db import open_database
from webhook.doctor.marks import mark_of
from webhook.posture import Item, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def run(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Look at everything and print what was found.

    Returns:
        The exit status: 0 when nothing is wrong, else 1.

    Raises:
        SettingError: the settings are wrong; `webhook doctor` says more.
        DatabaseError: the database cannot be read, or is not migrated.
    """
    logs.configure("error")
    items = examine(environ)
    if as_json:
        report = msgspec.json.encode(shape(items))
        sys.stdout.write(msgspec.json.format(report, indent=2).decode() + "\n")
    else:
        show(items, Console(highlight=False))
    return 1 if any(item.state == "wrong" for item in items) else 0


def examine(environ: Mapping[str, str]) -> list[Item]:
    """Look at everything, at the service that would start from this environment."""
    settings = settings_module.load(environ)
    with closing(open_database(settings.database_url)) as database:
        bootstrap.check_migrated(database)
        subject = Subject(
            settings=settings,
            database=database,
            keyring=bootstrap.check_keys(settings, database).keyring,
            headers=answer_headers(),
            now=clock.now(),
            thorough=True,
        )
        with database.read() as session:
            return posture.examine(subject, session)


def show(items: Sequence[Item], console: Console) -> None:
    """Print the items under what is asked for; on a terminal what is too long goes on beneath its beginning."""
    for (ask, source), group in groupby(items, key=lambda item: (item.ask, item.source)):
        console.print(Text(f"{ask} ({source})", style="bold"), soft_wrap=not console.is_terminal)
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for item in group:
            mark = mark_of(item.state, console)
            said = Text(f"{item.finding} {item.mend}" if item.mend else item.finding)
            if console.is_terminal:
                table.add_row(mark, item.id, said)
            else:
                console.print(Text("  ").join([Text(), mark, Text(item.id), said]), soft_wrap=True)
        if console.is_terminal:
            console.print(Padding(table, (0, 0, 0, 2)))
    states = Counter(item.state for item in items)
    told = [count(states["wrong"], "thing") + " wrong", f"{states['warning']} worth a look", f"{states['ok']} as asked"]
    console.print(f"\n{', '.join(told)}, {states['unseen']} that cannot be seen from here.", soft_wrap=True)
