// CPython's random.Random: the Mersenne Twister (Matsumoto and Nishimura 1998, MT19937) with Python's seeding and its ways to draw,
// so that few-shot examples and bootstraps are those of evaluation harnesses written in Python. Source: CPython 3.11,
// Lib/random.py, _randommodule.c.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace salient::eval {

class PythonRandom {
 public:
  // Random(seed) of a whole number.
  explicit PythonRandom(uint64_t seed);

  uint32_t next32();  // getrandbits(32)
  double random();    // [0, 1), 53 bits
  // Uniform in [0, n). Errors: invalid argument for n = 0.
  uint64_t below(uint64_t n);

  // sample(range(size), count): positions without replacement, in the order of the draw. Errors: invalid argument for count > size.
  std::vector<size_t> sample(size_t size, size_t count);
  // One of choices(range(size), k=...), each call one draw with replacement.
  size_t choice(size_t size) { return static_cast<size_t>(random() * static_cast<double>(size)); }
  // The same draws, as many as `out` takes: several times as fast. Errors: invalid argument for a size of 2^31 or more.
  void choices(size_t size, std::span<uint32_t> out);

 private:
  void refill();

  std::array<uint32_t, 624> state_{};
  size_t index_ = 624;
};

}  // namespace salient::eval
