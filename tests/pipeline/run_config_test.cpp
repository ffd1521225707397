#include "pipeline/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::pipeline {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

RunConfig parse(std::string_view text, const std::vector<std::string>& overrides = {}) {
  ConfigNode root = ConfigNode::parse(text, "c.yaml");
  for (const std::string& assignment : overrides) root.apply_override(assignment);
  return parse_run_config(root, "c");
}

std::string error_of(std::string_view text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error: " << text;
  return {};
}

TEST(RunConfig, DefaultsAreTheDocumentedOnes) {
  const RunConfig config = parse("model: {path: m}\n");
  EXPECT_EQ(config.name, "c");
  EXPECT_EQ(config.calibration.samples, std::nullopt);
  EXPECT_EQ(config.calibration.seed, 42u);
  EXPECT_EQ(config.calibration.max_seq_len, 512);
  EXPECT_EQ(config.quantization.awq.spec, quant::QuantizationSpec{});
  EXPECT_EQ(config.quantization.awq.spec.group_size, 128);
  EXPECT_EQ(config.quantization.max_shard_bytes, 5'000'000'000u);
  EXPECT_TRUE(config.evaluation.tasks.empty());
  EXPECT_TRUE(config.evaluation.compare_with_base);
  EXPECT_EQ(config.evaluation.max_retention_loss, std::nullopt);
  EXPECT_EQ(config.output_folder, "artifacts");
  EXPECT_EQ(config.store, "runs/salient.db");
  EXPECT_EQ(config.runtime.dtype, "float32");
}

TEST(RunConfig, ReadsEveryKey) {
  const RunConfig config = parse(R"(
name: n
model: {path: org/m, base: org/base, base_model: B, method: DPO, peft: LoRA}
dataset: {name: d, train_file: t.csv, question_field: q, answer_field: a}
calibration: {samples: 20, seed: 7, content: conversation, system_prompt: "", chat_template: t.jinja, max_seq_len: 64, packing: rows, file: c.txt,
              long_rows: cut, loss_mask: response, text_rows: paragraphs}
quantization: {method: gptq, bits: 3, activation_bits: 16, kv_cache_bits: 16, group_size: -1, zero_point: false, lm_head: int8, scale: true, n_grid: 10,
               duo_scaling: off, refine: false, objective: block, clip: true, clip_steps: 5, max_shrink: 0.25, rounding: adaround, column_order: natural,
               damping: 0.1, off_diagonal: 0.5, sweeps: 7, propagate_error: false, format: compressed-tensors, export_compatible: true, self_generated: 0.2,
               overrides: [{pattern: down_proj, bits: 8, group_size: 32, zero_point: true}, {pattern: "re:.*o_proj", bits: 16}],
               target_bits: 3.5, salient_ratio: auto, max_chunk_memory: 1MB, max_shard_size: 1GiB, batch_tokens: 99, max_memory: 2GiB, pad_intermediate: auto, text_column: t, split: s,
               ignore: [down_proj, "re:.*o_proj"], mappings: [{smooth_layer: up_proj, balance_layers: [down_proj]}]}
evaluation: {tasks: [arc, {name: perplexity, file: f, limit: 3, window: 128}], batch_tokens: 10, apply_chat_template: true,
             fewshot_as_multiturn: false, system_instruction: "", fewshot_seed: 7, include_path: tasks, output_path: files, log_samples: true, max_new_tokens: 5, throughput: false, compare_with_base: true, activation_bits: 16, kv_bits: 8, runtime_cost: true, sensitivity: kind, max_retention_loss: 0.05}
output: {folder: o, store: s.db, overwrite: true}
tracking: {mlflow: "http://h:5000", experiment: e}
runtime: {threads: 2, device: cuda, dtype: bfloat16}
)");
  EXPECT_EQ(to_json(config), Json::parse(R"({
    "name": "n", "model": {"path": "org/m", "base": "org/base", "base_model": "B", "method": "DPO", "peft": "LoRA"},
    "dataset": {"name": "d", "train_file": "t.csv", "question_field": "q", "answer_field": "a"},
    "calibration": {"samples": 20, "seed": 7, "content": "conversation", "system_prompt": "", "chat_template": "t.jinja", "max_seq_len": 64, "packing": "rows", "file": "c.txt",
      "sources": [], "long_rows": "cut", "loss_mask": "response", "text_rows": "paragraphs"},
    "quantization": {"method": "gptq", "bits": 3, "activation_bits": 16, "kv_cache_bits": 16, "write_runtime_bits": false, "group_size": -1, "zero_point": false,
      "lm_head": "int8", "scale": true, "n_grid": 10, "duo_scaling": "off", "refine": false, "objective": "block", "clip": true, "clip_steps": 5,
      "max_shrink": 0.25, "rounding": "adaround", "column_order": "natural", "damping": 0.1, "off_diagonal": 0.5, "sweeps": 7, "rows_curve": false, "propagate_error": false,
      "format": "compressed-tensors", "export_compatible": true, "overrides": [{"pattern": "down_proj", "bits": 8, "group_size": 32, "zero_point": true},
      {"pattern": "re:.*o_proj", "bits": 16}], "target_bits": 3.5, "salient_ratio": "auto", "max_chunk_memory": 1000000, "max_shard_size": 1073741824,
      "batch_tokens": 99, "max_memory": 2147483648, "n_parallel_calib_samples": null, "max_calib_samples": null, "max_calib_seq_len": null,
      "pad_intermediate": "auto", "text_column": "t", "split": "s", "self_generated": 0.2, "search": null, "save_search": null, "bit_choices": [2, 3, 4, 5, 6, 8], "ignore": ["down_proj", "re:.*o_proj"],
      "mappings": [{"smooth_layer": "up_proj", "balance_layers": ["down_proj"]}]},
    "evaluation": {"tasks": [{"name": "arc", "file": "", "limit": 0, "window": 0}, {"name": "perplexity", "file": "f", "limit": 3, "window": 128}],
      "batch_tokens": 10, "apply_chat_template": true, "fewshot_as_multiturn": false, "system_instruction": "", "fewshot_seed": 7,
      "include_path": "tasks", "output_path": "files", "log_samples": true, "max_new_tokens": 5, "throughput": false, "compare_with_base": true,
      "activation_bits": 16, "kv_bits": 8, "runtime_cost": true, "sensitivity": "kind", "max_retention_loss": 0.05},
    "output": {"folder": "o", "store": "s.db", "overwrite": true}, "tracking": [{"sink": "mlflow", "url": "http://h:5000", "experiment": "e"}], "runtime": {"threads": 2, "device": "cuda", "dtype": "bfloat16"}})"));
  EXPECT_EQ(config.evaluation.tasks[1].where, "c.yaml:13:27");
}

TEST(RunConfig, SpellingsOfTheSameGiveTheSameJson) {
  EXPECT_EQ(to_json(parse("model: {path: m}\nquantization:\n  bits: 4\ncalibration:\n")),
            to_json(parse("# order and defaults\ncalibration: {samples: auto}\nmodel:\n  path: 'm'\n")));
  EXPECT_NE(to_json(parse("model: {path: m}\n")), to_json(parse("model: {path: m}\n", {"quantization.bits=3"})));
}

TEST(RunConfig, SeveralCalibrationFilesAreMixedByWeight) {
  const std::string model = "model: {path: m}\n";
  const RunConfig config =
      parse(model + "calibration: {sources: [{file: x/a.jsonl, weight: 2, samples: 5, domain: code}, b.txt]}\n");
  EXPECT_EQ(to_json(config).at("calibration").at("sources"),
            Json::parse(R"([{"file": "x/a.jsonl", "weight": 2.0, "samples": 5, "domain": "code"},
    {"file": "b.txt", "weight": null, "samples": 0, "domain": "b"}])"));
  EXPECT_THAT(error_of(model + "calibration: {file: a, sources: [b]}\n"), HasSubstr("either file or sources"));
  EXPECT_THAT(error_of(model + "calibration: {sources: [{weight: 1}]}\n"), HasSubstr("'calibration.sources.0'"));
  EXPECT_THAT(error_of(model + "calibration: {sources: [{file: a, weight: 0}, {file: b}]}\n"), HasSubstr("c.yaml:2:"));
}

TEST(RunConfig, AutoAwqsNamesSetTheCalibrationToo) {
  const RunConfig config =
      parse("model: {path: m}\nquantization: {max_calib_samples: 12, max_calib_seq_len: 64, n_parallel_calib_samples: 3}\n");
  EXPECT_EQ(config.calibration.samples, 12);
  EXPECT_EQ(config.calibration.max_seq_len, 64);
  EXPECT_THAT(error_of("model: {path: m}\ncalibration: {max_seq_len: 8}\nquantization: {max_calib_seq_len: 64}\n"),
              HasSubstr("c.yaml:2:28: 'calibration.max_seq_len': found '8'"));
}

TEST(RunConfig, RefusesWithPlace) {
  const std::string model = "model: {path: m}\n";
  EXPECT_EQ(error_of(model + "quantization:\n  group_sise: 64\n"),
            "c.yaml:3:3: unknown key 'quantization.group_sise'; did you mean 'group_size'?");
  EXPECT_EQ(error_of(model + "evalution: {}\n"), "c.yaml:2:1: unknown key 'evalution'; did you mean 'evaluation'?");
  EXPECT_EQ(error_of(model, {"quantization.bit=4"}),
            "--set quantization.bit=4: unknown key 'quantization.bit'; did you mean 'bits'?");
  EXPECT_EQ(error_of(model, {"calibration.samples=0"}),
            "--set calibration.samples=0: 'calibration.samples': found '0', expected an integer from 1 to 1099511627776");
  EXPECT_EQ(error_of(model + "calibration: {samples: many}\n"),
            "c.yaml:2:24: 'calibration.samples': found 'many', expected 'auto' or a number of rows");
  EXPECT_THAT(error_of(model + "quantization: {method: gptqq}\n"),
              HasSubstr("found 'gptqq', expected 'rtn', 'gptq', 'adaround' or 'awq'; did you mean 'gptq'?"));
  EXPECT_THAT(error_of(model + "quantization: {bits: 7}\n"),
              HasSubstr("c.yaml:2:22: 'quantization.bits': found '7', expected 2, 3, 4, 5, 6 or 8 bits"));
  EXPECT_THAT(error_of(model + "quantization: {max_shard_size: 5XB}\n"), HasSubstr("expected a size such as 5GB"));
  EXPECT_THAT(error_of(model + "evaluation: {tasks: arc}\n"), HasSubstr("expected a list"));
  EXPECT_THAT(error_of(model + "evaluation: {log_samples: true}\n"),
              HasSubstr("'evaluation.log_samples': found 'true', expected false without output_path"));
  EXPECT_THAT(error_of(model + "evaluation: {tasks: [{file: x}]}\n"), HasSubstr("'evaluation.tasks.0' has no name"));
  EXPECT_THAT(error_of(model + "evaluation: {max_retention_loss: 2}\n"), HasSubstr("a number from 0 to 1"));
  EXPECT_THAT(error_of(model + "evaluation: {kv_bits: 4}\n"), HasSubstr("'evaluation.kv_bits': found '4', expected one of 8, 16"));
  EXPECT_THAT(error_of(model + "evaluation: {max_retention_loss: 0.1, compare_with_base: false}\n"),
              HasSubstr("nothing to compare with"));
  EXPECT_THAT(error_of(model + "runtime: {device: gpu}\n"), HasSubstr("expected 'cpu' or 'cuda'"));
  EXPECT_THAT(error_of("model: {}\n"), HasSubstr("'model.path' is missing"));
  EXPECT_THAT(error_of(""), HasSubstr("'model.path' is missing"));
  EXPECT_THAT(error_of("- a\n"), StartsWith("c.yaml:1:1: found a list"));
}

TEST(RunConfig, TheDemoIsValid) {
  const std::filesystem::path root = SALIENT_SOURCE_DIR;
  const RunConfig config = load_run_config(root / "configs/demo.yaml", {"evaluation.tasks.0.limit=2"});
  EXPECT_EQ(config.name, "demo");
  EXPECT_TRUE(std::filesystem::exists(root / config.model / "config.json"));
  ASSERT_EQ(config.evaluation.tasks.size(), 4u);
  EXPECT_EQ(config.evaluation.tasks[0].limit, 2);
  for (const TaskConfig& task : config.evaluation.tasks) EXPECT_TRUE(std::filesystem::exists(root / task.file)) << task.file;
}

}  // namespace
}  // namespace salient::pipeline
