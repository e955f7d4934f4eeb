"""A procedure out of a transcript without an account: sentences are chosen, never invented.

Chapters break where the words change (a fall of similarity between neighbouring stretches) or a speaker says so.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from dagster_backfills.domains.queue.engines.words import (
    ABBREVIATIONS,
    ACTION,
    ANNOUNCEMENT,
    DUTY,
    GREETING,
    LEAD,
    PLAIN,
    TURN,
    WORD,
)
from dagster_backfills.domains.queue.errors import PermanentJobError
from dagster_backfills.domains.queue.schemas import Chapter, SopAnswer, SopInput

_FEWEST_POINTS, _MOST_POINTS, _MOST_CHAPTERS = 5, 7, 12
_STRETCH = 3
# After . ! or ? and before a capital or a digit, but not after an abbreviation, nor within "No. 5".
_SENTENCE_END = re.compile(
    "".join(rf"(?<!(?i:\b{re.escape(each)}\.))" for each in ABBREVIATIONS)
    + r"(?<!(?i:\bno\.(?=\s\d)))(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])|\n\s*\n"
)


@dataclass(frozen=True)
class _Said:
    """A sentence with its time, in seconds."""

    text: str
    start: float
    end: float


def sop_embedded(given: SopInput) -> SopAnswer:
    """Chapters, steps and key points from the transcript's own sentences.

    Raises PermanentJobError where it has fewer than five sentences.
    """
    said = _sentences(given)
    if len(said) < _FEWEST_POINTS:
        raise PermanentJobError(
            f"The transcript has {len(said)} sentences; a procedure needs at least {_FEWEST_POINTS}.",
            kind="too_short",
        )
    groups = _by_topic(said)
    chapters = [Chapter(title=_title(g), start=_cut(g[0].start), end=_cut(g[-1].end)) for g in groups]
    chapters = _side_by_side(chapters, given.duration)
    points = _key_points(said)
    return SopAnswer(
        chapters=chapters, sop_markdown=_markdown(given.title, chapters, groups, points), key_points=points
    )


def _sentences(given: SopInput) -> list[_Said]:
    """The sentences, each once, timed by its segment, or by its place where there are no segments."""
    stretches = [
        (s.text, s.start, min(s.end, given.duration))
        for s in given.segments or []
        if s.start < given.duration
    ]
    if not stretches:
        stretches = [(given.transcript, 0.0, given.duration)]
    text, marks = "", []
    for words, start, end in stretches:
        marks.append((len(text), start))
        text += words.strip() + " "
        marks.append((len(text) - 1, end))
    found, at = [], 0
    for sentence in split_sentences(text):
        begin = max(text.find(sentence, at), at)
        at = begin + len(sentence)
        if WORD.search(sentence.lower()):
            found.append(_Said(" ".join(sentence.split()), _time_at(marks, begin), _time_at(marks, at)))
    return found


def split_sentences(text: str) -> list[str]:
    """The text's sentences, without what stands between them."""
    return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def _time_at(marks: list[tuple[int, float]], place: int) -> float:
    before = max((m for m in marks if m[0] <= place), default=marks[0])
    after = min((m for m in marks if m[0] >= place), default=marks[-1])
    share = (place - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1] + share * (after[1] - before[1])


