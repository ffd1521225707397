#include "models/io/checkpoint_writer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <map>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/io/gguf_writer.h"
#include "models/io/safetensors.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<NamedTensor> example() {
  return {{"model.embed_tokens.weight", at::arange(48, at::kFloat).to(at::kBFloat16).reshape({12, 4})},
          {"model.layers.0.mlp.down_proj.qweight", at::arange(64, at::kInt).reshape({8, 8})},
          {"model.layers.0.mlp.down_proj.scales", at::arange(7, at::kFloat).to(at::kHalf)},
          {"odd", at::arange(3, at::kByte)},
          {"empty", at::empty({0, 5}, at::kFloat)},
          {"lm_head.weight", at::arange(30, at::kDouble).reshape({5, 6})},
          {"scalar", at::scalar_tensor(7, at::kLong)}};
}

std::vector<PlannedTensor> planned(const std::vector<NamedTensor>& tensors) {
  std::vector<PlannedTensor> result;
  for (const auto& [name, tensor] : tensors) result.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  return result;
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename().string()] = read_text_file(entry.path());
  return files;
}

Error error_of(const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "");
}

// Runs `body` in a process that dies after it without any clean-up, as a killed one does.
void die_after(const std::function<void()>& body) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(42);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 42);
}

class Writer : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("salient_checkpoint_writer_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  std::map<std::string, std::string> undisturbed(const ShardPlan& plan) {
    const fs::path folder = root_ / "undisturbed";
    fs::remove_all(folder);
    CheckpointWriter writer(folder, plan);
    for (const auto& [name, tensor] : tensors_) writer.put(name, tensor);
    writer.finish();
    return contents(folder);
  }

  fs::path root_;
  const std::vector<NamedTensor> tensors_ = example();
  const ShardPlan one_ = plan_shards(planned(tensors_), 1 << 20);
  const ShardPlan three_ = plan_shards(planned(tensors_), 260);
};

TEST(PlanShards, OneShard) {
  const ShardPlan plan = plan_shards({{"a", at::kHalf, {4}}, {"b", at::kFloat, {2}}}, 16);
  ASSERT_EQ(plan.shards.size(), 1u);
  EXPECT_EQ(plan.shards[0].file, "model.safetensors");
  EXPECT_EQ(plan.total_bytes, 16u);
}

TEST(PlanShards, KeepsTheOrderAndFillsUpToTheLimit) {
  const ShardPlan plan =
      plan_shards({{"z", at::kByte, {6}}, {"y", at::kByte, {4}}, {"x", at::kByte, {1}}, {"w", at::kByte, {9}}}, 10);
  std::vector<std::string> layout;
  for (const auto& shard : plan.shards) {
    layout.push_back(shard.file + ":");
    for (const auto& tensor : shard.tensors) layout.back() += tensor.name;
  }
  EXPECT_THAT(layout, ElementsAre("model-00001-of-00002.safetensors:zy", "model-00002-of-00002.safetensors:xw"));
  EXPECT_EQ(plan.total_bytes, 20u);
}

TEST(PlanShards, ALargerTensorHasAShardOfItsOwn) {
  const ShardPlan plan = plan_shards(
      {{"a", at::kByte, {3}}, {"big", at::kByte, {100}}, {"b", at::kByte, {3}}, {"c", at::kByte, {3}}, {"big2", at::kByte, {11}}},
      10);
  ASSERT_EQ(plan.shards.size(), 4u);
  EXPECT_EQ(plan.shards[1].tensors.size(), 1u);
  EXPECT_EQ(plan.shards[1].tensors[0].name, "big");
  EXPECT_EQ(plan.shards[2].tensors.size(), 2u);
  EXPECT_EQ(plan.shards[3].file, "model-00004-of-00004.safetensors");
  EXPECT_EQ(plan_shards({{"big", at::kByte, {100}}}, 10).shards.size(), 1u);
}

TEST(PlanShards, Errors) {
  EXPECT_EQ(error_of([] { plan_shards({}, 10); }).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(error_of([] { plan_shards({{"a", at::kByte, {1}}}, 0); }).kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error_of([] { plan_shards({{"a", at::kByte, {1}}, {"a", at::kByte, {1}}}, 10); }).message(), HasSubstr("'a'"));
  EXPECT_THAT(error_of([] { plan_shards({{"a", at::kByte, {-1}}}, 10); }).message(), HasSubstr("[-1]"));
  EXPECT_THAT(error_of([] {
                plan_shards({{"a", at::kLong, {int64_t{1} << 40, int64_t{1} << 40}}}, 10);
              }).message(),
              HasSubstr("'a'"));
}

// The example of the header file, byte by byte as the format's document says.
TEST(SafetensorsHeader, ExactBytes) {
  const std::vector<PlannedTensor> tensors = {{"a", at::kHalf, {2}}};
  const std::string json = R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})";
  EXPECT_EQ(make_safetensors_header(tensors, {}), std::string("\x38\0\0\0\0\0\0\0", 8) + json + std::string(56 - json.size(), ' '));
}

