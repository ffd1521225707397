#include "models/io/safetensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Safetensors : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("salient_safetensors_" + std::to_string(::getpid()) + ".safetensors");
  }
  void TearDown() override { fs::remove(path_); }

  static std::string length_bytes(uint64_t length) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
    return bytes;
  }
  void write(const std::string& header, size_t data_bytes) const {
    write_file(path_, length_bytes(header.size()) + header + std::string(data_bytes, '\1'));
  }

  void expect_error(ErrorKind kind, const std::string& text) const {
    try {
      const SafetensorsFile file(path_);
      ADD_FAILURE() << "opened, expected: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_THAT(error.message(), HasSubstr(text));
      EXPECT_THAT(error.message(), HasSubstr(path_.string()));
    }
  }
  void expect_corrupt(const std::string& header, size_t data_bytes, const std::string& text) const {
    SCOPED_TRACE(header.substr(0, 200));
    write(header, data_bytes);
    expect_error(ErrorKind::kCorruption, text);
  }

  fs::path path_;
};

TEST_F(Safetensors, ReadsTheDocumentedExample) {
  // Bytes by hand, not by our writer: one F32 tensor of 1.0 and -2.0, a BF16 scalar 1.5.
  const std::string header =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},"__metadata__":{"k":"v"}}  )";
  const char data[] = {0, 0, char(0x80), 0x3f, 0, 0, 0, char(0xc0), char(0xc0), 0x3f};
  write_file(path_, length_bytes(header.size()) + header + std::string(data, sizeof data));
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata().at("k"), "v");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_TRUE(at::equal(file.view("a"), at::tensor({1.0F, -2.0F})));
  EXPECT_EQ(file.view("b").dim(), 0);
  EXPECT_EQ(file.view("b").item<float>(), 1.5F);
  EXPECT_EQ(file.info("b").bytes(), 2u);
  EXPECT_THROW(file.view("c"), Error);
}

TEST_F(Safetensors, KeepsEveryDtypeThroughAFile) {
  std::vector<NamedTensor> tensors;
  for (const at::ScalarType dtype : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kBFloat16,
                                     at::kFloat, at::kDouble, at::kUInt16}) {
    tensors.push_back(
        {safetensors_dtype_name(dtype), at::arange(5).remainder(2).to(dtype)});  // 5 elements: what follows is misaligned
  }
  tensors.push_back({"empty", at::empty({0, 3})});
  tensors.push_back({"transposed", at::arange(6, at::kFloat).view({2, 3}).t()});
  write_safetensors(path_, tensors, {{"note", "x"}});
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata().at("note"), "x");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (const NamedTensor& tensor : tensors) {
    const at::Tensor read = file.view(tensor.name);
    EXPECT_EQ(read.scalar_type(), tensor.tensor.scalar_type()) << tensor.name;
    EXPECT_TRUE(at::equal(read.to(at::kDouble), tensor.tensor.to(at::kDouble))) << tensor.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.const_data_ptr()) % read.element_size(), 0u) << tensor.name;
  }
}

