// What is found below a folder of models, and what is left out and why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <thread>

#include "pipeline/batch/completeness.h"
#include "pipeline/batch/model_listing.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/export_model.h"
#include "pipeline/store.h"
#include "support/model_shelf.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using salient::test::put_beginning;
using salient::test::put_demo;
using salient::test::TemporaryFolder;
using salient::test::write_text;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> labels_of(const ModelListing& listing) {
  std::vector<std::string> labels;
  for (const ListedModel& model : listing.models) labels.push_back(model.label);
  return labels;
}

std::map<std::string, std::string> left_out_of(const ModelListing& listing, const fs::path& root) {
  std::map<std::string, std::string> out;
  for (const LeftOut& entry : listing.left_out) out[entry.path.lexically_relative(root).generic_string()] = entry.reason;
  return out;
}

const ListedModel& find(const ModelListing& listing, const std::string& label) {
  for (const ListedModel& model : listing.models) {
    if (model.label == label) return model;
  }
  throw std::runtime_error("no model " + label);
}

TEST(BatchListing, FindsEveryKindAndSaysWhatEachIs) {
  const TemporaryFolder folder;
  const fs::path shelf = folder.path() / "Models";
  put_demo(shelf / "demo");
  export_model({shelf / "demo", shelf / "blocks" / "demo-Q8_0.gguf", ""}, "gguf-q8_0");
  export_model({shelf / "demo", shelf / "blocks" / "demo-F16.gguf", ""}, "gguf-f16");
  export_model({shelf / "demo", shelf / "one_gguf", ""}, "gguf-q4_0");
  export_model({shelf / "demo", shelf / "module", ""}, "torchscript");
  // What lies around in such folders, and is no model.
  fs::create_directories(shelf / "notes");
  write_text(shelf / "notes" / "README.md", "notes");
  put_demo(shelf / ".cache" / "demo2");
  fs::create_directory_symlink(shelf / "demo", shelf / "link");
  fs::create_directory_symlink(shelf, shelf / "notes" / "above");

  const ModelListing listing = list_models(folder.path() / "Models/");
  EXPECT_THAT(labels_of(listing), ElementsAre("blocks/demo-F16.gguf", "blocks/demo-Q8_0.gguf", "demo", "module", "one_gguf"));
  EXPECT_THAT(listing.left_out, testing::IsEmpty());

  const ListedModel& demo = find(listing, "demo");
  EXPECT_EQ(demo.kind, ModelKind::kCheckpoint);
  EXPECT_TRUE(demo.original);
  EXPECT_FALSE(demo.wants_base);
  EXPECT_EQ(demo.detected.format, "float");
  const ListedModel& floats = find(listing, "blocks/demo-F16.gguf");
  EXPECT_EQ(floats.name, "demo-F16");
  EXPECT_TRUE(floats.original);
  EXPECT_TRUE(floats.wants_base);
  const ListedModel& blocks = find(listing, "blocks/demo-Q8_0.gguf");
  EXPECT_EQ(blocks.kind, ModelKind::kGguf);
  EXPECT_FALSE(blocks.original);
  EXPECT_EQ(find(listing, "one_gguf").path, shelf / "one_gguf");  // the folder has the name
  EXPECT_EQ(find(listing, "module").kind, ModelKind::kTorchscript);
  EXPECT_EQ(find(listing, "module").detected.format, "torchscript");
}

