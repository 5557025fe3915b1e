#include "engine.h"

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "device_memory.h"
#include "emulated_cuda.h"
#include "random.h"
#include "thread_state.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulated {

DeviceSize device_size;

namespace {

constexpr int kMostThreads = 1024;
constexpr int64_t kMostBlocks = 0x7fffffff;
// Blocks that run at once: few, so that others start late; stacks stay few, too.
constexpr uint64_t kMostResident = 6;
constexpr int64_t kMostResidentThreads = 4096;

class Launch {
 public:
  Launch(int64_t blocks, int threads, int64_t shared_bytes, void (*body)(void*), void* argument,
         Random random);
  ~Launch();

  void run();

  // For threads.
  [[noreturn]] void fail(const std::string& what);
  void give_way();
  void wait_for_block(Where where);
  uint64_t exchange(Intrinsic intrinsic, unsigned mask, uint64_t value, int source, Where where);
  Thread& current() { return *current_; }

 private:
  [[noreturn]] static void thread_main();

  void start_block(Block& block);
  void ready(Thread& thread);
  Thread* take();
  static void move(const Block& block, std::vector<Thread*>& from, std::vector<Thread*>& to);
  void suspend();
  void make_current(Thread& next);
  [[noreturn]] void end();
  void complete(Thread& last, Warp& warp);
  std::string deadlock() const;

  const unsigned threads_;
  const std::size_t shared_bytes_;
  void (*const body_)(void*);
  void* const argument_;
  Random random_;
  uint64_t newest_of_8_;  // so many picks of 8 take the thread that became ready last

