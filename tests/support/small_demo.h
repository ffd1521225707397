// The bundled demo with a much smaller model, for tests that run whole commands hundreds of times: two narrow blocks under the
// demo's tokenizer, a few rows of its data, and the settings with which a run takes a fraction of a second.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "support/demo_run.h"
#include "support/golden_checkpoint.h"

namespace salient::test {

// The first `rows` lines of a file of the demo.
inline void copy_rows(const std::string& name, const std::filesystem::path& to, int rows) {
  std::ifstream in(kDemoModel / "data" / name);
  std::string text;
  std::string line;
  for (int i = 0; i < rows && std::getline(in, line); ++i) text += line + "\n";
  write_text(to, text);
}

// `folder`/model, `folder`/data: the files that a run reads.
inline void write_small_demo(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  constexpr int64_t kHidden = 64, kIntermediate = 128, kHeadDim = 32, kHeads = 2, kKvHeads = 1, kBlocks = 2;
  const fs::path model = folder / "model";
  const fs::path data = folder / "data";
  fs::create_directories(model);
  fs::create_directories(data);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    fs::copy_file(kDemoModel / name, model / name);
  Json config = read_json_file(kDemoModel / "config.json");
  const auto vocab = config.at("vocab_size").get<int64_t>();
  config.update(Json{{"hidden_size", kHidden},
                     {"intermediate_size", kIntermediate},
                     {"head_dim", kHeadDim},
                     {"num_attention_heads", kHeads},
                     {"num_key_value_heads", kKvHeads},
                     {"num_hidden_layers", kBlocks}});
  write_file(model / "config.json", dump_json(config, 2) + "\n");
  std::vector<models::PlannedTensor> planned = {{"model.embed_tokens.weight", at::kFloat, {vocab, kHidden}},
                                                {"model.norm.weight", at::kFloat, {kHidden}}};
  for (int64_t block = 0; block < kBlocks; ++block) {
    const std::string prefix = "model.layers." + std::to_string(block) + ".";
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      planned.push_back({prefix + name + ".weight", at::kFloat, std::move(shape)});
    };
    add("input_layernorm", {kHidden});
    add("post_attention_layernorm", {kHidden});
    add("self_attn.q_norm", {kHeadDim});
    add("self_attn.k_norm", {kHeadDim});
    add("self_attn.q_proj", {kHeads * kHeadDim, kHidden});
    add("self_attn.k_proj", {kKvHeads * kHeadDim, kHidden});
    add("self_attn.v_proj", {kKvHeads * kHeadDim, kHidden});
    add("self_attn.o_proj", {kHidden, kHeads * kHeadDim});
    add("mlp.gate_proj", {kIntermediate, kHidden});
    add("mlp.up_proj", {kIntermediate, kHidden});
    add("mlp.down_proj", {kHidden, kIntermediate});
  }
  models::CheckpointWriter writer(model, models::plan_shards(planned, uint64_t{1} << 30));
  for (const models::PlannedTensor& tensor : planned) {
    const bool is_norm = tensor.shape.size() == 1;
    writer.put(tensor.name, golden_tensor(tensor.name, tensor.shape, is_norm ? 1.0 : 0.0, is_norm ? 0.3 : 0.1));
  }
  writer.finish();
  copy_rows("openmath_train.jsonl", data / "train.jsonl", 40);
  copy_rows("calib_mixed.jsonl", data / "calibration.jsonl", 10);
  copy_rows("arc_test.jsonl", data / "arc.jsonl", 6);
  copy_rows("heldout.txt", data / "heldout.txt", 40);
  write_text(model / "training_metadata.json",
             dump_json({{"base_model", "Small"},
                        {"method", "SFT"},
                        {"dataset", {{"name", "maths"}, {"train_file", (data / "train.jsonl").string()}}}}));
}

// The run of a config that uses all of them, below the folder where the command is started. `quantization`: further settings, each
// after a comma.
inline std::string small_demo_config(const std::filesystem::path& folder, const std::string& quantization = "") {
  const std::string data = (folder / "data").string();
  return "model: {path: " + (folder / "model").string() +
         "}\n"
         "calibration: {samples: 8, max_seq_len: 64}\n"
         "quantization: {group_size: 32, n_grid: 2, clip_steps: 2, refine: false, self_generated: 0, max_shard_size: 400KB" +
         quantization +
         "}\n"
         "evaluation:\n"
         "  tasks:\n"
         "    - {name: perplexity, file: " +
         data +
         "/heldout.txt, limit: 2, window: 64}\n"
         "    - {name: arc, file: " +
         data +
         "/arc.jsonl, limit: 6}\n"
         "  throughput: false\n"
         "output: {folder: artifacts, store: runs/salient.db}\n"
         "runtime: {threads: 1}\n";
}

}  // namespace salient::test
