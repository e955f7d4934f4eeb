"""The engines of the three job types: through their client libraries over a real socket, or embedded."""

import io
import shutil
import subprocess

import pytest

from dagster_backfills.domains.queue.attempts import failure_of
from dagster_backfills.domains.queue.engines import sop, speech
from dagster_backfills.domains.queue.errors import JobError, PermanentJobError
from dagster_backfills.domains.queue.schemas import SopAnswer, SopInput
from dagster_backfills.domains.queue.settings import EngineRules
from dagster_backfills.environment import BadSetting
from dagster_backfills_tests.domains.queue.runs import GIVEN, PARTS, run
from dagster_backfills_tests.domains.queue.stand_ins import Mux, StandIn, serving

pytestmark = pytest.mark.usefixtures("no_accounts")
needs_espeak = pytest.mark.skipif(
    not shutil.which("espeak-ng"), reason="espeak-ng (a Debian package) is not installed"
)


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


@pytest.mark.programs
@needs_espeak
def test_spoken_words_come_back_as_text_with_segments(spoken):
    output, seen = run("transcription", {"audio_url": spoken.as_uri()})
    _assert_heard(output)
    assert 4 < output.duration < 8 and output.engine == "embedded: whisper tiny.en"
    assert seen[-1][0] > 20


@pytest.mark.programs
@needs_espeak
def test_formats_other_than_wav_are_transcribed(spoken, folder):
    import av

    path = folder / "spoken.mp4"
    with av.open(str(spoken)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=22050)
        for frame in (*source.decode(audio=0), None):
            target.mux(stream.encode(frame))
    assert path.read_bytes()[4:8] == b"ftyp"
    output, _ = run("transcription", {"audio_url": path.as_uri()})
    _assert_heard(output)


def test_a_file_that_is_not_a_recording_fails_permanently(folder):
    for content in (b"", b"this is text", b"RIFF\0\0\0\0WAVEfmt "):
        (folder / "x.wav").write_bytes(content)
        with pytest.raises(PermanentJobError, match=r"can't be decoded|empty|no audio"):
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


def test_a_silent_recording_fails(folder):
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


# The embedded procedure


def test_the_embedded_engine_makes_a_valid_procedure_of_the_transcripts_own_sentences():
    output, _ = run("sop_generation", GIVEN.model_dump())
    assert output.problems(95.4) == [] and 5 <= len(output.key_points) <= 7
    assert all(point in GIVEN.transcript for point in output.key_points)
    assert output.sop_markdown.startswith("# Boiler \\*room\\*\n")
    assert "1. Open the valve slowly and check the pressure gauge." in output.sop_markdown
    assert "Welcome" not in output.sop_markdown


def test_text_is_split_into_sentences():
    text = "Dr. Who came. See fig. 3 now. It has 3.5 bar, approx. Five is too much! Is No. 5 on? He said no. He left"
    assert sop.split_sentences(text + ".\n\nAt 9 a.m. Monday it ends") == [
        "Dr. Who came.", "See fig. 3 now.", "It has 3.5 bar, approx. Five is too much!", "Is No. 5 on?", "He said no.",
        "He left.", "At 9 a.m. Monday it ends",
    ]  # fmt: skip


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


def test_a_transcript_that_is_too_short_fails_permanently():
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


def test_a_video_that_mux_can_not_process_fails_permanently(mux, folder):
    (folder / "a.mp4").write_bytes(b"not a film")
    with pytest.raises(PermanentJobError, match=r"Mux can't process the video: The input is no film\."):
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})


@pytest.mark.parametrize(("status", "retryable"), [(503, True), (429, True), (403, False)])
def test_mux_errors_are_retried_only_if_a_retry_may_help(mux, folder, status, retryable):
    mux.failures = [status]
    (folder / "a.mp4").write_bytes(b"film")
    with pytest.raises(JobError, match=f"Mux returned status {status}") as failed:
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})
    assert failed.value.retryable is retryable


def test_wrong_credentials_are_permanent(mux, folder, monkeypatch):
    monkeypatch.setenv("MUX_TOKEN_SECRET", "another")
    (folder / "a.mp4").write_bytes(b"film")
    with pytest.raises(PermanentJobError, match="Mux returned status 401"):
        run("mux_upload", {"video_url": (folder / "a.mp4").as_uri()})


def test_an_unknown_engine_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("JOBS_SOP_ENGINE", "magic")
    with pytest.raises(BadSetting, match="JOBS_SOP_ENGINE is 'magic': Input should be 'openai'") as failed:
        run("sop_generation", GIVEN.model_dump())
    assert failure_of(failed.value).kind == "configuration" and not failure_of(failed.value).retryable
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert EngineRules.from_environment({}).transcription_engine == "embedded"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert EngineRules.from_environment({}).transcription_engine == "openai"
