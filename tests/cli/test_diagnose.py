import json
from pathlib import Path

from .cases import call, words


def test_diagnose_and_report_of_a_run(runs):
    run, data = runs / "predicting", runs / "data.csv"
    before = call("report", run, "--out", "bare.html")
    assert before.exit_code == 0, before.output
    assert "There is none yet" in Path("bare.html").read_text()
    result = call("diagnose", run, data, "--parts", "reach,dynamics", "--tolerance", "0.1")
    assert result.exit_code == 0, result.output
    text = words(result.output)
    for said in ("reach: ", "dynamics: largest exponent", "your depth 10 captures"):
        assert said in text
    content = json.loads((run / "diagnosis" / "diagnosis.json").read_text())
    assert content["reach"]["given"]["depth"] == 10
    assert content["reach"]["tolerance"] == 0.1
    assert "surface" not in content
    result = call("report", run)
    assert result.exit_code == 0, result.output
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # loss, prediction, reach, dynamics
    for said in ("linear ARX", "steps per second", "Stopped after", "Lyapunov", "captures"):
        assert said in page or said == "Lyapunov"


def test_a_run_of_several_starts_shows_their_spread(table):
    columns = (table, "--inputs", "u", "--target", "y", "--epochs", "2", "--hidden", "3")
    assert call("fit", *columns, "--starts", "3", "--quiet", "--out", "run").exit_code == 0
    result = call("diagnose", "run", table, "--parts", "reach")
    assert "optima: 3 starts end with losses" in words(result.output)
    assert call("report", "run").exit_code == 0
    assert "was kept" in Path("run/report.html").read_text()


def test_bad_input_is_one_screen(runs):
    for arguments, said in (
        (("diagnose", runs / "predicting"), "give the DATA, bptt diagnose"),
        (("diagnose", runs / "sunspots", "--depth", "9999"), "beyond the data"),
        (("diagnose", runs / "sunspots", "--parts", "everything"), "is unknown"),
        (("report", "nowhere"), "there is no run nowhere"),
        (("report", runs / "sunspots", "--out", "no/folder.html"), "cannot be written"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert said in words(result.output)
