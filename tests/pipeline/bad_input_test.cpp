// Broken models, data and configs, and a file system that refuses: one clear error with the names in it, the exit code of its kind, and
// nothing at the place where the result would have been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int kInvalidArgument = 2;
constexpr int kNotFound = 3;
constexpr int kCorruption = 4;
constexpr int kUnsupported = 5;
constexpr int kIo = 6;

// Everything that all errors have in common, and the texts that this one must hold.
void expect_error(const ProgramResult& result, int exit_code, const std::vector<std::string>& texts) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.signal, 0) << result.err;
  for (const std::string& text : texts) EXPECT_THAT(result.err, HasSubstr(text));
  const std::string begin = "salient: ";
  const bool at_start = result.err.starts_with(begin);
  const size_t message = at_start ? 0 : result.err.find("\n" + begin);
  EXPECT_NE(message, std::string::npos) << "no message: " << result.err;
  EXPECT_EQ(result.err.find("\n" + begin, at_start ? 0 : message + 1), std::string::npos) << "more than one message: " << result.err;
  for (const char* internal : {"terminate called", "what():", "Exception raised from", "frame #", "c10::", "std::", "nlohmann"}) {
    EXPECT_THAT(result.err, Not(HasSubstr(internal)));
  }
}

// The demo model without its data, to be broken.
class BrokenModel {
 public:
  BrokenModel() {
    fs::create_directories(path());
    for (const auto& entry : fs::directory_iterator(kDemoModel)) {
      if (entry.is_regular_file()) fs::copy_file(entry.path(), path() / entry.path().filename());
    }
    write_calibration(folder_.path());
  }

  const fs::path& folder() const { return folder_.path(); }
  fs::path path() const { return folder_.path() / "model"; }
  fs::path output() const { return folder_.path() / "out"; }

  std::string read(const std::string& name) const { return file_bytes(path() / name); }
  void write(const std::string& name, const std::string& bytes) const { write_text(path() / name, bytes); }
  // Exactly one place must hold `before`.
  void replace(const std::string& name, const std::string& before, const std::string& after) const {
    std::string text = read(name);
    const size_t at = text.find(before);
    ASSERT_NE(at, std::string::npos) << before;
    ASSERT_EQ(text.find(before, at + 1), std::string::npos) << before;
    write(name, text.replace(at, before.size(), after));
  }

