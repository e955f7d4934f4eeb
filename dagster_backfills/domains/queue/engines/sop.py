"""Generate an SOP from a transcript offline, by extracting sentences. No text is invented.

A chapter starts where the vocabulary changes (low similarity between neighbouring windows of sentences), or where the
speaker announces a new topic.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, pstdev

import numpy as np

from dagster_backfills.domains.queue.engines.words import (
    ABBREVIATIONS,
    ACTION,
    ANNOUNCEMENT,
    DUTY,
    GREETING,
    LEAD,
    STOP_WORDS,
    TURN,
    WORD,
)
from dagster_backfills.domains.queue.errors import PermanentJobError
from dagster_backfills.domains.queue.schemas import Chapter, SopAnswer, SopInput

_MIN_POINTS, _MAX_POINTS, _MAX_CHAPTERS = 5, 7, 12
_WINDOW = 3  # sentences
# After . ! or ? and before a capital or a digit, but not after an abbreviation or within "No. 5".
_SENTENCE_END = re.compile(
    "".join(rf"(?<!(?i:\b{re.escape(each)}\.))" for each in ABBREVIATIONS)
    + r"(?<!(?i:\bno\.(?=\s\d)))(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])|\n\s*\n"
)


@dataclass(frozen=True)
class _Sentence:
    """A sentence and when it starts, in seconds."""

    text: str
    start: float


def sop_embedded(sop_input: SopInput) -> SopAnswer:
    """Generate chapters, steps and key points from the transcript's own sentences.

    Raises PermanentJobError if it has fewer than five different sentences.
    """
    sentences = _sentences(sop_input)
    if len(sentences) < _MIN_POINTS:
        raise PermanentJobError(
            f"The transcript has {len(sentences)} sentences; a procedure needs at least {_MIN_POINTS}.",
            kind="too_short",
        )
    chapters = _chapters(sentences, sop_input.duration)
    points = _key_points(sentences)
    return SopAnswer(
        chapters=[chapter for chapter, _ in chapters],
        sop_markdown=_markdown(sop_input.title, chapters, points),
        key_points=points,
    )


def _sentences(sop_input: SopInput) -> list[_Sentence]:
    """The sentences with their times: interpolated within each segment, or within the whole if there are none."""
    segments = [
        (s.text, s.start, min(s.end, sop_input.duration))
        for s in sop_input.segments or []
        if s.start < sop_input.duration
    ]
    if not segments:
        segments = [(sop_input.transcript, 0.0, sop_input.duration)]
    text: str = ""
    positions: list[int] = []
    times: list[float] = []
    for words, start, end in segments:
        positions.append(len(text))
        text += words.strip() + " "
        positions.append(len(text) - 1)
        times += [start, end]
    sentences, at = [], 0
    for sentence in split_sentences(text):
        at = max(text.find(sentence, at), at)
        if WORD.search(sentence.lower()):
            sentences.append(_Sentence(" ".join(sentence.split()), float(np.interp(at, positions, times))))
        at += len(sentence)
    return sentences


def split_sentences(text: str) -> list[str]:
    """Split text into sentences, without the whitespace between them."""
    return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def _chapters(sentences: list[_Sentence], duration: float) -> list[tuple[Chapter, list[_Sentence]]]:
    """The chapters with their sentences. They cover the recording without gaps; empty ones are dropped."""
    groups = _by_topic(sentences)
    starts = [0.0, *(_round_down(group[0].start) for group in groups[1:])]
    ends = [*starts[1:], _round_down(duration)]
    return [
        (Chapter(title=_title(group), start=start, end=end), group)
        for group, start, end in zip(groups, starts, ends, strict=True)
        if end > start
    ]


def _by_topic(sentences: list[_Sentence]) -> list[list[_Sentence]]:
    words = [_content(s.text) for s in sentences]
    depth = {n: _dissimilarity(words, n) for n in range(2, len(sentences) - 1)}
    least = fmean(depth.values()) + max(pstdev(depth.values()), 0.1)
    scores = {n: d + bool(TURN.match(sentences[n].text)) for n, d in depth.items()}
    cuts: list[int] = []
    for n in sorted(scores, key=lambda n: (-scores[n], n)):
        if len(cuts) + 1 >= min(_MAX_CHAPTERS, len(sentences) // 2):
            break
        if scores[n] > least and all(abs(n - c) >= 2 for c in cuts):
            cuts.append(n)
    bounds = [0, *sorted(cuts), len(sentences)]
    return [sentences[a:b] for a, b in pairwise(bounds)]


def _dissimilarity(words: list[Counter[str]], n: int) -> float:
    """1 minus the cosine similarity of the sentences before `n` and those from `n` on."""
    before = sum(words[max(0, n - _WINDOW) : n], Counter())
    after = sum(words[n : n + _WINDOW], Counter())
    product = sum(before[w] * after[w] for w in before)
    size = math.sqrt(sum(v * v for v in before.values()) * sum(v * v for v in after.values()))
    return 1.0 - (product / size if size else 0.0)


def _content(text: str) -> Counter[str]:
    """The words of a sentence without stop words and the plural s."""
    words = WORD.findall(text.lower())
    return Counter(w[:-1] if w.endswith("s") and len(w) > 3 else w for w in words if w not in STOP_WORDS)


def _title(group: list[_Sentence]) -> str:
    """The two most frequent words of the group that name a thing, or the beginning of its first sentence."""
    words = Counter(word for sentence in group for word in WORD.findall(sentence.text.lower()))
    topics = {w: n for w, n in words.items() if n > 1 and len(w) > 2 and w not in STOP_WORDS | ACTION}
    best = sorted(topics, key=lambda word: -topics[word])[:2]
    return _capitalized(" and ".join(best) or LEAD.sub("", group[0].text)[:60])


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _scores(words: list[Counter[str]]) -> list[float]:
    """How central each sentence is, 0 to 1: it has words that occur in several sentences, but not in all."""
    occurrences = Counter(w for sentence in words for w in sentence)
    scores = [
        sum(occurrences[w] * math.log(1 + len(words) / occurrences[w]) for w in sentence)
        / (3 + len(sentence))
        for sentence in words
    ]
    highest = max(scores, default=0.0) or 1.0
    return [score / highest for score in scores]


def _round_down(seconds: float) -> float:
    return math.floor(seconds * 100) / 100 if seconds >= 0.01 else seconds


def _key_points(sentences: list[_Sentence]) -> list[str]:
    """The five to seven sentences with the highest scores, in their original order."""
    scores = [
        score + _bonus(s.text)
        for score, s in zip(_scores([_content(s.text) for s in sentences]), sentences, strict=True)
    ]
    count = max(_MIN_POINTS, min(_MAX_POINTS, len(sentences) // 3))
    first = {s.text: n for n, s in reversed(list(enumerate(sentences)))}  # where each text stands first
    chosen = sorted(first.values(), key=lambda n: (-scores[n], n))[:count]
    if len(chosen) < _MIN_POINTS:
        raise PermanentJobError(
            f"The transcript has {len(chosen)} different sentences; a procedure needs at least {_MIN_POINTS}.",
            kind="too_short",
        )
    return [sentences[n].text for n in sorted(chosen)]


def _bonus(text: str) -> float:
    """Added to a sentence's score: more for an obligation, less for a greeting or an announcement."""
    return 0.1 * bool(DUTY.search(text)) - bool(GREETING.search(text)) - bool(ANNOUNCEMENT.search(text))


