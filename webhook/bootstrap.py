"""The composition root: settings in, the parts of one process out."""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from webhook import audit, models
from webhook.addresses import AddressPolicy
from webhook.api_keys import ApiKeys, pepper
from webhook.calls import Calls
from webhook.claims import Claims, Pace
from webhook.data_keys import DataKeys
from webhook.db import Database, alone, open_database, path_of
from webhook.deliveries import Deliveries
from webhook.erasure import Erasure
from webhook.errors import DatabaseError, DecryptionError, ServiceError, SettingError
from webhook.evidence import Evidence
from webhook.evidence_stores import Directory, open_store
from webhook.ingest import Ingest
from webhook.platform_client import PlatformClient
from webhook.quarantine import Quarantine
from webhook.retention import Periods, Retention
from webhook.services import CATALOGUE
from webhook.shredding import Shredding
from webhook.store import data_keys as data_key_store
from webhook.store import keys as key_store
from webhook.store.sealed import KEY_CHECK
from webhook.tasks import Tasks
from webhook.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.crypto import Keyring
    from webhook.evidence_stores import EvidenceStore
    from webhook.settings import Settings

_OWNER_ONLY = 0o600


@dataclass(frozen=True, kw_only=True)
class Service:
    """What every process of the service works with. Make it after a fork.

    Attributes:
        services: the platform's services, and the kind of tasks each is for.
    """

    settings: Settings
    services: Mapping[str, str]
    database: Database
    keyring: Keyring
    api_keys: ApiKeys
    ingest: Ingest
    quarantine: Quarantine
    uploads: Uploads
    tasks: Tasks
    claims: Claims
    calls: Calls
    deliveries: Deliveries
    evidence: Evidence
    erasure: Erasure
    retention: Retention
    shredding: Shredding
    address_policy: AddressPolicy


def build(settings: Settings) -> Service:
    """Put a process's parts together.

    Raises:
        DatabaseError: the database is not there, or not migrated.
        SettingError: the encryption keys are missing, or not those the database was written with.
    """
    database = open_database(settings.database_url)
    try:
        check_migrated(database)
        data_keys = check_keys(settings, database)
        data_keys.begin(first=audit.begin)
        with database.transaction() as session:
            api_keys = ApiKeys(pepper(session, data_keys.keyring))
        store = evidence_store(settings)
    except ServiceError:
        database.close()
        raise
    keyring = data_keys.keyring
    ingest = Ingest(
        keyring,
        flag_level=settings.flag_level,
        keep_evidence=settings.evidence,
        keep_words=not settings.zero_retention,
    )
    uploads = Uploads(upload_path(settings))
    pace = pace_of(settings)
    tasks = Tasks(keyring=keyring, ingest=ingest, uploads=uploads)
    return Service(
        settings=settings,
        services=CATALOGUE | settings.services,
        database=database,
        keyring=keyring,
        api_keys=api_keys,
        ingest=ingest,
        quarantine=Quarantine(settings=settings, keyring=keyring, ingest=ingest),
        uploads=uploads,
        tasks=tasks,
        claims=Claims(pace=pace),
        calls=Calls(
            keyring=keyring,
            ingest=ingest,
            tasks=tasks,
            uploads=uploads,
            pace=pace,
            callback_base_url=settings.callback_base_url,
        ),
        deliveries=Deliveries(
            keyring=keyring,
            ingest=ingest,
            lease=settings.delivery_lease,
            timeout=settings.delivery_timeout,
            source=settings.public_url,
        ),
        evidence=Evidence(keyring=keyring, store=store, timeout=settings.evidence_timeout),
        erasure=Erasure(uploads=uploads),
        retention=Retention(periods=periods_of(settings), ingest=ingest),
        shredding=Shredding(keyring=keyring),
        address_policy=AddressPolicy(settings.allowed_private_networks),
    )


def evidence_store(settings: Settings) -> EvidenceStore:
    """Return where evidence lies: beside the database when no setting says so.

    Raises:
        SettingError: it is in S3, and boto3 is not installed.
    """
    if settings.evidence_store:
        return open_store(settings.evidence_store)
    return Directory(_beside_database(settings, "evidence"))


def pace_of(settings: Settings) -> Pace:
    """Return how fast, and how patiently, the platform is asked."""
    return Pace(
        submits_per_second=settings.submits_per_second,
        queries_per_second=settings.queries_per_second,
        running_streams=settings.running_streams,
        poll_delay=settings.poll_delay,
        stream_poll=settings.stream_poll,
        result_lifetime=settings.result_lifetime,
        unknown_outcome_wait=settings.unknown_outcome_wait,
    )


