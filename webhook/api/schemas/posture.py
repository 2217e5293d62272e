"""How the vendor's security asks are met."""

from typing import Annotated, Any, Literal

from pydantic import Field

from webhook.api.schemas.base import Out


class PostureItemOut(Out):
    """One ask, or a part of it, and how it is met."""

    id: Annotated[str, Field(description="A stable word, such as `tls_platform`.")]
    ask: Annotated[str, Field(description="What is asked for.")]
    source: Annotated[str, Field(description="The page that asks for it.")]
    state: Annotated[
        Literal["ok", "warning", "wrong", "unseen"],
        Field(description="A `warning` is worth a look; what is `unseen` cannot be told by the service itself."),
    ]
    finding: Annotated[str, Field(description="How it is, for people.")]
    mend: Annotated[str | None, Field(description="What to do, or how to see what the service cannot.")]
    evidence: Annotated[
        dict[str, Any], Field(description="The numbers, times and names that it was told by; never a secret.")
    ]


class PostureOut(Out):
    """All asks; what takes long (the whole audit log, all rows) is `webhook doctor --security`'s."""

    ok: Annotated[bool, Field(description="Whether nothing is `wrong`.")]
    items: list[PostureItemOut]
