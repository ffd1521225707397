#include "common/checksum.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient {
namespace {

uint64_t sum_of(const std::string& text, uint64_t seed = 0) { return checksum64(std::as_bytes(std::span(text)), seed); }

TEST(Checksum, EveryBitAndTheLengthCount) {
  for (const size_t size : {0, 1, 7, 31, 32, 33, 64, 100}) {
    std::string text(size, '\0');
    std::set<uint64_t> sums = {sum_of(text), sum_of(text + '\0'), sum_of(text, 1)};
    for (size_t bit = 0; bit < 8 * size; ++bit) {
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
      sums.insert(sum_of(text));
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    }
    EXPECT_EQ(sums.size(), 8 * size + 3) << size;
  }
}

TEST(Checksum, PartsOfFiles) {
  const test::TemporaryFolder folder;
  std::string text(3'000'000, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i / 77);
  const std::filesystem::path path = folder.path() / "f";
  write_file(path, text);
  const uint64_t whole = checksum_of_file(path);
  const int file = ::open(path.c_str(), O_RDONLY);
  EXPECT_EQ(checksum_of_part(file, path, 0, text.size()), whole);
  EXPECT_EQ(checksum_of_bytes(std::as_bytes(std::span(text))), whole);
  EXPECT_EQ(checksum_of_part(file, path, 100, 1000), sum_of(text.substr(100, 1000)));
  EXPECT_THROW(checksum_of_part(file, path, 100, text.size()), Error);
  ::close(file);
  text[2'999'999] ^= 1;
  write_file(path, text);
  EXPECT_NE(checksum_of_file(path), whole);
  EXPECT_EQ(checksum_text(255), "00000000000000ff");
  EXPECT_THROW(checksum_of_file(folder.path() / "none"), Error);
}

}  // namespace
}  // namespace salient
