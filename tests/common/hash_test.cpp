#include "common/hash.h"

#include <gtest/gtest.h>

#include <set>

#include "common/error.h"
#include "common/file.h"
#include "tests/support/temporary_folder.h"

namespace salient {
namespace {

// FIPS 180-4 examples.
TEST(Sha256, StandardVectors) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PartsAndFilesGiveTheSame) {
  Sha256 hash;
  hash.update("a");
  hash.update("");
  hash.update("bc");
  EXPECT_EQ(hash.hex(), sha256_hex("abc"));
  test::TemporaryFolder folder;
  write_file(folder.path() / "f", "abc");
  write_file(folder.path() / "empty", "");
  EXPECT_EQ(sha256_file(folder.path() / "f"), sha256_hex("abc"));
  EXPECT_EQ(sha256_file(folder.path() / "empty"), sha256_hex(""));
  EXPECT_THROW(sha256_file(folder.path() / "none"), Error);
}

// Files are read in chunks of 16 MiB, let go one by one: at, below and beyond their borders, and with every chunk different.
TEST(Sha256, FilesAreHashedChunkByChunk) {
  constexpr size_t kChunk = size_t{16} << 20;
  std::string text(2 * kChunk + 4097, '\0');
  uint64_t state = 1;
  for (char& c : text) c = static_cast<char>((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
  test::TemporaryFolder folder;
  for (const size_t size : {kChunk - 1, kChunk, kChunk + 1, 2 * kChunk, text.size()}) {
    write_file(folder.path() / "f", std::string_view(text).substr(0, size));
    EXPECT_EQ(sha256_file(folder.path() / "f"), sha256_hex(std::string_view(text).substr(0, size))) << size;
  }
}

// Values from Python: int(hashlib.sha256(b"42/calibration").hexdigest()[:16], 16)
TEST(DeriveSeed, IsStableAndDependsOnBoth) {
  EXPECT_EQ(derive_seed(42, "calibration"), 10862951062133602763u);
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const char* name : {"", "a", "b", "1"}) seeds.insert(derive_seed(seed, name));
  }
  EXPECT_EQ(seeds.size(), 80u);
}

}  // namespace
}  // namespace salient
