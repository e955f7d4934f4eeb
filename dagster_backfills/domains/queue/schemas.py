"""What goes into and comes out of each kind of work. Not here: how the work is done."""

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator


def storable(text: str) -> str:
    """Text without what Postgres can't hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


Said = Annotated[str, BeforeValidator(lambda said: storable(said) if isinstance(said, str) else said)]
Text = Annotated[Said, StringConstraints(strip_whitespace=True, min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A model that knows its fields and takes no others."""

    model_config = ConfigDict(extra="forbid")


class Segment(Strict):
    """A stretch of speech; `start` and `end` in seconds from the beginning of the recording."""

    start: Seconds
    end: Seconds
    text: Said

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) lies before start ({self.start})")
        return self


class TranscriptionInput(Strict):
    """`audio_url`: where the recording is; `language`: ISO 639-1, empty to let the engine decide."""

    audio_url: Text
    language: str | None = None


class TranscriptionOutput(Strict):
    """`duration` in seconds. The transcript is the segments' text in one string."""

    transcript: Said
    segments: list[Segment]
    duration: Seconds
    language: Said
    engine: str


class SopInput(Strict):
    """`duration` in seconds; `segments`, where known, give the chapters their exact times."""

    title: Text
    transcript: Text
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    segments: list[Segment] | None = None


class Chapter(Strict):
    """A part of the recording under one topic, in seconds."""

    title: Text
    start: Seconds
    end: Seconds


class SopAnswer(Strict):
    """What an engine must answer, whichever it is."""

    chapters: list[Chapter] = Field(min_length=1)
    sop_markdown: Text
    key_points: list[Text] = Field(min_length=5, max_length=7)

    def problems(self, duration: float) -> list[str]:
        """What no field's own rule can say: chapters inside the duration and in order, steps that are numbered."""
        found = []
        before = 0.0
        for number, chapter in enumerate(self.chapters, 1):
            if chapter.end > duration:
                found.append(
                    f"chapter {number} ends at {chapter.end:g} s, after the recording's {duration:g} s"
                )
            if chapter.end <= chapter.start:
                found.append(f"chapter {number} ends at {chapter.end:g} s, not after its start")
            if chapter.start < before:
                found.append(f"chapter {number} starts at {chapter.start:g} s, inside the one before")
            before = chapter.end
        lines = [line.strip() for line in self.sop_markdown.splitlines()]
        if not any(line.startswith("1. ") for line in lines):
            found.append("sop_markdown has no numbered steps")
        if not any(line.startswith("#") for line in lines):
            found.append("sop_markdown has no heading")
        return found


class SopOutput(SopAnswer):
    """The answer with its title, and the engine that gave it."""

    title: Text
    engine: str


class MuxInput(Strict):
    """`video_url`: where the film is."""

    video_url: Text


class MuxOutput(Strict):
    """Mux's ids of the asset and of its public playback; `status` is Mux's own word, `ready`."""

    asset_id: str
    playback_id: str | None
    status: str
