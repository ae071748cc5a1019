import base64
import csv
import io
import json
import math
import pickle
import struct
import wave
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hfserve import codecs
from hfserve.codecs import Records, Sound, parameters
from hfserve.codecs.media import CHARSETS
from hfserve.codecs.multipart import MAX_PARTS
from hfserve.codecs.records import MAX_UNREADABLE
from hfserve.codecs.table import CODECS
from hfserve.errors import (
    BadRequest,
    ModelError,
    NotAcceptable,
    PayloadTooLarge,
    ServeError,
    UnsupportedMediaType,
)

JSON, LINES, CSV, NPY, TEXT = "application/json", "application/jsonlines", "text/csv", "application/x-npy", "text/plain"
PNG, JPEG, WAV = "image/png", "image/jpeg", "audio/wav"
FORM = "multipart/form-data; boundary=frontier"
CONTENT_TYPES = [name.replace("*", "webp") for codec in CODECS for name in codec.names]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def refused(body: bytes, content_type: str, status: type[ServeError] = BadRequest) -> str:
    with pytest.raises(status) as caught:
        codecs.decode(body, content_type)
    assert type(caught.value) is status
    return str(caught.value)


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\x00" * (height * (width * 3 + 1))) if width * height < 1e6 else zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


PICTURE = Image.new("L", (2, 1), 200)
SOUND = Sound(np.array([0, 0.5, -1], np.float32), 8000)

# Content types


@pytest.mark.parametrize(
    ("header", "essence", "charset"),
    [
        ("Application/JSON; Charset=UTF-8", "application/json", "utf-8"),
        ('text/csv;charset="latin1"', "text/csv", "latin1"),
        ("text/plain ; format=flowed; charset = utf-16 ", "text/plain", "utf-16"),
        ("text/plain", "text/plain", "utf-8"),
        ("", "", "utf-8"),
    ],
)
def test_a_content_type_has_an_essence_and_a_charset(header, essence, charset):
    assert (codecs.essence(header), codecs.charset(header)) == (essence, charset)


def test_a_charset_can_have_another_default():
    assert codecs.charset("text/plain", "latin1") == "latin1"


def test_an_unknown_type_is_told_what_is_read():
    assert "application/json, application/jsonlines" in refused(b"x", "application/pdf", UnsupportedMediaType)


@pytest.mark.parametrize("charset", ["idna", "unicode_escape", "hex", "no-such", "\0"])
def test_an_odd_charset_is_refused(charset):
    assert "utf-8" in refused(b"x", f"text/plain; charset=x{charset}", UnsupportedMediaType)


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_every_listed_charset_is_pythons(charset):
    assert codecs.decode("inputs".encode(charset), f"text/plain; charset={charset}") == {"inputs": "inputs"}


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_body_is_told_what_to_send(content_type, body):
    assert '{"inputs"' in refused(body, content_type)


# JSON


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/vnd.api+json", ""]
)
def test_json_is_read_under_its_names(content_type):
    assert codecs.decode(b'{"inputs": "\xc3\xa9"}', content_type) == {"inputs": "é"}


@pytest.mark.parametrize("charset", ["latin1", "utf-16", "windows-1252"])
def test_json_in_another_charset(charset):
    assert codecs.decode('["é"]'.encode(charset), f"{JSON}; charset={charset}") == ["é"]


def test_a_byte_order_mark_is_no_part_of_the_body():
    assert codecs.decode(b"\xef\xbb\xbf[1]", JSON) == [1]
    assert codecs.decode(b"\xef\xbb\xbf[1]\n[2]", JSON) == [[1], [2]]
    assert codecs.decode(b"\xef\xbb\xbfinputs\na", CSV) == [{"inputs": "a"}]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a" 1}', "line 1 column 6"),
        (b'{\n "a": tru}', "line 2 column 7"),
        (b'{"inputs": "a"', "line 1 column 15"),
        (b'{"inputs": "one\nline"}', "line 1 column 16"),
        (b'[\n{"a": 1},\n{"a": 2}\n{"a": 3}\n]', "line 4 column 1"),
    ],
)
def test_broken_json_is_told_where(body, place):
    message = refused(body, JSON)
    assert message.startswith("the body is not valid JSON: ") and message.endswith(place)


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b'{"a": -Infinity}', b"1e999", b"1" * 5000, b'"\\ud800"'])
def test_what_is_no_json_value_is_refused(body):
    refused(body, JSON)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_deep_nesting_is_refused(body):
    refused(body, JSON)


def test_what_is_not_utf8_is_told_so():
    assert refused(b'"abc\xff"', JSON) == "the body is not valid utf-8: invalid start byte at byte 4"


