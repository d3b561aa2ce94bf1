"""Pairs put together from parts: the tokenizer's own ids, whatever the text, the tokenizer and the limit."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from langchain_crossrerank.cross_encoders import pair_encoder
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.pair_encoder import PairEncoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError

SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<mask>", "<unk>")
LENGTHS = (16, 32, 128, 512)

CORPUS = [
    "a cross-encoder reads a query and a passage together and says how well the passage answers",
    "Naïve café, 東京 and שלום: any text may come, 🙂 too",
    "the ferry leaves at nine; tickets are 12.50 and children under 6 go free\n\nsee the timetable",
] * 3


def wordpiece() -> Tokenizer:
    """The bundled model's tokenizer."""
    return Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))


@cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return str(tokenizer.to_str())


def roberta() -> Tokenizer:
    """A byte-level tokenizer with RoBERTa's frame: two separators between the texts, one segment."""
    return Tokenizer.from_str(_byte_level())


@cache
def _unigram() -> str:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=150,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return str(tokenizer.to_str())


def xlm_roberta() -> Tokenizer:
    """A Unigram tokenizer with a metaspace before every word, as XLM-RoBERTa has it."""
    return Tokenizer.from_str(_unigram())


def first_word_only() -> Tokenizer:
    """A Unigram tokenizer that puts a metaspace before the first word only."""
    tokenizer = xlm_roberta()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    return tokenizer


def passage_first() -> Tokenizer:
    """A frame in which the second text comes before the first."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $B:1 [SEP]:1 $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def query_twice() -> Tokenizer:
    """A frame that says the first text again behind the second."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1 $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def bare() -> Tokenizer:
    """No frame at all: the texts one behind the other."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    return tokenizer


def odd_segments() -> Tokenizer:
    """A frame with separators in segments of their own."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:3 [CLS]:4 $A:5 [SEP]:6 $B:7 [SEP]:8 [SEP]:9",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


ASSEMBLED = (wordpiece, roberta, xlm_roberta, first_word_only, bare, odd_segments)
WHOLE = (passage_first, query_twice)


@cache
def encoder_and_tokenizer(
    make: Callable[[], Tokenizer], max_length: int, side: str = "right"
) -> tuple[PairEncoder, Tokenizer]:
    """An encoder, and a separate tokenizer to compare it with."""
    own = make()
    own.no_padding()
    own.enable_truncation(max_length, strategy="only_second", direction=side)
    return PairEncoder(make(), max_length, side), own


def check_equal(make: Callable[[], Tokenizer], max_length: int, pairs: Sequence[TextPair]) -> int:
    """Compare every pair whose query leaves tokens for the passage with the tokenizer itself; return how many."""
    encoder, own = encoder_and_tokenizer(make, max_length)
    fitting = [pair for pair in pairs if encoder.passage_budget(pair[0]) > 0]
    for pair, made in zip(fitting, encoder.encode(fitting), strict=True):
        expected = own.encode(*pair)
        found = (made.ids.tolist(), made.type_ids.tolist(), made.truncated)
        assert found == (expected.ids, expected.type_ids, bool(expected.overflowing)), (pair, max_length)
        assert len(made.ids) <= max_length or not encoder.assembles
    return len(fitting)


texts = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(SPECIAL),
        st.sampled_from([" ", "\n", "\u00a0", "\u200b", "▁", "word ", "naïve", "ﬁ", "각각", "e\u0301", "\x00", "🙂"]),
    ),
    max_size=8,
).map("".join)
long_texts = st.tuples(texts, st.integers(1, 400)).map(lambda drawn: drawn[0] * drawn[1] if drawn[0] else "word " * 9)


@pytest.mark.parametrize("make", [*ASSEMBLED, *WHOLE])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    query=texts,
    passages=st.lists(st.one_of(texts, long_texts), min_size=1, max_size=4),
    length=st.sampled_from(LENGTHS),
)
def test_ids_are_the_tokenizers_own(
    make: Callable[[], Tokenizer], query: str, passages: list[str], length: int
) -> None:
    """Ids, segments and the mark of truncation equal the tokenizer's own pair encoding, for any text and limit."""
    check_equal(make, length, [(query, passage) for passage in [*passages, ""]])


