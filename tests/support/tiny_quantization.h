// A checkpoint of two small blocks, quantized with settings as they stand in a config: what a test needs to see what a setting
// does. Some input channels are much larger than the others, so that scaling, clipping and compensation have something to gain.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/select.h>
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/io/checkpoint.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_job.h"
#include "support/counting_allocator.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::test {

constexpr int64_t kTinyHidden = 128;
constexpr int64_t kTinyOutlier = 37;  // the input channel of attention and MLP that is by far the largest
constexpr int64_t kTinyVocab = 160;

// A dense Qwen3 without a tokenizer; seven linears in each of two blocks, group sizes up to 64 divide all of them.
inline void write_tiny_checkpoint(const std::filesystem::path& folder) {
  constexpr int64_t kIntermediate = 192, kHeadDim = 32, kHeads = 4, kKvHeads = 2, kBlocks = 2;
  Json config = read_json_file(golden_file("qwen3")).at("cases").at(0).at("config");
  config.update(Json{{"hidden_size", kTinyHidden},
                     {"intermediate_size", kIntermediate},
                     {"head_dim", kHeadDim},
                     {"num_attention_heads", kHeads},
                     {"num_key_value_heads", kKvHeads},
                     {"num_hidden_layers", kBlocks},
                     {"vocab_size", kTinyVocab}});
  std::vector<models::PlannedTensor> planned = {{"model.embed_tokens.weight", at::kFloat, {kTinyVocab, kTinyHidden}},
                                                {"lm_head.weight", at::kFloat, {kTinyVocab, kTinyHidden}},
                                                {"model.norm.weight", at::kFloat, {kTinyHidden}}};
  for (int64_t block = 0; block < kBlocks; ++block) {
    const std::string prefix = fmt::format("model.layers.{}.", block);
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      planned.push_back({prefix + name + ".weight", at::kFloat, std::move(shape)});
    };
    add("input_layernorm", {kTinyHidden});
    add("post_attention_layernorm", {kTinyHidden});
    add("self_attn.q_norm", {kHeadDim});
    add("self_attn.k_norm", {kHeadDim});
    add("self_attn.q_proj", {kHeads * kHeadDim, kTinyHidden});
    add("self_attn.k_proj", {kKvHeads * kHeadDim, kTinyHidden});
    add("self_attn.v_proj", {kKvHeads * kHeadDim, kTinyHidden});
    add("self_attn.o_proj", {kTinyHidden, kHeads * kHeadDim});
    add("mlp.gate_proj", {kIntermediate, kTinyHidden});
    add("mlp.up_proj", {kIntermediate, kTinyHidden});
    add("mlp.down_proj", {kTinyHidden, kIntermediate});
  }
  models::CheckpointWriter writer(folder, models::plan_shards(planned, uint64_t{1} << 30));
  for (const models::PlannedTensor& tensor : planned) {
    const bool is_norm = tensor.shape.size() == 1;
    at::Tensor values = golden_tensor(tensor.name, tensor.shape, is_norm ? 1.0 : 0.02, is_norm ? 0.3 : 0.1);
    if (tensor.name.ends_with("layernorm.weight")) {
      for (const int64_t channel : {kTinyOutlier, int64_t{3}, int64_t{90}})
        values.select(0, channel).mul_(channel == kTinyOutlier ? 12 : 6);
    }
    if (tensor.name.ends_with("_proj.weight")) {  // groups of input channels differ in size
      for (int64_t channel = 0; channel < tensor.shape[1]; ++channel) {
        values.select(1, channel)
            .mul_(std::exp(1.2 * std::sin(6.28 * static_cast<double>(channel) / static_cast<double>(tensor.shape[1]))));
      }
    }
    writer.put(tensor.name, values);
  }
  writer.finish();
  write_file(folder / "config.json", dump_json(config, 2) + "\n");
}

// `rows` lists of `length` ids, one a line.
inline void write_tiny_tokens(const std::filesystem::path& file, int64_t rows = 24, int64_t length = 40) {
  std::string text;
  for (int64_t row = 0; row < rows; ++row) {
    Json ids = Json::array();
    for (int64_t i = 0; i < length; ++i) ids.push_back(splitmix64(static_cast<uint64_t>(1000 * row + i)) % kTinyVocab);
    text += dump_json(Json{{"tokens", ids}}) + "\n";
  }
  write_file(file, text);
}

