// layer_cam of large layers whose channels lie together (channels_last).
//
//   sum_rows   block (b, chunk, slab)  sums over a slab of positions, for a chunk of channels; the
//                                      last block of a chunk adds the slabs up, and makes weights
//   map_rows   block (b, tile)         positions of the maps: each is a sum over its channels
//
// Torch-free.
#pragma once

#include "cuda/layer_cam_finish.cuh"
#include "cuda/layer_cam_terms.cuh"

namespace camfuse::cuda {

// The channels of position i of sample b.
template <class T>
__device__ __forceinline__ const T* row_of(const LayerView& view, int64_t b, int i) {
  return static_cast<const T*>(view.data) + b * view.batch + i * view.column;
}

// ---- Sums over positions

// Of all threads, so many lie side by side along the channels, V channels each: two sectors of 32
// bytes. More would leave fewer blocks for layers of few channels.
template <class T, int V>
constexpr int kSumLanes = 64 / (V * static_cast<int>(sizeof(T)));
// Channels of a block, at most kThreads.
template <class T>
constexpr int kChunk = 64 / static_cast<int>(sizeof(T));

// Calls visit(a, g) with the channels from c on of positions [begin, end) that are this thread's.
template <class T, int V, bool reads_a, bool reads_g, class Visit>
__device__ __forceinline__ void scan_rows(const CudaLayerCamParams& p, int64_t b, int c, int begin,
                                          int end, const Visit& visit) {
  const auto take = [&](int i, Pack<T, V>& a, Pack<T, V>& g) {
    if constexpr (reads_a) a = load_pack<V>(row_of<T>(p.a, b, i) + c);
    if constexpr (reads_g) g = load_pack<V>(row_of<T>(p.g, b, i) + c);
  };
  constexpr int step = kThreads / kSumLanes<T, V>;
  int i = begin + threadIdx.x / kSumLanes<T, V>;
  for (; i + (kAhead<T> - 1) * step < end; i += kAhead<T> * step) {
    Pack<T, V> a[kAhead<T>], g[kAhead<T>];
#pragma unroll
    for (int j = 0; j < kAhead<T>; ++j) take(i + j * step, a[j], g[j]);
#pragma unroll
    for (int j = 0; j < kAhead<T>; ++j) visit(a[j], g[j]);
  }
  for (; i < end; i += step) {
    Pack<T, V> a, g;
    take(i, a, g);
    visit(a, g);
  }
}

// Adds the sums of threads that have the same channels, in order; the first kSumLanes threads have
// the result.
template <class T, int V>
__device__ __forceinline__ void join_lines(Sum<Acc<T>> (&sums)[V], Sum<Acc<T>>* scratch) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    __syncthreads();
    scratch[threadIdx.x] = sums[v];
    for (unsigned half = kThreads / 2; half >= kSumLanes<T, V>; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) scratch[threadIdx.x].add(scratch[threadIdx.x + half]);
    }
    sums[v] = scratch[threadIdx.x];
  }
}

// The sums of a slab of positions, or over all slabs: [3, C] in the order of PlaneSum.
template <class T>
__device__ __forceinline__ Sum<Acc<T>>* row_sums(const CudaLayerCamParams& p, int64_t b, int slab,
                                                 int which) {
  return static_cast<Sum<Acc<T>>*>(p.row_sums) +
         ((b * p.row_slabs + slab) * kSumAlpha + which) * p.C;
}

template <class T>
struct SumRowsMemory {
  Sum<Acc<T>> scratch[kThreads];
  double totals[kChunk<T>];  // of A
  unsigned flag;
};