  // Changes the header of model.safetensors; the data stay as they are.
  void edit_header(const std::function<void(Json& header)>& edit) const {
    const std::string bytes = read("model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    Json header = parse_json(bytes.substr(8, length), "header");
    edit(header);
    std::string text = dump_json(header);
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t new_length = text.size();
    write("model.safetensors", std::string(reinterpret_cast<const char*>(&new_length), 8) + text + bytes.substr(8 + length));
  }

  // Overwrites one bfloat16 of a tensor.
  void set_value(const std::string& tensor, uint64_t index, uint16_t value) const {
    std::string bytes = read("model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const Json header = parse_json(bytes.substr(8, length), "header");
    const uint64_t begin = header.at(tensor).at("data_offsets").at(0).get<uint64_t>();
    std::memcpy(bytes.data() + 8 + length + begin + 2 * index, &value, sizeof(value));
    write("model.safetensors", bytes);
  }

  ProgramResult quantize(std::vector<std::string> more = {}) const {
    std::vector<std::string> words = {"quantize", "--model", "model", "--calib", "calibration.jsonl", "--out", "out", "--n-grid", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words, folder());
  }

  void expect_quantize_error(int exit_code, const std::vector<std::string>& texts, const std::vector<std::string>& more = {}) const {
    expect_error(quantize(more), exit_code, texts);
    EXPECT_FALSE(fs::exists(output())) << "something is at the place of the result";
  }

 private:
  TemporaryFolder folder_;
};

TEST(BadModel, TheCopyItselfIsGood) {
  const BrokenModel model;
  const ProgramResult result = model.quantize();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(model.output() / "model.safetensors"));
}

TEST(BadModel, TruncatedWeights) {
  const BrokenModel model;
  const std::string bytes = model.read("model.safetensors");
  model.write("model.safetensors", bytes.substr(0, bytes.size() - 1000));
  model.expect_quantize_error(kCorruption, {"model/model.safetensors", "truncated"});
  EXPECT_FALSE(fs::exists(model.output().string() + ".partial"));
  expect_error(run_program({"inspect", "model"}, model.folder()), kCorruption, {"model/model.safetensors", "truncated"});
  expect_error(run_program({"logits", "--model", "model", "--ids", "1", "--out", "x.npy"}, model.folder()), kCorruption, {"truncated"});
  EXPECT_FALSE(fs::exists(model.folder() / "x.npy"));
  for (const size_t size : {0, 5, 100}) {
    model.write("model.safetensors", bytes.substr(0, size));
    model.expect_quantize_error(kCorruption, {"model/model.safetensors"});
  }
}

TEST(BadModel, OverlappingTensors) {
  const BrokenModel model;
  model.edit_header([](Json& header) {
    Json& offsets = header["model.layers.1.self_attn.v_proj.weight"]["data_offsets"];
    offsets = {offsets[0].get<int64_t>() - 512, offsets[1].get<int64_t>() - 512};
  });
  model.expect_quantize_error(kCorruption, {"model/model.safetensors", "overlap", "model.layers.1.self_attn.v_proj.weight"});
}

TEST(BadModel, WrongShape) {
  const BrokenModel model;
  model.edit_header([](Json& header) { header["model.layers.1.mlp.gate_proj.weight"]["shape"] = {256, 768}; });
  model.expect_quantize_error(kCorruption, {"model.layers.1.mlp.gate_proj.weight", "[256, 768]", "[768, 256]"});
}

TEST(BadModel, MissingTensor) {
  const BrokenModel model;
  model.edit_header([](Json& header) {
    header["model.layers.1.mlp.other.weight"] = header["model.layers.1.mlp.gate_proj.weight"];
    header.erase("model.layers.1.mlp.gate_proj.weight");
  });
  model.expect_quantize_error(kNotFound, {"model.layers.1.mlp.gate_proj.weight"});
}

TEST(BadModel, MissingShardOfAnIndex) {
  const BrokenModel model;
  fs::rename(model.path() / "model.safetensors", model.path() / "model-00001-of-00002.safetensors");
  model.write("model.safetensors.index.json",
              R"({"metadata": {"total_size": 1}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors",)"
              R"( "model.norm.weight": "model-00002-of-00002.safetensors"}})");
  model.expect_quantize_error(kNotFound, {"model-00002-of-00002.safetensors"});
}

TEST(BadModel, NoWeightsNoConfigNoTokenizer) {
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json"}) {
    const BrokenModel model;
    fs::remove(model.path() / name);
    model.expect_quantize_error(kNotFound, {name});
  }
}

TEST(BadModel, NanOrInfinityIsNamed) {
  for (const uint16_t value : {uint16_t{0x7fc0}, uint16_t{0xff80}}) {  // NaN, -Inf
    const BrokenModel model;
    model.set_value("model.layers.2.mlp.up_proj.weight", 1234, value);
    model.expect_quantize_error(kCorruption, {"model.layers.2.mlp.up_proj.weight", value == 0x7fc0 ? "nan" : "-inf"});
  }
  const BrokenModel model;
  model.set_value("model.embed_tokens.weight", 77, 0x7fc0);
  model.expect_quantize_error(kCorruption, {"model.embed_tokens.weight", "nan"});
}

