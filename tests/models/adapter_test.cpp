#include "models/io/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>

#include "common/file.h"
#include "models/decoder/decoder.h"
#include "models/decoder/mlp_padding.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "models/io/model_files.h"
#include "models/text/chat_template.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
const fs::path kRoot = SALIENT_SOURCE_DIR;
const fs::path kAdapters = kRoot / "tests/data/adapters";
const fs::path kBases = kRoot / "tests/data/decoder";
const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// Against what PEFT computed from the same files (scripts/goldens/lora_adapters.py).
class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  Golden() : adapter_(kAdapters / GetParam()), expected_(adapter_ / "expected.safetensors"), wanted_(expected_.view("logits")) {}
  ~Golden() override { set_adapter_base(adapter_, ""); }

  // The base in float32, in which it has the same values.
  void use_float_base() {
    const fs::path given = adapter_base(adapter_);
    const fs::path base = folder_.path() / "base";
    fs::create_directories(base);
    fs::copy_file(given / "config.json", base / "config.json");
    const SafetensorsFile source(given / "model.safetensors");
    std::vector<NamedTensor> tensors;
    for (const auto& [name, info] : source.tensors()) tensors.push_back({name, source.view(name).to(at::kFloat)});
    write_safetensors(base / "model.safetensors", tensors);
    set_adapter_base(adapter_, base.string());
  }
  double distance_to_peft() const {
    const Decoder decoder = Decoder::load(Checkpoint(adapter_), {});
    const at::Tensor logits = decoder.logits(decoder.hidden_states(expected_.view("ids")));
    EXPECT_EQ(logits.size(2), wanted_.size(2));
    return distance(logits.narrow(1, logits.size(1) - wanted_.size(1), wanted_.size(1)), wanted_);
  }

  fs::path adapter_;
  SafetensorsFile expected_;
  at::Tensor wanted_;
  test::TemporaryFolder folder_;
};

TEST_P(Golden, LogitsAreThoseOfPeft) {
  use_float_base();
  // Rounding of float32 through a few layers, as for the bases alone; the demo's logits are larger.
  EXPECT_LT(distance_to_peft(), 2e-5 * std::max(1.0, wanted_.abs().max().item<double>() / 4));
}

TEST_P(Golden, ABaseInBfloat16RoundsItsEmbeddingAndHead) {
  // Which a decoder keeps as they are stored: 2^-9 of each element, both ends.
  EXPECT_LT(distance_to_peft(), std::ldexp(wanted_.abs().max().item<double>(), -8));
}

TEST_P(Golden, TheAdapterMatters) {
  const Decoder base = Decoder::load(Checkpoint(adapter_base(adapter_)), {});
  const at::Tensor logits = base.logits(base.hidden_states(expected_.view("ids")));
  if (logits.size(2) != wanted_.size(2)) return;  // more tokens than the base
  EXPECT_GT(distance(logits.narrow(1, logits.size(1) - wanted_.size(1), wanted_.size(1)), wanted_), 0.02);
}

