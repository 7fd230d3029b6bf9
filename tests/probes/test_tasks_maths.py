"""Benchmarks from files: their rows, splits, prompts to the character, and their answers judged."""

import json
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from probes.models import Model, encode
from probes.records import Grade, Refusal
from probes.tasks import SHIPPED, Task, load_task
from probes.tasks.answers import final_answer
from probes.tasks.cells import cells_of, problems_of
from probes.tasks.magnitude import too_large
from probes.tasks.maths import load
from probes.tasks.maths.judging import judge
from probes.tasks.templates import read_template

ROWS = [
    {
        "problem": f"What is {i} + {i}?",
        "answer": str(2 * i),
        "subject": "odd" if i % 2 else "even",
        "level": f"Level {i % 3 + 1}",
        "solution": f"Doubling gives \\boxed{{{2 * i}}}.\n#### {2 * i}",
    }
    for i in range(60)
]
COLUMNS = {"question": "problem", "answer": "answer", "skill": "subject", "difficulty": "level"}
ABOUT = {
    "family": "maths",
    "columns": COLUMNS,
    "template": "boxed",
    "budget": 64,
    "splits": {split: {"of": "all"} for split in ("tune", "select", "test")},
}


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def maths(source, **about):
    return load("mine", ABOUT | {"source": source} | about)


@pytest.fixture
def task(tmp_path):
    return maths(jsonl(tmp_path / "rows.jsonl", ROWS))


def test_a_problem_is_a_row(task):
    assert isinstance(task, Task)
    found = {p.parameters["question"]: p for p in task.problems("test", 10)}
    question, problem = next(iter(found.items()))
    i = int(question.split()[2])
    assert problem.answer == str(2 * i)
    assert problem.skill == ("odd" if i % 2 else "even")
    assert problem.difficulty == i % 3 + 1
    assert task.skills == ("even", "odd")
    assert task.grade(problem, task.gold(problem)) is Grade.RIGHT
    assert task.grade(problem, rf"\boxed{{{2 * i + 1}}}") is Grade.WRONG
    assert task.grade(problem, f"it is {2 * i}") is Grade.UNPARSED


def test_parquet_and_jsonl_are_the_same(task, tmp_path):
    other = maths(parquet(tmp_path / "rows.parquet", ROWS))
    assert other.problems("tune", 12) == task.problems("tune", 12)


def test_splits_share_nothing_and_a_longer_list_extends_a_shorter_one(task):
    split = {s: task.problems(s, 12) for s in ("tune", "select", "test")}
    ids = [p.id for problems in split.values() for p in problems]
    assert len(set(ids)) == 36
    assert task.problems("test", 5) == split["test"][:5]


def test_neither_the_files_order_nor_doubles_change_the_problems(task, tmp_path):
    turned = maths(jsonl(tmp_path / "turned.jsonl", [*ROWS[::-1], *ROWS]))
    assert turned.problems("select", 12) == task.problems("select", 12)


def test_a_question_in_two_of_the_sources_splits_is_tested_on_only(tmp_path):
    jsonl(tmp_path / "hub" / "main" / "train-00000-of-00002.jsonl", ROWS[:20])
    jsonl(tmp_path / "hub" / "main" / "train-00001-of-00002.jsonl", ROWS[20:40])
    jsonl(tmp_path / "hub" / "main" / "test-00000-of-00001.jsonl", ROWS[35:50])
    jsonl(tmp_path / "hub" / "socratic" / "test.jsonl", ROWS[50:])
    splits = {
        "tune": {"of": "train", "share": 3},
        "select": {"of": "train"},
        "test": {"of": "test"},
    }
    found = maths(str(tmp_path / "hub"), config="main", splits=splits)
    questions = {}
    for split in splits:
        with pytest.raises(Refusal) as told:
            found.problems(split, 1000)
        held = int(re.search(r"split has (\d+) problems", str(told.value))[1])
        questions[split] = {p.parameters["question"] for p in found.problems(split, held)}
    assert len(questions["test"]) == 15
    assert len(questions["tune"]) + len(questions["select"]) == 35
    assert not questions["test"] & (questions["tune"] | questions["select"])
    assert not questions["tune"] & questions["select"]


