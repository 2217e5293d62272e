"""The callbacks' route: what is authentic and what is forged, in bodies of all kinds, and what is stored of it."""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from cryptography.hazmat.primitives import hashes, hmac
from msgspec import Struct
from typing_extensions import override

from tests.clients import ADMIN_KEY
from tests.fuzz import values
from tests.fuzz.parser import Sent, draw_content, draw_sent
from tests.fuzz.runs import Target, Violation
from tests.fuzz.service import App, fresh_service
from tests.signed import UID
from webhook import clock, forms, payloads
from webhook.errors import MalformedBody, Unreadable
from webhook.payloads import Slice, better, slice_key
from webhook.receivers import open_receiver
from webhook.store import callbacks as callback_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.tasks import NewTask
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.store.callbacks import Callback

Forgery = Literal["none", "digit", "upper", "empty", "odd", "other seed", "no seed", "other algorithm", "suffix"]

_FORGERIES: Final = ("digit", "upper", "empty", "odd", "other seed", "no seed", "other algorithm", "suffix")
_ALGORITHMS: Final = ("SHA256", "SM3")
_STATUSES: Final = frozenset((200, 400, 403, 404, 405, 413, 415))
_STANDING_SLICES: Final = 400  # after which an address makes room for a new one
_LOOKED_AT: Final = 20  # each so many, what is stored is read back


class Post(Struct, kw_only=True):
    """A callback on its way, all but its checksum: the seed is the address's, and another one each time.

    Attributes:
        receiver: whether it comes to a receiver, not to a task.
        algorithm: the address's.
        forgery: what is wrong with the checksum.
        dice: of what its body is made by, once the checksum is known.
    """

    method: str
    receiver: bool
    algorithm: str
    forgery: Forgery
    content: bytes
    dice: int
    coding: str | None
    token: bytes | None


class _Address(Struct, kw_only=True):
    """An address, and what it must hold."""

    id: str
    token: str
    seed: str
    algorithm: str
    receiver: bool
    slices: dict[bytes, Slice] = {}


class Callbacks(Target[Post]):
    """`POST /callbacks/{token}` of a whole application, and its database."""

    name = "callbacks"
    share = 0.1
    case = Post

    @override
    @contextmanager
    def ready(self) -> Iterator[None]:
        with fresh_service() as service:
            self._service = service
            self._app = App(service)
            self._addresses: dict[tuple[str, bool], _Address] = {}
            self._right: set[tuple[str, bytes]] = set()
            self._asked = 0
            yield

    @override
    def draw(self, dice: random.Random) -> Post:
        content = draw_content(dice)
        forgery: Forgery = "none"
        if dice.random() < 0.3:
            forgery = dice.choice(_FORGERIES)
        if dice.random() < 0.02:
            content = b""
        return Post(
            method=dice.choice(("GET", "PUT", "HEAD", "DELETE", "OPTIONS")) if dice.random() < 0.01 else "POST",
            receiver=dice.random() < 0.4,
            algorithm=dice.choice(_ALGORITHMS),
            forgery=forgery,
            content=content,
            dice=dice.randrange(2**32),
            coding=dice.choice(("gzip", "identity", "br")) if dice.random() < 0.01 else None,
            token=values.text(dice).encode() if dice.random() < 0.02 else None,
        )

    @override
    def ask(self, case: Post) -> str:
        self._asked += 1
        address = self._address(case)
        sent = _sent(case, address)
        token = address.token.encode() if case.token is None else case.token
        headers = {"Content-Type": sent.content_type} | ({"Content-Encoding": case.coding} if case.coding else {})
        reply = self._app.ask(case.method, b"/callbacks/" + token, headers=headers, body=sent.body)
        if reply.status not in _STATUSES:
            raise Violation(f"an answer of {reply.status}")
        if reply.status == 405 and "allow" not in reply.headers:
            raise Violation("405 without Allow")
        self._check(case, address, sent, reply.status)
        return str(reply.status)

    def _check(self, case: Post, address: _Address, sent: Sent, status: int) -> None:
        """Compare an answer with what is stored, and with what is right by another implementation."""
        form = _form(sent)
        authentic = form is not None and form.checksum in _right(form.content, address)
        stored = None if form is None else self._stored(address, form.content)
        reaches = case.method == "POST" and case.token is None and case.coding is None
        if form is not None and stored is not None and not authentic and not self._came_right(address, form.content):
            raise Violation("a forged callback is stored as verified")
        if not reaches:
            if status == 200:
                raise Violation("200 to what is no callback to this address")
            return
        if sent.whole and case.forgery == "none" and status != 200:
            raise Violation(f"an authentic callback is answered {status}")
        if authentic and status != 200:
            raise Violation(f"a callback whose checksum is right is answered {status}")
        if status != 200:
            return
        if form is None or not authentic:
            raise Violation("200 to a callback whose checksum is wrong")
        if stored is None:
            raise Violation("200 to a callback that is not stored")
        self._note(address, stored, form.content)

    def _note(self, address: _Address, stored: Callback, content: bytes) -> None:
        """Add what an acknowledged callback says to what must be stored, and now and then compare the two."""
        self._right.add((address.id, hashlib.sha256(content).digest()))
        try:
            result = payloads.parse(content)
        except Unreadable:
            result = None
        if (stored.state == "unreadable") is not (result is None):
            raise Violation(f"what can{'not' if result is None else ''} be read is stored as {stored.state}")
        if result is not None and not address.receiver:
            for piece in result.slices:
                key = slice_key(piece)
                known = address.slices.get(key)
                address.slices[key] = piece if known is None else better(known, piece)
        if self._asked % _LOOKED_AT == 0:
            self._look(address, stored, content)

    def _look(self, address: _Address, stored: Callback, content: bytes) -> None:
        keyring = self._service.keyring
        if keyring.open(stored.content, table="callbacks", column="content", row=stored.id) != content:
            raise Violation("a callback's content is stored as another")
        if address.receiver:
            return
        with self._service.database.read() as session:
            pages = list(slice_store.pages(session, address.id))
        read = [piece for page in pages for piece in self._service.ingest.open_slices(page)]
        if read != [address.slices[key] for key in sorted(address.slices)]:
            raise Violation("a task's slices are not those that its callbacks said")
        for path in (f"/v1/verdicts/{address.id}", f"/v1/verdicts/{address.id}/slices", f"/v1/callbacks/{stored.id}"):
            reply = self._app.ask("GET", path.encode(), headers={"Authorization": f"Bearer {ADMIN_KEY}"})
            if reply.status != 200:
                raise Violation(f"what is stored is shown by {reply.status}")
            assert isinstance(reply.json, dict)

    def _stored(self, address: _Address, content: bytes) -> Callback | None:
        digest = hashlib.sha256(content).digest()
        with self._service.database.read() as session:
            return callback_store.callback_of_content(session, address_id=address.id, digest=digest)

    def _came_right(self, address: _Address, content: bytes) -> bool:
        """Return whether the same content has come with the right checksum."""
        return (address.id, hashlib.sha256(content).digest()) in self._right

    def _address(self, case: Post) -> _Address:
        """Return the address that cases of this kind are sent to, a new one where it has enough."""
        kind = case.algorithm, case.receiver
        known = self._addresses.get(kind)
        if known is None or len(known.slices) > _STANDING_SLICES or (case.receiver and self._asked % 500 == 0):
            known = self._addresses[kind] = self._new_address(case.algorithm, receiver=case.receiver)
        return known

    def _new_address(self, algorithm: str, *, receiver: bool) -> _Address:
        service = self._service
        with service.database.transaction() as session:
            if receiver:
                made, own = open_receiver(
                    session, service.keyring, name="a", crypt_type=algorithm, seed=None, uid=None, now=clock.now()
                )
                return _Address(id=made.id, token=own.token, seed=own.seed, algorithm=algorithm, receiver=True)
            task, _ = service.tasks.submit(
                session,
                NewTask(
                    kind="audio",
                    service="audio_detection_byllm_global",
                    source={"url": "https://example.com/a.mp3"},
                    crypt_type=algorithm,
                ),
            )
            found = task_store.address_of(session, task.id)
            assert found
            own = open_secrets(service.keyring, found.secrets, table="tasks", row=task.id)
        return _Address(id=task.id, token=own.token, seed=own.seed, algorithm=algorithm, receiver=False)


