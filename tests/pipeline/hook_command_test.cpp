// `salient hook post-train` and other commands on a LoRA adapter of the demo model, which PEFT trained and saved
// (scripts/goldens/lora_adapters.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>

#include "common/file.h"
#include "common/json.h"
#include "models/io/adapter.h"
#include "models/io/checkpoint.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kArtifact = "Qwen3-Demo-openmath_SFT_LoRA_AWQ_w4_g64_headfp16_quantized";

// {path: size, time of the last change in ns} of a folder and everything in it.
std::map<std::string, std::pair<int64_t, int64_t>> times_of(const fs::path& folder) {
  std::map<std::string, std::pair<int64_t, int64_t>> times;
  const auto add = [&](const fs::path& path) {
    struct stat found {};
    ASSERT_EQ(::stat(path.c_str(), &found), 0);
    times[path.string()] = {found.st_size, int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec};
  };
  add(folder);
  for (const auto& entry : fs::recursive_directory_iterator(folder)) add(entry.path());
  return times;
}

class Hook : public ::testing::Test {
 protected:
  Hook() { make(outputs_); }

  Json metadata() const {
    const std::string data = test::kDemoModel.string() + "/data";
    return {{"base_model", "Qwen3-Demo"},
            {"dataset",
             {{"name", "openmath"},
              {"train_file", "openmath_train.jsonl"},
              {"question_field", "question"},
              {"answer_field", "answer"}}},
            {"training", {{"method", "SFT"}, {"max_seq_len", 256}}},
            {"quantization", {{"method", "AWQ"}, {"weights_bits", 4}, {"group_size", 64}, {"n_grid", 4}}},
            {"calibration", {{"samples", 12}}},
            {"evaluation",
             {{"tasks", {{{"name", "perplexity"}, {"file", data + "/heldout.txt"}, {"limit", 2}}}}, {"throughput", false}}}};
  }
  // <outputs>/lora: the adapter, its training set and its metadata. Its base is named from there.
  void make(const fs::path& outputs) const {
    const fs::path lora = outputs / "lora";
    fs::create_directories(lora);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      fs::copy_file(fs::path(SALIENT_SOURCE_DIR) / "tests/data/adapters/demo" / file, lora / file);
    Json config = read_json_file(lora / "adapter_config.json");
    config["base_model_name_or_path"] = test::kDemoModel.string();
    write_file(lora / "adapter_config.json", dump_json(config));
    fs::copy_file(test::kDemoModel / "data/openmath_train.jsonl", lora / "openmath_train.jsonl");
    write_file(lora / "training_metadata.json", dump_json(metadata()));
  }
  test::ProgramResult run(std::vector<std::string> words) const { return test::run_program(std::move(words), folder_.path()); }
  test::ProgramResult hook(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"hook", "post-train", (outputs_ / "lora").string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  }

  test::TemporaryFolder folder_;
  fs::path outputs_ = folder_.path() / "outputs";
};

