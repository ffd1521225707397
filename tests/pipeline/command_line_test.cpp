// The program as it is typed: help, exit codes of wrong calls, the commands for checking, the listings after a run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "common/file.h"
#include "common/json.h"
#include "pipeline/commands/commands.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

ProgramResult run_ok(std::vector<std::string> arguments, const fs::path& folder) {
  ProgramResult result = run_program(std::move(arguments), folder);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result;
}

// A folder with a finished run, made once.
const fs::path& finished_run() {
  static const TemporaryFolder folder;
  static const bool made = [] {
    write_demo_config(folder.path());
    run_ok({"run", "run.yaml"}, folder.path());
    return true;
  }();
  static_cast<void>(made);
  return folder.path();
}
const std::string kArtifactPath = std::string("artifacts/") + kDemoArtifact;

TEST(CommandLine, HelpOfEveryCommandHasExamples) {
  const TemporaryFolder folder;
  const ProgramResult overview = run_ok({"--help"}, folder.path());
  ASSERT_GT(pipeline::commands().size(), 15U);
  for (const pipeline::Command& command : pipeline::commands()) {
    const std::string name(command.name);
    SCOPED_TRACE(name);
    EXPECT_THAT(overview.out, HasSubstr("\n  " + name + " "));
    EXPECT_THAT(overview.out, HasSubstr(std::string(command.summary)));
    const ProgramResult result = run_ok({name, "--help"}, folder.path());
    EXPECT_THAT(result.out, StartsWith("usage: salient " + name + " "));
    const size_t examples = result.out.find("\nexamples:\n");
    ASSERT_NE(examples, std::string::npos);
    EXPECT_THAT(result.out.substr(examples), HasSubstr("\n  salient " + name + " "));
    EXPECT_THAT(result.out, HasSubstr("--help"));
    EXPECT_EQ(result.err, "");
  }
  EXPECT_TRUE(fs::is_empty(folder.path())) << "asking for help made files";
}

TEST(CommandLine, VersionIsOneLine) {
  const ProgramResult result = run_ok({"--version"}, {});
  EXPECT_EQ(result.out, "salient " SALIENT_VERSION "\n");
}

TEST(CommandLine, HelpOfACommandMayBeAskedForLikeGits) {
  EXPECT_EQ(run_ok({"help", "quantize"}, {}).out, run_ok({"quantize", "--help"}, {}).out);
}

// A full disk behind ">", a closed output: a script must not take an empty file for an answer.
TEST(CommandLine, OutputThatCannotBeWrittenIsAnError) {
  const TemporaryFolder folder;
  for (const char* output : {"> /dev/full", ">&-"}) {
    for (const char* words : {"architectures", "--help", "inspect models/demo --json"}) {
      const std::string command = fmt::format("cd {} && {} {} {} 2> {}", SALIENT_SOURCE_DIR, SALIENT_PROGRAM, words, output,
                                              (folder.path() / "err").string());
      const int status = std::system(command.c_str());
      ASSERT_TRUE(WIFEXITED(status));
      EXPECT_EQ(WEXITSTATUS(status), 6) << command;
      EXPECT_THAT(read_text_file(folder.path() / "err"), HasSubstr("standard output: cannot write")) << command;
    }
  }
}

