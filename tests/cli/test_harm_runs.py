"""Runs that nothing can harm: what is there stays whole, whatever fails."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from bptt import files
from bptt.runs import Made, put, read_run, settle
from bptt.training import Hold

from .cases import COLUMNS, FAST, call, fit, in_fork, words, write_table


class TestRuns:
    @pytest.mark.parametrize("how", ["death", "error"])
    def test_a_fault_at_any_call_leaves_a_whole_run(self, how, table, monkeypatch):
        """Each of the calls that bring a run into its folder fails once, or is the last one of its
        process; one process is forked for each of them."""
        kept = []
        with monkeypatch.context() as patch:
            patch.setattr("bptt.cli._fit.put", lambda folder, made, saved: kept.append(made) or [])
            patch.setattr("bptt.cli._fit.apart", lambda folder, pictures: [])
            fit("--out", "old")
            put(Path("old"), kept[0])
            fit("--out", "old", "--hidden", "5", "--force")
        os.mkdir("run")
        models = [made.parts["model.safetensors"] for made in kept]
        assert os.path.isdir("old/checkpoints-2")
        ends = set()
        for at in range(1, 99):
            shutil.rmtree("run")
            shutil.copytree("old", "run")
            code = in_fork(partial(faulty, how, at, Path("run"), kept[1]))
            found = read_run("run").parts["model.safetensors"]
            ends.add(models.index(found))
            with Hold(Path("run")):
                settle(Path("run"))
            assert read_run("run").parts["model.safetensors"] == found
            if code == DONE:
                break
            if at % 24 == 0:
                resumed = call("fit", "--resume", "run", "--quiet")
                assert resumed.exit_code == 0, resumed.output
                assert read_run("run").parts["model.safetensors"] == models[1]
                assert not [n for n in os.listdir("run") if n.startswith((".", "checkpoints-"))]
        assert at > 20
        assert code == DONE
        assert ends == {0, 1}

    def test_a_run_that_is_replaced_while_it_is_read_is_read_again(self, table, monkeypatch):
        """All of the replacement comes between the record and the model."""
        fit("--out", "run", "--checkpoint", "never")
        fit("--out", "other", "--seed", "1", "--checkpoint", "never")
        new = read_run("other")
        real, seen = files.read_bytes, []

        def read(path):
            data = real(path)
            if str(path) == "run/run.json" and not seen:
                seen.append(1)
                about = {k: v for k, v in new.record.items() if k not in ("files", "pictures")}
                put(Path("run").absolute(), Made(new.parts, about), saved=False)
            return data

        monkeypatch.setattr(files, "read_bytes", read)
        assert read_run("run").parts == new.parts

    def test_a_model_of_another_run_is_no_run(self, table):
        fit("--out", "run")
        fit("--out", "other", "--seed", "1")
        shutil.copy("other/model.safetensors", "run")
        result = call("predict", "run", table)
        assert result.exit_code == 2
        assert "its checksum is not the one named there" in words(result.output)

    @pytest.mark.parametrize("name", ["price_$_per_kg_$", "a^b_{c}$x$", "\\frac{$a$}{", "y" * 300])
    def test_names_of_any_kind_are_drawn(self, name, tmp_path):
        write_table(tmp_path / "data.csv")
        text = (tmp_path / "data.csv").read_text().replace("u,y,", f"u,{name},")
        (tmp_path / "data.csv").write_text(text)
        result = call("fit", "data.csv", "--target", name, *FAST, "--out", "run")
        assert result.exit_code == 0, result.output
        assert {"loss.png", "prediction.png", "model.safetensors"} <= set(os.listdir("run"))
        assert call("report", "run").exit_code == 0

    @pytest.mark.parametrize("error", [ValueError("no such glyph"), OSError(28, "No space left")])
    def test_a_picture_that_fails_costs_no_model(self, error, table, monkeypatch):
        def fail(*given):
            raise error

        monkeypatch.setattr("bptt.forecasting.runs._pictures._loss", fail)
        with pytest.warns(UserWarning, match=r"loss.png was not drawn"):
            fit("--out", "run")
        assert {"model.safetensors", "run.json", "prediction.png"} <= set(os.listdir("run"))
        assert "loss.png" not in os.listdir("run")
        assert call("predict", "run", table).exit_code == 0

    def test_a_full_disk_at_the_end_is_told_with_the_way_to_go_on(self, table, monkeypatch):
        def full(*given):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("bptt.cli._fit.put", full)
            result = call("fit", table, *COLUMNS, *FAST, "--out", "run")
        assert result.exit_code == 1
        text = words(result.output)
        assert "None" not in text
        assert "bptt fit --resume run" in text
        assert call("fit", "--resume", "run", "--quiet").exit_code == 0


DONE = 7
"""Exit code of a process in which no call was left to fail."""


def faulty(how, at, folder, made):
    """Bring a run into its folder; call number ``at`` of those that touch the disk fails, or ends
    the process."""
    seen = [0]

    def fails(real):
        def do(*given, **options):
            seen[0] += 1
            if seen[0] == at and how == "death":
                os._exit(9)
            if seen[0] == at:
                raise OSError(28, "No space left on device")
            return real(*given, **options)

        return do

    for name in ("open", "replace", "rename", "unlink", "rmdir", "fsync", "mkdir", "write"):
        setattr(os, name, fails(getattr(os, name)))
    try:
        put(folder, made)
    except OSError:
        return 1
    return DONE if seen[0] < at else 0
