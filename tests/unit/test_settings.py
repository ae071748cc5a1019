import json
import os

import pytest
from pydantic import ValidationError

from hfserve.errors import SettingsError
from hfserve.settings import MIB, Settings, child_environment, markdown, names, shown, sources

SECRET = "hf_never_to_be_seen"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("HF_", "HFSERVE_", "SAGEMAKER_", "MMS_", "TRANSFORMERS_")) or name in (
            "PORT",
            "AWS_REGION",
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def environment(monkeypatch):
    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


ORDERED = [
    ("model", ["HFSERVE_MODEL", "HF_MODEL_ID"], ["a/b", "c/d"]),
    ("task", ["HF_TASK", "HFSERVE_TASK"], ["text-classification", "fill-mask"]),
    ("token", ["HF_TOKEN", "HF_API_TOKEN"], ["one", "two"]),
    ("hub_offline", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"], ["1", "0"]),
    ("port", ["SAGEMAKER_BIND_TO_PORT", "PORT", "HFSERVE_PORT"], ["81", "82", "83"]),
    ("max_body", ["SAGEMAKER_MAX_REQUEST_SIZE", "MMS_MAX_REQUEST_SIZE", "HFSERVE_MAX_BODY"], ["1", "2", "3"]),
    (
        "workers",
        [
            "SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_NUM_MODEL_WORKERS", "MMS_DEFAULT_WORKERS_PER_MODEL",
            "HFSERVE_WORKERS",
        ],
        ["1", "2", "3", "4"],
    ),
    ("max_batch", ["SAGEMAKER_TS_BATCH_SIZE", "HFSERVE_MAX_BATCH"], ["8", "16"]),
    ("batch_delay_ms", ["SAGEMAKER_TS_MAX_BATCH_DELAY", "HFSERVE_BATCH_DELAY_MS"], ["5", "6"]),
    ("max_queued", ["MMS_JOB_QUEUE_SIZE", "HFSERVE_MAX_QUEUED"], ["10", "20"]),
    ("timeout_s", ["SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "HFSERVE_TIMEOUT"], ["30", "40"]),
    ("startup_timeout_s", ["SAGEMAKER_STARTUP_TIMEOUT", "HFSERVE_STARTUP_TIMEOUT"], ["100", "200"]),
    ("log_level", ["SAGEMAKER_CONTAINER_LOG_LEVEL", "HFSERVE_LOG_LEVEL"], ["10", "40"]),
    ("region", ["SAGEMAKER_REGION", "AWS_REGION"], ["eu-west-1", "us-east-1"]),
]  # fmt: skip


def plain(value):
    value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    return str(int(value)) if isinstance(value, bool | int | float) else value


@pytest.mark.parametrize(("name", "variables", "values"), ORDERED, ids=[row[0] for row in ORDERED])
def test_the_first_variable_that_is_set_wins(name, variables, values, monkeypatch):
    assert set(variables) <= set(names(Settings.model_fields[name]))
    for variable, value in zip(variables, values, strict=True):
        monkeypatch.setenv(variable, value)
    for variable, value in zip(variables, values, strict=True):
        settings = Settings.read()
        assert plain(getattr(settings, name)) == value
        assert sources({})[name] == variable
        monkeypatch.setenv(variable, "")  # set and empty counts as unset
    assert Settings.read() == Settings() and sources({})[name] == "default"


@pytest.mark.parametrize(("name", "variables", "values"), ORDERED, ids=[row[0] for row in ORDERED])
def test_a_flag_wins_over_each_variable(name, variables, values, monkeypatch):
    flag, *_ = values
    for variable, value in zip(reversed(variables), values, strict=True):
        monkeypatch.setenv(variable, value)
        assert plain(getattr(Settings.read(**{name: flag}), name)) == flag
        assert sources({name: flag})[name] in (f"--{name.replace('_', '-')}", "MODEL")


def test_a_flag_that_was_not_given_leaves_the_variable(environment):
    environment(PORT="9000")
    assert Settings.read(port=None).port == 9000
    assert Settings.read(port=0).port == 0


def test_what_sagemaker_and_the_toolkit_set_is_read(environment):
    environment(
        SAGEMAKER_PROGRAM="hooks.py", SAGEMAKER_SUBMIT_DIRECTORY="/x/code", SAGEMAKER_BASE_DIR="/x",
        SAGEMAKER_HANDLER="service:handle", SAGEMAKER_MODEL_SERVER_VMARGS="-Xmx1g", SAGEMAKER_MAX_PAYLOAD_IN_MB="100",
        SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv", HF_MODEL_REVISION="main", HF_TRUST_REMOTE_CODE="true",
        SAGEMAKER_REGION="eu-west-1",
    )  # fmt: skip
    settings = Settings.read()
    assert (settings.program, settings.submit_directory, settings.handler) == ("hooks.py", "/x/code", "service:handle")
    assert str(settings.model_dir) == "/x/model" and settings.vmargs == "-Xmx1g"
    assert settings.default_accept == "text/csv" and settings.revision == "main" and settings.trust_remote_code
    assert settings.body_limit == 100 * MIB and settings.on_sagemaker


def test_without_anything_set_the_defaults_are_those_of_the_contract():
    settings = Settings.read()
    assert (settings.port, settings.program, settings.timeout) == (8080, "inference.py", 60)
    assert settings.body_limit == 25 * MIB and settings.default_accept == "application/json"
    assert not settings.trust_remote_code and not settings.allow_pickle and not settings.on_sagemaker


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 60),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}, 120),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "0.5"}, 30),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "90"}, 90),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": ""}, 120),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "2", "HFSERVE_TIMEOUT": "7"}, 7),
    ],
    ids=str,
)
def test_the_old_timeout_is_in_minutes_and_the_seconds_win(variables, seconds, environment):
    environment(**variables)
    assert Settings.read().timeout == seconds


