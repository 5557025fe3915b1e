// Runs the threads of a launch as fibers, in an order that a seed chooses.
//
// A thread runs until it comes to a switch point: a barrier, a shuffle, an atomic, a fence, its
// end. There the seed picks who goes on, among all threads of several resident blocks that can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

namespace emulated {

using Where = std::source_location;

enum class Intrinsic {
  kSyncthreads,
  kSyncwarp,
  kShuffle,
  kShuffleXor,
  kShuffleDown,
  kShuffleUp,
  kBallot,
};

// The device that launchers see.
struct DeviceSize {
  int multiprocessors = 132;
  int shared_bytes = 227 << 10;
};
extern DeviceSize device_size;

// Launches after this depend on `seed` and their own order alone.
void set_seed(uint64_t seed);

// Runs `thread(argument)` for all threads. Throws std::runtime_error when the launch is one that
// the device refuses, or when its threads do what they must not.
void run(int64_t blocks, int threads, int64_t shared_bytes, void (*thread)(void*), void* argument);

// What follows is for running threads.

// Ends the launch with an error that names this thread, and prints its stack trace.
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail_misaligned(const void* from, std::size_t bytes, std::size_t alignment);
// Another thread may go on.
void give_way();
// Waits for all threads of the block.
void wait_for_block(Where where);
// Waits for the lanes of `mask`, and gives the value that `source` brought; for kBallot, the lanes
// whose value is not 0.
uint64_t exchange(Intrinsic intrinsic, unsigned mask, uint64_t value, int source, Where where);
unsigned char* shared_memory();

}  // namespace emulated
