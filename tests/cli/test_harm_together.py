"""What two processes do to one folder at once, and what a process leaves to those that it forks."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

import bptt
from bptt import _ending
from bptt.diagnostics import _page
from bptt.errors import CheckpointError, OptionError
from bptt.files import Held, Hold
from bptt.forecasting.runs import _report
from bptt.training import Checkpoint

from .cases import COLUMNS, FAST, call, fit, in_fork, words

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
DIAGNOSE = ("diagnose", "run", "data.csv", "--lags", "16", "--anchors", "2", "--parts", "reach")


@needs_fork
class TestForks:
    def test_a_lock_is_not_kept_by_who_was_forked(self, tmp_path):
        hold = Hold(tmp_path)
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        try:
            hold.release()
            Hold(tmp_path).release()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_who_was_forked_does_not_let_it_go(self, tmp_path):
        with Hold(tmp_path) as hold:
            assert in_fork(lambda: hold.release() or 7) == 7
            with pytest.raises(Held):
                Hold(tmp_path)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_helper_that_a_callback_forks_is_ended_by_a_signal(self, number, tmp_path):
        ended = []

        def help(progress):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            time.sleep(0.2)
            os.kill(child, number)
            ended.append(os.waitpid(child, 0)[1])

        network = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1), backend="eager")
        stream = bptt.Stream(torch.randn(40, 1), torch.randn(40, 1), horizon=1)
        before = signal.signal(number, signal.SIG_DFL)
        try:
            bptt.fit(
                network,
                stream,
                epochs=2,
                callbacks=[help],
                progress=False,
                checkpoint=tmp_path / "run",
            )
        finally:
            signal.signal(number, before)
        assert ended == [number, number]

    def test_a_command_that_was_forked_removes_nothing_of_the_first_one(self, monkeypatch):
        monkeypatch.setattr(_ending, "before", [lambda: Path("mine").unlink()])
        Path("mine").touch()
        child = os.fork()
        if child == 0:
            try:
                _ending.end(signal.SIGTERM)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
        assert Path("mine").exists()


class TestDiagnoses:
    def test_one_that_another_writes_at_the_same_time_is_refused(self, table):
        fit("--out", "run")
        Path("run/diagnosis").mkdir()
        with Hold(Path("run/diagnosis")):
            result = call(*DIAGNOSE)
        assert result.exit_code == 1
        assert "another run" in words(result.output)
        assert list(Path("run/diagnosis").iterdir()) == []
        assert call(*DIAGNOSE).exit_code == 0

    @pytest.mark.parametrize("how", ["moved", "removed"])
    def test_a_run_that_goes_meanwhile_is_not_made_again(self, how, table, monkeypatch):
        fit("--out", "run")
        real = _report.diagnose

        def diagnose(*given, **options):
            found = real(*given, **options)
            shutil.move("run", "there") if how == "moved" else shutil.rmtree("run")
            return found

        monkeypatch.setattr(_report, "diagnose", diagnose)
        result = call(*DIAGNOSE)
        assert result.exit_code == 1, result.output
        assert not Path("run").exists()

    @pytest.mark.parametrize("command", ["diagnose", "report"])
    def test_what_cannot_be_written_at_the_end_has_failed(self, command, table, monkeypatch):
        fit("--out", "run")

        def replace(*given):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "replace", replace)
        result = call(*(DIAGNOSE if command == "diagnose" else ("report", "run")))
        assert result.exit_code == 1, result.output

    def test_a_picture_that_cannot_be_read_is_told(self, table, monkeypatch):
        fit("--out", "run")
        real = _page.read_bytes

        def read(path):
            if Path(path).name == "loss.png":
                raise OSError(errno.EIO, "Input/output error", str(path))
            return real(path)

        monkeypatch.setattr(_page, "read_bytes", read)
        result = call("report", "run")
        assert result.exit_code == 1
        assert "loss.png" in words(result.output)
        assert not Path("run/report.html").exists()

    def test_a_page_shows_the_pictures_of_the_run_alone(self, table):
        fit("--out", "run")
        record = json.loads(Path("run/run.json").read_text())
        record["pictures"].remove("loss.png")
        Path("run/run.json").write_text(json.dumps(record))
        assert call("report", "run").exit_code == 0
        page = Path("run/report.html").read_text()
        assert page.count("data:image/png") == 1


class TestStarts:
    def train(self, folder, seed=0, resume=False, epochs=2):
        torch.manual_seed(0)
        network = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1), backend="eager")
        stream = bptt.Stream(torch.randn(40, 1), torch.randn(40, 1), horizon=1)
        return bptt.fit(
            network,
            stream,
            epochs=epochs,
            starts=2,
            seed=seed,
            progress=False,
            checkpoint=Checkpoint(folder),
            resume=resume,
        )

    def test_checkpoints_of_another_start_are_refused(self, tmp_path):
        self.train(tmp_path / "run")
        (tmp_path / "run/start-0").rename(tmp_path / "run/kept")
        (tmp_path / "run/start-1").rename(tmp_path / "run/start-0")
        (tmp_path / "run/kept").rename(tmp_path / "run/start-1")
        with pytest.raises(OptionError, match="start='1 of seed 0'"):
            self.train(tmp_path / "run", resume=True, epochs=3)

    def test_checkpoints_of_another_seed_are_refused(self, tmp_path):
        self.train(tmp_path / "run")
        self.train(tmp_path / "other", seed=1)
        shutil.rmtree(tmp_path / "run/start-1")
        (tmp_path / "other/start-1").rename(tmp_path / "run/start-1")
        with pytest.raises(OptionError, match="start='1 of seed 1'"):
            self.train(tmp_path / "run", resume=True, epochs=3)

    def test_a_seed_that_is_damaged(self, tmp_path):
        self.train(tmp_path / "run")
        (tmp_path / "run/seed").write_text("")
        with pytest.raises(CheckpointError, match="write 0 into it"):
            self.train(tmp_path / "run", resume=True, epochs=3)

    def test_a_backend_of_joblib_that_cannot_run_them(self, tmp_path):
        joblib = pytest.importorskip("joblib")
        with (
            joblib.parallel_config(backend="multiprocessing"),
            pytest.raises(OptionError, match="joblib cannot run the starts"),
        ):
            self.train(tmp_path / "run")

    def test_no_more_workers_than_starts(self, tmp_path, monkeypatch):
        joblib = pytest.importorskip("joblib")
        asked = []
        real = joblib.Parallel

        def parallel(n_jobs=None, **options):
            asked.append(n_jobs)
            return real(n_jobs=1, **options)

        monkeypatch.setattr(joblib, "Parallel", parallel)
        network = bptt.Network(bptt.cells.Elman(1, 3), torch.nn.Linear(3, 1), backend="eager")
        stream = bptt.Stream(torch.randn(40, 1), torch.randn(40, 1), horizon=1)
        bptt.fit(network, stream, epochs=1, starts=2, jobs=50, progress=False)
        assert asked == [2]


class TestRanks:
    @pytest.mark.parametrize("command", ["predict", "report", "diagnose", "compare"])
    def test_other_commands_speak_whatever_rank_is_left_over(self, command, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        more = ("data.csv",) if command == "diagnose" else ()
        result = call(command, "absent", *more)
        assert result.exit_code == 2
        assert "absent" in result.output

    def test_a_rank_that_no_process_can_have(self, table, monkeypatch):
        monkeypatch.setenv("RANK", "5")
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", "1")
        result = call("fit", "data.csv", *COLUMNS, *FAST)
        assert result.exit_code == 1


def test_the_options_of_a_sample_are_looked_at_first(monkeypatch):
    Path("text.txt").write_text("to be or not to be, that is the question. " * 20)
    small = ("--hidden", "4", "--depth", "8", "--epochs", "1", "--quiet")
    assert call("fit", "text.txt", "--task", "text", *small, "--out", "run").exit_code == 0
    monkeypatch.setattr("bptt.text.TextModel.bits", lambda *given: 1 / 0)
    result = call("predict", "run", "text.txt", "--sample", "5", "--temperature", "-1")
    assert result.exit_code == 2, (result.output, result.exception)
    assert "temperature" in words(result.output)
