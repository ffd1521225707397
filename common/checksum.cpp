#include "common/checksum.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "common/error.h"
#include "common/file.h"

namespace salient {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
// Odd: multiplying by them loses nothing.
constexpr std::array<uint64_t, 4> kFactors = {0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93};

// Spreads a bit over those above it, and these over those below: no two changes of a bit each come out as one.
uint64_t mixed(uint64_t value, uint64_t factor) {
  value *= factor;
  return value ^ value >> 32;
}

}  // namespace

uint64_t checksum64(std::span<const std::byte> bytes, uint64_t seed) {
  // Four sums beside each other, each of every fourth word: one alone would wait for its multiplications.
  std::array<uint64_t, 4> sums = {seed ^ kFactors[1], seed ^ kFactors[2], seed ^ kFactors[3], seed ^ kFactors[0]};
  const auto add = [&](const std::byte* words) {
    std::array<uint64_t, 4> values;
    std::memcpy(values.data(), words, sizeof values);
    for (size_t i = 0; i < sums.size(); ++i) sums[i] = mixed(sums[i] ^ values[i], kFactors[i]);
  };
  const size_t size = bytes.size();
  for (; bytes.size() >= 32; bytes = bytes.subspan(32)) add(bytes.data());
  std::array<std::byte, 32> rest{};
  std::copy(bytes.begin(), bytes.end(), rest.begin());
  add(rest.data());
  uint64_t sum = size;
  for (size_t i = 0; i < sums.size(); ++i) sum = mixed(sum ^ sums[i], kFactors[i]);
  return sum;
}

uint64_t checksum_of_bytes(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(kChunk, bytes.size())))
    sum = checksum64(bytes.first(std::min(kChunk, bytes.size())), sum);
  return sum;
}

std::string checksum_text(uint64_t checksum) { return fmt::format("{:016x}", checksum); }

uint64_t checksum_of_part(int descriptor, const std::filesystem::path& path, uint64_t begin, uint64_t size) {
  std::vector<std::byte> chunk(std::min<uint64_t>(kChunk, size));
  uint64_t sum = 0;
  for (uint64_t done = 0; done < size;) {
    const size_t wanted = std::min<uint64_t>(chunk.size(), size - done);
    for (size_t have = 0; have < wanted;) {  // chunks of the same sizes each time, whatever a read gives
      const ssize_t count = ::pread(descriptor, chunk.data() + have, wanted - have, static_cast<off_t>(begin + done + have));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail_errno(path, "read", errno);
      if (count == 0) fail(ErrorKind::kCorruption, "{}: ends before byte {}", path.string(), begin + size);
      have += static_cast<size_t>(count);
    }
    sum = checksum64(std::span(chunk).first(wanted), sum);
    done += wanted;
  }
  return sum;
}

uint64_t checksum_of_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_errno(path, "open", errno);
  try {
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) fail_errno(path, "examine", errno);
    const uint64_t sum = checksum_of_part(descriptor, path, 0, static_cast<uint64_t>(status.st_size));
    ::close(descriptor);
    return sum;
  } catch (...) {
    ::close(descriptor);
    throw;
  }
}

}  // namespace salient
