// Model cards: their header is YAML that says what it should, whatever the names are, and their parts follow from the metadata.
#include "pipeline/model_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "common/yaml.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Json layer(const std::string& name, double rtn, double error) {
  return {{"name", name},       {"rtn_error", rtn},
          {"error", error},     {"scale", "duo"},
          {"ratio", 0.5},       {"clipped_share", 0.1},
          {"bits", 4},          {"group_size", 128},
          {"in_features", 256}, {"warnings", {"the Gram matrix needed a damping of 0.1"}}};
}

Json metadata() {
  return {
      {"format", "awq-gemm"},
      {"method", "AWQ"},
      {"spec", {{"weight_bits", 4}}},
      {"search", {{"format", "awq-gemm"}, {"bits", 4}, {"group_size", 128}, {"zero_point", true}, {"rounding", "gram"}}},
      {"source",
       {{"name", "Qwen3-0.6B"}, {"base_model", "Qwen/Qwen3-0.6B"}, {"license", "apache-2.0"}, {"language", {"en", "no"}}}},
      {"calibration",
       {{"file", "rows_1.jsonl"}, {"coverage", {{"rows", 64}, {"domains", {{{"name", "math"}, {"rows", 64}, {"tokens", 4000}}}}}}}},
      {"calibration_tokens", 4321},
      {"seed", 7},
      {"layers",
       {layer("model.layers.0.mlp.down_proj", 2, 1), layer("model.layers.1.mlp.down_proj", 4, 1),
        layer("model.layers.0.self_attn.q_proj", 1, 1)}}};
}

// The part between the two lines of dashes.
Json header_of(const std::string& card) {
  EXPECT_TRUE(card.starts_with("---\n"));
  return ConfigNode::parse(card.substr(4, card.find("\n---\n") - 3), "card").to_json();
}

TEST(ModelCard, TheHeaderSaysWhereItComesFrom) {
  const Json header = header_of(model_card(metadata()));
  EXPECT_EQ(header.at("base_model"), "Qwen/Qwen3-0.6B");
  EXPECT_EQ(header.at("base_model_relation"), "quantized");
  EXPECT_EQ(header.at("library_name"), "transformers");
  EXPECT_EQ(header.at("license"), "apache-2.0");
  EXPECT_EQ(header.at("language"), Json({"en", "no"}));  // "no" is Norwegian, not false
  EXPECT_THAT(header.at("tags").get<std::vector<std::string>>(), ::testing::ElementsAre("salient", "awq", "quantized", "4-bit"));
}

TEST(ModelCard, PartsFollowFromTheMetadata) {
  const std::string card = model_card(metadata());
  EXPECT_THAT(card, AllOf(HasSubstr("| group size | 128 |"), HasSubstr("| rounding | gram |"), HasSubstr("| tokens | 4321 |"),
                          HasSubstr("| seed | 7 |"), HasSubstr("| math | 64 | 4000 |")));
  EXPECT_THAT(card, AllOf(HasSubstr("| down\\_proj | 2 | 0.38 |"), HasSubstr("| q\\_proj | 1 | 1 |")));  // (1/2 + 1/4) / 2
  EXPECT_THAT(card,
              AllOf(HasSubstr("AutoAWQForCausalLM"), HasSubstr("vllm serve"), HasSubstr("sglang"), Not(HasSubstr("llama.cpp"))));
  EXPECT_THAT(card, AllOf(HasSubstr("salient eval"), HasSubstr("damping of 0.1")));
  EXPECT_EQ(card, model_card(metadata()));

  Json measured = metadata();
  measured["evaluation"] = {{{"task", "perplexity"}, {"metric", "perplexity"}, {"value", 12.3456}, {"base", 12.25}}};
  EXPECT_THAT(model_card(measured),
              AllOf(HasSubstr("| perplexity | perplexity | 12.35 | 12.25 |"), Not(HasSubstr("Not measured"))));
  Json given = metadata();
  given["calibration"] = nullptr;
  EXPECT_THAT(model_card(given), HasSubstr("None: scales and clip ranges were given"));
}

