"""What is stated of every CUDA kernel.

tests/gates compares the compiled module with it, and docs/gpu.md shows it.

A kernel that is not here, or no longer compiled, fails the gates: state what is true of it and why
that is enough. Blocks are those of 256 threads that fit a multiprocessor at once, computed from
registers and shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass

THREADS = 256  # of a block, in every kernel
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# shared  bytes of shared memory that a launch for one rule asks for: small layers at 28 x 28 x 512
# ahead   16-byte loads that a thread has in flight in its main loop; 0: it reads element by
#         element, for layouts that allow no more, or streams nothing
_STATED = """
kernel                  shared  ahead  75  80  86  89  90 100 120
map_small<double>        31600      4   2   3   3   3   3   3   3
map_small<float>         28400      5   2   4   3   3   4   4   3
map_small<BFloat16>      28464      4   2   4   3   3   4   5   3
map_small<Half>          28464      4   2   4   3   3   4   5   3
sum_planes<double, 2>       72     16   3   3   3   3   3   2   2
sum_planes<double, 1>       72      0   4   4   4   4   4   5   4
sum_planes<float, 4>        72      8   4   4   4   4   4   3   3
sum_planes<float, 1>        72      0   4   5   5   5   5   5   5
sum_planes<BFloat16, 8>     72      4   4   4   4   4   4   4   4
sum_planes<BFloat16, 1>     72      0   4   5   5   5   5   6   6
sum_planes<Half, 8>         72      4   4   4   4   4   4   4   4
sum_planes<Half, 1>         72      0   4   5   5   5   5   6   6
map_planes<double, 2>     4232      4   2   2   2   2   2   2   2
map_planes<double, 1>     2184      0   2   2   2   2   2   2   2
map_planes<float, 4>      4164      8   2   2   2   2   2   2   2
map_planes<float, 1>      1092      0   3   3   3   3   3   3   3
map_planes<BFloat16, 8>   8260      4   2   2   2   2   2   2   2
map_planes<BFloat16, 1>   1092      0   3   3   3   3   3   3   3
map_planes<Half, 8>       8260      4   3   3   3   3   3   2   2
map_planes<Half, 1>       1092      0   4   4   4   4   4   4   3
sum_rows<double, 2>       2120      8   3   3   3   3   3   4   4
sum_rows<double, 1>       2120      0   4   5   5   5   5   3   3
sum_rows<float, 4>        2180      8   2   2   2   2   2   2   2
sum_rows<float, 1>        2180      0   4   5   5   5   5   4   4
sum_rows<BFloat16, 8>     2308      4   2   2   2   2   2   2   2
sum_rows<BFloat16, 1>     2308      0   4   5   5   5   5   4   5
sum_rows<Half, 8>         2308      4   2   2   2   2   2   2   2
sum_rows<Half, 1>         2308      0   4   5   5   5   5   4   5
map_rows<double, 2>       6280      4   2   2   2   2   2   2   2
map_rows<double, 1>       6280      0   3   3   3   3   3   2   2
map_rows<float, 4>        3140      8   2   2   2   2   2   2   2
map_rows<float, 1>        3140      0   3   3   2   2   2   2   2
map_rows<BFloat16, 8>     3140      4   2   2   2   2   2   2   2
map_rows<BFloat16, 1>     3140      0   4   4   4   4   3   2   2
map_rows<Half, 8>         3140      4   2   2   2   2   2   2   2
map_rows<Half, 1>         3140      0   4   4   4   4   3   2   2
show_maps<double>            0      0   4   6   6   6   6   6   5
show_maps<float>             0      0   4   8   6   6   8   8   6
sum_indices                  0      0   4   8   6   6   8   8   6
"""

# Besides the loops that stage whole packs, these hold loops for layouts without any.
_OTHER_LAYOUTS = {"map_small"}


@dataclass(frozen=True)
class Figures:
    """A row of the table."""

    shared: int
    ahead: int
    other_layouts: bool
    blocks: dict[int, int]  # at least, by architecture


def _parsed() -> dict[str, Figures]:
    _, *rows = _STATED.strip().splitlines()
    table = {}
    for row in rows:
        key, numbers = row[:24].strip(), [int(number) for number in row[24:].split()]
        shared, ahead, *blocks = numbers
        table[key] = Figures(
            shared=shared,
            ahead=ahead,
            other_layouts=key.partition("<")[0] in _OTHER_LAYOUTS,
            blocks=dict(zip(ARCHITECTURES, blocks, strict=True)),
        )
    return table


# By "template<arguments>".
KERNELS = _parsed()
