"""The OpenAI-compatible engines over a real socket: the requests they send, and how they handle any answer."""

import io
import json
import wave

import numpy as np
import pytest

from dagster_backfills.domains.queue.engines import openai_api, sound
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError
from dagster_backfills_tests.domains.queue.runs import GIVEN, run
from dagster_backfills_tests.domains.queue.stand_ins import OpenAI, StandIn, serving

ANSWER = {
    "chapters": [{"title": "All", "start": 0, "end": 95}],
    "sop_markdown": "# Boiler\n\n1. Open the valve.\n",
    "key_points": [f"Point {n}" for n in range(5)],
}


@pytest.fixture
def api(no_accounts, monkeypatch):
    server = StandIn(OpenAI)
    server.answers, server.bodies = [], []
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-test-key")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    with serving(server):
        yield server


def test_transcription_through_the_api(api, folder, monkeypatch):
    monkeypatch.setenv("JOBS_TRANSCRIPTION_MODEL", "whisper-large")
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": 2.5,
        "text": " Hello there.",
        "tokens": [],
        "temperature": 0.0,
    }
    segment |= {"avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
    api.answers = [{"text": "Hello there.", "language": "english", "duration": 2.0, "segments": [segment]}]
    (folder / "a.mp3").write_bytes(b"sound")
    output, _ = run("transcription", {"audio_url": (folder / "a.mp3").as_uri(), "language": "en"})
    assert (output.transcript, output.duration, output.engine) == ("Hello there.", 2.0, "openai")
    assert [(s.start, s.end, s.text) for s in output.segments] == [(0.0, 2.0, "Hello there.")]
    body = api.bodies[0]
    for part in (b"whisper-large", b"verbose_json", b'filename="a.mp3"', b"sound", b'name="language"'):
        assert part in body


def test_a_procedure_through_the_api_is_asked_for_by_schema(api):
    api.answers = [json.dumps(ANSWER)]
    output, _ = run("sop_generation", GIVEN.model_dump())
    assert output.engine == "openai" and output.title == "Boiler *room*" and len(output.key_points) == 5
    asked = json.loads(api.bodies[0])
    schema = asked["response_format"]["json_schema"]
    assert asked["response_format"]["type"] == "json_schema" and schema["strict"] is True
    assert schema["schema"]["required"] == ["chapters", "sop_markdown", "key_points"]
    assert schema["schema"]["additionalProperties"] is False
    assert "95.4" in asked["messages"][0]["content"]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            {"chapters": [{"title": "x", "start": 0, "end": 96}]},
            r"chapter 1 ends at 96 s, after the end of the recording \(95.4 s\)",
        ),
        ({"chapters": []}, "field chapters"),
        ({"key_points": ["one"]}, "field key_points"),
        ({"key_points": ["p"] * 8}, "field key_points"),
        ({"sop_markdown": "# No steps"}, "no numbered steps"),
        ({"more": 1}, "field more"),
        (None, r"field \(root\)"),
    ],
)
def test_a_bad_answer_is_retried_and_says_what_was_wrong(api, change, lines):
    api.answers = [json.dumps(ANSWER | change) if change else "I can't do that."]
    with pytest.raises(JobError, match=lines) as failed:
        run("sop_generation", GIVEN.model_dump())
    assert failed.value.retryable and failed.value.kind == "bad_answer"


@pytest.mark.parametrize(
    ("statuses", "retryable"), [([500, 500], True), ([429, 429], True), ([400], False), ([404], False)]
)
def test_api_errors_are_retried_only_if_a_retry_may_help(api, statuses, retryable):
    api.failures = statuses
    with pytest.raises(JobError, match=f"The API returned status {statuses[0]}") as failed:
        openai_api.sop_with_api(GIVEN)
    assert failed.value.retryable is retryable


