// The configuration of `salient run`, read from YAML. Unknown keys are errors. Paths are relative to the working directory.
//
//   name: demo                     # of the run in listings; default: the file's name without extension
//   model:
//     path: models/demo            # required: a folder, or org/name in the local Hugging Face cache; or a LoRA adapter's folder
//     base: models/base            # of an adapter: its base model; default: what its adapter_config.json names
//     base_model: Qwen3-0.6B       # these three are parts of the artifact's name; default: training_metadata.json beside the model
//     method: SFT
//     peft: NoPeft
//   dataset:                       # default of each key: training_metadata.json
//     name: openmath
//     train_file: data/train.jsonl
//     question_field: question
//     answer_field: answer
//   calibration:
//     samples: auto                # 15 % of the training set, from 8 to 128 rows; or a number
//     seed: 42
//     content: auto                # prompt | conversation | auto
//     system_prompt: "..."         # default: training_metadata.json
//     chat_template: other.jinja   # rows of the training set are rendered with it; default: training_metadata.json, else the model's own
//     max_seq_len: 512             # tokens
//     packing: concat              # concat | rows
//     file: calib.jsonl            # an existing file to use instead of sampling: .jsonl, .json, .csv or .txt
//     sources:                     # several of them instead, mixed by weight; samples: rows of it at most, 0 = all
//       - {file: a.jsonl, weight: 2, samples: 0, domain: a}
//     long_rows: split             # split | cut | discard: texts longer than max_seq_len
//     loss_mask: all               # all | response: statistics over the tokens of the assistant's answers only
//     text_rows: lines             # lines | paragraphs | file: what a row of a .txt file is
//   quantization:                  # each row of pipeline/quantization_settings.cpp (see salient quantize --help); the main ones:
//     method: awq                  # awq | gptq | adaround | rtn: what they turn on (pipeline/methods.h), the other keys override
//     bits: 4
//     group_size: 128              # -1 = one group for each output channel
//     zero_point: true             # or symmetric: false
//     lm_head: fp16                # fp16 | int8
//     n_grid: 20                   # steps of the scale search
//     duo_scaling: both            # both | on | off
//     objective: gram              # gram | block
//     clip: true
//     rounding: gram               # gram | adaround | nearest
//     off_diagonal: auto           # compensation between columns: 0 to 1, or chosen on held-back rows
//     propagate_error: true
//     format: awq-gemm             # awq-gemm | awq-gemv | awq-gemv-fast | awq-marlin | compressed-tensors | dequantized | smoothed |
//                                  # gguf-q4_k_m and others
//     search: found.search         # scales and clip ranges that were searched before, instead of searching
//     save_search: found.search    # a file for what the searches find
//     overrides:                   # other settings for some modules; the last that matches wins
//       - {pattern: down_proj, bits: 8, group_size: 64, zero_point: false}
//     target_bits: 0               # mean bits, chosen for each module; 0 = off
//     salient_ratio: 0             # input channels kept in float: a share or auto
//     batch_tokens: 4096           # calibration tokens of one forward pass: bounds memory
//     max_memory: 0                # refuse to start when more may be needed, such as 16GB; 0 = what is free
//     max_shard_size: 5GB
//     ignore: [lm_head]            # modules that stay in float: names ("down_proj") or "re:..." expressions
//     mappings:                    # default: every group that the model's tensors allow
//       - {smooth_layer: "re:.*input_layernorm", balance_layers: ["re:.*q_proj", "re:.*k_proj", "re:.*v_proj"]}
//   evaluation:
//     tasks:                       # default: none. A name, or keys:
//       # limit: documents or windows, 0 = all; window: tokens, 0 = auto
//       # name: a task, group or YAML file; file: data, or a folder of splits (docs/evaluation.md)
//       - {name: perplexity, file: data/heldout.txt, limit: 0, window: 0}
//       - {name: gsm8k, file: test.jsonl, splits: {train: train.jsonl}, num_fewshot: 5}  # default: what the task says
//     batch_tokens: 2048           # tokens of one forward pass
//     apply_chat_template: false
//     fewshot_as_multiturn: true   # with the chat template: examples are turns, else part of the one user message
//     system_instruction: ""       # before each task's description
//     fewshot_seed: 1234           # of the draw of examples
//     include_path: my/tasks       # a folder of task files, whose names win over the bundled ones; default: none
//     max_new_tokens: 0            # 0 = the task's own
//     throughput: true
//     compare_with_base: true
//     activation_bits: 8           # 8 | 16: inputs of the artifact's quantized linears; default: what the artifact says, else 16
//     kv_bits: 8                   # 8 | 16: its keys and values; the same default
//     runtime_cost: false          # also measure what 8-bit activations and an 8-bit KV cache cost, on the text of the task perplexity
//     sensitivity: none            # none | block | projection | kind: which part costs most, on up to 16 windows of that text
//     max_retention_loss: 0.05     # share of a headline score that may be lost (of perplexities 1 - base / model), else ACCURACY_DEGRADATION; default: no bound
//   output:
//     folder: artifacts
//     store: runs/salient.db
//     overwrite: false             # replace an artifact of the same name that other settings made
//   tracking:                      # default: none (docs/tracking.md)
//     mlflow: http://localhost:5000  # true: the address in MLFLOW_TRACKING_URI
//     experiment: salient          # default: MLFLOW_EXPERIMENT_NAME, else salient
//   runtime:
//     threads: 0                   # 0 = all cores
//     device: cpu                  # cpu | cuda
//     dtype: float32               # float32 | bfloat16: of evaluation; quantization is always float32
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "calibration/sources.h"
#include "common/json.h"
#include "common/yaml.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/tracking/tracking_target.h"
#include "pipeline/training_metadata.h"

