"""Print the size and the order of the package: ``python scripts/house.py``."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "perturbcore"
# an import goes to the left, never to the right
WINGS = ["core", "data", "embeddings", "score", "models", "report", "book"]


def imports(path: Path) -> set[str]:
    """Return modules of the package that a file imports, inside functions too."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perturbcore"):
            for name in [a.name for a in node.names]:
                inside = PACKAGE.parent.joinpath(*node.module.split("."), name)
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                out.add(f"{node.module}.{name}" if is_module else node.module)
        elif isinstance(node, ast.Import):
            out |= {a.name for a in node.names if a.name.startswith("perturbcore.")}
    return out


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["perturbcore", *path.relative_to(PACKAGE).with_suffix("").parts]
        names[".".join(p for p in parts if p != "__init__")] = path
    return names


def against_the_order(files: dict[str, Path]) -> list[str]:
    """Return imports that go from a wing to a later one."""
    out = []
    for name, path in files.items():
        wing = name.split(".")[1] if "." in name else ""
        for target in imports(path) & files.keys():
            to = target.split(".")[1] if "." in target else ""
            if wing in WINGS and to in WINGS and WINGS.index(to) > WINGS.index(wing):
                out.append(f"{name} -> {target}")
    return sorted(out)


def circles(files: dict[str, Path]) -> list[str]:
    """Return modules that import each other, directly or not."""
    graph = {n: (imports(p) & files.keys()) - {n} for n, p in files.items()}
    reach = {}
    for name in graph:
        seen, left = set(), [name]
        while left:
            for to in graph[left.pop()] - seen:
                seen.add(to)
                left.append(to)
        reach[name] = seen
    return sorted(n for n in graph if n in reach[n])


def levels(files: dict[str, Path]) -> int:
    """Length of the longest chain of imports between rooms."""
    rooms = {n: n.rsplit(".", 1)[0] if p.name != "__init__.py" else n for n, p in files.items()}
    graph: dict[str, set] = {}
    for name, path in files.items():
        to = {rooms[t] for t in imports(path) & files.keys()} - {rooms[name]}
        graph.setdefault(rooms[name], set()).update(to)

    def depth(room, seen=()):
        below = [depth(r, (*seen, room)) for r in graph[room] if r not in (*seen, room)]
        return 1 + max(below, default=0)

    return max(map(depth, graph))


def lines(folder: Path) -> int:
    """Lines of Python below a folder."""
    return sum(len(p.read_text(encoding="utf-8").splitlines()) for p in folder.rglob("*.py"))


def main() -> None:
    """Print the table."""
    files = modules()
    for wing in WINGS:
        n = len(list((PACKAGE / wing).rglob("*.py")))
        print(f"{wing:12}{lines(PACKAGE / wing):7,} lines {n:4} files")
    rooms = {p.parent for p in files.values()}
    longest = max(files.values(), key=lambda p: len(p.read_text("utf-8").splitlines()))
    print(f"src         {lines(ROOT / 'src'):7,} lines {len(files):4} files, {len(rooms)} rooms")
    print(f"tests       {lines(ROOT / 'tests'):7,} lines")
    size = len(longest.read_text("utf-8").splitlines())
    print(f"longest file: {longest.relative_to(ROOT)}, {size} lines")
    print(f"levels of rooms: {levels(files)}")
    print(f"imports against the order: {against_the_order(files) or 'none'}")
    print(f"circles: {circles(files) or 'none'}")


if __name__ == "__main__":
    main()
