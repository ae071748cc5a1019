"""`python -m local_test up`, `status`, `logs` and `down`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_up_prints_five_lines_that_a_shell_understands(local):
    own = local()
    lines = own.up()  # again: it is there already
    assert len(lines) == 5 and all(line.startswith("export ") for line in lines)
    script = "\n".join([*lines, "env"])
    told = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout
    variables = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    assert variables["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["AWS_ACCESS_KEY_ID"] and variables["AWS_SECRET_ACCESS_KEY"]
    assert "127.0.0.1" in variables["NO_PROXY"].split(",")
    told = Path(variables["SAGEMAKER_USER_CONFIG_OVERRIDE"]).read_text()
    assert "TelemetryOptOut: true" in told and "DefaultS3Bucket: sagemaker-us-east-1-111122223333" in told


def test_the_exported_lines_are_all_that_boto3_needs(local):
    own = local()
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, **own.exported}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "111122223333"


def test_status_tells_what_there_is(local, tmp_path):
    own = local()
    name = own.endpoint()
    model = own.model(Environment={"READY_WHEN": tmp_path / "never"})
    failed = own.create(own.config({"ModelName": model, "ContainerStartupHealthCheckTimeoutInSeconds": 1}))
    own.settled(failed)
    first, *lines = own.run("status").stdout.splitlines()
    assert own.exported["AWS_ENDPOINT_URL"] in first
    told = {line.split()[0]: line for line in lines}
    assert "InService" in told[name] and "AllTraffic×1" in told[name]
    assert "Failed" in told[failed] and "did not pass the ping health check" in told[failed]


def test_logs_are_printed_and_followed(local):
    own = local()
    name = own.endpoint()
    own.invoke(name, {"do": "print", "text": "first words"})
    own.until(lambda: "first words" in own.log(name))
    command = [sys.executable, "-m", "local_test", "logs", name, "-f", "--dir", str(own.directory)]
    follower = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert any("first words" in line for line in iter(follower.stdout.readline, ""))
        own.invoke(name, {"do": "print", "text": "later words"})
        assert "later words" in follower.stdout.readline()
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=30)
    refused = own.run("logs", "nobody", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no log of nobody" in refused.stderr


def test_down_ends_every_container_and_keeps_what_is_in_s3(local):
    own = local()
    address = own.exported["AWS_ENDPOINT_URL"]
    name = own.endpoint(own.config({"ModelName": own.model(), "InitialInstanceCount": 2}))
    pids = {own.invoke(name)["Body"]["pid"] for _ in range(4)}
    own.put("kept", b"x")
    own.run("down")
    assert len(pids) == 2 and all(gone(pid) for pid in pids)
    assert own.run("status", check=False).stdout == "not running\n"
    own.run("down")  # once more is no error
    own.up()
    assert own.exported["AWS_ENDPOINT_URL"] == address
    assert own.s3.get_object(Bucket="sagemaker-us-east-1-111122223333", Key="kept")["Body"].read() == b"x"
    own.run("down", "--purge")
    assert not own.directory.exists()


def test_what_a_killed_process_left_is_ended_by_the_next(local):
    own = local()
    pid = own.invoke(own.endpoint())["Body"]["pid"]
    serving = int(own.run("status").stdout.split("pid ")[1].split()[0])
    os.kill(serving, signal.SIGKILL)
    own.until(lambda: own.run("status", check=False).stdout == "not running\n")
    own.up()
    own.until(lambda: gone(pid))


def test_a_directory_has_one_process(local, tmp_path):
    own = local()
    again = own.run("up", "--foreground", check=False)
    assert again.stdout.splitlines()[0] == f"export AWS_ENDPOINT_URL={own.exported['AWS_ENDPOINT_URL']}"


def test_a_port_that_is_taken_is_told(local, tmp_path):
    own = local()
    port = own.exported["AWS_ENDPOINT_URL"].rpartition(":")[2]
    command = [sys.executable, "-m", "local_test", "up", "--port", port, "--dir", str(tmp_path / "other")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "in use" in refused.stderr


@pytest.mark.parametrize("wrong", ["no-command", "pattern="])
def test_an_image_without_a_command_is_refused(wrong):
    command = [sys.executable, "-m", "local_test", "up", "--image", wrong]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "PATTERN=COMMAND" in refused.stderr


def test_it_needs_the_standard_library_alone(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import local_test.cli, local_test.server; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "['__main__', 'local_test']"
