// layer_cam of small layers, of any layout: planes of a few channels at a time lie in shared
// memory, where they are summed, weighted and added to the maps. A and G are read once, in one
// launch.
//
//   map_small   block (b, slab)   the slab's share of the maps; the last block of a sample adds
//                                 the slabs up
//
// Small planes begin anywhere (49 elements of 4 bytes are no multiple of 16), but several of them
// in a row are one long line that wide loads can read. Torch-free.
#pragma once

#include "cuda/layer_cam_finish.cuh"
#include "cuda/layer_cam_terms.cuh"

namespace camfuse::cuda {

constexpr int kWarps = kThreads / kWarp;

// Where things lie in shared memory, in bytes from its beginning.
template <class T>
struct SmallLayout {
  int a, g, sums, scratch, weights, flag, end;

  // `plane` positions of `staged` channels, maps of `rules` rules by `groups` groups of threads.
  __host__ __device__ SmallLayout(int plane, int staged, int rules, int groups) {
    const auto after = [](int bytes) { return (bytes + 15) / 16 * 16; };
    // Room for a beginning that is as misaligned as in global memory.
    const int stage = after((staged * plane + kWide<T>)*static_cast<int>(sizeof(T)));
    a = 0;
    g = a + stage;
    sums = g + stage;
    scratch = sums + after(rules * groups * plane * static_cast<int>(sizeof(Acc<T>)));
    weights = scratch + after(kWarps * static_cast<int>(sizeof(Extremes<Acc<T>>)));
    flag = weights + after(kSlotCount * staged * static_cast<int>(sizeof(Acc<T>)));
    end = flag + 16;
  }
};

// Groups of threads that share the channels of a stage, so that small planes keep all threads busy.
__host__ __device__ inline int small_groups(int plane) {
  return plane < kThreads ? kThreads / plane : 1;
}

// Copies the planes of `count` channels from (b, c) on to `stage`; returns where they begin there,
// one after another.
template <class T>
__device__ __forceinline__ const T* stage_planes(const CudaLayerCamParams& p, const LayerView& view,
                                                 int64_t b, int c, int count, T* stage) {
  constexpr int V = kWide<T>;
  const T* const from = static_cast<const T*>(view.data) + b * view.batch + c * view.channel;
  const int size = p.plane, total = count * size;
  const bool planar = (p.w == 1 || view.column == 1) && (p.h == 1 || view.row == p.w);
  if (planar && (count == 1 || view.channel == size)) {
    const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(from) % 16 / sizeof(T));
    T* const to = stage + misaligned;
    const int head = (V - misaligned) % V;
    const int packs = total > head ? (total - head) / V : 0;
    for (int i = threadIdx.x; i < packs; i += kThreads)
      store_pack(to + head + i * V, load_pack<V>(from + head + i * V));
    // What lies before the first whole pack, and after the last.
    const int body = packs * V, rest = total - body;
    for (int i = threadIdx.x; i < rest; i += kThreads) {
      const int at = i < head ? i : i + body;
      to[at] = from[at];
    }
    return to;
  }
  const int64_t column = p.w == 1 ? view.row : view.column;
  const bool rows = view.channel == 1 && (p.h == 1 || view.row == p.w * column);
  if (rows && count % V == 0 && column % V == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
    const int packs = count / V;
    for (int i = threadIdx.x; i < packs * size; i += kThreads) {
      const int position = i / packs, first = i % packs * V;
      const Pack<T, V> pack = load_pack<V>(from + position * column + first);
#pragma unroll
      for (int v = 0; v < V; ++v) stage[(first + v) * size + position] = pack.at[v];
    }
    return stage;
  }
  // Neighbouring threads read neighbouring channels where these lie together, else positions.
  const bool by_channel = view.channel == 1;
  for (int i = threadIdx.x; i < total; i += kThreads) {
    const int position = by_channel ? i / count : i % size;
    const int j = by_channel ? i % count : i / size;
    stage[j * size + position] =
        from[j * view.channel + position / p.width * view.row + position % p.width * view.column];
  }
  return stage;
}