TEST(CommandLine, WrongCallsSayWhatIsWrong) {
  struct WrongCall {
    std::vector<std::string> arguments;
    std::vector<std::string> texts;  // all of them on standard error
  };
  const std::string model = kDemoModel.string();
  const std::vector<WrongCall> calls = {
      {{}, {"usage: salient COMMAND", "quantize"}},
      {{"quantise"}, {"unknown command 'quantise'", "'quantize'", "salient --help"}},
      {{"inspct", "x"}, {"unknown command 'inspct'", "'inspect'"}},
      {{"quantize", "--modle", "x"}, {"salient quantize", "unknown option --modle", "'--model'"}},
      {{"quantize", "--group_size", "64"}, {"--group_size", "'--group-size'"}},
      {{"quantize", "--model"}, {"salient quantize", "--model", "missing"}},
      {{"quantize", "--calib", "x", "--out", "y"}, {"--model is missing", "salient quantize --help"}},
      {{"quantize", "--model", model, "--calib", "x"}, {"--out is missing"}},
      {{"quantize", "--model", model, "--src", model, "--calib", "x", "--out", "y"}, {"--model is given 2 times"}},
      {{"quantize", "stray", "--model", model}, {"unexpected argument 'stray'"}},
      {{"quantize", "--model", model, "--calib", "x", "--out", "y", "--group-size", "big"},
       {"--group-size", "'big'", "an integer"}},
      {{"quantize", "--model", model, "--calib", "x", "--out", "y", "--max-shard-size", "huge"},
       {"--max-shard-size", "'huge'", "5GB"}},
      {{"eval"}, {"no model is named"}},
      {{"eval", model, "--no-store"}, {"no task is named", "--tasks"}},
      {{"eval", model, "--no-store", "--tasks", "arcc"}, {"arcc", "did you mean 'arc'", "openmath"}},
      {{"eval", model, "--no-store", "--tasks", "arc"}, {"task arc has no data file", "--data arc=FILE"}},
      {{"eval", model, "--no-store", "--tasks", "arc", "--data", "arc"}, {"--data", "TASK=FILE"}},
      {{"eval", model, "--no-store", "--tasks", "arc", "--log-samples"}, {"--log-samples without --output-path"}},
      {{"report", "--model", "a", "--run", "1"}, {"--model and --run"}},
      {{"inspect"}, {"found 0 models, expected one"}},
      {{"run"}, {"found 0 configs, expected one", "salient run CONFIG"}},
      {{"run", "a.yaml", "b.yaml"}, {"found 2 configs"}},
      {{"logits", "--model", model, "--ids", "1,two", "--out", "x.npy"}, {"--ids", "'two'"}},
      {{"logits", "--model", model, "--ids", "4096", "--out", "x.npy"}, {"4096", "vocabulary"}},
      {{"runs", "--limit", "-1"}, {"--limit", "'-1'"}},
  };
  const TemporaryFolder folder;
  for (const WrongCall& call : calls) {
    SCOPED_TRACE(testing::PrintToString(call.arguments));
    const ProgramResult result = run_program(call.arguments, folder.path());
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(result.out, "");
    for (const std::string& text : call.texts) EXPECT_THAT(result.err, HasSubstr(text));
  }
  EXPECT_TRUE(fs::is_empty(folder.path())) << "a wrong call made files";
}

TEST(CommandLine, UnsupportedChoicesHaveTheirOwnExitCode) {
  const TemporaryFolder folder;
  const std::string calib = write_calibration(folder.path()).string();
  const std::vector<std::string> base = {"quantize", "--model", kDemoModel.string(), "--calib", calib, "--out", "q"};
  for (const auto& [option, value] : std::map<std::string, std::string>{{"bits", "3"}, {"lm-head", "int8"}}) {
    std::vector<std::string> words = base;
    words.insert(words.end(), {"--" + option, value});
    const ProgramResult result = run_program(words, folder.path());
    EXPECT_EQ(result.exit_code, 5) << option;
    EXPECT_THAT(result.err, AllOf(HasSubstr(value), HasSubstr("awq-gemm"), HasSubstr("compressed-tensors")));
    EXPECT_FALSE(fs::exists(folder.path() / "q"));
  }
}

// The ids in the golden file are those of Hugging Face tokenizers.
TEST(CommandLine, TokenizeGivesTheReferencesIds) {
  const TemporaryFolder folder;
  const Json golden = read_json_file(SALIENT_SOURCE_DIR "/tests/data/tokenizer/golden.json");
  std::string lines;
  std::string expected;
  for (size_t i = 0; i < golden.at("texts").size(); ++i) {
    lines += dump_json(golden.at("texts")[i]) + "\n";
    expected += dump_json(golden.at("demo").at("ids")[i]) + "\n";
  }
  ASSERT_GT(expected.size(), 1000U);
  write_text(folder.path() / "strings.jsonl", lines);
  EXPECT_EQ(run_ok({"tokenize", "--model", kDemoModel.string(), "--file", "strings.jsonl"}, folder.path()).out, expected);
}

TEST(CommandLine, RenderGivesTheTemplatesTextAndNothingElse) {
  const TemporaryFolder folder;
  const std::string model = kDemoModel.string();
  write_text(folder.path() / "plain.json", R"([{"role": "user", "content": "  2 + 2?\n"}])");
  const std::string plain =
      "<|im_start|>system\nYou are a careful assistant. Think in short steps and end with the answer.<|im_end|>\n"
      "<|im_start|>user\n2 + 2?<|im_end|>\n";
  EXPECT_EQ(run_ok({"render", "--model", model, "--messages", "plain.json"}, folder.path()).out, plain);
  EXPECT_EQ(run_ok({"render", "--model", model, "--messages", "plain.json", "--add-generation-prompt"}, folder.path()).out,
            plain + "<|im_start|>assistant\n");

  write_text(
      folder.path() / "turns.json",
      R"([{"role": "system", "content": "Short."}, {"role": "user", "content": "Grüße 👋"}, {"role": "assistant", "content": "ok"}])");
  EXPECT_EQ(run_ok({"render", "--model", model, "--messages", "turns.json"}, folder.path()).out,
            "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\nGrüße 👋<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n");
}