def _sent(case: Post, address: _Address) -> Sent:
    """Put a callback into a body, with its checksum, or with another."""
    dice = random.Random(case.dice)
    right = dice.choice(_right(case.content, address))
    proof, content = right, case.content
    if case.forgery == "digit":
        at = dice.randrange(len(right))
        proof = right[:at] + dice.choice("0123456789abcdef".replace(right[at], "")) + right[at + 1 :]
    elif case.forgery == "upper":
        proof = right.upper()
    elif case.forgery == "empty":
        proof = ""
    elif case.forgery == "odd":
        proof = values.text(dice)
    elif case.forgery == "other seed":
        proof = _checksum(address.algorithm, f"{UID}{address.seed}0".encode() + content)
    elif case.forgery == "no seed":
        proof = _checksum(address.algorithm, content)
    elif case.forgery == "other algorithm":
        [other] = set(_ALGORITHMS) - {address.algorithm}
        proof = _checksum(other, f"{UID}{address.seed}".encode() + content)
    elif case.forgery == "suffix":
        content += dice.choice((b" ", b"}", b"\0", b',{"Code":200}'))
    return draw_sent(dice, content, proof=proof)


def _form(sent: Sent) -> forms.Form | None:
    """Return the form that a body is, if it is one."""
    if forms.media_type(sent.content_type) is None:
        return None
    try:
        return forms.decode(sent.body, sent.content_type)
    except MalformedBody:
        return None


def _right(content: bytes, address: _Address) -> list[str]:
    """Return the checksums that are right (voice-moderation.txt, "callback"), by other code than the service's."""
    signed = f"{UID}{address.seed}".encode() + content
    found = [_checksum(address.algorithm, signed)]
    if address.algorithm == "SM3":
        keyed = hmac.HMAC(address.seed.encode(), hashes.SM3())
        keyed.update(signed)
        found.append(keyed.finalize().hex())
    return found


def _checksum(algorithm: str, signed: bytes) -> str:
    digest = hashes.Hash(hashes.SM3() if algorithm == "SM3" else hashes.SHA256())
    digest.update(signed)
    return digest.finalize().hex()