TEST(SafetensorsHeader, EscapesAndRefusesNames) {
  const std::vector<PlannedTensor> tensors = {{"q\"\\\n\xc3\xa9", at::kByte, {1}}};
  EXPECT_THAT(make_safetensors_header(tensors, {{"format", "pt"}}),
              HasSubstr("{\"__metadata__\":{\"format\":\"pt\"},\"q\\\"\\\\\\n\xc3\xa9\":"));
  for (const char* name : {"", "__metadata__", "\xff"}) {
    const std::vector<PlannedTensor> bad = {{name, at::kByte, {1}}};
    EXPECT_EQ(error_of([&] { make_safetensors_header(bad, {}); }).kind(), ErrorKind::kInvalidArgument) << name;
  }
  const std::vector<PlannedTensor> twice = {{"a", at::kByte, {1}}, {"a", at::kByte, {1}}};
  EXPECT_THAT(error_of([&] { make_safetensors_header(twice, {}); }).message(), HasSubstr("twice"));
}

TEST_F(Writer, ReadsBackAsWritten) {
  for (const ShardPlan* plan : {&one_, &three_}) {
    const auto files = undisturbed(*plan);
    EXPECT_EQ(files.size(), plan->shards.size() == 1 ? 1u : plan->shards.size() + 1);
    size_t found = 0;
    for (const auto& shard : plan->shards) {
      const SafetensorsFile file(root_ / "undisturbed" / shard.file);
      EXPECT_EQ(file.metadata().at("format"), "pt");
      uint64_t begin = file.tensors().begin()->second.begin;
      for (const auto& [name, info] : file.tensors()) begin = std::min(begin, info.begin);
      EXPECT_EQ(begin % 64, 0u);
      for (const auto& [name, tensor] : tensors_) {
        if (!file.tensors().contains(name)) continue;
        EXPECT_TRUE(at::equal(file.view(name), tensor)) << name;
        ++found;
      }
    }
    EXPECT_EQ(found, tensors_.size());
  }
}

TEST_F(Writer, Index) {
  ASSERT_GE(three_.shards.size(), 3u);
  const auto files = undisturbed(three_);
  const Json index = parse_json(files.at("model.safetensors.index.json"), "index");
  EXPECT_EQ(index.at("metadata").at("total_size").get<uint64_t>(), three_.total_bytes);
  EXPECT_EQ(index.at("weight_map").size(), tensors_.size());
  for (const auto& shard : three_.shards) {
    for (const auto& tensor : shard.tensors) EXPECT_EQ(index.at("weight_map").at(tensor.name), shard.file);
  }
}

TEST_F(Writer, OrderAndStridesOfPutsDoNotMatter) {
  const fs::path folder = root_ / "other";
  CheckpointWriter writer(folder, three_);
  for (auto it = tensors_.rbegin(); it != tensors_.rend(); ++it) {
    writer.put(it->name, it->tensor.dim() == 2 ? it->tensor.t().contiguous().t() : it->tensor);
  }
  writer.finish();
  EXPECT_EQ(contents(folder), undisturbed(three_));
}