def test_a_wrong_key_is_permanent_and_a_missing_one_names_the_variable(api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key")
    with pytest.raises(PermanentJobError, match="returned status 401"):
        openai_api.sop_with_api(GIVEN)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("JOBS_SOP_ENGINE", "openai")
    with pytest.raises(PermanentJobError, match="OPENAI_API_KEY is not set"):
        run("sop_generation", GIVEN.model_dump())


def _recording(seconds: float, rate: int = 16_000) -> bytes:
    """A tone with one second of silence in every five."""
    t = np.arange(int(seconds * rate))
    tone = (8000 * np.sin(t / 20) * (t // rate % 5 != 4)).astype(np.int16)
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(tone.tobytes())
    return target.getvalue()


def _heard(text, duration, **more):
    return {"text": text, "duration": duration, "language": "english", **more}


@pytest.mark.parametrize("name", ["recording", "download.php", "sound.MP3", "x.bin", "a.aac"])
def test_a_recording_is_sent_with_the_extension_of_its_format(api, folder, name):
    api.answers = [_heard("Hello.", 1.5)]
    (folder / name).write_bytes(_recording(1.5))
    output, _ = run("transcription", {"audio_url": (folder / name).as_uri()})
    assert output.transcript == "Hello." and b'.wav"' in api.bodies[0][:2000]


@pytest.mark.parametrize(
    ("begins", "extension"),
    [(b"ID3\4", "mp3"), (b"\xff\xfb\x90", "mp3"), (b"OggS", "ogg"), (b"fLaC", "flac"), (b"\0\0\0\x20ftypM4A ", "m4a"),
     (b"\0\0\0\x20ftypisom", "mp4"), (b"\x1aE\xdf\xa3", "webm"), (b"RIFF\0\0\0\0WAVEfmt ", "wav"), (b"what", "")],
)  # fmt: skip
def test_a_format_is_detected_by_its_magic_bytes(begins, extension):
    file = io.BytesIO(begins + bytes(20))
    assert sound.extension_of(file) == extension and file.tell() == 0


def test_a_recording_over_the_apis_limit_is_sent_in_parts_cut_where_it_is_quiet(api, folder):
    content = _recording(900)
    assert len(content) > 25 * 1024 * 1024
    (folder / "long.wav").write_bytes(content)
    part = {"start": 1.0, "end": 2.0, "text": "Word."}
    api.answers = [_heard("One.", 594.0, segments=[part]), _heard("Two.", 306.0, segments=[part])]
    output, seen = run("transcription", {"audio_url": (folder / "long.wav").as_uri()})
    first, second = output.segments
    assert (first.start, first.end) == (1.0, 2.0)
    # Silent within the ten seconds before 600: from 594 to 595, where the second part begins.
    assert 595.0 <= second.start <= 596.0 and round(second.end - second.start, 2) == 1.0
    assert output.duration == pytest.approx(second.start - 1 + 306.0) and len(api.bodies) == 2
    assert any(message == "594 seconds transcribed" for _, message in seen)


def test_a_format_that_the_api_does_not_accept_is_converted(api, folder):
    import av

    (folder / "a.wav").write_bytes(_recording(3))
    with (
        av.open(str(folder / "a.wav")) as source,
        av.open(str(folder / "a.aac"), "w", format="adts") as target,
    ):
        stream = target.add_stream("aac", rate=16_000)
        for frame in (*source.decode(audio=0), None):
            target.mux(stream.encode(frame))
    api.answers = [_heard("Hello.", 3.0)]
    assert run("transcription", {"audio_url": (folder / "a.aac").as_uri()})[0].transcript == "Hello."
    assert b'filename="part.wav"' in api.bodies[0][:2000]


@pytest.mark.parametrize(
    ("name", "size", "lines"),
    [
        ("a.mp3", 27, r"27\.0 MB; the limit is 25 MB \(JOBS_TRANSCRIPTION_MAX_MB\)"),
        ("a.xyz", 1, "does not accept the recording.s format"),
    ],
)
def test_without_the_speech_packages_the_error_says_what_to_do(api, folder, monkeypatch, name, size, lines):
    monkeypatch.setattr(sound, "find_spec", lambda name: None)
    (folder / name).write_bytes(bytes(size * 1024 * 1024))
    with pytest.raises(PermanentJobError, match=rf"{lines}.*pip install 'dagster-backfills\[speech\]'"):
        run("transcription", {"audio_url": (folder / name).as_uri()})
    assert api.bodies == []


def test_a_server_with_a_smaller_limit_names_the_setting(api, folder, monkeypatch):
    monkeypatch.setenv("JOBS_TRANSCRIPTION_MAX_MB", "2048")
    (folder / "a.mp3").write_bytes(b"ID3" + bytes(27 * 1024 * 1024))
    with pytest.raises(PermanentJobError, match=r"returned status 413: .*Set JOBS_TRANSCRIPTION_MAX_MB"):
        run("transcription", {"audio_url": (folder / "a.mp3").as_uri()})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"text": "Hello."}, (0.0, 0.0, "Hello.")),
        ({"text": "Hello.", "segments": [{"start": 0.5, "end": 2, "text": "Hello."}]}, (0.5, 2.0, "Hello.")),
        (
            _heard("x", 2.0, segments=[{"start": -1, "end": 9, "text": "nul \0 byte"}]),
            (0.0, 2.0, "nul  byte"),
        ),
        (_heard("x", 2.0, segments=[{"start": 5, "end": 1, "text": "late"}]), (2.0, 2.0, "late")),
    ],
)
def test_missing_and_out_of_range_values_in_an_answer_are_corrected(api, folder, answer, expected):
    api.answers = [answer]
    (folder / "a.wav").write_bytes(_recording(2))
    output, _ = run("transcription", {"audio_url": (folder / "a.wav").as_uri()})
    [segment] = output.segments
    assert (segment.start, segment.end, segment.text) == expected


