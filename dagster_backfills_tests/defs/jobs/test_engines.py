"""The three kinds of work, each through its own client over a real socket, or embedded."""

import io
import json
import shutil
import subprocess

import pytest

from dagster_backfills.defs.jobs import handlers
from dagster_backfills.defs.jobs.context import JobContext
from dagster_backfills.defs.jobs.engines import openai_api, sop, speech
from dagster_backfills.defs.jobs.errors import JobError, PermanentJobError
from dagster_backfills.defs.jobs.registry import background_job_types
from dagster_backfills.defs.jobs.schemas import SopAnswer, SopInput
from dagster_backfills_tests.defs.jobs.stand_ins import Mux, OpenAI, StandIn, serving

needs_espeak = pytest.mark.skipif(
    not shutil.which("espeak-ng"), reason="espeak-ng (a Debian package) is not installed"
)

PARTS = [
    "Welcome to the boiler room training. Open the valve slowly and check the pressure gauge. "
    "The pressure must stay below ten bar. Close the valve when the tank is full. "
    "If the pressure rises, open the relief valve at once.",
    "Next, we turn to the fire drill. When the alarm rings, leave the building by the nearest exit. "
    "Do not use the elevator. Gather at the assembly point in the car park. "
    "The fire warden counts everyone at the assembly point.",
    "Finally, let us look at reporting. Write every leak in the log book. Sign the log book page with your name. "
    "Send the form to your supervisor before the end of the shift. "
    "The supervisor must answer every report within one day.",
]
GIVEN = SopInput(title="Boiler *room*", transcript=" ".join(PARTS), duration=95.4)
ANSWER = {
    "chapters": [{"title": "All", "start": 0, "end": 95}],
    "sop_markdown": "# Boiler\n\n1. Open the valve.\n",
    "key_points": [f"Point {n}" for n in range(5)],
}


def run(job_type, input_data):
    """The handler as a worker runs it; its output and the progress it reported."""
    from uuid import uuid4

    kind, seen = background_job_types().get(job_type), []
    context = JobContext(
        uuid4(), job_type, 1, kind.parse(input_data), lambda p, m: seen.append((p, m)) or True
    )
    return kind.handler(context), seen


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MUX_TOKEN_ID", "MUX_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBS_MEDIA_FOLDERS", str(tmp_path))
    return tmp_path


@pytest.fixture
def spoken(folder):
    path = folder / "spoken.wav"
    text = "Open the door and check the pressure. Write the pressure in the log book."
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), text], check=True)
    return path


# Speech


def _assert_heard(output):
    words = set(output.transcript.lower().replace(".", "").replace("logbook", "log book").split())
    assert {"open", "the", "door", "check", "pressure", "write", "book"} <= words
    assert output.segments[0].start < output.segments[-1].end <= output.duration
    assert " ".join(s.text for s in output.segments) == output.transcript


@needs_espeak
def test_spoken_words_come_back_as_text_with_segments(spoken):
    output, seen = run("transcription", {"audio_url": spoken.as_uri()})
    _assert_heard(output)
    assert 4 < output.duration < 8 and output.engine == "embedded: whisper tiny.en"
    assert seen[-1][0] > 20


@needs_espeak
def test_other_formats_than_wav_are_heard_too(spoken, folder):
    import av

    path = folder / "spoken.mp4"
    with av.open(str(spoken)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=22050)
        for frame in (*source.decode(audio=0), None):
            target.mux(stream.encode(frame))
    assert path.read_bytes()[4:8] == b"ftyp"
    output, _ = run("transcription", {"audio_url": path.as_uri()})
    _assert_heard(output)


def test_what_is_no_recording_is_refused_for_good(folder):
    for content in (b"", b"this is text", b"RIFF\0\0\0\0WAVEfmt "):
        (folder / "x.wav").write_bytes(content)
        with pytest.raises(PermanentJobError, match=r"can't be decoded|empty|no sound"):
            run("transcription", {"audio_url": (folder / "x.wav").as_uri()})


def test_a_playlist_does_not_make_the_decoder_open_other_files(folder, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.wav"
    secret.write_bytes(_silence())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret.as_uri()}\n#EXT-X-ENDLIST\n"
    for content in (playlist, f"ffconcat version 1.0\nfile '{secret}'\n"):
        with pytest.raises(PermanentJobError, match="can't be decoded"):
            speech.decode(io.BytesIO(content.encode()))


