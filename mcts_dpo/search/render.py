"""Shows a search tree to people: as a `rich` tree for the terminal, or as plain text."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mcts_dpo.search.tree import LENGTH, Forest
from verifiers.visible import visible

_MARKS = {1: ("✓", "green"), -1: ("✗", "red"), 0: ("•", "yellow")}


def render_tree(
    forest: Forest, tree: int, *, max_depth: int = 8, max_children: int = 4, max_text: int = 72, highlight: int = -1
) -> Tree:
    """Draw one tree as a `rich.tree.Tree`.

    A step shows its N, Q and p and its text. A terminal step also shows its outcome: ✓ right, ✗ wrong, • not known.
    A … before the outcome means that a length limit cut the solution.

    max_depth:    deepest level of steps that is shown. Deeper steps are only counted.
    max_children: most children shown of a step, ordered by visits, then by Q. The others are only counted.
    max_text:     most characters of a step's text.
    highlight:    node id. The steps on the path to it are bold and come first among their siblings. -1: none.
    """
    info = forest.trees[tree]
    chosen = set(forest.path(highlight)) if highlight >= 0 else set()
    head = Text(visible(info.problem_id), style="bold")
    head.append(
        f"  N={forest.visits[info.root]} V={forest.v[info.root]:+.2f}"
        f"  {info.simulations} simulations, {info.generated} tokens, ended: {visible(info.reason or info.status)}",
        style="dim",
    )
    top = Tree(head)
    stack = [(info.root, top)]
    while stack:
        node, branch = stack.pop()
        children = forest.children(node)
        if children and forest.depth[node] >= max_depth:
            branch.add(Text(f"… {_descendants(forest, node)} more steps below", style="dim"))
            continue
        ranked = sorted(children, key=lambda n: (n not in chosen, -int(forest.visits[n]), -float(forest.q[n]), n))
        shown = ranked[:max_children]
        stack += [(child, branch.add(_label(forest, child, max_text, child in chosen))) for child in shown]
        if len(ranked) > len(shown):
            branch.add(Text(f"… {len(ranked) - len(shown)} more", style="dim"))
    return top


def render_text(forest: Forest, tree: int, *, width: int = 100, **limits: int) -> str:
    """Draw one tree as plain text, in lines of at most `width` characters.

    limits: the keyword arguments of `render_tree`.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(render_tree(forest, tree, **limits), no_wrap=True, overflow="ellipsis", crop=True)
    file = console.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _label(forest: Forest, node: int, max_text: int, chosen: bool) -> Text:
    own = forest.texts[node].removesuffix(forest.replies[node]) if forest.replies[node] else forest.texts[node]
    text = visible(" ".join(own.split())) or ("(end)" if forest.terminal[node] else "(blank)")
    label = Text(f"N={forest.visits[node]} Q={forest.q[node]:+.2f} p={forest.prior[node]:.2f} ", style="dim")
    if forest.terminal[node]:
        mark, colour = _MARKS[int(forest.outcome[node])]
        label.append("… " if forest.finish[node] == LENGTH else "", style=colour)
        label.append(f"{mark} ", style=colour)
    label.append(text if len(text) <= max_text else text[: max_text - 1] + "…", style="bold" if chosen else "not dim")
    if forest.replies[node]:
        reply = visible(" ".join(forest.replies[node].split()))
        label.append(f" ⇒ {reply if len(reply) <= max_text else reply[: max_text - 1] + '…'}", style="blue")
    return label


def _descendants(forest: Forest, node: int) -> int:
    found, stack = 0, [node]
    while stack:
        children = forest.children(stack.pop())
        found += len(children)
        stack += children
    return found
