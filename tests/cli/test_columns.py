"""Columns of times and groups, and a test file, on the command line."""

import csv
import datetime as dt
import json

import numpy as np
import pytest

from .cases import FAST, call, words


def rows_of(shops=("a", "b"), days=60, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for i in range(days):
        for n, shop in enumerate(shops):
            y = 50 + 10 * n + 10 * np.sin(i * 2 * np.pi / 7) + random.normal()
            found.append((str(dt.date(2024, 1, 1) + dt.timedelta(i)), shop, f"{y:.4f}"))
    return found


def write(path, rows, header="day,shop,sales"):
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    return path


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """A run of two series with times, and its table."""
    folder = tmp_path_factory.mktemp("shops")
    data = write(folder / "shops.csv", rows_of())
    out = folder / "run"
    made = call("fit", data, "--group", "shop", "--target", "sales", *FAST, "--out", out)
    assert made.exit_code == 0, made.output
    return folder, words(made.output)


def test_what_is_found_is_said_in_the_first_line(shops):
    assert (
        "Predicting sales 1 step ahead from the past of sales; the time is day, the one column of "
        "dates, in steps of 1 day shops.csv: 120 rows of 2 series, told apart by shop; 76 to "
        "train, 20 to validate, 24 to test"
    ) in shops[1]
    assert "Error on the test part, by shop, 24 predictions" in shops[1]


def test_the_record_has_columns_and_groups(shops):
    record = json.loads((shops[0] / "run" / "run.json").read_text())
    assert (record["time"], record["group"]) == ("day", "shop")
    assert [one["group"] for one in record["groups"]] == ["a", "b"]
    assert record["data"]["series"] == 2
    assert {label: rows for label, (rows, _) in record["trained"].items()} == {"a": 48, "b": 48}
    job = json.loads((shops[0] / "run" / "job.json").read_text())
    assert (job["time"], job["group"], job["test_data"]) == (None, "shop", None)


def test_predictions_have_group_and_date_and_tell_new_rows(shops, tmp_path):
    newer = write(tmp_path / "newer.csv", rows_of(days=65))
    found = call("predict", shops[0] / "run", newer)
    assert found.exit_code == 0, found.output
    told = words(found.output)
    assert "130 predictions of sales, 2 series of shop" in told
    assert "on 94 rows that it was trained on" in told  # the first of each has no prediction
    assert "on 34 other rows" in told
    rows = read("predictions.csv")
    assert list(rows[0]) == ["shop", "day", "truth", "prediction"]
    assert [(r["shop"], r["day"]) for r in rows[63:66]] == [
        ("a", "2024-03-05"),
        ("a", "2024-03-06"),
        ("b", "2024-01-02"),
    ]
    assert rows[64]["truth"] == ""


def test_a_copy_under_another_name_is_recognised(shops, tmp_path):
    copy = write(tmp_path / "copy.csv", rows_of()[:96])
    told = words(call("predict", shops[0] / "run", copy).output)
    assert "on 94 rows that it was trained on" in told
    assert "new" not in told
    other = write(tmp_path / "other.csv", rows_of(seed=1))
    told = words(call("predict", shops[0] / "run", other, "--force").output)
    assert "on 118 other rows" in told
    assert "trained on" not in told


def test_a_free_run_goes_on_in_each_series(shops):
    found = call("predict", shops[0] / "run", shops[0] / "shops.csv", "--free-run", 2)
    assert found.exit_code == 0, found.output
    assert [(r["shop"], r["day"], r["truth"]) for r in read("predictions.csv")] == [
        ("a", "2024-03-01", ""),
        ("a", "2024-03-02", ""),
        ("b", "2024-03-01", ""),
        ("b", "2024-03-02", ""),
    ]


def test_a_table_of_another_shape_is_refused(shops, tmp_path):
    alone = write(tmp_path / "alone.csv", [(d, y) for d, _, y in rows_of(("a",))], "day,sales")
    found = call("predict", shops[0] / "run", alone)
    assert found.exit_code == 2
    assert "has no column 'shop'" in words(found.output)


def monthly(tmp_path, skip=None):
    random = np.random.default_rng(0)
    rows = [
        (f"{2010 + i // 12}-{i % 12 + 1:02}", f"{random.normal():.4f}")
        for i in range(60)
        if i != skip
    ]
    return write(tmp_path / "months.csv", rows, "month,y")


def test_two_columns_of_which_one_is_dates_need_no_options(tmp_path):
    found = call("fit", monthly(tmp_path), *FAST, "--out", "run")
    assert found.exit_code == 0, found.output
    assert "Warning" not in found.output
    assert call("predict", "run", "months.csv").exit_code == 0
    rows = read("predictions.csv")
    assert list(rows[0]) == ["month", "truth", "prediction"]
    assert (rows[0]["month"], rows[-1]["month"]) == ("2010-02", "2015-01")


def test_a_gap_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="1 of 58 is other than 1 month, the first from 2012-01"):
        found = call("fit", monthly(tmp_path, skip=25), *FAST, "--out", "run")
    assert found.exit_code == 0


def test_rows_out_of_order_are_refused_before_work(tmp_path):
    rows = [("2024-01-02", "1"), ("2024-01-01", "2")]
    found = call("fit", write(tmp_path / "data.csv", rows, "day,y"), "--out", "run")
    assert found.exit_code == 2
    assert "row 2, column 'day': 2024-01-01 comes after 2024-01-02" in words(found.output)
    assert not (tmp_path / "run").exists()