// An evaluation says all that it can, keeps it, and then fails.
TEST(BadModel, NanLogitsAreReportedBeforeTheEvaluationFails) {
  const BrokenModel model;
  for (uint64_t i = 0; i < 16; ++i) model.set_value("model.norm.weight", i, 0x7f7f);  // the largest bfloat16: products overflow
  const std::string data = (kDemoModel / "data").string();
  std::vector<std::string> words = {"eval", "model", "--compare-with", kDemoModel.string(), "--tasks", "arc,perplexity", "--data",
                                    "arc=" + data + "/arc_test.jsonl", "--data", "perplexity=" + data + "/heldout.txt", "--window", "64",
                                    "--limit", "2", "--no-throughput", "--store", "eval.db"};
  const ProgramResult printed = run_program(words, model.folder());
  expect_error(printed, 7, {"BROKEN_MODEL", "model has no scores for arc, perplexity"});
  EXPECT_THAT(printed.out, HasSubstr("model against demo: broken, NaN or infinite logits and no figures: arc, perplexity"));
  EXPECT_THAT(printed.out, HasSubstr("! arc: nan_logits: "));

  words.emplace_back("--json");
  const ProgramResult result = run_program(words, model.folder());
  EXPECT_EQ(result.exit_code, 7);
  const Json evaluation = parse_json(result.out, "eval --json");
  for (const Json& task : evaluation.at("model").at("tasks")) {
    EXPECT_TRUE(task.at("metrics").empty()) << "absent, not 0";
    EXPECT_EQ(task.at("flags").at(0).at("kind"), "nan_logits");
  }
  EXPECT_EQ(evaluation.at("base").at("tasks").at(0).at("metrics").at(0).at("n"), 2);
  const Json stored = parse_json(run_program({"results", "--store", "eval.db", "--json"}, model.folder()).out, "results --json");
  std::map<std::string, int> metrics;
  for (const Json& row : stored) ++metrics[row.at("metric").get<std::string>()];
  EXPECT_EQ(metrics["flag_nan_logits"], 2);
  EXPECT_EQ(metrics["acc"], 1) << "of the base";
}

TEST(BadModel, GroupSizeThatDoesNotDivide) {
  const BrokenModel model;
  model.expect_quantize_error(kInvalidArgument, {"self_attn.q_proj", "96", "256", "64, 128"}, {"--group-size", "96"});
  model.expect_quantize_error(kInvalidArgument, {"--group-size", "found '0'", "8 or more, or -1"}, {"--group-size", "0"});
}

TEST(BadModel, UnknownArchitecture) {
  const BrokenModel model;
  model.replace("config.json", "\"model_type\": \"qwen3\"", "\"model_type\": \"mamba\"");
  model.expect_quantize_error(kUnsupported, {"mamba", "state-space", "Nearest of those that are", "salient architectures"});
}

// Another architecture's config.json: what it says of heads must fit that architecture.
TEST(BadModel, HeadsThatDoNotFitTheArchitecture) {
  const BrokenModel model;
  model.replace("config.json", "\"model_type\": \"qwen3\"", "\"model_type\": \"gpt_neox\"");
  model.expect_quantize_error(kCorruption, {"config.json", "num_key_value_heads"});
}

TEST(BadModel, QuantizedAlready) {
  const BrokenModel model;
  ASSERT_EQ(model.quantize().exit_code, 0);
  expect_error(run_program({"quantize", "--model", "out", "--calib", "calibration.jsonl", "--out", "twice"}, model.folder()), kUnsupported,
               {"quantized already"});
  EXPECT_FALSE(fs::exists(model.folder() / "twice"));
}

TEST(BadModel, OutputFolderThatExistsIsLeftAlone) {
  const BrokenModel model;
  fs::create_directories(model.output());
  write_text(model.output() / "precious.txt", "mine");
  expect_error(model.quantize(), kInvalidArgument, {"out", "exists", "--out"});
  EXPECT_EQ(names_of(folder_bytes(model.output())), std::vector<std::string>{"precious.txt"});
  EXPECT_EQ(file_bytes(model.output() / "precious.txt"), "mine");
}