struct TinyArtifact {
  std::filesystem::path folder;
  pipeline::QuantizeJobResult result;
  Json config;
  Json metadata;
  std::vector<std::string> messages;
  size_t peak = 0;  // bytes of tensors beyond those that were there before

  models::Checkpoint checkpoint() const { return models::Checkpoint(folder); }
  at::Tensor weight(const std::string& module) const {
    const models::Checkpoint all(folder);
    return all.view(module + ".weight").to(at::kFloat).clone();
  }
  const pipeline::LinearReport& report(const std::string& module) const {
    for (const pipeline::LinearReport& report : result.model.reports)
      if (report.name == module) return report;
    throw std::runtime_error("no report of " + module);
  }
  // Of the linears with `part` in their names.
  double sum(double pipeline::LinearReport::*member, const std::string& part = "") const {
    double total = 0;
    for (const pipeline::LinearReport& report : result.model.reports)
      if (report.name.find(part) != std::string::npos) total += report.*member;
    return total;
  }
};

// The same tensors under the same names, bit for bit.
inline bool same_weights(const TinyArtifact& a, const TinyArtifact& b) {
  const models::Checkpoint left(a.folder), right(b.folder);
  if (left.names() != right.names()) return false;
  for (const std::string& name : left.names())
    if (!at::equal(left.view(name), right.view(name))) return false;
  return true;
}

class TinyQuantization {
 public:
  TinyQuantization() {
    CountingAllocator::install();
    at::set_num_threads(1);
    write_tiny_checkpoint(source());
    std::filesystem::create_directories(calibration());
    write_tiny_tokens(calibration() / "train.jsonl");
    write_tiny_tokens(calibration() / "validation.jsonl", 20, 33);
  }

  std::filesystem::path source() const { return folder_.path() / "source"; }
  std::filesystem::path calibration() const { return folder_.path() / "calibration"; }

  // With "bits: 3, clip: false" on top of `base`; the same words give the same artifact again.
  const TinyArtifact& operator()(const std::string& settings) {
    std::unique_ptr<TinyArtifact>& artifact = made_[settings];
    if (!artifact) artifact = make(pipeline::given_settings(ConfigNode::parse("{" + settings + "}", "test")), made_.size());
    return *artifact;
  }
  std::unique_ptr<TinyArtifact> make(const pipeline::GivenSettings& settings, size_t number) {
    const pipeline::GivenSettings base = pipeline::given_settings(ConfigNode::parse(kBase, "base"));
    const pipeline::QuantizationConfig config =
        pipeline::make_quantization_config(pipeline::override_settings(base, settings), "test");
    pipeline::check_stored(config.awq);
    auto artifact = std::make_unique<TinyArtifact>();
    pipeline::QuantizeJob job;
    job.calibration_file = pipeline::resolve_split(calibration(), config.split);
    job.model.model_folder = source();
    job.model.output = folder_.path() / std::to_string(number);
    job.model.on_message = [&](const std::string& line) { artifact->messages.push_back(line); };
    pipeline::apply_to_job(config, job);
    CountingAllocator& counter = CountingAllocator::install();
    counter.reset_peak();
    const size_t before = counter.live();
    artifact->result = pipeline::run_quantize_job(std::move(job));
    artifact->peak = counter.peak() - before;
    artifact->folder = artifact->result.model.folder;
    artifact->config = read_json_file(artifact->folder / "config.json");
    artifact->metadata = read_json_file(artifact->folder / "quantization_metadata.json");
    return artifact;
  }

 private:
  // Small searches. Weights are stored as the floats that the codes stand for, so that tests can look at them.
  static constexpr const char* kBase =
      "{format: dequantized, group_size: 32, n_grid: 4, refine: false, clip_steps: 4, self_generated: 0, max_calib_seq_len: 64}";

  TemporaryFolder folder_;
  std::map<std::string, std::unique_ptr<TinyArtifact>> made_;
};

}  // namespace salient::test