@pytest.mark.parametrize(
    "answer", [{"text": "x", "duration": "long"}, {"text": 7}, {"segments": [{"text": ["a"]}]}]
)
def test_an_invalid_transcript_is_retried_with_a_reason(api, folder, answer):
    api.answers = [answer]
    (folder / "a.wav").write_bytes(_recording(2))
    with pytest.raises(JobError, match="The API's answer is not valid: field ") as failed:
        run("transcription", {"audio_url": (folder / "a.wav").as_uri()})
    assert failed.value.retryable and failed.value.kind == "bad_answer"


_TEXT = json.dumps(ANSWER)


@pytest.mark.parametrize(
    "content",
    [
        f"```json\n{_TEXT}\n```",
        f"```\n{_TEXT}\n```",
        f"Here is the procedure:\n\n{_TEXT}\n\nIs it good?",
        f"<think>The user wants {{json}}.</think>\n{_TEXT}",
        f"<think>\nHm.\n</think>\n\n```json\n{_TEXT}\n```",
        f"thoughts without a beginning </think>{_TEXT}",
        f"  {_TEXT}",
    ],
)
def test_json_is_read_from_a_code_fence_and_after_reasoning(api, content):
    api.answers = [content]
    assert run("sop_generation", GIVEN.model_dump())[0].key_points == ANSWER["key_points"]


def test_an_answer_that_mentions_reasoning_and_fences_is_not_cut(api):
    points = ["Write </think> last.", "Use ``` fences.", *ANSWER["key_points"][2:]]
    api.answers = [json.dumps(ANSWER | {"key_points": points})]
    assert run("sop_generation", GIVEN.model_dump())[0].key_points == points


def test_a_nul_in_an_answer_is_dropped_so_that_it_can_be_stored(api):
    api.answers = [json.dumps(ANSWER | {"key_points": ["One\0 point", *ANSWER["key_points"][1:]]})]
    output, _ = run("sop_generation", GIVEN.model_dump())
    assert output.key_points[0] == "One point" and "\\u0000" not in output.model_dump_json()