@given(json_values)
def test_json_makes_the_round_trip(value):
    assert codecs.decode(codecs.encode(value, JSON), JSON) == value


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"score": np.float32(0.5), "label": np.str_("a")}, b'{"score":0.5,"label":"a"}'),
        (np.zeros((2, 2)).T, b"[[0.0,0.0],[0.0,0.0]]"),
        (np.array([1, 2], ">i4"), b"[1,2]"),
        (np.array("a"), b'"a"'),
        ([math.nan, math.inf, np.float32("nan"), np.array([math.nan])], b"[null,null,null,[null]]"),
        ((1, {2}), b"[1,[2]]"),
        (2**70, b"1180591620717411303424"),
        ({1: "a"}, b'{"1":"a"}'),
        ("\ud800", b'"\\ud800"'),
    ],
)
def test_what_models_return_can_be_given_as_json(result, body):
    assert codecs.encode(result, "application/json; charset=utf-8") == body


def circle() -> list:
    ring: list = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("result", [object(), b"bytes", [1j], np.complex64(1), circle(), {2**70: math.nan}, {(1,): 2}])
def test_what_json_cannot_hold_is_the_models_fault(result):
    with pytest.raises(ModelError, match="cannot be given as JSON"):
        codecs.encode(result, JSON)


# JSON Lines


@pytest.mark.parametrize("content_type", [LINES, "application/x-ndjson", "application/jsonl", "application/json-lines"])
def test_lines_are_records(content_type):
    got = codecs.decode(b'{"inputs": "a"}\r\n\n{"inputs": "b"}', content_type)
    assert isinstance(got, Records) and got == [{"inputs": "a"}, {"inputs": "b"}]


def test_one_bad_line_fails_alone():
    good, bad, last = codecs.decode(b'["a"]\n\n["b\n["c\xc3\xa9"]\n', LINES)
    assert (good, last) == (["a"], ["cé"])
    assert isinstance(bad, BadRequest) and str(bad).startswith("line 3 is not valid JSON: ")


def test_a_separator_of_unicode_does_not_end_a_line():
    assert codecs.decode('["a\u2028b"]\n'.encode(), LINES) == [["a\u2028b"]]


def test_lines_labelled_json_are_records():
    got = codecs.decode(b'{"inputs": "a"}\n{"inputs": "b"}\n', JSON)
    assert isinstance(got, Records) and got == [{"inputs": "a"}, {"inputs": "b"}]


@pytest.mark.parametrize("body", [b'{"inputs": \n{"inputs": "b"}', b'{"inputs": "b"}\n{"inputs": '])
def test_a_bad_line_labelled_json_fails_alone(body):
    got = codecs.decode(body, JSON)
    assert {"inputs": "b"} in got and sum(isinstance(each, BadRequest) for each in got) == 1


def test_one_value_labelled_json_is_no_records():
    assert not isinstance(codecs.decode(b'{\n"inputs": "a"\n}\n', JSON), Records)


def test_a_body_of_nothing_but_bad_lines_is_refused_whole():
    assert f"more than {MAX_UNREADABLE}" in refused(b"x\n" * (MAX_UNREADABLE + 1), LINES)


@given(st.lists(json_values, min_size=1))
def test_lines_make_the_round_trip(values):
    assert codecs.decode(codecs.encode(values, LINES), LINES) == values


def test_every_line_of_an_answer_ends():
    assert codecs.encode([{"a": 1}, [2]], LINES) == b'{"a":1}\n[2]\n'
    assert codecs.encode({"a": 1}, "application/x-ndjson") == b'{"a":1}\n'


# Forms


def form(*parts):
    """A body of (name, content, filename, type) parts."""
    lines = []
    for name, content, *more in parts:
        filename, kind = [*more, None, None][:2]
        head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
        lines += [b"--frontier", (head + (f"\r\nContent-Type: {kind}" if kind else "")).encode(), b""]
        lines.append(content if isinstance(content, bytes) else content.encode())
    return b"\r\n".join([*lines, b"--frontier--", b""])


def read(*parts):
    return codecs.decode(form(*parts), FORM)


CAT = png(3, 2)


@pytest.mark.parametrize("name", ["inputs", "file", "image", "picture"])
@pytest.mark.parametrize("kind", [("cat.png", PNG), ("cat.png", None), ("cat.png", "application/octet-stream")])
def test_the_only_file_is_the_input(name, kind):
    got = read((name, CAT, *kind), ("top_k", "2"), ("function_to_apply", "none"), ("candidate_labels", '["a", "b"]'))
    assert got.pop("inputs").size == (3, 2)
    assert got == {"parameters": {"top_k": 2, "function_to_apply": "none", "candidate_labels": ["a", "b"]}}


@pytest.mark.parametrize(
    ("filename", "kind", "content", "value"),
    [
        ("a.wav", "audio/wav", b"RIFF\r\n--\0", b"RIFF\r\n--\0"),
        ("film", "video/mp4", b"\0\0\0\x18", b"\0\0\0\x18"),
        ("blob", None, b"\0\xff", b"\0\xff"),
        ("a.txt", None, "né".encode(), "né"),
        ("a.txt", "text/plain; charset=latin1", "né".encode("latin1"), "né"),
        ("a.json", None, b'{"question": "a", "context": "b"}', {"question": "a", "context": "b"}),
    ],
)
def test_a_file_is_read_by_its_type(filename, kind, content, value):
    assert read(("inputs", content, filename, kind)) == {"inputs": value}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("I like it", "I like it"),
        ("42", "42"),
        ("[MASK] is here", "[MASK] is here"),
        ('["a", "b"]', ["a", "b"]),
        ('{"query": "a", "table": {}}', {"query": "a", "table": {}}),
    ],
)
def test_an_input_may_be_a_field(content, value):
    got = read(("inputs", content), ("parameters", '{"top_k": 1, "a": "b"}'), ("top_k", "null"))
    assert got == {"inputs": value, "parameters": {"top_k": None, "a": "b"}}
    assert read(("text", content)) == {"inputs": value}


