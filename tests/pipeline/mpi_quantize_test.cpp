// `mpirun -n N salient quantize`, with the real MPI: several processes make one artifact.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>
#include <sstream>
#include <utility>

#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "models/io/checkpoint.h"
#include "pipeline/search_file.h"
#include "support/demo_run.h"
#include "support/golden_checkpoint.h"
#include "support/run_program.h"
#include "support/slurm.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Words = std::vector<std::string>;

// The path of a program of PATH; "" where it is not there.
std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  for (const std::string& folder : split(path != nullptr ? path : "", ':')) {
    if (::access((fs::path(folder) / name).c_str(), X_OK) == 0) return (fs::path(folder) / name).string();
  }
  return "";
}

std::string find_mpirun() { return find_program("mpirun"); }

// Of mpirun: as root and with more ranks than cores, as tests run.
Words launch(int ranks, const Words& program) {
  Words words = {"--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(ranks)};
  words.insert(words.end(), program.begin(), program.end());
  return words;
}

Words salient(Words words) {
  words.insert(words.begin(), SALIENT_PROGRAM);
  return words;
}

ProgramCall call_of(const Words& words, const fs::path& folder) {
  ProgramCall call;
  call.program = find_mpirun();
  call.arguments = words;
  call.folder = folder;
  call.environment = {{"OMP_NUM_THREADS", "1"}};
  call.timeout = std::chrono::seconds(240);
  return call;
}

// Why these tests cannot run; "" where they can.
const std::string& reason_to_skip() {
  static const std::string reason = [] {
    if (find_mpirun().empty())
      return std::string("there is no mpirun: apt-get install openmpi-bin libopenmpi-dev, configure and build again");
    const TemporaryFolder folder;
    const ProgramResult result =
        run_program(call_of(launch(2, salient({"quantize", "--model", "none", "--calib", "none", "--out", "out"})), folder.path()));
    if (result.err.find("MPI_NOT_BUILT") != std::string::npos)
      return std::string("this build has no MPI: configure and build again");
    return std::string();
  }();
  return reason;
}

template <typename Value>
std::set<std::string> keys_of(const std::map<std::string, Value>& values) {
  std::set<std::string> keys;
  for (const auto& [key, value] : values) keys.insert(key);
  return keys;
}

struct Report {
  double rtn_error = 0;
  double error = 0;
};

class MpiQuantize : public testing::Test {
 protected:
  void SetUp() override {
    if (!reason_to_skip().empty()) GTEST_SKIP() << reason_to_skip();
    write_calibration(folder());
  }

  const fs::path& folder() const { return folder_.path(); }

  Words demo_words(const std::string& out, const Words& more = {}, const std::string& calibration = "calibration.jsonl",
                   const std::string& self_generated = "0.5") const {
    Words words = {"quantize",      "--model", kDemoModel.string(), "--calib", calibration,        "--out",       out,
                   "--max-seq-len", "128",     "--n-grid",          "4",       "--self-generated", self_generated};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  // Two ranks, of which each is given its words.
  Words two_ranks(const Words& first, const Words& second) const {
    Words words = launch(1, first);
    words.insert(words.end(), {":", "-n", "1"});
    words.insert(words.end(), second.begin(), second.end());
    return words;
  }
  // Two ranks, of which one is killed once `blocks` blocks are done: what a machine that fails does.
  ProgramResult run_killed(const std::string& out, int64_t blocks) const {
    write_text(folder() / "killed.sh",
               "\"$@\" &\nchild=$!\nwhile ! grep -q '\"blocks_done\":[" + std::to_string(blocks) + "-9]' " + out +
                   ".partial/progress.json 2>/dev/null; do sleep 0.01; done\nkill -9 $child\nwait $child\n");
    Words second = salient(demo_words(out));
    second.insert(second.begin(), {"sh", "killed.sh"});
    return run_program(call_of(two_ranks(salient(demo_words(out)), second), folder()));
  }
  ProgramResult run_ranks(int ranks, const Words& words) const {
    return run_program(call_of(launch(ranks, salient(words)), folder()));
  }
  ProgramResult run_alone(const Words& words) const { return run_program(words, folder(), {{"OMP_NUM_THREADS", "1"}}); }

  std::map<std::string, std::string> bytes(const std::string& name) const { return folder_bytes(folder() / name); }

  // Of every linear by its name.
  std::map<std::string, Report> reports(const std::string& name) const {
    std::map<std::string, Report> found;
    const Json metadata = read_json_file(folder() / name / "quantization_metadata.json");
    for (const Json& layer : metadata.at("layers"))
      found[layer.at("name").get<std::string>()] = {layer.at("rtn_error").get<double>(), layer.at("error").get<double>()};
    return found;
  }

  // The same files and tensors. What rounding to nearest loses tells whether all tokens were counted: in the first block, which no
  // choice has moved yet, to seven digits. Every linear is nearly as good: sums in another order move a few codes, and where two
  // scales or factors of the correlations are as good as each other, the choice. Of what rounding to nearest loses that is no
  // hundredth; of all that is left, up to a twentieth, which is also what one process makes of the same rows in another order.
  void expect_equivalent(const std::string& one, const std::string& several) const {
    EXPECT_EQ(names_of(bytes(one)), names_of(bytes(several)));
    const models::Checkpoint expected(folder() / one);
    const models::Checkpoint found(folder() / several);
    ASSERT_EQ(expected.names(), found.names());
    for (const std::string& name : expected.names()) {
      EXPECT_EQ(expected.info(name).shape, found.info(name).shape) << name;
      EXPECT_EQ(expected.info(name).dtype, found.info(name).dtype) << name;
    }
    const std::map<std::string, Report> of_one = reports(one);
    const std::map<std::string, Report> of_several = reports(several);
    ASSERT_EQ(keys_of(of_one), keys_of(of_several));
    double sum = 0;
    double sum_of_several = 0;
    for (const auto& [name, report] : of_one) {
      const Report& other = of_several.at(name);
      const bool first_block = name.find("layers.0.") != std::string::npos;
      EXPECT_NEAR(other.rtn_error, report.rtn_error, (first_block ? 1e-6 : 0.01) * report.rtn_error) << name;
      EXPECT_NEAR(other.error, report.error, 0.01 * report.rtn_error) << name;
      sum += report.error;
      sum_of_several += other.error;
    }
    EXPECT_NEAR(sum_of_several, sum, 0.08 * sum);
  }

  void expect_same_bytes(const std::string& a, const std::string& b) const {
    const auto expected = bytes(a);
    const auto found = bytes(b);
    EXPECT_EQ(names_of(expected), names_of(found));
    for (const auto& [name, content] : expected) EXPECT_TRUE(found.contains(name) && found.at(name) == content) << name;
  }

  // Blocks that are done of an artifact in the making; -1 before the first progress.
  int64_t blocks_done(const std::string& out) const {
    const std::string text = file_bytes(folder() / (out + ".partial") / "progress.json");
    return text.empty() ? -1 : parse_json(text, "progress.json").at("blocks_done").get<int64_t>();
  }

  TemporaryFolder folder_;
};

TEST_F(MpiQuantize, OneRankGivesTheBytesOfAPlainRun) {
  ASSERT_EQ(run_alone(demo_words("plain")).exit_code, 0);
  const ProgramResult result = run_ranks(1, demo_words("one"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_same_bytes("plain", "one");
}

TEST_F(MpiQuantize, SeveralRanksGiveWhatOneGives) {
  ASSERT_EQ(run_alone(demo_words("plain")).exit_code, 0);
  for (const int ranks : {2, 3}) {
    SCOPED_TRACE(ranks);
    const std::string out = std::to_string(ranks);
    const ProgramResult result = run_ranks(ranks, demo_words(out));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr(out + ": 28 linears in 4 bits"));
    // Rank 0 alone speaks.
    EXPECT_EQ(result.out.find("28 linears"), result.out.rfind("28 linears"));
    EXPECT_EQ(result.err.find("for each rank"), result.err.rfind("for each rank"));
    expect_equivalent("plain", out);
    EXPECT_FALSE(fs::exists(folder() / (out + ".partial")));
    const ProgramResult again = run_ranks(ranks, demo_words(out + "_again"));
    ASSERT_EQ(again.exit_code, 0) << again.err;
    expect_same_bytes(out, out + "_again");
  }
}

// Every place where ranks tell each other something: scales of the KV cache, chosen bits, what the searches find, a GGUF file's
// head, hidden states of the float model, one factor for all of an input's correlations.
TEST_F(MpiQuantize, EverySettingIsShared) {
  const std::vector<Words> settings = {{"--format", "compressed-tensors", "--write-runtime-bits"},
                                       {"--format", "compressed-tensors", "--target-bits", "4.5", "--save-search", "search"},
                                       {"--format", "gguf-q4_k_m"},
                                       {"--no-propagate-error", "--rounding", "nearest", "--format", "dequantized"},
                                       {"--off-diagonal", "1", "--salient-ratio", "0.05", "--format", "dequantized"},
                                       {"--smooth-only"}};
  for (size_t i = 0; i < settings.size(); ++i) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(settings[i], " ")));
    const std::string one = fmt::format("one_{}", i);
    const std::string two = fmt::format("two_{}", i);
    const auto named = [&](const std::string& name) {
      Words more = settings[i];
      std::replace(more.begin(), more.end(), std::string("search"), name + ".awq");
      return demo_words(name, more);
    };
    const ProgramResult alone = run_alone(named(one));
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    const ProgramResult result = run_ranks(2, named(two));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    if (fs::exists(folder() / (one + ".awq"))) {
      const pipeline::SearchResult expected = pipeline::read_search(folder() / (one + ".awq"));
      const pipeline::SearchResult found = pipeline::read_search(folder() / (two + ".awq"));
      EXPECT_EQ(keys_of(expected.scales), keys_of(found.scales));
      EXPECT_EQ(keys_of(expected.clips), keys_of(found.clips));
      EXPECT_EQ(found.clips.size(), 28);
    }
    if (settings[i].back() == "gguf-q4_k_m") {
      EXPECT_EQ(names_of(bytes(one)), names_of(bytes(two)));
    } else {
      expect_equivalent(one, two);
    }
  }
}