TEST_F(Hook, QuantizesAnAdapterBesideIt) {
  const auto bytes = test::folder_bytes(outputs_ / "lora");
  for (const auto& entry : fs::directory_iterator(outputs_ / "lora")) fs::permissions(entry, fs::perms::owner_read);
  fs::permissions(outputs_ / "lora", fs::perms::owner_read | fs::perms::owner_exec);
  const auto times = times_of(outputs_ / "lora");

  const test::ProgramResult first = hook({"--json"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(test::folder_bytes(outputs_ / "lora"), bytes);
  EXPECT_EQ(times_of(outputs_ / "lora"), times);
  const Json result = parse_json(first.out, "stdout");
  EXPECT_EQ(result.at("artifact"), (outputs_ / kArtifact).string());
  EXPECT_EQ(result.at("stages_run"), 4);
  const Json metadata = read_json_file(outputs_ / kArtifact / "quantization_metadata.json");
  EXPECT_EQ(metadata.at("source").at("adapter").at("peft"), "LoRA");
  EXPECT_EQ(metadata.at("source").at("adapter").at("rank"), 4);
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json", "model.safetensors", "config.json"})
    EXPECT_TRUE(metadata.at("source_sha256").contains(file)) << file;
  EXPECT_EQ(test::file_bytes(outputs_ / kArtifact / "tokenizer.json"), test::file_bytes(test::kDemoModel / "tokenizer.json"));
  EXPECT_EQ(test::file_bytes(outputs_ / kArtifact / "training_metadata.json"), bytes.at("training_metadata.json"));
  EXPECT_FALSE(fs::exists(outputs_ / kArtifact / "adapter_config.json"));  // readers would take it for an adapter

  const test::ProgramResult again = hook({"--json"});
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(parse_json(again.out, "stdout").at("stages_run"), 0);
  EXPECT_EQ(times_of(outputs_ / "lora"), times);
  fs::permissions(outputs_ / "lora", fs::perms::owner_all);
}

TEST_F(Hook, AChangedAdapterOrBaseIsAnotherModel) {
  ASSERT_EQ(hook().exit_code, 0);
  const auto quantize_runs = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"--dry-run", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const test::ProgramResult result = hook(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Json stages = parse_json(result.out, "stdout").at("stages");
    return stages.at(1).at("stage") == "quantize" && stages.at(1).at("runs").get<bool>();
  };
  EXPECT_FALSE(quantize_runs({}));
  const fs::path base = folder_.path() / "base";
  fs::copy(test::kDemoModel, base, fs::copy_options::recursive);
  EXPECT_FALSE(quantize_runs({"--adapter-base", base.string()}));  // the same base elsewhere
  EXPECT_FALSE(quantize_runs({"--set", "model.base=" + base.string()}));
  Json config = read_json_file(base / "config.json");
  config["rope_theta"] = 20000.0;
  write_file(base / "config.json", dump_json(config));
  EXPECT_TRUE(quantize_runs({"--adapter-base", base.string()}));
  EXPECT_TRUE(quantize_runs({"--set", "model.base=" + base.string()}));
  config = read_json_file(outputs_ / "lora/adapter_config.json");
  config["lora_alpha"] = 16;
  write_file(outputs_ / "lora/adapter_config.json", dump_json(config));
  EXPECT_TRUE(quantize_runs({}));
}

TEST_F(Hook, KilledItGoesOnAndMakesTheSameBytes) {
  const fs::path undisturbed = folder_.path() / "undisturbed";
  make(undisturbed);
  ASSERT_EQ(run({"hook", "post-train", (undisturbed / "lora").string()}).exit_code, 0);
  int killed = 0;
  for (int i = 1; i <= 4; ++i) {
    test::ProgramCall call{{"hook", "post-train", (outputs_ / "lora").string()},
                           folder_.path(),
                           {},
                           test::after(std::chrono::milliseconds(700 * i)),
                           std::chrono::seconds(300)};
    killed += test::run_program(call).killed;
  }
  EXPECT_GT(killed, 0);
  const test::ProgramResult last = hook();
  ASSERT_EQ(last.exit_code, 0) << last.err;
  auto expected = test::folder_bytes(undisturbed / kArtifact);
  auto found = test::folder_bytes(outputs_ / kArtifact);
  EXPECT_EQ(test::names_of(found), test::names_of(expected));
  EXPECT_EQ(found, expected);
}

TEST_F(Hook, DryRunsMakeNothing) {
  const auto before = test::folder_bytes(folder_.path());
  const test::ProgramResult result = hook({"--dry-run"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr(kArtifact), HasSubstr("calibrate"), HasSubstr("evaluate")));
  EXPECT_EQ(test::folder_bytes(folder_.path()), before);
}

TEST_F(Hook, ExitCodesAreClear) {
  const auto with = [&](const Json& changed) { write_file(outputs_ / "lora/training_metadata.json", dump_json(changed)); };
  Json changed = metadata();
  changed.erase("quantization");
  with(changed);
  test::ProgramResult result = hook();
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("training_metadata.json: key 'quantization' is missing"), HasSubstr("--set quantization.bits=4")));

  changed = metadata();
  changed["quantization"]["extras"] = {{"ptq_planned", false}};
  with(changed);
  result = hook();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("plans no quantization"));
  EXPECT_EQ(parse_json(hook({"--json"}).out, "stdout"), Json({{"planned", false}}));

  changed = metadata();
  changed["dataset"].erase("train_file");
  with(changed);
  result = hook();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, AllOf(HasSubstr("no training set is named"), HasSubstr("dataset.train_file")));

  changed = metadata();
  changed["training"]["chat_template"] = "ours.jinja";
  with(changed);
  result = hook();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, AllOf(HasSubstr("ours.jinja"), HasSubstr("calibration.chat_template")));

  with(metadata());
  write_file(outputs_ / "lora/adapter_model.safetensors", "broken");
  EXPECT_EQ(hook().exit_code, 4);
  EXPECT_EQ(run({"hook", "post-train", "nowhere"}).exit_code, 3);
  EXPECT_EQ(run({"hook"}).exit_code, 2);
  EXPECT_EQ(run({"hook", "pre-train", "x"}).exit_code, 2);
  EXPECT_EQ(run({"hook", "post-train"}).exit_code, 2);
}

