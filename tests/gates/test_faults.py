"""The gates find what they are for, in small kernels that have it, and in no others."""

from dataclasses import replace

import pytest
from cuda_gates import f64_per_element, facts_of, low_occupancy, narrow_loads, spills
from kernel_figures import Figures

# Kernels that add up products of two arrays: as they should, and with one fault each.
SOURCE = """
struct Params { const float* a; const float* g; float* out; int n; const float* weights; };

#define LOAD(x, i) __ldg(reinterpret_cast<const float4*>(x + (i)))
#define KERNEL extern "C" __global__ void __launch_bounds__(256)

__device__ float dot(float4 a, float4 g) { return a.x * g.x + a.y * g.y + a.z * g.z + a.w * g.w; }

KERNEL right(const __grid_constant__ Params p) {
  float sum = 0;
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) {
    float4 a[2], g[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) a[j] = LOAD(p.a, i + j), g[j] = LOAD(p.g, i + j);
#pragma unroll
    for (int j = 0; j < 2; ++j) sum += dot(a[j], g[j]);
  }
  p.out[threadIdx.x] = static_cast<float>(static_cast<double>(sum) / p.n);
}

KERNEL f64_sum(const __grid_constant__ Params p) {
  double sum = 0;
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) sum += dot(LOAD(p.a, i), LOAD(p.g, i));
  p.out[threadIdx.x] = static_cast<float>(sum);
}

KERNEL f64_in_a_loop_within(const __grid_constant__ Params p) {
  double sum = 0;
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) {
    const float x = dot(LOAD(p.a, i), LOAD(p.g, i));
#pragma unroll 1
    for (int r = 0; r < p.n; ++r) sum += x * p.weights[r];
  }
  p.out[threadIdx.x] = static_cast<float>(sum);
}

KERNEL f64_without_a_load(const __grid_constant__ Params p) {
  double root = p.n;
#pragma unroll 1
  for (int i = 0; i < p.n; ++i) root = 0.5 * (root + p.n / root);
  p.out[threadIdx.x] = static_cast<float>(root);
}

KERNEL narrow(const __grid_constant__ Params p) {
  float sum = 0;
  for (int i = threadIdx.x; i < p.n; i += 256) sum += __ldg(p.a + i) * __ldg(p.g + i);
  p.out[threadIdx.x] = sum;
}

KERNEL half_narrow(const __grid_constant__ Params p) {
  float sum = 0;
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) {
    const float4 a = LOAD(p.a, i);
    sum += dot(a, make_float4(__ldg(p.g + i), __ldg(p.g + i + 7), __ldg(p.g + 5 * i), 0));
  }
  p.out[threadIdx.x] = sum;
}

KERNEL narrow_beside(const __grid_constant__ Params p) {
  float sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) sum += dot(LOAD(p.a, i), LOAD(p.a, i + 4));
#pragma unroll 1
  for (int i = threadIdx.x; i < p.n; i += 256) sum += __ldg(p.g + i);
  p.out[threadIdx.x] = sum;
}

KERNEL one_after_another(const __grid_constant__ Params p) {
  float sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x * 4; i < p.n; i += 1024) {
    const float4 a = LOAD(p.a, i);
    sum += dot(a, a);
    if (sum > 1) p.out[i] = sum;  // the next load may not pass this
    const float4 g = *reinterpret_cast<const volatile float*>(p.out) > 0 ? LOAD(p.g, i) : a;
    sum += dot(g, g);
  }
  p.out[threadIdx.x] = sum;
}

KERNEL indexes_an_array(const __grid_constant__ Params p) {
  float each[64];
  for (int i = 0; i < 64; ++i) each[i] = p.a[i];
  for (int i = 0; i < p.n; ++i) each[static_cast<int>(p.g[i]) % 64] += 1;
  for (int i = 0; i < 64; ++i) p.out[i] = each[i];
}

extern "C" __global__ void __launch_bounds__(1024, 2)
    spills_registers(const __grid_constant__ Params p) {
  float each[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) each[i] = p.a[i * p.n + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) p.out[i * p.n + threadIdx.x] = each[95 - i] * each[i];
}
"""

WIDE = Figures(
    threads=256, shared=0, ahead=2, other_layouts=False, once_a_call=False, blocks={75: 4, 90: 4}
)


@pytest.fixture(scope="module", params=[75, 90, 120])
def facts(request, compile_kernels):
    kernels = compile_kernels(SOURCE, request.param)
    return {name: facts_of(kernel) for name, kernel in kernels.items()}


def test_a_right_kernel_passes(facts):
    figures = Figures(256, 0, 4, False, False, {facts["right"].architecture: 4})
    for gate in (spills, f64_per_element, narrow_loads, low_occupancy):
        assert list(gate(facts["right"], figures)) == []


@pytest.mark.parametrize("name", ["f64_sum", "f64_in_a_loop_within"])
def test_f64_per_element_is_found(facts, name):
    (fault,) = f64_per_element(facts[name], WIDE)
    assert fault.startswith(f"{name} of sm_")
    assert list(spills(facts[name], WIDE)) == []


def test_kernels_that_solve_in_f64_may_not_read_inputs_meanwhile(facts):
    solves = replace(WIDE, solves=True)
    assert list(f64_per_element(facts["f64_without_a_load"], solves)) == []
    assert list(f64_per_element(facts["f64_without_a_load"], WIDE)) != []
    assert list(f64_per_element(facts["f64_sum"], solves)) != []


@pytest.mark.parametrize("name", ["spills_registers", "indexes_an_array"])
def test_local_memory_is_found(facts, name):
    (fault,) = spills(facts[name], WIDE)
    assert "local memory" in fault


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("narrow", "no loop with loads of 16 bytes"),
        ("half_narrow", "narrow loads beside those of 16 bytes"),
        ("narrow_beside", "narrow loads in loops without wide ones"),
        ("one_after_another", "1 wide loads in flight, not 2"),
    ],
)
def test_narrow_or_waiting_loads_are_found(facts, name, expected):
    assert any(expected in fault for fault in narrow_loads(facts[name], WIDE))


def test_loops_for_other_layouts_may_be_allowed(facts):
    figures = Figures(256, 0, 1, True, False, {})
    assert list(narrow_loads(facts["narrow_beside"], figures)) == []


def test_low_occupancy_is_found(facts):
    one = replace(facts["right"], registers=32)
    full = {75: 4, 90: 8, 120: 6}[one.architecture]
    assert (
        list(low_occupancy(one, Figures(256, 0, 0, False, False, {one.architecture: full}))) == []
    )
    (fault,) = low_occupancy(one, Figures(256, 0, 0, False, False, {one.architecture: full + 1}))
    assert f"{full} blocks" in fault
    # A block that takes half of a multiprocessor's shared memory, and a bit.
    shared = {75: 33 << 10, 90: 115 << 10, 120: 51 << 10}[one.architecture]
    (fault,) = low_occupancy(one, Figures(256, shared, 0, False, False, {one.architecture: 2}))
    assert "1 blocks" in fault
