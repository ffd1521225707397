#include "models/decoder/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/missing_architectures.h"
#include "models/decoder/wrappers.h"
#include "models/io/checkpoint.h"
#include "models/io/safetensors.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Shape = std::vector<int64_t>;
const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";

void add_norm(std::map<std::string, Shape>& tensors, const NormSpec& spec) {
  if (!spec.affine) return;
  for (const std::string& name : spec.names) {
    const Shape shape = spec.heads > 0 && spec.names.size() == 1 ? Shape{spec.heads, spec.features} : Shape{spec.features};
    tensors[name + ".weight"] = shape;
    if (spec.bias) tensors[name + ".bias"] = shape;
  }
}

void add_linear(std::map<std::string, Shape>& tensors, const LinearSpec& spec) {
  tensors[spec.name + ".weight"] = {spec.out_features, spec.in_features};
  if (spec.bias) tensors[spec.name + ".bias"] = {spec.out_features};
}

// By name: what the configuration says that the checkpoint holds.
std::map<std::string, Shape> described_tensors(const DecoderConfig& config) {
  const TensorNames& names = config.names;
  std::map<std::string, Shape> tensors;
  tensors[std::string(names.embedding)] = {config.vocab_size, config.hidden_size};
  if (!names.position_embedding.empty())
    tensors[std::string(names.position_embedding)] = {config.learned_positions, config.hidden_size};
  for (const std::string_view norm : {names.embedding_norm, names.final_norm}) {
    if (!norm.empty()) add_norm(tensors, hidden_norm(config, norm));
  }
  if (!config.tie_word_embeddings) tensors[std::string(names.lm_head) + ".weight"] = {config.vocab_size, config.hidden_size};
  if (config.lm_head_bias) tensors[std::string(names.lm_head) + ".bias"] = {config.vocab_size};
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout layout = block_layout(config, block);
    for (const LinearSpec& linear : layout.linears) add_linear(tensors, linear);
    for (const NormSpec& norm : layout.norms) add_norm(tensors, norm);
    for (const ParameterSpec& parameter : layout.parameters) {
      if (!parameter.optional) tensors[parameter.name] = parameter.shape;
    }
    for (int64_t expert = 0; expert < layout.experts; ++expert) {
      for (const LinearSpec& linear : expert_layout(config, block, expert)) add_linear(tensors, linear);
    }
  }
  return tensors;
}

struct Golden {
  const char* folder;
  const char* model_type;
};
class ArchitectureTable : public ::testing::TestWithParam<Golden> {};

// The table names exactly the tensors that transformers writes, with their shapes.
TEST_P(ArchitectureTable, NamesEveryTensor) {
  const DecoderConfig config = load_decoder_config(kData + GetParam().folder);
  EXPECT_EQ(config.model_type, GetParam().model_type);
  const SafetensorsFile file(kData + GetParam().folder + "/model.safetensors");
  std::map<std::string, Shape> stored;
  for (const auto& [name, info] : file.tensors()) stored[name] = info.shape;
  EXPECT_EQ(described_tensors(config), stored);
}

INSTANTIATE_TEST_SUITE_P(Goldens, ArchitectureTable,
                         ::testing::Values(Golden{"llama", "llama"}, Golden{"llama_old_tied_bias", "llama"},
                                           Golden{"mistral_window", "mistral"}, Golden{"qwen2_window_old", "qwen2"},
                                           Golden{"qwen3", "qwen3"}, Golden{"qwen3_bias_old", "qwen3"}),
                         [](const auto& param_info) { return std::string(param_info.param.folder); });

// The same for the older dense architectures, whose tensors follow from configuration keys the most.
class OlderArchitectures : public ::testing::TestWithParam<const char*> {};

TEST_P(OlderArchitectures, NameEveryTensor) {
  size_t compared = 0;
  const Json file = read_json_file(test::golden_file(GetParam()));
  for (const Json& golden : file.at("cases")) {
    const Json& keys = golden.at("config");
    if (!keys.value("do_layer_norm_before", true)) continue;  // refused
    SCOPED_TRACE(golden.at("name").get<std::string>());
    std::map<std::string, Shape> stored;
    for (const Json& tensor : golden.at("tensors")) stored[tensor.at(0).get<std::string>()] = tensor.at(1).get<Shape>();
    EXPECT_EQ(described_tensors(parse_decoder_config(keys, "config.json")), stored);
    ++compared;
  }
  EXPECT_GT(compared, 0u);
}