@pytest.mark.parametrize("name", ["image", "file", "inputs"])
def test_a_picture_and_a_question_are_an_object(name):
    got = read((name, CAT, "cat.png"), ("question", "42"), ("word_boxes", "[]"), ("top_k", "1"))
    assert got["inputs"].pop("image").size == (3, 2)
    assert got == {"inputs": {"question": "42", "word_boxes": []}, "parameters": {"top_k": 1}}


def test_fields_of_a_question_are_an_object():
    assert read(("question", "who?"), ("context", "me")) == {"inputs": {"question": "who?", "context": "me"}}
    assert read(("question", "who?")) == {"inputs": {"question": "who?"}}
    got = read(("inputs", '{"text": "a"}'), ("image", CAT, "cat.png"))["inputs"]
    assert got["text"] == "a" and got["image"].size == (3, 2)


def test_a_part_that_comes_again_is_a_list():
    got = read(("images", CAT, "a.png"), ("images", CAT, "b.png"), ("labels", "a"), ("labels", "1"), ("labels", "c"))
    assert [image.size for image in got["inputs"]] == [(3, 2)] * 2
    assert got["parameters"] == {"labels": ["a", 1, "c"]}


def test_names_are_utf8():
    assert read(("inputs", "a"), ("größe", "1"))["parameters"] == {"größe": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(), "the form has no parts"),
        (form(("top_k", "1")), "the form has no input"),
        (form(("inputs", "a"), ("parameters", "[1]")), "part parameters has to be a JSON object"),
        (form(("inputs", "a"), ("parameters", "{")), "part parameters has to be a JSON object"),
        (form(("inputs", b"\xff")), "part inputs: the body is not valid utf-8"),
        (form(("inputs", "{", "a.json")), "part inputs: the body is not valid JSON"),
        (form(("image", b"no image", "cat.png")), "part image: this is not an image"),
        (form(("inputs", "a"), ("question", "b")), "several inputs (inputs, question)"),
        (form(("image", CAT, "a.png"), ("file", CAT, "b.png")), "several inputs (image, file)"),
        (form(("inputs", "a"))[:-5], "does not end with the boundary --frontier--"),
        (form(("inputs", "a"))[:30], "does not end with the boundary"),
        (b"no form at all", "the form is broken"),
        (b"--frontier\r\nContent-Type: text/plain\r\n\r\na\r\n--frontier--\r\n", "a part without a name"),
        (b"--frontier\r\n" + b"A: b\r\n" * 99 + b"\r\na\r\n--frontier--\r\n", "the form is broken"),
        (form(*[("inputs", "a")] * (MAX_PARTS + 1)), f"more than {MAX_PARTS} parts"),
        (form(("inputs", "x", "a.txt", "text/plain; charset=idna")), "charset idna"),
    ],
)
def test_a_broken_form_is_told_what_is_wrong(body, words):
    with pytest.raises((BadRequest, UnsupportedMediaType)) as caught:
        codecs.decode(body, FORM)
    assert words in str(caught.value)


@pytest.mark.parametrize("boundary", ["", "; boundary", "; boundary=", '; boundary=""', f"; boundary={'x' * 5000}"])
def test_a_form_needs_a_boundary(boundary):
    refused(form(("inputs", "a")), f"multipart/form-data{boundary}")


@pytest.mark.parametrize(
    "header", ['Multipart/Form-Data; Boundary="frontier"', f"{FORM}; charset=utf-8", f"{FORM} ; a=b"]
)
def test_a_boundary_may_be_quoted(header):
    assert codecs.decode(form(("inputs", "a")), header) == {"inputs": "a"}


def test_a_picture_in_a_form_is_bounded_too():
    with pytest.raises(PayloadTooLarge, match=r"part image: .*this server takes 5 "):
        codecs.decode(form(("image", CAT, "cat.png")), FORM, max_pixels=5)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_form_is_read_or_refused(data):
    body = bytearray(form(("image", CAT, "cat.png"), ("parameters", '{"a": 1}'), ("question", "a")))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=4)):
        body[place] = data.draw(st.integers(0, 255))
    try:
        codecs.decode(bytes(body), FORM)
    except ServeError as error:
        assert error.status in {400, 413, 415}


# Parameters beside the body


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {}),
        ("top_k=2&function_to_apply=none", {"top_k": 2, "function_to_apply": "none"}),
        ("a=true&b=null&c=1.5&d=%5B1%5D&e=%22x%22&f=", {"a": True, "b": None, "c": 1.5, "d": [1], "e": "x", "f": ""}),
        ("labels=sky&labels=a+b&labels=%C3%A9", {"labels": ["sky", "a b", "é"]}),
        ("a", {"a": ""}),
    ],
)
def test_parameters_stand_in_the_query(query, found):
    assert parameters.beside(query, {}) == found


