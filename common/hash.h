// SHA-256 (FIPS 180-4), through OpenSSL's libcrypto: the identity of every input and output of a run.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace salient {

// Call order: update* hex. 64 lower-case hexadecimal digits.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::string_view text);
// Reads the file through a mapping. Errors: not found, io.
std::string sha256_file(const std::filesystem::path& path);

// A seed for one named part of a run, so that parts draw independent numbers: the first 8 bytes of SHA-256("<seed>/<name>").
uint64_t derive_seed(uint64_t seed, std::string_view name);

}  // namespace salient