TEST_P(Golden, WeightsAreThoseOfMergeAndUnload) {
  if (!expected_.tensors().contains("q_proj")) return;
  const at::Tensor wanted = expected_.view("q_proj");
  const at::Tensor merged = Checkpoint(adapter_).load(kQuery, wanted.sizes().vec(), at::kFloat);
  EXPECT_LT(distance(merged, wanted), 4 * std::numeric_limits<float>::epsilon() * wanted.abs().max().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Adapters, Golden,
                         ::testing::Values("plain", "patterns", "dora", "bias_all", "bias_lora_only", "lora_bias", "saved_modules",
                                           "tied_embedding", "tied_head", "tied_both", "tied_saved_embedding", "tied_saved_both",
                                           "tied_resized", "tied_tokens", "tokens", "demo"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Adapter, AHeadOfItsOwnOnlyWhereItMust) {
  EXPECT_TRUE(Checkpoint(kAdapters / "tied_embedding").contains("lm_head.weight"));
  EXPECT_EQ(Checkpoint(kAdapters / "tied_embedding").config().at("tie_word_embeddings"), false);
  for (const char* same : {"tied_saved_both", "tied_resized", "tied_tokens", "patterns"}) {
    const Checkpoint checkpoint(kAdapters / same);
    EXPECT_EQ(checkpoint.config().at("tie_word_embeddings"), true) << same;
  }
  EXPECT_EQ(Checkpoint(kAdapters / "tied_resized").config().at("vocab_size"), 70);
  EXPECT_EQ(load_decoder_config(kAdapters / "tied_resized").vocab_size, 70);
}

TEST(Adapter, IsRoundedOnceToWhatTheReaderWants) {
  const Checkpoint checkpoint(kAdapters / "plain");  // the base is in bfloat16
  const std::vector<int64_t> shape = checkpoint.info(kQuery).shape;
  const at::Tensor merged = checkpoint.load(kQuery, shape, at::kFloat);
  EXPECT_EQ(checkpoint.info(kQuery).dtype, at::kBFloat16);
  EXPECT_EQ(checkpoint.view(kQuery).scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(checkpoint.view(kQuery), merged.to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(checkpoint.load(kQuery, shape, at::kHalf), merged.to(at::kHalf)));
  EXPECT_FALSE(at::equal(merged, merged.to(at::kBFloat16).to(at::kFloat)));
  // Twice the same, and what the adapter does not touch is the base's.
  EXPECT_TRUE(at::equal(checkpoint.load(kQuery, shape, at::kFloat), merged));
  const std::string key = "model.layers.0.self_attn.k_proj.weight";
  EXPECT_TRUE(at::equal(checkpoint.view(key), Checkpoint(kBases / "llama").view(key)));
}

TEST(Adapter, IsMergedAndThenPadded) {
  const Checkpoint merged(kAdapters / "plain");
  Checkpoint padded(kAdapters / "plain");
  ASSERT_EQ(widen_mlps(padded, [](int64_t width) { return width + 8; }).size(), 1u);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const std::vector<int64_t> shape = padded.info(name).shape;
  ASSERT_EQ(shape, (std::vector<int64_t>{16, 32}));
  const at::Tensor wide = padded.load(name, shape, at::kFloat);
  EXPECT_TRUE(at::equal(wide.narrow(1, 0, 24), merged.load(name, {16, 24}, at::kFloat)));
  EXPECT_EQ(wide.narrow(1, 24, 8).abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(at::equal(padded.view(name), wide.to(at::kBFloat16)));
}

TEST(Adapter, IsDetectedAsItsBaseWithTheAdapterAsEvidence) {
  const DetectedModel found = detect_model(kAdapters / "dora");
  EXPECT_EQ(found.format, "float");
  EXPECT_EQ(found.evidence.front().source, "adapter_config.json");
  EXPECT_THAT(found.evidence.front().finding,
              AllOf(HasSubstr("DoRA adapter of rank 2"), HasSubstr("6 modules"), HasSubstr("decoder/llama")));
  EXPECT_EQ(
      describe_adapter(read_adapter(kAdapters / "plain")),
      Json(
          {{"peft", "LoRA"}, {"rank", 4}, {"alpha", 6.0}, {"modules", 6}, {"base_model", "../../../../tests/data/decoder/llama"}}));
}

// A copy of an adapter of the goldens, to be changed.
class Changed : public ::testing::Test {
 protected:
  void use(const std::string& name) {
    adapter_ = folder_.path() / "adapter";
    fs::remove_all(adapter_);
    fs::create_directories(adapter_);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      fs::copy_file(kAdapters / name / file, adapter_ / file);
    const Json config = read_json_file(adapter_ / "adapter_config.json");
    base_ = fs::weakly_canonical(kAdapters / name / config.at("base_model_name_or_path").get<std::string>());
    set("base_model_name_or_path", base_.string());
  }
  void set(const std::string& key, const Json& value) {
    Json config = read_json_file(adapter_ / "adapter_config.json");
    config[key] = value;
    write_file(adapter_ / "adapter_config.json", dump_json(config));
  }
  // Every tensor through `change`, which may give it another name, or none: then it is left out.
  void rewrite(const std::function<void(NamedTensor& tensor)>& change) {
    std::vector<NamedTensor> tensors;
    {
      const SafetensorsFile file(adapter_ / "adapter_model.safetensors");
      for (const auto& [name, info] : file.tensors()) {
        NamedTensor tensor{name, file.view(name).clone()};
        change(tensor);
        if (!tensor.name.empty()) tensors.push_back(std::move(tensor));
      }
    }
    write_safetensors(adapter_ / "adapter_model.safetensors", tensors);
  }
  std::string message(ErrorKind kind) {
    return test::message_of([&] { const Checkpoint checkpoint(adapter_); }, kind);
  }

  test::TemporaryFolder folder_;
  fs::path adapter_;
  fs::path base_;
};

TEST_F(Changed, FanInFanOutStoresTheWeightTransposed) {
  use("dora");
  rewrite([](NamedTensor& tensor) {
    if (tensor.name.find("layers.0.self_attn.q_proj") == std::string::npos) tensor.name.clear();
  });
  const at::Tensor rows = Checkpoint(adapter_).load(kQuery, {32, 16}, at::kFloat);
  // The same module over a base that has it as [in, out].
  const fs::path base = folder_.path() / "base";
  fs::create_directories(base);
  fs::copy_file(base_ / "config.json", base / "config.json");
  std::vector<NamedTensor> tensors;
  const SafetensorsFile source(base_ / "model.safetensors");
  for (const auto& [name, info] : source.tensors())
    tensors.push_back({name, name == kQuery ? source.view(name).t().contiguous() : source.view(name).clone()});
  write_safetensors(base / "model.safetensors", tensors);
  set("base_model_name_or_path", base.string());
  set("fan_in_fan_out", true);
  EXPECT_LT(distance(Checkpoint(adapter_).load(kQuery, {16, 32}, at::kFloat), rows.t()), 1e-6);
}

TEST_F(Changed, NamesWithoutTheRootOfTheBaseAreFound) {
  use("plain");
  const at::Tensor wanted = Checkpoint(adapter_).load(kQuery, {32, 16}, at::kFloat);
  rewrite([](NamedTensor& tensor) {
    const size_t at = tensor.name.find("model.layers");
    if (at != std::string::npos) tensor.name.insert(at, "language_model.");  // as PEFT calls the text model of a wrapper
  });
  EXPECT_TRUE(at::equal(Checkpoint(adapter_).load(kQuery, {32, 16}, at::kFloat), wanted));
}

TEST_F(Changed, WhatChangesTheResultAndIsNotKnownIsRefusedByName) {
  const std::vector<std::pair<std::string, Json>> cases = {
      {"peft_type", "LOHA"},
      {"layer_replication", Json::array({{0, 2}})},
      {"target_parameters", {"experts.gate_up_proj"}},
      {"alora_invocation_tokens", {1, 2}},
      {"use_qalora", true},
      {"use_something_new", {{"k", 1}}},
      {"init_lora_weights", "pissa_niter_4"},
      {"init_lora_weights", "loftq"},
  };
  for (const auto& [key, value] : cases) {
    use("plain");
    set(key, value);
    EXPECT_THAT(message(ErrorKind::kUnsupported), AllOf(HasSubstr("adapter_config.json: key '" + key + "'"), HasSubstr("merge")))
        << key;
  }
  for (const Json& harmless : {Json(), Json(false), Json::object(), Json("")}) {
    use("plain");
    set("use_something_new", harmless);
    EXPECT_NO_THROW(Checkpoint{adapter_});
  }
  use("plain");
  rewrite([](NamedTensor& tensor) {
    if (tensor.name.ends_with("layers.0.self_attn.q_proj.lora_A.weight")) tensor.name += ".new";
  });
  EXPECT_THAT(message(ErrorKind::kUnsupported), HasSubstr("q_proj.lora_A.weight.new' is of a kind that is not known here"));
}

TEST_F(Changed, BrokenAdaptersAreRefused) {
  const auto broken = [&](const std::string& name, const std::function<void(NamedTensor&)>& change, const std::string& text) {
    use(name);
    rewrite(change);
    EXPECT_THAT(message(ErrorKind::kCorruption), AllOf(HasSubstr("adapter"), HasSubstr(text)));
  };
  const auto is = [](const NamedTensor& tensor, const std::string& end) { return tensor.name.ends_with(end); };
  broken(
      "plain",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_B.weight")) t.name.clear();
      },
      "has no lora_B");
  broken(
      "plain",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_B.weight")) t.tensor = at::ones({32, 5});
      },
      "expected [r, in] and [out, r]");
  broken(
      "plain",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_B.weight")) t.tensor = at::ones({31, 4});
      },
      "of a weight [31, 16]");
  broken(
      "plain",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_B.weight")) t.tensor = t.tensor.to(at::kLong);
      },
      "dtype is I64");
  broken(
      "plain",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_B.weight")) t.name = "lora_B";
      },
      "expected a name that begins with");
  broken(
      "dora",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_magnitude_vector")) t.name.clear();
      },
      "has no lora_magnitude_vector");
  broken(
      "dora",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.self_attn.q_proj.lora_magnitude_vector")) t.tensor = at::ones({3});
      },
      "is [3], expected [32]");
  broken(
      "saved_modules",
      [&](NamedTensor& t) {
        if (is(t, "layers.0.input_layernorm.weight")) t.tensor = at::ones({17});
      },
      "is [17], the base's is [16]");
  broken(
      "tokens",
      [&](NamedTensor& t) {
        if (is(t, "lm_head.token_adapter.trainable_tokens_delta")) t.tensor = at::ones({2, 16});
      },
      "expected 1 rows");
  broken(
      "saved_modules",
      [&](NamedTensor& t) {
        if (is(t, "model.lm_head.weight")) t.tensor = at::ones({70, 16});
      },
      "has 64 tokens and the head 70");
  use("tokens");
  set("trainable_token_indices", {{"embed_tokens", {3, 64}}, {"lm_head", {1}}});
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("a row for token 64, the base has 64 tokens"));
  use("plain");
  set("r", 3);
  EXPECT_THAT(message(ErrorKind::kCorruption), AllOf(HasSubstr("has rank 4"), HasSubstr("says 3")));
  use("plain");
  set("use_dora", true);
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("has no lora_magnitude_vector"));
  use("plain");
  fs::remove(adapter_ / "adapter_model.safetensors");
  EXPECT_THAT(message(ErrorKind::kNotFound), HasSubstr("adapter_model.safetensors is not"));
  write_file(adapter_ / "adapter_model.bin", "pickle");
  EXPECT_THAT(message(ErrorKind::kUnsupported), HasSubstr("safe_serialization=True"));
}