// One GGUF file goes the same way as safetensors shards: in any order, in parts, resumed; it is what GgufWriter writes from front
// to back.
TEST_F(Writer, GgufFileEqualsGgufWritersAlsoWhenResumed) {
  const std::vector<GgufPair> metadata = {{"general.architecture", GgufValue(std::string("llama"))}};
  const std::vector<GgufTensor> tensors = {{"token_embd.weight", quant::GgmlType::kQ8_0, {3, 64}, 0},
                                           {"norm.weight", quant::GgmlType::kF32, {5}, 0},
                                           {"experts.weight", quant::GgmlType::kQ4_0, {2, 3, 32}, 0},
                                           {"half.weight", quant::GgmlType::kBF16, {3, 3}, 0}};
  const std::vector<at::Tensor> data = {at::arange(3 * 68).to(at::kByte).view({3, 68}), at::rand({5}),
                                        at::arange(2 * 3 * 18).to(at::kByte).view({2, 3, 18}), at::rand({3, 3}).to(at::kBFloat16)};
  GgufWriter front_to_back(root_ / "expected.gguf", metadata, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) front_to_back.append(tensors[i].name, data[i]);
  front_to_back.finish();
  GgufHeader header;
  header.metadata = metadata;
  header.tensors = tensors;
  const ShardPlan plan = plan_gguf_shard("model-Q8_0.gguf", header);
  EXPECT_EQ(plan.total_bytes, 204u + 20u + 108u + 18u);
  const fs::path folder = root_ / "gguf";
  {
    CheckpointWriter writer(folder, plan);
    EXPECT_FALSE(writer.taken_over("norm.weight"));
    writer.put_part("experts.weight", 1, data[2][1]);
    writer.put("half.weight", data[3]);
    writer.sync();
    EXPECT_THAT(error_of([&] { writer.finish(); }).message(), HasSubstr("norm.weight"));
  }
  EXPECT_EQ(contents(folder).count("model-Q8_0.gguf"), 0u);
  {
    CheckpointWriter writer(folder, plan);
    EXPECT_TRUE(writer.taken_over("norm.weight"));
    EXPECT_EQ(error_of([&] { writer.put("token_embd.weight", at::rand({3, 64})); }).kind(), ErrorKind::kInvalidArgument);
    writer.put("norm.weight", data[1]);
    writer.put("token_embd.weight", data[0]);
    writer.put_part("experts.weight", 0, data[2][0]);
    writer.finish();
  }
  EXPECT_EQ(contents(folder).at("model-Q8_0.gguf"), read_text_file(root_ / "expected.gguf"));
  EXPECT_THAT(error_of([&] { CheckpointWriter(folder, one_); }).message(), HasSubstr("model-Q8_0.gguf"));
}

// Stopped after every put, with and without a clean destructor; the next writer puts only the rest.
TEST_F(Writer, ResumedEqualsUndisturbed) {
  for (const ShardPlan* plan : {&one_, &three_}) {
    const auto expected = undisturbed(*plan);
    for (size_t done = 0; done <= tensors_.size(); ++done) {
      for (const bool killed : {false, true}) {
        const fs::path folder = root_ / fmt::format("resumed-{}-{}-{}", plan->shards.size(), done, killed);
        const auto first = [&] {
          auto* writer = new CheckpointWriter(folder, *plan);
          for (size_t i = 0; i < done; ++i) writer->put(tensors_[i].name, tensors_[i].tensor);
          if (!killed) delete writer;
        };
        if (killed) {
          die_after(first);
        } else {
          first();
        }
        for (const auto& [name, text] : contents(folder)) EXPECT_EQ(name.front(), '.') << name << " stands under its final name";

        CheckpointWriter second(folder, *plan);
        for (size_t i = done; i < tensors_.size(); ++i) {
          EXPECT_TRUE(second.taken_over(tensors_[i].name));
          second.put(tensors_[i].name, tensors_[i].tensor);
        }
        second.finish();
        EXPECT_EQ(contents(folder), expected) << "stopped after " << done;
      }
    }
  }
}

// A finish() that died: the first `renamed` shards have their names already, with or without the index.
TEST_F(Writer, ResumedInTheMiddleOfFinish) {
  const auto expected = undisturbed(three_);
  for (size_t renamed = 0; renamed <= three_.shards.size(); ++renamed) {
    for (const bool put_again : {false, true}) {
      const fs::path folder = root_ / fmt::format("finish-{}-{}", renamed, put_again);
      {
        CheckpointWriter writer(folder, three_);
        for (const auto& [name, tensor] : tensors_) writer.put(name, tensor);
        writer.sync();
      }
      for (size_t i = 0; i < renamed; ++i) {
        fs::rename(folder / fmt::format(".{}.partial", three_.shards[i].file), folder / three_.shards[i].file);
      }
      CheckpointWriter writer(folder, three_);
      for (const auto& [name, tensor] : tensors_) {
        EXPECT_TRUE(writer.taken_over(name));
        if (put_again) writer.put(name, tensor);
      }
      writer.finish();
      EXPECT_EQ(contents(folder), expected) << renamed;
    }
  }
}

