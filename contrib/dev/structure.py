"""What the structure of the code must keep to, and how large it is: structure.py [--count]

Without an argument, two checks over the syntax trees, part of the CI:

- names: no module, package, class, public function or attribute has one of the words that this
  project once used in place of the field's own (WORDS); names of tests are sentences, and free;
- owners: no module assigns to an attribute of another object; plain records that are filled by
  their maker, and objects of other libraries, are listed in RECORDS.

``--count`` prints statements, lines, classes and modules of each package. Statements are those of
the syntax tree, docstrings left out.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/phonofs"
PLACES = ("src", "tests", "contrib")

WORDS = frozenset(
    """
    house room stock shelf ground late holding yard holds turns proof ports part ways clerk parcel
    sheaf sight sweep flights around callers urgency wish
    """.split()  # noqa: SIM905 - read as a list of words
)

RECORDS: dict[str, dict[str, str]] = {
    "cache/checked_read.py": {"outcome": "a record that a thread fills and hands back"},
    "cache/write_behind.py": {"job": "likewise"},
    "cli/fetch.py": {"outcome": "the sums of a run"},
    "cli/output.py": {"sys": "standard output is replaced"},
    "cache/index_file.py": {"connection": "sqlite3's, set up where it is made"},
    "catalogue/catalogue.py": {"change": "a record that is completed before it is handed out"},
    "discovery/page_worker.py": {
        "self._idle": "trio's CancelScope",
    },
    "errors.py": {"each": "an exception, of which the traceback is dropped"},
    "fakeservice/fault_injection.py": {"answer": "a record that is altered before it is sent"},
    "fakeservice/service.py": {"answer": "likewise"},
    "fuse/errors.py": {"handler": "a wrapped function, which keeps its name"},
    "fuse/interrupts.py": {
        "caller": "a record of this module's InterruptibleRequests",
        "scope": "trio's CancelScope",
    },
    "fuse/memory_pressure.py": {"pyfuse3": "its loop is wrapped; the module says why"},
    "fuse/operations.py": {
        "attributes": "pyfuse3.EntryAttributes, filled by the handler that answers with it",
        "data": "pyfuse3.StatvfsData, likewise",
        "file": "a record of this module's Operations",
    },
    "process/daemonize.py": {"sys": "the standard streams are replaced"},
    "process/logging_setup.py": {
        "handler": "a logging.Handler, set up where it is made",
        "logging": "its own switch",
        "record": "a logging.LogRecord, which a formatter may change",
    },
    "reader/open_object.py": {"self.context.counts": "plain counters"},
    "reader/reader.py": {
        "late": "an exception, which gets its cause",
        "self._context.counts": "plain counters",
    },
    "reader/verification.py": {"self._context.counts": "plain counters"},
    "s3door/listener.py": {"context": "an ssl.SSLContext, set up where it is made"},
    "service/limiter.py": {"self._alarm": "trio's CancelScope"},
    "service/tls.py": {"context": "an ssl.SSLContext, set up where it is made"},
}
"""By module: what is assigned to though it is another object, and why that is right."""


def files() -> list[Path]:
    """Return the Python files that are under version control, or are about to be."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", *PLACES]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines() if name.endswith(".py")]
    return [path for path in paths if path.exists()]


def words_of(name: str) -> list[str]:
    """Split snake_case and CamelCase into lower-case words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


def named(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of what the file makes public: itself, classes, functions, fields."""
    yield 1, path.stem
    yield 1, path.parent.name
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id


def assigned(tree: ast.Module) -> Iterator[ast.Attribute]:
    """Yield the attributes that the file assigns to or deletes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def check_names(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield a line for each public name with one of WORDS."""
    for line, name in named(path, tree):
        if not name.startswith(("_", "test_")) and WORDS.intersection(words_of(name)):
            yield f"{path.relative_to(ROOT)}:{line}: the name {name}"


def check_owners(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield a line for each attribute of another object that is assigned to."""
    records = RECORDS.get(str(path.relative_to(PACKAGE)), {})
    unused = set(records)
    for node in assigned(tree):
        base = ast.unparse(node.value)
        unused.discard(base)
        if base not in ("self", "cls", *records):
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            yield f"{where}: {ast.unparse(node)} belongs to another object"
    for base in sorted(unused):
        yield f"{path.relative_to(ROOT)}: nothing is assigned to {base}; drop it from RECORDS"


def statements(tree: ast.Module) -> int:
    """Count statements, docstrings left out."""
    return sum(
        isinstance(node, ast.stmt)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.walk(tree)
    )


def count() -> None:
    """Print the size of each package."""
    sizes: dict[str, Counter[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        text = path.read_text()
        tree = ast.parse(text)
        sizes.setdefault(parts[0] if len(parts) > 1 else "(top)", Counter()).update(
            statements=statements(tree),
            lines=len(text.splitlines()),
            classes=sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
            modules=1,
        )
    for name, size in sizes.items():
        print(f"{name:12}", "  ".join(f"{what} {n:5}" for what, n in size.items()))


def main() -> int:
    """Run the checks, or count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="print the size of each package")
    if parser.parse_args().count:
        count()
        return 0
    found: list[str] = []
    for path in files():
        tree = ast.parse(path.read_text())
        found += check_names(path, tree)
        if path.is_relative_to(PACKAGE):
            found += check_owners(path, tree)
    print("\n".join(found) or "names and owners: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
