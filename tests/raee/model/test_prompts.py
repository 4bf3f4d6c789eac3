"""Prompts frame a text, and bad ones are refused before a model runs."""

from dataclasses import replace

import pytest
import yaml

from raee.config import PromptSpec
from raee.model.prompts import Prompt, built_in, built_in_names, declared_labels, resolve_prompt
from tests.raee.errors import refused

NAMES = ("sst2", "mr", "cr", "mpqa", "sst5", "subj", "trec", "cola")


def test_the_papers_eight_prompts_are_built_in():
    assert sorted(built_in_names()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_prompt_is_the_shared_one(shared, name):
    # As text, so that the words yes and no are not read as true and false.
    loaded = yaml.load((shared / "prompts.yaml").read_text("utf-8"), yaml.BaseLoader)[name]
    labels = tuple(loaded["labels"])
    for form in ("masked", "instruct"):
        own = built_in(name, form)
        expected = loaded[form]
        assert own == Prompt(labels, tuple(expected["words"]), expected["template"])
    assert built_in(name, "described") == Prompt(labels, tuple(loaded["described"]), "{text}")


def test_a_text_stands_in_the_template_as_it_is():
    prompt = Prompt(("a",), ("b",), "{mask}: {text} .")
    assert (
        prompt.render("no {text}, no {mask}, no {0}", "<m>")
        == "<m>: no {text}, no {mask}, no {0} ."
    )
    assert prompt.mask_is_first
    assert not Prompt(("a",), ("b",), "{text} {mask}").mask_is_first


@pytest.mark.parametrize(
    ("family", "template", "needs"),
    [
        ("masked-lm", None, "{text} once and {mask} once"),
        ("masked-lm", "{text}", "{text} once and {mask} once"),
        ("masked-lm", "It was {mask}.", "{text} once and {mask} once"),
        ("masked-lm", "{text} {mask} {mask}", "{text} once and {mask} once"),
        ("masked-lm", "{text} {text} {mask}", "{text} once and {mask} once"),
        ("masked-lm", "{text}\n\n", "{text} once and {mask} once"),
        ("sentence-encoder", "{text} {mask}", "{text} once and no {mask}"),
        ("sentence-encoder", "", "{text} once and no {mask}"),
    ],
)
def test_a_template_that_does_not_fit_the_family_is_refused(family, template, needs):
    with refused(needs.replace("{", r"\{")):
        resolve_prompt(PromptSpec(template=template, labels={"a": "b"}), family)


def test_labels_of_a_prompt_keep_the_order_in_which_they_are_written():
    spec = PromptSpec(template="{text} {mask}", labels={"z": "great", "a": "bad"})
    assert resolve_prompt(spec, "masked-lm") == Prompt(
        ("z", "a"), ("great", "bad"), "{text} {mask}"
    )
    assert declared_labels(spec, "masked-lm") == ("z", "a")


def test_a_sentence_encoders_template_is_the_bare_text_by_default():
    spec = PromptSpec(labels={"good": "a great story"})
    assert resolve_prompt(spec, "sentence-encoder").template == "{text}"


def test_without_a_prompt_a_sentence_encoder_takes_the_corpus_labels():
    assert resolve_prompt(None, "sentence-encoder", ["x", "y"]) == Prompt(("x", "y"), ("x", "y"))
    assert declared_labels(None, "sentence-encoder") is None


def test_where_nothing_names_the_labels_the_prompt_is_missed():
    with refused("family masked-lm needs a template and label words"):
        resolve_prompt(None, "masked-lm", ["x", "y"])
    with refused("no corpus says what the labels are"):
        resolve_prompt(None, "sentence-encoder")


def test_a_prompt_that_is_not_built_in_is_refused_with_those_that_are():
    with refused(r"prompt 'sst\\n3' is not built in; there are sst2, "):
        resolve_prompt("sst\n3", "masked-lm")


def test_two_labels_with_one_description_are_refused():
    spec = PromptSpec(labels={"good": "a story", "bad": "a story"})
    with refused("'good' and 'bad' are both 'a story'"):
        resolve_prompt(spec, "sentence-encoder")


class TestNumberOfLabels:
    """They are numbers of 16 bits in the entries."""

    def test_may_be_as_many_as_a_database_holds(self):
        labels = [str(n) for n in range(2**16)]
        assert len(resolve_prompt(None, "sentence-encoder", labels).labels) == 2**16
        spec = PromptSpec(labels=dict(zip(labels, labels, strict=True)))
        assert len(resolve_prompt(spec, "sentence-encoder").labels) == 2**16

    def test_of_a_corpus_is_refused_where_it_is_more(self):
        labels = [str(n) for n in range(2**16 + 1)]
        match = "the corpus has 65,537 labels .0, 1, .* and 65,527 more.*the 65,536 that a database"
        with refused(match):
            resolve_prompt(None, "sentence-encoder", labels)


def test_what_is_long_in_a_prompt_is_cut_in_what_is_said_of_it():
    spec = PromptSpec(labels={"x" * 10_000: "z" * 10_000, "y" * 10_000: "z" * 10_000})
    with refused(f"^prompt.labels: '{'x' * 77}.. and '{'y' * 77}.. are both '{'z' * 77}..; "):
        resolve_prompt(spec, "sentence-encoder")
    with refused(f"^prompt.template '{'x' * 77}..: family"):
        resolve_prompt(PromptSpec(template="x" * 10_000, labels={"a": "b"}), "masked-lm")
    with refused(f"^prompt '{'x' * 77}.. is not built in"):
        resolve_prompt("x" * 10_000, "masked-lm")


class TestOfModelsThatWrite:
    @pytest.mark.parametrize("family", ["causal-lm", "seq2seq-lm"])
    @pytest.mark.parametrize("name", NAMES)
    def test_built_in_ones_have_the_form_of_an_instruction(self, family, name):
        assert resolve_prompt(name, family) == built_in(name, "instruct")

    @pytest.mark.parametrize("family", ["causal-lm", "seq2seq-lm"])
    @pytest.mark.parametrize(
        "template", ["", "it was", "{text} {mask}", "{text} {text}", "{mask}: {text}"]
    )
    def test_a_template_without_one_text_or_with_a_mask_is_refused(self, family, template):
        with refused(f"family {family} needs {{text}} once and no {{mask}}".replace("{", r"\{")):
            resolve_prompt(PromptSpec(template=template, labels={"a": "b"}), family)

    def test_a_template_is_needed(self):
        match = "prompt.template is missing: family causal-lm needs one with .text. once and no"
        with refused(match + " .mask., or 'chat'"):
            resolve_prompt(PromptSpec(labels={"a": "b"}), "causal-lm")
        with refused("prompt is missing: family causal-lm needs a template and label words"):
            resolve_prompt(None, "causal-lm", ["a"])

    def test_a_chat_has_the_users_the_built_in_or_a_default_message(self):
        labels = {"x": "bad", "y": "good", "z": "odd"}
        own = PromptSpec(template="chat", instruction="So? {text}", labels=labels)
        assert resolve_prompt(own, "causal-lm") == Prompt(
            ("x", "y", "z"), ("bad", "good", "odd"), "So? {text}", chat=True
        )
        named = resolve_prompt(PromptSpec(name="sst2", template="chat"), "causal-lm")
        assert named == replace(built_in("sst2", "instruct"), chat=True)
        default = resolve_prompt(PromptSpec(template="chat", labels=labels), "causal-lm")
        assert default.template == (
            "Label the text with one of these words: bad, good or odd. Print the word only."
            "\n\n{text}"
        )

    def test_a_message_without_one_text_is_refused(self):
        spec = PromptSpec(template="chat", instruction="So?", labels={"x": "bad"})
        with refused("prompt.instruction 'So[?]': family causal-lm needs {text} once"):
            resolve_prompt(spec, "causal-lm")

    @pytest.mark.parametrize("family", ["masked-lm", "sentence-encoder"])
    def test_a_chat_is_refused_for_other_models(self, family):
        with refused(f"prompt.template 'chat': family {family} does not chat"):
            resolve_prompt(PromptSpec(template="chat", labels={"x": "bad"}), family)


class TestNamedInAMapping:
    def test_a_built_in_prompt_is_the_same(self):
        for family in ("masked-lm", "sentence-encoder", "causal-lm", "seq2seq-lm"):
            assert resolve_prompt(PromptSpec(name="trec"), family) == resolve_prompt("trec", family)

    def test_a_built_in_prompt_takes_a_template_and_examples(self):
        spec = PromptSpec(name="sst2", template="{text} {mask}", examples=2)
        assert resolve_prompt(spec, "masked-lm") == Prompt(
            ("negative", "positive"), ("terrible", "great"), "{text} {mask}", examples=2
        )

    def test_it_stays_one_through_json(self):
        for spec in (
            PromptSpec(name="sst2", template="chat", instruction="{text}?", examples=1),
            PromptSpec(template="{text}", labels={"b": "x", "a": "y"}),
        ):
            assert PromptSpec.model_validate_json(spec.model_dump_json()) == spec


def test_examples_are_refused_for_sentence_encoders():
    spec = PromptSpec(labels={"x": "bad"}, examples=1)
    with refused("prompt.examples: family sentence-encoder is not asked anything"):
        resolve_prompt(spec, "sentence-encoder")