def _is_step(text: str) -> bool:
    """Whether a sentence is an instruction: an obligation, or an imperative at its start or after a condition."""
    if ANNOUNCEMENT.search(text):
        return False
    openings = [LEAD.sub("", text), *(part.strip() for part in text.split(",")[1:])]
    words = [WORD.match(LEAD.sub("", o).lower()) for o in openings]
    return bool(DUTY.search(text)) or any(w is not None and w.group() in ACTION for w in words)


def _markdown(title: str, chapters: list[tuple[Chapter, list[_Sentence]]], points: list[str]) -> str:
    lines = [f"# {_escaped(title)}", ""]
    for number, (chapter, group) in enumerate(chapters, 1):
        steps = [LEAD.sub("", s.text) for s in group if _is_step(s.text)] or [LEAD.sub("", group[0].text)]
        times = f"{_clock(chapter.start)}–{_clock(chapter.end)}"
        lines += [f"## {number}. {_escaped(chapter.title)} ({times})", ""]
        lines += [f"{n}. {_escaped(_capitalized(step))}" for n, step in enumerate(steps, 1)]
        lines.append("")
    return "\n".join([*lines, "## Key points", "", *(f"- {_escaped(p)}" for p in points), ""])


def _escaped(text: str) -> str:
    """Text with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(text.split()))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