def periods_of(settings: Settings) -> Periods:
    """Return how long each kind of data is kept."""
    return Periods(
        callbacks=settings.callbacks_retention,
        quarantined=settings.quarantined_retention,
        transcripts=settings.transcripts_retention,
        evidence=settings.evidence_retention,
        events=settings.events_retention,
        deliveries=settings.deliveries_retention,
    )


def platform_client(settings: Settings) -> Callable[[], PlatformClient] | None:
    """Return what makes the platform's client, or None where there are no credentials."""
    key_id, key_secret = settings.access_key_id, settings.access_key_secret
    if key_id is None or key_secret is None:
        return None
    return lambda: PlatformClient(
        endpoint=settings.platform_endpoint,
        region=settings.platform_region,
        access_key_id=key_id,
        access_key_secret=key_secret,
        security_token=settings.security_token,
    )


def upgrade(database: Database) -> None:
    """Bring the schema to this version's revision; the file is made where there is none.

    Raises:
        DatabaseError: it cannot be made or changed.
    """
    if database.exists() and database.revision() == models.REVISION:
        return
    from webhook import migrations  # Alembic is loaded only where there is something to do

    with database.transaction() as session:
        alone(session, "migration")
        migrations.upgrade(session)


def check_migrated(database: Database) -> None:
    """Refuse a database that this version cannot work with.

    Raises:
        DatabaseError: with the way to mend it.
    """
    if not database.exists():
        raise DatabaseError(f"{database.name} does not exist. Run `webhook migrate` first.")
    revision = database.revision()
    if revision != models.REVISION:
        raise DatabaseError(
            f"{database.name} is at revision {revision or 'none'}, and this version needs {models.REVISION}. "
            "Run `webhook migrate` first."
        )


def key_file(settings: Settings) -> Path | None:
    """Return where the encryption key lies when no setting holds one: beside the database's file, if it is one."""
    return None if path_of(settings.database_url) is None else _beside_database(settings, "key")


def upload_path(settings: Settings) -> Path:
    """Return where uploads wait: beside the database when no setting says so."""
    return Path(settings.upload_directory or _beside_database(settings, "uploads")).absolute()


def _beside_database(settings: Settings, what: str) -> Path:
    """Return where files lie when no setting says so: beside the database's, or in the working directory."""
    return Path(f"{path_of(settings.database_url) or Path('webhook').absolute()}.{what}")


def encryption_keys(settings: Settings) -> dict[str, bytes]:
    """Return the keys of the setting, or else the key file's.

    Raises:
        SettingError: there is neither, or the file cannot be read.
    """
    if settings.encryption_keys is not None:
        return settings.encryption_keys
    path = key_file(settings)
    if path is None:
        raise SettingError(
            "WEBHOOK_ENCRYPTION_KEYS",
            "is not set",
            "Set it to k1:BASE64, where BASE64 is what `openssl rand -base64 32` prints, in every process.",
        )
    try:
        key_id, _, encoded = path.read_text().strip().partition(":")
        return {key_id: base64.b64decode(encoded, validate=True)}
    except FileNotFoundError:
        problem = f"is not set, and there is no key file {path}"
    except (OSError, ValueError) as error:
        problem = f"is not set, and the key file {path} cannot be read ({error})"
    raise SettingError(
        "WEBHOOK_ENCRYPTION_KEYS", problem, "Put the key file back, or set the keys the database was written with."
    )


def is_sealed(database: Database) -> bool:
    """Return whether the database holds anything that was encrypted."""
    with database.read() as session:
        return data_key_store.next_id(session) > 1 or key_store.meta_value(session, KEY_CHECK) is not None


def create_key_file(settings: Settings) -> Path | None:
    """Make a key file where neither a setting nor a file holds a key; return its path if it was made."""
    path = key_file(settings)
    if settings.encryption_keys is not None or path is None or path.exists():
        return None
    line = f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return path


def check_keys(settings: Settings, database: Database) -> DataKeys:
    """Return the keys, which open what the database holds; nothing is written.

    Raises:
        SettingError: the encryption keys are missing, or not those the database was written with; or this machine lacks
            the cipher suite.
        DatabaseError: it cannot be read.
    """
    found = DataKeys(database, encryption_keys(settings), suite=settings.cipher_suite, period=settings.data_key_period)
    found.load()
    with database.read() as session:
        sealed = key_store.meta_value(session, KEY_CHECK)
    if sealed is not None:
        try:
            found.keyring.open(sealed, table="meta", column="value", row=KEY_CHECK)
        except DecryptionError:
            raise SettingError(
                "WEBHOOK_ENCRYPTION_KEYS",
                f"holds no key that opens {database.name}",
                "Set the keys the database was written with, the active one first, or put its key file back.",
            ) from None
    return found