TEST_F(Changed, ABaseWhoseEmbeddingIsNoMatrixIsRefused) {
  use("plain");
  const fs::path base = folder_.path() / "base";
  fs::create_directories(base);
  fs::copy_file(base_ / "config.json", base / "config.json");
  std::vector<NamedTensor> tensors;
  const SafetensorsFile source(base_ / "model.safetensors");
  for (const auto& [name, info] : source.tensors()) {
    const bool embedding = name.ends_with("embed_tokens.weight");
    tensors.push_back({name, embedding ? source.view(name).flatten()[0].clone() : source.view(name).clone()});
  }
  write_safetensors(base / "model.safetensors", tensors);
  set("base_model_name_or_path", base.string());
  EXPECT_THAT(message(ErrorKind::kCorruption), AllOf(HasSubstr("embed_tokens.weight"), HasSubstr("two dimensions")));
}

TEST_F(Changed, InfiniteResultsAreToldFromInfiniteBases) {
  use("plain");
  rewrite([](NamedTensor& tensor) {
    if (tensor.name.ends_with("layers.0.self_attn.q_proj.lora_B.weight")) tensor.tensor[2][1] = NAN;
  });
  const Checkpoint checkpoint(adapter_);
  EXPECT_THAT(test::message_of(
                  [&] {
                    checkpoint.load(kQuery, {32, 16}, at::kFloat);
                  },
                  ErrorKind::kCorruption),
              AllOf(HasSubstr("merged with"), HasSubstr("adapter_model.safetensors"), HasSubstr("element 32 (of 512) is nan")));
}