def _by_topic(said: list[_Said]) -> list[list[_Said]]:
    words = [_content(s.text) for s in said]
    depth = {n: _change(words, n) for n in range(2, len(said) - 1)}
    mean = sum(depth.values()) / len(depth) if depth else 0.0
    spread = math.sqrt(sum((d - mean) ** 2 for d in depth.values()) / len(depth)) if depth else 0.0
    worth = {n: d + (1.0 if TURN.match(said[n].text) else 0.0) for n, d in depth.items()}
    cuts: list[int] = []
    for n in sorted(worth, key=lambda n: (-worth[n], n)):
        if len(cuts) + 1 >= min(_MOST_CHAPTERS, len(said) // 2):
            break
        if worth[n] > mean + max(spread, 0.1) and all(abs(n - c) >= 2 for c in cuts):
            cuts.append(n)
    bounds = [0, *sorted(cuts), len(said)]
    return [said[a:b] for a, b in pairwise(bounds)]


def _change(words: list[Counter[str]], n: int) -> float:
    """How little the sentences before `n` share with those from `n` on: 0 to 1."""
    before = sum(words[max(0, n - _STRETCH) : n], Counter())
    after = sum(words[n : n + _STRETCH], Counter())
    product = sum(before[w] * after[w] for w in before)
    size = math.sqrt(sum(v * v for v in before.values()) * sum(v * v for v in after.values()))
    return 1.0 - (product / size if size else 0.0)


def _content(text: str) -> Counter[str]:
    found = WORD.findall(text.lower())
    return Counter(w[:-1] if w.endswith("s") and len(w) > 3 else w for w in found if w not in PLAIN)


def _title(group: list[_Said]) -> str:
    """The two words or pairs of words that the group says most often, or how it begins."""
    kept: list[str] = []
    for term in _terms(group):
        if not any(term in k or k in term for k in kept):
            kept.append(term)
    name = " and ".join(kept[:2]) or LEAD.sub("", group[0].text)[:60]
    return name[:1].upper() + name[1:]


def _terms(group: list[_Said]) -> list[str]:
    """What is said more than once, the most telling first: a pair of words counts twice."""
    singles: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for said in group:
        words = WORD.findall(said.text.lower())
        good = [w not in PLAIN | ACTION and len(w) > 2 for w in words]
        singles.update(w for w, fits in zip(words, good, strict=True) if fits)
        pairs.update(f"{words[n]} {words[n + 1]}" for n in range(len(words) - 1) if good[n] and good[n + 1])
    worth = {**{p: 2 * count for p, count in pairs.items() if count > 1}, **singles}
    return sorted((t for t in worth if worth[t] > 1), key=lambda term: -worth[term])


def _ranks(words: list[Counter[str]]) -> list[float]:
    """How much each sentence says of what the transcript is about, 0 to 1: words of several sentences, not of all."""
    among = Counter(w for sentence in words for w in sentence)
    worth = [
        sum(among[w] * math.log(1 + len(words) / among[w]) for w in sentence) / (3 + len(sentence))
        for sentence in words
    ]
    most = max(worth, default=0.0) or 1.0
    return [each / most for each in worth]


def _side_by_side(chapters: list[Chapter], duration: float) -> list[Chapter]:
    """Chapters from 0 to the end, each starting where the one before ends, none empty."""
    starts = [0.0, *(c.start for c in chapters[1:]), _cut(duration)]
    kept = [(c, a) for c, a, b in zip(chapters, starts, starts[1:], strict=False) if b - a > 0.01]
    ends = [a for _, a in kept[1:]] + [_cut(duration)]
    return [Chapter(title=c.title, start=a, end=e) for (c, a), e in zip(kept, ends, strict=True)]


def _cut(seconds: float) -> float:
    return math.floor(seconds * 100) / 100 if seconds >= 0.01 else seconds


def _key_points(said: list[_Said]) -> list[str]:
    """The five to seven sentences that a text ranking puts first, in the order they were said."""
    scores = _ranks([_content(s.text) for s in said])
    count = max(_FEWEST_POINTS, min(_MOST_POINTS, len(said) // 3))
    chosen: list[int] = []
    worth = [score + _usefulness(s.text) for score, s in zip(scores, said, strict=True)]
    for n in sorted(range(len(said)), key=lambda n: (-worth[n], n)):
        if len(chosen) < count and said[n].text not in {said[c].text for c in chosen}:
            chosen.append(n)
    if len(chosen) < _FEWEST_POINTS:
        raise PermanentJobError(
            f"The transcript has {len(chosen)} different sentences; a procedure needs at least {_FEWEST_POINTS}.",
            kind="too_short",
        )
    return [said[n].text for n in sorted(chosen)]


def _usefulness(text: str) -> float:
    """What a sentence of this kind is worth beside its rank: a duty more, a greeting or an announcement less."""
    return 0.1 * bool(DUTY.search(text)) - bool(GREETING.search(text)) - bool(ANNOUNCEMENT.search(text))


def _is_step(text: str) -> bool:
    """Whether a sentence tells someone to do something: an order, at its start or after a condition, or a duty."""
    if ANNOUNCEMENT.search(text):
        return False
    openings = [LEAD.sub("", text), *(part.strip() for part in text.split(",")[1:])]
    words = [WORD.match(LEAD.sub("", o).lower()) for o in openings]
    return bool(DUTY.search(text)) or any(w is not None and w.group() in ACTION for w in words)


def _markdown(title: str, chapters: list[Chapter], groups: list[list[_Said]], points: list[str]) -> str:
    lines = [f"# {_plain(title)}", ""]
    for number, (chapter, group) in enumerate(zip(chapters, groups, strict=False), 1):
        steps = [s.text for s in group if _is_step(s.text)] or [group[0].text]
        lines += [f"## {number}. {_plain(chapter.title)} ({_clock(chapter.start)}–{_clock(chapter.end)})", ""]
        lines += [
            f"{n}. {_plain(LEAD.sub('', step)[:1].upper() + LEAD.sub('', step)[1:])}"
            for n, step in enumerate(steps, 1)
        ]
        lines.append("")
    return "\n".join([*lines, "## Key points", "", *(f"- {_plain(p)}" for p in points), ""])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(text.split()))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