INSTANTIATE_TEST_SUITE_P(Goldens, OlderArchitectures,
                         ::testing::Values("gpt_neox", "gptj", "opt", "bloom", "falcon", "mpt", "gpt_bigcode", "phi"),
                         [](const auto& param_info) { return std::string(param_info.param); });

// config.json of published models, whose keys are not all spelled as transformers saves them today.
TEST(OlderArchitecture, PublishedConfigurationsAreRead) {
  const auto parse = [](const char* text) { return parse_decoder_config(Json::parse(text), "config.json"); };
  // bigscience/bloom-560m
  const DecoderConfig bloom =
      parse(R"({"model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16, "vocab_size": 250880,
    "layer_norm_epsilon": 1e-05, "apply_residual_connection_post_layernorm": false, "seq_length": 2048})");
  EXPECT_EQ(bloom.hidden_size, 1024);
  EXPECT_EQ(bloom.intermediate_size, 4096);
  EXPECT_EQ(bloom.num_hidden_layers, 24);
  EXPECT_TRUE(bloom.tie_word_embeddings);
  EXPECT_EQ(bloom.position, PositionKind::kAlibi);
  // tiiuae/falcon-7b
  const DecoderConfig falcon =
      parse(R"({"model_type": "falcon", "alibi": false, "bias": false, "hidden_size": 4544, "multi_query": true,
    "new_decoder_architecture": false, "num_attention_heads": 71, "num_hidden_layers": 32, "num_kv_heads": 71, "parallel_attn": true,
    "vocab_size": 65024})");
  EXPECT_EQ(falcon.num_key_value_heads, 1);
  EXPECT_EQ(falcon.ropes.at(0).dim, 64);
  EXPECT_EQ(block_layout(falcon, 0).linears.at(0).out_features, 4672);
  // tiiuae/falcon-rw-1b
  const DecoderConfig rw = parse(R"({"model_type": "falcon", "alibi": true, "bias": true, "hidden_size": 2048, "multi_query": false,
    "new_decoder_architecture": false, "num_attention_heads": 32, "num_hidden_layers": 24, "parallel_attn": false, "vocab_size": 50304})");
  EXPECT_EQ(rw.position, PositionKind::kAlibi);
  EXPECT_FALSE(rw.parallel_residual);
  EXPECT_EQ(rw.qkv_groups, 32);
  // EleutherAI/pythia-70m
  const DecoderConfig pythia =
      parse(R"({"model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "num_hidden_layers": 6, "rotary_emb_base": 20000, "rotary_pct": 0.5, "use_parallel_residual": true, "vocab_size": 50304})");
  EXPECT_EQ(pythia.ropes.at(0).dim, 32);
  EXPECT_EQ(pythia.ropes.at(0).theta, 20000.0);
  EXPECT_TRUE(pythia.parallel_residual);
  EXPECT_FALSE(pythia.tie_word_embeddings);
  // mosaicml/mpt-7b-storywriter
  const DecoderConfig mpt =
      parse(R"({"model_type": "mpt", "attn_config": {"alibi": true, "alibi_bias_max": 16, "attn_impl": "torch",
    "attn_type": "multihead_attention", "clip_qkv": 6, "prefix_lm": false, "qk_ln": false, "softmax_scale": null}, "d_model": 4096,
    "expansion_ratio": 4, "logit_scale": null, "max_seq_len": 65536, "n_heads": 32, "n_layers": 32, "no_bias": true,
    "norm_type": "low_precision_layernorm", "vocab_size": 50432})");
  EXPECT_EQ(mpt.alibi_max_bias, 16.0);
  EXPECT_EQ(mpt.qkv_clip, 6.0);
  EXPECT_EQ(mpt.max_position_embeddings, 65536);
  // bigcode/starcoderbase-1b
  const DecoderConfig starcoder =
      parse(R"({"model_type": "gpt_bigcode", "activation_function": "gelu_pytorch_tanh", "multi_query": true,
    "n_embd": 2048, "n_head": 16, "n_inner": 8192, "n_layer": 24, "n_positions": 8192, "vocab_size": 49152})");
  EXPECT_EQ(starcoder.num_key_value_heads, 1);
  EXPECT_EQ(starcoder.learned_positions, 8192);
  // EleutherAI/gpt-j-6b
  const DecoderConfig gptj =
      parse(R"({"model_type": "gptj", "activation_function": "gelu_new", "n_embd": 4096, "n_head": 16, "n_inner": null,
    "n_layer": 28, "n_positions": 2048, "rotary": true, "rotary_dim": 64, "tie_word_embeddings": false, "vocab_size": 50400})");
  EXPECT_EQ(gptj.intermediate_size, 16384);
  EXPECT_EQ(gptj.ropes.at(0).dim, 64);
  EXPECT_EQ(gptj.ropes.at(0).pairs, RopePairs::kNeighbours);
}

