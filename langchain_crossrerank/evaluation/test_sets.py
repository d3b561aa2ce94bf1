"""Test sets in one file: questions with the texts that answer them, from ragas, LangSmith, LlamaIndex and SQuAD."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from langchain_crossrerank.checks import cut, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.collection import Collection, assemble, load_beir
from langchain_crossrerank.evaluation.judgements import Qrels, fit_qrels
from langchain_crossrerank.evaluation.records import Record, plain_key, read_json, read_records
from langchain_crossrerank.evaluation.rows import whole_number
from langchain_crossrerank.passages import flat_text

_QUESTIONS = ("userinput", "question", "query", "input")
_CONTEXTS = ("referencecontexts", "referencecontext", "groundtruthcontexts", "goldcontexts", "positivecontexts")
_ANY_CONTEXTS = ("contexts", "context", "documents", "passages", "sourcedocuments")
_RETRIEVED = "sourcedocuments"
_ANSWERS = ("answer", "response", "result", "retrievedcontexts")
_TEXTS = ("pagecontent", "text", "content", "contents")

# SQuAD's answers without a text, as JSON, Python or numpy write them into a cell.
_NO_ANSWERS = re.compile(r"""\[\s*\]|\{.*["']text["']:\s*(array\()?\[\s*\].*\}""", re.DOTALL)
_NOTHING = frozenset({"", "nan", "none", "null", "<na>"})
_LIST_START = re.compile(r"""\[\s*(['"{\[]|\w+\()""")

_TELLING_CHARACTERS = 20
_TELLING_SHARE = 0.25

# Thai, Japanese and Chinese are written without spaces, so that every character may be a border.
_LETTER = r"[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]"
_WORD_BORDER = f"(?:(?<!{_LETTER})|(?!{_LETTER}))"


def load_collection(
    path: str | os.PathLike[str],
    *,
    qrels: str | os.PathLike[str] | None = None,
    split: str | None = None,
    documents: Sequence[Document] | None = None,
) -> Collection:
    """Read a collection: a folder in BEIR layout, or a test set in one file.

    A test set is a file of ragas (`user_input` or `question`, and `reference_contexts`), of LangSmith (`inputs` and
    `outputs` with a question and its contexts), of LlamaIndex (`queries`, `corpus`, `relevant_docs`) or of SQuAD; as
    JSON, JSON Lines, CSV or Parquet.

    Args:
        path: The folder or file.
        qrels: File of a folder's judgements; see `load_beir`.
        split: Split of a folder's judgements; see `load_beir`.
        documents: For a test set, your own documents with ids; a document answers a question if one of the question's
            contexts contains it or is contained in it, white space aside, in whole words, and the shorter text has 20
            characters or a quarter of the longer one. `None` makes a document of each context.

    Returns:
        The collection.

    Raises:
        InvalidInputError: If the path is not there, is in no known form, or no context is found in `documents`.
    """
    if Path(path).is_dir():
        if documents is not None:
            raise InvalidInputError("documents= goes with a test set in one file; a folder has its own corpus.")
        return load_beir(path, qrels=qrels, split=split)
    if not Path(path).exists():
        raise InvalidInputError(
            f"there is no file or folder {os.fspath(path)!r}; pass a BEIR folder, or a test set in one file."
        )
    if qrels is not None or split is not None:
        raise InvalidInputError(
            f"{os.fspath(path)!r} is a file with its own judgements; leave qrels= and split= out (on the command line "
            "--qrels and --split)."
        )
    content = read_json(path)
    if isinstance(content, dict) and {"queries", "corpus", "relevant_docs"} <= content.keys():
        return _from_llama_index(content, os.fspath(path))
    test_set = _TestSet()
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        test_set.add_all(_squad_questions(content["data"], os.fspath(path)))
    else:
        test_set.add_all(_questions(path))
    return test_set.collection(documents, where=os.fspath(path))


@dataclass
class _TestSet:
    """Questions with the texts that answer them.

    Attributes:
        questions: Question and contexts by query id.
        unanswerable: Questions without an answer, which cannot be judged.
    """

    questions: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    unanswerable: int = 0

    def add_all(self, entries: Iterable[tuple[str, str, list[str]]]) -> None:
        for key, question, contexts in entries:
            if not contexts:
                self.unanswerable += 1
                continue
            if key in self.questions:
                raise InvalidInputError(f"the query id {key!r} comes twice; ids must be unique.")
            self.questions[key] = (question, contexts)

    def collection(self, documents: Sequence[Document] | None, *, where: str) -> Collection:
        """Judge each question's contexts relevant, among `documents` or as documents of their own."""
        if not self.questions:
            raise InvalidInputError(f"{where} has no question with reference contexts; there is nothing to measure.")
        notes = []
        if self.unanswerable:
            notes.append(f"{self.unanswerable} questions have no reference contexts and are left out.")
        if documents is None:
            documents = self._context_documents()
            notes.append(
                f"The corpus is only the {len(documents)} reference contexts of the test set: finding the answer among "
                "them is easier than in your whole index."
            )
        matches = self._match(documents)
        qrels = matches.qrels
        if matches.lost:
            notes.append(f"{matches.lost} reference contexts are in none of the documents.")
        if matches.doubtful:
            notes.append(
                f"{len(matches.doubtful)} documents share only a few characters or a part of a word with a reference "
                f"context and are not judged by it, for example {shorten(next(iter(matches.doubtful)))}."
            )
        if not qrels:
            raise InvalidInputError(
                f"none of the reference contexts of {where} is in the documents; pass the documents that the test set "
                "was made from."
            )
        left_out = len(self.questions) - len(qrels)
        if left_out:
            notes.append(f"{left_out} questions are left out, because none of their contexts was found.")
        queries = {key: question for key, (question, _) in self.questions.items()}
        return assemble(documents, queries, qrels, notes=notes)

    def _context_documents(self) -> list[Document]:
        texts = {flat_text(text): text for _, contexts in self.questions.values() for text in contexts}
        return [Document(text, id=f"c{number}") for number, text in enumerate(texts.values())]

    def _match(self, documents: Sequence[Document]) -> _Matches:
        by_text: dict[str, list[str]] = {}
        for document in documents:
            if document.id is None:
                raise InvalidInputError(f"a document has no id ({document.page_content[:60]!r}); set Document.id.")
            by_text.setdefault(flat_text(document.page_content), []).append(document.id)
        matches = _Matches()
        for key, (_, contexts) in self.questions.items():
            for context in map(flat_text, contexts):
                # Whole equality is looked up; only a context that was cut otherwise is searched for.
                found = by_text.get(context) or matches.search(context, by_text)
                matches.lost += not found
                if found:
                    matches.qrels.setdefault(key, {}).update(dict.fromkeys(found, 1))
        return matches


@dataclass
class _Matches:
    """Which documents answer which questions.

    Attributes:
        qrels: The judgements.
        lost: Reference contexts that are in no document.
        doubtful: Ids of documents that share too little with a context to be judged by it.
    """

    qrels: Qrels = field(default_factory=dict)
    lost: int = 0
    doubtful: dict[str, None] = field(default_factory=dict)

    def search(self, context: str, by_text: Mapping[str, list[str]]) -> list[str]:
        """Return the ids of the documents that contain a context or are a part of it."""
        found: list[str] = []
        for text, ids in by_text.items():
            part, whole = sorted((context, text), key=len)
            if part and part in whole:
                if _is_telling(part, whole):
                    found += ids
                else:
                    self.doubtful |= dict.fromkeys(ids)
        return found


def _is_telling(part: str, whole: str) -> bool:
    """Whether a text that is in another is not there by chance, as a page number or a part of a word is."""
    if len(part) < min(_TELLING_CHARACTERS, _TELLING_SHARE * len(whole)):
        return False
    return re.search(_WORD_BORDER + re.escape(part) + _WORD_BORDER, whole) is not None


def _questions(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, list[str]]]:
    header = frozenset({*_QUESTIONS, *_CONTEXTS, *_ANY_CONTEXTS, "id", "inputs"})
    names = header | {"outputs", "referenceoutputs"}
    for number, record in enumerate(read_records(path, header_keys=header, names=names)):
        if not isinstance(record.fields, Mapping):
            raise InvalidInputError(f"{record.where}: a test set needs a header with a question and its contexts.")
        fields = _flattened(record)
        question = next((fields[key] for key in _QUESTIONS if isinstance(fields.get(key), str)), None)
        if question is None or not question.strip():
            raise InvalidInputError(
                f"{record.where}: no question; name it user_input, question or query; the keys are "
                f"{list(record.fields)}."
            )
        yield str(fields.get("id") or f"q{number}"), question, _contexts(record, fields)


def _flattened(record: Record) -> dict[str, Any]:
    """Lift LangSmith's `inputs` and `outputs` up; in a CSV export they are JSON."""
    fields = {plain_key(key): value for key, value in record.fields.items()}  # type: ignore[union-attr]
    if "referenceoutputs" in fields:
        # Beside these, `outputs` is what a run answered and found.
        fields.pop("outputs", None)
    for part in ("inputs", "outputs", "referenceoutputs"):
        value = fields.pop(part, None)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if isinstance(value, Mapping):
            fields.update({plain_key(key): entry for key, entry in value.items()})
            # An example's outputs are references, its answer as well.
            for name in ("answer", "response", "result"):
                fields.pop(name, None)
    return fields


def _contexts(record: Record, fields: Mapping[str, Any]) -> list[str]:
    """The texts that answer a question; none for one that cannot be answered.

    Raises:
        InvalidInputError: If they may be what a system retrieved, or are not there.
    """
    key = next((key for key in (*_CONTEXTS, *_ANY_CONTEXTS) if key in fields), None)
    if key is None:
        raise InvalidInputError(
            f"{record.where}: no reference contexts; name them reference_contexts; the keys are {list(record.fields)}."
        )
    value = _unpacked(record, fields[key])
    if key in _CONTEXTS:
        return _texts(record, value)
    # One text with its answer is a data set of questions; a list with an answer is what a chain returned.
    is_one_text = key == "context" and isinstance(value, str)
    if key == _RETRIEVED or (not is_one_text and any(name in fields for name in _ANSWERS)):
        raise InvalidInputError(
            f"{record.where}: {_name_of(record, key)!r} {'' if key == _RETRIEVED else 'next to an answer '}is what a "
            "system retrieved and not what is right; name the right ones reference_contexts."
        )
    return _texts(record, value) if _is_answerable(fields) else []


def _name_of(record: Record, key: str) -> str:
    return next((str(name) for name in record.fields if plain_key(name) == key), key)


def _is_answerable(fields: Mapping[str, Any]) -> bool:
    """Whether SQuAD's fields of a question say that its context answers it."""
    if str(fields.get("isimpossible")).casefold() in ("true", "1"):
        return False
    answers = fields.get("answers")
    if isinstance(answers, Mapping):
        answers = answers.get("text")
    if isinstance(answers, str):
        return _NO_ANSWERS.fullmatch(answers.strip()) is None
    return bool(answers != [])


def _unpacked(record: Record, value: Any) -> Any:
    """A list that JSON, Python or numpy wrote into a CSV cell; other values as they are.

    Raises:
        InvalidInputError: If a cell looks like a list and cannot be read as one.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    cell = value.strip()
    for read in (json.loads, _strings, ast.literal_eval):
        try:
            return read(cell)
        except (ValueError, SyntaxError, tokenize.TokenError, RecursionError):
            continue
    if cell.endswith("]") or _LIST_START.match(cell):
        raise InvalidInputError(
            f"{record.where}: the cell {cut(cell, 80)!r} looks like a list and cannot be read; write it as JSON, such "
            'as ["one text", "another"].'
        )
    return value


def _strings(cell: str) -> list[str]:
    """Read a list of strings as Python writes it, or as numpy does, without commas.

    Raises:
        ValueError: If it holds something else.
    """
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(cell).readline) if token.string.strip()]
    first, *inner, last = tokens
    if (
        first.string != "["
        or last.string != "]"
        or any(token.type != tokenize.STRING and token.string != "," for token in inner)
    ):
        raise ValueError("not a list of strings")
    return [ast.literal_eval(token.string) for token in inner if token.type == tokenize.STRING]


def _texts(record: Record, value: Any) -> list[str]:
    if value is None or str(value).strip().casefold() in _NOTHING:
        return []
    if isinstance(value, str | Mapping):
        value = [value]
    texts = []
    for entry in value if isinstance(value, Sequence) else [value]:
        text = entry
        if isinstance(entry, Mapping):
            text = next((entry[key] for key in entry if plain_key(key) in _TEXTS), None)
        if not isinstance(text, str):
            raise InvalidInputError(f"{record.where}: a reference context is {entry!r}; it must be text.")
        if text.strip():
            texts.append(text)
    return texts


def _squad_questions(data: Sequence[Any], where: str) -> Iterator[tuple[str, str, list[str]]]:
    try:
        for article in data:
            for paragraph in article["paragraphs"]:
                context = str(paragraph["context"])
                for entry in paragraph["qas"]:
                    possible = not entry.get("is_impossible", False)
                    yield str(entry["id"]), str(entry["question"]), [context] if possible else []
    except (KeyError, TypeError, AttributeError) as err:
        raise InvalidInputError(
            f"{where} has a list 'data' but not SQuAD's paragraphs, context and qas ({type(err).__name__}: {err})."
        ) from err


def _from_llama_index(content: Mapping[str, Any], where: str) -> Collection:
    try:
        documents = [Document(text, id=str(key)) for key, text in content["corpus"].items()]
        queries = {str(key): str(text) for key, text in content["queries"].items()}
        qrels = {
            str(key): {str(name): 1 for name in found}
            if not isinstance(found, Mapping)
            else {str(name): whole_number(grade) for name, grade in found.items()}
            for key, found in content["relevant_docs"].items()
        }
    except (AttributeError, TypeError, ValueError) as err:
        raise InvalidInputError(f"{where}: not LlamaIndex's queries, corpus and relevant_docs ({err}).") from err
    fitted = fit_qrels(qrels, queries, {str(document.id) for document in documents}, where=where)
    return assemble(documents, queries, fitted.qrels, notes=fitted.notes)
