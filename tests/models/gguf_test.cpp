#include "models/io/gguf.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <string>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

using test::TemporaryFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kGolden = fs::path(SALIENT_SOURCE_DIR) / "tests/data/gguf/written_by_gguf.gguf";

void number(std::string& bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}
void text(std::string& bytes, const std::string& value) {
  number(bytes, value.size(), 8);
  bytes += value;
}

struct Info {
  std::string name;
  std::vector<uint64_t> dimensions;
  uint64_t type = 0;
  uint64_t offset = 0;
};

struct Pair {
  std::string key;
  uint64_t type;
  std::string value;
};

// A file by hand, not by our writer.
std::string file_of(const std::vector<Pair>& pairs, const std::vector<Info>& infos, size_t data_bytes, uint64_t alignment = 32) {
  std::string bytes = "GGUF";
  number(bytes, 3, 4);
  number(bytes, infos.size(), 8);
  number(bytes, pairs.size(), 8);
  for (const Pair& pair : pairs) {
    text(bytes, pair.key);
    number(bytes, pair.type, 4);
    bytes += pair.value;
  }
  for (const Info& info : infos) {
    text(bytes, info.name);
    number(bytes, info.dimensions.size(), 4);
    for (const uint64_t size : info.dimensions) number(bytes, size, 8);
    number(bytes, info.type, 4);
    number(bytes, info.offset, 8);
  }
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment + data_bytes, '\0');
  return bytes;
}

std::string u32(uint32_t value) {
  std::string bytes;
  number(bytes, value, 4);
  return bytes;
}