def halves(tmp_path):
    rows = [(d, y) for d, _, y in rows_of(("a",), 90)]
    first = write(tmp_path / "first.csv", rows[:60], "day,sales")
    return first, write(tmp_path / "second.csv", rows[60:], "day,sales")


def test_a_test_file(tmp_path):
    first, second = halves(tmp_path)
    found = call("fit", first, "--test-data", second, *FAST, "--out", "run")
    assert found.exit_code == 0, found.output
    told = words(found.output)
    assert "first.csv: 60 rows; 48 to train, 12 to validate, 30 of second.csv to test" in told
    assert "Error on second.csv, the test part, 29 predictions" in told
    data = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (data["test_data"], data["test"], data["errors_on"]) == ("second.csv", 30, "test")
    told = words(call("predict", "run", first).output)
    assert "on 59 rows that it was trained on" in told
    assert "on 29 other rows" in words(call("predict", "run", second, "--force").output)


def test_a_test_file_excludes_a_test_part_and_is_checked_first(tmp_path):
    first, second = halves(tmp_path)
    found = call("fit", first, "--test-data", second, "--test", 10, "--out", "run")
    assert found.exit_code == 2
    assert "give one" in words(found.output)
    for bad, message in ((tmp_path / "none.csv", "there is no file"), (first.parent, "neither")):
        found = call("fit", first, "--test-data", bad, "--out", "run")
        assert found.exit_code == 2
        assert message in words(found.output)
    other = write(tmp_path / "other.csv", [("2024-01-01", "1")], "day,load")
    found = call("fit", first, "--test-data", other, "--out", "run")
    assert "has no column 'sales'" in words(found.output)
    found = call("fit", "--test-data", second, "--out", "run")
    assert "--test-data goes with DATA" in words(found.output)
    assert not (tmp_path / "run").exists()


def test_no_test_part(tmp_path):
    first, _ = halves(tmp_path)
    found = call("fit", first, "--test", 0, *FAST, "--out", "run")
    assert found.exit_code == 0, found.output
    told = words(found.output)
    assert "none to test: errors are told on the validation part" in told
    assert "Error on the validation part (there is no test part), 12 predictions" in told
    assert "test part" not in words(call("report", "run").output)
    data = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (data["test"], data["errors_on"]) == (0, "validation")
    assert "Errors on the validation part" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_goes_on_with_its_test_file_unless_that_changed(tmp_path):
    first, second = halves(tmp_path)
    columns = ("--test-data", second, *FAST)
    assert call("fit", first, *columns, "--out", "run").exit_code == 0
    found = call("fit", "--resume", "run", "--epochs", 3, "--quiet")
    assert found.exit_code == 0, found.output
    assert "30 of second.csv to test" in words(found.output)
    second.write_text(second.read_text().replace("2024-03-01,", "2024-03-01,1"))
    found = call("fit", "--resume", "run", "--epochs", 4, "--quiet")
    assert found.exit_code == 2
    assert "the test data changed since the checkpoint" in words(found.output)
    assert call("fit", "--resume", "run", "--epochs", 4, "--quiet", "--force").exit_code == 0


@pytest.mark.parametrize("name", ["time", "group", "test_data"])
def test_a_damaged_job_is_refused(name, tmp_path):
    first, _ = halves(tmp_path)
    assert call("fit", first, *FAST, "--out", "run").exit_code == 0
    job = tmp_path / "run" / "job.json"
    job.write_text(json.dumps({**json.loads(job.read_text()), name: 3}))
    found = call("fit", "--resume", "run")
    assert found.exit_code == 2
    assert f"{name} is no name" in words(found.output)


@pytest.mark.parametrize(
    "damage", [{"time": 1}, {"group": []}, {"trained": [1]}, {"trained": {"a": [0, "x"]}}]
)
def test_a_damaged_record_is_refused(damage, shops, tmp_path):
    for path in (shops[0] / "run").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    record = tmp_path / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **damage}))
    found = call("predict", tmp_path, shops[0] / "shops.csv", "--out", tmp_path / "p.csv")
    assert found.exit_code == 2
    assert "is damaged" in words(found.output)


def test_a_short_series_is_named_before_work(tmp_path):
    rows = rows_of(("a", "b"), 40) + rows_of(("new",), 3)
    data = write(tmp_path / "data.csv", rows)
    found = call("fit", data, "--group", "shop", "--target", "sales", "--out", "run")
    assert found.exit_code == 2
    assert "series 'new': 3 rows are too few" in words(found.output)
    assert not (tmp_path / "run").exists()


def test_compare_reads_groups(shops):
    data = shops[0] / "shops.csv"
    found = call(
        "compare", data, "--group", "shop", "--target", "sales", "--methods", "full,truncated",
        "--budget", "500", "--starts", "1", "--hidden", "2", "--quiet",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "120 steps" in words(found.output)


def test_diagnose_reads_groups(shops):
    found = call("diagnose", shops[0] / "run", shops[0] / "shops.csv", "--parts", "reach")
    assert found.exit_code == 0, found.output
    assert "over 120 steps" in words(found.output)