// The writer is killed by the file size limit's signal in the middle of one write of data.
TEST_F(Writer, KilledWithinAPut) {
  const std::vector<NamedTensor> tensors = {{"a", at::arange(1 << 16, at::kInt)}, {"b", at::arange(1 << 16, at::kInt) + 5}};
  const ShardPlan plan = plan_shards(planned(tensors), 1 << 30);
  const fs::path folder = root_ / "killed";
  die_after([&] {
    CheckpointWriter writer(folder, plan);
    writer.put("a", tensors[0].tensor);
    writer.sync();
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{(1 << 18) + 50'000, RLIM_INFINITY};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    try {
      writer.put("b", tensors[1].tensor);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kIo) ::_exit(42);
    }
    ::_exit(3);
  });
  CheckpointWriter writer(folder, plan);
  writer.put("b", tensors[1].tensor);
  writer.finish();
  const SafetensorsFile file(folder / "model.safetensors");
  EXPECT_TRUE(at::equal(file.view("a"), tensors[0].tensor));
  EXPECT_TRUE(at::equal(file.view("b"), tensors[1].tensor));
}

TEST_F(Writer, BrokenPartialFilesAreMadeAnew) {
  const auto expected = undisturbed(one_);
  const fs::path folder = root_ / "broken";
  const fs::path partial = folder / ".model.safetensors.partial";
  const std::string good = expected.at("model.safetensors");
  std::string other_header = good;
  other_header[20] ^= 1;
  for (const std::string& text : {std::string(), good.substr(0, good.size() - 1), good + "x", other_header}) {
    fs::remove_all(folder);
    write_file(partial, text);
    CheckpointWriter writer(folder, one_);
    EXPECT_FALSE(writer.taken_over("odd"));
    for (const auto& [name, tensor] : tensors_) writer.put(name, tensor);
    writer.finish();
    EXPECT_EQ(contents(folder), expected);
  }
}

TEST_F(Writer, PartialFilesOfAnotherPlanAreRemoved) {
  const fs::path folder = root_ / "replanned";
  { CheckpointWriter writer(folder, three_); }
  write_file(folder / ".config.json.77.partial", "not ours");
  CheckpointWriter writer(folder, one_);
  std::vector<std::string> names;
  for (const auto& [name, text] : contents(folder)) names.push_back(name);
  EXPECT_THAT(names, ElementsAre(".config.json.77.partial", ".model.safetensors.partial"));
}