@pytest.mark.parametrize(("payload", "limit"), [("0", 25 * MIB), ("6", 25 * MIB), ("100", 100 * MIB)])
def test_batch_transform_may_raise_the_limit_of_a_body_and_never_lowers_it(payload, limit, environment):
    environment(SAGEMAKER_MAX_PAYLOAD_IN_MB=payload)
    assert Settings.read().body_limit == limit


def test_any_setting_of_mms_is_handed_on_unless_it_is_ours(environment):
    environment(
        MMS_NETTY_CLIENT_THREADS="4", MMS_PREFER_DIRECT_BUFFER="true", MMS_EMPTY="",
        MMS_INFERENCE_ADDRESS="http://0.0.0.0:1", MMS_MANAGEMENT_ADDRESS="http://0.0.0.0:2", MMS_MODEL_STORE="/x",
        MMS_LOAD_MODELS="all", MMS_DECODE_INPUT_REQUEST="true",
        MMS_JOB_QUEUE_SIZE="9", MMS_DEFAULT_WORKERS_PER_MODEL="2", MMS_MAX_REQUEST_SIZE="7",
    )  # fmt: skip
    settings = Settings.read()
    assert settings.mms == {"netty_client_threads": "4", "prefer_direct_buffer": "true"}
    assert (settings.max_queued, settings.workers, settings.max_body) == (9, 2, 7)
    assert sources({})["mms"] == "MMS_*"


