#include "models/io/npz.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

using test::message_of;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kData = fs::path(SALIENT_SOURCE_DIR) / "tests/data/npz";

at::Tensor ramp(at::ScalarType dtype = at::kDouble) { return at::arange(24, at::TensorOptions(dtype)).reshape({2, 3, 4}); }

std::string bytes_of(const fs::path& path) { return read_text_file(path); }

class NumPyFiles : public testing::TestWithParam<const char*> {};

// What scripts/goldens/npz.py made, value by value.
TEST_P(NumPyFiles, AreRead) {
  const NpzFile file(kData / GetParam());
  EXPECT_EQ(file.names().size(), 17u);
  EXPECT_EQ(file.names().front(), "float16");
  const auto expect = [&](const std::string& name, const at::Tensor& expected) {
    const at::Tensor found = file.read(name);
    EXPECT_EQ(found.scalar_type(), expected.scalar_type()) << name;
    EXPECT_EQ(found.sizes(), expected.sizes()) << name;
    EXPECT_TRUE(found.is_contiguous()) << name;
    const size_t bytes = expected.nbytes();
    ASSERT_EQ(found.nbytes(), bytes) << name;
    if (bytes > 0) EXPECT_EQ(std::memcmp(found.const_data_ptr(), expected.contiguous().const_data_ptr(), bytes), 0) << name;
    EXPECT_EQ(file.header(name).shape, expected.sizes().vec()) << name;
  };
  const at::Tensor whole = ramp(at::kLong);
  expect("float16", (ramp() / 4).to(at::kHalf));
  expect("float32", (ramp() / 3).to(at::kFloat));
  expect("float64", ramp() / 7);
  expect("int8", (whole - 12).to(at::kChar));
  expect("int16", (whole * 1000 - 12000).to(at::kShort));
  expect("int32", (whole * 100000000 - 1200000000).to(at::kInt));
  expect("int64", whole * 1000000000000000 - 12000000000000000);
  expect("uint8", (whole * 10).to(at::kByte));
  expect("uint16", (whole * 2700).to(at::kUInt16));
  expect("uint32", (whole * 170000000).to(at::kUInt32));
  expect("bool", whole.remainder(3).eq(0));
  expect("fortran", (ramp() / 3).to(at::kFloat));
  expect("big_endian", (ramp() / 3).to(at::kFloat));
  expect("scalar", at::full({}, 2.5, at::kFloat));
  expect("empty", at::empty({0, 5}, at::kFloat));
  expect("model.layers.0.mlp.up_proj.weight", (ramp()[0] / 3).to(at::kFloat));
  const at::Tensor large = file.read("uint64");
  ASSERT_EQ(large.scalar_type(), at::kUInt64);
  EXPECT_EQ(static_cast<const uint64_t*>(large.const_data_ptr())[23], uint64_t{23} * 700000000000000000);
}

INSTANTIATE_TEST_SUITE_P(Npz, NumPyFiles, testing::Values("stored.npz", "compressed.npz"));

TEST(Npy, ReadsFortranOrder) { EXPECT_TRUE(at::equal(read_npy(kData / "single.npy"), (ramp() / 3).to(at::kFloat))); }

// NumPy's own bytes are the reference: header, padding and data.
TEST(Npy, WritesTheBytesOfNumPy) {
  const TemporaryFolder folder;
  const at::Tensor array = read_npy(kData / "single.npy");
  write_npy(folder.path() / "a.npy", array);
  const std::string ours = bytes_of(folder.path() / "a.npy");
  std::string theirs = bytes_of(kData / "single.npy").substr(0, 128);
  theirs.replace(theirs.find("True, "), 6, "False,");  // ours is in C order; one letter more, one space of padding less
  theirs.insert(theirs.find("'shape'"), " ");
  theirs.erase(theirs.find("  \n"), 1);
  EXPECT_EQ(ours.substr(0, 128), theirs);
  EXPECT_EQ(ours.size(), 128 + 24 * 4);
  EXPECT_TRUE(at::equal(read_npy(folder.path() / "a.npy"), array));
}

TEST(Npz, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  for (const bool compressed : {false, true}) {
    const fs::path path = folder.path() / "new folder" / "a.npz";
    const at::Tensor words = at::arange(16, at::kLong).to(at::kUInt32).reshape({2, 8});
    const at::Tensor zeros = at::zeros({100, 100});
    {
      NpzWriter writer(path, compressed);
      writer.add("a/b.weight", words);
      writer.add("transposed", zeros.t());
      writer.add("number", at::full({}, 7, at::kLong));
      writer.add("none", at::empty({0}));
      EXPECT_FALSE(fs::exists(path)) << "before commit";
      EXPECT_THAT(message_of([&] { writer.add("number", zeros); }, ErrorKind::kInvalidArgument), HasSubstr("twice"));
      EXPECT_THAT(message_of([&] { writer.add("bf16", zeros.to(at::kBFloat16)); }, ErrorKind::kUnsupported), HasSubstr("BFloat16"));
      writer.commit();
    }
    const NpzFile file(path);
    EXPECT_THAT(file.names(), testing::ElementsAre("a/b.weight", "transposed", "number", "none"));
    EXPECT_EQ(std::memcmp(file.read("a/b.weight").const_data_ptr(), words.const_data_ptr(), words.nbytes()), 0);
    EXPECT_TRUE(at::equal(file.read("transposed"), zeros));
    EXPECT_EQ(file.read("number").item<int64_t>(), 7);
    EXPECT_EQ(file.read("none").numel(), 0);
    EXPECT_EQ(file.stored_bytes("transposed") < 1000, compressed);
    fs::remove(path);
  }
}