namespace salient::pipeline {

struct CalibrationConfig {
  std::optional<int64_t> samples;  // nothing: auto
  uint64_t seed = 42;
  std::string content = "auto";
  int64_t max_seq_len = 512;
  std::string packing = "concat";
  std::filesystem::path file;  // empty: sample the training set
  std::vector<calibration::CalibrationSource> sources;
  std::string long_rows = "split";
  std::string loss_mask = "all";
  std::string text_rows = "lines";
};

struct TaskConfig {
  std::string name;
  std::filesystem::path file;  // empty: not given
  int64_t limit = 0;
  int64_t window = 0;
  std::map<std::string, std::filesystem::path> splits;
  std::optional<int64_t> num_fewshot;
  std::string where;  // "configs/demo.yaml:31:7", for errors about the task
};

struct EvaluationConfig {
  std::vector<TaskConfig> tasks;
  int64_t batch_tokens = 2048;
  bool apply_chat_template = false;
  bool fewshot_as_multiturn = true;
  std::string system_instruction;
  int64_t fewshot_seed = 1234;
  std::filesystem::path include_path;  // empty: the bundled tasks
  int64_t max_new_tokens = 0;
  bool throughput = true;
  std::filesystem::path output_path;  // files as lm-evaluation-harness writes them go there; empty: none
  bool log_samples = false;           // with every document
  bool compare_with_base = true;
  std::optional<int> activation_bits;  // of the artifact; the base is computed as it is
  std::optional<int> kv_bits;
  bool runtime_cost = false;
  std::string sensitivity = "none";
  std::optional<double> max_retention_loss;
};

struct RuntimeConfig {
  int64_t threads = 0;
  std::string device = "cpu";
  std::string dtype = "float32";
};

struct RunConfig {
  std::string name;
  std::string model;
  std::string base;            // of an adapter; empty: the one that it names
  TrainingOverrides training;  // model.base_model, model.method, model.peft, dataset.*, calibration.system_prompt and chat_template
  CalibrationConfig calibration;
  QuantizationConfig quantization;
  EvaluationConfig evaluation;
  std::filesystem::path output_folder = "artifacts";
  std::filesystem::path store = "runs/salient.db";
  bool overwrite = false;
  std::vector<TrackingTarget> tracking;
  RuntimeConfig runtime;
};

// Reads the file, applies the "a.b=c" overrides and checks everything that can be known without opening other files. Errors: not
// found, io, corruption (malformed YAML), invalid argument (unknown key, wrong type or value) with file:line:column or "--set
// a.b=c".
RunConfig load_run_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
RunConfig parse_run_config(const ConfigNode& root, std::string_view default_name);

// Complete, with every default filled in: what the store keeps of a run and its hash is taken over.
Json to_json(const RunConfig& config);

}  // namespace salient::pipeline
