"""Imports go downwards, Numba's decorators are named in one place, importing compiles nothing, names are documented."""

import ast
import inspect
import itertools
import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import convjit

PACKAGE = Path(convjit.__file__).parent
README = PACKAGE.parent / "README.md"

# Top to bottom: a module imports from its own layer and from those below.
LAYERS = (
    ("__main__", "demo", "picture"),
    ("environment",),
    ("interop",),
    ("layers", "warming"),
    ("functional", "nopython"),
    ("algorithms",),
    ("gemm",),
    ("simd",),
    ("arrays",),
    ("runtime",),
    ("geometry",),
    ("layouts",),
    ("parsing",),
    ("extras", "progress", "typing"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FOR_BRIDGES = {"extras", "functional.front_door", "geometry", "interop", "runtime.files", "typing"}
MODULES = sorted(PACKAGE.rglob("*.py"))
DECORATORS = {"njit", "jit", "intrinsic", "vectorize", "guvectorize", "prange", "cfunc", "stencil", "overload"}


def imports(path):
    """Absolute dotted names that a module imports, `a.b.c` for `from a.b import c`."""
    package = ("convjit", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            stem = ".".join(part for part in (base, node.module) if part)
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def layer_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "convjit":
            continue
        if layer == "interop" and name == "convjit":  # a bridge stands on what users have, and calls it the same
            continue
        assert len(parts) > 1, f"{path.name} imports the whole package"
        target = parts[1]
        if layer == "testing":
            assert target == "testing", f"convjit.testing imports {name}"
        elif target == "testing":
            assert layer in ("__main__", "demo"), f"{path.name} imports {name}"
        elif target == "__version__":
            continue
        elif layer == "interop":
            assert target in {*PUBLIC, *FOR_BRIDGES} or ".".join(parts[1:3]) in FOR_BRIDGES, (
                f"{path.name} imports {name}, which is not public"
            )
        elif target == "interop":
            raise AssertionError(f"{path.name} imports {name}, which is optional")
        elif target in RANK:
            assert layer in RANK, f"{layer} is in no layer"
            assert RANK[target] >= RANK[layer], f"{layer} imports {name}, which is above it"
        else:  # a public name from the top of the package
            assert layer in ("__main__", "demo"), f"{path.name} imports {name} from the top"


def names_of(package, columns):
    """What each line of a package's docstring names in so many columns."""
    text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))
    return [re.findall(r"`([a-z0-9_*]+)`", line[:columns]) for line in text.splitlines()]


def lines_of(package, columns):
    """The modules of a package, and those of them that each of these lines names."""
    modules = {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}
    named = names_of(package, columns)
    return modules, [{module for each in names for module in modules if fnmatch(module, each)} for names in named]


@pytest.mark.parametrize("package", ["functional", "algorithms", "gemm", "layers", "nopython", "runtime"])
def test_a_package_says_what_each_of_its_modules_is_for(package):
    modules, lines = lines_of(package, 120)
    assert modules - set().union(*lines) == set()


@pytest.mark.parametrize(("package", "downwards"), [("functional", True), ("gemm", False)])
def test_files_import_from_their_own_line_and_those_on_one_side_of_it(package, downwards):
    modules, lines = lines_of(package, 40)
    for name in itertools.chain(*names_of(package, 40)):
        assert any(fnmatch(module, name) for module in modules), f"there is no {name}"
    line_of = {module: next(i for i, line in enumerate(lines) if module in line) for module in modules}
    for module, line in line_of.items():
        for each in imports(PACKAGE / package / f"{module}.py"):
            if each.startswith(f"convjit.{package}."):
                target = line_of[each.split(".")[2]]
                assert line <= target if downwards else target <= line, f"{module} imports {each}"


def test_the_oracle_imports_nothing_from_convjit():
    known = {"__future__", "collections", "typing", "numpy"}
    assert {name.split(".")[0] for name in imports(PACKAGE / "testing" / "oracle.py")} <= known
    windows = {name for name in imports(PACKAGE / "testing" / "oracle_windows.py") if name.split(".")[0] not in known}
    assert all(name.startswith("convjit.testing.oracle.") for name in windows)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_runtime_names_numbas_decorators(path):
    if layer_of(path) in ("runtime", "nopython"):
        return
    for name in imports(path):
        if name.split(".")[0] == "numba":
            assert name.split(".")[-1] not in DECORATORS, f"{path.name} imports {name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("numba", "nb"):
            assert node.attr not in DECORATORS, f"{path.name} uses numba.{node.attr}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_optional_packages_are_imported_where_they_are_used(path):
    """At the top of a module stands only what is always installed."""
    optional = {
        "matplotlib", "rich", "sklearn", "torch", "hypothesis", "pytest", "scipy", "pandas", "jax", "autograd", "dask",
        "distributed", "onnx", "safetensors",
    }  # fmt: skip
    own = path.stem if layer_of(path) == "interop" else None  # a bridge is named after what it leads to
    if layer_of(path) in ("testing", "demo", "picture"):  # themselves imported where they are used
        return
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not (optional - {own}) & {name.split(".")[0] for name in names}, f"{path.name} imports {names}"


IMPORT = """
import json, sys, warnings
warnings.simplefilter("error")
import numba.core.dispatcher as dispatcher
compiled = []
compile = dispatcher.Dispatcher.compile
dispatcher.Dispatcher.compile = lambda self, sig: (compiled.append(str(self)), compile(self, sig))[1]
before = set(sys.modules)
import convjit
modules = sorted(set(sys.modules) - before)
from convjit.runtime import emitting
compiled += map(str, emitting._made)
print(json.dumps({"compiled": compiled, "modules": modules}))
"""


def test_importing_compiles_nothing_and_stays_small():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["compiled"] == []
    loaded = {name.split(".")[0] for name in seen["modules"]}
    assert not loaded & {"hypothesis", "pytest", "matplotlib", "rich", "torch", "sklearn", "PIL", "pandas"}
    assert not loaded & {"autograd", "dask", "distributed", "onnx", "safetensors"}
    assert not {"convjit.testing", "convjit.interop"} & set(seen["modules"])


# --- public names ---------------------------------------------------------------------------------------------------

PUBLIC = [name for name in getattr(convjit, "__all__", ()) if not name.startswith("__")]
FUNCTIONS = [name for name in PUBLIC if callable(getattr(convjit, name))]


def test_public_names_are_listed_and_exist():
    assert PUBLIC, "convjit has no __all__"
    assert len(set(PUBLIC)) == len(PUBLIC)
    names = {n for n, v in vars(convjit).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert names == set(PUBLIC)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_names_have_a_docstring_with_an_example(name):
    value = getattr(convjit, name)
    text = inspect.getdoc(value) or ""
    assert ">>> " in text, f"{name} has no example"
    assert text.splitlines()[0].endswith("."), f"{name} has no summary line"
    if inspect.isfunction(value):
        for parameter in inspect.signature(value).parameters:
            assert re.search(rf"\b{parameter}\b", text), f"{name} does not document {parameter}"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_in_the_readme(name):
    assert re.search(rf"\b{name}\b", README.read_text()), f"README.md does not mention {name}"


BRIDGES = sorted({path.stem for path in (PACKAGE / "interop").glob("*.py")} - {"__init__", "formats"})


@pytest.mark.parametrize("name", BRIDGES)
def test_bridges_have_docstrings_with_examples_and_are_in_the_readme(name):
    assert f"convjit.interop.{name}" in README.read_text(), f"README.md does not mention the bridge {name}"
    tree = ast.parse((PACKAGE / "interop" / f"{name}.py").read_text())
    public = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
              and [getattr(target, "id", "") for target in node.targets] == ["__all__"]]  # fmt: skip
    documented = {
        node.name: ast.get_docstring(node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert len(public) == 1, f"{name} has no __all__"
    for function in documented.keys() & set(public[0]):
        assert ">>> " in documented[function], f"{name}.{function} has no example"


SECTIONS = ("Parameters", "Returns", "Raises", "Examples", "Attributes", "Yields")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sections_of_docstrings_stand_behind_an_empty_line(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines = ["", *(ast.get_docstring(node) or "").splitlines()]
            for above, line in itertools.pairwise(lines):
                assert line not in SECTIONS or not above, f"{path.name}: {line} of {node.name}"


# Plans are made by functions, which document what they take.
CLASSES = [name for name in FUNCTIONS if inspect.isclass(getattr(convjit, name)) and not name.endswith("Plan")]


@pytest.mark.parametrize("name", CLASSES)
def test_public_classes_document_their_parameters(name):
    value = getattr(convjit, name)
    text = inspect.getdoc(value) or ""
    if value.__init__ is not object.__init__ and not issubclass(value, tuple):
        for parameter in list(inspect.signature(value.__init__).parameters)[1:]:
            assert re.search(rf"\b{parameter}\b", text), f"{name} does not document {parameter}"


def test_names_of_testing_have_docstrings():
    import convjit.testing

    for name in convjit.testing.__all__:
        value = getattr(convjit.testing, name)
        if callable(value):
            assert ">>> " in (value.__doc__ or ""), f"convjit.testing.{name} has no example"
            if value.__module__.endswith((".arrays", ".strategies", ".memory_layouts")):
                assert re.search(r"\b[Ss]hrinks? ", value.__doc__), f"{name} does not say how it shrinks"
        if inspect.isfunction(value):
            for parameter in inspect.signature(value).parameters:
                assert re.search(rf"\b{parameter}\b", value.__doc__), f"{name} does not document {parameter}"
