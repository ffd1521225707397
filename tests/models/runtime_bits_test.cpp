// 8-bit activations and an 8-bit KV cache in the decoder. References: transformers with a cache that rounds
// (scripts/goldens/kv_cache.py), transformers with compressed-tensors (scripts/goldens/compressed_checkpoints.py), and the
// decoder's own path without a cache.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "models/decoder/decoder.h"
#include "models/io/compressed_config.h"
#include "quant/int8_rows.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
const fs::path kDecoders = fs::path(SALIENT_SOURCE_DIR) / "tests/data/decoder";
const fs::path kCompressed = fs::path(SALIENT_SOURCE_DIR) / "tests/data/compressed/w4_a8_kv8";

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }
double mean_distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().mean().item<double>(); }

at::Tensor matrix(const Json& rows) {
  std::vector<at::Tensor> tensors;
  for (const Json& row : rows) tensors.push_back(at::tensor(row.get<std::vector<double>>(), at::kFloat));
  return at::stack(tensors);
}

at::Tensor whole(const Decoder& decoder, const at::Tensor& ids, const at::Tensor& mask = {}) {
  return decoder.logits(decoder.hidden_states(ids, mask));
}

// In pieces of several tokens and of one, with a cache that grows.
at::Tensor in_pieces(const Decoder& decoder, const at::Tensor& ids, const at::Tensor& mask = {}) {
  KvCache cache = decoder.make_cache(ids.size(0), 4);
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; cache.length < ids.size(1); ++i) {
    const int64_t count = std::min<int64_t>(i == 0 ? 4 : i % 3 == 0 ? 3 : 1, ids.size(1) - cache.length);
    if (cache.length + count > cache.capacity) grow_cache(cache, cache.length + count + 1);
    const at::Tensor real = mask.defined() ? mask.narrow(1, 0, cache.length + count) : mask;
    parts.push_back(decoder.logits(decoder.hidden_states(ids.narrow(1, cache.length, count), real, &cache)));
  }
  return at::cat(parts, 1);
}

class KvCacheGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(KvCacheGolden, LogitsEqualTransformersWithARoundingCache) {
  const Json golden = read_json_file(kDecoders / "kv8.json").at(GetParam());
  const at::Tensor ids = at::tensor(golden.at("ids").get<std::vector<int64_t>>(), at::kLong).unsqueeze(0);
  const Checkpoint checkpoint(kDecoders / GetParam());
  const Decoder decoder = Decoder::load(checkpoint, {.kv_bits = 8});
  const auto every_second = [](const at::Tensor& logits) { return logits[0].slice(0, 0, logits.size(1), 2); };
  const at::Tensor rounded = matrix(golden.at("rounded"));
  EXPECT_LT(distance(every_second(whole(decoder, ids)), rounded), 3e-5);
  EXPECT_LT(distance(every_second(in_pieces(decoder, ids)), rounded), 3e-5);
  EXPECT_GT(distance(rounded, matrix(golden.at("plain"))), 5e-3);  // so that the bound above says something
  EXPECT_LT(distance(every_second(whole(Decoder::load(checkpoint, {.kv_bits = 16}), ids)), matrix(golden.at("plain"))), 3e-5);
}