def _silence() -> bytes:
    import wave

    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 16000 * 2)
    return target.getvalue()


def test_silence_is_no_transcript(folder):
    (folder / "silence.wav").write_bytes(_silence())
    with pytest.raises(PermanentJobError, match="No speech"):
        run("transcription", {"audio_url": (folder / "silence.wav").as_uri()})


def test_the_embedded_engine_says_that_it_knows_english_only(folder):
    (folder / "x.wav").write_bytes(_silence())
    with pytest.raises(PermanentJobError, match="English only, not 'de'"):
        run("transcription", {"audio_url": (folder / "x.wav").as_uri(), "language": "de"})


def test_without_the_optional_packages_the_engine_says_what_to_install(folder, monkeypatch):
    there = speech.find_spec
    monkeypatch.setattr(speech, "find_spec", lambda name: None if name == "av" else there(name))
    (folder / "x.wav").write_bytes(_silence())
    with pytest.raises(
        PermanentJobError, match=r"needs av: pip install 'dagster-backfills\[speech\]'"
    ) as failed:
        run("transcription", {"audio_url": (folder / "x.wav").as_uri()})
    assert failed.value.kind == "configuration"


# OpenAI-compatible


@pytest.fixture
def api(monkeypatch):
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
    ("change", "said"),
    [
        (
            {"chapters": [{"title": "x", "start": 0, "end": 96}]},
            "chapter 1 ends at 96 s, after the recording's 95.4",
        ),
        ({"chapters": []}, "field chapters"),
        ({"key_points": ["one"]}, "field key_points"),
        ({"key_points": ["p"] * 8}, "field key_points"),
        ({"sop_markdown": "# No steps"}, "no numbered steps"),
        ({"more": 1}, "field more"),
        (None, "field the whole"),
    ],
)
def test_a_bad_answer_is_retried_and_says_what_was_wrong(api, change, said):
    api.answers = [json.dumps(ANSWER | change) if change else "I can't do that."]
    with pytest.raises(JobError, match=said) as failed:
        run("sop_generation", GIVEN.model_dump())
    assert failed.value.retryable and failed.value.kind == "bad_answer"


@pytest.mark.parametrize(
    ("statuses", "retryable"), [([500, 500], True), ([429, 429], True), ([400], False), ([404], False)]
)
def test_the_apis_refusals_are_retried_only_where_that_may_help(api, statuses, retryable):
    api.failures = statuses
    with pytest.raises(JobError, match=f"The API answered {statuses[0]}") as failed:
        openai_api.sop_with_api(GIVEN)
    assert failed.value.retryable is retryable