def test_parameters_stand_in_a_header_under_those_of_the_query():
    header = {parameters.HEADER: '{"top_k": 1, "label": "é"}'.encode().decode("latin-1")}
    assert parameters.beside("top_k=2", header) == {"top_k": 2, "label": "é"}


@pytest.mark.parametrize("header", ["", "{", "[1]", "top_k=1", "1", '{"a": "\xff"}'])
def test_a_bad_header_is_named(header):
    with pytest.raises(BadRequest, match="the header X-HF-Parameters has to be a JSON object"):
        parameters.beside("", {parameters.HEADER: header})


def test_too_long_a_query_is_refused():
    with pytest.raises(BadRequest, match="query string"):
        parameters.beside("&".join(["a=1"] * 999), {})


@pytest.mark.parametrize(
    ("data", "merged"),
    [
        ("a", {"inputs": "a", "parameters": {"k": 1}}),
        (["a"], {"inputs": ["a"], "parameters": {"k": 1}}),
        (b"a", {"inputs": b"a", "parameters": {"k": 1}}),
        ({"inputs": "a"}, {"inputs": "a", "parameters": {"k": 1}}),
        ({"inputs": "a", "parameters": None}, {"inputs": "a", "parameters": {"k": 1}}),
        ({"inputs": "a", "parameters": {"k": 2, "l": 3}}, {"inputs": "a", "parameters": {"k": 2, "l": 3}}),
        ({"inputs": "a", "parameters": [1]}, {"inputs": "a", "parameters": [1]}),
        ({"question": "a"}, {"inputs": {"question": "a"}, "parameters": {"k": 1}}),
        ({"text": "a", "parameters": {"l": 3}}, {"inputs": {"text": "a"}, "parameters": {"k": 1, "l": 3}}),
        ({}, {"inputs": None, "parameters": {"k": 1}}),
    ],
)
def test_what_the_body_says_wins(data, merged):
    assert parameters.under({"k": 1}, data) == merged
    assert parameters.under({}, data) is data


def test_every_record_gets_the_parameters():
    bad = BadRequest("bad")
    got = parameters.under({"k": 1}, Records(["a", bad, {"inputs": "b", "parameters": {"k": 2}}]))
    assert isinstance(got, Records)
    assert got == [{"inputs": "a", "parameters": {"k": 1}}, bad, {"inputs": "b", "parameters": {"k": 2}}]


# Bodies that do not say what they are


@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b' {"inputs": "a"}', {"inputs": "a"}),
        (b'["a"]', ["a"]),
        (b'"a"', "a"),
        (b'{"inputs": "a"}\n{"inputs": "b"}', [{"inputs": "a"}, {"inputs": "b"}]),
        (b"I like it", {"inputs": "I like it"}),
        (b"[MASK] is here", {"inputs": "[MASK] is here"}),
        (b"first\n5", {"inputs": "first\n5"}),
        (b"42", {"inputs": "42"}),
    ],
)
def test_an_unlabelled_body_is_json_or_text(content_type, body, value):
    assert codecs.decode(body, content_type) == value


def test_unlabelled_json_that_is_broken_is_not_taken_for_text():
    assert "not valid JSON" in refused(b'{"inputs": "a"', "")


def test_unlabelled_bytes_are_refused():
    refused(b"\xff\xd8\xff\xe0", "")


def test_text_is_the_input():
    assert codecs.decode("né".encode("latin1"), "text/plain; charset=ISO-8859-1") == {"inputs": "né"}


# CSV


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"inputs\nI like it\n\n\"so, so\"\n", [{"inputs": "I like it"}, {"inputs": "so, so"}]),
        (b"\nINPUTS\r\na\r\n", [{"inputs": "a"}]),
        (b"question, context\nwho?,me", [{"question": "who?", "context": "me"}]),
        (b'inputs,top_k\n"a\nb",2', [{"inputs": "a\nb", "top_k": "2"}]),
    ],
)  # fmt: skip
def test_csv_rows_are_records(body, records):
    got = codecs.decode(body, CSV)
    assert isinstance(got, Records) and got == records


@pytest.mark.parametrize("body", [b"a\nb", b"1.0,2.0\n3.0,4.0", b"a,a\n1,2", b"a,,b\n1,2,3", b"a," + b"\nb,c"])
def test_csv_without_names_is_refused(body):
    assert "the first line of CSV" in refused(body, CSV)


def test_csv_without_rows_is_refused():
    assert refused(b"inputs\n", CSV) == "the body holds no records"


def test_a_row_of_the_wrong_length_fails_alone():
    first, long, short = codecs.decode(b"question,context\na,b\na,b,c\na\n", CSV)
    assert first == {"question": "a", "context": "b"}
    assert str(long).startswith("line 3 has 3 fields where the first line names 2; put") and isinstance(
        short, BadRequest
    )


