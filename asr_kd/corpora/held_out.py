"""Sets that are drawn from the training utterances, by speaker where speakers are known.

A draw depends on the names of the speakers (or utterances), on how many utterances each has, and on the seed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.settings import HeldOut, OwnSpeechConfig
from asr_kd.errors import UserError, some_of

TRAIN = "train"
_FAR = 1.5  # times what is asked for, from which on it is said

OwnSpeech = TypeVar("OwnSpeech", bound=OwnSpeechConfig)

log = logging.getLogger(__name__)


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Each name once, in an order that is drawn by the seed.

    >>> shuffled(["b", "a", "c", "a"], seed=2)
    ['c', 'a', 'b']
    """
    ordered = sorted(set(names))
    return [ordered[k] for k in np.random.default_rng(seed).permutation(len(ordered))]


def moved(listing: CorpusManifest, sets: Mapping[str, str]) -> CorpusManifest:
    """The listing with some utterances in another set; `sets` is utterance -> set."""
    return replace(listing, utterances=[replace(u, set=sets.get(u.id, u.set)) for u in listing.utterances])


def drawn_sets(request: ReadRequest[OwnSpeech]) -> dict[str, HeldOut]:
    """Set -> how much of training it gets, of the sets that are drawn; none where training is not read.

    Raises:
      UserError: the config has no such set, or names parts of it too.
    """
    settings = {"test": request.settings.test, "dev": request.settings.dev}
    drawn = {name: held_out for name, held_out in settings.items() if held_out is not None}
    if TRAIN not in request.parts:
        return {}
    for name in drawn:
        if name not in request.parts:
            raise UserError(f"corpus.{name} draws a set {name}, but there is none under sets:; add {name}: [] there.")
        # where a config names no sets, each has a part of its own name, which need not be there
        present = [part for part in request.parts[name] if part != name or (request.root / part).exists()]
        if present:
            raise UserError(
                f"corpus.{name} draws the {name} set from training, but sets.{name} names {some_of(present)} in "
                f"{request.root}; write sets.{name}: [], or leave out corpus.{name}."
            )
    return drawn


def parts_to_read(request: ReadRequest[OwnSpeech], drawn: Mapping[str, HeldOut]) -> Iterator[tuple[str, str]]:
    """(set, part) of all sets but those that are drawn."""
    for name, parts in request.parts.items():
        if name not in drawn:
            yield from ((name, part) for part in parts)


def draw(
    listing: CorpusManifest, held_out: Mapping[str, HeldOut], seed: int, root: Path, key: str = "corpus"
) -> CorpusManifest:
    """Moves training utterances to the sets that are drawn, and notes which.

    Whole speakers are moved. Utterances are where speakers are not known, each utterance having its own, or where
    there are fewer speakers than sets to fill.

    Args:
      held_out: set -> how much of training it gets; sets are filled in this order.
      root: the corpus's folder, for messages.
      key: of the config's setting below which the sets are named, for messages.

    Raises:
      UserError: there are fewer speakers than are asked for, or none is left to train on.
    """
    train = [utterance for utterance in listing.utterances if utterance.set == TRAIN]
    if not held_out or not train:  # why there is none is in the listing's problems
        return listing
    by_speaker = _by_speaker(train, held_out, root, key)
    group_of = {u.id: u.speaker if by_speaker else u.id for u in train}
    sizes = Counter(group_of.values())
    left = shuffled(sizes, seed)
    sets: dict[str, str] = {}
    for name, part in held_out.items():
        taken = left[: part.speakers] if part.speakers else _about(left, sizes, part.share * len(train))
        sets |= dict.fromkeys(taken, name)
        left = [group for group in left if group not in sets]
    what = "speakers" if by_speaker else "utterances"
    if not left:
        keys = " and ".join(f"{key}.{name}" for name in held_out)
        raise UserError(f"{root}: {keys} would leave none of {len(sizes)} {what} to train on; lower what is taken.")
    for name in held_out:
        taken = sorted(group for group in sets if sets[group] == name)
        count = sum(sizes[group] for group in taken)
        whose = f", all those of {len(taken)} of {len(sizes)} speakers ({some_of(taken)})" if by_speaker else ""
        if by_speaker and (share := held_out[name].share) and count > _FAR * share * len(train):
            whose += f"; they are {count / len(train):.0%}, where {share:.0%} is asked for: speakers stay whole"
        listing.notes.append(f"{name}: {count} of {len(train)} utterances were drawn from training{whose}")
    return moved(listing, {utterance: sets[group] for utterance, group in group_of.items() if group in sets})


def _by_speaker(train: Sequence[Utterance], held_out: Mapping[str, HeldOut], root: Path, key: str) -> bool:
    speakers = {utterance.speaker for utterance in train}
    known = any(utterance.speaker != utterance.id for utterance in train)
    asked = [f"{key}.{name}.speakers" for name, part in held_out.items() if part.speakers]
    if asked and not known:
        keys = " and ".join(f"{key}.{name}" for name in held_out)
        raise UserError(f"{root}: {asked[0]}: speakers are not known here; give {keys} a share.")
    if known and not asked and len(speakers) <= len(held_out):
        log.warning(
            "%s: there are too few speakers (%d); utterances are drawn for %s, whose speakers are in training too",
            root, len(speakers), " and ".join(held_out),
        )  # fmt: skip
        return False
    return known


def _about(order: Sequence[str], sizes: Mapping[str, int], target: float) -> list[str]:
    """Groups, in order, as long as each brings their utterances nearer to the target; the smallest where none does."""
    taken, total = [], 0
    for group in order:
        if abs(total + sizes[group] - target) < abs(total - target):
            taken.append(group)
            total += sizes[group]
    return taken or sorted(order, key=lambda group: sizes[group])[:1]
