"""CoNLL and CoNLL-U files: what is read, and every broken one in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreword.errors import DataError
from foreword.tasks.data import reader

U = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\tS\t_\t5\tcase\t_\t_
4\tel\tel\tDET\tD\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\tN\t_\t1\tobl\t_\t_

# sent_id = 2
1\tJuan\tJuan\tPROPN\tNP\t_\t0\troot\t_\t_
1.1\ttiene\ttener\tVERB\tV\t_\t_\t_\t_\t_
2\t#\t#\tSYM\tF\t_\t1\tdep\t_\t_
"""
CONLL = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O

# NN I-NP O
Paris NNP I-NP B-LOC
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def rows(path: Path, **columns: str) -> list[tuple[list[str], list[str]]]:
    return [(json.loads(row["tokens"]), json.loads(row["tags"])) for row in reader.read(path, columns=columns)]


def test_conllu_gives_syntactic_words_with_their_parts_of_speech(tmp_path: Path) -> None:
    path = written(tmp_path, "a.conllu", U)
    assert rows(path) == [
        (["vamos", "nos", "a", "el", "mar"], ["VERB", "PRON", "ADP", "DET", "NOUN"]),
        (["Juan", "#"], ["PROPN", "SYM"]),
    ]
    assert rows(path, tags="xpos")[1] == (["Juan", "#"], ["NP", "F"])
    assert rows(path, tokens="lemma", tags="deprel")[1] == (["Juan", "#"], ["root", "dep"])


def test_windows_line_ends_and_a_missing_last_line_change_nothing(tmp_path: Path) -> None:
    plain = rows(written(tmp_path, "a.conllu", U))
    assert rows(written(tmp_path, "b.conllu", "\ufeff" + U.rstrip().replace("\n", "\r\n"))) == plain


def test_conll_reads_the_first_and_the_last_column(tmp_path: Path) -> None:
    path = written(tmp_path, "a.conll", CONLL)
    assert rows(path) == [(["U.N.", "official"], ["I-ORG", "O"]), (["#", "Paris"], ["O", "B-LOC"])]
    assert rows(path, tags="2")[0] == (["U.N.", "official"], ["NNP", "NN"])


def test_tabs_keep_spaces_inside_words_and_comments_are_no_words(tmp_path: Path) -> None:
    path = written(tmp_path, "a.iob2", "# id 7\tdomain=news\textra\nNew York\tB-LOC\n#hash\tO\n\n# id 8 x\n10\u00a0000\tO\n")
    assert rows(path) == [(["New York", "#hash"], ["B-LOC", "O"]), (["10\u00a0000"], ["O"])]


def test_a_file_without_tags_has_tokens_alone(tmp_path: Path) -> None:
    assert reader.read(written(tmp_path, "a.conll", "a\njoy\n\nto\n")) == [{"tokens": '["a", "joy"]'}, {"tokens": '["to"]'}]
    bare = "1\tun\t_\t_\t_\t_\t_\t_\t_\t_\n"
    assert reader.read(written(tmp_path, "a.conllu", bare)) == [{"tokens": '["un"]'}]


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("a.conll", "\n\n", {}, "'{path}' has no examples; give a file with at least one row."),
        ("a.conll", "a DT O\njoy NN\n", {}, "line 2 of '{path}' has 2 columns, but line 1 has 3; give each word as many."),
        (
            "a.conll",
            "1 a DT\n2 joy NN\n",
            {},
            "the first column of '{path}' counts the words; give the file's name the ending .conllu, or choose columns with --columns tokens=2,tags=3.",
        ),
        ("a.conll", "a DT\n", {"tags": "3"}, "'{path}' has no column '3' to read as 'tags' (found: 1, 2); correct --columns."),
        (
            "a.conll",
            "a DT\n",
            {"text": "1"},
            "'{path}' is read as tokens and tags, but --columns names 'text'; name one of these, or leave it out.",
        ),
        (
            "a.conllu",
            "1 a a DET\n",
            {},
            "line 1 of '{path}' lacks the 10 columns of CoNLL-U with tabs between (found: 1); mend it, or name the file .conll.",
        ),
        (
            "a.conllu",
            "# x\n" + "\t".join(["1", "a", "a", "DET", *["_"] * 6]) + "\n" + "\t".join(["3", "b", "b", "DET", *["_"] * 6]) + "\n",
            {},
            "line 3 of '{path}' has the word number '3' where 2 is due; number words from 1, with empty lines between sentences.",
        ),
        (
            "a.conllu",
            "\t".join(["1", "a", "a", "DET", *["_"] * 6]) + "\n" + "\t".join(["2", "b", *["_"] * 8]) + "\n",
            {},
            "line 2 of '{path}' has no upos though others have; fill it, or choose another column with --columns tags=NAME.",
        ),
        (
            "a.conllu",
            "\t".join(["1", "a", "a", "DET", *["_"] * 6]) + "\n",
            {"tags": "pos"},
            "'{path}' has no column 'pos' to read as 'tags' (found: id, form, lemma, upos, xpos, feats, head, deprel, deps, misc); correct --columns.",
        ),
    ],
)
def test_broken_files_get_one_sentence(name: str, text: str, columns: dict[str, str], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(DataError) as caught:
        reader.read(path, columns=columns)
    assert str(caught.value) == message.format(path=path)