TEST_F(Safetensors, ViewOutlivesTheFileAndSurvivesRelease) {
  write_safetensors(path_, {{"a", at::arange(100'000, at::kInt)}});
  at::Tensor view;
  {
    const SafetensorsFile file(path_);
    view = file.view("a");
    file.release("a");
  }
  EXPECT_TRUE(at::equal(view, at::arange(100'000, at::kInt)));
}

TEST_F(Safetensors, RefusesBrokenLengths) {
  write_file(path_, "");
  expect_error(ErrorKind::kCorruption, "has 0 bytes");
  write_file(path_, "1234567");
  expect_error(ErrorKind::kCorruption, "truncated");
  for (const uint64_t length : {uint64_t{100}, uint64_t{100'000'001}, ~uint64_t{0}, ~uint64_t{0} - 7, uint64_t{1} << 63}) {
    write_file(path_, length_bytes(length) + "{}");
    expect_error(ErrorKind::kCorruption, length == 100 ? "truncated" : std::to_string(length));
  }
  write_file(path_, length_bytes(0));
  expect_error(ErrorKind::kCorruption, "does not begin with '{'");
}

TEST_F(Safetensors, RefusesBrokenHeaders) {
  expect_corrupt("[1]", 0, "does not begin with '{'");
  expect_corrupt(" {}", 0, "does not begin with '{'");
  expect_corrupt("{\"a\":", 0, "not valid JSON");
  expect_corrupt("{\"a\xff\":1}", 0, "not valid JSON");
  expect_corrupt("{} {}", 0, "not valid JSON");
  // Deeper than a stack, whether it would be valid JSON or not.
  expect_corrupt("{" + std::string(100'000, '[') + "}", 0, "more than 500 levels deep");
  expect_corrupt(R"({"a":{"shape":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}}", 0,
                 "more than 500 levels deep");
  expect_corrupt(R"({"a":1})", 0, "'a'");
  expect_corrupt(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "'dtype' is missing");
  expect_corrupt(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4, "expected a string");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, "shape is 1");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "a dimension is 1.0");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "a dimension is -1");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "expected [begin, end]");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "data_offsets[0] is -4");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e30]}})", 4, "data_offsets[1]");
  expect_corrupt(R"({"__metadata__":[1]})", 0, "__metadata__");
  expect_corrupt(R"({"__metadata__":{"k":1}})", 0, "__metadata__");
}

TEST_F(Safetensors, RefusesDuplicates) {
  const std::string a = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_corrupt("{" + a + "," + a + "}", 1, "'\"a\"' twice");
  expect_corrupt(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1, "'\"dtype\"' twice");
  write("{" + a + R"(,"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2);  // equal keys of two tensors are fine
  EXPECT_EQ(SafetensorsFile(path_).tensors().size(), 2u);
}

TEST_F(Safetensors, RefusesSizesThatDoNotFit) {
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "give 4 bytes, but F32 [2] needs 8");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "run backwards");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, "only 7 bytes of data");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0, "more bytes than 2^63");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}})", 0,
                 "more bytes than 2^63");
  expect_corrupt(R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0]}})", 0, "a dimension is");
}

TEST_F(Safetensors, RefusesOverlapsHolesAndTrailingBytes) {
  const auto two = [](int begin) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(begin + 4) + "]}}";
  };
  write(two(4), 8);
  EXPECT_NO_THROW(SafetensorsFile file(path_));
  expect_corrupt(two(3), 8, "overlaps");
  expect_corrupt(two(0), 8, "overlaps");
  expect_corrupt(two(5), 9, "has a hole");
  expect_corrupt(two(4), 9, "the last tensor ends at byte");
  expect_corrupt("{}", 1, "but the file has 11 bytes");
}

TEST_F(Safetensors, NamesDtypesItCannotHold) {
  write(R"({"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", 4);
  expect_error(ErrorKind::kUnsupported, "tensor 'w': dtype F8_E4M3 is not supported");
  write(R"({"w":{"dtype":"X","shape":[4],"data_offsets":[0,4]}})", 4);
  expect_error(ErrorKind::kUnsupported, "unknown dtype");
  EXPECT_THROW(safetensors_dtype_name(at::kComplexFloat), Error);
}

// Every prefix of a valid file is refused, whatever byte it is cut at.
TEST_F(Safetensors, RefusesEveryTruncation) {
  write_safetensors(path_, {{"a", at::arange(3, at::kInt)}, {"b", at::arange(3, at::kShort)}});
  const std::string whole = read_text_file(path_);
  for (size_t length = 0; length < whole.size(); ++length) {
    write_file(path_, whole.substr(0, length));
    EXPECT_THROW(SafetensorsFile file(path_), Error) << length;
  }
}

TEST_F(Safetensors, WriterRefusesNamesThatAreTwice) {
  EXPECT_THROW(write_safetensors(path_, {{"a", at::ones(1)}, {"a", at::ones(1)}}), Error);
  EXPECT_THROW(write_safetensors(path_, {{"__metadata__", at::ones(1)}}), Error);
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace salient::models