  std::vector<unsigned> order_;  // of blocks
  std::size_t started_ = 0;
  std::vector<Block*> resident_;
  std::vector<Thread*> ready_;
  std::vector<Thread*> held_back_;  // ready as well, but their blocks wait until no other is
  Thread* current_ = nullptr;
  Fiber scheduler_;
  Block* over_ = nullptr;  // a block whose last thread has just ended
  std::optional<std::string> error_;
};

Launch* running = nullptr;
uint64_t seed = 0, launches = 0;

// Blocks with their fibers, kept from launch to launch.
std::vector<std::unique_ptr<Block>> pool;

Launch::Launch(int64_t blocks, int threads, int64_t shared_bytes, void (*body)(void*),
               void* argument, Random random)
    : threads_(static_cast<unsigned>(threads)),
      shared_bytes_(static_cast<std::size_t>(shared_bytes)),
      body_(body),
      argument_(argument),
      random_(random),
      // Always, for every other seed: warps then run as far ahead of others as they can.
      newest_of_8_(random_.below(2) == 0 ? 8 : random_.below(8)),
      order_(static_cast<std::size_t>(blocks)) {
  std::iota(order_.begin(), order_.end(), 0u);
  for (std::size_t left = order_.size(); left > 1; --left) {
    std::swap(order_[left - 1], order_[random_.below(left)]);
  }
  const auto room = static_cast<uint64_t>(std::max<int64_t>(2, kMostResidentThreads / threads));
  const uint64_t wanted = 1 + random_.below(std::min(room, kMostResident));
  while (pool.size() < wanted) pool.push_back(std::make_unique<Block>());
  for (std::size_t i = 0; i < std::min<std::size_t>(wanted, order_.size()); ++i) {
    resident_.push_back(pool[i].get());
  }
  blockDim = {threads_};
  gridDim = {static_cast<unsigned>(blocks)};
  running = this;
}

Launch::~Launch() {
  running = nullptr;
  for (Block* block : resident_) {
    std::free(block->shared);
    block->shared = nullptr;
  }
}

void Launch::start_block(Block& block) {
  block.index = order_[started_++];
  block.waiting = block.ended = 0;
  block.patience = static_cast<int>(random_.below(4)) - 1;
  while (block.pool.size() < threads_) {
    block.pool.push_back(std::make_unique<Thread>(static_cast<unsigned>(block.pool.size())));
  }
  block.threads = std::span(block.pool).first(threads_);
  block.shared = static_cast<unsigned char*>(std::malloc(shared_bytes_));
  poison(block.shared, shared_bytes_, random_.next());
  block.warps.assign((threads_ + kLanes - 1) / kLanes, Warp{});
  if (threads_ % kLanes != 0) block.warps.back().ended = ~0u << threads_ % kLanes;
  const bool forward = random_.below(2) == 0;
  for (unsigned i = 0; i < threads_; ++i) {
    Thread& thread = *block.threads[forward ? i : threads_ - 1 - i];
    thread.block = &block;
    thread.fiber.begin(thread_main);
    ready(thread);
  }
}

void Launch::ready(Thread& thread) {
  thread.state = State::kReady;
  ready_.push_back(&thread);
}

// One of those that are ready; null if none is.
Thread* Launch::take() {
  if (ready_.empty()) {
    if (held_back_.empty()) return nullptr;
    move(*held_back_[random_.below(held_back_.size())]->block, held_back_, ready_);
  }
  const uint64_t bits = random_.next();
  if ((bits & 7) >= newest_of_8_) {
    const auto pick = static_cast<std::size_t>(((bits >> 32) * ready_.size()) >> 32);
    std::swap(ready_[pick], ready_.back());
  }
  Thread* thread = ready_.back();
  ready_.pop_back();
  return thread;
}

// Moves a block's threads from one list to the other.
void Launch::move(const Block& block, std::vector<Thread*>& from, std::vector<Thread*>& to) {
  const auto of_others = [&](const Thread* thread) { return thread->block != &block; };
  const auto its = std::stable_partition(from.begin(), from.end(), of_others);
  to.insert(to.end(), its, from.end());
  from.erase(its, from.end());
}

void Launch::make_current(Thread& next) {
  current_ = &next;
  threadIdx.x = next.index;
  blockIdx.x = next.block->index;
}

void Launch::suspend() {
  Thread& self = *current_;
  Thread* next = take();
  if (next == &self) return;
  if (next == nullptr) {
    self.fiber.switch_to(scheduler_);
    return;
  }
  make_current(*next);
  self.fiber.switch_to(next->fiber);
}

void Launch::give_way() {
  ready(*current_);
  Block& block = *current_->block;
  if (newest_of_8_ == 8 && block.patience-- == 0) move(block, ready_, held_back_);
  suspend();
}

void Launch::thread_main() {
  running->current_->fiber.arrived();
  running->body_(running->argument_);
  running->end();
}

void Launch::end() {
  Thread& self = *current_;
  Block& block = *self.block;
  const unsigned lane = self.index % kLanes;
  Warp& warp = block.warps[self.index / kLanes];
  if (block.waiting > 0 || warp.waiting != 0) {
    for (const auto& other : block.threads) {
      if (other->state == State::kWaiting && waits_for(*other, self)) {
        fail("ended, but thread " + std::to_string(other->index) + " waits for it at " +
             text(*other));
      }
    }
  }
  self.state = State::kEnded;
  warp.ended |= 1u << lane;
  Thread* next = nullptr;
  if (++block.ended == threads_) {
    over_ = &block;
  } else {
    next = take();
  }
  if (next != nullptr) make_current(*next);
  self.fiber.end_for(next == nullptr ? scheduler_ : next->fiber);
}

void Launch::fail(const std::string& what) {
  error_ = "block " + std::to_string(current_->block->index) + ", thread " +
           std::to_string(current_->index) + ": " + what;
  __sanitizer_print_stack_trace();
  current_->fiber.switch_to(scheduler_);
  std::abort();  // no one comes back here
}

void Launch::wait_for_block(Where where) {
  Thread& self = *current_;
  Block& block = *self.block;
  self.intrinsic = Intrinsic::kSyncthreads;
  self.where = where;
  if (block.ended > 0) {
    const auto over = std::find_if(block.threads.begin(), block.threads.end(),
                                   [](const auto& t) { return t->state == State::kEnded; });
    fail("waits at " + text(self) + ", but thread " + std::to_string((*over)->index) +
         " has ended");
  }
  self.state = State::kWaiting;
  if (++block.waiting < threads_) {
    suspend();
    return;
  }
  block.waiting = 0;
  const bool forward = random_.below(2) == 0;
  for (unsigned i = 0; i < threads_; ++i) {
    Thread& other = *block.threads[forward ? i : threads_ - 1 - i];
    if (other.where.line() != where.line() || other.where.column() != where.column()) {
      fail("waits at " + text(self) + ", but thread " + std::to_string(other.index) + " at " +
           text(other));
    }
    if (&other != &self) ready(other);
  }
  self.state = State::kReady;
}

uint64_t Launch::exchange(Intrinsic intrinsic, unsigned mask, uint64_t value, int source,
                          Where where) {
  Thread& self = *current_;
  Warp& warp = self.block->warps[self.index / kLanes];
  const unsigned lane = self.index % kLanes;
  self.intrinsic = intrinsic;
  self.where = where;
  self.mask = mask;
  self.source = source;
  self.brings = value;
  if ((mask >> lane & 1) == 0) fail("is not in the mask of its " + text(self));
  if ((mask & warp.ended) != 0) {
    fail("waits at " + text(self) + ", but lanes " + hex(mask & warp.ended) +
         " have ended or never were");
  }
  if ((mask >> source & 1) == 0) {
    fail("reads lane " + std::to_string(source) + ", which is not in the mask, at " + text(self));
  }
  self.state = State::kWaiting;
  warp.waiting |= 1u << lane;
  if ((warp.waiting & mask) == mask) {
    complete(self, warp);
  } else {
    suspend();
  }
  return self.gets;
}

// All lanes that the mask of `last` names have come.
void Launch::complete(Thread& last, Warp& warp) {
  const auto* lanes = &last.block->threads[last.index / kLanes * kLanes];
  unsigned ballot = 0;
  for (unsigned rest = last.mask; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<unsigned>(std::countr_zero(rest));
    const Thread& other = *lanes[lane];
    if (other.mask != last.mask || other.intrinsic != last.intrinsic) {
      fail("waits at " + text(last) + ", but thread " + std::to_string(other.index) + " at " +
           text(other));
    }
    if (other.brings != 0) ballot |= 1u << lane;
  }
  warp.waiting &= ~last.mask;
  for (unsigned rest = last.mask; rest != 0; rest &= rest - 1) {
    Thread& other = *lanes[std::countr_zero(rest)];
    other.gets = last.intrinsic == Intrinsic::kBallot ? ballot : lanes[other.source]->brings;
    if (&other != &last) ready(other);
  }
  last.state = State::kReady;
}

// Who waits where, of the first block in which someone does.
std::string Launch::deadlock() const {
  for (const Block* block : resident_) {
    std::map<std::string, std::pair<unsigned, unsigned>> groups;  // first thread, how many
    for (const auto& thread : block->threads) {
      if (thread->state != State::kWaiting) continue;
      ++groups.try_emplace(text(*thread), thread->index, 0).first->second.second;
    }
    if (groups.empty()) continue;
    std::string all = "deadlock in block " + std::to_string(block->index);
    for (const auto& [place, group] : groups) {
      all += "; " + std::to_string(group.second) + " threads, the first " +
             std::to_string(group.first) + ", wait at " + place;
    }
    return all;
  }
  return "deadlock";
}

void Launch::run() {
  for (Block* block : resident_) start_block(*block);
  for (std::size_t over = 0; over < order_.size();) {
    Thread* next = take();
    if (next == nullptr) throw std::runtime_error(deadlock());
    make_current(*next);
    scheduler_.switch_to(next->fiber);
    if (error_) throw std::runtime_error(*error_);
    if (over_ == nullptr) continue;  // no one is ready
    Block& block = *std::exchange(over_, nullptr);
    ++over;
    std::free(std::exchange(block.shared, nullptr));
    if (started_ < order_.size()) start_block(block);
  }
}

}  // namespace

