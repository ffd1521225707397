#include "pipeline/activation_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class Activations : public ::testing::Test {
 protected:
  fs::path path() const { return folder_.path() / "hidden_0.bin"; }

  int64_t space_on_disk() const {
    struct stat status {};
    EXPECT_EQ(::stat(path().c_str(), &status), 0);
    return status.st_blocks * 512;
  }

  template <typename Body>
  Error error_of(const Body& body) const {
    try {
      body();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      return error;
    }
    return Error(ErrorKind::kInternal, "");
  }

  test::TemporaryFolder folder_;
};

TEST_F(Activations, RowsAreWrittenAndReadInAnyOrder) {
  const at::Tensor all = at::arange(5 * 3 * 4, at::kFloat).view({5, 3, 4});
  ActivationFile file = ActivationFile::create(path(), {5, 3, 4});
  EXPECT_EQ(file.size(0), 5);
  EXPECT_EQ(file.size(2), 4);
  EXPECT_TRUE(file.read(0, 5).equal(at::zeros({5, 3, 4})));
  file.write(4, all.narrow(0, 4, 1));
  file.write(1, all.narrow(0, 1, 3));
  EXPECT_TRUE(file.read(0, 1).equal(at::zeros({1, 3, 4})));
  file.write(0, all.narrow(0, 0, 1));
  EXPECT_TRUE(file.read(0, 5).equal(all));
  EXPECT_TRUE(file.read(2, 2).equal(all.narrow(0, 2, 2)));
  EXPECT_EQ(file.read(3, 1).sizes(), at::IntArrayRef({1, 3, 4}));
}

TEST_F(Activations, BytesAreFloat32InRowOrderAndNothingElse) {
  const at::Tensor all = at::rand({2, 3, 5});
  ActivationFile file = ActivationFile::create(path(), {2, 3, 5});
  file.write(0, all);
  file.sync();
  const std::string bytes = read_text_file(path());
  ASSERT_EQ(bytes.size(), all.nbytes());
  EXPECT_EQ(bytes, std::string(static_cast<const char*>(all.const_data_ptr()), all.nbytes()));
}

// Strided, of another dtype, flattened to rows of tokens: the elements in order are what counts.
TEST_F(Activations, WritesAnyLayout) {
  const at::Tensor all = at::rand({4, 3, 6}).to(at::kHalf).to(at::kFloat);
  ActivationFile file = ActivationFile::create(path(), {4, 3, 6});
  file.write(0, all.transpose(1, 2).contiguous().transpose(1, 2));
  EXPECT_TRUE(file.read(0, 4).equal(all));
  file.write(0, at::zeros({4, 3, 6}));
  file.write(0, all.to(at::kHalf));
  EXPECT_TRUE(file.read(0, 4).equal(all));
  file.write(0, at::zeros({4, 3, 6}));
  file.write(1, all.narrow(0, 1, 2).flatten(0, 1));
  EXPECT_TRUE(file.read(1, 2).equal(all.narrow(0, 1, 2)));
  EXPECT_TRUE(file.read(3, 1).equal(at::zeros({1, 3, 6})));
}

TEST_F(Activations, OpenedAgainItHoldsWhatWasWritten) {
  const at::Tensor all = at::rand({3, 2, 4});
  {
    ActivationFile file = ActivationFile::create(path(), {3, 2, 4});
    file.write(0, all);
  }
  const ActivationFile again = ActivationFile::open(path(), {3, 2, 4});
  EXPECT_TRUE(again.read(0, 3).equal(all));
  EXPECT_EQ(again.shape(), (std::vector<int64_t>{3, 2, 4}));
}

TEST_F(Activations, CreateReplacesWhatWasThereByZeros) {
  std::ofstream(path()) << std::string(10'000, 'x');
  const ActivationFile file = ActivationFile::create(path(), {2, 2, 2});
  EXPECT_EQ(fs::file_size(path()), 32U);
  EXPECT_TRUE(file.read(0, 2).equal(at::zeros({2, 2, 2})));
}

TEST_F(Activations, TheSpaceIsReservedAtOnce) {
  const ActivationFile file = ActivationFile::create(path(), {1000, 16, 16});
  EXPECT_EQ(fs::file_size(path()), 1'024'000U);
  EXPECT_GE(space_on_disk(), 1'024'000);
}

TEST_F(Activations, AFileOfAnotherSizeIsRefused) {
  { const ActivationFile file = ActivationFile::create(path(), {3, 2, 4}); }
  for (const int64_t rows : {2, 4}) {
    const Error error = error_of([&] { ActivationFile::open(path(), {rows, 2, 4}); });
    EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
    EXPECT_THAT(error.message(), AllOf(HasSubstr(path().string()), HasSubstr("96 bytes"), HasSubstr(std::to_string(rows * 32)),
                                       HasSubstr(std::to_string(rows) + ", 2, 4")));
  }
  fs::resize_file(path(), 95);
  EXPECT_EQ(error_of([&] { ActivationFile::open(path(), {3, 2, 4}); }).kind(), ErrorKind::kCorruption);
}

TEST_F(Activations, MissingFilesAndFoldersAreNamed) {
  EXPECT_THAT(error_of([&] { ActivationFile::open(path(), {1, 1, 1}); }).message(), HasSubstr(path().string()));
  const fs::path nowhere = folder_.path() / "none" / "hidden_0.bin";
  const Error error = error_of([&] { ActivationFile::create(nowhere, {1, 1, 1}); });
  EXPECT_THAT(error.message(), HasSubstr(nowhere.string()));
}

TEST_F(Activations, RowsBeyondTheEndAreRefused) {
  ActivationFile file = ActivationFile::create(path(), {3, 2, 4});
  EXPECT_EQ(error_of([&] { file.read(2, 2); }).kind(), ErrorKind::kCorruption);
  // Written beyond, the file would grow and another row would be read later.
  EXPECT_EQ(error_of([&] { file.write(2, at::zeros({2, 2, 4})); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] { file.write(-1, at::zeros({1, 2, 4})); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] { file.write(0, at::zeros({1, 2, 3})); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(fs::file_size(path()), 96U);
}

// Cut off behind our back: said, not taken for zeros.
TEST_F(Activations, ACutFileIsCorruption) {
  const ActivationFile file = ActivationFile::create(path(), {3, 2, 4});
  fs::resize_file(path(), 40);
  EXPECT_NO_THROW(file.read(0, 1));
  const Error error = error_of([&] { file.read(0, 2); });
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error.message(), HasSubstr("row 2"));
}

TEST_F(Activations, MovesTakeTheFileAlong) {
  ActivationFile first = ActivationFile::create(path(), {2, 1, 1});
  first.write(0, at::ones({1, 1, 1}));
  ActivationFile second = std::move(first);
  EXPECT_EQ(second.read(0, 1).item<float>(), 1.0f);
  ActivationFile other = ActivationFile::create(folder_.path() / "other.bin", {4, 1, 1});
  other = std::move(second);
  EXPECT_EQ(other.size(0), 2);
  other.write(1, at::full({1, 1, 1}, 3.0f));
  EXPECT_EQ(other.read(1, 1).item<float>(), 3.0f);
}

}  // namespace
}  // namespace salient::pipeline