@pytest.mark.parametrize(
    ("variables", "flags", "named"),
    [
        ({"PORT": "http"}, {}, "PORT='http'"),
        ({"SAGEMAKER_BIND_TO_PORT": "", "PORT": "70000"}, {}, "PORT='70000'"),
        ({"HFSERVE_PORT": "-1"}, {}, "HFSERVE_PORT='-1'"),
        ({"SAGEMAKER_TS_BATCH_SIZE": "many", "HFSERVE_MAX_BATCH": "8"}, {}, "SAGEMAKER_TS_BATCH_SIZE='many'"),
        ({"HFSERVE_MAX_BATCH": "0"}, {}, "HFSERVE_MAX_BATCH='0'"),
        ({"SAGEMAKER_NUM_MODEL_WORKERS": "0"}, {}, "SAGEMAKER_NUM_MODEL_WORKERS='0'"),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}, {"workers": 0}, "--workers=0"),
        ({}, {"engine": "tomcat"}, "--engine='tomcat'"),
        ({"HFSERVE_ENGINE": "tomcat"}, {}, "HFSERVE_ENGINE='tomcat'"),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "soon"}, {}, "SAGEMAKER_MODEL_SERVER_TIMEOUT='soon'"),
        ({"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "0"}, {}, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS='0'"),
        ({"HFSERVE_TIMEOUT": "nan"}, {}, "HFSERVE_TIMEOUT='nan'"),
        ({"HFSERVE_TIMEOUT": "inf"}, {}, "HFSERVE_TIMEOUT='inf'"),
        ({"SAGEMAKER_CONTAINER_LOG_LEVEL": "loud"}, {}, "SAGEMAKER_CONTAINER_LOG_LEVEL='loud'"),
        ({"HF_TRUST_REMOTE_CODE": "perhaps"}, {}, "HF_TRUST_REMOTE_CODE='perhaps'"),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_told_by_the_name_it_came_by(variables, flags, named, environment):
    environment(HF_TOKEN=SECRET, **variables)
    with pytest.raises(SettingsError) as told:
        Settings.read(**flags)
    assert str(told.value).startswith(f"{named}: ") and len(str(told.value)) > len(named) + 10
    assert SECRET not in str(told.value)


def test_all_mistakes_are_told_at_once(environment):
    environment(PORT="http", HFSERVE_MAX_BATCH="0")
    with pytest.raises(SettingsError, match=r"PORT='http': .*; HFSERVE_MAX_BATCH='0': "):
        Settings.read()


@pytest.mark.parametrize(
    ("level", "number"),
    [("10", 10), ("35", 35), ("DEBUG", 10), ("info", 20), ("Warning", 30), ("error", 40), ("CRITICAL", 50), ("", 20)],
)
def test_a_log_level_is_a_number_or_a_name(level, number, environment):
    environment(SAGEMAKER_CONTAINER_LOG_LEVEL=level)
    assert Settings.read().log_level == number


def test_the_workers_read_the_settings_that_were_saved_and_the_token_from_the_environment(environment, tmp_path):
    environment(
        HF_TOKEN=SECRET, HFSERVE_MAX_BATCH="8", MMS_NETTY_CLIENT_THREADS="4", SAGEMAKER_MODEL_SERVER_TIMEOUT="2",
        SAGEMAKER_CONTAINER_LOG_LEVEL="debug", SAGEMAKER_BASE_DIR="/x y",
    )  # fmt: skip
    settings = Settings.read(port=0, model="a/ö")
    settings.save(tmp_path, workers=3)
    assert SECRET not in (tmp_path / "settings.json").read_text()
    assert Settings.load(tmp_path) == settings.model_copy(update={"run_dir": tmp_path, "workers": 3})
    environment(HF_TOKEN="", HFSERVE_MAX_BATCH="16", HFSERVE_LANES="3", PORT="9", MMS_NETTY_CLIENT_THREADS="5")
    loaded = Settings.load(tmp_path)
    assert loaded.token is None
    assert (loaded.max_batch, loaded.lanes, loaded.port, loaded.model) == (8, None, 0, "a/ö")
    assert loaded.timeout == 120 and loaded.mms == {"netty_client_threads": "4"}


def test_the_token_is_never_shown(environment, tmp_path):
    environment(HF_TOKEN=SECRET)
    settings = Settings.read()
    settings.save(tmp_path)
    told = [repr(settings), str(settings), settings.model_dump_json(), json.dumps(shown(settings)), str(sources({}))]
    told.append((tmp_path / "settings.json").read_text())
    assert not any(SECRET in text for text in told)
    assert settings.token.get_secret_value() == SECRET


def test_every_setting_can_be_shown_and_has_a_source(environment):
    environment(HFSERVE_LANES="2")
    settings = Settings.read(port=1)
    assert set(shown(settings)) == set(sources({})) == set(Settings.model_fields)
    assert all(isinstance(text, str) for text in shown(settings).values())
    assert shown(settings)["lanes"] == "2" and shown(settings)["workers"] == ""
    found = sources({"port": 1, "workers": None})
    assert (found["port"], found["lanes"], found["workers"]) == ("--port", "HFSERVE_LANES", "default")
    assert sources({"model": "a/b"}, {})["model"] == "MODEL"
    assert sources({}, {"PORT": "1"})["port"] == "PORT"


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Settings.read().port = 1


def test_a_child_gets_this_environment_changed(environment):
    environment(HFSERVE_LANES="2", HFSERVE_WORKERS="3")
    child = child_environment(HFSERVE_LANES="4", NEW="1")
    assert (child["HFSERVE_LANES"], child["HFSERVE_WORKERS"], child["NEW"]) == ("4", "3", "1")
    assert "NEW" not in os.environ and os.environ["HFSERVE_LANES"] == "2"


def test_the_page_about_settings_lists_every_one_of_them():
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(Settings.model_fields)
    for row, (name, field) in zip(rows, Settings.model_fields.items(), strict=True):
        assert row.startswith(f"| `{name}` | ") and field.description.rstrip(".") in row.replace("\\|", "|")
        assert all(f"`{variable}`" in row for variable in names(field))
        assert row.replace("\\|", "").count("|") == 5


def test_the_page_about_settings_says_the_same_on_every_machine(environment):
    before = markdown()
    environment(HFSERVE_LANES="2", MMS_X="y", HF_TOKEN=SECRET)
    assert markdown() == before
