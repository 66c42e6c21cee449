"""Basic blocks and the order in which divergent threads run.

Threads that diverged run in the order of their positions, the lowest first, and join where they meet. The positions
are a topological order of the blocks in which the blocks of a loop are neighbours, and a loop's way back leads over a
position behind all of its blocks, where threads wait for each other before the next iteration. So a branch's immediate
post-dominator comes behind everything between the branch and it, and divergent threads reconverge there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from ptx_sim.errors import PtxSyntaxError
from ptx_sim.parser import KernelText
from ptx_sim.syntax import Statement, Symbol

BRANCHES = ("bra", "brx")
ENDS = ("exit", "ret", "trap")
# a thread may have to stand still at these
STOPS = ("bar", "barrier", "nanosleep", "mbarrier")


@dataclass
class BasicBlock:
    """Statements ``begin`` up to ``end``; ``next`` is the block behind it, ``targets`` where its branch leads."""

    begin: int
    end: int
    targets: list[int] = field(default_factory=list)
    next: int | None = None
    position: int = -1
    # positions of targets and next as seen from here: of a block, or of the turning point of a loop
    target_positions: list[int] = field(default_factory=list)
    next_position: int = -1


@dataclass
class ControlFlow:
    """``nodes[position]``: a block's number, or ``~position`` of the loop head to which a turning point leads."""

    blocks: list[BasicBlock]
    nodes: list[int]


def ends_block(statement: Statement) -> bool:
    """Whether threads may part or stop at a statement."""
    return statement.opcode in (*BRANCHES, *ENDS, *STOPS)


def _label(kernel: KernelText, name: str, statement: Statement) -> int:
    if name not in kernel.labels:
        raise PtxSyntaxError(f"line {statement.line}: `{statement.text}` leads to an unknown label")
    return kernel.labels[name]


def _targets(kernel: KernelText, statement: Statement) -> list[int]:
    """Statements to which a branch may lead."""
    if statement.opcode not in BRANCHES:
        return []
    last = statement.operands[-1]
    assert isinstance(last, Symbol)
    if statement.opcode == "bra":
        return [_label(kernel, last.name, statement)]
    if last.name not in kernel.tables:
        raise PtxSyntaxError(f"line {statement.line}: `{statement.text}` has no table")
    return [_label(kernel, name, statement) for name in kernel.tables[last.name]]


def analyse(kernel: KernelText) -> ControlFlow:
    """Blocks and positions of a kernel."""
    statements = kernel.statements
    starts = {0}
    for number, statement in enumerate(statements):
        if ends_block(statement):
            starts.add(number + 1)
            starts.update(_targets(kernel, statement))
    ordered = [*sorted(start for start in starts if start < len(statements)), len(statements)]
    numbers = {start: number for number, start in enumerate(ordered)}
    blocks = [BasicBlock(begin, end) for begin, end in pairwise(ordered)]
    for number, block in enumerate(blocks):
        last = statements[block.end - 1]
        block.targets = [numbers[target] for target in _targets(kernel, last)]
        leaves = last.opcode in (*BRANCHES, *ENDS) and last.guard is None
        block.next = None if leaves else number + 1
    # running off the end is a return
    blocks.append(BasicBlock(len(statements), len(statements)))
    flow = ControlFlow(blocks, [])
    turns: dict[tuple[int, int], int] = {}
    _place(flow, {n: _successors(blocks[n]) for n in _reachable(blocks)}, 0, turns)
    for number, block in enumerate(blocks):
        if block.position >= 0:
            block.target_positions = [turns.get((number, t), blocks[t].position) for t in block.targets]
            if block.next is not None:
                block.next_position = turns.get((number, block.next), blocks[block.next].position)
    return flow


def _successors(block: BasicBlock) -> list[int]:
    return sorted({*block.targets, *([] if block.next is None else [block.next])})


def _reachable(blocks: list[BasicBlock]) -> set[int]:
    seen, open_ = {0}, [0]
    while open_:
        for successor in _successors(blocks[open_.pop()]):
            if successor not in seen:
                seen.add(successor)
                open_.append(successor)
    return seen


def _place(flow: ControlFlow, graph: dict[int, list[int]], entry: int, turns: dict[tuple[int, int], int]) -> None:
    """Give positions to the blocks of ``graph``, all of which ``entry`` reaches."""
    entries: dict[int, int] = {}
    components = _components(graph, entry)
    of = {block: number for number, component in enumerate(components) for block in component}
    for block, successors in graph.items():
        for successor in successors:
            if of[block] != of[successor]:
                entries[of[successor]] = min(successor, entries.get(of[successor], successor))
    entries[of[entry]] = entry
    for number, component in enumerate(components):
        head = entries[number]
        members = set(component)
        inner = {b: [s for s in graph[b] if s in members and s != head] for b in component}
        returning = [b for b in component if head in graph[b]]
        if len(component) == 1:
            flow.blocks[head].position = len(flow.nodes)
            flow.nodes.append(head)
        else:
            _place(flow, inner, head, turns)
        for block in returning:
            turns[block, head] = len(flow.nodes)
        if returning:
            flow.nodes.append(~flow.blocks[head].position)


def _components(graph: dict[int, list[int]], entry: int) -> list[list[int]]:
    """Strongly connected components, in topological order (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in [entry, *graph]:
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            block, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(graph[successor])))
                    break
                if successor in on_stack:
                    low[block] = min(low[block], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[block])
                if low[block] == index[block]:
                    component = stack[stack.index(block) :]
                    del stack[stack.index(block) :]
                    on_stack -= set(component)
                    found.append(component)
    return found[::-1]