// The last block of a chunk of channels: totals over the slabs, in order, then weights.
template <class T, int V>
__device__ __forceinline__ void weigh_chunk(const CudaLayerCamParams& p, int64_t b, int begin,
                                            SumRowsMemory<T>* memory) {
  using A = Acc<T>;
  const int c = begin + static_cast<int>(threadIdx.x);
  if (threadIdx.x < kChunk<T> && c < p.channels) {
    PlaneSums<A> totals;
    const auto add_up = [&](PlaneSum which, Sum<A>& total) {
      if (!p.needs_sum[which]) return;
#pragma unroll 4
      for (int slab = 0; slab < p.row_slabs; ++slab)
        total.add(Sum<A>::fresh(row_sums<T>(p, b, slab, which) + c));
    };
    add_up(kSumG, totals.g);
    add_up(kSumA, totals.a);
    add_up(kSumGA, totals.ga);
    for (WeightSlot slot : {kGradCamSlot, kXGradCamSlot}) {
      if (computes(p, slot))
        channel_weights<A>(p, slot, b)[c] = weight_of(p, slot, totals, Sum<A>());
    }
    memory->totals[threadIdx.x] = totals.a.value();
  }
  if (!p.needs_sum[kSumAlpha]) return;
  __syncthreads();
  const int first = threadIdx.x % kSumLanes<T, V> * V;
  const bool inside = begin + first < p.channels;  // V divides C
  Sum<A> alpha[V];
  if (inside) {
    scan_rows<T, V, false, true>(p, b, begin + first, 0, p.plane, [&](const auto&, const auto& g) {
#pragma unroll
      for (int v = 0; v < V; ++v)
        alpha[v].add(alpha_term(to_acc(g.at[v]), PlaneTotal<A>(memory->totals[first + v])));
    });
  }
  join_lines<T, V>(alpha, memory->scratch);
  if (!inside || threadIdx.x >= kSumLanes<T, V>) return;
#pragma unroll
  for (int v = 0; v < V; ++v)
    channel_weights<A>(p, kPlusPlusSlot, b)[begin + first + v] = static_cast<A>(alpha[v].value());
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kResident)
    sum_rows(const __grid_constant__ CudaLayerCamParams p) {
  using A = Acc<T>;
  auto* const memory = shared_memory<SumRowsMemory<T>>();
  const unsigned chunks = (p.channels + kChunk<T> - 1) / kChunk<T>, slabs = p.row_slabs;
  const int slab = blockIdx.x % slabs, chunk = blockIdx.x / slabs % chunks;
  const int64_t b = blockIdx.x / slabs / chunks;
  const int c = chunk * kChunk<T> + threadIdx.x % kSumLanes<T, V> * V;
  const bool inside = c < p.channels;  // V divides C
  const int begin = slab * p.row_slab, end = min(begin + p.row_slab, p.plane);

  Sum<A> g[V], a[V], ga[V];
  const bool reads_a = p.needs_sum[kSumA], reads_g = p.needs_sum[kSumG] || p.needs_sum[kSumGA];
  if (inside && reads_a && reads_g) {
    scan_rows<T, V, true, true>(p, b, c, begin, end, [&](const auto& x, const auto& y) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (p.needs_sum[kSumG]) g[v].add(to_acc(y.at[v]));
        a[v].add(to_acc(x.at[v]));
        if (p.needs_sum[kSumGA]) ga[v].add_product(to_acc(x.at[v]), to_acc(y.at[v]));
      }
    });
  } else if (inside && reads_a) {
    scan_rows<T, V, true, false>(p, b, c, begin, end, [&](const auto& x, const auto&) {
#pragma unroll
      for (int v = 0; v < V; ++v) a[v].add(to_acc(x.at[v]));
    });
  } else if (inside) {
    scan_rows<T, V, false, true>(p, b, c, begin, end, [&](const auto&, const auto& y) {
#pragma unroll
      for (int v = 0; v < V; ++v) g[v].add(to_acc(y.at[v]));
    });
  }
  const auto leave = [&](PlaneSum which, Sum<A>(&sums)[V]) {
    if (!p.needs_sum[which]) return;
    join_lines<T, V>(sums, memory->scratch);
    if (!inside || threadIdx.x >= kSumLanes<T, V>) return;
#pragma unroll
    for (int v = 0; v < V; ++v) row_sums<T>(p, b, slab, which)[c + v] = sums[v];
  };
  leave(kSumG, g);
  leave(kSumA, a);
  leave(kSumGA, ga);

  unsigned* const counter = p.tile_counters + b * chunks + chunk;
  if (arrives_last(counter, static_cast<unsigned>(p.row_slabs), &memory->flag))
    weigh_chunk<T, V>(p, b, chunk * kChunk<T>, memory);
}

// ---- Maps

// The weights of channels [c, c + V) for rule r.
template <class T, int V>
__device__ __forceinline__ Pack<Acc<T>, V> weights_at(const CudaLayerCamParams& p, int r, int64_t b,
                                                      int c) {
  if (p.slots[r] != kGivenSlot) return load_pack<V>(channel_weights<Acc<T>>(p, p.slots[r], b) + c);
  Pack<Acc<T>, V> weights;
#pragma unroll
  for (int v = 0; v < V; ++v) weights.at[v] = given_weight<T>(p, b, c + v);
  return weights;
}