@pytest.mark.parametrize("how", ["boxed", "hashes"])
def test_a_gold_answer_is_read_out_of_a_solution(task, tmp_path, how):
    columns = COLUMNS | {"answer": "solution"}
    other = maths(jsonl(tmp_path / "rows.jsonl", ROWS), gold=how, columns=columns)
    golds = {p.prompt: p.answer for p in task.problems("test", 10)}
    assert {p.prompt: p.answer for p in other.problems("test", 10)} == golds


def test_cells_are_the_skills_also_where_one_has_two_problems(tmp_path):
    rows = [row | {"subject": "rare" if i < 2 else "common"} for i, row in enumerate(ROWS)]
    splits = {"test": {"of": "all"}}
    found = maths(jsonl(tmp_path / "rows.jsonl", rows), splits=splits)
    cells = cells_of(found)
    assert cells == [("common", ""), ("rare", "")]
    assert len(problems_of(found, cells, "test", 2)) == 4


def test_only_the_splits_that_a_file_names_are_there(tmp_path):
    found = maths(jsonl(tmp_path / "rows.jsonl", ROWS), splits={"test": {"of": "all"}})
    assert len(found.problems("test", 60)) == 60
    with pytest.raises(Refusal, match="has no split 'tune'; it has test"):
        found.problems("tune", 1)


# ---------------------------------------------------------------- prompts

QUESTION = "What is $\\frac{1}{2}$ of {x}?"
ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant "
    "solves it. The assistant first thinks about the reasoning process in the mind and then "
    "provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
    "here </think> <answer> answer here </answer>. User: "
)
EXACT = {
    "boxed": "Q!\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "qwen-boxed": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nQ!"
    "\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>assistant\n",
    "deepseek-math": "User: Q!\nPlease reason step by step, and put your final answer within "
    "\\boxed{}.\n\nAssistant:",
    "r1-zero": ZERO + "Q!. Assistant:",
    "question": "Q!",
    "qa": "Question: Q!\nAnswer:",
}


@pytest.mark.parametrize("name", EXACT)
def test_a_papers_template_is_exact_to_the_character(name):
    exact = EXACT[name].replace("Q!", QUESTION)
    assert read_template("mine", name).prompt(QUESTION) == exact


@pytest.mark.parametrize(("name", "shots"), [("gsm8k-8-shot", 8), ("minerva-4-shot", 4)])
def test_few_shot_examples_stand_before_the_question_and_are_right(name, shots):
    template = read_template("mine", name)
    assert len(template.examples) == shots
    prompt = template.prompt("WHAT?")
    blocks = prompt.split("\n\n" + template.text.partition("{question}")[0])
    assert len(blocks) == shots + 1
    assert blocks[-1] == "WHAT?" + template.text.partition("{question}")[2]
    for example in template.examples:
        assert template.answer(example.answer), example
    two = read_template("mine", name, 2).prompt("WHAT?")
    assert prompt.startswith(two.removesuffix(blocks[-1]))
    assert read_template("mine", name, 0).prompt("WHAT?") == template.text.replace(
        "{question}", "WHAT?"
    )


def test_what_follows_the_next_question_is_no_answer_to_this_one():
    template = read_template("mine", "gsm8k-8-shot")
    went_on = "2 + 3 = 5. The answer is 5.\n\nQ: And 3 + 4?\nA: The answer is 7."
    assert template.answer(went_on) == "5"
    assert template.answer("Q: And 3 + 4?\nA: The answer is 7.") is None


CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def chat_model(folder, template=CHAT):
    words = ["<s>", "</s>", "<unk>", *"[]?+.,\\{}0123456789", *map(chr, range(65, 123))]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def test_a_chat_is_text_that_base_and_tuned_read_alike(task, tmp_path):
    chat_model(tmp_path / "tuned")
    chatted = maths(task.settings["source"], chat=str(tmp_path / "tuned"))
    for plain, one in zip(task.problems("test", 3), chatted.problems("test", 3), strict=True):
        assert one.prompt == f"<s>[user] {plain.prompt}\n[assistant] "
    system = {"text": "{question}", "answer": ["boxed"], "system": "Be brief."}
    told = maths(task.settings["source"], chat=str(tmp_path / "tuned"), template=system)
    prompt = told.problems("test", 1)[0].prompt
    assert prompt.startswith("<s>[system] Be brief.\n[user] What is")