struct Npy {
  std::string header;
  std::vector<float> values;
};

Npy read_npy(const fs::path& path) {
  const std::string bytes = file_bytes(path);
  Npy npy;
  EXPECT_THAT(bytes, StartsWith(std::string("\x93NUMPY\x01\x00", 8)));
  if (bytes.size() < 10) return npy;
  const size_t length = static_cast<unsigned char>(bytes[8]) + 256 * static_cast<size_t>(static_cast<unsigned char>(bytes[9]));
  EXPECT_EQ((10 + length) % 64, 0U);
  npy.header = bytes.substr(10, length);
  npy.values.resize((bytes.size() - 10 - length) / sizeof(float));
  std::memcpy(npy.values.data(), bytes.data() + 10 + length, npy.values.size() * sizeof(float));
  return npy;
}

TEST(CommandLine, LogitsAreANumpyFileAndTheSameEachTime) {
  const TemporaryFolder folder;
  for (const char* name : {"a.npy", "b.npy"}) {
    run_ok({"logits", "--model", kDemoModel.string(), "--ids", "4094,493,543,265,660", "--out", name}, folder.path());
  }
  EXPECT_TRUE(file_bytes(folder.path() / "a.npy") == file_bytes(folder.path() / "b.npy"));
  const Npy npy = read_npy(folder.path() / "a.npy");
  EXPECT_THAT(npy.header, AllOf(HasSubstr("'descr': '<f4'"), HasSubstr("'fortran_order': False"), HasSubstr("'shape': (5, 4096)")));
  ASSERT_EQ(npy.values.size(), 5U * 4096U);
  for (size_t row = 0; row < 5; ++row) {
    double total = 0;
    double largest = -INFINITY;
    for (size_t i = 0; i < 4096; ++i) largest = std::max(largest, double{npy.values[row * 4096 + i]});
    for (size_t i = 0; i < 4096; ++i) total += std::exp(npy.values[row * 4096 + i] - largest);
    EXPECT_TRUE(std::isfinite(total));
    EXPECT_GT(1 / total, 10.0 / 4096);  // a trained model is far from uniform
  }
  // The artifact's logits are near the original's, but they are not the original's.
  run_ok({"logits", "--model", (finished_run() / kArtifactPath).string(), "--ids", "4094,493,543,265,660", "--out", "q.npy"},
         folder.path());
  const Npy quantized = read_npy(folder.path() / "q.npy");
  ASSERT_EQ(quantized.values.size(), npy.values.size());
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < npy.values.size(); ++i) {
    difference += std::pow(quantized.values[i] - npy.values[i], 2);
    size += std::pow(npy.values[i], 2);
  }
  EXPECT_GT(difference, 0);
  EXPECT_LT(difference, 0.1 * size);
}

TEST(CommandLine, InspectTellsFloatFromQuantized) {
  const Json original = parse_json(run_ok({"inspect", kDemoModel.string(), "--json"}, finished_run()).out, "inspect");
  EXPECT_EQ(original.at("format"), "float");
  EXPECT_EQ(original.at("quantized_linears"), 0);
  EXPECT_TRUE(original.at("spec").is_null());
  const Json artifact = parse_json(run_ok({"inspect", kArtifactPath, "--json"}, finished_run()).out, "inspect");
  EXPECT_EQ(artifact.at("format"), "awq-gemm");
  EXPECT_EQ(artifact.at("method"), "awq");
  EXPECT_EQ(artifact.at("spec").at("weight_bits"), 4);
  EXPECT_EQ(artifact.at("spec").at("group_size"), 128);
  EXPECT_EQ(artifact.at("quantized_linears"), 28);  // 7 in each of 4 blocks
  EXPECT_TRUE(artifact.at("contradictions").empty());
  EXPECT_THAT(run_ok({"inspect", kArtifactPath}, finished_run()).out, AllOf(HasSubstr("awq-gemm"), HasSubstr("w4 a8 kv8 g128")));
}

