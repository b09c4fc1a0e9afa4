from __future__ import annotations

from pathlib import Path

import pytest

from conseq.data.folders import atomic_folder


def _write(folder: Path, content: str, *, replaceable: bool = True) -> None:
    with atomic_folder(folder, replaceable=lambda _: replaceable) as temporary:
        (temporary / "file").write_text(content)


def _fail(folder: Path) -> None:
    with atomic_folder(folder, replaceable=lambda _: True) as temporary:
        (temporary / "file").write_text("half")
        raise OSError("no space left")


def _alone(folder: Path) -> bool:
    return [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_new_folder_appears_with_its_parents(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "b" / "c", "new")
    assert (tmp_path / "a/b/c/file").read_text() == "new"
    assert _alone(tmp_path / "a/b/c")


def test_an_older_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    _write(folder, "old")
    (folder / "more").write_text("x")
    _write(folder, "new")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("file", "new")]
    assert _alone(folder)


def test_the_older_folder_survives_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    _write(folder, "old")
    with pytest.raises(OSError, match="no space left"):
        _fail(folder)
    assert (folder / "file").read_text() == "old"
    assert _alone(folder)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_older_folder_survives_a_failure_to_put_the_new_one_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    folder = tmp_path / "a"
    _write(folder, "old")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise error("cannot rename")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(error, match="cannot rename"):
        _write(folder, "new")
    assert (folder / "file").read_text() == "old"
    assert _alone(folder)


def test_what_came_into_the_folder_meanwhile_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    meets = pytest.raises(FileExistsError, match="a holds other files")
    with meets, atomic_folder(folder, replaceable=lambda _: False) as temporary:
        (temporary / "file").write_text("new")
        (folder / "thesis").write_text("years of work")
    assert [path.name for path in folder.iterdir()] == ["thesis"]
    assert _alone(folder)


@pytest.mark.parametrize("older", [False, True])
def test_of_two_that_write_one_folder_at_once_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    folder, rename = tmp_path / "a", Path.rename
    if older:
        _write(folder, "old")

    def meets_another(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            monkeypatch.setattr(Path, "rename", rename)
            _write(folder, "the other's")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", meets_another)
    with pytest.raises(FileExistsError, match="another process has just written"):
        _write(folder, "mine")
    assert (folder / "file").read_text() == "the other's"
    assert _alone(folder)


def test_a_mount_point_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "a")
    with pytest.raises(OSError, match="a is a mount point"):
        _write(tmp_path / "a", "new")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_new_folder_that_failed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        _fail(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _write(tmp_path / "a", "new", replaceable=False)
    assert (tmp_path / "a/file").read_text() == "new"


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis").write_text("x")
    with pytest.raises(FileExistsError, match="holds other files; choose a new or an empty folder"):
        _write(tmp_path / "a", "new", replaceable=False)
    assert (tmp_path / "a/thesis").read_text() == "x"
    assert _alone(tmp_path / "a")


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(FileExistsError, match="is a file"):
        _write(tmp_path / "a", "new")
    with pytest.raises(OSError, match="a"):
        _write(tmp_path / "a" / "b", "new")
    assert (tmp_path / "a").read_text() == "x"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    _write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    _write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/file").read_text() == "new"
