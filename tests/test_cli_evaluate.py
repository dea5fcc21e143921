"""``aprcnn evaluate``: files and folders, labels and points, what is printed and written, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from napari_aprcnn.cli.evaluate import evaluate, parse_columns, parse_min_size, parse_slices
from napari_aprcnn.errors import ConfigError
from napari_aprcnn.io.write import write_labels

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate)


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def volume(*boxes, shape=(6, 24, 24)):
    labels = np.zeros(shape, np.uint16)
    for number, box in enumerate(boxes, 1):
        labels[tuple(slice(*edge) for edge in box)] = number
    return labels


def lines_of(output):
    return [line.strip() for line in output.splitlines()]


A, B = ((0, 4), (2, 10), (2, 10)), ((1, 5), (14, 22), (14, 22))
TRUTH = volume(A, B)


@pytest.fixture
def files(tmp_path):
    """A truth, a perfect prediction, one that missed a nucleus, and points."""
    paths = {}
    for name, labels in {"truth": TRUTH, "perfect": TRUTH, "half": volume(A)}.items():
        paths[name] = write_labels(labels, tmp_path / f"{name}.tif", axes="ZYX", spacing_um=(1, 0.5, 0.5))
    paths["points"] = tmp_path / "points.csv"
    paths["points"].write_text("slice,row,column\n2,5,5\n3,18,18\n")
    return paths


def test_the_table_names_scores_and_errors(files):
    out = run(files["truth"], files["perfect"], files["half"]).output
    assert "against labels at IoU 0.5, 1 image" in out
    perfect, half = (next(line for line in lines_of(out) if line.startswith(name)) for name in ("perfect", "half"))
    assert perfect.split()[1:4] == ["1.000", "±", "0.000"]
    assert "0.500 ±" in half
    assert half.split()[-4:] == ["0", "0", "1", "0"]
    assert "accuracy at IoU" in out


def test_json_csv_and_html(files, tmp_path):
    options = ("--html", tmp_path / "report.html", "--csv", tmp_path / "scores.csv", "--bootstrap", 0)
    out = json.loads(run(files["truth"], files["half"], "--json", "-t", 0.3, "-t", 0.7, "--iou", 0.7, *options).stdout)
    pooled = [record for record in out["scores"] if record["scope"] == "all"]
    assert [(r["iou"], r["recall"]) for r in pooled] == [(0.3, 0.5), (0.7, 0.5)]
    assert out["errors"] == [
        {"prediction": "half", "image": "truth", "kind": "miss", "label_ids": "", "truth_ids": "2", "z": 2.5, "y": 17.5,
         "x": 17.5, "size_voxels": 256, "iou": 0.0}
    ]  # fmt: skip
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "scores_errors.csv").read_text().count("\n") == 2
    again = run(files["truth"], files["half"], "-q", *options, code=6)
    assert "exists already" in again.output
    assert run(files["truth"], files["half"], "-q", "--overwrite", *options).stdout == ""


def test_points_with_columns_of_another_program(files):
    out = run(files["points"], files["half"], "--columns", "z=slice,y=row,x=column", "--json").stdout
    record = json.loads(out)["scores"][0]
    counts = [record[name] for name in ("true_positives", "false_positives", "false_negatives")]
    assert counts == [1, 0, 1]
    refused = run(files["points"], files["half"], code=3)
    assert "name the columns" in refused.output
    table = run(files["points"], files["perfect"], "--columns", "z=slice,y=row,x=column").output
    assert "against points" in table
    assert "panoptic" not in table


def test_slices_sizes_and_regions(files, tmp_path):
    def counted(*options):
        record = json.loads(run(files["truth"], files["half"], "--json", *options).stdout)["scores"][0]
        return record["true_positives"], record["false_negatives"]

    assert counted("--slices", "0,1") == (2, 1)
    assert counted("--slices", "all") == (4, 4)
    assert counted("--min-size", "257") == (0, 0)
    assert counted("--min-size", "64um3") == (1, 1)
    assert counted("--min-size", "65um") == (0, 0)
    assert counted("--min-size", "65um", "--spacing", 1, 1, 1) == (1, 1)
    assert counted("--ignore", 2) == (1, 0)
    mask = np.zeros(TRUTH.shape, np.uint8)
    mask[:, 12:] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    assert counted("--ignore", tmp_path / "mask.tif") == (1, 0)


def test_folders_are_paired_by_name(tmp_path):
    for folder in ("truth", "mine", "theirs"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        write_labels(TRUTH, tmp_path / "truth" / f"{name}_masks.tif", axes="ZYX")
        write_labels(TRUTH, tmp_path / "mine" / f"{name}_labels.tif", axes="ZYX")
        write_labels(volume(A), tmp_path / "theirs" / f"{name}.tif", axes="ZYX")
    # An image beside its labels is not taken for them.
    tifffile.imwrite(tmp_path / "truth" / "a.tif", np.zeros((6, 24, 24), np.float32))
    out = run(tmp_path / "truth", tmp_path / "mine", tmp_path / "theirs", "--name", "M", "--name", "T").output
    assert "2 images" in out
    assert [line.split()[:5] for line in lines_of(out) if line.startswith("T  ")][-2:] == [
        ["T", "a", "1", "0", "1"],
        ["T", "b", "1", "0", "1"],
    ]
    write_labels(TRUTH, tmp_path / "mine" / "c.tif", axes="ZYX")
    assert "passed over" in run(tmp_path / "truth", tmp_path / "mine").output
    (tmp_path / "theirs" / "b.tif").unlink()
    missing = run(tmp_path / "truth", tmp_path / "theirs", code=3)
    assert "no prediction for b" in missing.output
    run(tmp_path / "truth", tmp_path / "mine" / "a_labels.tif", code=2)


def test_time_points_are_images_of_their_own(tmp_path):
    truth = np.stack([TRUTH, TRUTH])
    labels = np.stack([TRUTH, volume(A)])
    for name, array in (("truth", truth), ("labels", labels)):
        write_labels(array, tmp_path / f"{name}.tif", axes="TZYX")
    records = json.loads(run(tmp_path / "truth.tif", tmp_path / "labels.tif", "--json").stdout)["scores"]
    assert [(r["image"], r["recall"]) for r in records if r["scope"] == "image"] == [
        ("truth, t 0", 1.0),
        ("truth, t 1", 0.5),
    ]
    (tmp_path / "p.csv").write_text("t,z,y,x\n0,2,5,5\n1,2,5,5\n1,3,18,18\n")
    records = json.loads(run(tmp_path / "p.csv", tmp_path / "labels.tif", "--json").stdout)["scores"]
    assert [(r["precision"], r["recall"]) for r in records if r["scope"] == "image"] == [(0.5, 1.0), (1.0, 0.5)]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda f, _: (f["truth"], f["truth"].with_name("none.tif")), 3, "there is no file"),
        (lambda f, _: (f["truth"].with_name("none.csv"), f["half"]), 3, "there is no file"),
        (lambda f, d: (f["truth"], write_labels(TRUTH[:4], d / "short.tif", axes="ZYX")), 3, "equal shapes"),
        (lambda f, d: (f["truth"], write_labels(TRUTH[0], d / "flat.tif", axes="YX")), 2, "expected the same"),
        (
            lambda f, d: (f["truth"], write_labels(TRUTH, d / "s.tif", axes="ZYX", spacing_um=(2, 0.5, 0.5))),
            3,
            "--spacing",
        ),
        (lambda f, _: (f["truth"], f["half"], "--slices", "9"), 2, "slice 9"),
        (lambda f, _: (f["truth"], f["half"], "--ignore", "nowhere.tif"), 3, "no mask"),
        (lambda f, _: (f["truth"], f["half"], "--name", "a", "--name", "b"), 2, "2 names"),
        (lambda f, _: (f["truth"], f["half"], "--iou", "2"), 2, "iou"),
        (lambda f, d: (f["truth"], f["half"], "--csv", d / "none" / "a.csv"), 6, "does not exist"),
    ],
)
def test_what_is_refused_says_what_to_do(files, tmp_path, change, code, words):
    assert words in " ".join(run(*change(files, tmp_path), code=code).output.split())


def test_points_outside_are_told(files):
    files["points"].write_text("z,y,x\n2,5,5\n3,18,180\n")
    out = run(files["points"], files["half"], code=3).output
    assert "1 of 2 points lie outside" in " ".join(out.split())


def test_what_is_typed_is_checked():
    assert parse_slices(" 3 , 1-2") == (1, 2, 3)
    assert parse_min_size("3.5 µm²".replace("²", "2")) == (3.5, "um")
    assert parse_columns("y=a,x=b") == {"y": "a", "x": "b"}
    for wrong in ("", "a", "3-1", "1,,2"):
        with pytest.raises(ConfigError, match="expected numbers"):
            parse_slices(wrong)
    with pytest.raises(ConfigError, match="minimum size"):
        parse_min_size("many")
    with pytest.raises(ConfigError, match="pairs"):
        parse_columns("y,x")


def test_arrays_without_names_have_no_channels(tmp_path):
    labels = volume(((0, 3), (2, 10), (2, 10)), shape=(3, 160, 160))
    for name in ("truth", "model"):
        np.save(tmp_path / f"{name}.npy", labels)
    out = run(tmp_path / "truth.npy", tmp_path / "model.npy").output
    assert next(line for line in lines_of(out) if line.startswith("model")).split()[1] == "1.000"
    tifffile.imwrite(tmp_path / "named.ome.tif", labels, metadata={"axes": "CYX"})
    assert "expected labels: one channel" in run(tmp_path / "truth.npy", tmp_path / "named.ome.tif", code=2).output