TEST_F(Changed, TheBaseIsLookedForWhereItCanBe) {
  use("plain");
  set("base_model_name_or_path", "org/not-here");
  EXPECT_THAT(message(ErrorKind::kNotFound), AllOf(HasSubstr("org/not-here"), HasSubstr("Hugging Face cache"),
                                                   HasSubstr("--adapter-base"), HasSubstr("hf download org/not-here")));
  set("base_model_name_or_path", nullptr);
  EXPECT_THAT(message(ErrorKind::kNotFound),
              AllOf(HasSubstr("key 'base_model_name_or_path' names no base model"), HasSubstr("--adapter-base")));
  set_adapter_base(adapter_, base_.string());
  EXPECT_NO_THROW(Checkpoint{adapter_});
  set_adapter_base(adapter_, (kBases / "qwen3").string());  // not the one it was trained on
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("of a weight [32, 16], the base's"));
  set_adapter_base(adapter_, (kAdapters / "dora").string());
  EXPECT_THAT(message(ErrorKind::kUnsupported), HasSubstr("an adapter itself"));
  set_adapter_base(adapter_, base_.string());
  rewrite([](NamedTensor& tensor) { tensor.name.replace(tensor.name.find("_proj"), 5, "_other"); });
  EXPECT_THAT(message(ErrorKind::kNotFound),
              AllOf(HasSubstr("no tensor 'model.layers.0.mlp.down_other.weight'"), HasSubstr("belongs to another base model")));
}

