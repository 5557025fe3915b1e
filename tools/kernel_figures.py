"""What is stated of every CUDA kernel.

tests/gates compares the compiled module with it, and docs/gpu.md shows it.

A kernel that is not here, or no longer compiled, fails the gates: state what is true of it and why
that is enough. Blocks are those that fit a multiprocessor at once, computed from
registers and shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# threads of a block
# shared  bytes of shared memory that a launch for one rule asks for: small layers at 28 x 28 x 512
# ahead   16-byte loads that a thread has in flight in its main loop; 0: it reads element by
#         element, for layouts that allow no more, or streams nothing
_STATED = """
kernel                                   threadsshared   ahead     75  80  86  89  90 100 120
map_small<double>                            256   31600      4   2   3   3   3   3   3   3
map_small<float>                             256   28400      5   2   4   3   3   4   4   3
map_small<BFloat16>                          256   28464      4   2   4   3   3   4   5   3
map_small<Half>                              256   28464      4   2   4   3   3   4   5   3
sum_planes<double, 2>                        256      72     16   3   3   3   3   3   2   2
sum_planes<double, 1>                        256      72      0   4   4   4   4   4   5   4
sum_planes<float, 4>                         256      72      8   4   4   4   4   4   3   3
sum_planes<float, 1>                         256      72      0   4   5   5   5   5   5   5
sum_planes<BFloat16, 8>                      256      72      4   4   4   4   4   4   4   4
sum_planes<BFloat16, 1>                      256      72      0   4   5   5   5   5   6   6
sum_planes<Half, 8>                          256      72      4   4   4   4   4   4   4   4
sum_planes<Half, 1>                          256      72      0   4   5   5   5   5   6   6
map_planes<double, 2>                        256    4232      4   2   2   2   2   2   2   2
map_planes<double, 1>                        256    2184      0   2   2   2   2   2   2   2
map_planes<float, 4>                         256    4164      8   2   2   2   2   2   2   2
map_planes<float, 1>                         256    1092      0   3   3   3   3   3   3   3
map_planes<BFloat16, 8>                      256    8260      4   2   2   2   2   2   2   2
map_planes<BFloat16, 1>                      256    1092      0   3   3   3   3   3   3   3
map_planes<Half, 8>                          256    8260      4   3   3   3   3   3   2   2
map_planes<Half, 1>                          256    1092      0   4   4   4   4   4   4   3
sum_rows<double, 2>                          256    2120      8   3   3   3   3   3   4   4
sum_rows<double, 1>                          256    2120      0   4   5   5   5   5   3   3
sum_rows<float, 4>                           256    2180      8   2   2   2   2   2   2   2
sum_rows<float, 1>                           256    2180      0   4   5   5   5   5   4   4
sum_rows<BFloat16, 8>                        256    2308      4   2   2   2   2   2   2   2
sum_rows<BFloat16, 1>                        256    2308      0   4   5   5   5   5   4   5
sum_rows<Half, 8>                            256    2308      4   2   2   2   2   2   2   2
sum_rows<Half, 1>                            256    2308      0   4   5   5   5   5   4   5
map_rows<double, 2>                          256    6280      4   2   2   2   2   2   2   2
map_rows<double, 1>                          256    6280      0   3   3   3   3   3   2   2
map_rows<float, 4>                           256    3140      8   2   2   2   2   2   2   2
map_rows<float, 1>                           256    3140      0   3   3   2   2   2   2   2
map_rows<BFloat16, 8>                        256    3140      4   2   2   2   2   2   2   2
map_rows<BFloat16, 1>                        256    3140      0   4   4   4   4   3   2   2
map_rows<Half, 8>                            256    3140      4   2   2   2   2   2   2   2
map_rows<Half, 1>                            256    3140      0   4   4   4   4   3   2   2
show_maps<double>                            256       0      0   4   6   6   6   6   6   5
show_maps<float>                             256       0      0   4   8   6   6   8   8   6
make_terms<double>                           256       0      0   4   8   6   6   6   8   6
make_terms<float>                            256       0      0   4   8   6   6   6   8   6
make_terms<BFloat16>                         256       0      0   4   8   6   6   6   8   6
make_terms<Half>                             256       0      0   4   8   6   6   8   8   6
find_principal<double, false>                512   11464      0   1   1   1   1   1   1   1
find_principal<double, true>                 512   11464      0   1   1   1   1   1   1   1
find_principal<float, false>                 512    7784      0   1   1   1   1   1   1   1
find_principal<float, true>                  512    7784      0   1   1   1   1   1   1   1
impute_all<double>                          1024     264      0   1   1   1   1   1   1   1
impute_all<float>                           1024     264      0   1   1   1   1   1   1   1
render_all_frames<float, (PixelLayout)2>     128    1024      0   5   5   5   5   5   5   5
render_all_frames<float, (PixelLayout)1>     128    1024      0   5   5   5   5   5   5   5
render_all_frames<float, (PixelLayout)0>     128    2048      0   6   6   6   6   6   7   7
prepare_frames<float>                        128       0      0   8  12  12  12  12  12  12
render_all_frames<double, (PixelLayout)2>    128    1024      0   4   4   4   4   4   4   4
render_all_frames<double, (PixelLayout)1>    128    1024      0   4   4   4   4   4   4   4
render_all_frames<double, (PixelLayout)0>    128    2048      0   4   4   4   4   4   4   4
prepare_frames<double>                       128       0      0   8  12  12  12  12  12  12
sum_indices                                  256       0      0   4   8   6   6   8   8   6
"""

# Besides the loops that stage whole packs, these hold loops for layouts without any.
_OTHER_LAYOUTS = {"map_small"}
# One thread of these solves a small tridiagonal problem in f64, without a load in its loops.
_SOLVES = {"find_principal"}
# These work once a call, for each map and each pixel of the photograph: f64 costs nothing there.
_ONCE_A_CALL = {"prepare_frames"}
# Steps are f32. Each round of them begins with a residual in f64, which is what results are as good
# as.
_REFINES = {"impute_all"}


@dataclass(frozen=True)
class Figures:
    """A row of the table."""

    threads: int
    shared: int
    ahead: int
    other_layouts: bool
    once_a_call: bool
    blocks: dict[int, int]  # at least, by architecture
    solves: bool = False
    refines: bool = False


def _parsed() -> dict[str, Figures]:
    _, *rows = _STATED.strip().splitlines()
    table = {}
    for row in rows:
        key, *numbers = row.rsplit(maxsplit=3 + len(ARCHITECTURES))
        threads, shared, ahead, *blocks = map(int, numbers)
        table[key] = Figures(
            threads=threads,
            shared=shared,
            ahead=ahead,
            other_layouts=key.partition("<")[0] in _OTHER_LAYOUTS,
            solves=key.partition("<")[0] in _SOLVES,
            once_a_call=key.partition("<")[0] in _ONCE_A_CALL,
            refines=key.partition("<")[0] in _REFINES,
            blocks=dict(zip(ARCHITECTURES, blocks, strict=True)),
        )
    return table


# By "template<arguments>".
KERNELS = _parsed()