TEST(CommandLine, EvalComparesWithTheBase) {
  const std::string arc = (kDemoModel / "data/arc_test.jsonl").string();
  const ProgramResult result =
      run_ok({"eval", kArtifactPath, "--compare-with", kDemoModel.string(), "--tasks", "arc", "--data", "arc=" + arc, "--limit",
              "20", "--no-throughput", "--store", "eval.db", "--json", "--output-path", "files", "--log-samples"},
             finished_run());
  const Json evaluation = parse_json(result.out, "eval --json");
  const Json& task = evaluation.at("model").at("tasks").at(0);
  EXPECT_EQ(task.at("task"), "arc");
  EXPECT_EQ(task.at("metrics").at(0).at("n"), 20);
  EXPECT_EQ(evaluation.at("base").at("tasks").at(0).at("metrics").at(0).at("n"), 20);

  const Json stored = parse_json(run_ok({"results", "--store", "eval.db", "--json"}, finished_run()).out, "results --json");
  EXPECT_EQ(stored.size(), 8U);  // acc and acc_norm of both models, and of the artifact their _difference and _retention

  // Files of lm-evaluation-harness' form, of each model in a folder of its own.
  int64_t results = 0;
  int64_t samples = 0;
  for (const auto& entry : fs::recursive_directory_iterator(finished_run() / "files")) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("results_")) ++results;
    if (!name.starts_with("samples_arc_")) continue;
    const std::string lines = read_text_file(entry.path());
    samples += std::count(lines.begin(), lines.end(), '\n');
  }
  EXPECT_EQ(results, 2);
  EXPECT_EQ(samples, 2 * 20);
}

TEST(CommandLine, ReportIsWrittenByARunAndByItsCommand) {
  const fs::path& folder = finished_run();
  EXPECT_THAT(read_text_file(folder / "runs/run_1.html"),
              AllOf(HasSubstr("<h1>" + std::string(kDemoArtifact)), HasSubstr("kl_divergence")));
  EXPECT_THAT(run_ok({"report", "--run", "1", "-o", "page.html"}, folder).out, HasSubstr("page.html: 1 model"));
  EXPECT_TRUE(fs::exists(folder / "page.html"));
  const ProgramResult nothing = run_program({"report", "--model", "no such model"}, folder);
  EXPECT_EQ(nothing.exit_code, 3);
  EXPECT_THAT(nothing.err, HasSubstr("no such model"));
}

// The same artifact with other bits is another result, and says so.
TEST(CommandLine, BitsOfActivationsAndKvCacheAreNamedAndKeptApart) {
  const std::vector<std::string> call = {"eval",           kArtifactPath,
                                         "--compare-with", kDemoModel.string(),
                                         "--data",         "perplexity=" + (kDemoModel / "data/heldout.txt").string(),
                                         "--limit",        "2",
                                         "--window",       "128",
                                         "--store",        "bits.db"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> words = call;
    words.insert(words.end(), more.begin(), more.end());
    return run_ok(words, finished_run()).out;
  };
  const auto perplexity = [](const Json& model) { return model.at("tasks").at(0).at("metrics").at(0).at("value").get<double>(); };
  const Json plain = parse_json(with({"--no-throughput", "--json"}), "plain");
  const Json coded = parse_json(with({"--activation-bits", "8", "--kv-bits", "8", "--json"}), "coded");
  EXPECT_FALSE(plain.at("model").at("description").contains("kv_bits"));
  EXPECT_EQ(coded.at("model").at("description").at("activation_bits"), 8);
  EXPECT_EQ(coded.at("model").at("description").at("kv_bits"), 8);
  EXPECT_FALSE(coded.at("base").at("description").contains("kv_bits")) << "the original is computed as it is";
  EXPECT_EQ(perplexity(plain.at("base")), perplexity(coded.at("base")));
  EXPECT_NE(perplexity(plain.at("model")), perplexity(coded.at("model")));
  EXPECT_NEAR(perplexity(coded.at("model")) / perplexity(plain.at("model")), 1.0, 0.02);
  EXPECT_THAT(coded.at("verdict").get<std::string>(), HasSubstr("(a8 kv8)"));
  EXPECT_THAT(with({"--kv-bits", "8", "--no-throughput"}), HasSubstr("value (kv8)"));

  const Json stored = parse_json(
      run_ok({"results", "--store", "bits.db", "--task", "perplexity", "--metric", "perplexity", "--json"}, finished_run()).out,
      "results");
  EXPECT_EQ(stored.size(), 4U);  // a16 kv16, a8 kv8, kv8, and the base once
  const std::string listed = run_ok({"results", "--store", "bits.db"}, finished_run()).out;
  EXPECT_THAT(listed, AllOf(HasSubstr("(a8 kv8)"), HasSubstr("(kv8)")));
  const Json speed =
      parse_json(run_ok({"results", "--store", "bits.db", "--task", "throughput", "--metric", "weights_memory_bytes", "--json"},
                        finished_run())
                     .out,
                 "speed");
  ASSERT_EQ(speed.size(), 2U);
  EXPECT_EQ(
      static_cast<int>(speed[0].at("config").contains("kv_bits")) + static_cast<int>(speed[1].at("config").contains("kv_bits")), 1);

  // A finished evaluation with other bits does not stand for this one; the artifact does.
  const Json plan = parse_json(
      run_ok({"run", "run.yaml", "--dry-run", "--json", "--set", "evaluation.kv_bits=8"}, finished_run()).out, "dry run");
  ASSERT_EQ(plan.at("stages").size(), 5U);
  for (size_t stage = 0; stage < 5; ++stage)
    EXPECT_EQ(plan.at("stages").at(stage).at("runs"), stage >= 3) << plan.at("stages").at(stage);
}

