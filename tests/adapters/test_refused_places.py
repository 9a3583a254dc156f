"""Names an adapter may not have, and places it may not be written to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreword.adapters.folder import Folder, check_name, read_whole, write_folder
from foreword.errors import AdapterError

FILES = {"adapter_model.safetensors": b"a", "adapter_config.json": b"b", "foreword.json": b"c"}
BAD = [
    "",
    ".",
    "..",
    "../x",
    "/x",
    "a/b",
    "a\\b",
    "a\0b",
    ".x",
    "-x",
    "a b",
    "é",
    "a\n",
    "x.",
    "x.run",
    "con",
    "NUL.txt",
    "com1",
    "a" * 101,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(AdapterError) as error:
        check_name(name)
    assert str(error.value) == (
        f"adapter name {name!r} cannot be used; give at most 100 letters (a to z), digits, '.', '_' or '-', "
        "beginning with a letter or digit, not ending in '.' or '.run', and no device name such as 'con'."
    )


@pytest.mark.parametrize("name", ["a", "sst2", "Qwen3-0.6B_v1.2", "0", "console", "run", "a" * 100])
def test_a_plain_name_is_taken(name: str) -> None:
    assert check_name(name) == name


def test_a_path_is_named_by_its_last_part(tmp_path: Path) -> None:
    assert write_folder(tmp_path / "two words" / "a", FILES) == tmp_path / "two words" / "a"
    with pytest.raises(AdapterError, match=r"^adapter name '\.\.' cannot be used; "):
        write_folder(tmp_path / "two words" / "..", FILES)
    with pytest.raises(AdapterError) as error:
        write_folder("a\0b/c", FILES)
    assert str(error.value) == "path 'a\\x00b/c' contains a NUL character, which file systems do not allow; remove it."


def test_an_adapter_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", FILES)
    with pytest.raises(AdapterError) as error:
        write_folder(tmp_path / "a", FILES)
    assert str(error.value) == (
        f"'{tmp_path / 'a'}' already holds an adapter; choose another name, or give --force (overwrite=True) to replace it."
    )
    write_folder(tmp_path / "a", {**FILES, "foreword.json": b"d"}, overwrite=True)
    assert (tmp_path / "a" / "foreword.json").read_bytes() == b"d"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("inside", ["notes.txt", "adapter_config.json"])
def test_another_folder_is_never_replaced(inside: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / inside).write_text("mine")
    with pytest.raises(AdapterError) as error:
        write_folder(tmp_path / "a", FILES, overwrite=True)
    assert (
        str(error.value)
        == f"'{tmp_path / 'a'}' is a folder that holds files, but no foreword.json, so it is not replaced; choose another name."
    )
    assert (tmp_path / "a" / inside).read_text() == "mine"


def test_a_folder_with_folders_is_never_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", FILES)
    write_folder(tmp_path / "a" / "b", FILES)
    with pytest.raises(AdapterError) as error:
        write_folder(tmp_path / "a", FILES, overwrite=True)
    assert str(error.value) == f"'{tmp_path / 'a'}' is a folder that holds b/, so it is not replaced; choose another name."


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(AdapterError) as error:
        write_folder(tmp_path / "a", FILES, overwrite=True)
    assert str(error.value) == f"'{tmp_path / 'a'}' is a file, so no adapter can be written there; choose another name."


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_folder(tmp_path / "a", FILES)
    assert sorted(os.listdir(tmp_path / "a")) == sorted(FILES)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", FILES)
    (tmp_path / "link").symlink_to("a")
    write_folder(tmp_path / "link", {**FILES, "foreword.json": b"d"}, overwrite=True)
    assert (tmp_path / "a" / "foreword.json").read_bytes() == b"d"
    assert (tmp_path / "link").is_symlink()


def test_a_parent_that_is_a_file_is_the_systems_refusal(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(AdapterError) as error:
        write_folder(tmp_path / "a" / "b", FILES)
    assert str(error.value) == (
        f"adapter '{tmp_path / 'a' / 'b'}' could not be written (File exists); nothing was replaced; "
        "free some space or choose another folder."
    )


def test_a_file_is_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(AdapterError) as error:
        read_whole(tmp_path / "a", lambda folder: folder)
    assert (
        str(error.value)
        == f"adapter '{tmp_path / 'a'}' is a file, but an adapter is a folder; give the folder that holds its foreword.json."
    )


def test_a_folder_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path, reads = tmp_path / "a", []
    write_folder(path, FILES)

    def read(folder: Folder) -> bytes:
        first = folder.read("adapter_config.json")
        if not reads:
            write_folder(path, {**FILES, "adapter_config.json": b"e", "foreword.json": b"e"}, overwrite=True)
        reads.append(first)
        if folder.read("foreword.json") != first:
            raise AdapterError("a mixture")
        return first

    assert read_whole(path, read) == b"e"
    assert reads == [b"b", b"e"]


def test_an_error_of_a_folder_that_stays_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", FILES)
    with pytest.raises(AdapterError) as error:
        read_whole(tmp_path / "a", lambda folder: folder.read("README.md"))
    assert (
        str(error.value) == f"adapter '{tmp_path / 'a'}' has a README.md that cannot be read (No such file or directory); check the folder."
    )