@pytest.mark.parametrize("body", [b'inputs\n"a" b\n', b'inputs\n"a', b"inputs\n" + b"a" * 200_000])
def test_broken_csv_is_refused(body):
    assert "is not valid CSV" in refused(body, CSV)


@pytest.mark.parametrize(
    ("result", "rows"),
    [
        ([{"a": "x, y", "b": 0.5}, {"b": np.float32(1), "a": None}], [["a", "b"], ["x, y", "0.5"], ["", "1.0"]]),
        ({"answer": "x\r", "start": 1}, [["answer", "start"], ["x\r", "1"]]),
        ([[1, 2.5], [3, 4]], [["1", "2.5"], ["3", "4"]]),
        (np.array([[1, 2]]), [["1", "2"]]),
        (["a", "b"], [["a"], ["b"]]),
    ],
)  # fmt: skip
def test_flat_answers_can_be_csv(result, rows):
    assert CSV in codecs.offers(result)
    assert list(csv.reader(io.StringIO(codecs.encode(result, CSV).decode(), newline=""))) == rows


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"))


@given(st.lists(st.fixed_dictionaries({"question": texts, "context": texts}), min_size=1))
def test_csv_makes_the_round_trip(records):
    assert codecs.decode(codecs.encode(records, CSV), CSV) == records


# Arrays


@pytest.mark.parametrize(
    "array", [np.eye(3), np.arange(4, dtype=">i2"), np.array(["é", "b"]), np.asfortranarray(np.ones((2, 3)))]
)
def test_plain_arrays_are_read(array):
    got = codecs.decode(npy(array), NPY)
    assert np.array_equal(got, array) and got.flags.writeable


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the pickle ran",)


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps(Bomb()),
        npy(np.array([Bomb()], dtype=object), allow_pickle=True),
        npy(np.zeros(2, dtype=[("a", "i4")])),
        npy(np.array(["2020-01-01"], dtype="M8[D]")),
        b"PK\x03\x04" + b"\0" * 40,
        npy(np.eye(2))[:-1],
        npy(np.eye(2)) + b"x",
        npy_header("(1000000000000,)"),
        npy_header("(-1, -8)") + b"\0" * 64,
        npy_header("(1000000000000, 0)"),
        npy_header("(1000000000000,)", "'<U0'"),
        npy_header("(1,)", "'<U1'") + b"\xff\xff\xff\xff",
        npy_header("(" * 2000),
        b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + b" " * 16,
        b"\x93NUM",
    ],
)
def test_arrays_that_are_not_plain_are_refused(body):
    refused(body, NPY)


@pytest.mark.parametrize("result", [[0.5, 1], [[1, 2], [3, 4]], np.eye(2, dtype="f4"), [np.ones(2), np.zeros(2)]])
def test_numbers_can_be_an_array(result):
    assert NPY in codecs.offers(result)
    assert np.array_equal(np.load(io.BytesIO(codecs.encode(result, NPY)), allow_pickle=False), np.asarray(result))


@pytest.mark.parametrize(
    "result", [[], [[1], [2, 3]], [1, "a"], ["a"], [1, None], np.array(["a"]), 3, {"a": 1}, [10**30, 1]]
)
def test_what_is_not_regular_numbers_is_no_array(result):
    assert NPY not in codecs.offers(result)
    with pytest.raises(NotAcceptable):
        codecs.encode(result, NPY)


# Pictures and sounds


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "x-image"])
def test_images_are_read(kind):
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "png" if kind == "x-image" else kind)
    assert codecs.decode(file.getvalue(), f"image/{kind}").size == (3, 2)


