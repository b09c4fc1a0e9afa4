"""Tables read strictly: what a row is, what a sweep becomes, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from conseq.study.answers import answers
from conseq.study.choosing import chosen
from conseq.study.specification import Table, find_tables, load_table


def table(root: Path, text: str) -> Table:
    path = root / "paper/table1/other.toml"
    path.write_text('paper = "P"\ntitle = "T"\ndataset = "toy"\nhistory = "keep"\n' + text)
    return load_table(path)


def test_a_row_is_its_base_with_what_it_says_instead(experiments: Path) -> None:
    found = load_table(experiments / "paper/table1/toy.toml")
    assert (found.study, found.dataset, found.history) == ("paper/table1", "toy", "keep")
    first, second = found.rows[:2]
    assert first.config is not None
    assert second.config is not None
    assert first.config.method.loss == "cross_entropy"
    assert second.config.method.loss == "binary_cross_entropy"
    assert first.config.encoder == second.config.encoder
    assert second.config.training.seed == 3
    assert second.variant == "binary cross-entropy"
    assert first.cells == {"HR@10": 0.5, "NDCG@10": 0.25}


def test_a_sweep_becomes_a_row_for_each_value(experiments: Path) -> None:
    points = [row for row in load_table(experiments / "paper/table1/toy.toml").rows if row.curve]
    assert [row.name for row in points] == ["SASRec, dropout = 0.0", "SASRec, dropout = 0.2"]
    assert [row.config.encoder.dropout for row in points if row.config] == [0.0, 0.2]  # type: ignore[attr-defined]
    assert {row.parameter for row in points} == {"encoder.dropout"}


def test_cells_of_a_sweep_go_to_their_values(experiments: Path) -> None:
    sweep = (
        '[[sweep]]\nname = "S"\nexperiment = "next_item/toy.paper.toml"\npreset = "paper"\n'
        'parameter = "training.batch_size"\nvalues = [32, 64]\ncells = { "HR@10" = [0.1, 0.2] }\n'
    )
    assert [row.cells["HR@10"] for row in table(experiments, sweep).rows] == [0.1, 0.2]
    with pytest.raises(ValueError, match=r"'S': cells of a sweep are lists of 2 numbers \('': none\), found \[0.1\]"):
        table(experiments, sweep.replace("[0.1, 0.2]", "[0.1]"))


def test_a_row_may_be_a_point_and_a_sweep_is_its_points(experiments: Path) -> None:
    point = 'point = { curve = "C", setting = "a weight", value = 2 }\n'
    row = '[[row]]\nname = "R"\npreset = "ours"\nmethod = { name = "next_item" }\n' + point
    (found,) = table(experiments, row).rows
    assert (found.curve, found.parameter, found.value, found.swept) == ("C", "a weight", 2.0, False)
    sweep = (
        '[[sweep]]\nname = "S"\npreset = "ours"\nmethod = { name = "next_item" }\n'
        'parameter = "training.batch_size"\nvalues = [32, 64]\n'
    )
    assert all(one.swept for one in table(experiments, sweep).rows)
    with pytest.raises(ValueError, match="'S': a sweep has its parameter and values, a point is said of a row"):
        table(experiments, sweep + point)


def test_cells_of_a_sweep_may_have_gaps(experiments: Path) -> None:
    sweep = (
        '[[sweep]]\nname = "S"\nexperiment = "next_item/toy.paper.toml"\npreset = "paper"\n'
        'parameter = "training.batch_size"\nvalues = [32, 64]\ncells = { "NDCG@5" = [0.1, ""] }\n'
    )
    found = table(experiments, sweep)
    assert [row.cells for row in found.rows] == [{"NDCG@5": 0.1}, {}]
    # What is not printed is shown by the same metric, so that the points make one curve.
    assert [(one.metric, one.paper, one.verdict) for one in answers(found, [])] == [
        ("NDCG@5", 0.1, "not run"),
        ("NDCG@5", None, "not run"),
    ]


def test_a_row_says_what_it_shows_where_nothing_is_printed(experiments: Path) -> None:
    row = '[[row]]\nname = "A"\nexperiment = "next_item/toy.paper.toml"\npreset = "paper"\nshown = ["NDCG@5"]\n'
    assert [one.metric for one in answers(table(experiments, row), [])] == ["NDCG@5"]
    with pytest.raises(ValueError, match=r"'A': shown: .*NDGC"):
        table(experiments, row.replace("NDCG", "NDGC"))


def test_the_metric_of_a_figure_must_be_one(experiments: Path) -> None:
    row = '[[row]]\nname = "A"\nclosed = "no log"\n'
    assert table(experiments, row).metric is None
    assert table(experiments, 'metric = "NDCG@5"\n' + row).metric == "NDCG@5"
    with pytest.raises(ValueError, match=r"other\.toml: metric: .*NDGC"):
        table(experiments, 'metric = "NDGC@5"\n' + row)


def test_an_analysis_is_understood_before_anything_is_trained(experiments: Path) -> None:
    row = '[[row]]\nname = "A"\nexperiment = "next_item/toy.paper.toml"\npreset = "paper"\n'
    found = table(experiments, row + 'analysis = { name = "noise", shares = [0.0] }\n').rows[0].asked
    assert found is not None
    assert (found.name, found.history, found.settings["shares"]) == ("noise", "keep", [0.0])
    for analysis, message in (
        ('{ name = "noise", sharse = [0.0] }', "'A': analysis 'noise': unknown key 'sharse'; did you mean 'shares'"),
        ("{ shares = [0.0] }", "'A': an analysis needs a name, found {'shares': "),
        ('{ name = "nois" }', "'A': unknown analysis 'nois'; known: noise"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)) as raised:
            table(experiments, f"{row}analysis = {analysis}\n")
        assert "other.toml" in str(raised.value)
    with pytest.raises(ValueError, match="an analysis is of a model, and this row trains none"):
        table(experiments, '[[row]]\nname = "A"\nclosed = "x"\nanalysis = { name = "noise" }\n')


@pytest.mark.parametrize("kind", ["row", "sweep"])
@pytest.mark.parametrize("value", ["3", '{ name = "A" }', '["A"]'])
def test_rows_that_are_no_tables_are_refused_with_the_file(experiments: Path, kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"other\.toml: each {kind} stands under a heading \[\[{kind}\]\]"):
        table(experiments, f"{kind} = {value}\n")


def test_a_row_of_another_method_has_none_of_the_base_s_settings(experiments: Path) -> None:
    row = table(
        experiments,
        '[[row]]\nname = "D"\nexperiment = "next_item/toy.paper.toml"\npreset = "ours"\n'
        'method = { name = "duorec", temperature = 0.5 }\n',
    ).rows[0]
    assert row.config is not None
    assert row.config.method_name == "duorec"
    assert row.config.method.temperature == 0.5
    assert row.config.encoder.width == 8


def test_seeds_begin_with_the_file_s(experiments: Path) -> None:
    row = load_table(experiments / "paper/table1/toy.toml").rows[0]
    assert [config.training.seed for config in row.seeded(3)] == [3, 4, 5]
    assert len({config.digest for config in row.seeded(3)}) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('name = "A"', "'A': expected one of experiment or method, closed, or floor"),
        ('name = "A"\nclosed = "x"\nfloor = "popularity"', "expected one of experiment or method, closed, or floor"),
        ('name = "A"\nexperiment = "next_item/toy.paper.toml"', "expected a preset"),
        ('name = "A"\nclosed = "x"\nclossed = "y"', "'clossed'"),
        ('name = "A"\nclosed = "x"\ncells = { "HR@10" = "high" }', "'HR@10'"),
        ('name = "A"\nclosed = "x"\nparameter = "method.loss"', "a sweep has a parameter"),
        ('name = "A"\npreset = "ours"\nmethod = { name = "next_item", losss = 1 }', "losss"),
        (
            'name = "A"\nclosed = "x"\npoint = { curve = "A", setting = "s", value = 1 }',
            "a point of a curve is trained",
        ),
        ('name = "A"\nclosed = "x"\npoint = { curve = "A", setting = "a.b", value = 1 }', "setting"),
        ('name = "A"\nclosed = "x"\npoint = { curve = "A", setting = "s" }', "value"),
    ],
)
def test_a_row_that_says_too_much_or_too_little_is_refused(experiments: Path, row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        table(experiments, f"[[row]]\n{row}\n")
    assert "other.toml" in str(raised.value)


def test_a_base_that_is_not_there_is_named(experiments: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.toml does not exist"):
        table(experiments, '[[row]]\nname = "A"\nexperiment = "nothing.toml"\npreset = "paper"\n')


def test_two_rows_of_one_name_are_refused(experiments: Path) -> None:
    with pytest.raises(ValueError, match="two rows of one name and preset: A"):
        table(experiments, '[[row]]\nname = "A"\nclosed = "x"\n[[row]]\nname = "A"\nclosed = "x"\n')


def test_a_study_is_a_table_a_paper_or_all_of_them(experiments: Path) -> None:
    assert [one.study for one in find_tables(experiments, "paper/table1")] == ["paper/table1"]
    assert len(find_tables(experiments, "paper")) == len(find_tables(experiments, "all")) == 1
    with pytest.raises(ValueError, match="unknown study 'papr/table1'; known: paper/table1"):
        find_tables(experiments, "papr/table1")


def test_part_of_a_table_can_be_chosen(experiments: Path) -> None:
    tables = find_tables(experiments, "all")
    assert [row.name for row in chosen(tables, row="binary")[0].rows] == ["SASRec, binary"]
    assert [row.name for row in chosen(tables, row="sasrec")[0].rows] == ["SASRec"]
    assert [row.value for row in chosen(tables, row="SASRec, dropout")[0].rows] == [0.0, 0.2]
    assert all(row.preset == "paper" for row in chosen(tables, preset="paper")[0].rows)
    with pytest.raises(ValueError, match="no table for data set sports; known: toy"):
        chosen(tables, ("sports",))
    with pytest.raises(ValueError, match=r"no row is called 'duorec'; rows: BPR, PopRec, SASRec \(paper\)"):
        chosen(tables, row="duorec")
    with pytest.raises(ValueError, match=r"^no row with preset released; rows: BPR"):
        chosen(tables, preset="released")


def test_a_row_is_chosen_among_those_of_the_data_sets_that_are_asked_for(experiments: Path) -> None:
    one = find_tables(experiments, "all")[0]
    longer = tuple(replace(row, name=f"{row.name} (prefixes)") for row in one.rows)
    found = chosen([one, replace(one, dataset="other", rows=longer)], ("other",), row="SASRec")
    assert found[0].rows[0].name == "SASRec (prefixes)"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("NDGC@10", "cell 'NDGC@10': unknown metric 'NDGC@10'; did you mean 'NDCG@10'"),
        ("HR@7", "cell 'HR@7': runs are judged at 5, 10, 20, 50, not at 7"),
        ("HR@7 sd", "cell 'HR@7': runs are judged at"),
    ],
)
def test_a_cell_that_no_run_can_answer_is_refused(experiments: Path, cell: str, message: str) -> None:
    file = experiments / "paper/table1/toy.toml"
    file.write_text(file.read_text().replace('"HR@10" = 0.5, "NDCG@10" = 0.25', f'"{cell}" = 0.5'))
    with pytest.raises(ValueError, match=rf"row 'SASRec'.*{message}"):
        load_table(file)
