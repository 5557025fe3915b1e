// Bytes in 32-bit words: as wide a load or store as an address allows, and changes within them.
#pragma once

#include "cuda/device.cuh"

namespace camfuse::cuda {

// Whether `at` is aligned to kBytes.
template <int kBytes>
__device__ __forceinline__ bool is_aligned(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % kBytes == 0;
}

// Words that earlier kernels wrote, 16 bytes at once where they are aligned so.
__device__ __forceinline__ Pack<uint32_t, 4> load_words(const uint32_t* from) {
  if (is_aligned<16>(from)) return load_pack<4>(from);
  Pack<uint32_t, 4> words;
#pragma unroll
  for (int i = 0; i < 4; ++i) words.at[i] = __ldg(from + i);
  return words;
}

// `count` bytes of 16, the others 0.
__device__ __forceinline__ Pack<uint32_t, 4> load_bytes(const uint8_t* from, int32_t count) {
  if (count == 16 && is_aligned<4>(from)) {
    return load_words(reinterpret_cast<const uint32_t*>(from));
  }
  Pack<uint32_t, 4> words{};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i < count) words.at[i / 4] |= static_cast<uint32_t>(__ldg(from + i)) << i % 4 * 8;
  }
  return words;
}

// The first `count` bytes of words, as wide as they are aligned.
template <int kWords>
__device__ __forceinline__ void store_bytes(uint8_t* to, const uint32_t (&words)[kWords],
                                            int32_t count) {
  if (count == 4 * kWords && kWords % 2 == 0 && is_aligned<8>(to)) {
#pragma unroll
    for (int i = 0; i < kWords; i += 2) {
      const Pack<uint32_t, 2> pair{words[i], words[i + 1]};
      store_pack<2>(reinterpret_cast<uint32_t*>(to) + i, pair);
    }
  } else if (count == 4 * kWords && is_aligned<4>(to)) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      store_pack<1>(reinterpret_cast<uint32_t*>(to) + i, Pack<uint32_t, 1>{words[i]});
    }
  } else if (count == 4 * kWords && is_aligned<2>(to)) {
#pragma unroll
    for (int i = 0; i < 2 * kWords; ++i) {
      const auto half = static_cast<uint16_t>(words[i / 2] >> i % 2 * 16);
      store_pack<1>(reinterpret_cast<uint16_t*>(to) + i, Pack<uint16_t, 1>{half});
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4 * kWords; ++i) {
      if (i < count) to[i] = static_cast<uint8_t>(words[i / 4] >> i % 4 * 8);
    }
  }
}

__device__ __forceinline__ uint32_t byte_of(uint32_t word, int i) { return word >> 8 * i & 0xff; }

// All ones in bytes begin .. end - 1 of a word.
__device__ __forceinline__ uint32_t byte_mask(int32_t begin, int32_t end) {
  const auto below = [](int32_t count) {
    return count <= 0 ? 0u : count >= 4 ? ~0u : (1u << 8 * count) - 1;
  };
  return below(end) & ~below(begin);
}

// Replaces byte i of every word by change(byte, i), i counting through all of them.
template <int kWords, class Change>
__device__ __forceinline__ void change_bytes(uint32_t* words, const Change& change) {
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    uint32_t changed = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const uint8_t byte = change(static_cast<uint8_t>(byte_of(words[w], b)), 4 * w + b);
      changed |= static_cast<uint32_t>(byte) << 8 * b;
    }
    words[w] = changed;
  }
}

}  // namespace camfuse::cuda
