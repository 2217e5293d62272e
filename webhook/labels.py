"""The label catalogue: which labels the platform gives, what they mean and in which group they stand."""

from __future__ import annotations

from typing import NamedTuple


class Label(NamedTuple):
    """One row of the catalogue.

    Attributes:
        group: the kind of risk, in the vendor's words for its detection types.
        description: the vendor's own, in plain words; for people, never to key on.
    """

    group: str
    description: str


UNKNOWN = Label("unknown", "Label that is not in the catalogue")
"""The row of every label that the catalogue lacks: unknown, hence never clean."""

SILENCE = "specified_nontalk"
"""The label of a stretch in which nobody speaks."""

# Vendor pages: text-moderation-plus.txt, "Label definitions" (35 rows, `customized` the last of them);
# voice-moderation.txt, table 5 (the audio labels); text-moderation-plus.txt, examples (`nonLabel`).
LABELS: dict[str, Label] = {
    "pornographic_adult": Label("pornographic", "Pornographic content"),
    "sexual_terms": Label("pornographic", "Sexual health"),
    "sexual_suggestive": Label("pornographic", "Vulgar content"),
    "sexual_prompts": Label("pornographic", "Prompt meant to generate pornographic content"),
    "political_figure": Label("political", "Political figure"),
    "political_entity": Label("political", "Political entity"),
    "political_n": Label("political", "Sensitive political content"),
    "political_p": Label("political", "Prohibited political figure"),
    "political_prompts": Label("political", "Prompt meant to generate political content"),
    "political_a": Label("political", "Political content under enhanced protection"),
    "violent_extremists": Label("violent", "Extremist organization"),
    "violent_incidents": Label("violent", "Extremist content"),
    "violent_weapons": Label("violent", "Weapons and ammunition"),
    "violent_prompts": Label("violent", "Prompt meant to generate violent content"),
    "contraband_drug": Label("contraband", "Drugs"),
    "contraband_gambling": Label("contraband", "Gambling"),
    "contraband_act": Label("contraband", "Contraband activity"),
    "contraband_entity": Label("contraband", "Contraband tool"),
    "inappropriate_discrimination": Label("inappropriate", "Bias or discrimination"),
    "inappropriate_ethics": Label("inappropriate", "Unethical values"),
    "inappropriate_profanity": Label("inappropriate", "Abuse or insult"),
    "inappropriate_oral": Label("inappropriate", "Vulgar slang"),
    "inappropriate_superstition": Label("inappropriate", "Superstition"),
    "inappropriate_nonsense": Label("inappropriate", "Spam or nonsense"),
    "privacy_p": Label("privacy", "Personal information"),
    "privacy_b": Label("privacy", "Sensitive business data"),
    "religion_b": Label("religion", "Buddhism"),
    "religion_t": Label("religion", "Taoism"),
    "religion_c": Label("religion", "Christianity"),
    "religion_i": Label("religion", "Islam"),
    "religion_h": Label("religion", "Hinduism"),
    "pt_to_sites": Label("advertising", "Traffic redirection to other sites"),
    "pt_by_recruitment": Label("advertising", "Get-rich-quick scheme or part-time job"),
    "pt_to_contact": Label("advertising", "Account that redirects traffic"),
    "customized": Label("customized", "Match in a custom library"),
    SILENCE: Label("audio", "Silence"),
    "specified_speaking": Label("audio", "Specified speaking"),
    "sexual_sounds": Label("pornographic", "Sexual sounds"),
    "nonLabel": Label("clean", "No risk detected"),
}


def group(label: str | None) -> str:
    """Return the group of a label, `unknown` for one that the catalogue lacks."""
    return UNKNOWN.group if label is None else LABELS.get(label, UNKNOWN).group


def is_silence(label: str | None) -> bool:
    """Return whether the label says that nobody speaks."""
    return label == SILENCE


def matches(pattern: str, label: str | None) -> bool:
    """Return whether a label fits a pattern, in which `*` stands for any characters, all others for themselves.

    The pieces between the stars are searched from left to right, each once and never again, so no
    pattern of a stranger's costs more than the length of the label.
    """
    if label is None:
        return False
    first, *rest = pattern.split("*")
    if not rest:
        return first == label
    *middle, last = rest
    end = len(label) - len(last)
    if end < len(first) or not (label.startswith(first) and label.endswith(last)):
        return False
    at = len(first)
    for piece in middle:
        found = label.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