TEST_F(Writer, RefusesAFolderWithAnotherCheckpoint) {
  for (const char* name : {"model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"}) {
    const fs::path folder = root_ / "taken";
    fs::remove_all(folder);
    write_file(folder / name, "precious");
    const Error error = error_of([&] { CheckpointWriter writer(folder, one_); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr((folder / name).string()));
    EXPECT_THAT(contents(folder), ElementsAre(std::pair<const std::string, std::string>(name, "precious")));
  }
}

TEST_F(Writer, OneWriterAtATime) {
  CheckpointWriter first(root_ / "shared", one_);
  EXPECT_THAT(error_of([&] { CheckpointWriter second(root_ / "shared", one_); }).message(), HasSubstr("another process"));
}

// For whoever works in the folder before there is a plan.
TEST_F(Writer, TheFolderCanBeLockedBeforeTheWriterIsThere) {
  const fs::path folder = root_ / "early";
  const FolderLock lock = lock_checkpoint_folder(folder);
  EXPECT_TRUE(fs::is_empty(folder));
  const Error error = error_of([&] { CheckpointWriter other(folder, one_); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), AllOf(HasSubstr(folder.string()), HasSubstr("another process")));
  EXPECT_THAT(error.hint(), HasSubstr("wait for it"));
  EXPECT_TRUE(fs::is_empty(folder));
  CheckpointWriter writer(lock, one_);
  EXPECT_FALSE(fs::is_empty(folder));
  EXPECT_THAT(error_of([&] { lock_checkpoint_folder(folder); }).message(), HasSubstr("another process"));
}

TEST_F(Writer, PutChecksWhatWasPlanned) {
  CheckpointWriter writer(root_ / "checked", one_);
  EXPECT_THAT(error_of([&] { writer.put("other", at::zeros({1})); }).message(), HasSubstr("'other'"));
  EXPECT_THAT(error_of([&] { writer.taken_over("other"); }).message(), HasSubstr("'other'"));
  const Error shape = error_of([&] { writer.put("odd", at::zeros({4}, at::kByte)); });
  EXPECT_EQ(shape.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(shape.message(), AllOf(HasSubstr("'odd'"), HasSubstr("[4]"), HasSubstr("[3]")));
  EXPECT_THAT(error_of([&] { writer.put("odd", at::zeros({3}, at::kChar)); }).message(),
              AllOf(HasSubstr("Char"), HasSubstr("Byte")));
  EXPECT_EQ(error_of([&] { writer.put("odd", at::Tensor()); }).kind(), ErrorKind::kInvalidArgument);
}

// Parts in any order, strided or not, give the bytes of the whole; the others of the shard are untouched.
TEST_F(Writer, PartsGiveTheSameBytesAsTheWhole) {
  const std::vector<NamedTensor> tensors = {{"before", at::arange(5, at::kFloat)},
                                            {"experts", at::arange(4 * 3 * 6, at::kHalf).reshape({4, 3, 6})},
                                            {"biases", at::arange(12, at::kFloat).reshape({4, 3})},
                                            {"after", at::arange(7, at::kByte)}};
  for (const uint64_t limit : {uint64_t{1} << 20, uint64_t{150}}) {
    const ShardPlan plan = plan_shards(planned(tensors), limit);
    const fs::path whole = root_ / fmt::format("whole-{}", limit);
    const fs::path parts = root_ / fmt::format("parts-{}", limit);
    {
      CheckpointWriter writer(whole, plan);
      for (const auto& [name, tensor] : tensors) writer.put(name, tensor);
      writer.finish();
    }
    CheckpointWriter writer(parts, plan);
    writer.put("before", tensors[0].tensor);
    writer.put("after", tensors[3].tensor);
    for (const int64_t index : {2, 0, 3, 1}) {
      const at::Tensor part = tensors[1].tensor[index];
      writer.put_part("experts", index, index % 2 == 0 ? part : part.t().contiguous().t());
      writer.put_part("biases", 3 - index, tensors[2].tensor[3 - index]);
    }
    writer.put_part("experts", 2, tensors[1].tensor[2]);  // again
    writer.finish();
    EXPECT_EQ(contents(parts), contents(whole));
  }
}

TEST_F(Writer, ChecksumsTellWhatChanged) {
  const std::vector<NamedTensor> tensors = {{"whole", at::arange(5, at::kFloat)},
                                            {"parts", at::arange(24, at::kShort).reshape({4, 6})},
                                            {"empty", at::empty({0, 5}, at::kFloat)},
                                            {"last", at::arange(7, at::kByte)}};
  const ShardPlan plan = plan_shards(planned(tensors), 1 << 20);
  CheckpointWriter writer(root_ / "folder", plan);
  for (const size_t i : {0, 2, 3}) writer.put(tensors[i].name, tensors[i].tensor);
  for (const int64_t index : {3, 1, 0, 2}) writer.put_part("parts", index, tensors[1].tensor[index]);
  auto checksums = writer.take_checksums();
  EXPECT_EQ(checksums.size(), 7u);
  EXPECT_TRUE(writer.take_checksums().empty());
  EXPECT_EQ(writer.find_changed(checksums), "");

  const fs::path partial = root_ / "folder/.model.safetensors.partial";
  const std::string bytes = read_text_file(partial);
  const uint64_t data = plan.shards[0].offsets[0];
  const std::map<std::string, uint64_t> places = {{"whole", 19}, {"parts#0", 20}, {"parts#2", 44}, {"last", 20 + 48 + 6}};
  for (const auto& [key, place] : places) {
    std::fstream file(partial, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(data + place)).put(static_cast<char>(bytes[data + place] ^ 1)).flush();
    EXPECT_EQ(writer.find_changed(checksums), key);
    file.seekp(static_cast<std::streamoff>(data + place)).put(bytes[data + place]).flush();
  }
  EXPECT_EQ(writer.find_changed(checksums), "");
  EXPECT_EQ(writer.find_changed({{"another", checksums.at("whole")}}), "another");
  EXPECT_EQ(writer.find_changed({{"parts#4", checksums.at("parts#3")}}), "parts#4");
}

TEST_F(Writer, PartsAreChecked) {
  const ShardPlan plan = plan_shards({{"experts", at::kFloat, {3, 2, 4}}, {"scalar", at::kFloat, {}}}, 1 << 20);
  CheckpointWriter writer(root_ / "parts", plan);
  const at::Tensor part = at::zeros({2, 4});
  for (const int64_t index : {-1, 3}) {
    const Error error = error_of([&] { writer.put_part("experts", index, part); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(),
                AllOf(HasSubstr("'experts'"), HasSubstr("[3, 2, 4]"), HasSubstr(fmt::format("no part {}", index))));
  }
  EXPECT_THAT(error_of([&] { writer.put_part("scalar", 0, at::zeros({})); }).message(), HasSubstr("'scalar'"));
  EXPECT_THAT(error_of([&] { writer.put_part("other", 0, part); }).message(), HasSubstr("'other'"));
  const Error shape = error_of([&] { writer.put_part("experts", 0, at::zeros({4, 2})); });
  EXPECT_THAT(shape.message(), AllOf(HasSubstr("[4, 2]"), HasSubstr("[2, 4]")));
  EXPECT_THAT(error_of([&] { writer.put_part("experts", 0, at::zeros({3, 2, 4})); }).message(), HasSubstr("[3, 2, 4]"));
  EXPECT_THAT(error_of([&] { writer.put_part("experts", 0, part.to(at::kHalf)); }).message(),
              AllOf(HasSubstr("Half"), HasSubstr("Float")));
}

// The same part many times is not the whole.
TEST_F(Writer, FinishRefusesMissingParts) {
  const ShardPlan plan = plan_shards({{"experts", at::kFloat, {3, 2}}}, 1 << 20);
  CheckpointWriter writer(root_ / "parts", plan);
  for (int i = 0; i < 3; ++i) writer.put_part("experts", 1, at::ones({2}));
  writer.put_part("experts", 2, at::ones({2}));
  EXPECT_THAT(error_of([&] { writer.finish(); }).message(), HasSubstr("experts"));
  writer.put_part("experts", 0, at::ones({2}));
  writer.finish();
  const SafetensorsFile file(root_ / "parts" / "model.safetensors");
  EXPECT_TRUE(at::equal(file.view("experts"), at::ones({3, 2})));
}

// Killed after some parts: the next writer puts the tensor anew.
TEST_F(Writer, PartsAreTakenOver) {
  const at::Tensor tensor = at::arange(24, at::kFloat).reshape({4, 6});
  const ShardPlan plan = plan_shards({{"experts", at::kFloat, {4, 6}}, {"other", at::kFloat, {2}}}, 1 << 20);
  const fs::path folder = root_ / "killed-parts";
  die_after([&] {
    auto* writer = new CheckpointWriter(folder, plan);
    writer->put("other", at::ones({2}));
    writer->put_part("experts", 0, at::full({6}, 7.0f));  // of an interrupted block: will be put again
    writer->put_part("experts", 3, tensor[3]);
  });
  CheckpointWriter writer(folder, plan);
  EXPECT_TRUE(writer.taken_over("experts"));
  for (int64_t index = 0; index < 4; ++index) writer.put_part("experts", index, tensor[index]);
  writer.finish();
  const SafetensorsFile file(folder / "model.safetensors");
  EXPECT_TRUE(at::equal(file.view("experts"), tensor));
  EXPECT_TRUE(at::equal(file.view("other"), at::ones({2})));
}

TEST_F(Writer, FinishRefusesMissingTensors) {
  const fs::path folder = root_ / "missing";
  CheckpointWriter writer(folder, one_);
  for (const auto& [name, tensor] : tensors_) {
    if (name != "odd") writer.put(name, tensor);
  }
  const Error error = error_of([&] { writer.finish(); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("odd"));
  EXPECT_FALSE(fs::exists(folder / "model.safetensors"));
  writer.put("odd", tensors_[3].tensor);
  writer.finish();
  EXPECT_EQ(contents(folder), undisturbed(one_));
  EXPECT_EQ(error_of([&] { writer.finish(); }).kind(), ErrorKind::kInternal);
  EXPECT_EQ(error_of([&] { writer.put("odd", tensors_[3].tensor); }).kind(), ErrorKind::kInternal);
}

TEST_F(Writer, FullDiskShowsAtOnce) {
  const ShardPlan plan = plan_shards({{"small", at::kByte, {10}}, {"huge", at::kByte, {int64_t{1} << 50}}}, 1000);
  const fs::path folder = root_ / "full";
  const Error error = error_of([&] { CheckpointWriter writer(folder, plan); });
  EXPECT_EQ(error.kind(), ErrorKind::kIo);
  EXPECT_EQ(error.code(), "DISK_FULL");
  EXPECT_THAT(error.message(), HasSubstr("reserve 1.0 PiB"));
  EXPECT_TRUE(fs::is_empty(folder)) << "nothing is reserved";
}

}  // namespace
}  // namespace salient::models