def test_the_first_token_is_not_doubled(model, tmp_path):
    fast = chat_model(tmp_path / "tuned")
    chatting = Model(model.net, fast, "chatting")
    assert encode(chatting, "ab")[:2] == (0, fast.convert_tokens_to_ids("a"))
    begun = encode(chatting, "<s>ab")
    assert begun == encode(chatting, "ab")
    assert begun.count(0) == 1


WRONG_CHAT = {
    "no folder": ("nowhere/at-all", "is no folder here, nor on the hub"),
    "no tokenizer": ("EMPTY", "holds no tokenizer"),
    "no template": ("PLAIN", "has no chat template"),
    "broken": ("BROKEN", "can't render"),
    "deaf": ("DEAF", "does not hold what the user says"),
    "number": (3, "chat = 3 must be"),
}


@pytest.mark.parametrize("name", WRONG_CHAT)
def test_a_chat_that_can_not_be_is_refused_at_loading(task, tmp_path, name):
    (tmp_path / "EMPTY").mkdir()
    chat_model(tmp_path / "PLAIN", None)
    chat_model(tmp_path / "BROKEN", "{{ raise_exception('no system') }}")
    chat_model(tmp_path / "DEAF", "hello")
    chat, said = WRONG_CHAT[name]
    chat = str(tmp_path / chat) if str(chat).isupper() else chat
    with pytest.raises(Refusal, match=said):
        maths(task.settings["source"], chat=chat)


def test_a_template_with_turns_in_a_chat_is_refused(task, tmp_path):
    chat_model(tmp_path / "tuned")
    with pytest.raises(Refusal, match="would have them twice"):
        maths(task.settings["source"], chat=str(tmp_path / "tuned"), template="qwen-boxed")


def test_the_template_is_part_of_what_a_task_is(task):
    """Its identity is the hash of its settings: with another text it is another task."""
    template = task.settings["template"]
    assert template["text"] == read_template("mine", "boxed").text
    assert template["name"] == "boxed"
    assert json.dumps(task.settings)


# ---------------------------------------------------------------- final answers