@pytest.mark.parametrize("make", ASSEMBLED)
@pytest.mark.parametrize("length", [15, 16, 17, 32])
def test_ids_agree_around_the_limit(make: Callable[[], Tokenizer], length: int) -> None:
    """Passages that just fit, just do not fit, and are far too long are cut where the tokenizer cuts them."""
    pairs = [("a query", " ".join(["word"] * words)) for words in (*range(40), 5000)]
    assert check_equal(make, length, pairs) == len(pairs)
    marks = {made.truncated for made in encoder_and_tokenizer(make, length)[0].encode(pairs)}
    assert marks == {False, True}


@pytest.mark.parametrize("make", [*ASSEMBLED, *WHOLE])
def test_the_beginning_is_cut_where_the_tokenizer_says_so(make: Callable[[], Tokenizer]) -> None:
    """With truncation on the left the end of a long passage is kept, as the tokenizer does it."""
    encoder, own = encoder_and_tokenizer(make, 32, "left")
    pairs = [("a query", "first " + "word " * words + "last") for words in (1, 20, 30, 500)]
    for pair, found in zip(pairs, encoder.encode(pairs), strict=True):
        assert (found.ids.tolist(), found.truncated) == (own.encode(*pair).ids, bool(own.encode(*pair).overflowing))


@pytest.mark.parametrize("make", ASSEMBLED)
def test_usual_frames_are_assembled(make: Callable[[], Tokenizer]) -> None:
    """Tokenizers with the query before the passage are put together from parts, which is what makes them fast."""
    assert PairEncoder(make(), 128).assembles


@pytest.mark.parametrize("make", WHOLE)
def test_unusual_frames_fall_back(make: Callable[[], Tokenizer]) -> None:
    """A tokenizer with another order encodes its pairs itself."""
    assert not PairEncoder(make(), 128).assembles


def test_a_frame_that_is_read_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If assembled probes differ from the tokenizer's, it encodes pairs itself, and ids stay right."""
    join = pair_encoder._Frame.join

    def careless(
        self: pair_encoder._Frame, query: object, passage: object, longer: bool, max_length: int, *, keeps_end: bool
    ) -> object:
        return join(self, query, passage, longer, max_length - 1, keeps_end=keeps_end)

    monkeypatch.setattr(pair_encoder._Frame, "join", careless)
    encoder = PairEncoder(wordpiece(), 32)
    assert not encoder.assembles
    own = encoder_and_tokenizer(wordpiece, 32)[1]
    assert encoder.encode([("a query", "word " * 90)])[0].ids.tolist() == own.encode("a query", "word " * 90).ids


def test_a_tokenizer_without_words_falls_back() -> None:
    """If no probe makes a token, the frame cannot be read."""
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))
    tokenizer.normalizer = normalizers.Replace("a", "")
    encoder = PairEncoder(tokenizer, 16)
    assert not encoder.assembles
    assert encoder.encode([("b", "c")])[0].ids.tolist() == [0, 0]


def test_a_hit_returns_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remembered passage has the same ids as before, with another query and without being tokenised."""
    encoder = PairEncoder(wordpiece(), 64)
    passages = ["", "word " * 200, "a passage", "[SEP] 東京"]
    first = encoder.encode([("one query", passage) for passage in passages])
    plain = encoder._plain

    class Tokenising:
        def encode(self, text: str, **options: bool) -> object:
            return plain.encode(text, **options)

    encoder._plain = Tokenising()  # type: ignore[assignment]  # has no encode_batch, so passages cannot be tokenised
    again = encoder.encode([("one query", passage) for passage in passages])
    assert [made.ids.tolist() for made in again] == [made.ids.tolist() for made in first]
    assert [made.truncated for made in again] == [False, True, False, False]
    own = encoder_and_tokenizer(wordpiece, 64)[1]
    other = encoder.encode([("something else", passage) for passage in passages])
    assert [made.ids.tolist() for made in other] == [own.encode("something else", text).ids for text in passages]


def test_what_is_given_out_cannot_change_what_is_kept() -> None:
    """Writing into the ids of one pair leaves the next encoding as it was."""
    encoder = PairEncoder(wordpiece(), 64)
    pair = ("a query", "a passage of some words")
    expected = encoder.encode([pair])[0].ids.tolist()
    encoder.encode([pair])[0].ids[:] = 0
    assert encoder.encode([pair])[0].ids.tolist() == expected


def test_memory_stays_within_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many passages come, what is kept stays below the limit, and the latest are among it."""
    monkeypatch.setattr(pair_encoder, "PASSAGE_CACHE_BYTES", 20_000)
    encoder = PairEncoder(wordpiece(), 64)
    for start in range(0, 600, 50):
        passages = [f"{number} " + "word " * (number % 90) for number in range(start, start + 50)]
        encoder.encode([("a query", passage) for passage in passages])
        with encoder._passages as passages_kept:
            assert sum(map(pair_encoder._entry_bytes, passages_kept.values())) == passages_kept.currsize <= 20_000
    check = encoder_and_tokenizer(wordpiece, 64)[1]
    assert encoder.encode([("a query", passages[-1])])[0].ids.tolist() == check.encode("a query", passages[-1]).ids
    with encoder._passages as passages_kept:
        assert 10 < len(passages_kept) < 100