INSTANTIATE_TEST_SUITE_P(Models, KvCacheGolden, ::testing::Values("llama", "qwen3", "mistral_window"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(KvCache8, LeftPaddedRowsAndRowsThatLeave) {
  const Decoder decoder = Decoder::load(Checkpoint(kDecoders / "qwen3"), {.kv_bits = 8});
  const at::Tensor ids = SafetensorsFile(kDecoders / "qwen3/expected.safetensors").view("ids").clone();
  const int64_t tokens = ids.size(1);
  at::Tensor mask = at::ones({2, tokens}, at::kBool);
  mask[1].narrow(0, 0, 3).fill_(false);
  const at::Tensor row = ids.narrow(0, 1, 1).narrow(1, 3, tokens - 3);
  const at::Tensor alone = whole(decoder, row);
  // What padding changes of sums may take a number over the edge of a step; rounding itself changes much more.
  const double bound = 0.2 * mean_distance(alone, whole(Decoder::load(Checkpoint(kDecoders / "qwen3"), {}), row));
  ASSERT_GT(bound, 1e-4);
  EXPECT_LT(mean_distance(in_pieces(decoder, ids, mask)[1].narrow(0, 3, tokens - 3), alone[0]), bound);

  KvCache cache = decoder.make_cache(2, tokens);
  decoder.hidden_states(ids.narrow(1, 0, tokens - 2), mask.narrow(1, 0, tokens - 2), &cache);
  select_cache(cache, at::tensor({1}, at::kLong), 3);
  EXPECT_EQ(cache.layers[0].key_scales.sizes(), cache.layers[0].keys.sizes().slice(0, 3));
  const at::Tensor rest = decoder.logits(decoder.hidden_states(ids.narrow(0, 1, 1).narrow(1, tokens - 2, 2), {}, &cache));
  EXPECT_LT(mean_distance(rest[0], alone[0].narrow(0, tokens - 5, 2)), bound);
}

// Windows, chunks, soft-capping, sinks, position biases, latent attention, linear attention: what a cache of codes gives is what
// rounding without a cache gives, and that is close to float but not it.
class EveryArchitecture8 : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryArchitecture8, CacheOfCodesEqualsRoundingWithoutACache) {
  const Json file = read_json_file(test::golden_file(GetParam()));
  const test::TemporaryFolder folder;
  for (const Json& golden : file.at("cases")) {
    const fs::path path = folder.path() / golden.at("name").get<std::string>();
    test::write_golden_checkpoint(golden, path);
    const Checkpoint checkpoint(path);
    const Decoder decoder = Decoder::load(checkpoint, {.kv_bits = 8});
    const Decoder plain = Decoder::load(checkpoint, {});
    const at::Tensor ids = at::arange(3, 3 + 2 * 17, at::kLong).remainder(decoder.config().vocab_size).view({2, 17});
    const at::Tensor at_once = whole(decoder, ids);
    const at::Tensor exact = whole(plain, ids);
    const double effect = mean_distance(at_once, exact);
    EXPECT_LT(effect, 0.2 * exact.abs().mean().item<double>()) << golden.at("name");
    EXPECT_GT(effect, 1e-6) << golden.at("name");
    // The two differ by float rounding, which takes a number here and there over the edge of a step: far less than the rounding to
    // steps itself does. And by what pieces change anyway (rotary angles that depend on the length).
    const double of_pieces = mean_distance(in_pieces(plain, ids), exact);
    EXPECT_LT(mean_distance(in_pieces(decoder, ids), at_once), 0.2 * effect + 2 * of_pieces) << golden.at("name");
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EveryArchitecture8, ::testing::ValuesIn(test::golden_model_types()),
                         [](const auto& param_info) { return param_info.param; });

// keys and values of a cache of codes with more than kUnpackedElements numbers: read in several parts.
TEST(KvCache8, PromptsUnpackAPartAtATime) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("qwen3")).at("cases").at(0), folder.path() / "model");
  const Decoder decoder = Decoder::load(Checkpoint(folder.path() / "model"), {.kv_bits = 8});
  const DecoderConfig& config = decoder.config();
  const int64_t past = kUnpackedElements / config.head_dim / 2 + 100;  // two heads of one row are too many
  AttentionContext context =
      make_attention_context(config, at::arange(past, past + 3, at::kLong).unsqueeze(0), past, {}, at::kFloat);
  const BlockWeights weights;
  const BlockObserver nobody;
  const int64_t heads = config.num_attention_heads, kv_heads = config.num_key_value_heads;
  ASSERT_GT(kv_heads, 1);
  const AttentionCall call{config, weights, 0, context, nullptr, past, nobody};
  const quant::Int8Rows keys = quant::to_int8_rows(at::randn({2, kv_heads, past + 3, config.head_dim}), quant::kStableHalfRange);
  const quant::Int8Rows values = quant::to_int8_rows(at::randn({2, kv_heads, past + 3, config.head_dim}), quant::kStableHalfRange);
  const at::Tensor query = at::randn({2, heads, 3, config.head_dim});
  const BlockMask mask = select_mask(context, call.layer(), 3, past, at::kFloat, at::kCPU);
  const at::Tensor found = attend(call, query, {keys.codes, values.codes, keys.scales, values.scales}, mask);
  const at::Tensor expected =
      attend(call, query, {quant::from_int8_rows(keys, at::kFloat), quant::from_int8_rows(values, at::kFloat)}, mask);
  EXPECT_LT(distance(found, expected), 1e-5);
  EXPECT_GT(expected.abs().max().item<double>(), 1e-3);
}

