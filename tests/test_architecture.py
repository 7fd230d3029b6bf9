"""What imports what: two packages, one direction, and the light half without torch."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = {
    "probes": (
        ("records", "intervals"),
        ("columns", "measurements", "datasets", "frames"),
        ("tasks", "verify"),
        ("models", "generate"),
        ("served",),
        ("capture",),
        ("strategies", "directions", "sae"),
        ("taxonomy",),
        ("boundary",),
        ("divergence", "drift"),
        ("plots", "report"),
    ),
    "steering": (
        ("objectives",),
        ("interventions", "controls"),
        ("evaluate",),
        ("features", "vectors", "own_directions"),
        ("shards",),
        ("routing", "decoding"),
        ("training",),
        ("organisms",),
        ("elicitation",),
        ("verdict",),
        ("sweep",),
        ("reach",),
        ("calibration",),
        ("cli",),
    ),
}
"""Modules of each package, line by line: one may import those of its own line and above."""

LIGHT = (
    "probes.boundary",
    "probes.columns",
    "probes.directions",
    "probes.intervals",
    "probes.measurements",
    "probes.plots",
    "probes.records",
    "probes.report",
    "probes.served",
    "probes.strategies",
    "probes.tasks.chain",
    "probes.tasks.countdown",
    "probes.verify",
    "steering.cli",
    "steering.verdict.lines",
    "steering.verdict.page",
    "steering.verdict.rules",
)


def sources():
    return [f for package in ORDER for f in sorted((ROOT / package).rglob("*.py"))]


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file):
    """Full names that a file imports, wherever in it, with what it takes from them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def line_of(module):
    """Package and line in the order; None for the package itself and for other people's."""
    package, _, rest = module.partition(".")
    for line, names in enumerate(ORDER.get(package, ())):
        if rest.split(".")[0] in names:
            return package, line
    return None


def test_every_module_has_its_place_in_the_order():
    missing = {module_of(f) for f in sources() if "." in module_of(f) and not line_of(module_of(f))}
    assert not missing


def test_the_packages_tell_the_order_that_is_held():
    for package, lines in ORDER.items():
        told = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
        places = [[told.index(f"    {names[0]}")] for names in lines]
        assert places == sorted(places)
        for names in lines:
            assert all(name in told for name in names), (package, names)


@pytest.mark.parametrize("file", sources(), ids=module_of)
def test_imports_go_one_way(file):
    own = line_of(module_of(file))
    for name in imported(file):
        if module_of(file).startswith("probes"):
            assert name.split(".")[0] != "steering", f"{module_of(file)} measures and changes"
        other = line_of(name)
        if own and other and own[0] == other[0]:
            assert other[1] <= own[1], f"{module_of(file)} imports {name}, which stands below it"


def test_the_verdict_never_opens_a_recipe():
    for file in sorted((ROOT / "steering" / "verdict").rglob("*.py")):
        assert not [n for n in imported(file) if n.startswith("steering.organisms")], file


def test_every_module_can_be_imported():
    for file in sources():
        importlib.import_module(module_of(file))


def test_graders_figures_rules_and_the_command_line_load_no_torch():
    """In one process, where any of them would be the first to do it."""
    loaded = "import sys; " + "; ".join(f"import {name}" for name in LIGHT)
    asked = f"{loaded}; print(*[m for m in ('torch', 'transformers') if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""


def danger(node):
    """Why a call may run code that came with a file, or None."""
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "compile", "__import__") or called.startswith("pickle."):
        return called
    if called in ("torch.load", "torch.save", "np.load", "joblib.load"):
        allowed = any(k.arg == "allow_pickle" and not k.value.value for k in node.keywords)
        return None if allowed else called
    trusting = any(
        k.arg == "trust_remote_code" and getattr(k.value, "value", True) for k in node.keywords
    )
    return f"{called}(trust_remote_code)" if trusting else None


@pytest.mark.parametrize("file", sources(), ids=module_of)
def test_nothing_runs_code_that_came_with_a_file(file):
    found = [danger(node) for node in ast.walk(ast.parse(file.read_text()))]
    assert not [one for one in found if one]
    banned = {"pickle", "dill", "joblib", "marshal", "shelve"}
    assert not banned & {name.split(".")[0] for name in imported(file)}


@pytest.mark.parametrize(
    "text",
    [
        "torch.load('x')",
        "pickle.loads(x)",
        "eval(x)",
        "load('m', trust_remote_code=True)",
        "load('m', trust_remote_code=given)",
    ],
)
def test_the_scan_sees_what_it_is_meant_to_see(text):
    assert any(danger(node) for node in ast.walk(ast.parse(text)))
