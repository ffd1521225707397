#include "models/decoder/architecture.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/error.h"
#include "models/io/safetensors.h"

namespace salient::models {
namespace {

const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";

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
  const Architecture& row = find_architecture(config.model_type);
  std::set<std::string> expected = {std::string(row.embedding), std::string(row.final_norm)};
  if (!config.tie_word_embeddings) expected.insert(std::string(row.lm_head));
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (size_t i = 0; i < kLinearSlots; ++i) {
      const auto slot = static_cast<LinearSlot>(i);
      const std::string name = linear_name(row, block, slot);
      expected.insert(name + ".weight");
      if (linear_has_bias(config, slot)) expected.insert(name + ".bias");
      const auto shape = linear_shape(config, slot);
      EXPECT_EQ(file.info(name + ".weight").shape, std::vector<int64_t>(shape.begin(), shape.end())) << name;
    }
    for (size_t i = 0; i < kNormSlots; ++i) {
      if (const std::string name = norm_name(row, block, static_cast<NormSlot>(i)); !name.empty()) expected.insert(name);
    }
  }
  std::set<std::string> stored;
  for (const auto& [name, info] : file.tensors()) stored.insert(name);
  EXPECT_EQ(stored, expected);
}

INSTANTIATE_TEST_SUITE_P(Goldens, ArchitectureTable,
                         ::testing::Values(Golden{"llama", "llama"}, Golden{"llama_old_tied_bias", "llama"},
                                           Golden{"mistral_window", "mistral"}, Golden{"qwen2_window_old", "qwen2"},
                                           Golden{"qwen3", "qwen3"}, Golden{"qwen3_bias_old", "qwen3"}),
                         [](const auto& param_info) { return std::string(param_info.param.folder); });

TEST(Architecture, UnknownTypeListsTheKnownOnes) {
  try {
    find_architecture("gpt_oss");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    for (const Architecture& row : architectures()) EXPECT_NE(error.message().find(row.model_type), std::string::npos);
  }
}

TEST(Architecture, InputsOfLinears) {
  EXPECT_EQ(input_of(LinearSlot::kVProj), InputSlot::kAttentionInput);
  EXPECT_EQ(input_of(LinearSlot::kOProj), InputSlot::kAttentionOutput);
  EXPECT_EQ(input_of(LinearSlot::kUpProj), InputSlot::kMlpInput);
  EXPECT_EQ(input_of(LinearSlot::kDownProj), InputSlot::kMlpHidden);
}

}  // namespace
}  // namespace salient::models
