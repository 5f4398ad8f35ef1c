"""TIMIT in the layout of the LDC's disc: {TRAIN,TEST}/<dialect>/<speaker>/<sentence>.{WAV,PHN,WRD}, in either case.

The sentences that everybody reads (SA) are left out. The parts are train, dev and test, by speaker as in Kaldi's and
lhotse's recipes: dev has 50 speakers and test the 24 of the core test, so that there are 3696, 400 and 192 utterances.
In a copy without TEST, dev and test are drawn from the speakers of TRAIN.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.corpora.audio import Audio, AudioFormat, BadAudio, Recorded, check_audio
from asr_kd.corpora.held_out import shuffled
from asr_kd.corpora.listing import CorpusManifest, ReadRequest, Utterance
from asr_kd.corpora.settings import TimitConfig
from asr_kd.corpora.timit_times import Span, mapped, read_phone_map, read_phones, read_words
from asr_kd.errors import UserError

UTTERANCES = {"train": 3696, "dev": 400, "test": 192}  # of the whole corpus
_DIALECT_SENTENCES = "SA"
_PHONES, _WORDS = ".PHN", ".WRD"

log = logging.getLogger(__name__)

TimitRequest = ReadRequest[TimitConfig]


@dataclass(frozen=True)
class _Sentence:
    """One recording and the files beside it, by their suffix in upper case."""

    part: str  # TRAIN or TEST
    speaker: str
    name: str
    files: Mapping[str, Path]

    @property
    def id(self) -> str:
        return f"{self.speaker}-{self.name}"


def read(request: TimitRequest) -> CorpusManifest:
    """Lists the utterances; their transcripts are phones or words, as `corpus.transcripts` says.

    Where it says phones but `alignment.labels` says words, the transcripts are words and the phones are the reference.

    Raises:
      UserError: there is no TRAIN, the table of phones is missing, a whole copy has not as many utterances as it
        should, or there are too few speakers to split.
    """
    corpus_dir = request.root
    parts = _find_parts(corpus_dir)
    sentences = [sentence for name, folder in parts.items() for sentence in _sentences(name, folder)]
    sets = _official(corpus_dir, sentences, request) if "TEST" in parts else _drawn(corpus_dir, sentences, request)
    table = read_phone_map(request.conf_dir, request.settings.phone_set)
    listing = CorpusManifest([], [])
    for sentence in sentences:
        part = sets.get(sentence.speaker)
        if part in request.set_of:
            _add(listing, sentence, request.set_of[part], table, request)
    return listing


def _find_parts(corpus_dir: Path) -> dict[str, Path]:
    """TRAIN and, where it is there, TEST: in the folder itself, or in one called data, timit or timit/data in it."""
    for folder in (corpus_dir, *(_child(corpus_dir, name) for name in ("data", "timit"))):
        for root in (folder, _child(folder, "data") if folder else None):
            if root is not None and (train := _child(root, "TRAIN")) is not None:
                test = _child(root, "TEST")
                return {"TRAIN": train} | ({"TEST": test} if test is not None else {})
    raise UserError(
        f"{corpus_dir}: there is no folder TRAIN in it (nor in data/); name the corpus with --corpus-dir (run.sh: "
        "--timit-dir)."
    )


def _child(folder: Path | None, name: str) -> Path | None:
    if folder is None or not folder.is_dir():
        return None
    return next(
        (path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.upper() == name.upper()), None
    )


def _sentences(part: str, folder: Path) -> list[_Sentence]:
    """Sorted, without SA."""
    sentences = []
    for speaker in sorted(folder.glob("*/*")):
        if not speaker.is_dir():
            continue
        files: dict[str, dict[str, Path]] = {}
        for path in sorted(speaker.iterdir()):
            name, suffix = path.stem.upper(), path.suffix.upper()
            # converted copies keep the original as X.WAV and add X.WAV.wav: the RIFF one is as good
            files.setdefault(name.removesuffix(".WAV"), {}).setdefault(suffix, path)
        for name, of_sentence in files.items():
            if not name.startswith(_DIALECT_SENTENCES) and of_sentence.keys() & {".WAV", _PHONES, _WORDS}:
                sentences.append(_Sentence(part, speaker.name.upper(), name, of_sentence))
    return sentences


def _official(corpus_dir: Path, sentences: list[_Sentence], request: TimitRequest) -> dict[str, str]:
    """Speaker -> set, for a copy with TEST; speakers of TEST in neither dev nor the core test are left out."""
    from lhotse.recipes.timit import get_speakers

    if request.settings.dev_speakers or request.settings.test_speakers:
        raise UserError(
            f"{corpus_dir} has the official TEST speakers; --dev-speakers and --test-speakers are for copies without."
        )
    dev, test = ({name.upper() for name in names} for names in get_speakers())
    sets = {s.speaker: "train" for s in sentences if s.part == "TRAIN"}
    sets |= {s.speaker: "dev" if s.speaker in dev else "test" for s in sentences
             if s.part == "TEST" and s.speaker in dev | test}  # fmt: skip
    counts = Counter(sets[s.speaker] for s in sentences if s.speaker in sets)
    if counts != UTTERANCES:
        have = ", ".join(f"{counts[name]} of {count} {name}" for name, count in UTTERANCES.items())
        raise UserError(
            f"{corpus_dir}: this copy is not whole: {have} utterances. Complete it; or delete its TEST, so that "
            "--dev-speakers and --test-speakers take dev and test from TRAIN."
        )
    log.info("%s: %s utterances, without SA", corpus_dir, ", ".join(f"{n} {name}" for name, n in UTTERANCES.items()))
    return sets


def _drawn(corpus_dir: Path, sentences: list[_Sentence], request: TimitRequest) -> dict[str, str]:
    """Speaker -> set, for a copy without TEST: women and men in turn, in an order by seed: test, dev, the rest."""
    speakers = sorted({sentence.speaker for sentence in sentences})
    dev, test = request.settings.dev_speakers, request.settings.test_speakers
    if not dev or not test:
        raise UserError(
            f"{corpus_dir} has no TEST: say how many of its {len(speakers)} speakers are for dev and for test "
            "(--dev-speakers, --test-speakers)."
        )
    if dev + test >= len(speakers):
        raise UserError(
            f"{corpus_dir}: {dev} speakers for dev and {test} for test leave none of {len(speakers)} to train on; "
            "lower --dev-speakers or --test-speakers."
        )
    order = shuffled(speakers, request.seed)
    women, men = ([s for s in order if s.startswith("F") == woman] for woman in (True, False))
    longer, shorter = (women, men) if len(women) >= len(men) else (men, women)
    mixed = [speaker for pair in zip(longer, shorter, strict=False) for speaker in pair] + longer[len(shorter) :]
    sets = {speaker: "test" if k < test else "dev" if k < test + dev else "train" for k, speaker in enumerate(mixed)}
    counts = Counter(sets[sentence.speaker] for sentence in sentences)
    of_sets = ", ".join(
        f"{counts[name]} utterances of {' '.join(s for s in speakers if sets[s] == name)} for {name}"
        for name in UTTERANCES
    )
    log.info("%s has no TEST, its speakers are split: %s", corpus_dir, of_sets)
    return sets


def _add(
    listing: CorpusManifest, sentence: _Sentence, name: str, table: Mapping[str, str | None], request: TimitRequest
) -> None:
    need_phones = request.settings.transcripts == "phones"
    need_words = not need_phones or request.words_for_phones
    suffixes = [suffix for suffix, needed in ((_PHONES, need_phones), (_WORDS, need_words)) if needed]
    for suffix in (".WAV", *suffixes):
        if suffix not in sentence.files:
            missing = next(iter(sentence.files.values())).parent / f"{sentence.name}{suffix}"
            listing.refuse(sentence.id, name, f"{missing} is missing; fetch it again, or leave the utterance out")
            return
    audio = Audio(sentence.files[".WAV"])
    listing.transcripts.extend(sentence.files[suffix] for suffix in suffixes)
    recorded = _recorded(audio, request.settings.audio_format)
    length = None if recorded is None else recorded.samples
    spans: list[Span] = []
    words = ""
    try:
        if need_phones:
            spans = mapped(read_phones(sentence.files[_PHONES], table, length), table)
        if need_words:
            words = " ".join(span.label for span in read_words(sentence.files[_WORDS], length))
    except UserError as error:
        listing.refuse(sentence.id, name, str(error).rstrip("."))
        return
    rate = recorded.rate if recorded else request.settings.sampling_rate
    phones = tuple((span.label, span.first / rate, span.end / rate) for span in spans)
    spelled = " ".join(span.label for span in spans)
    text, reference = (words, spelled) if need_words else (spelled, "")
    listing.utterances.append(
        Utterance(sentence.id, audio, text, sentence.speaker, name, phones, reference, verbatim=not need_words)
    )


def _recorded(audio: Audio, target: AudioFormat) -> Recorded | None:
    """None where the recording cannot be used; prepare reports why."""
    try:
        return check_audio(audio, target).recording
    except BadAudio:
        return None