TEST(ModelCard, EachFormatHasItsReaders) {
  const std::string gguf = model_card(metadata(), "gguf-q4_k_m");
  EXPECT_THAT(gguf, AllOf(HasSubstr("llama-cli"), Not(HasSubstr("vllm"))));
  EXPECT_FALSE(header_of(gguf).contains("library_name"));
  EXPECT_THAT(model_card(metadata(), "torchscript"), HasSubstr("torch.jit.load"));
  EXPECT_THAT(model_card(metadata(), "compressed-tensors"), HasSubstr("package compressed-tensors"));
  // Kernels of AutoAWQ that rearrange the GEMM layout when they load it.
  EXPECT_THAT(model_card(metadata(), "awq-gemm"), AllOf(HasSubstr("use_exllama_v2=True"), HasSubstr("use_ipex=True")));
  for (const char* other : {"awq-gemv", "awq-gemv-fast", "awq-marlin"})
    EXPECT_THAT(model_card(metadata(), other),
                AllOf(HasSubstr("AutoAWQForCausalLM"), Not(HasSubstr("exllama")), Not(HasSubstr("ipex")), Not(HasSubstr("vllm"))));
  Json smoothed = metadata();
  smoothed["format"] = smoothed["search"]["format"] = "gguf-f16";
  EXPECT_THAT(model_card(smoothed), AllOf(HasSubstr("smoothed for quantizers that follow"), HasSubstr("llama-quantize")));
  EXPECT_THAT(gguf, Not(HasSubstr("llama-quantize")));
  EXPECT_THAT(model_card(metadata(), "compressed-tensors"), AllOf(HasSubstr("vllm serve"), Not(HasSubstr("kv_cache_scheme"))));
  Json rounds = metadata();
  rounds["search"]["write_runtime_bits"] = true;
  EXPECT_THAT(model_card(rounds, "compressed-tensors"), AllOf(HasSubstr("kv_cache_scheme"), Not(HasSubstr("vllm serve"))));
  EXPECT_THAT(model_card(rounds, "awq-gemm"), Not(HasSubstr("kv_cache_scheme")));
  const std::string marlin = model_card(metadata(), "awq-marlin");
  EXPECT_THAT(marlin, AllOf(HasSubstr("AutoAWQForCausalLM"), Not(HasSubstr("vllm"))));
}

TEST(ModelCard, ZeroPointsInCompressedTensorsSayWhoLoadsThem) {
  Json zeros = metadata();
  zeros["search"]["zero_point"] = true;
  EXPECT_THAT(model_card(zeros, "compressed-tensors"), HasSubstr("CompressedTensorsConfig(dequantize=True)"));
  EXPECT_THAT(model_card(zeros, "awq-gemm"), Not(HasSubstr("dequantize=True")));
  zeros["search"]["zero_point"] = false;
  EXPECT_THAT(model_card(zeros, "compressed-tensors"), Not(HasSubstr("dequantize=True")));
}

// Errors of the codes that were are not those of the codes that are.
TEST(ModelCard, WhatIsRoundedAgainSaysSo) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "quantization_metadata.json", dump_json(metadata()));
  EXPECT_THAT(export_card(folder.path(), "gguf-q4_k_m"),
              AllOf(HasSubstr("| then rounded again to | gguf"), Not(HasSubstr("Error of the linears"))));
  for (const char* same : {"awq-gemv", "gguf-f16"})
    EXPECT_THAT(export_card(folder.path(), same), AllOf(Not(HasSubstr("rounded again")), HasSubstr("Error of the linears")))
        << same;
  write_file(folder.path() / "quantization_metadata.json", "[]");
  EXPECT_THAT(test::message_of([&] { export_card(folder.path(), "awq-gemv"); }, ErrorKind::kCorruption),
              HasSubstr("quantization_metadata.json"));
}

TEST(ModelCard, HostileNamesStayText) {
  Json hostile = metadata();
  const std::string name = "x\": [}\n---\nlicense: mit\n# <script>|`*";
  hostile["source"]["name"] = name;
  hostile["source"]["base_model"] = name;
  hostile["calibration"]["file"] = "a|b\n\n# head";
  const std::string card = model_card(hostile);
  const Json header = header_of(card);
  EXPECT_EQ(header.at("base_model"), name);
  EXPECT_EQ(header.at("license"), "apache-2.0");
  const std::string body = card.substr(card.find("\n---\n", 4));
  EXPECT_THAT(
      body, AllOf(Not(HasSubstr("<script>")), Not(HasSubstr("\n# head")), HasSubstr("a\\|b"), HasSubstr("\\<script\\>\\|\\`\\*")));
  // Only our own headings.
  size_t heads = 0;
  for (size_t at = card.find("\n# "); at != std::string::npos; at = card.find("\n# ", at + 1)) ++heads;
  EXPECT_EQ(heads, 1u);
}

TEST(DescribeSource, TakesTheLicenceFromTheSourcesOwnCard) {
  const test::TemporaryFolder folder;
  const fs::path model = folder.path() / "models--org--name" / "snapshots" / "abc";
  fs::create_directories(model);
  EXPECT_EQ(describe_source(model), (Json{{"name", "name"}, {"base_model", "org/name"}}));
  write_file(model / "README.md",
             "---\nlicense: other\nlicense_name: theirs\nlicense_link: https://example.org/x\ntags: [a]\nbase_model: "
             "org/parent\n---\n# Name\nlicense: mit\n");
  EXPECT_EQ(describe_source(model), (Json{{"name", "name"},
                                          {"base_model", "org/name"},
                                          {"license", "other"},
                                          {"license_name", "theirs"},
                                          {"license_link", "https://example.org/x"}}));
  write_file(model / "README.md", "---\nlicense: [unclosed\n---\n");
  EXPECT_FALSE(describe_source(model).contains("license"));
  write_file(model / "README.md", "no header\n");
  EXPECT_FALSE(describe_source(model).contains("license"));
  fs::create_directories(folder.path() / "plain");
  EXPECT_EQ(describe_source(folder.path() / "plain/"), Json({{"name", "plain"}}));
}

}  // namespace
}  // namespace salient::pipeline
