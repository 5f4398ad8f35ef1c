"""The command: where it listens, and what it says when it cannot."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner

from asr_kd.cli import main
from asr_kd.errors import UserError
from asr_kd.runtime.folder import write_recogniser
from asr_kd.serve.server import Address


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("a.example", False)],
)
def test_only_loopback_is_this_computer(host, local):
    assert Address(host, 0).is_local == local


def test_a_port_that_is_taken_is_one_sentence():
    with Address("127.0.0.1", 0).open() as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} \(Address already in use\); give another"):
            Address("127.0.0.1", port).open()
    with pytest.raises(UserError, match=r"cannot listen at 256\.1\.1\.1"):
        Address("256.1.1.1", 0).open()


@pytest.mark.parametrize("arguments", [[], ["a", "--model", "b"], ["a", "--config", "c.yaml"]])
def test_there_is_one_recogniser(arguments):
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2 and "name either an exported recogniser" in result.output


def test_without_its_packages_it_names_the_extra(monkeypatch, tmp_path, parts):
    write_recogniser(parts, tmp_path)
    for module in [name for name in sys.modules if name.startswith("asr_kd.serve")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(main, ["serve", str(tmp_path)])
    assert result.exit_code == 2 and "pip install 'asr_kd[serve]'." in result.output


def test_it_prints_its_address_and_ends_by_ctrl_c(tmp_path, parts):
    (tmp_path / "phone").mkdir()
    write_recogniser(parts, tmp_path / "phone")
    program = "from asr_kd.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(tmp_path / "phone"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/info", timeout=60) as answer:
            assert b'"model":"phone"' in answer.read()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in process.stderr.read()