TEST(KvCache8, LongContextsTakeAQuarterOfFloat32) {
  const Decoder plain = Decoder::load(Checkpoint(fs::path(SALIENT_SOURCE_DIR) / "models/demo"), {});  // heads of 64
  const Decoder coded = Decoder::load(Checkpoint(fs::path(SALIENT_SOURCE_DIR) / "models/demo"), {.kv_bits = 8});
  constexpr int64_t kTokens = 32768;
  const auto bytes_of = [](const Decoder& decoder) {
    const KvCache cache = decoder.make_cache(1, kTokens);
    uint64_t bytes = 0;
    for (const KvCacheLayer& layer : cache.layers) {
      for (const at::Tensor* tensor : {&layer.keys, &layer.values, &layer.key_scales, &layer.value_scales}) {
        if (tensor->defined()) bytes += tensor->nbytes();
      }
    }
    EXPECT_EQ(bytes, kTokens * decoder.cache_bytes_per_token());
    return bytes;
  };
  EXPECT_LE(static_cast<double>(bytes_of(coded)), 0.27 * static_cast<double>(bytes_of(plain)));
}

TEST(KvCache8, WhatIsKeptIsWithinHalfAStep) {
  const Checkpoint checkpoint(kDecoders / "qwen3");
  const Decoder plain = Decoder::load(checkpoint, {});
  const Decoder coded = Decoder::load(checkpoint, {.kv_bits = 8});
  const at::Tensor ids = SafetensorsFile(kDecoders / "qwen3/expected.safetensors").view("ids");
  KvCache exact = plain.make_cache(2, ids.size(1));
  KvCache codes = coded.make_cache(2, ids.size(1));
  plain.hidden_states(ids, {}, &exact);
  coded.hidden_states(ids, {}, &codes);
  const KvCacheLayer& a = exact.layers[0];  // of the first block: later ones read rounded values
  const KvCacheLayer& b = codes.layers[0];
  const auto within = [](const at::Tensor& exact_rows, const at::Tensor& rows, const at::Tensor& scales) {
    EXPECT_EQ(rows.scalar_type(), at::kChar);
    const at::Tensor error = (quant::from_int8_rows({rows, scales}, at::kFloat) - exact_rows).abs();
    EXPECT_TRUE(error.le(scales.unsqueeze(-1) * (0.5 + 1e-5)).all().item<bool>());
    EXPECT_GT(error.max().item<double>(), 0.0);
  };
  within(a.keys, b.keys, b.key_scales);
  within(a.values, b.values, b.value_scales);
}

