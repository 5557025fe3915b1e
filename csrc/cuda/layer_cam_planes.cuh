// layer_cam of large layers, plane by plane: NCHW with wide loads, any strides with narrow ones.
//
//   sum_planes   block (b, c)           the sums over a plane, and the channel's weights
//   map_planes   block (b, tile, slab)  the slab's share of the maps on a tile; the last block of a
//                                       tile adds the slabs up
//
// Torch-free.
#pragma once

#include "cuda/layer_cam_finish.cuh"
#include "cuda/layer_cam_terms.cuh"

namespace camfuse::cuda {

// Where position i of a plane lies, from the plane's beginning. V > 1: planes are contiguous.
template <int V>
__device__ __forceinline__ int64_t place_of(const CudaLayerCamParams& p, const LayerView& view,
                                            int i) {
  if constexpr (V > 1) return i;
  return i / p.width * view.row + i % p.width * view.column;
}

template <class T>
__device__ __forceinline__ const T* plane_of(const LayerView& view, int64_t b, int c) {
  return static_cast<const T*>(view.data) + b * view.batch + c * view.channel;
}

// Calls visit(a, g) for what this thread has of plane (b, c): packs of V, kAhead<T> of them read
// before the first is used. A tensor that `reads` does not name is not touched.
template <class T, int V, bool reads_a, bool reads_g, class Visit>
__device__ __forceinline__ void scan_plane(const CudaLayerCamParams& p, int64_t b, int c,
                                           const Visit& visit) {
  const T* const a = plane_of<T>(p.a, b, c);
  const T* const g = plane_of<T>(p.g, b, c);
  const int size = p.plane;
  constexpr int step = kThreads * V;
  const auto take = [&](int i, Pack<T, V>& a_pack, Pack<T, V>& g_pack) {
    if constexpr (reads_a) a_pack = load_pack<V>(a + place_of<V>(p, p.a, i));
    if constexpr (reads_g) g_pack = load_pack<V>(g + place_of<V>(p, p.g, i));
  };
  int i = threadIdx.x * V;
  for (; i + (kAhead<T> - 1) * step < size; i += kAhead<T> * step) {
    Pack<T, V> a_packs[kAhead<T>], g_packs[kAhead<T>];
#pragma unroll
    for (int j = 0; j < kAhead<T>; ++j) take(i + j * step, a_packs[j], g_packs[j]);
#pragma unroll
    for (int j = 0; j < kAhead<T>; ++j) visit(a_packs[j], g_packs[j]);
  }
  for (; i < size; i += step) {
    Pack<T, V> a_pack, g_pack;
    take(i, a_pack, g_pack);
    visit(a_pack, g_pack);
  }
}

// The sum over the block, in thread 0. `scratch` holds one for each warp.
template <class A>
__device__ __forceinline__ Sum<A> block_sum(Sum<A> sum, Sum<A>* scratch) {
  sum = warp_sum(sum);
  __syncthreads();  // the last use of `scratch` is over
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = sum;
  __syncthreads();
  for (int warp = 1; threadIdx.x == 0 && warp < kThreads / kWarp; ++warp) sum.add(scratch[warp]);
  return sum;
}

template <class T>
struct SumPlanesMemory {
  Sum<Acc<T>> scratch[kThreads / kWarp];
  double total;
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kResident)
    sum_planes(const __grid_constant__ CudaLayerCamParams p) {
  using A = Acc<T>;
  auto* const memory = shared_memory<SumPlanesMemory<T>>();
  const unsigned channels = p.channels;
  const int c = blockIdx.x % channels;
  const int64_t b = blockIdx.x / channels;

  PlaneSums<A> sums;
  const bool reads_a = p.needs_sum[kSumA], reads_g = p.needs_sum[kSumG] || p.needs_sum[kSumGA];
  if (reads_a && reads_g) {
    scan_plane<T, V, true, true>(p, b, c, [&](const auto& x, const auto& y) {
#pragma unroll
      for (int v = 0; v < V; ++v) sums.add(p, to_acc(x.at[v]), to_acc(y.at[v]));
    });
  } else if (reads_a) {
    scan_plane<T, V, true, false>(p, b, c, [&](const auto& x, const auto&) {
#pragma unroll
      for (int v = 0; v < V; ++v) sums.a.add(to_acc(x.at[v]));
    });
  } else {
    scan_plane<T, V, false, true>(p, b, c, [&](const auto&, const auto& y) {
#pragma unroll
      for (int v = 0; v < V; ++v) sums.g.add(to_acc(y.at[v]));
    });
  }
  if (p.needs_sum[kSumG]) sums.g = block_sum(sums.g, memory->scratch);
  if (p.needs_sum[kSumA]) sums.a = block_sum(sums.a, memory->scratch);
  if (p.needs_sum[kSumGA]) sums.ga = block_sum(sums.ga, memory->scratch);

  Sum<A> alpha;
  if (p.needs_sum[kSumAlpha]) {
    if (threadIdx.x == 0) memory->total = sums.a.value();
    __syncthreads();
    const PlaneTotal<A> total(memory->total);
    scan_plane<T, V, false, true>(p, b, c, [&](const auto&, const auto& y) {
#pragma unroll
      for (int v = 0; v < V; ++v) alpha.add(alpha_term(to_acc(y.at[v]), total));
    });
    alpha = block_sum(alpha, memory->scratch);
  }
  if (threadIdx.x != 0) return;
  for (int slot = 0; slot < kGivenSlot; ++slot) {
    const auto which = static_cast<WeightSlot>(slot);
    if (computes(p, which)) channel_weights<A>(p, which, b)[c] = weight_of(p, which, sums, alpha);
  }
}

// Shared memory: [rules_at_once, kThreads] packs of V sums, then these.
template <class T>
struct MapPlanesMemory {
  Extremes<Acc<T>> scratch[kThreads / kWarp];
  unsigned flag;
};

// Adds J channels from c on to the sums of rules [first, end).
template <class T, int V, int J>
__device__ __forceinline__ void add_channels(const CudaLayerCamParams& p, int64_t b, int c,
                                             int64_t a_place, int64_t g_place, int first, int end,
                                             Pack<Acc<T>, V>* sums) {
  using A = Acc<T>;
  Pack<T, V> a[J], g[J];
#pragma unroll
  for (int j = 0; j < J; ++j) {
    a[j] = load_pack<V>(plane_of<T>(p.a, b, c + j) + a_place);
    if (p.maps_read_g) g[j] = load_pack<V>(plane_of<T>(p.g, b, c + j) + g_place);
  }
  for (int r = first; r < end; ++r) {
    Pack<A, V>& sum = sums[(r - first) * kThreads + threadIdx.x];
    Pack<A, V> total = sum;
    visit_term(p.terms[r], [&](auto term) {
      constexpr Term kTerm = decltype(term)::value;
#pragma unroll
      for (int j = 0; j < J; ++j) {
        A weight{};
        if constexpr (is_scaled(kTerm)) {
          weight = p.slots[r] == kGivenSlot ? given_weight<T>(p, b, c + j)
                                            : channel_weights<A>(p, p.slots[r], b)[c + j];
        }
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const A y = is_scaled(kTerm) ? A{} : to_acc(g[j].at[v]);
          total.at[v] = add_term(kTerm, total.at[v], to_acc(a[j].at[v]), y, weight);
        }
      }
    });
    sum = total;
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kResident)
    map_planes(const __grid_constant__ CudaLayerCamParams p) {
  using A = Acc<T>;
  auto* const sums = shared_memory<Pack<A, V>>();
  auto* const memory = reinterpret_cast<MapPlanesMemory<T>*>(sums + p.rules_at_once * kThreads);
  const unsigned slabs = p.slabs, tiles = p.tiles;
  const int slab = blockIdx.x % slabs, tile = blockIdx.x / slabs % tiles;
  const int64_t b = blockIdx.x / slabs / tiles;
  const int size = p.plane;
  const int i = tile * p.tile + threadIdx.x * V;  // the first position of this thread
  const bool inside = i < size;                   // V divides size
  const int64_t a_place = place_of<V>(p, p.a, i), g_place = place_of<V>(p, p.g, i);
  const int c_begin = slab * p.slab, c_end = min(c_begin + p.slab, p.channels);
  A* const parts =
      p.slabs > 1 ? static_cast<A*>(p.parts) + (b * p.slabs + slab) * p.R * size : nullptr;

  for (int first = 0; first < p.rule_count; first += p.rules_at_once) {
    const int end = min(first + p.rules_at_once, p.rule_count);
    for (int r = first; r < end; ++r) sums[(r - first) * kThreads + threadIdx.x] = {};
    if (inside) {
      int c = c_begin;
      for (; c + kAhead<T> <= c_end; c += kAhead<T>)
        add_channels<T, V, kAhead<T>>(p, b, c, a_place, g_place, first, end, sums);
      for (; c < c_end; ++c) add_channels<T, V, 1>(p, b, c, a_place, g_place, first, end, sums);
    }
    for (int r = first; r < end; ++r) {
      A* const out = parts != nullptr ? parts + int64_t{r} * size
                                      : static_cast<A*>(p.maps) + (r * p.B + b) * size;
      const Pack<A, V> sum = sums[(r - first) * kThreads + threadIdx.x];
      Extremes<A> found = Extremes<A>::none();
      if (inside) {
        store_pack(out + i, sum);
#pragma unroll
        for (int v = 0; v < V; ++v) found.add(sum.at[v]);
      }
      if (parts == nullptr) record_extremes(p, b, r, tile, block_extremes(found, memory->scratch));
    }
  }
  if (parts != nullptr) {
    unsigned* const counter = p.tile_counters + b * p.tiles + tile;
    if (!arrives_last(counter, static_cast<unsigned>(p.slabs), &memory->flag)) return;
    combine_slabs(p, b, tile, memory->scratch);
  }
  finish_if_last_tile(p, b, &memory->flag, memory->scratch);
}

}  // namespace camfuse::cuda
