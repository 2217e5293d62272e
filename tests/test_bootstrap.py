"""The parts put together: the keys that are needed, and what is said where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import databases
from webhook import bootstrap, processes
from webhook.errors import DatabaseError, SettingError

if TYPE_CHECKING:
    from tests.conftest import MakeSettings


@databases.needs_sqlite
@pytest.mark.parametrize("held", [b"k1:not base64", b"\xff\xfe"])
def test_a_key_file_that_holds_no_key_is_named_with_its_mend(settings: MakeSettings, held: bytes) -> None:
    ours = settings(WEBHOOK_ENCRYPTION_KEYS="")
    made = processes.migrate(ours)
    assert made
    assert made == bootstrap.key_file(ours)
    made.write_bytes(held)
    with pytest.raises(SettingError, match=r"webhook\.db\.key cannot be read .* Put the key file back"):
        bootstrap.build(ours)


@databases.needs_sqlite
def test_a_key_file_that_cannot_be_made_is_named(settings: MakeSettings) -> None:
    ours = settings(WEBHOOK_ENCRYPTION_KEYS="")
    key_file = bootstrap.key_file(ours)
    assert key_file
    key_file.symlink_to("/nowhere/at/all")
    with pytest.raises(DatabaseError, match=r"key file beside .* cannot be written"):
        processes.migrate(ours)