FINAL = {
    "the last of two": (r"\boxed{1}, no, \boxed{2}", "2"),
    "nested": (r"\boxed{\boxed{5}}", "5"),
    "braces in it": (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
    "escaped braces": (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    "without braces": (r"so $\boxed 5$", "5"),
    "fbox": (r"\fbox{7}", "7"),
    "cut off": (r"\boxed{5}, or rather \boxed{6", None),
    "empty": (r"\boxed{}", None),
    "blank": (r"\boxed{  }", None),
    "none": ("it is 5", None),
    "long ago": (r"\boxed{5}" + " so it is" * 100_000, "5"),
}
PHRASES = {
    "plain": ("The answer is 5.", "5"),
    "decimal": ("The answer is 3.14. Indeed.", "3.14"),
    "last": ("The answer is 5. No. The answer is 6.", "6"),
    "denied": ("The answer is not 5 but 6.", "6"),
    "denied only": ("The answer is not 5.", None),
    "is not": ("The answer isn't 5.", None),
    "not the other": ("The answer is 6, not 5.", "6"),
    "instead of": ("The answer is 6 instead of 5.", "6"),
    "colon": ("Answer: **42**\nDone", "42"),
    "next line": ("The answer is:\n5", "5"),
    "minerva": ("Final Answer: The final answer is $x^2$. I hope it is correct.", "$x^2$"),
    "none": ("5", None),
    "spaces": ("The answer is 5" + " " * 1_000_000 + "not", "5" + " " * 1_000_000 + "not"),
}


@pytest.mark.parametrize("name", FINAL)
def test_the_last_box_counts(name):
    text, found = FINAL[name]
    assert final_answer(text, ["boxed"]) == found


@pytest.mark.parametrize("name", PHRASES)
def test_the_last_phrase_counts(name):
    text, found = PHRASES[name]
    assert final_answer(text, ["phrase"]) == found


def test_other_marks():
    assert final_answer("<answer>1</answer> <answer> 2 </answer>", ["tag"]) == "2"
    assert final_answer(r"<answer>so \boxed{3}</answer>", ["tag"]) == "3"
    assert final_answer("<answer>1</answer> <answer>2", ["tag"]) is None
    assert final_answer("#### 1\n#### 2\nmore", ["hashes"]) == "2"
    assert final_answer(" all of it ", ["whole"]) == "all of it"
    assert final_answer(r"\boxed{1} The answer is 2.", ["boxed", "phrase"]) == "1"
    assert final_answer("The answer is 2.", ["boxed", "phrase"]) == "2"


# ---------------------------------------------------------------- judging

COUNTED = """months, meters, teeth, strength points, widths, apples, cloths, square meters, months
old, percentage points""".replace("\n", " ").split(", ")
CHANGED = """tenths, hundredths, millionths, fifths, sixths, eighths, thirds, fourths, ninth, half
twelfths, twentieths, tens, hundreds, thousands, millions, trillions, quadrillion, crore, lakh
zillion, dozens, fives, twenty, fourteen, less, less than, fewer, more than ten, more, at most
million dollars""".replace("\n", ", ").split(", ")


@pytest.mark.parametrize("words", COUNTED)
def test_what_is_counted_is_no_part_of_the_number(words):
    assert judge("5", f"5 {words}") is Grade.RIGHT
    assert judge("5", f"6 {words}") is Grade.WRONG


@pytest.mark.parametrize("words", CHANGED)
def test_a_word_that_changes_the_number_is_not_what_is_counted(words):
    assert judge("5", f"5 {words}") in (Grade.WRONG, Grade.UNPARSED)
    assert judge("5", rf"5\text{{ {words}}}") in (Grade.WRONG, Grade.UNPARSED)


SAME = {
    "a list in any order": ("1,2", "2, 1"),
    "a list as a set": ("1,2", r"\{2,1\}"),
    "a set as a list": (r"\{1,2\}", "1,2"),
    "points as a set": ("(1,2),(3,4)", r"\{(1,2),(3,4)\}"),
    "plus or minus": (r"\pm 1", "1,-1"),
    "solutions": ("1,2", "x=1, x=2"),
    "thousands": ("1,200", "1200"),
    "a point with blanks": ("(1,200)", "(1, 200)"),
    "a set with blanks": (r"\{100,200\}", r"\{100, 200\}"),
    "an area": ("12", "12 m^2"),
    "a volume": ("12", "12cm^{3}"),
    "infinity": ("infinity", r"\infty"),
    "minus infinity": (r"-\infty", "-infinity"),
    "infinity in words": ("infinity", r"\text{Infinity}"),
    "below": (r"(-\infty,3)", "x<3"),
    "below, turned": (r"(-\infty,3)", "3>x"),
    "from": (r"[5,\infty)", r"x\ge 5"),
    "between": ("[0,1]", r"0\le x\le 1"),
    "half open": ("(0,1]", r"0<x\le 1"),
}
OTHER = {
    "a point as a set": ("(1,2)", r"\{1,2\}"),
    "a set as a point": (r"\{1,2\}", "(1,2)"),
    "an interval as a set": ("[0,1]", r"\{0,1\}"),
    "a list again and again": ("1,2,3", ",".join(["1,2,3"] * 50)),
    "a solution twice": ("3", "x=3,3"),
    "a number twice": ("1", "1,1"),
    "a double left out": ("1,1,2", "1,2"),
    "two numbers for thousands": ("1,200", "1, 200"),
    "thousands for two numbers": ("1, 200", "1,200"),
    "a power of a letter": ("12", "12 x^2"),
    "another area": ("12", "13 m^2"),
    "a polynomial": ("12m^2", "12 x^2"),
    "a unit alone": ("12", "m^2"),
    "the other infinity": (r"\infty", "-infinity"),
    "with its end": (r"(-\infty,3)", r"x\le 3"),
    "without its end": ("[0,1]", r"0<x\le 1"),
    "the other side": (r"(-\infty,3)", "x>3"),
    "a bound for a number": ("3", "x<3"),
    "a bound to be solved": ("(-2,2)", "x^2<4+x-x"),
}


@pytest.mark.parametrize("name", SAME)
def test_another_way_to_write_it_is_right(name):
    assert judge(*SAME[name]) is Grade.RIGHT


@pytest.mark.parametrize("name", OTHER)
def test_another_thing_that_math_verify_takes_for_it_is_wrong(name):
    assert judge(*OTHER[name]) is Grade.WRONG


LARGE = {
    "a binomial": r"\binom{1000000000}{500000000}",
    "choose": r"{10^9 \choose 5}",
    "a sum to a power": r"(1+1)^{10^{9}}",
    "a product to a power": r"(2\cdot 3)^{999999999}",
    "a negative base": "(-9)^{999999999}",
    "a product as exponent": "2^{2*10^9}",
    "thousands": "2^{1,000,000,000}",
    "a decimal base": "1.1^{999999999}",
    "a root": r"\sqrt{2}^{999999999}",
    "a negative exponent": "2^{-999999999}",
    "a fraction": r"(1/10^{50000})^{-50000}",
    "a product": r"\prod_{n=1}^{10000000} n",
    "a sum from far below": r"\sum_{n=-10^9}^{0} n",
    "factorials": "9!!",
    "the factorial of a power": "2^{20}!",
    "Python's power": "9**(9+9)**9",
    "a chain": "^".join("x" * 300),
    "brackets": "(" * 5000 + "5" + ")" * 5000,
}
ORDINARY = """2^{100}, 10^{12}, 3^{1000}, x^{2}, (-1)^{2023}, 2^{2^{10}}, x^x^x, x^{x^{x}}, 100!
\\binom{10}{3}, \\binom{2024}{1012}, \\frac{1}{10^{9}}, \\frac1{10^9}, \\frac{10^{50}}{3^{50}}
2^{\\frac{2023}{2024}}, 2^{1000+1001}, 1.6\\times10^{-19}, 1000000000, 12345678901234567890
\\sum_{k=1}^{100} k^2, \\int_0^{1000000} x dx, 90^\\circ, a_{2024}, e^{2\\pi i/3}, 0.000000000001
(1+\\frac{1}{1000000})^{1000}, 2^{-3}, 5 != 6, x = 10^{6}""".replace("\n", ", ").split(", ")


@pytest.mark.parametrize("name", LARGE)
def test_what_is_too_large_to_compute_is_told_without_trying(name):
    assert too_large(LARGE[name])
    assert judge("5", LARGE[name]) is Grade.UNPARSED


@pytest.mark.parametrize("text", [*ORDINARY, "1,234,567,890"])
def test_ordinary_answers_are_not_too_large(text):
    assert not too_large(text)


def test_any_text_has_a_size_in_linear_time():
    rng = random.Random(0)
    pieces = [*"^{}()!29_+-/x.,²४", "999999", "**", r"\frac", r"\binom", r"\choose", r"\9", r"\int"]
    for _ in range(2000):
        too_large("".join(rng.choices(pieces, k=rng.randint(0, 14))))
    for piece in ("1+", "(1", "x^", "2 ", "1,000,", "2^-", "-", "\\"):
        too_large(piece * 10_000)


# ---------------------------------------------------------------- bad input


def test_a_hub_id_without_network_says_how_to_use_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    task = load_task("gsm8k")
    with pytest.raises(Refusal, match=r"openai/gsm8k .* give a local \.parquet or \.jsonl.*DIR"):
        task.problems("test", 1)


def test_the_shipped_files_load_without_data():
    for name in ("gsm8k", "aime", "minerva", "omni-math"):
        assert load_task(name).settings["family"] == "maths"


def test_the_shipped_columns_are_those_of_a_download(tmp_path):
    """MATH-500's own, in the layout of its dataset; the source is all that a copy changes."""
    row = {"problem": "1 + 1?", "answer": "2", "subject": "Algebra", "level": 1, "unique_id": "a"}
    jsonl(tmp_path / "test.jsonl", [row | {"problem": f"{i} + 1?"} for i in range(40)])
    shipped = (SHIPPED / "math-500.toml").read_text()
    (tmp_path / "mine.toml").write_text(shipped.replace("HuggingFaceH4/MATH-500", str(tmp_path)))
    found = load_task(tmp_path / "mine.toml")
    assert found.skills == ("Algebra",)
    assert found.problems("test", 5)[0].difficulty == 1


WRONG = {
    "no file": ({"source": "none.jsonl"}, "there is no file none.jsonl"),
    "no id": ({"source": "gsm8k"}, "no folder here and no hub id"),
    "column": ({"columns": COLUMNS | {"answer": "gold"}}, "has no column gold .*it has problem, "),
    "level": ({"columns": COLUMNS | {"difficulty": "subject"}}, "has no number in it"),
    "gold": ({"gold": "boxed"}, "has no question or no answer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_source_lacks_is_told_when_it_is_read(task, name):
    about, said = WRONG[name]
    with pytest.raises(Refusal, match=said):
        maths(**({"source": task.settings["source"]} | about)).problems("test", 1)


UNLOADED = {
    "key": ({"sources": "x"}, "knows no sources"),
    "columns": ({"columns": {"question": "problem"}}, "must name the columns of question and"),
    "split": ({"splits": {"train": {"of": "all"}}}, "must give to some of tune, select, test"),
    "of": ({"splits": {"test": "test"}}, "a table such as"),
    "share": ({"splits": {"test": {"of": "all", "share": 0}}}, "share = 0 must be"),
    "file": ({"splits": {"tune": {"of": "a"}, "test": {"of": "b"}}}, "is one file, hence one"),
    "budget": ({"budget": 0}, "budget = 0"),
    "gold": ({"gold": "last"}, "none of whole, boxed, hashes"),
    "template": ({"template": "qwen"}, "'qwen' is not known; there are boxed, qwen-boxed"),
    "template key": ({"template": {"txt": "{question}"}}, "knows no txt"),
    "mark": ({"template": {"text": "{question}", "answer": ["last"]}}, r"names \['last'\]"),
    "no shot": (
        {
            "template": {
                "text": "{question}",
                "answer": ["boxed"],
                "examples": [{"question": "a", "answer": "b"}],
            }
        },
        r"shot has 0 \{question\}",
    ),
}


@pytest.mark.parametrize("name", UNLOADED)
def test_a_mistake_in_the_file_is_told_at_loading(task, name):
    about, said = UNLOADED[name]
    with pytest.raises(Refusal, match=said):
        maths(task.settings["source"], **about)


def test_damaged_and_empty_files_are_refused(tmp_path):
    cases = {
        "empty.jsonl": ("", "the split all is empty"),
        "bad.jsonl": ("{}\n{", "line 2, is not valid JSON"),
        "list.jsonl": ("[1]", "line 1, is no object"),
        "cut.parquet": ("PAR1", "no readable Parquet"),
    }
    for name, (text, said) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(Refusal, match=said):
            maths(str(tmp_path / name)).problems("test", 1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refusal, match=r"nor any \.parquet or \.jsonl"):
        maths(str(tmp_path / "folder")).problems("test", 1)
    jsonl(tmp_path / "folder" / "train.jsonl", ROWS)
    with pytest.raises(Refusal, match=r"no files of the split 'all'; there are train"):
        maths(str(tmp_path / "folder")).problems("test", 1)


def test_more_problems_than_there_are_is_refused_with_what_there_is(task):
    with pytest.raises(Refusal, match=r"split has \d+ problems, and 500 were .*\['even', 'odd'\]"):
        task.problems("test", 500)
    with pytest.raises(Refusal, match="0 problems of skill 'none'"):
        task.problems("test", 1, skill="none")


def test_without_math_verify_it_says_what_to_install(task, monkeypatch):
    monkeypatch.setattr("probes.tasks.maths.judging.find_spec", lambda _: None)
    with pytest.raises(Refusal, match="pip install -c constraints.txt math-verify"):
        maths(task.settings["source"])


@pytest.mark.parametrize(
    "answer",
    ["$18$ dollars", "$18$ people", r"\$18$ dollars", r"\(18\) dollars", "$18$ chocolates"],
)
def test_a_typeset_number_with_a_word_behind_it_is_the_number(answer):
    assert judge("18", answer) is Grade.RIGHT
    assert judge("19", answer) is not Grade.RIGHT


def test_one_question_with_two_answers_is_refused(tmp_path):
    path = jsonl(tmp_path / "twice.jsonl", [*ROWS, *ROWS])
    assert len(maths(str(path)).problems("test", 3)) == 3  # the same again is one
    wrong = [{**row, "answer": "99999"} for row in ROWS]
    path = jsonl(tmp_path / "torn.jsonl", [*ROWS, *wrong])
    with pytest.raises(Refusal, match="is there twice, with the answers"):
        maths(str(path)).problems("test", 3)