TEST(BadModel, MalformedJsonFiles) {
  for (const char* name : {"config.json", "tokenizer.json"}) {
    const BrokenModel model;
    model.write(name, model.read(name).substr(0, 100));
    model.expect_quantize_error(kCorruption, {std::string("model/") + name});
  }
  const BrokenModel unigram;
  unigram.replace("tokenizer.json", "\"type\": \"BPE\"", "\"type\": \"Unigram\"");
  unigram.expect_quantize_error(kUnsupported, {"Unigram", "tokenizer.json"});
  const BrokenModel size;
  size.replace("config.json", "\"hidden_size\": 256", "\"hidden_size\": \"wide\"");
  size.expect_quantize_error(kCorruption, {"config.json", "hidden_size"});
}

TEST(BadModel, MalformedChatTemplate) {
  const BrokenModel model;
  const std::string data = (kDemoModel / "data/openmath_train.jsonl").string();
  write_text(model.folder() / "messages.json", R"([{"role": "user", "content": "hi"}])");
  const std::vector<std::string> render = {"render", "--model", "model", "--messages", "messages.json"};
  const std::vector<std::string> calibrate = {"calibrate", "--model", "model", "--data", data, "--out", "calib"};

  model.write("chat_template.jinja", "{{- bos_token }}\n{%- for message in messages %}\n{{ message.content }}\n");
  for (const auto& words : {render, calibrate}) {
    expect_error(run_program(words, model.folder()), kCorruption, {"chat_template.jinja", "for"});
  }
  model.write("chat_template.jinja", "{{ messages[0].content }}\n{{ raise_exception('system turn needed') }}");
  expect_error(run_program(render, model.folder()), kInvalidArgument, {"system turn needed", "chat_template.jinja:2"});
  model.write("chat_template.jinja", "a\n{% import 'x' as y %}");
  expect_error(run_program(render, model.folder()), kUnsupported, {"import", "chat_template.jinja:2"});
  EXPECT_FALSE(fs::exists(model.folder() / "calib") && !fs::is_empty(model.folder() / "calib"));
}

TEST(BadModel, NameThatIsNotInTheCache) {
  const TemporaryFolder folder;
  const std::map<std::string, std::string> cache = {{"HF_HUB_CACHE", (folder.path() / "cache").string()}};
  fs::create_directories(folder.path() / "cache/models--acme--tiny-model");
  write_calibration(folder.path());
  const ProgramResult result =
      run_program({"quantize", "--model", "acme/tiny-modell", "--calib", "calibration.jsonl", "--out", "out"}, folder.path(), cache);
  expect_error(result, kNotFound, {"acme/tiny-modell", (folder.path() / "cache").string(), "acme/tiny-model", "hf download acme/tiny-modell"});
  EXPECT_FALSE(fs::exists(folder.path() / "out"));
  expect_error(run_program({"inspect", "nowhere"}, folder.path(), cache), kNotFound, {"nowhere"});
}

TEST(BadData, BrokenLinesAreCountedAndNumbered) {
  const TemporaryFolder folder;
  std::ifstream in(kDemoModel / "data/openmath_train.jsonl");
  std::string text;
  std::string line;
  for (int number = 1; number <= 40; ++number) {
    std::getline(in, line);
    text += number == 4 ? "{\"question\": \"cut\n" : number == 17 ? "no JSON at all\n" : line + "\n";
  }
  write_text(folder.path() / "train.jsonl", text);
  const std::vector<std::string> words = {"calibrate", "--model", kDemoModel.string(), "--data", "train.jsonl", "--out", "calib", "--dataset", "d"};
  expect_error(run_program(words, folder.path()), kCorruption, {"train.jsonl", "2 of 40 lines", "line 4", "line 17", "DATA_LINES_BROKEN"});
  EXPECT_FALSE(fs::exists(folder.path() / "calib") && !fs::is_empty(folder.path() / "calib"));

  std::vector<std::string> allowed = words;
  allowed.push_back("--allow-broken");
  const ProgramResult result = run_program(allowed, folder.path());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(folder.path() / "calib/calibration_d_38samples.jsonl"));
  EXPECT_THAT(result.err, HasSubstr("2"));
}

