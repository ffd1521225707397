// Tensors as llama.cpp's converter writes them (scripts/goldens/gguf_export.py): names, shapes and the bytes of their values.
#include "models/gguf/gguf_tensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/hash.h"
#include "models/decoder/block_layout.h"
#include "models/gguf/gguf_graphs.h"
#include "support/golden_checkpoint.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

Json goldens() { return read_json_file(std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/gguf_export/converted.json"); }

Json golden_case(const std::string& model_type, const std::string& name) {
  const Json file = read_json_file(test::golden_file(model_type));
  for (const Json& golden : file.at("cases")) {
    if (golden.at("name") == name) return golden;
  }
  ADD_FAILURE() << model_type << " " << name;
  return {};
}

std::map<std::string, at::Tensor> checkpoint_of(const Json& golden) {
  std::map<std::string, at::Tensor> tensors;
  for (const Json& t : golden.at("tensors"))
    tensors[t.at(0)] =
        test::golden_tensor(t.at(0), t.at(1).get<std::vector<int64_t>>(), t.at(2).get<double>(), t.at(3).get<double>());
  return tensors;
}

std::string sha256_of(const at::Tensor& values) {
  const at::Tensor bytes = values.contiguous();
  return sha256_hex(std::string_view(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes())).substr(0, 16);
}

at::Tensor whole(const GgufTensorPlan& plan, const std::map<std::string, at::Tensor>& checkpoint) {
  std::vector<at::Tensor> parts;
  for (const std::string& source : plan.sources) parts.push_back(to_gguf(plan, checkpoint.at(source)));
  return at::cat(parts).to(at::kFloat);
}

DecoderConfig config_of(Json config) { return parse_decoder_config(config, "test"); }

TEST(GgufTensorsTest, TensorsAreThoseOfLlamaCppsConverter) {
  const Json cases = goldens();
  ASSERT_GE(cases.size(), 15U);
  for (const Json& golden : cases) {
    const auto model_type = golden.at("model_type").get<std::string>();
    const auto name = golden.at("case").get<std::string>();
    SCOPED_TRACE(model_type + " " + name);
    const Json source = golden_case(model_type, name);
    const auto checkpoint = checkpoint_of(source);
    const GgufPlan plan = plan_gguf_tensors(config_of(source.at("config")));
    EXPECT_EQ(plan.architecture, golden.at("metadata").at("general.architecture").at(1).get<std::string>());
    std::vector<std::string> expected_names, names;
    for (const auto& [tensor, entry] : golden.at("tensors").items()) expected_names.push_back(tensor);
    for (const GgufTensorPlan& tensor : plan.tensors) names.push_back(tensor.name);
    ASSERT_THAT(names, testing::UnorderedElementsAreArray(expected_names));
    for (const GgufTensorPlan& tensor : plan.tensors) {
      const Json& entry = golden.at("tensors").at(tensor.name);
      EXPECT_EQ(tensor.shape, entry.at("shape").get<std::vector<int64_t>>()) << tensor.name;
      if (tensor.sources.empty()) {
        EXPECT_THAT(tensor.values, testing::Pointwise(testing::FloatNear(1e-4F), entry.at("values").get<std::vector<float>>()))
            << tensor.name;
      } else {
        EXPECT_EQ(sha256_of(whole(tensor, checkpoint)), entry.at("sha256").get<std::string>()) << tensor.name;
      }
    }
  }
}

TEST(GgufTensorsTest, EveryTensorOfTheCheckpointIsUsedOnce) {
  for (const Json& golden : goldens()) {
    const Json source = golden_case(golden.at("model_type"), golden.at("case"));
    std::vector<std::string> used, expected;
    for (const GgufTensorPlan& tensor : plan_gguf_tensors(config_of(source.at("config"))).tensors)
      used.insert(used.end(), tensor.sources.begin(), tensor.sources.end());
    for (const Json& tensor : source.at("tensors")) expected.push_back(tensor.at(0));
    EXPECT_THAT(used, testing::UnorderedElementsAreArray(expected)) << golden.at("model_type");
  }
}

TEST(GgufTensorsTest, TransformsCanBeUndone) {
  for (const Json& golden : goldens()) {
    const Json source = golden_case(golden.at("model_type"), golden.at("case"));
    const auto checkpoint = checkpoint_of(source);
    for (const GgufTensorPlan& tensor : plan_gguf_tensors(config_of(source.at("config"))).tensors) {
      if (tensor.sources.empty() || tensor.transform == GgufTransform::kAddOne) continue;
      const at::Tensor& original = checkpoint.at(tensor.sources.front());
      EXPECT_TRUE(at::equal(from_gguf(tensor, to_gguf(tensor, original)).reshape(original.sizes()), original)) << tensor.name;
    }
  }
}

TEST(GgufTensorsTest, RowOrderInterleavesTheHalvesOfEachHead) {
  const at::Tensor order = rope_row_order(12, 2);
  EXPECT_TRUE(at::equal(order, at::tensor({0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11}, at::kLong)));
  EXPECT_TRUE(at::equal(at::index_select(order, 0, rope_row_order_inverse(12, 2)), at::arange(12, at::kLong)));
  test::error_of([] { rope_row_order(12, 5); }, ErrorKind::kInternal);
}

TEST(GgufTensorsTest, OnlyMatricesOutsideOfRoutersAreQuantizable) {
  for (const GgufTensorPlan& tensor : plan_gguf_tensors(config_of(golden_case("mixtral", "default").at("config"))).tensors) {
    const bool expected = tensor.shape.size() > 1 && tensor.name.find("ffn_gate_inp") == std::string::npos;
    EXPECT_EQ(tensor.quantizable, expected) << tensor.name;
  }
}

TEST(GgufTensorsTest, WhatTheGraphHasNotIsNamed) {
  const auto message = [](const std::string& model_type, const std::string& key, Json value) {
    Json config = golden_case(model_type, "default").at("config");
    config[key] = std::move(value);
    return test::message_of([&] { plan_gguf_tensors(config_of(config)); }, ErrorKind::kUnsupported);
  };
  EXPECT_THAT(message("qwen3", "attention_bias", true), testing::HasSubstr("attention_bias"));
  EXPECT_THAT(message("llama", "hidden_act", "relu"), testing::HasSubstr("hidden_act 'relu'"));
  EXPECT_THAT(message("qwen3_moe", "norm_topk_prob", false), testing::HasSubstr("norm_topk_prob"));
  EXPECT_THAT(message("gemma2", "query_pre_attn_scalar", 99), testing::HasSubstr("query_pre_attn_scalar"));
  EXPECT_THAT(message("gemma", "tie_word_embeddings", false), testing::HasSubstr("tie_word_embeddings"));
  const Json dynamic = golden_case("llama", "rope_dynamic").at("config");
  EXPECT_THAT(test::message_of([&] { plan_gguf_tensors(config_of(dynamic)); }, ErrorKind::kUnsupported),
              testing::HasSubstr("'dynamic'"));
  const Json other = golden_case("bloom", "default").at("config");
  EXPECT_THAT(test::message_of([&] { plan_gguf_tensors(config_of(other)); }, ErrorKind::kUnsupported),
              testing::AllOf(testing::HasSubstr("'bloom'"), testing::HasSubstr("gemma3_text")));
}

TEST(GgufTensorsTest, AWindowThatTheGraphHasNotIsNoted) {
  Json config = golden_case("mistral", "window").at("config");
  EXPECT_THAT(plan_gguf_tensors(config_of(config)).notes, testing::ElementsAre(testing::HasSubstr("sliding_window 5")));
}

}  // namespace
}  // namespace salient::models
