// The threads of a launch, as the engine keeps them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine.h"
#include "fibers.h"

namespace emulated {

constexpr unsigned kLanes = 32;

enum class State { kReady, kWaiting, kEnded };

struct Block;

struct Thread {
  explicit Thread(unsigned number) : index(number), fiber(number) {}

  const unsigned index;
  Block* block = nullptr;
  State state = State::kEnded;
  // What it waits at, or waited at last.
  Intrinsic intrinsic{};
  Where where;
  unsigned mask = 0;
  int source = 0;                 // the lane that it reads
  uint64_t brings = 0, gets = 0;  // its value, and that lane's
  Fiber fiber;
};

struct Warp {
  unsigned waiting = 0;  // lanes at an intrinsic
  unsigned ended = 0;    // lanes that are over, or never were
};

// A resident block. When it is over another one takes its place and its fibers.
struct Block {
  unsigned index = 0;
  unsigned waiting = 0, ended = 0;  // threads at a barrier; over
  // How often its threads give way before all other blocks may run as far as they can.
  int patience = 0;
  unsigned char* shared = nullptr;
  std::vector<Warp> warps;
  std::span<const std::unique_ptr<Thread>> threads;
  std::vector<std::unique_ptr<Thread>> pool;  // `threads`, and more if a launch had more
};

std::string hex(unsigned mask);
// The intrinsic that a thread waits at, and where that is.
std::string text(const Thread& thread);
// Whether `thread`, which waits, can only go on once `other` of the same block comes.
bool waits_for(const Thread& thread, const Thread& other);

}  // namespace emulated