TEST(CommandLine, BitsThatCannotBeAreRefused) {
  const ProgramResult four = run_program({"generate", kDemoModel.string(), "--prompt", "x", "--kv-bits", "4"}, finished_run());
  EXPECT_NE(four.exit_code, 0);
  EXPECT_THAT(four.err, HasSubstr("--kv-bits: found '4', expected 8, or 16"));
  const ProgramResult floats =
      run_program({"generate", kDemoModel.string(), "--prompt", "x", "--activation-bits", "8"}, finished_run());
  EXPECT_NE(floats.exit_code, 0);
  EXPECT_THAT(floats.err, HasSubstr("no linear is quantized"));
  EXPECT_NE(run_ok({"generate", kDemoModel.string(), "--prompt", "There are three", "--max-new-tokens", "4", "--kv-bits", "8"},
                   finished_run())
                .out,
            "");
}

TEST(CommandLine, ListingsShowTheRun) {
  const fs::path& folder = finished_run();
  const Json runs = parse_json(run_ok({"runs", "--json"}, folder).out, "runs --json");
  ASSERT_FALSE(runs.empty());
  EXPECT_EQ(runs.back().at("name"), "run");
  EXPECT_EQ(runs.back().at("status"), "done");
  EXPECT_EQ(runs.back().at("stages").size(), 5U);
  EXPECT_THAT(run_ok({"runs"}, folder).out, AllOf(HasSubstr("Status"), HasSubstr("done")));
  EXPECT_THAT(run_ok({"runs", "--run", "1"}, folder).out, AllOf(HasSubstr("quantize"), HasSubstr("28 linears")));
  EXPECT_EQ(run_program({"runs", "--run", "77"}, folder).exit_code, 3);

  const Json models = parse_json(run_ok({"models", "--json"}, folder).out, "models --json");
  ASSERT_EQ(models.size(), 1U);
  EXPECT_EQ(models[0].at("name"), kDemoArtifact);
  EXPECT_EQ(models[0].at("there"), true);
  EXPECT_EQ(models[0].at("spec").at("group_size"), 128);
  EXPECT_THAT(run_ok({"models"}, folder).out, HasSubstr(kDemoArtifact));

  const Json results = parse_json(run_ok({"results", "--task", "arc", "--metric", "acc", "--json"}, folder).out, "results --json");
  ASSERT_EQ(results.size(), 2U);
  for (const Json& row : results) {
    EXPECT_EQ(row.at("n"), 40);
    EXPECT_GE(row.at("value").get<double>(), 0.3);
    EXPECT_LE(row.at("value").get<double>(), 1.0);
  }
  EXPECT_THAT(run_ok({"results"}, folder).out, AllOf(HasSubstr("perplexity"), HasSubstr("kl_divergence"), HasSubstr("acc_norm")));
}