@pytest.mark.parametrize("body", [b"no image", png(20, 20)[:-30], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"])
def test_a_bad_image_is_refused(body):
    assert "image" in refused(body, "image/png")


@pytest.mark.parametrize(("width", "height"), [(9000, 8000), (10_000, 10_000), (40_000, 40_000)])
@pytest.mark.filterwarnings("ignore:Image size")
def test_an_image_that_would_unpack_to_gigabytes_is_too_large(width, height):
    assert "pixels" in refused(png(width, height), "image/png", PayloadTooLarge)


def test_the_pixels_of_an_image_are_bounded_as_the_settings_say():
    assert codecs.decode(png(20, 20), PNG, max_pixels=400).size == (20, 20)
    with pytest.raises(PayloadTooLarge, match=r"20 × 20 pixels; this server takes 399 .HFSERVE_MAX_PIXELS"):
        codecs.decode(png(20, 20), PNG, max_pixels=399)


@pytest.mark.parametrize("content_type", ["audio/x-flac", "audio/wave", "video/mp4", "application/octet-stream"])
def test_sounds_are_left_as_they_are(content_type):
    assert codecs.decode(b"\0\xff", content_type) == b"\0\xff"


# What can be given


@pytest.mark.parametrize(
    ("result", "offers"),
    [
        ([{"label": "a", "score": 0.5}], [JSON, LINES, CSV]),
        ([[{"label": "a", "score": 0.5}]], [JSON, LINES]),
        ([{"generated_text": "a"}], [JSON, LINES, TEXT, CSV]),
        ("a", [JSON, LINES, TEXT]),
        ([[0.5, 1.0]], [JSON, LINES, CSV, NPY]),
        ([[[0.5]]], [JSON, LINES, NPY]),
        ([{"a": 1}, {"b": 2}], [JSON, LINES]),
        ([{}], [JSON, LINES]),
        ([], [JSON, LINES]),
        ([[]], [JSON, LINES]),
        (None, [JSON, LINES]),
        ({"text": "a", "chunks": []}, [JSON, LINES, TEXT]),
        ({"answer": "a", "score": 0.5}, [JSON, LINES, TEXT, CSV]),
        ([{"input_text": "a", "generated_text": "b"}], [JSON, LINES, TEXT, CSV]),
        ({"text": "a", "answer": "b"}, [JSON, LINES, CSV]),
        ([{"generated_text": "a"}, {"generated_text": "b"}], [JSON, LINES, CSV]),
        (PICTURE, [JSON, LINES, PNG, JPEG]),
        ([PICTURE], [JSON, LINES, PNG, JPEG]),
        ({"predicted_depth": [[0.5]], "depth": PICTURE}, [JSON, LINES, PNG, JPEG]),
        ([{"label": "a", "score": None, "mask": PICTURE}] * 2, [JSON, LINES, PNG, JPEG]),
        ({"masks": [PICTURE, PICTURE], "scores": [1.0, 0.5]}, [JSON, LINES, PNG, JPEG]),
        ([PICTURE, PICTURE], [JSON, LINES]),
        ({"a": PICTURE, "b": PICTURE}, [JSON, LINES]),
        ({"masks": []}, [JSON, LINES]),
        (SOUND, [JSON, LINES, WAV]),
        ({"audio": SOUND, "sampling_rate": 8000}, [JSON, LINES, WAV]),
        ([{"audio": SOUND, "sampling_rate": 8000}], [JSON, LINES, WAV]),
        ([SOUND, SOUND], [JSON, LINES]),
    ],
)
def test_a_result_is_offered_in_the_forms_it_fits(result, offers):
    assert codecs.offers(result) == offers


def test_an_answer_that_is_one_text_can_be_given_bare():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "é"}]
    answers = (
        "é",
        {"a": "é"},
        [{"a": "é"}],
        {"text": "é", "chunks": [1]},
        [{"generated_text": chat, "input_text": "a"}],
    )
    assert [codecs.encode(answer, TEXT) for answer in answers] == ["é".encode()] * len(answers)


def shown(answer, content_type):
    return Image.open(io.BytesIO(codecs.encode(answer, content_type)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "CMYK"])
@pytest.mark.parametrize("content_type", [PNG, JPEG])
def test_an_answer_that_is_one_picture_can_be_given_as_one(mode, content_type):
    got = shown({"depth": Image.new(mode, (3, 2))}, content_type)
    assert (got.format, got.size) == (content_type.partition("/")[2].upper(), (3, 2))


def test_masks_can_be_given_as_one_picture_with_a_colour_for_each():
    covers = [[[1, 1, 1, 0]], [[0, 1, 0, 0]]]
    masks = [Image.fromarray(np.array(cover, np.uint8) * 255) for cover in covers]
    answer = [{"label": "a", "score": 0.9, "mask": mask} for mask in masks]
    assert np.asarray(shown(answer, PNG)).tolist() == [[1, 2, 1, 0]]
    assert np.asarray(shown({"masks": masks[::-1], "scores": [0, 0]}, PNG)).tolist() == [[2, 1, 2, 0]]
    colours = shown(answer, PNG).convert("RGB").get_flattened_data()
    assert colours[0] == colours[2] and len(set(colours)) == 3 and colours[3] == (0, 0, 0)
    assert np.asarray(shown(answer[:1], PNG)).tolist() == [[1, 1, 1, 0]]


def test_masks_of_boolean_arrays_and_very_many_segments_are_drawn():
    rows = np.eye(300, dtype=bool)
    picture = shown([{"label": "a", "mask": Image.fromarray(row[None])} for row in rows], PNG)
    assert np.asarray(picture).tolist() == [[*range(1, 256), *range(1, 46)]]


def test_an_answer_that_is_one_sound_can_be_given_as_wav():
    for answer in (SOUND, {"audio": SOUND, "sampling_rate": 8000}, [{"audio": SOUND}]):
        with wave.open(io.BytesIO(codecs.encode(answer, "audio/x-wav"))) as file:
            assert (file.getframerate(), file.getnchannels()) == (8000, 1)
            assert file.readframes(9) == struct.pack("<3h", 0, 16383, -32767)
    stereo = Sound(np.array([[0, 1.0], [-1.0, 2.0]], np.float32), 8000)
    with wave.open(io.BytesIO(codecs.encode(stereo, WAV))) as file:
        assert (file.getnchannels(), file.readframes(9)) == (2, struct.pack("<4h", 0, -32767, 32767, 32767))


