"""Readers of published archives, on small archives of the published layout."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from conseq.data.blocks import blocks
from conseq.data.parsers import Parser, delimited, json_lines, python_lines, write_interactions
from conseq.data.sources import SOURCES

Triples = list[tuple[str, str, int]]

MOVIES = "1\t31\t2.5\t1260759144\n1\t1029\t3.0\t1260759179\n7\t31\t4.0\t851868750\n"
EXPECTED = [("1", "31", 1260759144), ("1", "1029", 1260759179), ("7", "31", 851868750)]


def parsed(parser: Parser, source: Path) -> Triples:
    """What the parser finds, checked to be what is written to disk too."""
    out = source.parent / "out.parquet"
    counts = write_interactions(parser, source, out)
    table = pl.read_parquet(out)
    assert table.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    assert counts.rows == table.height
    assert counts.users == table["user_id"].n_unique()
    assert counts.items == table["item_id"].n_unique()
    return table.rows()


def zipped(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return path


def tarred(names: dict[str, str], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content.encode())
            tar.addfile(entry, io.BytesIO(content.encode()))
    return buffer.getvalue()


def test_movielens_100k_is_tabs_in_u_data(tmp_path: Path) -> None:
    source = zipped(tmp_path / "ml-100k.zip", **{"ml-100k__u.item": "x", "ml-100k__u.data": MOVIES})
    assert parsed(SOURCES["ml-100k"].parser, source) == EXPECTED


def test_movielens_1m_is_double_colons_in_ratings_dat(tmp_path: Path) -> None:
    content = MOVIES.replace("\t", "::")
    source = zipped(tmp_path / "ml-1m.zip", **{"ml-1m__ratings.dat": content, "ml-1m__users.dat": "1::F"})
    assert parsed(SOURCES["ml-1m"].parser, source) == EXPECTED


def test_movielens_20m_is_commas_under_a_header(tmp_path: Path) -> None:
    content = "userId,movieId,rating,timestamp\n" + MOVIES.replace("\t", ",")
    source = zipped(tmp_path / "ml-20m.zip", **{"ml-20m__ratings.csv": content, "ml-20m__tags.csv": "x"})
    assert parsed(SOURCES["ml-20m"].parser, source) == EXPECTED


def test_a_file_with_another_header_is_refused(tmp_path: Path) -> None:
    source = zipped(tmp_path / "ml-20m.zip", **{"ml-20m__ratings.csv": "a,b,c,d\n" + MOVIES})
    with pytest.raises(ValueError, match=r"first line of ml-20m/ratings.csv is 'a,b,c,d', expected 'userId"):
        parsed(SOURCES["ml-20m"].parser, source)


def test_amazon_reviews_are_json_lines_in_gzip(tmp_path: Path) -> None:
    reviews = [
        {"reviewerID": "A1", "asin": "0000013714", "helpful": [0, 1], "overall": 5.0, "unixReviewTime": 1252800000},
        {"reviewerID": "A2", "asin": "B00X", "reviewText": 'a "b"\n é', "unixReviewTime": 1400000000},
    ]
    source = tmp_path / "reviews_Beauty_5.json.gz"
    source.write_bytes(gzip.compress("\n".join(map(json.dumps, reviews)).encode()))
    assert parsed(SOURCES["amazon-beauty"].parser, source) == [
        ("A1", "0000013714", 1252800000),
        ("A2", "B00X", 1400000000),
    ]


def test_amazon_ratings_are_commas_without_a_header(tmp_path: Path) -> None:
    source = tmp_path / "ratings_Beauty.csv"
    source.write_text("A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,0558925278,3.0,1355443200\n")
    assert parsed(SOURCES["amazon-beauty-ratings"].parser, source) == [
        ("A39HTATAQ9V7YF", "0205616461", 1369699200),
        ("A3JM6GV9MNOF9X", "0558925278", 1355443200),
    ]


def test_gowalla_is_tabs_with_iso_times_in_gzip(tmp_path: Path) -> None:
    source = tmp_path / "loc-gowalla_totalCheckins.txt.gz"
    rows = "0\t2010-10-19T23:55:27Z\t30.2359\t-97.7951\t22847\n0\t1970-01-01T00:00:01Z\t30.2\t-97.7\t420315\n"
    source.write_bytes(gzip.compress(rows.encode()))
    assert parsed(SOURCES["gowalla"].parser, source) == [("0", "22847", 1287532527), ("0", "420315", 1)]


def test_steam_is_python_dictionaries_in_gzip(tmp_path: Path) -> None:
    rows = (
        "{u'username': u'Ch\\xe9', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', u'early': False}\n"
        "{u'username': u'\"it\\'s\"', u'text': u'a\\nb', u'product_id': u'328100', u'date': u'2017-08-02'}\n"
    )
    source = tmp_path / "steam_reviews.json.gz"
    source.write_bytes(gzip.compress(rows.encode()))
    assert parsed(SOURCES["steam"].parser, source) == [
        ("Ché", "725280", 1513468800),
        ('"it\'s"', "328100", 1501632000),
    ]


def test_a_line_of_code_is_left_out_and_never_executed(tmp_path: Path) -> None:
    rows = ["{'u': 'a', 'i': 'b', 't': '2017-12-17'}"] * 200
    rows.insert(50, f"__import__('pathlib').Path({str(tmp_path / 'made')!r}).touch() or {{'u': 1, 'i': 2, 't': 3}}")
    source = tmp_path / "lines"
    source.write_text("\n".join(rows))
    counts = write_interactions(partial(python_lines, member="lines", fields=("u", "i", "t")), source, tmp_path / "o")
    assert (counts.rows, counts.left_out) == (200, 1)
    assert not (tmp_path / "made").exists()


YELP = "\n".join(
    json.dumps({"review_id": "r", "user_id": user, "business_id": business, "stars": 5, "date": date})
    for user, business, date in (("u-1", "b_1", "2016-05-28"), ("u-2", "b_1", "2018-07-07 22:09:11"))
)
YELP_ROWS = [("u-1", "b_1", 1464393600), ("u-2", "b_1", 1531001351)]
REVIEWS = "yelp_academic_dataset_review.json"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_yelp_is_json_lines_in_a_tar(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "yelp_dataset.tar"
    source.write_bytes(tarred({"Dataset_Agreement.pdf": "x", f"./{REVIEWS}": YELP}, mode))
    assert parsed(SOURCES["yelp"].parser, source) == YELP_ROWS


def test_yelp_is_json_lines_in_a_tar_in_a_zip(tmp_path: Path) -> None:
    source = tmp_path / "Yelp-JSON.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Yelp JSON/Agreement.pdf", "x")
        archive.writestr("Yelp JSON/yelp_dataset.tar", tarred({"business.json": "{}", REVIEWS: YELP}))
    assert parsed(SOURCES["yelp"].parser, source) == YELP_ROWS


def test_yelp_is_json_lines_in_a_folder_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "unpacked" / "dataset").mkdir(parents=True)
    (tmp_path / "unpacked" / "dataset" / "review.json").write_text(YELP)
    (tmp_path / "unpacked" / "tip.json").write_text("{}")
    assert parsed(SOURCES["yelp"].parser, tmp_path / "unpacked") == YELP_ROWS
    assert parsed(SOURCES["yelp"].parser, tmp_path / "unpacked" / "dataset" / "review.json") == YELP_ROWS


def test_an_archive_without_the_file_names_what_it_holds(tmp_path: Path) -> None:
    source = zipped(tmp_path / "ml-1m.zip", **{"other__ratings.txt": MOVIES})
    with pytest.raises(ValueError, match=r"has no ml-1m/ratings\.dat; it holds other/ratings\.txt"):
        parsed(SOURCES["ml-1m"].parser, source)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="it holds nothing; is it the right archive"):
        parsed(SOURCES["ml-1m"].parser, tmp_path / "folder")
    tar = tmp_path / "a.tar"
    tar.write_bytes(tarred({"other.json": YELP}))
    with pytest.raises(ValueError, match=r"has no yelp_.* or review\.json; it holds other\.json"):
        parsed(SOURCES["yelp"].parser, tar)


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*ml-1m\.zip"):
        parsed(SOURCES["ml-1m"].parser, tmp_path / "ml-1m.zip")


def test_a_cut_gzip_or_zip_or_tar_is_named(tmp_path: Path) -> None:
    rows = "".join(f"A{n},B{n * 7919 % 10007},5.0,{1369699200 + n}\n" for n in range(20000))
    source = tmp_path / "ratings_Beauty.csv.gz"
    source.write_bytes(gzip.compress(rows.encode())[:-5000])
    with pytest.raises(ValueError, match=r"ratings_Beauty\.csv\.gz"):
        parsed(SOURCES["amazon-beauty-ratings"].parser, source)
    tar = tmp_path / "yelp.tgz"
    tar.write_bytes(tarred({REVIEWS: YELP * 2000}, "w:gz")[:-100])
    with pytest.raises(ValueError, match=r"yelp\.tgz is cut or damaged"):
        parsed(SOURCES["yelp"].parser, tar)
    damaged = zipped(tmp_path / "ml-100k.zip", **{"ml-100k__u.data": rows})
    content = bytearray(damaged.read_bytes())
    content[1000:1100] = bytes(100)
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"ml-100k\.zip is cut or damaged"):
        parsed(SOURCES["ml-100k"].parser, damaged)


def test_a_few_unreadable_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    good = [f"u{n}\ti{n}\t{n}" for n in range(1000)]
    bad = ["u\ti", "u\ti\tsoon", "\ti\t3", "u\t\t3", "u\ti\t2010-13-45T00:00:00Z"]
    source = tmp_path / "log.txt"
    source.write_text("\n".join([*good[:500], *bad, *good[500:]]) + "\n")
    parser = partial(delimited, member="log.txt", separator="\t", columns=(0, 1, 2))
    counts = write_interactions(parser, source, tmp_path / "o.parquet")
    assert (counts.rows, counts.users, counts.items, counts.left_out) == (1000, 1000, 1000, 5)
    assert pl.read_parquet(tmp_path / "o.parquet")["timestamp"].to_list() == list(range(1000))


def test_a_broken_json_line_costs_only_itself(tmp_path: Path) -> None:
    lines = [json.dumps({"u": "é" * n, "i": n, "t": n}) for n in range(1, 291)]
    lines[7:7] = ['{"u": "x", "i": ', "[1, 2]", '{"u": "x", "i": 3}']
    source = tmp_path / "log.json"
    source.write_text("\n".join(lines), encoding="utf-8")
    parser = partial(json_lines, members=("log.json",), fields=("u", "i", "t"))
    with pytest.raises(ValueError, match="3 of 293 rows are not readable; is it the right file"):
        write_interactions(parser, source, tmp_path / "o.parquet")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.json"]
    source.write_text("\n".join([*lines, *lines[10:]]), encoding="utf-8")
    counts = write_interactions(parser, source, tmp_path / "o.parquet")
    assert (counts.rows, counts.left_out) == (290 + 283, 3)


@pytest.mark.parametrize("content", ["", "\n\n", "nothing here\n"])
def test_a_file_without_an_interaction_is_refused(tmp_path: Path, content: str) -> None:
    source = tmp_path / "log.txt"
    source.write_text(content)
    with pytest.raises(ValueError, match=r"log\.txt holds no readable interaction"):
        write_interactions(partial(delimited, member="", separator="\t", columns=(0, 1, 2)), source, tmp_path / "o")


def test_a_log_of_many_blocks_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "log.txt"
    rows = [(f"u{n % 17}", f"i{n % 5}", n) for n in range(5000)]
    source.write_text("".join(f"{user}::{item}::{time}\r\n" for user, item, time in rows))
    monkeypatch.setattr("conseq.data.parsers.blocks", partial(blocks, size=997))
    parser = partial(delimited, member="log.txt", separator="::", columns=(0, 1, 2))
    assert len(list(parser(source))) > 50
    assert parsed(parser, source) == rows
