// Links in a model's folder: those of the Hugging Face cache are followed, those that lead elsewhere are refused.
#include "models/io/links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/file.h"
#include "models/io/checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

TEST(Links, OfACacheAreFollowed) {
  const test::TemporaryFolder folder;
  const fs::path model = folder.path() / "models--org--demo";
  const fs::path snapshot = model / "snapshots" / "abc";
  fs::create_directories(model / "blobs");
  fs::create_directories(snapshot);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy_file(kDemo / name, model / "blobs" / name);
    fs::create_symlink(fs::path("../../blobs") / name, snapshot / name);
  }
  EXPECT_NO_THROW(Checkpoint{snapshot});
  // The same through a link to the snapshot, and one that leads nowhere.
  fs::create_directory_symlink(snapshot, folder.path() / "mine");
  fs::create_symlink("nothing", snapshot / "tokenizer.json");
  EXPECT_NO_THROW(Checkpoint{folder.path() / "mine"});
  // Another model's part of the cache is not this one's.
  fs::create_directories(folder.path() / "models--org--other");
  write_file(folder.path() / "models--org--other/secret", "x");
  fs::create_symlink("../../../models--org--other/secret", snapshot / "LICENSE");
  EXPECT_THAT(test::message_of([&] { Checkpoint{snapshot}; }, ErrorKind::kInvalidArgument), HasSubstr("LICENSE"));
}

TEST(Links, OutOfTheFolderAreRefused) {
  const test::TemporaryFolder folder;
  const fs::path model = folder.path() / "model";
  fs::create_directories(model);
  for (const char* name : {"config.json", "model.safetensors"}) fs::copy_file(kDemo / name, model / name);
  fs::create_symlink("config.json", model / "generation_config.json");
  EXPECT_NO_THROW(Checkpoint{model});
  write_file(folder.path() / "model-of-another", "x");  // its name begins as the folder's
  fs::create_symlink("../model-of-another", model / "tokenizer.json");
  const Error error = test::error_of([&] { Checkpoint{model}; }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr((folder.path() / "model-of-another").string()));
  EXPECT_FALSE(error.hint().empty());
}

}  // namespace
}  // namespace salient::models