TEST(Npz, SameArraysSameBytesAndNothingLeftBehind) {
  const TemporaryFolder folder;
  for (const char* name : {"a.npz", "b.npz"}) {
    NpzWriter writer(folder.path() / name, true);
    writer.add("x", ramp());
    writer.commit();
  }
  EXPECT_EQ(bytes_of(folder.path() / "a.npz"), bytes_of(folder.path() / "b.npz"));
  {
    NpzWriter dropped(folder.path() / "c.npz");
    dropped.add("x", ramp());
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
}

TEST(Npz, ArraysThatAreNoNumbersAreRefusedAlone) {
  const NpzFile file(kData / "object.npz");
  EXPECT_EQ(file.read("fine").numel(), 2);
  EXPECT_THAT(message_of([&] { file.read("object"); }, ErrorKind::kUnsupported), HasSubstr("pickle"));
  EXPECT_THAT(message_of([&] { file.read("complex"); }, ErrorKind::kUnsupported), HasSubstr("'<c8'"));
  EXPECT_THAT(message_of([&] { file.read("structured"); }, ErrorKind::kUnsupported), HasSubstr("structured"));
  EXPECT_THAT(message_of([&] { file.read("fin"); }, ErrorKind::kNotFound), HasSubstr("did you mean 'fine'"));
}

TEST(Npz, FilesThatAreNoneAreTold) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] { NpzFile file(folder.path() / "missing.npz"); }, ErrorKind::kNotFound), HasSubstr("missing.npz"));
  write_file(folder.path() / "text.npz", "this is no archive");
  write_file(folder.path() / "empty.npz", "");
  EXPECT_THAT(message_of([&] { NpzFile file(folder.path() / "text.npz"); }, ErrorKind::kCorruption), HasSubstr("not a .npz file"));
  EXPECT_THAT(message_of([&] { NpzFile file(folder.path() / "empty.npz"); }, ErrorKind::kCorruption), HasSubstr("0 bytes"));
  EXPECT_THAT(message_of([&] { NpzFile file(kData / "single.npy"); }, ErrorKind::kCorruption), HasSubstr("single .npy"));
}

// Reads everything; any failure must be an Error.
int readable_arrays(const fs::path& path) {
  int count = 0;
  try {
    const NpzFile file(path);
    for (const std::string& name : file.names()) {
      try {
        file.read(name);
        ++count;
      } catch (const Error& error) {
        EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
      }
    }
  } catch (const Error& error) {
    EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
  }
  return count;
}

TEST(Npz, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  const std::string whole = bytes_of(kData / "compressed.npz");
  for (size_t length = 0; length < whole.size(); length += 37) {
    write_file(folder.path() / "cut.npz", whole.substr(0, length));
    EXPECT_LT(readable_arrays(folder.path() / "cut.npz"), 17) << length;
  }
}

TEST(Npz, EveryChangedByteIsAnErrorOrHarmless) {
  const TemporaryFolder folder;
  for (const char* source : {"compressed.npz", "stored.npz"}) {
    const std::string whole = bytes_of(kData / source);
    for (size_t at = 0; at < whole.size(); at += 7) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ (at % 4 < 2 ? 0xff : 0x10));
      { std::ofstream(folder.path() / "changed.npz", std::ios::binary) << changed; }
      readable_arrays(folder.path() / "changed.npz");
    }
  }
}

TEST(Npz, AChangedElementFailsTheChecksum) {
  const TemporaryFolder folder;
  std::string whole = bytes_of(kData / "stored.npz");
  const NpzFile good(kData / "stored.npz");
  const at::Tensor values = good.read("float64");
  const std::string needle(static_cast<const char*>(values.const_data_ptr()), 64);
  const size_t at = whole.find(needle);
  ASSERT_NE(at, std::string::npos);
  whole[at + 20] ^= 1;
  write_file(folder.path() / "changed.npz", whole);
  const NpzFile file(folder.path() / "changed.npz");
  EXPECT_THAT(message_of([&] { file.read("float64"); }, ErrorKind::kCorruption), HasSubstr("checksum"));
  EXPECT_EQ(file.read("float32").numel(), 24);
}

NpyHeader parse(const std::string& dict) {
  std::string text("\x93NUMPY\x01", 7);
  text += '\0';
  text += static_cast<char>(dict.size() & 0xff);
  text += static_cast<char>(dict.size() >> 8);
  text += dict;
  return parse_npy_header(std::as_bytes(std::span(text)), "test");
}

TEST(Npy, HeadersOfEveryFormAreReadOrRefused) {
  EXPECT_EQ(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(parse("{\"shape\":(),\"descr\":\"|b1\",\"fortran_order\":True}").dtype, at::kBool);
  EXPECT_EQ(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9), }").data_bytes, 0u);
  const auto refused = [](const std::string& dict, const char* text) {
    EXPECT_THAT(message_of([&] { parse(dict); }, ErrorKind::kCorruption), HasSubstr(text)) << dict;
  };
  refused("", "its end");
  refused("{'descr': '<f4', 'shape': (2,)}", "2 keys");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", "'x'");
  refused("{'descr': '<f4', 'descr': '<f4', 'shape': (2,)}", "twice");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "dimension");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}", "2^63");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", "2^63");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296)}", "2^63");
  refused("{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (2,)}", "neither True nor False");
  refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + 1", "more text");
  refused("{'descr': '<f4", "does not end");
}

}  // namespace
}  // namespace salient::models