void set_seed(uint64_t value) {
  seed = value;
  launches = 0;
}

void run(int64_t blocks, int threads, int64_t shared_bytes, void (*thread)(void*), void* argument) {
  const auto refuse = [](const std::string& what) { throw std::runtime_error("launch: " + what); };
  if (threads < 1 || threads > kMostThreads) {
    refuse(std::to_string(threads) + " threads a block, a device takes 1 to 1024");
  }
  if (blocks < 1 || blocks > kMostBlocks) {
    refuse(std::to_string(blocks) + " blocks, a device takes 1 to 2147483647");
  }
  if (shared_bytes < 0 || shared_bytes > device_size.shared_bytes) {
    refuse(std::to_string(shared_bytes) + " bytes of shared memory, the device has " +
           std::to_string(device_size.shared_bytes));
  }
  if (running != nullptr) refuse("from a kernel");
  const Running kernels(/*host=*/false, /*device=*/true);
  Launch(blocks, threads, shared_bytes, thread, argument, Random(Random(seed).next() + launches++))
      .run();
}

void fail(const std::string& what) { running->fail(what); }
void fail_misaligned(const void* from, std::size_t bytes, std::size_t alignment) {
  char address[32];
  std::snprintf(address, sizeof(address), "%p", from);
  fail("loads " + std::to_string(bytes) + " bytes from " + address + ", which is not aligned to " +
       std::to_string(alignment));
}
void give_way() { running->give_way(); }
void wait_for_block(Where where) { running->wait_for_block(where); }
uint64_t exchange(Intrinsic intrinsic, unsigned mask, uint64_t value, int source, Where where) {
  return running->exchange(intrinsic, mask, value, source, where);
}
unsigned char* shared_memory() { return running->current().block->shared; }

}  // namespace emulated