TEST(OlderArchitecture, OptionsThatAreNotBuiltAreRefused) {
  struct Case {
    const char* model_type;
    const char* changes;
    const char* text;
  };
  for (const Case& c :
       {Case{"opt", R"({"do_layer_norm_before": false})", "do_layer_norm_before"},
        Case{"opt", R"({"word_embed_proj_dim": 32})", "word_embed_proj_dim"},
        Case{"falcon", R"({"new_decoder_architecture": true, "parallel_attn": false})", "parallel_attn"},
        Case{"mpt", R"({"no_bias": false})", "no_bias"}, Case{"mpt", R"({"logit_scale": "inv_sqrt_d_model"})", "logit_scale"},
        Case{"mpt", R"({"norm_type": "rmsnorm"})", "norm_type"},
        Case{"mpt", R"({"attn_config": {"alibi": false}})", "attn_config: key 'alibi'"},
        Case{"mpt", R"({"attn_config": {"qk_ln": true}})", "attn_config: key 'qk_ln'"},
        Case{"mpt", R"({"attn_config": {"prefix_lm": true}})", "attn_config: key 'prefix_lm'"},
        Case{"mpt", R"({"attn_config": {"attn_type": "multiquery_attention"}})", "multiquery_attention"},
        Case{"gpt_bigcode", R"({"add_cross_attention": true})", "add_cross_attention"}}) {
    SCOPED_TRACE(c.changes);
    Json config = read_json_file(test::golden_file(c.model_type)).at("cases").at(0).at("config");
    EXPECT_NO_THROW(parse_decoder_config(config, "config.json"));
    config.update(Json::parse(c.changes));
    try {
      parse_decoder_config(config, "config.json");
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.what();
      EXPECT_THAT(error.message(), AllOf(HasSubstr("config.json"), HasSubstr(c.text)));
    }
  }
}

// AutoAWQ divides the activation's output where the linear before it cannot take the scale.
TEST(OlderArchitecture, ActivationScalesStandWhereTheActivationIsCurved) {
  const auto scales_of = [](const char* model_type, const char* changes) -> std::vector<std::string> {
    Json config = read_json_file(test::golden_file(model_type)).at("cases").at(0).at("config");
    config.update(Json::parse(changes));
    std::vector<std::string> names;
    for (const ParameterSpec& parameter : block_layout(parse_decoder_config(config, "config.json"), 1).parameters) {
      EXPECT_EQ(parameter.slot, ParameterSlot::kActivationScales);
      EXPECT_TRUE(parameter.optional);
      names.push_back(parameter.name);
    }
    return names;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(scales_of("bloom", "{}"), Names{"transformer.h.1.mlp.gelu_impl.scales"});
  EXPECT_EQ(scales_of("falcon", "{}"), Names{"transformer.h.1.mlp.act.scales"});
  EXPECT_EQ(scales_of("gpt_neox", "{}"), Names{"gpt_neox.layers.1.mlp.act.scales"});
  EXPECT_EQ(scales_of("gptj", "{}"), Names{"transformer.h.1.mlp.act.scales"});
  EXPECT_EQ(scales_of("gpt_bigcode", "{}"), Names{"transformer.h.1.mlp.act.scales"});
  EXPECT_EQ(scales_of("mpt", "{}"), Names{"transformer.blocks.1.ffn.act.scales"});
  EXPECT_EQ(scales_of("opt", "{}"), Names{});
  EXPECT_EQ(scales_of("gpt_neox", R"({"hidden_act": "relu"})"), Names{});
}

// Published checkpoints (bigscience/bloom-560m) lack the first part of the names.
TEST(OlderArchitecture, NamesMayLackTheirFirstPart) {
  for (const char* model_type : {"bloom", "opt", "gpt_bigcode"}) {
    SCOPED_TRACE(model_type);
    Json golden = read_json_file(test::golden_file(model_type)).at("cases").at(0);
    const DecoderConfig whole = parse_decoder_config(golden.at("config"), "config.json");
    const std::string prefix(whole.names.embedding.substr(0, whole.names.embedding.find('.') + 1));
    for (Json& tensor : golden.at("tensors")) {
      std::string name = tensor.at(0).get<std::string>();
      ASSERT_TRUE(name.starts_with(prefix)) << name;
      tensor.at(0) = name.substr(prefix.size());
    }
    const test::TemporaryFolder folder;
    test::write_golden_checkpoint(golden, folder.path() / "model");
    const Checkpoint checkpoint(folder.path() / "model");
    std::set<std::string> described;
    for (const auto& [name, shape] : described_tensors(load_decoder_config(checkpoint))) described.insert(name);
    const std::vector<std::string> stored = checkpoint.names();
    EXPECT_EQ(described, std::set<std::string>(stored.begin(), stored.end()));
  }
}

std::string message_for(std::string_view model_type, std::string_view text_model = {}) {
  try {
    find_architecture(model_type, text_model);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    return error.message();
  }
  ADD_FAILURE() << "no error for " << model_type;
  return "";
}

TEST(Architecture, UnknownTypeIsNamedAndTheHintSaysWhereTheKnownOnesAreListed) {
  try {
    find_architecture("unheard_of");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("model_type 'unheard_of' is not supported"));
    EXPECT_THAT(error.message(), HasSubstr("Nearest of those that are: '"));
    EXPECT_THAT(error.hint(), HasSubstr("salient architectures"));
  }
}