// A model of random weights with four experts in each of two blocks, and rows of token ids.
TEST_F(MpiQuantize, ExpertsAreShared) {
  const Json golden = read_json_file(golden_file("qwen3_moe"));
  write_golden_checkpoint(golden.at("cases").at(0), folder() / "mixture");
  std::string rows;
  for (uint64_t row = 0; row < 24; ++row) {
    Json ids = Json::array();
    for (uint64_t i = 0; i < 32; ++i) ids.push_back(splitmix64(1000 * row + i) % 96);
    rows += dump_json(Json{{"tokens", ids}}) + "\n";
  }
  write_text(folder() / "ids.jsonl", rows);
  const auto words = [](const std::string& out, const Words& more) {
    Words all = {"quantize", "--model", "mixture",       "--calib", "ids.jsonl",        "--out", out, "--group-size", "32",
                 "--n-grid", "4",       "--max-seq-len", "32",      "--self-generated", "0"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  for (const Words& more : {Words{}, Words{"--no-propagate-error"}}) {
    const std::string name = more.empty() ? "a" : "b";
    const ProgramResult alone = run_alone(words(name, more));
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    for (const int ranks : {2, 3}) {
      SCOPED_TRACE(fmt::format("{} ranks {}", ranks, fmt::join(more, " ")));
      const std::string out = fmt::format("{}{}", name, ranks);
      const ProgramResult result = run_ranks(ranks, words(out, more));
      ASSERT_EQ(result.exit_code, 0) << result.err;
      expect_equivalent(name, out);
      const auto layers = [&](const std::string& of) {
        std::map<std::string, int64_t> routed;
        const Json metadata = read_json_file(folder() / of / "quantization_metadata.json");
        for (const Json& layer : metadata.at("layers")) {
          // Later blocks read what was rounded, and may send a token elsewhere.
          if (layer.at("name").get<std::string>().find("layers.0.") != std::string::npos)
            routed[layer.at("name").get<std::string>()] = layer.value("routed_tokens", int64_t{-1});
        }
        return routed;
      };
      const std::map<std::string, int64_t> expected = layers(name);
      const std::map<std::string, int64_t> found = layers(out);
      EXPECT_EQ(found, expected);
      EXPECT_TRUE(std::any_of(found.begin(), found.end(), [](const auto& layer) { return layer.second > 0; }));
    }
  }
}

TEST_F(MpiQuantize, StoppedInTheMiddleItGoesOnAndGivesTheSameBytes) {
  const auto words = [&](const std::string& out) {
    return demo_words(out, {"--samples", "128"}, (kDemoModel / "data/calib_mixed.jsonl").string());
  };
  ASSERT_EQ(run_ranks(2, words("whole")).exit_code, 0);
  // As whoever presses Ctrl-C does: mpirun ends its ranks, within a second, in which they may get to the end.
  ProgramCall call = call_of(launch(2, salient(words("out"))), folder());
  call.interrupt_when = [&](const std::string&) { return blocks_done("out") >= 1; };
  ProgramResult stopped;
  for (int tries = 0; tries < 5 && blocks_done("out") < 1; ++tries) {
    fs::remove_all(folder() / "out");
    stopped = run_program(call);
  }
  EXPECT_NE(stopped.exit_code, 0);
  ASSERT_GE(blocks_done("out"), 1);
  const ProgramResult result = run_ranks(2, words("out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("going on at block"));
  expect_same_bytes("whole", "out");
}

TEST_F(MpiQuantize, AKilledRankEndsAllAndTheWorkGoesOn) {
  ASSERT_EQ(run_ranks(2, demo_words("whole")).exit_code, 0);
  const auto started = std::chrono::steady_clock::now();
  EXPECT_NE(run_killed("out", 2).exit_code, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(120));
  ASSERT_GE(blocks_done("out"), 2);
  const ProgramResult result = run_ranks(2, demo_words("out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("going on at block"));
  expect_same_bytes("whole", "out");
}

TEST_F(MpiQuantize, WithAnotherNumberOfRanksItBeginsAnew) {
  ASSERT_EQ(run_ranks(3, demo_words("three")).exit_code, 0);
  EXPECT_NE(run_killed("out", 1).exit_code, 0);
  ASSERT_GE(blocks_done("out"), 1);
  const ProgramResult three = run_ranks(3, demo_words("out"));
  ASSERT_EQ(three.exit_code, 0) << three.err;
  EXPECT_THAT(three.err, AllOf(Not(HasSubstr("going on")), HasSubstr("beginning again")));
  expect_same_bytes("three", "out");
}

TEST_F(MpiQuantize, WhereAFileOfAnotherRankIsGoneOrChangedItBeginsAnew) {
  ASSERT_EQ(run_ranks(2, demo_words("two")).exit_code, 0);
  const auto remove = [](const fs::path& file) { fs::remove(file); };
  const auto change = [](const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-1, std::ios::end);
    const char last = static_cast<char>(stream.get());
    stream.seekp(-1, std::ios::end);
    stream.put(static_cast<char>(last ^ 1));
  };
  const std::pair<std::string, std::function<void(const fs::path&)>> cases[] = {{"lost", remove}, {"changed", change}};
  for (const auto& [out, damage] : cases) {
    EXPECT_NE(run_killed(out, 1).exit_code, 0);
    ASSERT_GE(blocks_done(out), 1);
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder() / (out + ".partial"))) {
      if (entry.path().filename().string().find("_rank1") != std::string::npos) files.push_back(entry.path());
    }
    ASSERT_FALSE(files.empty());
    for (const fs::path& file : files) damage(file);
    const ProgramResult two = run_ranks(2, demo_words(out));
    ASSERT_EQ(two.exit_code, 0) << two.err;
    EXPECT_THAT(two.err, Not(HasSubstr("going on")));
    expect_same_bytes("two", out);
  }
}

// Which tells the ranks of one another by PMIx; Debian's Open MPI and Slurm both have it.
TEST_F(MpiQuantize, SlurmStartsRanksToo) {
  if (const auto missing = SlurmCluster::missing()) GTEST_SKIP() << *missing;
  const SlurmCluster cluster;
  ASSERT_EQ(run_ranks(2, demo_words("two")).exit_code, 0);
  Words words = {"--mpi=pmix", "--ntasks=2", "--overcommit", "--kill-on-bad-exit"};
  const Words command = salient(demo_words("out"));
  words.insert(words.end(), command.begin(), command.end());
  ProgramCall call = call_of(words, folder());
  call.program = find_program("srun");
  const ProgramResult result = run_program(call);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  expect_same_bytes("two", "out");
}

// How often a text is in another.
int64_t count(const std::string& text, const std::string& part) {
  int64_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST_F(MpiQuantize, AnErrorOfAnyRankIsSaidOnceAndEndsAll) {
  // One that all ranks meet.
  const auto started = std::chrono::steady_clock::now();
  const ProgramResult all = run_ranks(3, demo_words("out", {"--group-size", "100"}));
  EXPECT_EQ(all.exit_code, 2) << all.err;
  EXPECT_EQ(count(all.err, "salient: "), 1) << all.err;
  EXPECT_THAT(all.err, Not(HasSubstr("rank 0 of")));

  // One of rank 1 before the work: it reads another file.
  const ProgramResult early =
      run_program(call_of(two_ranks(salient(demo_words("out")), salient(demo_words("out", {}, "missing.jsonl"))), folder()));
  EXPECT_EQ(early.exit_code, 3) << early.err;
  EXPECT_EQ(count(early.err, "salient: "), 1) << early.err;
  EXPECT_THAT(early.err, AllOf(HasSubstr("rank 1 of 2: "), HasSubstr("missing.jsonl")));

  // One of rank 1 in the middle: its hidden states are gone.
  ProgramCall call = call_of(launch(2, salient(demo_words("lost"))), folder());
  call.kill_when = [&](const std::string&) {
    std::error_code ignored;
    for (int block = 1; block < 4; ++block)
      fs::remove(folder() / "lost.partial" / fmt::format("hidden_{}_rank1.bin", block), ignored);
    return false;
  };
  const ProgramResult late = run_program(call);
  EXPECT_EQ(late.exit_code, 3) << late.err;
  EXPECT_EQ(count(late.err, "salient: "), 1) << late.err;
  EXPECT_THAT(late.err, AllOf(HasSubstr("rank 1 of 2: "), HasSubstr("_rank1.bin")));
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(120));
}

TEST_F(MpiQuantize, RanksThatMadeDifferentJobsDoNotBegin) {
  const ProgramResult result =
      run_program(call_of(two_ranks(salient(demo_words("out", {}, "calibration.jsonl", "0")),
                                    salient(demo_words("out", {"--samples", "11"}, "calibration.jsonl", "0"))),
                          folder()));
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("rank 1 of 2"), HasSubstr("another job than rank 0")));
}

TEST_F(MpiQuantize, WhatCannotBeSharedIsRefusedBeforeAnyWork) {
  const ProgramResult block = run_ranks(2, demo_words("out", {"--objective", "block"}));
  EXPECT_EQ(block.exit_code, 5) << block.err;
  EXPECT_THAT(block.err, HasSubstr("objective block cannot be shared over ranks"));
  const ProgramResult curve = run_ranks(2, demo_words("out", {"--rows-curve"}));
  EXPECT_EQ(curve.exit_code, 5) << curve.err;
  EXPECT_THAT(curve.err, HasSubstr("rows_curve cannot be shared over ranks"));
  Json ids = Json::array();
  for (int64_t id = 0; id < 520; ++id) ids.push_back(id);
  write_text(folder() / "ids.jsonl", dump_json(Json{{"tokens", ids}}) + "\n");
  const ProgramResult few = run_ranks(6, demo_words("out", {}, "ids.jsonl", "0"));
  EXPECT_EQ(few.exit_code, 2) << few.err;
  EXPECT_THAT(few.err, HasSubstr("too few for 6 ranks"));
  const ProgramResult run = run_ranks(2, {"run", "config.yaml"});
  EXPECT_EQ(run.exit_code, 5) << run.err;
  EXPECT_THAT(run.err, HasSubstr("run cannot be shared over ranks"));
  EXPECT_EQ(count(run.err, "salient: "), 1) << run.err;
  const ProgramResult help = run_ranks(2, {"--help"});
  EXPECT_EQ(help.exit_code, 0) << help.err;
  EXPECT_EQ(count(help.out, "usage: salient"), 1);
  EXPECT_FALSE(fs::exists(folder() / "out.partial"));
}

}  // namespace
}  // namespace salient::test