def test_a_wrong_key_is_permanent_and_a_missing_one_names_the_variable(api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key")
    with pytest.raises(PermanentJobError, match="answered 401"):
        openai_api.sop_with_api(GIVEN)
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("JOBS_SOP_ENGINE", "openai")
    with pytest.raises(PermanentJobError, match="OPENAI_API_KEY is not set"):
        run("sop_generation", GIVEN.model_dump())


# The embedded procedure


def test_the_embedded_engine_makes_a_valid_procedure_of_the_transcripts_own_sentences():
    output, _ = run("sop_generation", GIVEN.model_dump())
    assert output.problems(95.4) == [] and 5 <= len(output.key_points) <= 7
    assert all(point in GIVEN.transcript for point in output.key_points)
    assert output.sop_markdown.startswith("# Boiler \\*room\\*\n")
    assert "1. Open the valve slowly and check the pressure gauge." in output.sop_markdown
    assert "Welcome" not in output.sop_markdown


def test_chapters_change_where_the_topic_does_and_cover_the_recording():
    chapters = sop.sop_embedded(GIVEN).chapters
    assert len(chapters) == 3
    assert chapters[0].start == 0 and chapters[-1].end == 95.4
    assert [a.end for a in chapters[:-1]] == [b.start for b in chapters[1:]]
    assert "pressure" in chapters[0].title.lower() and "supervisor" in chapters[2].title.lower()


def test_segments_give_the_chapters_their_times():
    marks = [0.0, 40.0, 50.0, 95.4]
    segments = [{"start": marks[n], "end": marks[n + 1], "text": text} for n, text in enumerate(PARTS)]
    chapters = sop.sop_embedded(GIVEN.model_copy(update={"segments": SopInput.model_validate(
        {**GIVEN.model_dump(), "segments": segments}).segments})).chapters  # fmt: skip
    assert [c.start for c in chapters] == pytest.approx([0, 40, 50], abs=0.6)


def test_a_transcript_that_is_too_short_is_refused_for_good():
    with pytest.raises(PermanentJobError, match="2 sentences; a procedure needs at least 5"):
        sop.sop_embedded(SopInput(title="t", transcript="Open it. Close it.", duration=3))
    with pytest.raises(PermanentJobError, match="1 different sentences"):
        sop.sop_embedded(SopInput(title="t", transcript="Open it. " * 9, duration=3))


@pytest.mark.parametrize("duration", [0.05, 1, 7.77, 36000.123])
def test_chapters_stay_inside_any_duration(duration):
    answer = sop.sop_embedded(GIVEN.model_copy(update={"duration": duration}))
    assert SopAnswer.model_validate(answer.model_dump()).problems(duration) == []


# Mux


@pytest.fixture
def mux(monkeypatch):
    server = StandIn(Mux)
    monkeypatch.setenv("MUX_BASE_URL", server.url)
    monkeypatch.setenv("MUX_TOKEN_ID", "the-id")
    monkeypatch.setenv("MUX_TOKEN_SECRET", "the-secret-token")
    monkeypatch.setenv("JOBS_MUX_POLL_SECONDS", "0.02")
    with serving(server):
        yield server


def test_a_film_is_uploaded_to_mux_and_waited_for(mux, folder):
    film = b"film " * 600_000
    (folder / "a.mp4").write_bytes(film)
    output, seen = run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})
    assert (output.asset_id, output.playback_id, output.status) == ("asset1", "play1", "ready")
    assert mux.film == film
    assert mux.asked[:3] == [
        ("POST", "/video/v1/uploads"),
        ("PUT", "/put/up1"),
        ("GET", "/video/v1/uploads/up1"),
    ]
    assert mux.asked[3:] == [("GET", "/video/v1/assets/asset1")] * 3
    assert [p for p, _ in seen] == sorted(p for p, _ in seen)


def test_without_credentials_mux_is_a_clear_permanent_failure(monkeypatch):
    monkeypatch.setenv("MUX_TOKEN_ID", "x")
    with pytest.raises(PermanentJobError, match="set MUX_TOKEN_SECRET"):
        run("mux_upload", {"video_url": "file:///nowhere.mp4"})


def test_a_film_that_mux_can_not_use_is_permanent(mux, folder):
    (folder / "a.mp4").write_bytes(b"not a film")
    with pytest.raises(PermanentJobError, match=r"Mux can't use the film: The input is no film\."):
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})


@pytest.mark.parametrize(("status", "retryable"), [(503, True), (429, True), (403, False)])
def test_muxs_refusals_are_retried_only_where_that_may_help(mux, folder, status, retryable):
    mux.failures = [status]
    (folder / "a.mp4").write_bytes(b"film")
    with pytest.raises(JobError, match=f"Mux answered {status}") as failed:
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})
    assert failed.value.retryable is retryable


def test_wrong_credentials_are_permanent(mux, folder, monkeypatch):
    monkeypatch.setenv("MUX_TOKEN_SECRET", "another")
    (folder / "a.mp4").write_bytes(b"film")
    with pytest.raises(PermanentJobError, match="Mux answered 401"):
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})


def test_the_engine_that_is_asked_for_must_exist(monkeypatch):
    monkeypatch.setenv("JOBS_SOP_ENGINE", "magic")
    with pytest.raises(PermanentJobError, match="JOBS_SOP_ENGINE must be openai or embedded, not 'magic'"):
        run("sop_generation", GIVEN.model_dump())
    assert handlers.engine_of("TRANSCRIPTION", {}) == "embedded"
    assert handlers.engine_of("TRANSCRIPTION", {"OPENAI_API_KEY": "x"}) == "openai"