def test_pictures_and_sounds_are_base64_in_json():
    answer = [{"mask": PICTURE, "audio": SOUND}]
    (got,) = json.loads(codecs.encode(answer, JSON))
    assert base64.b64decode(got["mask"]) == codecs.encode(PICTURE, PNG)
    assert base64.b64decode(got["audio"]) == codecs.encode(SOUND, WAV)
    assert json.loads(codecs.encode(answer, LINES)) == got
    assert json.loads(codecs.encode([2**70, PICTURE], JSON)) == [2**70, got["mask"]]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("image/*", PNG),
        ("image/jpg, image/png;q=0.5", "image/jpg"),
        ("image/avif,image/webp,image/*,*/*;q=0.8", PNG),
        ("image/webp, application/json;q=0.1", JSON),
        ("*/*", JSON),
    ],
)
def test_accept_chooses_how_a_picture_is_given(accept, chosen):
    assert codecs.form({"depth": PICTURE}, accept, JSON) == chosen


@pytest.mark.parametrize(
    ("accept", "answer"),
    [("image/png", {"a": 1}), ("image/webp", PICTURE), ("audio/*", PICTURE), ("audio/mpeg", SOUND)],
)
def test_a_medium_that_an_answer_is_not_is_refused_with_what_it_is(accept, answer):
    with pytest.raises(NotAcceptable, match="this answer is given as application/json, application/jsonlines"):
        codecs.form(answer, accept, JSON)


@pytest.mark.parametrize(
    ("result", "content_type"),
    [([[1], [2, 3]], CSV), ([1, 2], TEXT), ([1], "image/png"), ([1], "a/b"), ([1], "")],
)
def test_a_form_that_does_not_fit_is_not_acceptable(result, content_type):
    with pytest.raises(NotAcceptable):
        codecs.encode(result, content_type)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec.encode])
def test_an_alias_is_encoded_as_its_codec(codec):
    result = next(r for r in ([[1.0]], "a", PICTURE, SOUND) if codec.fits(r))
    assert len({codecs.encode(result, name) for name in codec.names}) == 1


@given(json_values)
def test_what_is_offered_can_be_encoded(result):
    for content_type in codecs.offers(result):
        assert isinstance(codecs.encode(result, content_type), bytes)


# Accept

ALL = [JSON, LINES, TEXT, CSV, NPY]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("*", JSON),
        ("application/json", JSON),
        ("Application/JSON", JSON),
        ("application/json;q=0.9", JSON),
        ("application/json, text/plain", JSON),
        ("application/json, text/plain, */*", JSON),
        ("text/plain, application/json", JSON),
        ("text/csv;q=0.9, application/json;q=0.1", CSV),
        ("text/csv, */*", CSV),
        ("text/csv, */*;q=0.1", CSV),
        ("text/html, */*;q=0.8", JSON),
        ("text/*", TEXT),
        ("text/*, text/plain;q=0.1", CSV),
        ("application/json;q=0, */*", LINES),
        ("application/json;version=1;q=0.5, text/csv;q=.6", CSV),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/jsonl;q=0.5, application/jsonlines;q=0.1", "application/jsonl"),
        ("application/json-lines, */*;q=0", "application/json-lines"),
        ("json", JSON),
        ("text/csv;q=high, application/x-npy", NPY),
        ("text/csv;q=2, application/x-npy;q=0.001", NPY),
        (",;, /, text/, application/x-npy", NPY),
    ],
)
def test_accept_chooses(accept, chosen):
    assert codecs.negotiate(accept, ALL, JSON) == chosen


@pytest.mark.parametrize(
    ("accept", "default", "chosen"),
    [
        ("", CSV, CSV),
        ("*/*", "text/csv; charset=utf-8", CSV),
        ("text/*", CSV, CSV),
        ("text/html, */*;q=0.8", CSV, CSV),
        ("application/json, text/csv", CSV, JSON),
        ("*/*", "application/x-ndjson", "application/x-ndjson"),
        ("*/*", "image/png", JSON),
        ("text/csv;q=0, */*", CSV, JSON),
    ],
)
def test_the_default_fills_in_where_accept_leaves_the_choice(accept, default, chosen):
    assert codecs.negotiate(accept, ALL, default) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "image/*", "text/html, image/png"])
def test_when_nothing_matches_the_offers_are_named(accept):
    with pytest.raises(NotAcceptable, match=f"{JSON}, {LINES}"):
        codecs.negotiate(accept, [JSON, LINES], JSON)


def test_nothing_offered_is_never_acceptable():
    with pytest.raises(NotAcceptable):
        codecs.negotiate("*/*", [], JSON)


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ("", ""),
        ("*/*", ""),
        ("text/*", ""),
        ("application/json;q=0", ""),
        ("application/json;q=0.9", JSON),
        ("*/*, text/csv", CSV),
        ("text/csv, application/json", CSV),
        ("text/csv;q=0.1, */*", ""),
    ],
)
def test_hooks_are_told_what_accept_likes_best(accept, best):
    assert codecs.preferred(accept) == best


accepts = st.text() | st.lists(
    st.sampled_from([*ALL, "*/*", "text/*", "*", "application/x-ndjson", ";q=0.5", "q=0", ",", ";"])
).map("".join)