// Not write_file, which flushes to disk: there are thousands of them.
void put_file(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

class Gguf : public ::testing::Test {
 protected:
  Error error_of(const std::string& bytes) const {
    put_file(path_, bytes);
    try {
      const GgufFile file(path_);
    } catch (const Error& error) {
      EXPECT_THAT(error.message(), HasSubstr(path_.string()));
      return error;
    }
    return Error(ErrorKind::kInternal, "no error");
  }
  void expect_corrupt(const std::string& bytes, const std::string& message) const {
    const Error error = error_of(bytes);
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << error.message();
    EXPECT_THAT(error.message(), HasSubstr(message));
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "m.gguf";
};

TEST_F(Gguf, ReadsTheExampleOfTheHeader) {
  std::string bytes = file_of({}, {{"a", {2}, 0, 0}}, 32);
  ASSERT_EQ(bytes.size(), 24u + 33 + 7 + 32);
  const float values[] = {1.0F, -2.0F};
  bytes.replace(64, sizeof(values), reinterpret_cast<const char*>(values), sizeof(values));
  put_file(path_, bytes);
  const GgufFile file(path_);
  EXPECT_EQ(file.header().data_begin, 64u);
  EXPECT_TRUE(at::equal(file.read("a"), at::tensor({1.0F, -2.0F})));
}

TEST_F(Gguf, ReadsWhatThePythonPackageWrites) {
  const GgufFile file(kGolden);
  const GgufHeader& header = file.header();
  EXPECT_EQ(header.version, 3u);
  EXPECT_EQ(header.metadata.size(), 22u);
  EXPECT_EQ(header.metadata.front().key, "general.architecture");
  EXPECT_EQ(gguf_value<std::string>(header, "general.architecture"), "llama");
  const auto is = [&](const std::string& key, const GgufValue& expected) {
    const GgufValue* found = header.find(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_TRUE(*found == expected) << key << " of " << gguf_type_name(*found);
  };
  is("one.u8", uint8_t{200});
  is("one.i8", int8_t{-100});
  is("one.u16", uint16_t{60000});
  is("one.i16", int16_t{-30000});
  is("one.u32", uint32_t{4000000000});
  is("one.i32", int32_t{-2000000000});
  is("one.f32", 0.1F);
  is("one.bool", true);
  is("one.string", std::string("smörgås ▁x"));
  is("one.u64", (uint64_t{1} << 63) + 5);
  is("one.i64", -(int64_t{1} << 62));
  is("one.f64", 0.1);
  is("many.u8", GgufArray(std::vector<uint8_t>{1, 255}));
  is("many.i16", GgufArray(std::vector<int16_t>{-1, 300}));
  is("many.i32", GgufArray(std::vector<int32_t>{-7, 0, 7}));
  is("many.f32", GgufArray(std::vector<float>{0.5F, -1.25F}));
  is("many.bool", GgufArray(std::vector<bool>{true, false, true}));
  is("many.string", GgufArray(std::vector<std::string>{"<s>", "", "Ġthe"}));
  is("many.u64", GgufArray(std::vector<uint64_t>{uint64_t{1} << 63}));
  is("many.f64", GgufArray(std::vector<double>{1e300}));

  const at::Tensor ramp = at::arange(6, at::kFloat).view({2, 3}) / 4;
  EXPECT_TRUE(at::equal(file.read("f32"), ramp));
  EXPECT_TRUE(at::equal(file.read("f16"), ramp + 1));
  EXPECT_TRUE(at::equal(file.read("bf16"), ramp - 1));
  EXPECT_TRUE(at::equal(file.read("norm"), at::arange(1, 6, at::kFloat)));
  EXPECT_THAT(file.tensor("blk.0.attn_q.weight").shape, ElementsAre(2, 3, 32));
  EXPECT_TRUE(at::allclose(file.read("blk.0.attn_q.weight"), at::linspace(-1, 1, 192).view({2, 3, 32}), 0, 0.005));
  EXPECT_TRUE(at::equal(file.view("q4_k"), (at::arange(144) * 37).remainder(251).to(at::kByte).view({1, 144})));
  EXPECT_EQ(file.find("nothing"), nullptr);
  EXPECT_THROW(file.view("nothing"), Error);
  file.release("q4_k");
  EXPECT_EQ(file.view("q4_k")[0][1].item<int>(), 37);
}

TEST_F(Gguf, ValuesAreAskedForByType) {
  const GgufFile file(kGolden);
  const GgufHeader& header = file.header();
  const auto message = [](const std::function<void()>& body, ErrorKind kind) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind);
      return error.message();
    }
    return "no error";
  };
  EXPECT_EQ(gguf_value<uint32_t>(header, "one.u32"), 4000000000u);
  EXPECT_EQ(gguf_value<std::vector<float>>(header, "many.f32").back(), -1.25F);
  EXPECT_EQ(find_gguf_value<bool>(header, "one.none"), nullptr);
  EXPECT_EQ(message([&] { gguf_value<uint32_t>(header, "one.i32"); }, ErrorKind::kCorruption),
            "GGUF key 'one.i32' has type i32, expected u32");
  EXPECT_EQ(message([&] { gguf_value<std::vector<int32_t>>(header, "many.f32"); }, ErrorKind::kCorruption),
            "GGUF key 'many.f32' has type array of f32, expected array of i32");
  EXPECT_EQ(message([&] { gguf_value<bool>(header, "one.none"); }, ErrorKind::kNotFound), "GGUF key 'one.none' is missing");
  EXPECT_THAT(*find_gguf_integers(header, "one.i8"), ElementsAre(-100));
  EXPECT_THAT(*find_gguf_integers(header, "many.u32"), ElementsAre(4, 4, 8));
  EXPECT_FALSE(find_gguf_integers(header, "one.none"));
  EXPECT_THAT(message([&] { find_gguf_integers(header, "many.u64"); }, ErrorKind::kCorruption),
              HasSubstr("9223372036854775808 is too large"));
  EXPECT_THAT(message([&] { find_gguf_integers(header, "one.f32"); }, ErrorKind::kCorruption),
              HasSubstr("has type f32, expected whole numbers"));
  EXPECT_THAT(message([&] { find_gguf_integers(header, "many.bool"); }, ErrorKind::kCorruption),
              HasSubstr("has type array of bool"));
}