// Adds J packs of channels, the first at c, to this thread's sums of rules [first, end).
template <class T, int V, int J>
__device__ __forceinline__ void add_packs(const CudaLayerCamParams& p, int64_t b, int i, int c,
                                          int first, int end, Acc<T>* sums) {
  using A = Acc<T>;
  const int step = p.lanes * V;
  Pack<T, V> a[J], g[J];
#pragma unroll
  for (int j = 0; j < J; ++j) {
    a[j] = load_pack<V>(row_of<T>(p.a, b, i) + c + j * step);
    if (p.maps_read_g) g[j] = load_pack<V>(row_of<T>(p.g, b, i) + c + j * step);
  }
  for (int r = first; r < end; ++r) {
    A total = sums[(r - first) * kThreads + threadIdx.x];
    visit_term(p.terms[r], [&](auto term) {
      constexpr Term kTerm = decltype(term)::value;
#pragma unroll
      for (int j = 0; j < J; ++j) {
        Pack<A, V> weights{};
        if constexpr (is_scaled(kTerm)) weights = weights_at<T, V>(p, r, b, c + j * step);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const A y = is_scaled(kTerm) ? A{} : to_acc(g[j].at[v]);
          total = add_term(kTerm, total, to_acc(a[j].at[v]), y, weights.at[v]);
        }
      }
    });
    sums[(r - first) * kThreads + threadIdx.x] = total;
  }
}

// Shared memory: [rules_at_once, kThreads] sums and [rules_at_once, kThreads] extremes, then these.
template <class T>
struct MapRowsMemory {
  Extremes<Acc<T>> scratch[kThreads / kWarp];
  unsigned flag;
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kResident)
    map_rows(const __grid_constant__ CudaLayerCamParams p) {
  using A = Acc<T>;
  auto* const found = shared_memory<Extremes<A>>();
  auto* const sums = reinterpret_cast<A*>(found + p.rules_at_once * kThreads);
  auto* const memory = reinterpret_cast<MapRowsMemory<T>*>(sums + p.rules_at_once * kThreads);
  const unsigned tiles = p.tiles;
  const int tile = blockIdx.x % tiles;
  const int64_t b = blockIdx.x / tiles;
  const int size = p.plane, begin = tile * p.tile, end = min(begin + p.tile, size);
  const int lane = threadIdx.x % p.lanes, line = threadIdx.x / p.lanes;
  const int lines = kThreads / p.lanes, step = p.lanes * V;

  for (int first = 0; first < p.rule_count; first += p.rules_at_once) {
    const int last = min(first + p.rules_at_once, p.rule_count);
    for (int r = first; r < last; ++r)
      found[(r - first) * kThreads + threadIdx.x] = Extremes<A>::none();
    // All threads take every turn, since warps add up together.
    for (int turn = begin; turn < end; turn += lines) {
      const int i = turn + line;
      for (int r = first; r < last; ++r) sums[(r - first) * kThreads + threadIdx.x] = 0;
      if (i < end) {
        int c = lane * V;
        for (; c + (kAhead<T> - 1) * step < p.channels; c += kAhead<T> * step)
          add_packs<T, V, kAhead<T>>(p, b, i, c, first, last, sums);
        for (; c < p.channels; c += step) add_packs<T, V, 1>(p, b, i, c, first, last, sums);
      }
      for (int r = first; r < last; ++r) {
        A sum = sums[(r - first) * kThreads + threadIdx.x];
        for (int distance = p.lanes / 2; distance > 0; distance /= 2)
          sum += __shfl_down_sync(kAllLanes, sum, distance);  // of its own group, for lane 0
        if (lane != 0 || i >= end) continue;
        static_cast<A*>(p.maps)[(r * p.B + b) * size + i] = sum;
        found[(r - first) * kThreads + threadIdx.x].add(sum);
      }
    }
    for (int r = first; r < last; ++r) {
      const Extremes<A> own = found[(r - first) * kThreads + threadIdx.x];
      record_extremes(p, b, r, tile, block_extremes(own, memory->scratch));
    }
  }
  finish_if_last_tile(p, b, &memory->flag, memory->scratch);
}

}  // namespace camfuse::cuda
