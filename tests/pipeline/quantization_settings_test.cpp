#include "pipeline/quantization_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "pipeline/commands/setting_options.h"
#include "pipeline/methods.h"
#include "pipeline/module_pattern.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

QuantizationConfig from_yaml(std::string_view text) {
  return make_quantization_config(given_settings(ConfigNode::parse(text, "s.yaml")), "s.yaml");
}

QuantizationConfig from_flags(const std::vector<std::string>& words) {
  const Arguments arguments({"quantize", "", "", ""}, setting_options(), words);
  return make_quantization_config(given_settings(arguments, "salient quantize"), "salient quantize");
}

template <typename Body>
std::string error_of(Body&& body, ErrorKind kind = ErrorKind::kInvalidArgument) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return {};
}

// Every setting once: as YAML, as flags, and the JSON that both must print under the row's key (or under what it is another way of
// giving).
struct Case {
  std::string key;
  std::string yaml;
  std::vector<std::string> flags;
  std::string printed_key;
  Json printed;
};

const std::string kSearchFile = std::string(SALIENT_SOURCE_DIR) + "/tests/data/search/llm_awq.pt";

const std::vector<Case> kCases = {
    {"method", "rtn", {"--method", "RTN"}, "method", "rtn"},
    {"bits", "3", {"--bits", "3"}, "bits", 3},
    {"group_size", "-1", {"--group-size", "-1"}, "group_size", -1},
    {"zero_point", "false", {"--no-zero-point"}, "zero_point", false},
    {"symmetric", "true", {"--symmetric"}, "zero_point", false},
    {"activation_bits", "16", {"--activation-bits", "16"}, "activation_bits", 16},
    {"kv_cache_bits", "16", {"--kv-cache-bits", "16"}, "kv_cache_bits", 16},
    {"write_runtime_bits", "true", {"--write-runtime-bits"}, "write_runtime_bits", true},
    {"lm_head", "int8", {"--lm-head", "int8"}, "lm_head", "int8"},
    {"scale", "false", {"--no-scale"}, "scale", false},
    {"n_grid", "7", {"--n-grid", "7"}, "n_grid", 7},
    {"duo_scaling", "False", {"--duo-scaling", "false"}, "duo_scaling", "off"},
    {"refine", "false", {"--no-refine"}, "refine", false},
    {"objective", "block", {"--objective", "block"}, "objective", "block"},
    {"clip", "false", {"--no-apply-clip"}, "clip", false},
    {"clip_steps", "4", {"--clip-steps", "4"}, "clip_steps", 4},
    {"max_shrink", "0.25", {"--max-shrink", "0.25"}, "max_shrink", 0.25},
    {"rounding", "rtn", {"--rounding", "nearest"}, "rounding", "nearest"},
    {"column_order", "natural", {"--column-order", "natural"}, "column_order", "natural"},
    {"damping", "0.5", {"--damping", "0.5"}, "damping", 0.5},
    {"off_diagonal", "0.25", {"--off-diagonal", "0.25"}, "off_diagonal", 0.25},
    {"sweeps", "0", {"--sweeps", "0"}, "sweeps", 0},
    {"rows_curve", "true", {"--rows-curve"}, "rows_curve", true},
    {"propagate_error", "false", {"--no-propagate-error"}, "propagate_error", false},
    {"format", "dequantized", {"--format", "dequantized"}, "format", "dequantized"},
    {"version", "GEMM", {"--version", "GEMM"}, "format", "awq-gemm"},
    {"smooth_only", "true", {"--smoothing-only"}, "format", "smoothed"},
    {"export_compatible", "true", {"--export-compatible"}, "export_compatible", true},
    {"pad_intermediate", "256", {"--pad-intermediate", "256"}, "pad_intermediate", 256},
    {"ignore", "[o_proj, '*x']", {"--ignore", "o_proj", "--ignore", "*x"}, "ignore", Json::array({"o_proj", "*x"})},
    {"modules_to_not_convert",
     "[visual]",
     {"--modules-to-not-convert", "visual"},
     "ignore",
     Json::array({"lm_head", "re:.*visual"})},
    {"mappings",
     "[{smooth_layer: a, balance_layers: [b]}]",
     {},
     "mappings",
     Json::parse(R"([{"smooth_layer": "a", "balance_layers": ["b"]}])")},
    {"overrides",
     "[{pattern: 're:a=b', bits: 16}, {pattern: c, group_size: 64, symmetric: true}]",
     {"--override", "re:a=b=bits:16", "--override", "c=group_size:64,symmetric:true"},
     "overrides",
     Json::parse(R"([{"pattern": "re:a=b", "bits": 16}, {"pattern": "c", "group_size": 64, "zero_point": false}])")},
    {"target_bits", "3.5", {"--target-bits", "3.5"}, "target_bits", 3.5},
    {"bit_choices", "[4, 8]", {"--bit-choices", "4,8"}, "bit_choices", Json::array({4, 8})},
    {"salient_ratio", "auto:0.01", {"--salient-ratio", "auto:0.01"}, "salient_ratio", "auto:0.01"},
    {"max_chunk_memory", "1MiB", {"--max-chunk-memory", "1MiB"}, "max_chunk_memory", 1 << 20},
    {"self_generated", "0.25", {"--self-generated", "0.25"}, "self_generated", 0.25},
    {"batch_tokens", "9", {"--batch-tokens", "9"}, "batch_tokens", 9},
    {"n_parallel_calib_samples", "2", {"--n-parallel-calib-samples", "2"}, "n_parallel_calib_samples", 2},
    {"max_calib_samples", "5", {"--samples", "5"}, "max_calib_samples", 5},
    {"max_calib_seq_len", "64", {"--max-calib-seq-len", "64"}, "max_calib_seq_len", 64},
    {"split", "12", {"--split", "12"}, "split", "12"},
    {"search", kSearchFile, {"--search", kSearchFile}, "search", kSearchFile},
    {"save_search", "12", {"--save-search", "12"}, "save_search", "12"},
    {"text_column", "null_", {"--text-column", "null_"}, "text_column", "null_"},
    {"max_shard_size", "1GB", {"--max-shard-size", "1GB"}, "max_shard_size", 1'000'000'000},
    {"max_memory", "2GB", {"--max-memory", "2GB"}, "max_memory", 2'000'000'000},
};

TEST(QuantizationSettings, EveryRowReadsTheSameFromYamlAndFlags) {
  std::set<std::string> seen;
  const Json defaults = to_json(QuantizationConfig());
  for (const Case& c : kCases) {
    const Json yaml = to_json(from_yaml(c.key + ": " + c.yaml));
    EXPECT_EQ(yaml.at(c.printed_key), c.printed) << c.key;
    EXPECT_EQ(yaml == defaults, c.key == "version") << c.key;  // its only value is the default
    if (!c.flags.empty()) {
      EXPECT_EQ(to_json(from_flags(c.flags)), yaml) << c.key;
    }
    seen.insert(c.key);
  }
  for (const QuantizationSetting& setting : quantization_settings())
    EXPECT_TRUE(seen.contains(std::string(setting.key))) << setting.key;
}

TEST(QuantizationSettings, NothingGivenIsTheDefault) {
  EXPECT_EQ(to_json(from_yaml("")), to_json(QuantizationConfig()));
  EXPECT_EQ(to_json(from_flags({})), to_json(QuantizationConfig()));
  EXPECT_EQ(to_json(from_yaml("method: awq")), to_json(QuantizationConfig()));  // the method's row and AwqOptions agree
}

TEST(QuantizationSettings, NamesAreUnique) {
  std::set<std::string> names;
  for (const std::string& name : quantization_setting_names()) EXPECT_TRUE(names.insert(name).second) << name;
}

TEST(QuantizationSettings, MethodsTurnOnWhatTheyAreAndSingleSettingsOverride) {
  const auto json = [](std::string_view text) { return to_json(from_yaml(text)); };
  const Json gptq = json("method: gptq");
  EXPECT_EQ(gptq.at("scale"), false);
  EXPECT_EQ(gptq.at("clip"), false);
  EXPECT_EQ(gptq.at("rounding"), "gram");
  EXPECT_EQ(gptq.at("off_diagonal"), 1.0);
  EXPECT_EQ(gptq.at("sweeps"), 0);
  const Json adaround = json("method: adaround");
  EXPECT_EQ(adaround.at("scale"), false);
  EXPECT_EQ(adaround.at("clip"), true);
  EXPECT_EQ(adaround.at("rounding"), "adaround");
  const Json rtn = json("method: rtn");
  EXPECT_EQ(rtn.at("scale"), false);
  EXPECT_EQ(rtn.at("clip"), false);
  EXPECT_EQ(rtn.at("rounding"), "nearest");
  // Whatever the order in the file.
  EXPECT_EQ(json("{clip: true, sweeps: 3, method: gptq}").at("clip"), true);
  EXPECT_EQ(json("{clip: true, sweeps: 3, method: gptq}").at("sweeps"), 3);
  EXPECT_EQ(find_method("nothing"), nullptr);
  EXPECT_EQ(find_method("AdaRound")->name, "adaround");
}

TEST(QuantizationSettings, AMethodOfALaterLayerKeepsSingleSettingsOfAnEarlierOne) {
  const auto layer = [](std::string_view text) { return given_settings(ConfigNode::parse(text, "layer")); };
  const Json json = to_json(make_quantization_config(override_settings(layer("{clip: true, zero_point: true, format: dequantized}"),
                                                                       layer("{method: gptq, symmetric: true, smooth_only: true}")),
                                                     "test"));
  EXPECT_EQ(json.at("method"), "gptq");
  EXPECT_EQ(json.at("clip"), true);
  EXPECT_EQ(json.at("zero_point"), false);
  EXPECT_EQ(json.at("format"), "smoothed");
}

// A name that AutoAWQ's users give to a family of models may match nothing in this one; a name given to `ignore` is meant.
TEST(QuantizationSettings, WhatMayMatchNothingIsKnown) {
  EXPECT_THAT(from_yaml("{ignore: [a], modules_to_not_convert: [visual, lm_head]}").awq.ignore_may_miss,
              ::testing::ElementsAre("re:.*visual"));
  EXPECT_THAT(from_flags({"--ignore", "a"}).awq.ignore_may_miss, ::testing::IsEmpty());
  EXPECT_FALSE(from_yaml("overrides: [{pattern: a, bits: 8}]").awq.overrides.at(0).may_miss);
}

TEST(QuantizationSettings, TheTextColumnIsOfTheUsersOwnFiles) {
  const QuantizationConfig config = from_yaml("text_column: content");
  QuantizeJob sampled;  // the calibrate stage will make the file
  apply_to_job(config, sampled);
  EXPECT_EQ(sampled.render.fields.text, "");
  QuantizeJob own;
  own.calibration_file = "mine.jsonl";
  apply_to_job(config, own);
  EXPECT_EQ(own.render.fields.text, "content");
  apply_to_job(from_yaml("text_column: text"), own = {});
  EXPECT_EQ(own.render.fields.text, "") << "the usual name leaves other layouts possible";
}

TEST(QuantizationSettings, JobsGetWhatIsSet) {
  QuantizeJob job;
  apply_to_job(from_yaml("{n_parallel_calib_samples: 3, max_calib_seq_len: 100, max_calib_samples: 7, max_shard_size: 1GB, "
                         "max_memory: 2GB, bits: 8}"),
               job);
  EXPECT_EQ(job.model.batch_tokens, 300);
  EXPECT_EQ(job.max_seq_len, 100);
  EXPECT_EQ(job.samples, 7);
  EXPECT_EQ(job.model.max_shard_bytes, 1'000'000'000u);
  EXPECT_EQ(job.model.max_memory_bytes, 2'000'000'000u);
  EXPECT_EQ(job.model.awq.spec.weight_bits, 8);
  QuantizeJob other;
  other.max_seq_len = 33;
  apply_to_job(from_yaml("batch_tokens: 5"), other);
  EXPECT_EQ(other.max_seq_len, 33);
  EXPECT_EQ(other.model.batch_tokens, 5);
}

// AutoAWQ 0.2.9's own signature (scripts/goldens/autoawq_parameters.py). Where our default differs, the second column says so.
TEST(QuantizationSettings, EveryParameterOfAutoAwqHasItsCounterpart) {
  const Json parameters = read_json_file(std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/settings/autoawq_parameters.json");
  const std::map<std::string, std::string> elsewhere = {{"tokenizer", "the model folder's"},
                                                        {"quant_config", "--quant-config"},
                                                        {"calib_data", "--calib, calibration.file"},
                                                        {"quantizer_cls", "method"}};
  const std::map<std::string, Json> ours = {
      {"duo_scaling", "both"},         // the better of AutoAWQ's two
      {"max_calib_samples", nullptr},  // the whole file: nothing is downloaded whose first rows would be taken
      {"max_calib_seq_len", nullptr},  // 512, by calibration.max_seq_len and QuantizeJob
      {"version", "awq-gemm"},        {"modules_to_not_convert", Json::array({"lm_head"})},
  };
  const Json defaults = to_json(QuantizationConfig());
  int checked = 0;
  for (const auto& [section, members] : parameters.items()) {
    for (const auto& [name, value] : members.items()) {
      if (elsewhere.contains(name)) continue;
      const QuantizationSetting* setting = find_quantization_setting(name);
      ASSERT_NE(setting, nullptr) << section << " " << name;
      const std::string key(setting->print != nullptr ? setting->key : setting->same_as);
      EXPECT_EQ(defaults.at(key), ours.contains(name) ? ours.at(name) : value) << name;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 15);
  EXPECT_EQ(QuantizeJob().max_seq_len, parameters.at("quantize").at("max_calib_seq_len"));
}

TEST(QuantizationSettings, QuantConfigIsAutoAwqs) {
  const auto read = [](const std::string& word) {
    return make_quantization_config(read_quant_config(word, "salient quantize"), "test").awq;
  };
  const AwqOptions inline_json =
      read(R"( {"zero_point": false, "q_group_size": 64, "w_bit": 3, "version": "GEMM", "modules_to_not_convert": ["v.sual"]})");
  EXPECT_EQ(inline_json.spec.weight_bits, 3);
  EXPECT_EQ(inline_json.spec.group_size, 64);
  EXPECT_FALSE(inline_json.spec.zero_point);
  // Anywhere in the name, and a dot is a dot.
  EXPECT_TRUE(matches_any(inline_json.ignore, "model.v.sual_tower.fc1"));
  EXPECT_FALSE(matches_any(inline_json.ignore, "model.visual.fc1"));
  test::TemporaryFolder folder;
  write_file(
      folder.path() / "q.json",
      R"({"quant_method": "awq", "zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "gemm", "modules_to_not_convert": null})");
  EXPECT_EQ(read((folder.path() / "q.json").string()).spec.group_size, 32);
  EXPECT_EQ(read("{\"version\": \"gemv\"}").format, WeightFormat::kAwqGemv);
  EXPECT_EQ(read("{\"version\": \"GEMV_FAST\"}").format, WeightFormat::kAwqGemvFast);
  EXPECT_THAT(error_of([&] { read("{\"version\": \"exllama\"}"); }),
              AllOf(HasSubstr("--quant-config"), HasSubstr("'exllama'"), HasSubstr("'gemv_fast'"), HasSubstr("load gemm")));
  EXPECT_THAT(error_of([&] { read("{\"w_bits\": 4}"); }), HasSubstr("did you mean 'w_bit'"));
}

// Marlin has no zero points: not said, they are left out; asked for, check_format will refuse.
TEST(QuantizationSettings, AFormatWithoutZeroPointsSaysSo) {
  EXPECT_FALSE(from_yaml("format: awq-marlin").awq.spec.zero_point);
  EXPECT_FALSE(from_flags({"--version", "marlin"}).awq.spec.zero_point);
  EXPECT_FALSE(from_yaml("{format: awq-marlin, symmetric: true}").awq.spec.zero_point);
  const AwqOptions asked = from_yaml("{format: awq-marlin, zero_point: true}").awq;
  EXPECT_TRUE(asked.spec.zero_point);
  EXPECT_THAT(error_of([&] { check_stored(asked); }, ErrorKind::kUnsupported),
              HasSubstr("awq-marlin stores symmetric weights only"));
  EXPECT_TRUE(from_yaml("format: awq-gemv").awq.spec.zero_point);
}

TEST(QuantizationSettings, MappingsAreReadInBothForms) {
  const AwqOptions awq =
      from_yaml("mappings: [[[a, b], c], {smooth_layer: d, balance_layers: [e], activation_hook_target: f}]").awq;
  ASSERT_EQ(awq.mappings.size(), 2u);
  EXPECT_EQ(awq.mappings[0].smooth_layer, "c");
  EXPECT_EQ(awq.mappings[0].balance_layers, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(awq.mappings[1].smooth_layer, "d");
  test::TemporaryFolder folder;
  write_file(folder.path() / "m.yaml", "- {smooth_layer: s, balance_layers: [t]}\n");
  EXPECT_EQ(from_flags({"--mappings", (folder.path() / "m.yaml").string()}).awq.mappings.at(0).smooth_layer, "s");
}

TEST(QuantizationSettings, TheSplitNamesAFileOfAFolder) {
  test::TemporaryFolder folder;
  write_file(folder.path() / "validation.txt", "x");
  EXPECT_EQ(resolve_split(folder.path(), "validation"), folder.path() / "validation.txt");
  write_file(folder.path() / "test.parquet", "x");
  EXPECT_EQ(resolve_split(folder.path(), "test"), folder.path() / "test.parquet");
  EXPECT_EQ(resolve_split("anything.jsonl", "validation"), "anything.jsonl");
  EXPECT_THAT(error_of([&] { resolve_split(folder.path(), "train"); }, ErrorKind::kNotFound), HasSubstr("split 'train'"));
}

TEST(QuantizationSettings, TheHeadIsNotIgnoredWhenItIsQuantized) {
  EXPECT_THAT(from_yaml("").awq.ignore, ::testing::ElementsAre("lm_head"));
  EXPECT_TRUE(from_yaml("lm_head: int8").awq.ignore.empty());
}

TEST(QuantizationSettings, RefusesWithPlace) {
  const auto yaml = [](std::string_view text) { return error_of([&] { from_yaml(text); }); };
  EXPECT_THAT(yaml("{bits: four}"), HasSubstr("s.yaml:1:8: 'bits': found 'four'"));
  EXPECT_EQ(yaml("{bits: 7}"), "s.yaml:1:8: 'bits': found '7', expected 2, 3, 4, 5, 6 or 8 bits");
  EXPECT_EQ(yaml("{group_size: 5}"),
            "s.yaml:1:14: 'group_size': found '5', expected an integer, 8 or more, or -1 (one group for each output channel)");
  EXPECT_THAT(yaml("{group_size: 0}"), HasSubstr("found '0'"));
  EXPECT_EQ(yaml("{target_bits: 9}"), "s.yaml:1:15: 'target_bits': found '9', expected 0 (off) or a mean from 2 to 8 bits");
  EXPECT_EQ(yaml("{target_bits: 2.5, bit_choices: [4, 3]}"),
            "s.yaml: target_bits: found 2.5, expected 3 to 8: bit_choices has nothing smaller");
  EXPECT_THAT(yaml("{bit_choices: [4, 7]}"), HasSubstr("'bit_choices.1': found '7', expected 2, 3, 4, 5, 6 or 8 bits"));
  EXPECT_THAT(yaml("{bit_choices: '4,7'}"), HasSubstr("expected some of 2, 3, 4, 5, 6 and 8 bits"));
  EXPECT_THAT(yaml("{activation_bits: 5}"), HasSubstr("s.yaml:1:19: 'activation_bits': found '5', expected one of 4, 8, 16"));
  EXPECT_THAT(yaml("{grup_size: 64}"), HasSubstr("s.yaml:1:2: unknown key 'grup_size'; did you mean 'group_size'?"));
  EXPECT_THAT(yaml("{bits: 4, w_bit: 4}"), AllOf(HasSubstr("'w_bit' is given twice"), HasSubstr("s.yaml:1:8")));
  EXPECT_THAT(yaml("{zero_point: true, symmetric: true}"), HasSubstr("'symmetric' is given twice, as 'zero_point'"));
  EXPECT_THAT(yaml("{method: gtpq}"), HasSubstr("did you mean 'gptq'"));
  EXPECT_THAT(yaml("{format: awq_gemm}"), HasSubstr("did you mean 'awq-gemm'"));
  EXPECT_THAT(yaml("{off_diagonal: 1.5}"), HasSubstr("from 0 to 1"));
  EXPECT_THAT(yaml("{off_diagonal: some}"), HasSubstr("'auto'"));
  EXPECT_THAT(yaml("{salient_ratio: 0.6}"), HasSubstr("0.5"));
  EXPECT_THAT(yaml("{salient_ratio: 'auto:x'}"), HasSubstr("'auto'"));
  EXPECT_THAT(yaml("{target_bits: 1.5}"), HasSubstr("from 2 to 8 bits"));
  EXPECT_THAT(yaml("{overrides: [{pattern: x, bits: 7}]}"), HasSubstr("overrides.0.bits"));
  EXPECT_THAT(yaml("{overrides: [{bits: 4}]}"), HasSubstr("pattern"));
  EXPECT_THAT(yaml("{overrides: [{pattern: x}]}"), HasSubstr("bits, group_size or zero_point"));
  EXPECT_THAT(yaml("{overrides: [{pattern: x, zero_point: true, symmetric: true}]}"), HasSubstr("says the same"));
  EXPECT_THAT(yaml("{format: dequantized, smooth_only: true}"), HasSubstr("not 'dequantized'"));
  EXPECT_THAT(yaml("{mappings: [{smooth_layer: a}]}"), HasSubstr("balance_layers"));
  const auto flags = [](const std::vector<std::string>& words) { return error_of([&] { from_flags(words); }); };
  EXPECT_EQ(
      flags({"--group-size", "big"}),
      "salient quantize: --group-size: found 'big', expected an integer, 8 or more, or -1 (one group for each output channel)");
  EXPECT_EQ(flags({"--override", "down_proj=bits:7"}),
            "salient quantize: --override: '0.bits': found '7', expected 2, 3, 4, 5, 6 or 8 bits, or 16 for float");
  EXPECT_EQ(flags({"--clip", "--no-clip"}), "salient quantize: --no-clip: 'clip' is given twice, also at salient quantize: --clip");
  EXPECT_EQ(flags({"--override", "down_proj"}),
            "salient quantize: --override: 'down_proj': expected PATTERN=bits:3,group_size:64,zero_point:false");
  EXPECT_THAT(flags({"--override", "a=bits:x"}), HasSubstr("--override"));
  EXPECT_THAT(flags({"--override", "a=bits"}), HasSubstr("found 'bits'"));
  EXPECT_THAT(flags({"--format", "awq"}),
              AllOf(HasSubstr("salient quantize: --format: found 'awq'"), HasSubstr("compressed-tensors")));
  EXPECT_THAT(flags({"--smooth-only", "--format", "dequantized"}),
              HasSubstr("salient quantize: --smooth-only: found 'true', expected no other format"));
  EXPECT_THAT(flags({"--damping", "[1]"}), HasSubstr("--damping"));
}

TEST(QuantizationSettings, AFormatThatCannotHoldTheCodesIsRefused) {
  EXPECT_THAT(error_of([] { check_stored(from_yaml("bits: 3").awq); }, ErrorKind::kUnsupported),
              AllOf(HasSubstr("3"), HasSubstr("4")));
  for (const char* text :
       {"{bits: 3, format: compressed-tensors}", "{bits: 3, smooth_only: true}", "{bits: 3, export_compatible: true}"}) {
    EXPECT_NO_THROW(check_stored(from_yaml(text).awq)) << text;
  }
}

}  // namespace
}  // namespace salient::pipeline
