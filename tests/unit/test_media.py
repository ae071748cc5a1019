"""Pictures, sounds and films are what their first bytes say, in any of the ways to send them, and not too large."""

import base64
import http.server
import io
import struct
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from hfserve.errors import InvalidInput, PayloadTooLarge
from hfserve.settings import Options
from hfserve.tasks import media
from hfserve.tasks.media import read_audio, read_film, read_image, read_two_images
from hfserve.tasks.table import TASKS

USUAL = Options()
PICTURE = base64.b64decode(TASKS["image-classification"].example["inputs"])
FILM = base64.b64decode(TASKS["video-classification"].example["inputs"])
RATE = 16_000
NOTE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def sound(kind, codec, *, rate=RATE, channels=1, seconds=1.0, **options):
    """A note in a file of a kind, written by FFmpeg's libraries."""
    file = io.BytesIO()
    note = NOTE if rate == RATE else 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples = np.resize(note, int(rate * seconds)).astype(np.float32)
    with av.open(file, "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if channels == 1 else "stereo")
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.format.name, stream.layout.name, rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(np.repeat(samples[None], channels, 0), "fltp", stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for each in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(each))
    return file.getvalue()


def heard(samples, rate=RATE):
    """The loudest frequency."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


KINDS = [
    ("flac", "flac", RATE), ("mp3", "libmp3lame", RATE), ("ogg", "libopus", 48_000), ("ogg", "flac", 44_100),
    ("mp4", "aac", 44_100), ("ipod", "aac", 22_050), ("webm", "libopus", 48_000), ("aiff", "pcm_s16be", RATE),
    ("matroska", "flac", RATE), ("adts", "aac", RATE), ("wav", "pcm_mulaw", 8_000), ("wav", "adpcm_ima_wav", RATE),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "codec", "rate"), KINDS)
def test_every_usual_kind_of_sound_is_read(kind, codec, rate):
    samples = read_audio(sound(kind, codec, rate=rate), "inputs", RATE, USUAL)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - RATE) < 0.15 * RATE
    assert abs(heard(samples) - 440) < 3 and 0.45 < np.percentile(np.abs(samples), 95) < 0.55


def test_a_lossless_sound_comes_back_as_it_was():
    assert np.abs(read_audio(sound("flac", "flac"), "inputs", RATE, USUAL) - NOTE).max() < 1e-3


def test_two_channels_become_one():
    samples = read_audio(sound("flac", "flac", channels=2), "inputs", RATE, USUAL)
    assert len(samples) == RATE and np.abs(samples - NOTE).max() < 1e-3


def test_a_sound_in_a_header_of_mp3_tags_is_read():
    plain = sound("mp3", "libmp3lame", write_id3v2="0", id3v2_version="0", write_xing="0")
    assert plain[:3] != b"ID3" and len(read_audio(plain, "inputs", RATE, USUAL)) > RATE // 2
    assert sound("mp3", "libmp3lame")[:3] == b"ID3"


def test_a_broken_piece_of_a_sound_is_passed_over():
    whole = bytearray(sound("mp3", "libmp3lame", seconds=4.0))
    middle = len(whole) // 2
    whole[middle : middle + 1000] = b"\xaa" * 1000
    assert len(read_audio(bytes(whole), "inputs", RATE, USUAL)) > 3 * RATE


@pytest.mark.parametrize(
    "content",
    [
        b"", b"text", b"#EXTM3U\nhttp://127.0.0.1/\n", b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\r\nc=IN IP4 127.0.0.1", b"\xff", b"\xff\xfb", b"\xff\xf1" + bytes(20), b"fLaC", b"OggS" + bytes(100),
        b"ID3" + bytes(50), b"....ftypM4A ",
        b"\x1a\x45\xdf\xa3#EXTM3U\n/etc/passwd", b"FORM....AIFF", PICTURE,
    ],
)  # fmt: skip
def test_what_is_no_sound_is_refused(content):
    with pytest.raises(InvalidInput, match=r"^inputs\.audio "):
        read_audio(content, "inputs.audio", RATE, USUAL)


def test_a_film_without_sound_has_none_to_read():
    with pytest.raises(InvalidInput, match="inputs holds no sound"):
        read_audio(film("mp4", "mpeg4"), "inputs", RATE, USUAL)


@pytest.mark.parametrize("kind", ["wav", "flac", "samples"])
def test_a_sound_that_is_too_long_is_too_large(kind):
    short = Options(max_audio_s=0.5)
    given = {
        "wav": lambda: sound("wav", "pcm_s16le"),
        "flac": lambda: sound("flac", "flac"),
        "samples": lambda: {"array": NOTE.tolist(), "sampling_rate": RATE},
    }[kind]()
    with pytest.raises(PayloadTooLarge, match=r"inputs is longer than the 0.5 seconds .*HFSERVE_MAX_AUDIO"):
        read_audio(given, "inputs", RATE, short)
    assert len(read_audio(given, "inputs", RATE, Options(max_audio_s=1.1))) == RATE


def test_decoding_ends_as_soon_as_a_sound_is_too_long(monkeypatch):
    decoded = []
    frames = media._frames
    monkeypatch.setattr(media, "_frames", lambda container: (decoded.append(f) or f for f in frames(container)))
    with pytest.raises(PayloadTooLarge):
        read_audio(sound("flac", "flac", seconds=60.0), "inputs", RATE, Options(max_audio_s=1))
    assert 0 < len(decoded) < 20


def test_decoding_does_not_take_for_ever(monkeypatch):
    monkeypatch.setattr(media, "SECONDS_TO_DECODE", 0)
    with pytest.raises(PayloadTooLarge, match="took more than 0 seconds to decode"):
        read_audio(sound("flac", "flac"), "inputs", RATE, USUAL)


# Ways to send

ENCODED = base64.b64encode(PICTURE).decode()
FORMS = [
    PICTURE, bytearray(PICTURE), ENCODED, f"  {ENCODED}\n", base64.encodebytes(PICTURE).decode(), ENCODED.rstrip("="),
    base64.urlsafe_b64encode(PICTURE).decode(), base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
    f"data:image/png;base64,{ENCODED}", f"DATA:;BASE64,{ENCODED}", f"data:image/png;charset=utf-8;base64,{ENCODED}",
    "data:image/png," + "".join(f"%{byte:02x}" for byte in PICTURE),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_comes_in_many_ways(form):
    expected = np.asarray(Image.open(io.BytesIO(PICTURE)))
    assert np.array_equal(np.asarray(read_image(form, "inputs", USUAL)), expected)


def test_a_picture_comes_as_an_array_or_decoded():
    picture = Image.open(io.BytesIO(PICTURE))
    assert read_image(picture, "inputs", USUAL) is picture
    assert read_image(np.asarray(picture), "inputs", USUAL).size == picture.size


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("*", "not an image in base64; paths are not opened"),
        ("/etc/passwd", "not an image of a kind"),
        ("abcde", "not an image in base64"),
        ("data:image/png;base64,*", "not an image in base64"),
        ("data:text/plain,hello", "not an image of a kind"),
        ("http://127.0.0.1/cat.png", "this server fetches none"),
        ("HTTPS://example.com/cat.png", "this server fetches none"),
        (7, "is a number; it has to be an image in base64"),
        ({"url": "http://127.0.0.1"}, "is an object"),
        (np.zeros((2, 2)), "is a ndarray"),
    ],
)
def test_what_is_no_picture_is_told(form, words):
    with pytest.raises(InvalidInput, match=r"^inputs\[1\]") as caught:
        read_two_images([PICTURE, form], "inputs", USUAL)
    assert words in str(caught.value)


@pytest.mark.parametrize("form", [PICTURE, np.zeros((32, 32, 3), np.uint8), Image.new("L", (32, 32))])
def test_a_picture_of_too_many_pixels_is_too_large(form):
    with pytest.raises(
        PayloadTooLarge, match=r"^inputs: .* 32 × 32 pixels; this server takes 1000 \(HFSERVE_MAX_PIXELS"
    ):
        read_image(form, "inputs", Options(max_pixels=1000))
    assert read_image(form, "inputs", Options(max_pixels=1024)).size == (32, 32)


def test_a_picture_is_fetched_where_that_is_allowed():
    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.handle_request, daemon=True).start()
        place = f"127.0.0.1:{site.server_port}"
        assert read_image(f"http://{place}/cat.png", "inputs", Options(allow_urls=place)).size == (32, 32)
    with pytest.raises(InvalidInput, match=r"inputs: 127\.0\.0\.1 is not a public address"):
        read_image(f"http://{place}/cat.png", "inputs", Options(allow_urls="1"))


# Films


def film(kind, codec, *, side=32):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = {"gif": "rgb8"}.get(codec, "yuv420p")
        for shade in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 20 * shade, np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("mp4", "mpeg4"), ("mov", "mpeg4"), ("matroska", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4"), ("gif", "gif"),
        ("mpeg", "mpeg1video"), ("mpeg1video", "mpeg1video"), ("yuv4mpegpipe", "wrapped_avframe"),
    ],
)  # fmt: skip
def test_every_usual_kind_of_film_is_taken(kind, codec):
    content = FILM if kind == "yuv4mpegpipe" else film(kind, codec)
    assert read_film(base64.b64encode(content).decode(), "inputs", USUAL) == content


MANIFEST = b"<MPD profiles='urn:mpeg:dash:profile:isoff-on-demand:2011'><BaseURL>http://127.0.0.1/</BaseURL></MPD>"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"#EXTM3U\n/etc/passwd", b"  \n#EXTM3U\n/etc/passwd", b"ffconcat version 1.0\nfile /etc/passwd", MANIFEST,
        b"\x1a\x45\xdf\xa3" + MANIFEST, b"GIF89a" + MANIFEST, b"RIFF....AVI " + MANIFEST, b"....ftyp" + MANIFEST,
        b"....free#EXTM3U\n/etc/passwd", b"v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96",
        b"....skip\nc=IN IP4 127.0.0.1",
        PICTURE, sound("wav", "pcm_s16le"), sound("ipod", "aac"),
    ],
)  # fmt: skip
def test_what_is_no_film_is_refused(content):
    with pytest.raises(InvalidInput, match=r"^inputs "):
        read_film(content, "inputs", USUAL)


def test_a_film_of_too_many_pixels_is_too_large():
    with pytest.raises(
        PayloadTooLarge, match=r"inputs: the video has pictures of 1024 pixels; this server takes 1000 "
    ):
        read_film(film("mp4", "mpeg4"), "inputs", Options(max_pixels=1000))


def test_a_file_that_names_another_opens_nothing():
    with (
        pytest.raises(InvalidInput, match="cannot be read"),
        media._opened(b"#EXTM3U\nfile:///etc/passwd\n", "hls", "inputs"),
    ):
        pytest.fail("it was opened")


# Rates


def test_samples_at_the_rate_of_the_model_are_left_alone():
    assert np.array_equal(read_audio(NOTE, "inputs", RATE, USUAL), NOTE)


def test_wav_of_a_kind_that_nobody_knows_is_refused():
    form = struct.pack("<HHIIHH", 0x9999, 1, 16_000, 16_000, 1, 4)
    broken = b"RIFF....WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 3) + b"abc"
    with pytest.raises(InvalidInput, match="broken, or of a rare kind"):
        read_audio(broken, "inputs", RATE, USUAL)