TEST(Architecture, ErrorsNameTheNearestAndWhatIsMissing) {
  const auto nearest = [](const char* type) { return HasSubstr(std::string("Nearest of those that are: '") + type + "'"); };
  EXPECT_THAT(message_for("lama"), nearest("llama"));
  EXPECT_THAT(message_for("Qwen2"), nearest("qwen2"));
  EXPECT_THAT(message_for("falcon_of_tomorrow"), nearest("falcon"));  // a relative by its beginning
  EXPECT_THAT(message_for("mamba2"), HasSubstr("state-space layers"));
  EXPECT_THAT(message_for("gpt2"), AllOf(HasSubstr("transposed"), nearest("gpt_bigcode")));
  EXPECT_THAT(message_for("whisper"), HasSubstr("encoder and cross-attention"));
  EXPECT_THAT(message_for("bert"), HasSubstr("no next token"));
  EXPECT_THAT(message_for("mllama"), AllOf(HasSubstr("in a way that is not built"), nearest("llama")));
  EXPECT_THAT(message_for("some_vision_thing", "qwen3"),
              AllOf(HasSubstr("in a way that is not built"), HasSubstr("(model_type 'qwen3')"), nearest("qwen3")));
  const Json gemma3n = {{"model_type", "gemma3n"}, {"text_config", {{"model_type", "gemma3_text"}}}};
  try {
    parse_decoder_config(gemma3n, "some/config.json");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("some/config.json"), HasSubstr("save its text model"), nearest("gemma3_text")));
  }
  EXPECT_LT(message_for(std::string(1'000'000, 'x') + "\n").size(), 2000u);
}

TEST(Architecture, WhatIsMissingIsNotThere) {
  std::set<std::string_view> supported;
  for (const Architecture& row : architectures()) EXPECT_TRUE(supported.insert(row.model_type).second) << row.model_type;
  for (const Wrapper& row : wrappers()) EXPECT_TRUE(supported.insert(row.model_type).second) << row.model_type;
  std::set<std::string_view> missing;
  for (const MissingArchitecture& row : missing_architectures()) {
    EXPECT_TRUE(missing.insert(row.model_type).second) << row.model_type;
    EXPECT_FALSE(supported.contains(row.model_type)) << row.model_type;
    EXPECT_TRUE(row.nearest.empty() || supported.contains(row.nearest)) << row.model_type << ": " << row.nearest;
    EXPECT_FALSE(row.what.empty()) << row.model_type;
  }
}

TEST(Architecture, InputsOfLinears) {
  const BlockLayout layout = block_layout(load_decoder_config(kData + "llama"), 0);
  std::map<LinearSlot, InputSlot> inputs;
  for (const LinearSpec& linear : layout.linears) inputs[linear.id.slot] = linear.input.slot;
  EXPECT_EQ(inputs.at(LinearSlot::kVProj), InputSlot::kAttentionInput);
  EXPECT_EQ(inputs.at(LinearSlot::kOProj), InputSlot::kAttentionOutput);
  EXPECT_EQ(inputs.at(LinearSlot::kUpProj), InputSlot::kMlpInput);
  EXPECT_EQ(inputs.at(LinearSlot::kDownProj), InputSlot::kMlpHidden);
}

}  // namespace
}  // namespace salient::models