TEST(BatchListing, LeavesOutWhatIsIncompleteWithTheReason) {
  const TemporaryFolder folder;
  const fs::path& root = folder.path();
  const fs::path demo = put_demo(root / "demo");
  put_demo(root / "no_tokenizer");
  fs::remove(root / "no_tokenizer" / "tokenizer.json");
  put_demo(root / "no_config");
  fs::remove(root / "no_config" / "config.json");
  put_demo(root / "no_weights");
  fs::remove(root / "no_weights" / "model.safetensors");
  put_demo(root / "cut");
  put_beginning(demo / "model.safetensors", root / "cut" / "model.safetensors", 100000);
  put_demo(root / "no_index");
  fs::rename(root / "no_index" / "model.safetensors", root / "no_index" / "model-00001-of-00002.safetensors");
  put_demo(root / "no_shard");
  fs::rename(root / "no_shard" / "model.safetensors", root / "no_shard" / "model-00001-of-00002.safetensors");
  write_text(root / "no_shard" / "model.safetensors.index.json",
             R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  put_demo(root / "artifact.partial");
  put_demo(root / "tmp-checkpoint-5");
  put_demo(root / "half_config");
  write_text(root / "half_config" / "config.json", "{\"model_type\": \"qw");
  fs::create_directories(root / "lora");
  write_text(root / "lora" / "adapter_config.json", "{}");
  write_text(root / "lora" / "adapter_model.safetensors", "x");
  fs::create_directories(root / "pickled");
  write_text(root / "pickled" / "config.json", "{\"model_type\": \"llama\"}");
  write_text(root / "pickled" / "pytorch_model.bin", "x");
  export_model({demo, root / "whole.gguf", ""}, "gguf-q8_0");
  put_beginning(root / "whole.gguf", root / "cut.gguf", 1000000);

  const ModelListing listing = list_models(root);
  EXPECT_THAT(labels_of(listing), ElementsAre("demo", "whole.gguf"));
  const auto left_out = left_out_of(listing, root);
  const std::map<std::string, std::string> expected = {{"no_tokenizer", "incomplete: no tokenizer.json"},
                                                       {"no_config", "incomplete: no config.json"},
                                                       {"no_weights", "incomplete: config.json without weights"},
                                                       {"cut", "incomplete: "},
                                                       {"no_index", "model.safetensors.index.json"},
                                                       {"no_shard", "model-00002-of-00002.safetensors"},
                                                       {"artifact.partial", "still being written"},
                                                       {"tmp-checkpoint-5", "still being written"},
                                                       {"half_config", "config.json"},
                                                       {"lora", "LoRA adapter"},
                                                       {"pickled", "safe_serialization=True"},
                                                       {"cut.gguf", "incomplete: "}};
  for (const auto& [name, reason] : expected) {
    ASSERT_TRUE(left_out.contains(name)) << name;
    EXPECT_THAT(left_out.at(name), HasSubstr(reason)) << name;
  }
  EXPECT_EQ(left_out.size(), expected.size());
}

// Answers are known by the model's files: those of one module must not be taken for another's.
TEST(BatchListing, ModulesInOneFolderAreModelsOfTheirOwn) {
  const TemporaryFolder folder;
  export_model({salient::test::kDemoModel, folder.path() / "both" / "one.pt", ""}, "torchscript");
  fs::copy_file(folder.path() / "both/one.pt", folder.path() / "both/other.pt");
  write_text(folder.path() / "both/optimizer.pt", "PK no module");
  fs::copy_file(salient::test::kDemoModel / "tokenizer.json", folder.path() / "both/tokenizer.json");
  EXPECT_THAT(labels_of(list_models(folder.path())), ElementsAre("both/one.pt", "both/other.pt"));
  Store store(folder.path() / "store.db");
  const std::string one = model_hash(store, folder.path() / "both/one.pt");
  EXPECT_NE(model_hash(store, folder.path() / "both/other.pt"), one);  // by its name
  write_text(folder.path() / "both/other.pt", "changed");
  EXPECT_EQ(model_hash(store, folder.path() / "both/one.pt"), one);
  write_text(folder.path() / "both/tokenizer.json", "{}");
  EXPECT_NE(model_hash(store, folder.path() / "both/one.pt"), one);
}

TEST(BatchListing, HuggingFaceCacheKeepsItsNames) {
  const TemporaryFolder folder;
  const fs::path blobs = put_demo(folder.path() / "models--org--Tiny-1B" / "blobs");
  const fs::path snapshot = folder.path() / "models--org--Tiny-1B" / "snapshots" / "0123456789abcdef";
  fs::create_directories(snapshot);
  for (const std::string& name : salient::test::kDemoFiles) {
    fs::rename(blobs / name, blobs / ("blob_of_" + name.substr(0, name.find('.'))));
    fs::create_symlink("../../blobs/blob_of_" + name.substr(0, name.find('.')), snapshot / name);
  }
  const ModelListing listing = list_models(folder.path());
  ASSERT_THAT(labels_of(listing), ElementsAre("org/Tiny-1B"));
  EXPECT_EQ(listing.models.front().name, "Tiny-1B");
}

TEST(BatchListing, WrongFoldersAreNamed) {
  const TemporaryFolder folder;
  salient::test::error_of([&] { list_models(folder.path() / "none"); }, ErrorKind::kNotFound);
  write_text(folder.path() / "file", "x");
  salient::test::error_of([&] { list_models(folder.path() / "file"); }, ErrorKind::kInvalidArgument);
}

TEST(BatchCompleteness, StampsSeeEveryChangeButThoseOfFigures) {
  const TemporaryFolder folder;
  const fs::path demo = put_demo(folder.path() / "demo");
  const FileStamps before = file_stamps(demo);
  EXPECT_EQ(before.size(), salient::test::kDemoFiles.size());
  EXPECT_EQ(file_stamps(demo), before);
  write_text(demo / "README.md", "figures");
  write_text(demo / "quantization_metadata.json", "{}");
  EXPECT_EQ(file_stamps(demo), before);
  EXPECT_LT(seconds_since_change(before), 60);
  EXPECT_GT(seconds_since_change(before), -1);

  // The same size and modification time, as a copy that keeps times leaves them: the inode's time tells.
  const auto modified = fs::last_write_time(demo / "config.json");
  std::string text = salient::test::file_bytes(demo / "config.json");
  text.back() = text.back() == '\n' ? ' ' : '\n';
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  write_text(demo / "config.json", text);
  fs::last_write_time(demo / "config.json", modified);
  EXPECT_NE(file_stamps(demo), before);
}

}  // namespace
}  // namespace salient::pipeline
