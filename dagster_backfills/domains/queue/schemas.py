"""Inputs and outputs of the built-in job types. Not here: the handlers (`handlers`)."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator


def storable(text: str) -> str:
    """Remove what Postgres can't store in text: NUL characters and unpaired surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


StorableText = Annotated[str, BeforeValidator(lambda v: storable(v) if isinstance(v, str) else v)]
Text = Annotated[StorableText, StringConstraints(strip_whitespace=True, min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A model that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Segment(Strict):
    """A segment of speech. `start` and `end` are in seconds from the beginning of the recording."""

    start: Seconds
    end: Seconds
    text: StorableText

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) is before start ({self.start})")
        return self


class TranscriptionInput(Strict):
    """`audio_url` is the recording's URL; `language` an ISO 639-1 code, or empty to let the engine detect it."""

    audio_url: Text
    language: str | None = None


class TranscriptionOutput(Strict):
    """`transcript` is the text of all segments; `duration` is in seconds."""

    transcript: StorableText
    segments: list[Segment]
    duration: Seconds
    language: StorableText
    engine: str


class SopInput(Strict):
    """`duration` is in seconds. With `segments`, the chapters get exact times."""

    title: Text
    transcript: Text
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    segments: list[Segment] | None = None


class Chapter(Strict):
    """A part of the recording on one topic; times are in seconds."""

    title: Text
    start: Seconds
    end: Seconds


class SopAnswer(Strict):
    """The answer that every SOP engine must return."""

    chapters: list[Chapter] = Field(min_length=1)
    sop_markdown: Text
    key_points: list[Text] = Field(min_length=5, max_length=7)

    def problems(self, duration: float) -> list[str]:
        """Checks across fields: chapters in order and within the duration, a heading, and numbered steps."""
        problems = []
        previous_end = 0.0
        for number, chapter in enumerate(self.chapters, 1):
            if chapter.end > duration:
                problems.append(
                    f"chapter {number} ends at {chapter.end:g} s, after the end of the recording ({duration:g} s)"
                )
            if chapter.end <= chapter.start:
                problems.append(f"chapter {number} ends at {chapter.end:g} s, not after its start")
            if chapter.start < previous_end:
                problems.append(f"chapter {number} starts at {chapter.start:g} s, within the previous one")
            previous_end = chapter.end
        lines = [line.strip() for line in self.sop_markdown.splitlines()]
        if not any(line.startswith("1. ") for line in lines):
            problems.append("sop_markdown has no numbered steps")
        if not any(line.startswith("#") for line in lines):
            problems.append("sop_markdown has no heading")
        return problems


class SopOutput(SopAnswer):
    """The answer with the recording's title and the engine's name."""

    title: Text
    engine: str


class MuxInput(Strict):
    """`video_url` is the video's URL."""

    video_url: Text


class MuxOutput(Strict):
    """IDs of the Mux asset and its public playback. `status` is Mux's status of the asset, `ready`."""

    asset_id: str
    playback_id: str | None
    status: str