TEST(BadData, EmptyMissingOrTooShort) {
  const TemporaryFolder folder;
  const auto calibrate = [&](const std::string& file) {
    return run_program({"calibrate", "--model", kDemoModel.string(), "--data", file, "--out", "calib"}, folder.path());
  };
  const auto quantize = [&](const std::string& file) {
    return run_program({"quantize", "--model", kDemoModel.string(), "--calib", file, "--out", "out"}, folder.path());
  };
  write_text(folder.path() / "empty.jsonl", "");
  write_text(folder.path() / "blank.txt", "\n\n\n");
  write_text(folder.path() / "short.jsonl", "{\"text\": \"one two three\"}\n");
  write_text(folder.path() / "pairs.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n");
  for (const char* file : {"empty.jsonl", "blank.txt"}) {
    expect_error(calibrate(file), kInvalidArgument, {file, "DATA_EMPTY"});
    expect_error(quantize(file), kInvalidArgument, {file, "DATA_EMPTY"});
  }
  expect_error(quantize("short.jsonl"), kInvalidArgument, {"CALIBRATION_TOO_SHORT", "512"});
  expect_error(calibrate("pairs.jsonl"), kInvalidArgument, {"pairs.jsonl", "CALIBRATION_TOO_SHORT", "512"});
  expect_error(calibrate("absent.jsonl"), kNotFound, {"absent.jsonl"});
  expect_error(quantize("absent.jsonl"), kNotFound, {"absent.jsonl"});
  EXPECT_FALSE(fs::exists(folder.path() / "out"));
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
  EXPECT_FALSE(fs::exists(folder.path() / "calib") && !fs::is_empty(folder.path() / "calib"));
}

TEST(BadData, EvaluationDataThatAreNotThoseOfTheTask) {
  const TemporaryFolder folder;
  const auto evaluate = [&](const std::string& task, const std::string& file) {
    return run_program({"eval", kDemoModel.string(), "--no-store", "--no-throughput", "--limit", "3", "--tasks", task, "--data", task + "=" + file},
                       folder.path());
  };
  expect_error(evaluate("arc", "absent.jsonl"), kNotFound, {"absent.jsonl"});
  write_text(folder.path() / "empty.jsonl", "");
  expect_error(evaluate("arc", "empty.jsonl"), kInvalidArgument, {"empty.jsonl"});
  const std::string squad = (kDemoModel / "data/squad_test.jsonl").string();
  const ProgramResult wrong = evaluate("arc", squad);
  expect_error(wrong, kCorruption, {"squad_test.jsonl", "choices"});
}

struct BadConfig {
  std::string text;  // MODEL stands for the demo model
  int exit_code;
  std::vector<std::string> texts;
};