// The weights [kSlotCount, staged] of channels [c, c + count): a warp sums the planes of one.
template <class T>
__device__ __forceinline__ void weigh(const CudaLayerCamParams& p, int64_t b, int c, int count,
                                      const T* a, const T* g, Acc<T>* weights) {
  using A = Acc<T>;
  const int size = p.plane;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int j = warp; j < count; j += kWarps) {
    PlaneSums<A> sums;
    for (int i = lane; i < size; i += kWarp) {
      const A x = to_acc(a[j * size + i]);
      const A y = p.reads_g ? to_acc(g[j * size + i]) : A{};
      sums.add(p, x, y);
    }
    if (p.needs_sum[kSumG]) sums.g = warp_sum(sums.g);
    if (p.needs_sum[kSumA]) sums.a = warp_sum(sums.a);
    if (p.needs_sum[kSumGA]) sums.ga = warp_sum(sums.ga);
    Sum<A> alpha;
    if (p.needs_sum[kSumAlpha]) {
      const PlaneTotal<A> total(__shfl_sync(kAllLanes, sums.a.value(), 0));
      for (int i = lane; i < size; i += kWarp)
        alpha.add(alpha_term(to_acc(g[j * size + i]), total));
      alpha = warp_sum(alpha);
    }
    if (lane != 0) continue;
    for (int slot = 0; slot < kGivenSlot; ++slot) {
      const auto which = static_cast<WeightSlot>(slot);
      if (computes(p, which)) weights[slot * p.staged + j] = weight_of(p, which, sums, alpha);
    }
    if (p.weights.data != nullptr)
      weights[kGivenSlot * p.staged + j] = given_weight<T>(p, b, c + j);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResidentSmall<T>)
    map_small(const __grid_constant__ CudaLayerCamParams p) {
  using A = Acc<T>;
  const int size = p.plane, groups = small_groups(size);
  const SmallLayout<T> layout(size, p.staged, p.rules_at_once, groups);
  auto* const memory = shared_memory<unsigned char>();
  auto* const sums = reinterpret_cast<A*>(memory + layout.sums);  // [rules_at_once, groups, size]
  auto* const scratch = reinterpret_cast<Extremes<A>*>(memory + layout.scratch);
  auto* const weights = reinterpret_cast<A*>(memory + layout.weights);
  auto* const flag = reinterpret_cast<unsigned*>(memory + layout.flag);
  const unsigned slabs = p.slabs;
  const int slab = blockIdx.x % slabs;
  const int64_t b = blockIdx.x / slabs;
  const int c_begin = slab * p.slab, c_end = min(c_begin + p.slab, p.channels);
  A* const parts =
      p.slabs > 1 ? static_cast<A*>(p.parts) + (b * p.slabs + slab) * p.R * size : nullptr;
  const int group = groups > 1 ? threadIdx.x / size : 0;
  const int first_position = threadIdx.x - group * size;
  const int next_position = groups > 1 ? size : kThreads;
  const bool works = group < groups;

  for (int first = 0; first < p.rule_count; first += p.rules_at_once) {
    const int end = min(first + p.rules_at_once, p.rule_count);
    for (int i = threadIdx.x; i < (end - first) * groups * size; i += kThreads) sums[i] = 0;
    for (int c = c_begin; c < c_end; c += p.staged) {
      const int count = min(p.staged, c_end - c);
      __syncthreads();  // the last use of the stage is over
      const T* const a = stage_planes(p, p.a, b, c, count, reinterpret_cast<T*>(memory));
      const T* const g =
          p.reads_g ? stage_planes(p, p.g, b, c, count, reinterpret_cast<T*>(memory + layout.g))
                    : nullptr;
      __syncthreads();
      if (p.weighs) {
        weigh(p, b, c, count, a, g, weights);
        __syncthreads();
      }
      for (int r = first; works && r < end; ++r) {
        A* const out = sums + ((r - first) * groups + group) * size;
        const A* const weight = weights + p.slots[r] * p.staged;
        visit_term(p.terms[r], [&](auto term) {
          constexpr Term kTerm = decltype(term)::value;
          for (int i = first_position; i < size; i += next_position) {
            A sum = out[i];
            for (int j = group; j < count; j += groups) {
              const A x = to_acc(a[j * size + i]);
              if constexpr (is_scaled(kTerm)) {
                sum = add_term(kTerm, sum, x, A{}, weight[j]);
              } else {
                sum = add_term(kTerm, sum, x, to_acc(g[j * size + i]), A{});
              }
            }
            out[i] = sum;
          }
        });
      }
    }
    __syncthreads();
    for (int r = first; r < end; ++r) {
      A* const out =
          parts != nullptr ? parts + r * size : static_cast<A*>(p.maps) + (r * p.B + b) * size;
      Extremes<A> found = Extremes<A>::none();
      for (int i = threadIdx.x; i < size; i += kThreads) {
        const A* const from = sums + (r - first) * groups * size + i;
        A sum = from[0];
        for (int other = 1; other < groups; ++other) sum += from[other * size];
        out[i] = sum;
        found.add(sum);
      }
      if (parts == nullptr) record_extremes(p, b, r, 0, block_extremes(found, scratch));
    }
    __syncthreads();  // the sums may be used again
  }
  if (parts == nullptr) return;
  if (!arrives_last(p.tile_counters + b, static_cast<unsigned>(p.slabs), flag)) return;
  combine_slabs(p, b, 0, scratch);
}

}  // namespace camfuse::cuda
