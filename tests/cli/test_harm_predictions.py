"""What predictions and reports are written to: no file is replaced that is not theirs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .cases import call, snapshot, words


class TestPredictions:
    def test_what_is_read_is_never_replaced_whatever_its_name(self, runs, tmp_path):
        shutil.copytree(runs / "predicting", "run")
        shutil.copy(runs / "data.csv", "data.csv")
        os.link("data.csv", "hard.csv")
        os.symlink("data.csv", "soft.csv")
        os.link("run/model.safetensors", "model.csv")
        before = snapshot(".")
        for out in ("hard.csv", "soft.csv", "model.csv", "run/run.json", "./data.csv"):
            for command in (("predict", "run", "data.csv"), ("report", "run")):
                if command[0] == "report" and out.endswith(("hard.csv", "soft.csv", "data.csv")):
                    continue
                result = call(*command, "--out", out, "--force")
                assert result.exit_code == 2, out
                assert "name another place" in words(result.output)
        assert snapshot(".") == before

    @pytest.mark.parametrize("kind", ["FIFO", "device"])
    @pytest.mark.parametrize("command", ["predict", "report"])
    def test_what_is_no_file_is_refused_at_once(self, command, kind, runs):
        out = "/dev/full" if kind == "device" else "fifo"
        if kind == "FIFO":
            os.mkfifo(out)
        data = [runs / "data.csv"] if command == "predict" else []
        result = call(command, runs / "predicting", *data, "--out", out, "--force")
        assert result.exit_code == 2
        assert f"is a {kind}" in words(result.output)

    def test_what_exists_is_replaced_when_it_is_asked_for(self, runs):
        Path("p.csv").write_text("mine")
        command = ("predict", runs / "predicting", runs / "data.csv", "--out", "p.csv")
        refused = call(*command)
        assert refused.exit_code == 2
        assert "--force" in refused.output
        assert Path("p.csv").read_text() == "mine"
        assert call(*command, "--force").exit_code == 0
        assert Path("p.csv").read_text().startswith("row,truth")

    def test_a_full_disk_costs_nothing(self, runs):
        """A limit on the size of files, which the system answers as it does a full disk."""
        Path("p.csv").write_text("mine")
        code = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512));"
            "from bptt.cli import main; main()"
        )
        command = ["predict", runs / "predicting", runs / "data.csv", "--out", "p.csv", "--force"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "p.csv: File too large" in words(done.stderr)
        assert os.listdir() == ["p.csv"]
        assert Path("p.csv").read_text() == "mine"

    def test_a_page_of_ones_own_is_kept(self, runs):
        shutil.copytree(runs / "predicting", "run")
        Path("run/report.html").write_text("<html>mine</html>")
        assert call("report", "run").exit_code == 2
        assert Path("run/report.html").read_text() == "<html>mine</html>"
        os.unlink("run/report.html")
        for _ in range(2):  # its own it replaces
            assert call("report", "run").exit_code == 0