TEST(BadConfig, SaysFileLineAndNearestKey) {
  const std::vector<BadConfig> configs = {
      {"model: {path: MODEL}\n\nquantisation: {bits: 4}\n", kInvalidArgument, {"bad.yaml:3:1", "'quantisation'", "did you mean 'quantization'"}},
      {"model: {path: MODEL}\nquantization:\n  bits: 4\n  group_sise: 64\n", kInvalidArgument, {"bad.yaml:4:3", "group_sise", "did you mean 'group_size'"}},
      {"model: {path: MODEL}\nquantization: {bits: four}\n", kInvalidArgument, {"bad.yaml:2:", "bits", "four"}},
      {"model: {path: MODEL}\nquantization: {method: gtpq}\n", kInvalidArgument, {"bad.yaml:2:", "gtpq", "'gptq'"}},
      {"model: {path: MODEL\n", kCorruption, {"bad.yaml"}},
      {"quantization: {bits: 4}\n", kInvalidArgument, {"model.path", "missing"}},
      {"model: {path: nowhere/at-all}\n", kNotFound, {"nowhere/at-all", "hf download"}},
      {"model: {path: MODEL}\ndataset: {train_file: absent.jsonl}\n", kNotFound, {"absent.jsonl"}},
      {"model: {path: MODEL}\nevaluation:\n  tasks:\n    - {name: acr, file: x}\n", kInvalidArgument, {"bad.yaml:4:", "acr", "arc"}},
      {"model: {path: MODEL}\nevaluation:\n  tasks: [arc]\n", kInvalidArgument, {"bad.yaml:3:", "arc", "no data file"}},
      {"model: {path: MODEL}\nquantization: {group_size: 96}\n", kInvalidArgument, {"self_attn.q_proj", "96", "64, 128"}},
      // What the AutoAWQ format cannot hold must not be promised by a name.
      {"model: {path: MODEL}\ncalibration: {samples: 12}\nquantization: {bits: 3, n_grid: 2}\n", kUnsupported, {"3", "4"}},
      {"model: {path: MODEL}\ncalibration: {samples: 12}\nquantization: {lm_head: int8, n_grid: 2}\n", kUnsupported, {"int8", "fp16"}},
  };
  for (const BadConfig& config : configs) {
    SCOPED_TRACE(config.text);
    const TemporaryFolder folder;
    std::string text = config.text;
    if (const size_t at = text.find("MODEL"); at != std::string::npos) text.replace(at, 5, kDemoModel.string());
    write_text(folder.path() / "bad.yaml", text);
    const ProgramResult result = run_program({"run", "bad.yaml"}, folder.path(), {{"HF_HUB_CACHE", (folder.path() / "cache").string()}});
    expect_error(result, config.exit_code, config.texts);
    if (!fs::exists(folder.path() / "artifacts")) continue;
    for (const auto& entry : fs::directory_iterator(folder.path() / "artifacts")) {
      EXPECT_EQ(entry.path().filename(), "calibration") << "left behind by a run that failed";
    }
  }
}

TEST(BadConfig, FailedRunIsRecordedWithItsError) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const ProgramResult result = run_program({"run", "run.yaml", "--set", "quantization.group_size=96"}, folder.path());
  expect_error(result, kInvalidArgument, {"stage quantize"});
  const Json runs = parse_json(run_program({"runs", "--json"}, folder.path()).out, "runs --json");
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].at("status"), "failed");
  EXPECT_THAT(runs[0].at("error").get<std::string>(), HasSubstr("96"));
}

// A loss bound that is missed: everything is kept, the exit code says so; and only then.
TEST(BadConfig, MissedRetentionBoundIsACheckThatFailed) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const std::vector<std::string> strict = {"run", "run.yaml", "--set", "evaluation.max_retention_loss=0", "--set", "quantization.zero_point=false"};
  const ProgramResult result = run_program(strict, folder.path());
  std::map<std::string, double> accuracy;
  const ProgramResult listing = run_program({"results", "--task", "arc", "--metric", "acc", "--json"}, folder.path());
  for (const Json& row : parse_json(listing.out, "results")) accuracy[row.at("compared_with")] = row.at("value").get<double>();
  ASSERT_EQ(accuracy.size(), 2U);  // of the base under "", of the artifact under the base's name
  if (accuracy.at("Qwen3-Demo") < accuracy.at("")) {
    expect_error(result, 7, {"ACCURACY_DEGRADATION", "arc acc", "max_retention_loss"});
  } else {
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
  std::vector<std::string> lenient = strict;
  lenient[3] = "evaluation.max_retention_loss=0.9";
  const ProgramResult again = run_program(lenient, folder.path());
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("stage quantize: up to date"));
}

TEST(BadFileSystem, StoreThatIsNoDatabase) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "runs");
  write_text(folder.path() / "runs/salient.db", std::string(8192, 'x'));
  expect_error(run_program({"runs"}, folder.path()), kCorruption, {"runs/salient.db", "STORE_CORRUPT"});
  EXPECT_EQ(file_bytes(folder.path() / "runs/salient.db"), std::string(8192, 'x'));
}

