#include "eval/python_random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "common/error.h"

namespace salient::eval {
namespace {

constexpr size_t kSize = 624;
constexpr size_t kShift = 397;

uint32_t twisted(uint32_t word, uint32_t next, uint32_t shifted) {
  const uint32_t y = (word & 0x80000000U) | (next & 0x7FFFFFFFU);
  return shifted ^ (y >> 1) ^ ((0U - (y & 1U)) & 0x9908B0DFU);
}

uint32_t tempered(uint32_t y) {
  y ^= y >> 11;
  y ^= (y << 7) & 0x9D2C5680U;
  y ^= (y << 15) & 0xEFC60000U;
  return y ^ (y >> 18);
}

// Of two words, 27 and 26 bits: exact in every step.
double fraction(uint32_t first, uint32_t second) {
  return (static_cast<int32_t>(first >> 5) * 67108864.0 + static_cast<int32_t>(second >> 6)) * (1.0 / 9007199254740992.0);
}

}  // namespace

// init_by_array of the reference implementation, with the seed's 32-bit words as the key.
PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key = {static_cast<uint32_t>(seed)};
  if (seed >> 32 != 0) key.push_back(static_cast<uint32_t>(seed >> 32));
  state_[0] = 19650218U;
  for (size_t i = 1; i < kSize; ++i) state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<uint32_t>(i);
  size_t i = 1;
  size_t j = 0;
  const auto advance = [&] {
    if (++i < kSize) return;
    state_[0] = state_[kSize - 1];
    i = 1;
  };
  for (size_t k = kSize; k > 0; --k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525U)) + key[j] + static_cast<uint32_t>(j);
    advance();
    j = (j + 1) % key.size();
  }
  for (size_t k = kSize - 1; k > 0; --k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941U)) - static_cast<uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000U;
}

// Loops of plain strides, which compilers turn into vector code.
void PythonRandom::refill() {
  for (size_t i = 0; i < kSize - kShift; ++i) state_[i] = twisted(state_[i], state_[i + 1], state_[i + kShift]);
  for (size_t i = kSize - kShift; i < kSize - 1; ++i) state_[i] = twisted(state_[i], state_[i + 1], state_[i + kShift - kSize]);
  state_[kSize - 1] = twisted(state_[kSize - 1], state_[0], state_[kShift - 1]);
  index_ = 0;
}

uint32_t PythonRandom::next32() {
  if (index_ >= kSize) refill();
  return tempered(state_[index_++]);
}

double PythonRandom::random() {
  const uint32_t first = next32();
  return fraction(first, next32());
}

void PythonRandom::choices(size_t size, std::span<uint32_t> out) {
  if (size >> 31 != 0) fail(ErrorKind::kInvalidArgument, "draws from {} rows: at most 2^31 - 1 can be drawn from at once", size);
  const auto range = static_cast<double>(size);
  for (size_t done = 0; done < out.size();) {
    if (index_ >= kSize) refill();
    const size_t pairs = std::min((kSize - index_) / 2, out.size() - done);
    if (pairs == 0) {  // the two words lie on both sides of a refill
      out[done++] = static_cast<uint32_t>(choice(size));
      continue;
    }
    const uint32_t* words = state_.data() + index_;
    uint32_t* drawn = out.data() + done;
    for (size_t i = 0; i < pairs; ++i) {
      drawn[i] = static_cast<uint32_t>(static_cast<int32_t>(fraction(tempered(words[2 * i]), tempered(words[2 * i + 1])) * range));
    }
    index_ += 2 * pairs;
    done += pairs;
  }
}

uint64_t PythonRandom::below(uint64_t n) {
  if (n == 0) fail(ErrorKind::kInvalidArgument, "a random number below 0");
  const int bits = static_cast<int>(std::bit_width(n));
  const auto draw = [&]() -> uint64_t {
    if (bits <= 32) return next32() >> (32 - bits);
    const uint64_t low = next32();  // words come from the lowest on
    return low | (static_cast<uint64_t>(next32() >> (64 - bits)) << 32);
  };
  uint64_t r = draw();
  while (r >= n) r = draw();
  return r;
}

std::vector<size_t> PythonRandom::sample(size_t size, size_t count) {
  if (count > size) fail(ErrorKind::kInvalidArgument, "{} of {} rows are to be drawn: there are too few", count, size);
  // Python keeps a pool where a set of what was drawn would take more room than the list.
  double set_size = 21;
  if (count > 5) set_size += std::pow(4.0, std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0)));
  std::vector<size_t> out;
  out.reserve(count);
  if (static_cast<double>(size) <= set_size) {
    std::vector<size_t> pool(size);
    std::iota(pool.begin(), pool.end(), size_t{0});
    for (size_t i = 0; i < count; ++i) {
      const auto j = static_cast<size_t>(below(size - i));
      out.push_back(pool[j]);
      pool[j] = pool[size - i - 1];
    }
    return out;
  }
  std::set<size_t> drawn;
  for (size_t i = 0; i < count; ++i) {
    auto j = static_cast<size_t>(below(size));
    while (!drawn.insert(j).second) j = static_cast<size_t>(below(size));
    out.push_back(j);
  }
  return out;
}

}  // namespace salient::eval
