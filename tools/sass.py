"""Loops of SASS code: which there are, and which of them stream elements from memory.

A loop is a natural one: the instructions from which its head is reached again, all of them reached
through it. Branches are found by their targets; a convergence barrier (BSYNC) is followed by the
instruction it waits for, and a called subroutine returns, so both just go on. A call of an address
instead of a subroutine never returns: before sm_90, loops are left that way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from cuda_binary import Instruction

_F64 = {"DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "DMMA"}
_LOCAL = {"LDL", "STL"}


def is_f64(instruction: Instruction) -> bool:
    """Arithmetic, comparison or conversion in f64; moving 64 bits is none."""
    return instruction.base in _F64 or any(
        modifier in ("F64", "RCP64H", "RSQ64H") for modifier in instruction.modifiers
    )


def is_local(instruction: Instruction) -> bool:
    """Whether it reads or writes local memory, where spilled registers go."""
    return instruction.base in _LOCAL


def is_input_load(instruction: Instruction) -> bool:
    """A load from global memory that other blocks do not write meanwhile."""
    return instruction.base == "LDG" and "STRONG" not in instruction.modifiers


def is_wide(instruction: Instruction) -> bool:
    """16 bytes a thread, or more."""
    return any(modifier in ("128", "256") for modifier in instruction.modifiers)


@dataclass(frozen=True)
class Loop:
    """Instructions of a loop, by index, and the loops it holds."""

    head: int
    body: frozenset[int]
    inner: tuple[Loop, ...]

    @property
    def own(self) -> frozenset[int]:
        """What lies in none of the loops it holds."""
        return self.body.difference(*(loop.body for loop in self.inner))

    def __iter__(self) -> Iterator[Loop]:
        """Itself and all loops within."""
        yield self
        for loop in self.inner:
            yield from loop


class Flow:
    """The control flow of a kernel's instructions."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self.instructions = instructions
        self._at = {each.address: i for i, each in enumerate(instructions)}
        self._next = [self._followers(i) for i in range(len(instructions))]

    def _followers(self, i: int) -> tuple[int, ...]:
        instruction = self.instructions[i]
        always = instruction.predicate in ("", "@PT", "@UPT")
        following = (i + 1,) if i + 1 < len(self.instructions) else ()
        match instruction.base:
            case "CALL" if not instruction.operands.startswith("0x"):
                return following
            case "BRA" | "JMP" | "CALL":
                # "P0,0x40" branches where P0 holds, BRA.DIV where a warp has diverged.
                *conditions, target = instruction.operands.split(",")
                always = always and not conditions
                jump = self._at[int(target, 16)]
                return (jump,) if always else (jump, *following)
            case "EXIT" | "RET":
                return () if always else following
            case "BRX" | "JMX" | "BRXU" | "JMXU":
                raise NotImplementedError(f"{instruction.base}: a branch to a computed address")
            case _:
                return following

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The outermost loops; all others lie in them."""
        bodies: dict[int, set[int]] = defaultdict(set)
        before: dict[int, list[int]] = defaultdict(list)
        for i in self._order:
            for follower in self._next[i]:
                before[follower].append(i)
        for i in self._order:
            for head in self._next[i]:
                if self._rank[head] > self._rank[i]:
                    continue
                if not self._dominates(head, i):
                    raise NotImplementedError("a loop with two ways in")
                body = bodies[head]
                body.add(head)
                waiting = [i]
                while waiting:
                    if (each := waiting.pop()) not in body:
                        body.add(each)
                        waiting += before[each]
        return _nest(bodies)

    @cached_property
    def _order(self) -> list[int]:
        """What can be reached, in reverse postorder."""
        done: list[int] = []
        seen = {0}
        path = [(0, iter(self._next[0]))]
        while path:
            i, followers = path[-1]
            for follower in followers:
                if follower not in seen:
                    seen.add(follower)
                    path.append((follower, iter(self._next[follower])))
                    break
            else:
                done.append(i)
                path.pop()
        return done[::-1]

    @cached_property
    def _rank(self) -> dict[int, int]:
        return {i: rank for rank, i in enumerate(self._order)}

    @cached_property
    def _dominators(self) -> dict[int, int]:
        """The immediate dominator of each (Cooper, Harvey & Kennedy 2001)."""
        before: dict[int, list[int]] = defaultdict(list)
        for i in self._order:
            for follower in self._next[i]:
                before[follower].append(i)
        above = {0: 0}
        changed = True
        while changed:
            changed = False
            for i in self._order[1:]:
                first, *others = (each for each in before[i] if each in above)
                for other in others:
                    first = self._common(above, first, other)
                if above.get(i) != first:
                    above[i] = first
                    changed = True
        return above

    def _common(self, above: dict[int, int], one: int, other: int) -> int:
        while one != other:
            if self._rank[one] > self._rank[other]:
                one = above[one]
            else:
                other = above[other]
        return one

    def _dominates(self, one: int, other: int) -> bool:
        while self._rank[other] > self._rank[one]:
            other = self._dominators[other]
        return one == other


def _nest(bodies: dict[int, set[int]]) -> tuple[Loop, ...]:
    """Loops within loops, from the instructions of each."""

    def within(heads: Iterable[int]) -> tuple[Loop, ...]:
        heads = sorted(heads, key=lambda head: (-len(bodies[head]), head))
        made = []
        while heads:
            outer, *rest = heads
            inside = [head for head in rest if head in bodies[outer]]
            made.append(Loop(outer, frozenset(bodies[outer]), within(inside)))
            heads = [head for head in rest if head not in bodies[outer]]
        return tuple(sorted(made, key=lambda loop: loop.head))

    return within(bodies)
