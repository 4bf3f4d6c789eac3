"""What a model that writes is given: its special tokens, the whole prompt, and a text's start."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raee.model.backbones import Backbone
from raee.model.batches import Batches, Encoded, check_room, encode
from raee.model.frames import frame_of
from raee.model.heads import label_tokens
from raee.model.prompts import Example, Prompt
from tests.raee.errors import refused
from tests.raee.tokenizers import CHATTING, make

CAUSAL = ("gpt2", "llama3", "llama2", "gemma", "closing")
LIMIT = 64
LABELS, WORDS = ("no", "yes"), ("bad", "great")
SHOWN = (Example("a warm film", "yes", "1"), Example("never {text} again", "no", "2"))
TEMPLATES = {
    "ends in a space": "Review: {text} The answer is ",
    "ends in a word": "Review: {text} The answer is",
    "ends in a line": "{text}\n\nSentiment:\n",
    "ends in lines": "the film {text}\n\n",
    "ends in the text": "Sentiment of {text}",
    "is the text": "{text}",
}
TEXTS = (
    "good",
    " a film ",
    "...",
    "\n\n",
    "中文",
    "é ünïcödé",
    "\U0001f600",
    "{text}",
    "[INST]",
    "1 2",
)

writing_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
slow = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def writing(backbone_of) -> Callable[..., Backbone]:
    """A backbone of which only the tokenizer is asked."""

    @cache
    def made(kind: str, limit: int = LIMIT) -> Backbone:
        family = {"t5": "seq2seq-lm", "wordpiece": "masked-lm"}.get(kind, "causal-lm")
        return replace(backbone_of("bert"), family=family, tokenizer=make(kind), max_tokens=limit)

    return made


def asking(template: str = TEMPLATES["ends in a space"], chat: bool = False, shown=()) -> Prompt:
    return Prompt(LABELS, WORDS, template, chat, len(shown) // 2, shown)


def label_ids(backbone: Backbone, prompt: Prompt) -> list[int]:
    frame = frame_of(prompt, backbone.tokenizer, backbone.family)
    return label_tokens(backbone.tokenizer, prompt.words, frame)


def tokens(backbone: Backbone, ids) -> list[str]:
    return backbone.tokenizer.convert_ids_to_tokens([int(i) for i in ids])


def one(backbone: Backbone, prompt: Prompt, text: str) -> list[int]:
    return encode(backbone, prompt, [text]).token_ids[0].tolist()


def assert_shares_its_prefix(encoded: Encoded) -> None:
    for row, shared in zip(encoded.token_ids, encoded.shared, strict=True):
        assert shared < len(row)
        assert row[:shared].tolist() == encoded.prefix[:shared].tolist()
        if shared < min(len(encoded.prefix), len(row) - 1):
            assert row[shared] != encoded.prefix[shared]


class TestAnswer:
    @pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
    @pytest.mark.parametrize("kind", CAUSAL)
    def test_comes_after_the_tokens_that_precede_it_in_a_finished_text(
        self, writing, kind, template
    ):
        backbone = writing(kind)
        for prompt in (asking(template), asking(template, shown=SHOWN)):
            space = "" if template.endswith("\n") else " "
            shown = "".join(
                template.rstrip(" ").replace("{text}", text) + space + word + "\n\n"
                for text, word in (("a warm film", "great"), ("never {text} again", "bad"))
            )
            for text in TEXTS:
                before, _, after = template.rstrip(" ").partition("{text}")
                whole = (shown if prompt.shown else "") + before + text + after + space
                row = one(replace(backbone, max_tokens=1_000), prompt, text)
                for word, token in zip(WORDS, label_ids(backbone, prompt), strict=True):
                    finished = backbone.tokenizer(whole + word)["input_ids"]
                    assert [*row, token] == finished[: len(row) + 1]

    @pytest.mark.parametrize(
        ("kind", "after_space", "after_line"),
        [
            ("gpt2", ["Ġbad", "Ġgreat"], ["b", "g"]),
            ("llama3", ["Ġbad", "Ġgreat"], ["b", "g"]),
            ("llama2", ["▁bad", "▁great"], ["b", "g"]),
            ("gemma", ["▁bad", "▁great"], ["bad", "great"]),
            ("t5", ["▁bad", "▁great"], ["▁bad", "▁great"]),
        ],
    )
    def test_begins_with_the_token_of_each_word_there(self, writing, kind, after_space, after_line):
        backbone = writing(kind)
        for template, expected in (
            ("{text} The answer is ", after_space),
            ("{text} The answer is", after_space),
            ("{text}", after_space),
            ("{text} Answer:\n", after_line),
        ):
            assert tokens(backbone, label_ids(backbone, asking(template))) == expected

    @pytest.mark.parametrize("kind", [*CAUSAL, "t5"])
    def test_is_at_the_last_token(self, writing, kind):
        backbone = writing(kind)
        encoded = encode(backbone, asking(), [*TEXTS])
        assert encoded.answer_positions.tolist() == [len(row) - 1 for row in encoded.token_ids]

    @pytest.mark.parametrize("kind", CAUSAL)
    def test_comes_at_once_after_an_opening_bracket_and_in_scripts_without_spaces(
        self, writing, kind
    ):
        for template in ("{text} (", "答案\uff1a{text}\uff1a", "{text} \u201c"):
            frame = frame_of(asking(template), writing(kind).tokenizer, "causal-lm")
            assert frame.lead == ""


class TestSpecialTokens:
    def test_are_those_of_the_tokenizer_but_for_an_end_after_the_prompt(self, writing):
        for kind, first, last in (
            ("gpt2", "a", "Ġis"),
            ("llama3", "<s>", "Ġis"),
            ("llama2", "<s>", "▁is"),
            ("closing", "<s>", "▁is"),
            ("t5", "▁a", "</s>"),
        ):
            row = tokens(writing(kind), one(writing(kind), asking("a {text} is "), "film"))
            assert (row[0], row[-1]) == (first, last)
            assert row.count("<s>") == (first == "<s>")

    @pytest.mark.parametrize("kind", [*CAUSAL, "t5", "wordpiece"])
    def test_and_all_others_are_the_same_whatever_side_is_padded(self, writing, kind):
        template = "{text} It was [MASK]" if kind == "wordpiece" else TEMPLATES["ends in a space"]
        rows = []
        for side in ("left", "right"):
            tokenizer = make(kind, pad=True)
            tokenizer.padding_side = tokenizer.truncation_side = side
            encoded = encode(replace(writing(kind), tokenizer=tokenizer), asking(template), TEXTS)
            rows.append([row.tolist() for row in encoded.token_ids])
        assert rows[0] == rows[1]


class TestChat:
    @pytest.mark.parametrize("kind", CHATTING)
    def test_has_the_tokens_of_the_tokenizers_own_template(self, writing, kind):
        backbone = writing(kind, 1_000)
        for shown in ((), SHOWN):
            prompt = asking("Say: {text} .", True, shown)
            turns = []
            for text, word in (("a warm film", "great"), ("never {text} again", "bad")):
                turns.append({"role": "user", "content": f"Say: {text} ."})
                turns.append({"role": "assistant", "content": word})
            for text in TEXTS:
                own = [*turns, {"role": "user", "content": f"Say: {text} ."}]
                expected = backbone.tokenizer.apply_chat_template(
                    own if shown else own[-1:],
                    add_generation_prompt=True,
                    return_dict=False,
                )
                assert len(expected) > len(turns)
                if "strftime_now" not in backbone.tokenizer.chat_template:
                    assert one(backbone, prompt, text) == expected
                else:  # the day is another
                    assert one(backbone, prompt, text)[-12:] == expected[-12:]

    @pytest.mark.parametrize(
        ("kind", "end", "labels"),
        [
            ("llama3", ["assistant", "<|end|>", "ĊĊ"], ["b", "g"]),
            ("llama2", ["[/INST]"], ["▁bad", "▁great"]),
            ("gemma", ["<turn>", "model", "\n"], ["bad", "great"]),
        ],
    )
    def test_is_answered_right_after_its_end(self, writing, kind, end, labels):
        backbone = writing(kind)
        prompt = asking("{text}", True)
        row = one(backbone, prompt, "good")
        assert backbone.tokenizer.decode(row).endswith("".join(end).replace("Ċ", "\n"))
        assert tokens(backbone, label_ids(backbone, prompt)) == labels

    def test_has_one_token_that_begins_it(self, writing):
        for kind in CHATTING:
            row = one(writing(kind, 1_000), asking("{text}", True), "good")
            assert tokens(writing(kind), row).count("<s>") == 1
            assert tokens(writing(kind), row)[0] == "<s>"

    def test_is_on_the_same_day_every_day(self, writing):
        frame = frame_of(asking("{text}", True), writing("llama3").tokenizer, "causal-lm")
        assert "Today: 26 Jul 2024<|eot|>" in frame.before

    def test_is_answered_without_reasoning(self, writing):
        tokenizer = make("gemma")
        tokenizer.chat_template += "{% if enable_thinking is false %}<off>{% endif %}"
        assert frame_of(asking("{text}", True), tokenizer, "causal-lm").after.endswith("<off>")

    def test_asked_of_a_tokenizer_without_a_template_is_refused(self, writing):
        for kind in ("gpt2", "t5"):
            with refused("prompt.template 'chat': this model's tokenizer has no chat template"):
                encode(writing(kind), asking("{text}", True), ["good"])

    @pytest.mark.parametrize(
        ("template", "match"),
        [
            ("no messages", "shows the user's message 0 times"),
            ("{{ messages[0].content * 2 }}", "shows the user's message 2 times"),
            ("{{ raise_exception('no\nusers') }}", r"template cannot be used \(no users\)"),
            ("{% broken", "template cannot be used"),
            ({"tool_use": "a", "rag": "b"}, "template cannot be used .This model has multiple"),
        ],
    )
    def test_of_a_template_that_does_not_show_the_message_is_refused(self, template, match):
        tokenizer = make("gemma")
        tokenizer.chat_template = template
        with refused(match):
            frame_of(asking("{text}", True), tokenizer, "causal-lm")


class TestTruncation:
    @pytest.mark.parametrize("kind", [*CAUSAL, "t5"])
    def test_takes_a_texts_end_and_nothing_else(self, writing, kind):
        backbone = writing(kind, 80)
        for prompt in (
            asking(),
            asking(shown=SHOWN[:1]),
            *([asking("Say: {text} .", True)] if kind in CHATTING else []),
        ):
            long = ["great film " * 200, "中文" * 300, "x" * 900, "\U0001f600" * 200, " \n" * 500]
            encoded = encode(backbone, prompt, long)
            whole = encode(replace(backbone, max_tokens=10_000), prompt, long)
            alone = one(backbone, prompt, "")
            for short, row in zip(encoded.token_ids, whole.token_ids, strict=True):
                if len(row) <= 80:
                    assert short.tolist() == row.tolist()
                    continue
                assert 80 - 16 < len(short) <= 80
                end = min(4, len(alone) - len(encoded.prefix))
                assert short[-end:].tolist() == row[-end:].tolist() == alone[-end:]
                assert short[: 80 - 24].tolist() == row[: 80 - 24].tolist()
            assert encoded.truncated.tolist() == [len(row) > 80 for row in whole.token_ids]

    def test_is_refused_if_the_prompt_leaves_a_text_no_room(self, writing):
        backbone = writing("gpt2")
        for prompt, match in (
            (asking("film " * 70 + "{text}"), r"^prompt.template 'film .* alone is \d+ tokens"),
            (
                asking(shown=SHOWN * 5),
                r"^prompt.template .* with 10 examples alone is \d+ tokens; the model takes 64$",
            ),
        ):
            with refused(match):
                check_room(backbone, prompt)

    @pytest.mark.parametrize("kind", [*CAUSAL, "t5"])
    @given(text=writing_texts, repeated=st.integers(1, 20), chat=st.booleans())
    @slow
    def test_leaves_any_row_within_the_limit_with_its_prefix_and_end(
        self, writing, kind, text, repeated, chat
    ):
        backbone = writing(kind, 72)
        prompt = asking("Say: {text} . it was okay", chat and kind in CHATTING)
        encoded = encode(backbone, prompt, [text * repeated, "good"])
        assert (encoded.lengths <= 72).all()
        assert_shares_its_prefix(encoded)
        row, good = encoded.token_ids
        assert row[-3:].tolist() == good[-3:].tolist()


class TestShared:
    @pytest.mark.parametrize("kind", [*CAUSAL, "t5"])
    def test_tokens_are_all_that_precede_a_text(self, writing, kind):
        backbone = writing(kind, 1_000)
        for prompt in (asking(), asking(shown=SHOWN)):
            encoded = encode(backbone, prompt, TEXTS)
            assert_shares_its_prefix(encoded)
            said = backbone.tokenizer.decode(encoded.prefix, skip_special_tokens=True)
            said, before = (
                " ".join(s.split())
                for s in (
                    said,
                    frame_of(prompt, backbone.tokenizer, backbone.family).before,
                )
            )
            assert said == before.strip()
            assert (encoded.shared >= len(encoded.prefix) - 1).all()

    def test_tokens_do_not_depend_on_the_texts(self, writing):
        backbone = writing("llama3")
        prefix = encode(backbone, asking(), ["good"]).prefix
        assert encode(backbone, asking(), TEXTS).prefix.tolist() == prefix.tolist()
        assert encode(backbone, asking(), []).prefix.tolist() == prefix.tolist()

    def test_tokens_are_fewer_in_a_row_whose_text_merges_with_the_template(self, writing):
        encoded = encode(writing("gpt2"), asking("it was ba{text} , "), ["d", "s", "good"])
        assert tokens(writing("gpt2"), encoded.prefix)[-1] == "Ġba"
        size = len(encoded.prefix)
        assert encoded.shared.tolist() == [size - 1, size, size]
        assert_shares_its_prefix(encoded)

    def test_tokens_leave_an_empty_row_one_of_its_own(self, writing):
        encoded = encode(writing("gpt2"), asking("The film {text}"), [""])
        assert encoded.shared.tolist() == [len(encoded.token_ids[0]) - 1]

    def test_tokens_are_none_of_a_rows_own(self, writing):
        backbone = replace(writing("gpt2"), tokenizer=make("gpt2", pad=True))
        encoded = encode(backbone, asking(shown=SHOWN), ["good", "bad"])
        (batch,) = Batches(backbone, encoded)
        for ids in (encoded.own_ids, [batch.token_ids[i] for i in np.argsort(batch.rows)]):
            own = [backbone.tokenizer.decode(row) for row in ids]
            assert own == [" good The answer is", " bad The answer is"]

    def test_tokens_are_none_if_a_prompt_without_examples_has_a_mask(self, writing):
        encoded = encode(writing("wordpiece"), asking("The film: {text} {mask}"), ["good", "bad"])
        assert encoded.shared.tolist() == [0, 0]
        assert [row.tolist() for row in encoded.own_ids] == [r.tolist() for r in encoded.token_ids]


def test_a_masked_lms_examples_have_the_word_at_the_masks_position(writing):
    backbone = writing("wordpiece")
    for template, expected, place in (
        ("{text} it was {mask} .", "a warm film it was great . good it was [MASK] .", -3),
        ("{mask} : {text}", "great : a warm film [MASK] : good", -4),
    ):
        encoded = encode(backbone, asking(template, shown=SHOWN[:1]), ["good"])
        row = encoded.token_ids[0]
        assert tokens(backbone, row)[1:-1] == expected.split()
        assert encoded.answer_positions[0] == len(row) + place
