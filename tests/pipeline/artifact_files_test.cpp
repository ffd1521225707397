#include "pipeline/artifact_files.h"

#include <gtest/gtest.h>

#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

TEST(AwqConfig, SaysFloat16AndTheGemmLayout) {
  const Json config = awq_config({{"torch_dtype", "bfloat16"}, {"rope_theta", 5e5}}, {});
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["rope_theta"], 5e5);
  EXPECT_FALSE(config.contains("dtype"));
  EXPECT_EQ(config["quantization_config"], Json::parse(R"({"quant_method": "awq", "zero_point": true, "group_size": 128, "bits": 4,
                                                           "version": "gemm", "modules_to_not_convert": null})"));
}

// transformers 4 knows none of the new keys and would take theta 10000 silently.
TEST(AwqConfig, NewStyleRopeIsWrittenInOldStyleToo) {
  const Json plain = awq_config({{"dtype", "bfloat16"}, {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}, {});
  EXPECT_EQ(plain["dtype"], "float16");
  EXPECT_EQ(plain["torch_dtype"], "float16");
  EXPECT_EQ(plain["rope_theta"], 5e5);
  EXPECT_TRUE(plain["rope_scaling"].is_null());
  const Json llama3 = awq_config({{"rope_parameters", {{"rope_type", "llama3"}, {"rope_theta", 1e4}, {"factor", 8.0}}}}, {});
  EXPECT_EQ(llama3["rope_scaling"], (Json{{"rope_type", "llama3"}, {"factor", 8.0}}));
  const Json nested = awq_config({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}}}, {});
  EXPECT_FALSE(nested.contains("rope_theta"));
}

// The text model's keys are those that readers take for it; what is said of the vision part stays.
TEST(AwqConfig, NestedTextConfigsAreRewrittenInPlace) {
  const Json nested =
      awq_config({{"model_type", "qwen3_vl"},
                  {"text_config",
                   {{"dtype", "bfloat16"},
                    {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e6}, {"mrope_section", {24, 20, 20}}}}}},
                  {"vision_config", {{"dtype", "bfloat16"}, {"rope_parameters", {{"rope_theta", 1e4}}}}}},
                 {}, {"visual"});
  EXPECT_EQ(nested["torch_dtype"], "float16");
  EXPECT_FALSE(nested.contains("rope_theta"));
  const Json& text = nested["text_config"];
  EXPECT_EQ(text["dtype"], "float16");
  EXPECT_FALSE(text.contains("torch_dtype"));
  EXPECT_EQ(text["rope_theta"], 5e6);
  EXPECT_EQ(text["rope_scaling"], (Json{{"rope_type", "default"}, {"mrope_section", {24, 20, 20}}}));
  EXPECT_FALSE(text.contains("quantization_config"));
  EXPECT_EQ(nested["vision_config"], (Json{{"dtype", "bfloat16"}, {"rope_parameters", {{"rope_theta", 1e4}}}}));
  EXPECT_EQ(nested["quantization_config"]["modules_to_not_convert"], Json{"visual"});
}

TEST(SideFiles, WhatIsThereIsCopied) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "a/tokenizer.json", "{}");
  write_file(folder.path() / "a/chat_template.jinja", "x");
  write_file(folder.path() / "a/preprocessor_config.json", "{}");
  write_file(folder.path() / "a/optimizer.pt", "y");
  copy_side_files(folder.path() / "a", folder.path() / "b");
  EXPECT_EQ(read_text_file(folder.path() / "b/chat_template.jinja"), "x");
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "b/tokenizer.json"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "b/preprocessor_config.json"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "b/optimizer.pt"));
}

TEST(ArtifactConfig, AnyFormatAndAHeadOfItsOwn) {
  const Json quantization = {{"quant_method", "compressed-tensors"}};
  const Json config = artifact_config({{"model_type", "qwen3"}, {"dtype", "bfloat16"}, {"tie_word_embeddings", true}}, quantization,
                                      "bfloat16", true);
  EXPECT_EQ(config.at("dtype"), "bfloat16");
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("tie_word_embeddings"), false);
  EXPECT_EQ(config.at("quantization_config"), quantization);
  const Json plain = artifact_config({{"dtype", "float32"}, {"tie_word_embeddings", true}}, nullptr, "");
  EXPECT_EQ(plain, Json({{"dtype", "float32"}, {"tie_word_embeddings", true}}));
  const Json nested =
      artifact_config({{"model_type", "qwen3_vl"},
                       {"text_config", {{"model_type", "qwen3_vl_text"}, {"dtype", "bfloat16"}, {"tie_word_embeddings", true}}}},
                      quantization, "float16", true);
  EXPECT_EQ(nested.at("text_config").at("dtype"), "float16");
  EXPECT_EQ(nested.at("text_config").at("tie_word_embeddings"), false);
}

}  // namespace
}  // namespace salient::pipeline
