"""Tables read strictly: what a row is, what a sweep becomes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conseq.study.specification import Table, chosen, find_tables, load_table


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
    with pytest.raises(ValueError, match=r"'S': cells of a sweep are lists of 2 numbers, found \[0.1\]"):
        table(experiments, sweep.replace("[0.1, 0.2]", "[0.1]"))


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
    with pytest.raises(ValueError, match="no row is called 'duorec'"):
        chosen(tables, row="duorec")
