// Broken models: one clear error with the names in it, the exit code of its kind, and nothing at the place where the result would
// have been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json.h"
#include "support/broken_model.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

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
  expect_error(run_program({"logits", "--model", "model", "--ids", "1", "--out", "x.npy"}, model.folder()), kCorruption,
               {"truncated"});
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
  std::vector<std::string> words = {"eval",
                                    "model",
                                    "--compare-with",
                                    kDemoModel.string(),
                                    "--tasks",
                                    "arc,perplexity",
                                    "--data",
                                    "arc=" + data + "/arc_test.jsonl",
                                    "--data",
                                    "perplexity=" + data + "/heldout.txt",
                                    "--window",
                                    "64",
                                    "--limit",
                                    "2",
                                    "--no-throughput",
                                    "--store",
                                    "eval.db"};
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
  expect_error(run_program({"quantize", "--model", "out", "--calib", "calibration.jsonl", "--out", "twice"}, model.folder()),
               kUnsupported, {"quantized already"});
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
  const ProgramResult result = run_program(
      {"quantize", "--model", "acme/tiny-modell", "--calib", "calibration.jsonl", "--out", "out"}, folder.path(), cache);
  expect_error(result, kNotFound,
               {"acme/tiny-modell", (folder.path() / "cache").string(), "acme/tiny-model", "hf download acme/tiny-modell"});
  EXPECT_FALSE(fs::exists(folder.path() / "out"));
  expect_error(run_program({"inspect", "nowhere"}, folder.path(), cache), kNotFound, {"nowhere"});
}

}  // namespace
}  // namespace salient::test