TEST_F(Hook, TheTrainingsTemplateRendersTheCalibration) {
  write_file(outputs_ / "lora/ours.jinja", "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}");
  Json changed = metadata();
  changed["training"]["chat_template"] = "ours.jinja";
  changed.erase("evaluation");
  write_file(outputs_ / "lora/training_metadata.json", dump_json(changed));
  const test::ProgramResult result = hook({"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::string texts = test::file_bytes(parse_json(result.out, "stdout").at("calibration").get<std::string>());
  EXPECT_THAT(texts, HasSubstr("<user>"));
  EXPECT_THAT(texts, ::testing::Not(HasSubstr("<|im_start|>")));
}

TEST_F(Hook, OtherCommandsReadTheAdapterAsItsMergedModel) {
  const std::string lora = (outputs_ / "lora").string();
  const test::ProgramResult inspected = run({"inspect", lora});
  EXPECT_THAT(inspected.out, AllOf(HasSubstr("format      float"), HasSubstr("LoRA adapter of rank 4 and alpha 8")));

  const test::ProgramResult exported = run({"export", "--model", lora, "--format", "float", "--out", "merged"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  const models::Checkpoint merged(folder_.path() / "merged");
  const models::Checkpoint adapter(lora);
  ASSERT_EQ(merged.names(), adapter.names());
  for (const std::string& name : merged.names()) EXPECT_TRUE(merged.view(name).equal(adapter.view(name))) << name;

  const auto perplexity = [&](const std::string& model) -> double {
    const test::ProgramResult result =
        run({"eval", model, "--tasks", "perplexity", "--data", "perplexity=" + test::kDemoModel.string() + "/data/heldout.txt",
             "--limit", "2", "--no-throughput", "--no-store", "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Json json = parse_json(result.out, "eval --json");
    const Json& evaluation = json.is_array() ? json.at(0) : json;
    for (const Json& metric : evaluation.at("model").at("tasks").at(0).at("metrics")) {
      if (metric.at("metric") == "perplexity") return metric.at("value").get<double>();
    }
    ADD_FAILURE() << result.out;
    return 0.0;
  };
  // The folder has the weights in the base's bfloat16, the adapter is merged in float32.
  const double of_adapter = perplexity(lora);
  const double of_base = perplexity(test::kDemoModel.string());
  EXPECT_GT(std::abs(of_adapter - of_base), 1e-3 * of_base);
  EXPECT_LT(std::abs(of_adapter - perplexity("merged")), 0.1 * std::abs(of_adapter - of_base));

  const test::ProgramResult generated = run({"generate", lora, "--prompt", "Uma works as a", "--max-new-tokens", "4", "--json"});
  EXPECT_EQ(generated.exit_code, 0) << generated.err;
  const test::ProgramResult gguf = run({"export", "--model", lora, "--format", "gguf-q8_0", "--out", "lora.gguf"});
  EXPECT_EQ(gguf.exit_code, 0) << gguf.err;
  const test::ProgramResult wrong =
      run({"run", test::write_demo_config(folder_.path()).string(), "--set", "model.base=" + lora, "--dry-run"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("is not a LoRA adapter"));
}

}  // namespace
}  // namespace salient::pipeline