TEST(CommandLine, ListingsWithoutAStoreSayWhereTheyLooked) {
  const TemporaryFolder folder;
  for (const char* name : {"runs", "models", "results", "report"}) {
    const ProgramResult result = run_program({name}, folder.path());
    EXPECT_EQ(result.exit_code, 3) << name;
    EXPECT_THAT(result.err, HasSubstr("runs/salient.db"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CommandLine, DryRunSaysWhatWouldRunAndChangesNothing) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const ProgramResult result = run_ok({"run", "run.yaml", "--dry-run", "--json"}, folder.path());
  const Json plan = parse_json(result.out, "run --dry-run --json");
  EXPECT_EQ(plan.at("artifact"), kDemoArtifact);
  ASSERT_EQ(plan.at("stages").size(), 5U);
  for (const Json& stage : plan.at("stages")) EXPECT_EQ(stage.at("runs"), true);
  EXPECT_FALSE(fs::exists(folder.path() / "artifacts"));
  EXPECT_FALSE(fs::exists(folder.path() / "runs")) << "a dry run made a store";

  const auto before = names_of(folder_bytes(finished_run() / "artifacts"));
  const Json done = parse_json(run_ok({"run", "run.yaml", "--dry-run", "--json"}, finished_run()).out, "dry run");
  for (const Json& stage : done.at("stages")) EXPECT_EQ(stage.at("runs"), false) << stage;
  const Json other = parse_json(
      run_ok({"run", "run.yaml", "--dry-run", "--json", "--set", "quantization.group_size=64"}, finished_run()).out, "dry run");
  EXPECT_THAT(other.at("artifact").get<std::string>(), HasSubstr("_g64_"));
  EXPECT_EQ(other.at("stages").at(0).at("runs"), false);
  EXPECT_EQ(other.at("stages").at(1).at("runs"), true);
  EXPECT_EQ(names_of(folder_bytes(finished_run() / "artifacts")), before);
}

TEST(CommandLine, SetChangesTheConfig) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  run_ok({"run", "run.yaml", "--set", "quantization.group_size=64", "--set", "output.folder=elsewhere", "--set",
          "evaluation.tasks=[]", "--set", "output.store=elsewhere/store.db"},
         folder.path());
  EXPECT_FALSE(fs::exists(folder.path() / "artifacts"));
  EXPECT_FALSE(fs::exists(folder.path() / "runs"));
  const std::string artifact = "elsewhere/Qwen3-Demo-openmath_SFT_NoPeft_AWQ_w4_g64_headfp16_quantized";
  const Json config = read_json_file(folder.path() / artifact / "config.json");
  EXPECT_EQ(config.at("quantization_config").at("group_size"), 64);
}

TEST(CommandLine, SourcePlatformsSpellingsWork) {
  const TemporaryFolder folder;
  const std::string calib = write_calibration(folder.path()).string();
  const std::string model = kDemoModel.string();
  run_ok({"quantize", "--method", "awq", "--src", model, "--dst", "theirs", "--calib", calib, "--bits", "4", "--group-size", "128",
          "--keep-lm-head-fp16", "--n-grid", "4"},
         folder.path());
  const ProgramResult ours =
      run_ok({"quantize", "--model", model, "--out", "ours", "--calib", calib, "--n-grid", "4", "--json"}, folder.path());
  const Json report = parse_json(ours.out, "quantize --json");
  EXPECT_EQ(report.at("summary").at("linears"), 28);
  EXPECT_LT(report.at("summary").at("error_ratio").get<double>(), 1.0);
  EXPECT_TRUE(folder_bytes(folder.path() / "theirs") == folder_bytes(folder.path() / "ours"));
}

TEST(CommandLine, CalibrateWritesTheNamedFileAndItsRecord) {
  const TemporaryFolder folder;
  const std::string data = (kDemoModel / "data/openmath_train.jsonl").string();
  const std::vector<std::string> words = {
      "calibrate", "--model", kDemoModel.string(), "--data", data, "--dataset", "openmath", "--samples", "12", "--out", "calib",
      "--txt",     "--json"};
  const Json report = parse_json(run_ok(words, folder.path()).out, "calibrate --json");
  const fs::path texts = folder.path() / "calib/calibration_openmath_2000samples.jsonl";
  ASSERT_TRUE(fs::exists(texts));
  EXPECT_EQ(report.at("record").at("samples"), 12);
  const std::string bytes = file_bytes(texts);
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), '\n'), 12);
  EXPECT_TRUE(fs::exists(folder.path() / "calib/calibration_openmath_2000samples.txt"));
  // The same sample as that of a run with the same settings.
  for (const auto& [name, found] : folder_bytes(finished_run() / "artifacts/calibration")) {
    if (!name.ends_with(".jsonl")) continue;
    EXPECT_TRUE(found == bytes) << name;
  }
  run_ok(words, folder.path());  // the same content again is no conflict
}

}  // namespace
}  // namespace salient::test
