#include "models/io/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kCommit = "c1899de289a04d12100db370d81485cdf75e47ca";
constexpr const char* kOther = "f00dfacef00dfacef00dfacef00dfacef00dface";

class ModelFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("salient_model_folder_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
    ::setenv("HOME", (root_ / "home").c_str(), 1);
    ::setenv("HF_HUB_CACHE", (root_ / "cache").c_str(), 1);
    add(root_ / "cache", "Qwen", "Qwen3-0.6B", kCommit);
    write_file(root_ / "cache/models--Qwen--Qwen3-0.6B/refs/main", kCommit);
  }
  void TearDown() override { fs::remove_all(root_); }

  static fs::path add(const fs::path& cache, const std::string& org, const std::string& name, const std::string& commit) {
    const fs::path snapshot = cache / ("models--" + org + "--" + name) / "snapshots" / commit;
    write_file(snapshot / "config.json", "{}");
    return snapshot;
  }

  static Error error_of(const std::string& name) {
    try {
      const fs::path found = resolve_model_folder(name);
      ADD_FAILURE() << name << " resolved to " << found;
    } catch (const Error& error) {
      return error;
    }
    return Error(ErrorKind::kInternal, "");
  }

  fs::path root_;
};

TEST_F(ModelFolder, AnExistingFolderIsItself) { EXPECT_EQ(resolve_model_folder(root_.string()), root_); }

TEST_F(ModelFolder, NameInTheCache) {
  EXPECT_EQ(resolve_model_folder("Qwen/Qwen3-0.6B"), root_ / "cache/models--Qwen--Qwen3-0.6B/snapshots" / kCommit);
}

TEST_F(ModelFolder, NameWithoutOrganisation) {
  const fs::path snapshot = root_ / "cache/models--gpt2/snapshots" / kCommit;
  write_file(snapshot / "config.json", "{}");
  write_file(root_ / "cache/models--gpt2/refs/main", std::string(kCommit) + "\n");
  EXPECT_EQ(resolve_model_folder("gpt2"), snapshot);
}

TEST_F(ModelFolder, Revisions) {
  const fs::path other = add(root_ / "cache", "Qwen", "Qwen3-0.6B", kOther);
  write_file(root_ / "cache/models--Qwen--Qwen3-0.6B/refs/v2.0", kOther);
  write_file(root_ / "cache/models--Qwen--Qwen3-0.6B/refs/refs/pr/1", kOther);
  EXPECT_EQ(resolve_model_folder("Qwen/Qwen3-0.6B@v2.0"), other);
  EXPECT_EQ(resolve_model_folder("Qwen/Qwen3-0.6B@refs/pr/1"), other);
  EXPECT_EQ(resolve_model_folder(std::string("Qwen/Qwen3-0.6B@") + kOther), other);
  EXPECT_EQ(resolve_model_folder("Qwen/Qwen3-0.6B@f00dface"), other);
  EXPECT_NE(resolve_model_folder("Qwen/Qwen3-0.6B"), other);

  const Error error = error_of("Qwen/Qwen3-0.6B@v3");
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("revision 'v3'"), HasSubstr("v2.0"), HasSubstr(kOther)));
  EXPECT_THAT(error.hint(), HasSubstr("hf download Qwen/Qwen3-0.6B --revision v3"));
}

TEST_F(ModelFolder, AnotherSnapshotIsNotSilentlyMain) {
  add(root_ / "cache", "org", "tagged", kOther);
  write_file(root_ / "cache/models--org--tagged/refs/v1", kOther);
  EXPECT_THAT(error_of("org/tagged").message(), AllOf(HasSubstr("revision 'main'"), HasSubstr("refs there: v1")));
}

TEST_F(ModelFolder, UnfinishedDownload) {
  fs::create_directories(root_ / "cache/models--org--broken/snapshots" / kCommit);
  write_file(root_ / "cache/models--org--broken/refs/main", kCommit);
  EXPECT_THAT(error_of("org/broken").hint(), HasSubstr("hf download org/broken"));
  write_file(root_ / "cache/models--org--broken/refs/main", "../../../etc");
  EXPECT_EQ(error_of("org/broken").kind(), ErrorKind::kCorruption);
}

TEST_F(ModelFolder, MissingNameSaysWhereAndWhatIsNear) {
  add(root_ / "cache", "meta-llama", "Llama-3.2-1B", kCommit);
  const Error error = error_of("Qwen/Qwen3-0.8B");
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), AllOf(HasSubstr((root_ / "cache/models--Qwen--Qwen3-0.8B").string()),
                                     HasSubstr((fs::current_path() / "Qwen/Qwen3-0.8B").string()), HasSubstr("Qwen/Qwen3-0.6B"),
                                     Not(HasSubstr("Llama"))));
  EXPECT_THAT(error.hint(), HasSubstr("hf download Qwen/Qwen3-0.8B"));
  EXPECT_THAT(error_of("somebody/qwen3-0.6b").message(), HasSubstr("Qwen/Qwen3-0.6B"));
}

// A folder's name with a typing error looks like a name of the Hub.
TEST_F(ModelFolder, MissingNameSaysWhatIsNearInTheWorkingFolder) {
  const fs::path before = fs::current_path();
  fs::create_directories(root_ / "here/demo_awq");
  fs::current_path(root_ / "here");
  const Error error = error_of("demo_awqq");
  const Error stranger = error_of("llama");
  fs::current_path(before);
  EXPECT_THAT(error.hint(), AllOf(HasSubstr("did you mean 'demo_awq'?"), HasSubstr("hf download demo_awqq")));
  EXPECT_THAT(stranger.hint(), Not(HasSubstr("did you mean")));
}

TEST_F(ModelFolder, PathsAreNotLookedUpInTheCache) {
  fs::create_directories(root_ / "runs/final_model");
  const Error error = error_of((root_ / "runs/finl_model").string());
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("no such folder"), HasSubstr("final_model")));
  EXPECT_THAT(error.hint(), Not(HasSubstr("hf download")));
  for (const char* name : {"./nothing", "../nothing", "a/b/c", "a/../b", "a//b", "x y/z", "org/name@", "org/name@../x"}) {
    EXPECT_THAT(error_of(name).hint(), Not(HasSubstr("hf download"))) << name;
  }
  EXPECT_EQ(error_of("").kind(), ErrorKind::kInvalidArgument);
}

TEST_F(ModelFolder, AFileIsNotAFolder) {
  write_file(root_ / "m/model.safetensors", "x");
  const Error error = error_of((root_ / "m/model.safetensors").string());
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.hint(), HasSubstr((root_ / "m").string()));
}

TEST_F(ModelFolder, CacheVariablesInOrder) {
  EXPECT_EQ(hugging_face_cache(), root_ / "cache");
  ::setenv("HF_HOME", "~/hf", 1);
  EXPECT_EQ(hugging_face_cache(), root_ / "cache");
  ::unsetenv("HF_HUB_CACHE");
  EXPECT_EQ(hugging_face_cache(), root_ / "home/hf/hub");
  ::unsetenv("HF_HOME");
  ::setenv("XDG_CACHE_HOME", (root_ / "xdg").c_str(), 1);
  EXPECT_EQ(hugging_face_cache(), root_ / "xdg/huggingface/hub");
  ::unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(hugging_face_cache(), root_ / "home/.cache/huggingface/hub");
}

}  // namespace
}  // namespace salient::models