@given(accepts, st.lists(st.sampled_from(ALL), unique=True), st.sampled_from(ALL))
def test_any_accept_gets_an_offer_or_not_acceptable(accept, offers, default):
    codecs.preferred(accept)
    try:
        chosen = codecs.negotiate(accept, offers, default)
    except NotAcceptable:
        return
    assert chosen in offers or chosen in accept.lower()


@given(accepts, st.sampled_from(ALL), st.sampled_from([[[0.5]], ["a"], "a", {"a": 1}, [{"a": [1]}], [[[1]]]]))
def test_a_form_is_found_as_if_every_offer_had_been_tried(accept, default, result):
    try:
        wanted = codecs.negotiate(accept, codecs.offers(result), default)
    except NotAcceptable:
        with pytest.raises(NotAcceptable):
            codecs.form(result, accept, default)
    else:
        assert codecs.form(result, accept, default) == wanted


# Whatever comes


@settings(max_examples=150)
@given(st.sampled_from([*CONTENT_TYPES, f"{JSON}; charset=utf-16", f"{CSV}; charset=gb18030"]), st.binary())
@example(NPY, b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'shape': 1}")
def test_any_bytes_are_read_or_refused(content_type, body):
    try:
        codecs.decode(body, content_type)
    except ServeError as error:
        assert error.status in {400, 413, 415}


@settings(max_examples=60)
@given(
    st.sampled_from([npy(np.eye(2)), npy(np.array(["a"])), png(4, 4), b'inputs\n"a"\n', b'{"a": [1]}\n[2]']), st.data()
)
def test_damaged_bodies_are_read_or_refused(whole, data):
    body = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        body[place] = data.draw(st.integers(0, 255))
    for content_type in (NPY, "image/png", CSV, JSON, LINES, ""):
        try:
            codecs.decode(bytes(body), content_type)
        except ServeError as error:
            assert error.status in {400, 413, 415}


@given(st.text(), st.binary())
def test_any_content_type_is_read_or_refused(content_type, body):
    try:
        codecs.decode(body, content_type)
    except ServeError as error:
        json.dumps(str(error))


# Records one by one


def each(body, content_type, *, tables=False):
    found = codecs.records(body, content_type, tables=tables)
    return None if found is None else [record for record, _ in found]


@pytest.mark.parametrize("content_type", [LINES, JSON, "", f"{JSON}; charset=utf-8"])
def test_records_are_read_when_their_turn_comes(content_type):
    found = codecs.records(b'{"inputs": "a"}\n\n{"inputs": "b"}\r\n{broken\n', content_type, tables=False)
    assert next(found) == ({"inputs": "a"}, 16)
    (second, _), (third, _) = found
    assert second == {"inputs": "b"} and isinstance(third, BadRequest) and "line 4" in str(third)


@pytest.mark.parametrize(
    "body",
    [b'{"inputs": "a"}', b'{"inputs": "a"}\n', b'\n{"inputs": "a"}\n\n', b'{\n"inputs": "a"\n}\n', b"[1,\n2]\n", b" "],
)
def test_one_value_is_not_taken_for_records(body):
    assert each(body, JSON) is None


def test_lines_are_known_by_the_first_or_the_last_that_can_be_read():
    assert len(each(b'{"a": 1}\n{broken\n{broken\n\n', JSON)) == 3
    assert len(each(b'{broken\n{"a": 1}\n \n', JSON)) == 2
    assert each(b"{broken\n{broken too\n", JSON) is None


def test_a_table_is_read_line_by_line_with_names_or_without():
    assert each(b"a,b\n", "text/csv") is None
    named = each(b'Inputs\n"a, b"\nc\n', "text/csv", tables=True)
    assert named == [{"inputs": "a, b"}, {"inputs": "c"}]
    pairs = each(b"question,context\nwho,me\nwhere\n", "text/csv", tables=True)
    assert pairs[0] == {"inputs": {"question": "who", "context": "me"}} and "line 3" in str(pairs[1])
    assert each("ä\nö,ü\n".encode("utf-16"), "text/csv; charset=utf-16", tables=True) == [("ä",), ("ö", "ü")]


def test_a_table_that_breaks_in_the_middle_goes_on_after_it():
    found = each(b'a\n"b" c\nd\n', "text/csv", tables=True)
    assert found[0] == ("a",) and found[-1] == ("d",) and isinstance(found[1], BadRequest)
    with pytest.raises(BadRequest, match="not valid utf-8"):
        each(b"a\n\xff\n", "text/csv", tables=True)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"label": "a, b", "score": 0.5}, b'"a, b",0.5\n'),
        ([{"label": "a", "score": 1}], b"a,1\n"),
        ([1.5, 2], b"1.5,2\n"),
        ("text", b"text\n"),
    ],
)
def test_an_answer_is_a_line_of_a_table(answer, line):
    assert codecs.line(answer, "text/csv") == line


def test_an_answer_that_is_no_line_of_a_table_is_told_so():
    with pytest.raises(NotAcceptable, match="application/jsonlines"):
        codecs.line([{"a": 1}, {"a": 2}], "text/csv")