// What transformers and compressed-tensors compute from the same files.
TEST(CompressedRuntime, LogitsEqualTheReferenceForEveryChoice) {
  const Json golden = read_json_file(kCompressed / "logits.json");
  const at::Tensor ids = at::tensor(golden.at("ids").get<std::vector<int64_t>>(), at::kLong).unsqueeze(0);
  const Checkpoint checkpoint(kCompressed);
  struct Choice {
    const char* expected;
    DecoderOptions options;
    int activation_bits, kv_bits;
  };
  for (const Choice& choice :
       {Choice{"logits", {}, 8, 8}, Choice{"without_activations", {.activation_bits = 16}, 16, 8},
        Choice{"without_kv_cache", {.kv_bits = 16}, 8, 16}, Choice{"neither", {.activation_bits = 16, .kv_bits = 16}, 16, 16}}) {
    const Decoder decoder = Decoder::load(checkpoint, choice.options);
    EXPECT_EQ(decoder.options().activation_bits, choice.activation_bits);
    EXPECT_EQ(decoder.options().kv_bits, choice.kv_bits);
    const at::Tensor expected = matrix(golden.at(choice.expected));
    // A number on the edge of a step may fall to the other side: float sums differ by rounding. None does in these files.
    EXPECT_LT(distance(whole(decoder, ids)[0], expected), 5e-5) << choice.expected;
    EXPECT_LT(distance(in_pieces(decoder, ids)[0], expected), 5e-5) << choice.expected;
    for (const char* other : {"logits", "without_activations", "without_kv_cache", "neither"}) {
      if (std::string_view(other) == choice.expected) continue;
      EXPECT_GT(distance(matrix(golden.at(other)), expected), 1e-2) << other;
    }
  }
}

TEST(CompressedRuntime, StoredScalesNeedNoRoomInTheCache) {
  const Decoder decoder = Decoder::load(Checkpoint(kCompressed), {});
  KvCache cache = decoder.make_cache(1, 8);
  EXPECT_EQ(cache.layers[0].keys.scalar_type(), at::kChar);
  EXPECT_FALSE(cache.layers[0].key_scales.defined());
  EXPECT_NO_THROW(grow_cache(cache, 12));
}

TEST(RuntimeBits, OfAConfigurationAreWhatIsComputedHere) {
  Json config = read_json_file(kCompressed / "config.json").at("quantization_config");
  const auto bits = [&] { return read_runtime_bits(config, "here"); };
  EXPECT_EQ(bits().activation_bits, 8);
  EXPECT_EQ(bits().kv_bits, 8);
  Json& activations = config["config_groups"]["group_0"]["input_activations"];
  const Json good = activations;
  for (const auto& [key, value] : {std::pair<const char*, Json>{"type", "float"},
                                   {"strategy", "tensor"},
                                   {"dynamic", false},
                                   {"symmetric", false},
                                   {"num_bits", 4}}) {
    activations = good;
    activations[key] = value;
    EXPECT_EQ(bits().activation_bits, std::nullopt) << key;
  }
  activations = nullptr;
  EXPECT_EQ(bits().activation_bits, std::nullopt);
  activations = good;
  config["config_groups"]["group_1"] = config["config_groups"]["group_0"];
  EXPECT_EQ(bits().activation_bits, 8);
  config["config_groups"]["group_1"]["input_activations"] = nullptr;  // some with, some without
  EXPECT_EQ(bits().activation_bits, std::nullopt);
  config["kv_cache_scheme"]["type"] = "float";
  EXPECT_EQ(bits().kv_bits, std::nullopt);
  config["kv_cache_scheme"] = nullptr;
  EXPECT_EQ(bits().kv_bits, std::nullopt);
}

TEST(RuntimeBits, WrongOnesAreRefused) {
  const Checkpoint checkpoint(kDecoders / "llama");
  const auto message = [&](const DecoderOptions& options, ErrorKind kind) {
    return test::message_of([&] { Decoder::load(checkpoint, options); }, kind);
  };
  EXPECT_THAT(message({.kv_bits = 4}, ErrorKind::kInvalidArgument), HasSubstr("kv_bits: found 4, expected 8 or 16"));
  EXPECT_THAT(message({.activation_bits = 7}, ErrorKind::kInvalidArgument), HasSubstr("activation_bits: found 7"));
  EXPECT_THAT(message({.activation_bits = 8}, ErrorKind::kUnsupported), HasSubstr("no linear is quantized"));
  const ExternalModel external{[](const at::Tensor& ids, const at::Tensor&) { return ids; }, 0, false};
  EXPECT_THAT(test::message_of([&] { Decoder::of(external, {}, {.kv_bits = 8}); }, ErrorKind::kUnsupported), HasSubstr("KV cache"));
  EXPECT_EQ(Decoder::of(external, {}, {}).options().kv_bits, 16);
}

}  // namespace
}  // namespace salient::models