TEST_F(Changed, APackedBaseIsRefused) {
  use("plain");
  set_adapter_base(adapter_, (kRoot / "tests/data/compressed/w4_asym").string());
  const std::string text = test::error_of([&] { const Checkpoint checkpoint(adapter_); }).message();
  EXPECT_THAT(text, HasSubstr("its base is quantized"));
}

TEST_F(Changed, FilesOfTheAdapterWinOverTheBases) {
  use("plain");
  const fs::path base = folder_.path() / "base";
  fs::copy(base_, base);
  set("base_model_name_or_path", base.string());
  write_file(base / "tokenizer.json", "{}");
  write_file(base / "tokenizer_config.json", "{}");
  write_file(base / "chat_template.jinja", "base");
  write_file(base / "generation_config.json", "{}");
  write_file(base / "README.md", "base");
  write_file(base / "training_metadata.json", "{}");
  EXPECT_EQ(model_file(adapter_, "config.json"), base / "config.json");
  EXPECT_EQ(model_file(adapter_, "tokenizer.json"), base / "tokenizer.json");
  EXPECT_EQ(model_file(adapter_, "chat_template.jinja"), base / "chat_template.jinja");
  EXPECT_EQ(model_file(adapter_, "README.md"), adapter_ / "README.md");
  EXPECT_EQ(model_file(adapter_, "training_metadata.json"), adapter_ / "training_metadata.json");
  EXPECT_EQ(ChatTemplate::from_folder(adapter_).source(), "base");

  write_file(adapter_ / "tokenizer_config.json", R"({"chat_template": "adapter"})");  // hides the base's file, which would go first
  EXPECT_EQ(ChatTemplate::from_folder(adapter_).source(), "adapter");
  write_file(adapter_ / "tokenizer_config.json", "{}");
  EXPECT_EQ(ChatTemplate::from_folder(adapter_).source(), "base");
  write_file(adapter_ / "chat_template.jinja", "own");
  EXPECT_EQ(ChatTemplate::from_folder(adapter_).source(), "own");
  fs::remove(adapter_ / "chat_template.jinja");
  write_file(adapter_ / "tokenizer.json", "{}");  // a tokenizer of its own, without a template
  EXPECT_FALSE(ChatTemplate::exists_in(adapter_));

  write_file(adapter_ / "optimizer.pt", "of the trainer");
  write_file(adapter_ / "config.json", "of the trainer");
  const auto files = list_model_files(adapter_);
  const std::map<std::string, fs::path> expected = {{"adapter_config.json", adapter_ / "adapter_config.json"},
                                                    {"adapter_model.safetensors", adapter_ / "adapter_model.safetensors"},
                                                    {"config.json", base / "config.json"},
                                                    {"expected.safetensors", base / "expected.safetensors"},
                                                    {"generation_config.json", base / "generation_config.json"},
                                                    {"model.safetensors", base / "model.safetensors"},
                                                    {"tokenizer.json", adapter_ / "tokenizer.json"},
                                                    {"tokenizer_config.json", adapter_ / "tokenizer_config.json"}};
  EXPECT_EQ(files, expected);
}

TEST_F(Changed, AFolderWithAWholeModelIsNoAdapter) {
  use("plain");
  fs::copy_file(base_ / "config.json", adapter_ / "config.json");
  fs::copy_file(base_ / "model.safetensors", adapter_ / "model.safetensors");
  EXPECT_FALSE(is_adapter(adapter_));
  EXPECT_EQ(model_folders(adapter_), std::vector<fs::path>{adapter_});
}

}  // namespace
}  // namespace salient::models
