r"""What stands around a question: the papers' prompts by name, one's own, and a model's chat.

    template = read_template(name, "qwen-boxed")           # of data/templates.toml
    template.prompt("What is 2 + 3?")                      # what the model reads, to the character
    template.answer(r"... so \boxed{5}")                   # "5"

A template is a table of TOML: `text` with one `{question}` in it, and `answer`, the marks by which
its answers are found (`probes.tasks.answers`), the one it asks for first. With `examples` it is
few-shot: each is rendered by `shot` and set before the text. `stop` lists what begins another
question. `source` says where it is from.

With `chat`, a model folder or hub id, the text is what the user says in that model's own chat
template (`system` before it, where there is one). It is rendered to text, not to tokens, so base
and tuned read the same characters whichever of them has the template; a base that never saw a
chat meets its marks as text.
"""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from probes import DATA
from probes.records import Refusal, read_toml
from probes.tasks.answers import MARKS, final_answer
from probes.tasks.settings import check_list, check_whole

SHIPPED = DATA / "templates.toml"
QUESTION, ANSWER = "{question}", "{answer}"


@dataclass(frozen=True)
class Example:
    """A question with a worked answer, shown before the one that is asked."""

    question: str
    answer: str


@dataclass(frozen=True)
class Template:
    """A prompt's text and how its answers are read."""

    name: str
    """"" for one that a task's file brings itself."""
    text: str
    marks: tuple[str, ...]
    stop: tuple[str, ...] = ()
    shot: str = ""
    between: str = "\n\n"
    examples: tuple[Example, ...] = ()
    system: str = ""
    """Said by the system; in a chat only."""
    chat: str = ""
    """Folder or hub id of the model whose chat template is used; "" for none."""
    source: str = ""

    def prompt(self, question: str) -> str:
        """What the model reads."""
        shots = [
            self.shot.replace(QUESTION, one.question).replace(ANSWER, one.answer)
            for one in self.examples
        ]
        text = self.between.join([*shots, self.text.replace(QUESTION, question)])
        return _in_chat(self.chat, self.system, text) if self.chat else text

    def answer(self, response: str) -> str | None:
        """The final answer of a response; None where none can be read."""
        return final_answer(response, self.marks, self.stop)

    def record(self) -> dict[str, Any]:
        """All of it, for a result's metadata and a task's identity."""
        return asdict(self)


TEMPLATE_KEYS = ("text", "answer", "stop", "shot", "between", "examples", "system", "source")


def read_template(name: str, given: Any, shots: Any = None, chat: Any = "") -> Template:
    """The template of a task's file.

    Args:
        name: of the task, for refusals.
        given: name of a shipped one, or a table of TOML.
        shots: how many of its examples to show; None for all of them.
        chat: model folder or hub id; "" for the text alone.

    Raises:
        Refusal: there is no such template, or it would ask no question or read no answer.
    """
    if isinstance(given, str):
        known = read_toml(SHIPPED, SHIPPED.parent, "templates")[1]
        if given not in known:
            raise Refusal(
                f"{name}: template = {given!r} is not known; there are {', '.join(known)}. One of "
                f"your own is a table, [template], with text and answer."
            )
        called, table = given, known[given]
    elif isinstance(given, dict):
        called, table = "", given
    else:
        raise Refusal(f"{name}: template = {given!r} must be a name or a table.")
    _check_table(name, table)
    examples = _examples(name, table, shots)
    if not isinstance(chat, str):
        raise Refusal(f"{name}: chat = {chat!r} must be a model's folder or hub id.")
    template = Template(
        name=called,
        text=table["text"],
        marks=tuple(table["answer"]),
        stop=tuple(table.get("stop", ())),
        shot=table.get("shot", ""),
        between=table.get("between", "\n\n"),
        examples=examples,
        system=table.get("system", "") if chat else "",
        chat=chat,
        source=table.get("source", ""),
    )
    if chat:
        _check_chat(name, template)
    return template


def _check_table(name: str, table: dict[str, Any]) -> None:
    """Known keys, each of its kind, a place for the question and a mark for the answer."""
    if unknown := sorted(set(table) - set(TEMPLATE_KEYS)):
        raise Refusal(
            f"{name}: the template knows no {', '.join(unknown)}; it has "
            f"{', '.join(TEMPLATE_KEYS)}."
        )
    for key in ("text", "shot", "between", "system", "source"):
        if not isinstance(table.get(key, ""), str):
            raise Refusal(f"{name}: the template's {key} = {table[key]!r} must be text.")
    stop = table.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(s, str) and s for s in stop):
        raise Refusal(f"{name}: the template's stop = {stop!r} must list texts.")
    check_list(name, "the template's answer", table.get("answer"), MARKS)
    _check_question(name, "text", table.get("text", ""), QUESTION)


def _examples(name: str, table: dict[str, Any], shots: Any) -> tuple[Example, ...]:
    """The worked examples that are shown."""
    listed = table.get("examples", [])
    if not isinstance(listed, list) or any(
        not isinstance(one, dict) or set(one) != {"question", "answer"} for one in listed
    ):
        raise Refusal(f"{name}: the template's examples must be tables of question and answer.")
    if listed:
        _check_question(name, "shot", table.get("shot", ""), QUESTION)
        _check_question(name, "shot", table.get("shot", ""), ANSWER)
    if shots is not None:
        check_whole(name, "shots", shots, 0, len(listed))
    return tuple(Example(**one) for one in listed[:shots])


def _check_question(name: str, key: str, text: str, hole: str) -> None:
    if text.count(hole) != 1:
        raise Refusal(
            f"{name}: the template's {key} has {text.count(hole)} {hole}; it must have one, where "
            f"the {hole[1:-1]} goes. It reads {text[:80]!r}."
        )


def _check_chat(name: str, template: Template) -> None:
    for turn in ("<|im_start|>", "[INST]", "User:", "<|user|>"):
        if turn in template.text:
            raise Refusal(
                f"{name}: the template {template.name!r} has the turns of a conversation in it "
                f"({turn}); within the chat template of {template.chat} it would have them twice. "
                f"Take one without, such as boxed, or leave chat out."
            )
    template.prompt("?")  # renders, or refuses


def _in_chat(chat: str, system: str, text: str) -> str:
    said = [{"role": "system", "content": system}] if system else []
    said.append({"role": "user", "content": text})
    tokenizer = _tokenizer(chat)
    try:
        rendered = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2's own, and whatever a template raises on purpose
        raise Refusal(f"the chat template of {chat} can't render this prompt: {error}") from None
    if not isinstance(rendered, str) or text.strip() not in rendered:
        raise Refusal(f"the chat template of {chat} does not hold what the user says.")
    return rendered


@cache
def _tokenizer(chat: str) -> Any:
    from huggingface_hub import snapshot_download
    from transformers import AutoTokenizer

    folder = Path(chat)
    try:
        if not folder.is_dir():
            files = ["*.json", "*.model", "*.txt", "*.jinja"]
            folder = Path(snapshot_download(chat, allow_patterns=files))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises its own, the hub client's and the system's
        there = "holds no tokenizer" if folder.is_dir() else "is no folder here, nor on the hub"
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise Refusal(
            f"chat = {chat!r} {there} ({reason}): name a model's folder with tokenizer.json and a "
            f"chat template."
        ) from None
    if not tokenizer.chat_template:
        raise Refusal(
            f"chat = {chat!r}: its tokenizer has no chat template, as those of most base models; "
            f"name the tuned model (both will read its prompt), or leave chat out."
        )
    return tokenizer