// A file system of `size`, mounted for the life of the object; not there without the right to mount.
class SmallDisk {
 public:
  SmallDisk(const fs::path& path, const std::string& options) : path_(path) {
    fs::create_directories(path);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, options.c_str()) == 0;
    if (!mounted_) reason_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }
  void remount_read_only() const { EXPECT_EQ(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0); }

 private:
  fs::path path_;
  bool mounted_ = false;
  std::string reason_;
};

TEST(BadFileSystem, DiskTooSmallIsToldBeforeTheWork) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=2m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  write_calibration(folder.path());
  const ProgramResult result =
      run_program({"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl", "--out", "disk/out"}, folder.path());
  expect_error(result, kIo, {"DISK_FULL", "disk/out", "need", "2.0 MiB"});
  EXPECT_TRUE(fs::is_empty(folder.path() / "disk"));
}

// Something else fills the disk while the job is at work: the work is kept and goes on when there is room.
TEST(BadFileSystem, DiskThatFillsUpLosesNothing) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=24m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  write_calibration(folder.path());
  const std::vector<std::string> words = {"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl", "--n-grid", "4", "--max-shard-size",
                                          "500KB", "--out", "disk/out"};
  const fs::path progress = folder.path() / "disk/out.partial/progress.json";
  const fs::path ballast = folder.path() / "disk/ballast";
  bool filled = false;
  ProgramCall call{words, folder.path(), {}, [&](const std::string&) {
                     if (filled || file_bytes(progress).find("\"blocks_done\":1") == std::string::npos) return false;
                     std::ofstream out(ballast, std::ios::binary);
                     const std::string block(4096, 'x');
                     while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
                     }
                     filled = true;
                     return false;
                   }};
  const ProgramResult result = run_program(call);
  ASSERT_TRUE(filled) << result.err;
  expect_error(result, kIo, {"DISK_FULL", "disk/out.partial"});
  EXPECT_FALSE(fs::exists(folder.path() / "disk/out"));

  fs::remove(ballast);
  const ProgramResult resumed = run_program(words, folder.path());
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("going on at block"));
  std::vector<std::string> elsewhere = words;
  elsewhere.back() = "whole";
  ASSERT_EQ(run_program(elsewhere, folder.path()).exit_code, 0);
  EXPECT_TRUE(folder_bytes(folder.path() / "disk/out") == folder_bytes(folder.path() / "whole"));
}

TEST(BadFileSystem, ReadOnlyOutput) {
  const TemporaryFolder folder;
  const SmallDisk disk(folder.path() / "disk", "size=32m");
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a tmpfs here: " << disk.reason();
  disk.remount_read_only();
  write_calibration(folder.path());
  expect_error(run_program({"quantize", "--model", kDemoModel.string(), "--calib", "calibration.jsonl", "--out", "disk/out"}, folder.path()), kIo,
               {"disk/out", "Read-only file system"});
  expect_error(run_program({"calibrate", "--model", kDemoModel.string(), "--data", (kDemoModel / "data/openmath_train.jsonl").string(), "--samples",
                            "12", "--out", "disk/calib"},
                           folder.path()),
               kIo, {"disk/calib", "Read-only file system"});
  expect_error(run_program({"logits", "--model", kDemoModel.string(), "--ids", "1", "--out", "disk/x.npy"}, folder.path()), kIo, {"disk/", "x.npy", "Read-only file system"});
}

TEST(BadFileSystem, OutputBelowAFile) {
  const BrokenModel model;
  write_text(model.folder() / "file", "x");
  expect_error(run_program({"quantize", "--model", "model", "--calib", "calibration.jsonl", "--out", "file/out"}, model.folder()), kIo, {"file/out"});
}

}  // namespace
}  // namespace salient::test