def test_more_passages_at_once_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call with more passages than can be kept, some twice, is encoded whole."""
    monkeypatch.setattr(pair_encoder, "PASSAGE_CACHE_BYTES", 600)
    encoder, own = PairEncoder(wordpiece(), 32), encoder_and_tokenizer(wordpiece, 32)[1]
    pairs = [("a query", f"passage {number % 30}") for number in range(100)]
    assert [made.ids.tolist() for made in encoder.encode(pairs)] == [own.encode(*pair).ids for pair in pairs]
    with encoder._passages as passages_kept:
        assert 0 < passages_kept.currsize <= 600


def test_threads_get_their_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that encode at once, while memory is full and turns over, each get the tokenizer's ids."""
    monkeypatch.setattr(pair_encoder, "PASSAGE_CACHE_BYTES", 5_000)
    encoder, own = PairEncoder(wordpiece(), 48), encoder_and_tokenizer(wordpiece, 48)[1]
    pairs = [(f"query {number % 7}", f"passage {number} " + "word " * (number % 60)) for number in range(120)]
    expected = {pair: own.encode(*pair).ids for pair in pairs}

    def encode(seed: int) -> bool:
        mine = random.Random(seed).sample(pairs, 60)
        return [made.ids.tolist() for made in encoder.encode(mine)] == [expected[pair] for pair in mine]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(encode, range(64)))
    with encoder._passages as passages_kept:
        assert sum(map(pair_encoder._entry_bytes, passages_kept.values())) == passages_kept.currsize


@pytest.mark.parametrize(("words", "budget"), [(1, 28), (28, 1), (29, 0), (40, -11)])
def test_the_budget_is_what_the_query_leaves(words: int, budget: int) -> None:
    """The limit less the query's tokens and the frame's four of this tokenizer is what a passage may take."""
    special = wordpiece().num_special_tokens_to_add(is_pair=True)
    assert PairEncoder(wordpiece(), 32).passage_budget("word " * words) == budget + 3 - special


def test_a_query_that_is_too_long_is_refused_by_the_model_if_asked() -> None:
    """With `long_query="error"` the model, which knows its limit, raises instead of cutting a query."""
    model = OnnxCrossEncoder(ModelSource("bundled", BUNDLED_FOLDER), max_length=32)
    model.long_query = "error"
    with pytest.raises(InvalidInputError, match="40 tokens, and 27 fit into the 32"):
        model.score([("word " * 40, "a passage")])


def test_the_tokenizers_own_settings_do_not_matter() -> None:
    """Padding and truncation that a tokenizer's file asks for are replaced by the model's limit."""
    unusual = wordpiece()
    unusual.enable_padding(length=100)
    unusual.enable_truncation(12, stride=2, strategy="longest_first", direction="left")
    encoder, own = PairEncoder(unusual, 32), encoder_and_tokenizer(wordpiece, 32)[1]
    for pair in [("a query", "word"), ("a query", "one two three " * 30)]:
        assert encoder.encode([pair])[0].ids.tolist() == own.encode(*pair).ids


def test_very_long_queries_leave_nothing_behind() -> None:
    """The tokens of a query of any length are returned, and those of very long ones are not kept."""
    encoder = PairEncoder(wordpiece(), 128)
    encoder.query_spans("a query")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(4):
            assert len(encoder.query_spans(f"{number} " * 20_000)) == 20_000
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One of them takes more than 2 MB; Python keeps some freed tuples for reuse.
    assert after - before < 500_000