TEST_F(Gguf, TruncatedAtEveryLengthIsCorruption) {
  const std::string whole = read_text_file(kGolden);
  for (size_t length = 0; length < whole.size() - 16; ++length) {  // the last 16 bytes are padding that need not be there
    ASSERT_EQ(error_of(whole.substr(0, length)).kind(), ErrorKind::kCorruption) << length;
  }
  put_file(path_, whole.substr(0, whole.size() - 16));
  EXPECT_EQ(GgufFile(path_).view("q4_k").numel(), 144);
}

// Whatever a byte becomes, the file is read or refused with an error that names it.
TEST_F(Gguf, AnyChangedByteIsReadOrRefused) {
  const std::string whole = read_text_file(kGolden);
  int refused = 0;
  for (size_t i = 0; i < 1024; ++i) {
    for (const int value : {0, 1, 0x7f, 0xff}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(value);
      put_file(path_, changed);
      try {
        const GgufFile file(path_);
        for (const GgufTensor& tensor : file.header().tensors) file.view(tensor.name).sum();
      } catch (const Error& error) {
        EXPECT_THAT(error.kind(), ::testing::AnyOf(ErrorKind::kCorruption, ErrorKind::kUnsupported));
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(Gguf, AbsurdNumbersAreRefusedAtOnce) {
  const auto with = [](std::initializer_list<std::pair<size_t, uint64_t>> numbers) {
    std::string bytes = file_of({{"k", 9, u32(8) + std::string(8, '\0')}}, {{"a", {2}, 0, 0}}, 32);
    for (const auto& [at, value] : numbers) {
      std::string wide;
      number(wide, value, 8);
      bytes.replace(at, 8, wide);
    }
    return bytes;
  };
  expect_corrupt(with({{8, uint64_t{1} << 40}}), "1099511627776 tensors, which cannot fit into a file of");
  expect_corrupt(with({{8, ~uint64_t{0}}}), "18446744073709551615 tensors");
  expect_corrupt(with({{16, uint64_t{1} << 40}}), "1099511627776 metadata keys");
  expect_corrupt(with({{24, ~uint64_t{0}}}), "wants 18446744073709551615 bytes");
  expect_corrupt(with({{24 + 9 + 4 + 4, uint64_t{1} << 60}}), "key 'k': ");
  expect_corrupt(with({{24 + 9 + 4 + 4, uint64_t{1} << 60}}), "array elements");
  for (const uint64_t size : {uint64_t{1} << 62, uint64_t{1} << 63, ~uint64_t{0}}) {
    const std::string message = error_of(file_of({}, {{"a", {size}, 0, 0}}, 32)).message();
    EXPECT_THAT(message, HasSubstr("2^63")) << size;
  }
  expect_corrupt(file_of({}, {{"a", {uint64_t{1} << 32, uint64_t{1} << 31}, 0, 0}}, 32), "more elements than 2^63");
  expect_corrupt(file_of({}, {{"a", {0, uint64_t{1} << 32, uint64_t{1} << 31}, 0, 0}}, 32), "more elements than 2^63");
}

TEST_F(Gguf, WrongLayoutsAreRefused) {
  const std::vector<Info> two = {{"a", {2, 3}, 0, 0}, {"b", {4}, 0, 32}};
  EXPECT_EQ(error_of(file_of({}, two, 64)).message(), "no error");
  const auto changed = [&](const std::function<void(std::vector<Info>&)>& change) {
    std::vector<Info> infos = two;
    change(infos);
    return file_of({}, infos, 64);
  };
  expect_corrupt(changed([](auto& infos) { infos[1].offset = 0; }), "tensor 'b' is at byte 0 of the data, expected 32");
  expect_corrupt(changed([](auto& infos) { infos[1].offset = 64; }), "tensor 'b' is at byte 64 of the data, expected 32");
  expect_corrupt(changed([](auto& infos) { std::swap(infos[0], infos[1]); }), "tensor 'b' is at byte 32 of the data, expected 0");
  expect_corrupt(changed([](auto& infos) { infos[1].name = "a"; }), "tensor 'a' is there twice");
  expect_corrupt(changed([](auto& infos) { infos[1].name = std::string(64, 'n'); }), "has 64 bytes, expected at most 63");
  expect_corrupt(changed([](auto& infos) { infos[1].dimensions = {4, 1, 1, 1, 1}; }), "has 5 dimensions, expected at most 4");
  expect_corrupt(changed([](auto& infos) { infos[1].type = 2; }),
                 "tensor 'b' has rows of 4 elements, expected a multiple of 32 for Q4_0");
  expect_corrupt(changed([](auto& infos) { infos[1].dimensions = {16}; }), "tensor 'b' needs 64 bytes");
  EXPECT_EQ(error_of(changed([](auto& infos) { infos[1].type = 4; })).kind(), ErrorKind::kUnsupported);
  expect_corrupt(file_of({}, two, 65), "1 bytes follow the last tensor");
  EXPECT_EQ(error_of(changed([](auto& infos) { infos[1].name = std::string(63, 'n'); })).message(), "no error");
}

TEST_F(Gguf, WrongMetadataAreRefused) {
  expect_corrupt(file_of({{"k", 4, u32(1)}, {"k", 4, u32(2)}}, {}, 0), "key 'k' is there twice");
  expect_corrupt(file_of({{"k", 13, u32(1)}}, {}, 0), "metadata type 13, expected 0 to 12");
  expect_corrupt(file_of({{"k", 7, "\2"}}, {}, 0), "a bool is 2");
  expect_corrupt(file_of({{"k", 9, u32(13) + std::string(8, '\0')}}, {}, 0), "metadata type 13");
  EXPECT_EQ(error_of(file_of({{"k", 9, u32(9) + std::string(20, '\0')}}, {}, 0)).kind(), ErrorKind::kUnsupported);
  for (const uint32_t alignment : {0u, 3u, 48u})
    expect_corrupt(file_of({{"general.alignment", 4, u32(alignment)}}, {}, 64), "no u32 power of two");
  expect_corrupt(file_of({{"general.alignment", 5, u32(32)}}, {}, 64), "no u32 power of two");
}

TEST_F(Gguf, AnotherAlignmentIsFollowed) {
  put_file(path_, file_of({{"general.alignment", 4, u32(128)}}, {{"a", {2}, 0, 0}, {"b", {3}, 0, 128}}, 256, 128));
  const GgufFile file(path_);
  EXPECT_EQ(file.header().data_begin % 128, 0u);
  EXPECT_EQ(file.view("b").sizes(), (at::IntArrayRef{1, 12}));
}

TEST_F(Gguf, OtherVersionsAreUnsupported) {
  for (const auto& [version, text] :
       std::vector<std::pair<uint32_t, std::string>>{{1, "GGUF version 1"}, {4, "GGUF version 4"}, {0x03000000, "big-endian"}}) {
    std::string bytes = file_of({}, {}, 0);
    bytes.replace(4, 4, u32(version));
    const Error error = error_of(bytes);
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.message(), HasSubstr(text));
  }
  std::string bytes = file_of({}, {}, 0);
  bytes.replace(4, 4, u32(2));
  EXPECT_EQ(error_of(bytes).message(), "no error");
}

TEST_F(Gguf, ZeroAndNoDimensions) {
  put_file(path_, file_of({}, {{"scalar", {}, 0, 0}, {"empty", {0, 3}, 0, 32}, {"after", {1}, 0, 32}}, 64));
  const GgufFile file(path_);
  EXPECT_EQ(file.read("scalar").dim(), 0);
  EXPECT_EQ(file.read("empty").sizes(), (at::IntArrayRef{3, 0}));
  EXPECT_EQ(file.read("after").numel(), 1);
}

}  // namespace
}  // namespace salient::models
